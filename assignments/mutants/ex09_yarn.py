"""Wrong answers to exercise 9: what each does, the solution's code, the mistake in its place, a word of the
hint."""

INDEX = "dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))"
RAMP = "((index - low) / max(high - low, 0.001)).clamp(0, 1)"
STRETCH = "frequencies * (1 - ramp) + frequencies / scale * ramp"

MUTANTS = [
    ("multiplied positions", "positions / self.scale", "positions * self.scale", "multiplied"),
    ("whole positions", "positions / self.scale", "positions // self.scale", "whole numbers"),
    ("a scale of 4", "positions / self.scale", "positions / 4", "table"),
    ("nothing", "positions / self.scale", "positions", "nothing were interpolated"),
    ("turns of 1 radian", INDEX, INDEX.replace(" * 2 * math.pi", ""), "1 radian"),
    (
        "index of a dimension",
        INDEX,
        INDEX.replace("(2 * math.log(theta))", "math.log(theta)"),
        "not of a pair",
    ),
    ("rounded index", "return " + INDEX, "return math.floor(" + INDEX + ")", "rounded"),
    ("falling", RAMP, "1 - " + RAMP, "it fell"),
    ("not cut off", RAMP, RAMP.removesuffix(".clamp(0, 1)"), "not cut off"),
    (
        "low and high not rounded",
        "max(math.floor(index_of(32, length, theta, dim)), 0)\n"
        "    high = min(math.ceil(index_of(1, length, theta, dim)), dim - 1)",
        "max(index_of(32, length, theta, dim), 0)\n    high = min(index_of(1, length, theta, dim), dim - 1)",
        "not rounded",
    ),
    (
        "low not below 0 forgotten",
        "max(math.floor(index_of(32, length, theta, dim)), 0)",
        "math.floor(index_of(32, length, theta, dim))",
        "low were below 0",
    ),
    ("high cut at the last pair", "dim - 1)", "dim // 2 - 1)", "dim / 2 - 1"),
    (
        "high not cut",
        "min(math.ceil(index_of(1, length, theta, dim)), dim - 1)",
        "math.ceil(index_of(1, length, theta, dim))",
        "high were above",
    ),
    ("low and high swapped", "index_of(32, length", "index_of(1 / 32, length", "ramp"),
    ("fast ones divided", STRETCH, "frequencies * ramp + frequencies / scale * (1 - ramp)", "changed places"),
    ("periods", STRETCH, "1 / ((1 - ramp) / frequencies + ramp * scale / frequencies)", "periods"),
    ("all divided", STRETCH, "frequencies / scale", "all were divided"),
    ("base 2", "0.1 * math.log(scale) + 1", "0.1 * math.log2(scale) + 1", "base 2"),
    (
        "the score's factor",
        "0.1 * math.log(scale) + 1",
        "(0.1 * math.log(scale) + 1) ** 2",
        "factor of the score",
    ),
    (
        "yarn of model.py through the experiments",
        "def temperature(scale: float) -> float:\n",
        "def temperature(scale: float) -> float:\n    experiments.RoPE\n",
        "refused.* only interpolations",
    ),
    (
        "RoPE's table is changed for all",
        "class Interpolated(RoPE):\n    scale = 4.0\n",
        "RoPE.table = lambda self, positions: (positions, positions)\n\n\n"
        "class Interpolated(RoPE):\n    scale = 4.0\n",
        "class was changed: RoPE.table",
    ),
    (
        "frequencies divided in place, at every call",
        "positions / self.scale",
        "positions + 0 * self.frequencies.div_(self.scale).sum()",
        "in a second call",
    ),
    (
        "the ramp changed in place",
        "return frequencies * (1 - ramp) + frequencies / scale * ramp",
        "ramp *= 1 - 1 / scale\n    return frequencies * (1 - ramp)",
        "changed the ramp",
    ),
    (
        "low == high alone is mended",
        "    return ((index - low) / max(high - low, 0.001)).clamp(0, 1)",
        "    high = max(high, 0)\n"
        "    return ((index - low) / (0.001 if low == high else high - low)).clamp(0, 1)",
        "(?s)ramp: wrong values.*32768",
    ),
    (
        "positions divided in place",
        "return super().table(positions / self.scale)",
        "positions = positions.float()\n        positions /= self.scale\n"
        "        return super().table(positions)",
        "changed the positions",
    ),
]
