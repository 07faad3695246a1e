"""Wrong answers to exercise 5: what each does, the solution's code, the mistake in its place, a word of the
hint."""

SLICE = "frequencies[-(len(frequencies) - count) :] = 0"

MUTANTS = [
    ("int for round", "round(self.p", "int(self.p", "rounded"),
    (
        "rounded up",
        "count = round(self.p * len(frequencies))",
        "count = -int(-self.p * len(frequencies) // 1)",
        "rounded",
    ),
    ("always 0.75", "self.p", "0.75", "is it self.p"),
    ("the last of a slice that may be empty", "frequencies[count:] = 0", SLICE, "f\\[-0:\\]"),
    (
        "the clip always",
        "kept = len(FoPE(config).frequencies)",
        "from dataclasses import replace\n\n"
        "    kept = len(FoPE(replace(config, fope_clip=True)).frequencies)",
        "fope_clip were ignored",
    ),
    (
        "left out",
        "frequencies[count:] = 0\n        return frequencies",
        "return frequencies[:count]",
        "does not go",
    ),
    ("the slowest stay", "frequencies[count:] = 0", "frequencies[: len(frequencies) - count] = 0", "fastest"),
    ("p of all dimensions", "self.p * len(frequencies)", "self.p * 2 * len(frequencies)", "half as many"),
    ("share of dimensions", "(config.head_dim // 2)", "config.head_dim", "head_dim"),
    (
        "the share that goes",
        "return kept / (config.head_dim // 2)",
        "return 1 - kept / (config.head_dim // 2)",
        "goes",
    ),
    ("a share of 512", "return kept / (config.head_dim // 2)", "return kept / 32", "p_of_fope"),
    ("the number for the share", "return kept / (config.head_dim // 2)", "return kept", "p_of_fope"),
    (
        "one more",
        "count = round(self.p * len(frequencies))",
        "count = min(round(self.p * len(frequencies)) + 1, len(frequencies))",
        "one too many",
    ),
    (
        "as slow as the slowest that stays",
        "frequencies[count:] = 0",
        "frequencies[count:] = frequencies[count - 1]",
        "wrong number of frequencies\nwith",
    ),
    ("half up", "round(self.p * len(frequencies))", "int(self.p * len(frequencies) + 0.5)", "rounded"),
    (
        "what goes is rounded",
        "count = round(self.p * len(frequencies))",
        "count = len(frequencies) - round((1 - self.p) * len(frequencies))",
        "rounded",
    ),
    (
        "two decimals",
        "return kept / (config.head_dim // 2)",
        "return round(kept / (config.head_dim // 2), 2)",
        "p_of_fope",
    ),
]
