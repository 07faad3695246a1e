"""Wrong answers to exercise 1: what each does, the solution's code, the mistake in its place, a word of the
hint."""

MUTANTS = [
    ("exponent m / head_dim", "/ head_dim", "/ head_dim / 2", "square root"),
    ("exponent 4m / head_dim", "/ head_dim", "/ (head_dim // 2)", "square"),
    ("slowest first", "theta**-exponents", "(theta**-exponents).flip(0)", "fastest comes first"),
    ("one frequency a dimension", "(0, head_dim, 2,", "(0, head_dim,", "one frequency a pair"),
    (
        "linspace with its end",
        "torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim",
        "torch.linspace(0, 1, head_dim // 2)",
        "too far",
    ),
    ("turns for radians", "theta**-exponents", "theta**-exponents / 6.2831853", "radians"),
    (
        "sine and cosine swapped",
        "return angles.cos(), angles.sin()",
        "return angles.sin(), angles.cos()",
        "changed places",
    ),
    ("positions in half precision", "positions.float()", "positions.bfloat16()", "bfloat16"),
    (
        "a matrix product under autocast",
        "positions.float()[:, None] * frequencies",
        "positions.float()[:, None] @ frequencies[None]",
        "bfloat16",
    ),
    ("positions ignored", "positions.float()", "torch.arange(len(positions)).float()", "ignored"),
    ("neighbours paired", "a, b = x.chunk(2, dim=-1)", "a, b = x[..., ::2], x[..., 1::2]", "neighbours"),
    (
        "clockwise",
        "(a * cos - b * sin, a * sin + b * cos)",
        "(a * cos + b * sin, b * cos - a * sin)",
        "clockwise",
    ),
    ("no minus", "a * cos - b * sin", "a * cos + b * sin", "minus"),
    (
        "in place",
        "a, b = x.chunk(2, dim=-1)\n",
        "a, b = x.chunk(2, dim=-1)\n    a *= 1.5\n    a /= 1.5\n    a -= b * 0 + 1e-3\n",
        "changed its input",
    ),
    (
        "second half from the new first half",
        "a * sin + b * cos",
        "(a * cos - b * sin) * sin + b * cos",
        "new values",
    ),
    (
        "a view of what was transposed",
        "a, b = x.chunk(2, dim=-1)",
        "a, b = x.view(*x.shape[:2], -1).view(x.shape).chunk(2, dim=-1)",
        "which view\\(\\) needs",
    ),
    ("always float32", "turned.type_as(x)", "turned", "dtype"),
    (
        "no gradient",
        "a, b = x.chunk(2, dim=-1)",
        "x = x.detach().clone()\n    a, b = x.chunk(2, dim=-1)",
        "no gradient reaches x",
    ),
    (
        "always on the CPU",
        "turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)",
        "turned = torch.zeros(x.shape)\n"
        "    turned[..., : a.size(-1)] = a * cos - b * sin\n"
        "    turned[..., a.size(-1) :] = a * sin + b * cos",
        "device of x",
    ),
    (
        "RoPE of model.py through the experiments",
        "import torch\n",
        "import torch\n\nfrom assignments import experiments\n\nRoPE = experiments.RoPE\n",
        "refused.* assignments",
    ),
    (
        "rotate of model.py through sys",
        "return turned.type_as(x)",
        'import collections\n    return collections._sys.modules["model"].rotate(x, cos, sin)',
        "refused.* _sys",
    ),
    (
        "what compares values is replaced",
        "import torch\n",
        "import torch\n\ntorch.allclose = lambda *a, **k: True\n",
        "refused.* torch.allclose",
    ),
    (
        "what compares values is replaced, by another name",
        "import torch\n",
        "import torch\n\nT = torch\nT.allclose = lambda *a, **k: True\n",
        "refused.* T.allclose",
    ),
    (
        "what compares values is replaced, by setattr",
        "import torch\n",
        'import torch\n\nsetattr(torch, "allclose", lambda *a, **k: True)\n',
        "refused.* allclose",
    ),
    (
        "sys by a name that is computed",
        "import torch\n",
        'import collections\n\nimport torch\n\nsystem = getattr(collections, "".join(("_s", "ys")))\n',
        "refused.* _sys",
    ),
    (
        "in place where x is in float64 already",
        "a, b = x.chunk(2, dim=-1)\n",
        "given, x = x, x.double()\n"
        "    a, b = [half.clone() for half in x.chunk(2, dim=-1)]\n"
        "    x[:] = 1\n    x = given\n",
        "changed its input",
    ),
    (
        "in place where x is in half precision",
        "return turned.type_as(x)",
        "return x.copy_(turned) if x.element_size() == 2 else turned.type_as(x)",
        "(?s)changed its input x.*bfloat16",
    ),
    (
        "float32 for float64",
        "return turned.type_as(x)",
        "return turned.type_as(x) if x.element_size() == 2 else turned.float()",
        "(?s)wrong dtype.*expected torch.float64",
    ),
    (
        "a table of fixed length",
        "angles = positions.float()[:, None] * frequencies  # (T, pairs)",
        "angles = (torch.arange(8192).float()[:, None] * frequencies)[positions]",
        "positions have no end",
    ),
    (
        "a table that is kept, whatever the frequencies",
        "angles = positions.float()[:, None] * frequencies  # (T, pairs)",
        "kept = table.kept = getattr(table, 'kept', {})\n"
        "    key = (len(frequencies), int(positions.max()) + 1)\n"
        "    if key not in kept:\n"
        "        kept[key] = torch.arange(key[1]).float()[:, None] * frequencies\n"
        "    angles = kept[key][positions]",
        "those of an earlier call",
    ),
    (
        "rotate of model.py by its dotted name",
        "return turned.type_as(x)",
        'return torch._utils._import_dotted_name("model.rotate")(x, cos, sin)',
        "refused.* _import_dotted_name",
    ),
    (
        "a table that is kept for the tensors that it was made of",
        "def table(",
        "import functools\n\n\n@functools.lru_cache\ndef table(",
        "that of the earlier call",
    ),
    (
        "a table of all positions up to the last",
        "angles = positions.float()[:, None] * frequencies  # (T, pairs)",
        "angles = (torch.arange(int(positions.max()) + 1).float()[:, None] * frequencies)[positions]",
        "a table of all up to the last",
    ),
    (
        "a table for each head is known by its first size",
        "a, b = x.chunk(2, dim=-1)",
        "a, b = x.chunk(2, dim=-1)\n"
        "    if len(cos) == x.size(1):\n"
        "        cos = cos.reshape(x.size(1), -1, cos.size(-1))\n"
        "        sin = sin.reshape(x.size(1), -1, sin.size(-1))",
        "(?s)wrong values.*x .1, 3, 3, 8., cos and sin .3, 4.",
    ),
    (
        "sizes of 1 dropped",
        "a, b = x.chunk(2, dim=-1)",
        "a, b = x.chunk(2, dim=-1)\n    cos, sin = cos.squeeze(), sin.squeeze()",
        "(?s)rotate: wrong shape.*x .2, 3, 1, 8.",
    ),
    (
        "a table on the CPU",
        "return angles.cos(), angles.sin()",
        "cos, sin = torch.empty(2, *angles.shape)\n"
        "    cos[:] = angles.cos()\n    sin[:] = angles.sin()\n    return cos, sin",
        "device of positions",
    ),
]
