"""Wrong answers to exercise 2: what each does, the solution's code, the mistake in its place, a word of the
hint."""

DRAW = "torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)\n    return"
COS = "cos_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)"
SIN = "sin_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)"

MUTANTS = [
    ("floor 1 / N", "2 * math.pi / block_size", "1 / block_size", "floor"),
    ("floor of half a turn", "2 * math.pi / block_size", "math.pi / block_size", "floor"),
    ("clipped at the floor itself", ">= floor", "> floor", "equal to the floor"),
    (
        "zeros in place of fewer",
        "frequencies[frequencies >= floor]",
        "frequencies * (frequencies >= floor)",
        "left out",
    ),
    ("no dominant frequency", COS, "cos_coef = sigma * torch.randn(n_head, kept, kept)", "own frequency"),
    (
        "1 in place of the draw on the diagonal",
        COS,
        COS + "\n    cos_coef[:, range(kept), range(kept)] = 1",
        "scale",
    ),
    (
        "heads share a draw",
        COS,
        "cos_coef = (torch.eye(kept) + sigma * torch.randn(kept, kept)).repeat(n_head, 1, 1)",
        "each head",
    ),
    ("cosine and sine share a draw", SIN, "sin_coef = cos_coef", "sine has a draw"),
    ("variance for standard deviation", SIN, SIN.replace("sigma", "sigma**2"), "scale"),
    (
        "uniform",
        SIN,
        "sin_coef = torch.eye(kept) + sigma * 3**0.5 * (2 * torch.rand(n_head, kept, kept) - 1)",
        "normal",
    ),
    ("always the same draw", COS, "torch.manual_seed(1)\n    " + COS, "same draw"),
    (
        "trained",
        "return cos_coef, sin_coef",
        "return torch.nn.Parameter(cos_coef), sin_coef",
        "never trained",
    ),
    ("sine padded with 1", "value=0.0", "value=1.0", "sine 1"),
    ("cosine padded with 0", "value=1.0", "value=0.0", "cosine 0"),
    ("transposed", "angles.cos() @ cos_coef", "angles.cos() @ cos_coef.transpose(1, 2)", "transposed"),
    (
        "own frequency alone",
        "angles.sin() @ sin_coef",
        "angles.sin() * sin_coef.diagonal(dim1=-2, dim2=-1)[:, None]",
        "no sum",
    ),
    (
        "angles summed",
        "cos = angles.cos() @ cos_coef",
        "cos = (angles @ cos_coef).cos()",
        "angles were summed",
    ),
    (
        "sine with cosine's coefficients",
        "angles.sin() @ sin_coef",
        "angles.sin() @ cos_coef",
        "coefficients of cosine",
    ),
    ("autocast", "enabled=False", "dtype=torch.bfloat16", "float32"),
    ("padding counted by frequencies", "pairs - cos.size(-1)", "pairs - len(frequencies)", "shape"),
    (
        "θ fixed in the floor's formula",
        "frequencies[frequencies >= floor]",
        "frequencies[: max(math.floor(-math.log(floor) / math.log(10_000) * len(frequencies)) + 1, 0)]",
        "ones that are given",
    ),
    ("sine is minus cosine", SIN, "sin_coef = 2 * torch.eye(kept) - cos_coef", "not drawn apart"),
    ("sine is cosine transposed", SIN, "sin_coef = cos_coef.transpose(1, 2).contiguous()", "another order"),
    ("sine is cosine, heads turned round", SIN, "sin_coef = cos_coef.flip(0)", "not drawn apart"),
    (
        "heads are one draw, rolled",
        COS,
        "draw = sigma * torch.randn(kept, kept)\n"
        "    cos_coef = torch.stack([torch.eye(kept) + draw.roll(head, 0) for head in range(n_head)])",
        "another order",
    ),
    (
        "sine is mostly cosine",
        SIN,
        SIN + "\n    sin_coef = torch.eye(kept) + 0.8 * (cos_coef - torch.eye(kept)) + "
        "0.6 * (sin_coef - torch.eye(kept))",
        "correlation",
    ),
    ("N + 1", "math.pi / block_size", "math.pi / (block_size + 1)", "is the floor the right one"),
    ("N - 1", "math.pi / block_size", "math.pi / (block_size - 1)", "is the floor the right one"),
    (
        "turns rounded",
        "frequencies[frequencies >= floor]",
        "frequencies[(2 * math.pi / frequencies).round() <= block_size]",
        "is the floor the right one",
    ),
    (
        "padding on the CPU",
        "cos = F.pad(cos, (0, clipped), value=1.0)",
        "cos = torch.cat((cos, torch.ones(*cos.shape[:2], clipped)), dim=-1)",
        "padding perhaps.*device of what is given",
    ),
    (
        "autocast of the CPU",
        "torch.autocast(positions.device.type",
        'torch.autocast("cpu"',
        "autocast is switched off for another device",
    ),
    (
        "a normal draw cut at 3 sigma",
        SIN,
        "draw = torch.nn.init.trunc_normal_(torch.empty(n_head, kept, kept), a=-3.0, b=3.0)\n"
        "    sin_coef = torch.eye(kept) + sigma * draw",
        "not cut off",
    ),
    (
        "symmetric within a head",
        COS,
        "draw = (sigma * torch.randn(n_head, kept, kept)).triu()\n"
        "    cos_coef = torch.eye(kept) + draw + draw.triu(1).transpose(1, 2)",
        "is it symmetric",
    ),
    (
        "nothing kept",
        SIN,
        "draws = [sigma * torch.randn(n_head, kept) for _ in range(kept)]\n"
        "    sin_coef = torch.eye(kept) + torch.stack(draws, dim=-1)",
        "kept may be 0",
    ),
    (
        "a normal draw cut at 2, whatever sigma",
        SIN,
        "sin_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)\n"
        "    if sigma > 0:\n"
        "        torch.nn.init.trunc_normal_(sin_coef, std=sigma)\n"
        "        sin_coef += torch.eye(kept)",
        "(?s)not cut off|wrong scale.*2.0",
    ),
    (
        "a table that is kept for the tensors that it was made of",
        "def table(",
        "import functools\n\n\n@functools.lru_cache\ndef table(",
        "that of the earlier call",
    ),
    (
        "kept up to the first that is below",
        "frequencies[frequencies >= floor]",
        "frequencies[: (frequencies < floor).int().argmax()]",
        "none was kept",
    ),
    (
        "one frequency at least",
        "frequencies[frequencies >= floor]",
        "frequencies[: max(int((frequencies >= floor).sum()), 1)]",
        "none completes a turn",
    ),
    (
        "one draw for all outputs",
        COS,
        "cos_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, 1)",
        "every output, a column",
    ),
]
