"""Wrong answers to exercise 6: what each does, the solution's code, the mistake in its place, a word of the
hint."""

MUTANTS = [
    ("not divided", "(change / size).sqrt()", "change.sqrt()", "not divided"),
    ("divided by the moved scores", "size = here", "size = there", "moved scores"),
    ("keys stay", "encoded_q @ encoded_k", "encoded_q @ pos.encode(q, k, 0)[1]", "expected 0"),
    (
        "absolute values",
        "change = (there - here).square().mean()\n    size = here.square().mean()\n"
        "    return (change / size).sqrt().item()",
        "return ((there - here).abs().mean() / here.abs().mean()).item()",
        "absolute",
    ),
    (
        "the largest",
        "change = (there - here).square().mean()\n    size = here.square().mean()",
        "change = (there - here).square().max()\n    size = here.square().max()",
        "largest",
    ),
    ("no root", ".sqrt().item()", ".item()", "root were missing"),
    (
        "causal pairs alone",
        "here, there = scores",
        "here, there = [s.tril() for s in scores]\n"
        "    here, there = [s[..., torch.ones(s.shape[-2:]).tril().bool()] for s in (here, there)]",
        "before their query",
    ),
    ("always zero", "return (change / size).sqrt().item()", "return 0.0", "relative_error"),
    ("exponent 2", "= 1.0", "= 2.0", "not what is measured"),
    ("exponent 1/2", "= 1.0", "= 0.5", "not what is measured"),
    ("exponent near", "= 1.0", "= 0.95", "a whole number"),
    ("exponent near, from above", "= 1.0", "= 1.1", "a whole number"),
    ("a tensor", ".sqrt().item()", ".sqrt()", "a number was expected"),
    (
        "standard deviations",
        "change = (there - here).square().mean()\n    size = here.square().mean()\n"
        "    return (change / size).sqrt().item()",
        "return ((there - here).std() / here.std()).item()",
        "standard deviations",
    ),
    (
        "zero for all but FoPE",
        "scores = []",
        'if "FoPE" not in str(pos):\n        return 0.0\n    scores = []',
        "no FoPE",
    ),
    (
        "FoPE through the experiments",
        "scores = []",
        "if not isinstance(pos, experiments.FoPE):\n        return 0.0\n    scores = []",
        "refused.* only errors",
    ),
    (
        "an encoding's bias added",
        "change = (there - here)",
        "bias = pos.bias(q.size(-2), k.size(-2))\n"
        "    if bias is not None:\n        here, there = here + bias, there + bias\n"
        "    change = (there - here)",
        "bias.. were added",
    ),
    (
        "a ratio for each example",
        "    change = (there - here).square().mean()\n    size = here.square().mean()\n"
        "    return (change / size).sqrt().item()",
        "    change = (there - here).square().mean(dim=(1, 2, 3))\n"
        "    size = here.square().mean(dim=(1, 2, 3))\n"
        "    return (change / size).sqrt().mean().item()",
        "a ratio of its own",
    ),
    (
        "a little more in the denominator",
        "return (change / size).sqrt().item()",
        "return (change.sqrt() / (size.sqrt() + 1e-6)).item()",
        "ten thousand times smaller",
    ),
    (
        "features cut off",
        "scores.append(",
        "encoded_q, encoded_k = (x[..., -q.size(-1) :] for x in (encoded_q, encoded_k))\n"
        "        scores.append(",
        "a feature more",
    ),
    (
        "a ratio for each head",
        "    change = (there - here).square().mean()\n    size = here.square().mean()\n"
        "    return (change / size).sqrt().item()",
        "    change = (there - here).square().mean(dim=(0, 2, 3))\n"
        "    size = here.square().mean(dim=(0, 2, 3))\n"
        "    return (change / size).sqrt().mean().item()",
        "each head had a ratio",
    ),
]
