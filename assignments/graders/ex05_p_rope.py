"""Grader of exercise 5: the frequencies, the rotation of q and k, and FoPE's clip in model.py."""

import math
from dataclasses import replace

import torch

from assignments.checks import Part, expect, expect_close, is_number, registered
from model import GPT, FoPE, GPTConfig, RoPE

MODEL_NAMES = {"FoPE", "GPTConfig", "NoPE", "RoPE"}


def make(answer, p: float, head_dim: int, **settings):
    """The student's encoding with that p, in a subclass, so that the class stays as it is."""
    encoding = type("PRoPE", (answer.PRoPE,), {"p": p})
    return encoding(GPTConfig(n_head=2, n_embd=2 * head_dim, pos="rope", **settings))


def frequencies(answer) -> None:
    for p, head_dim in (
        (0.75, 64),
        (0.25, 64),
        (1.0, 64),
        (0.0, 64),
        (0.7, 64),
        (0.4, 24),
        (0.2, 64),
        (0.25, 20),
        (0.9, 2),
        (0.5, 6),
        (0.3, 50),
    ):
        case = f"p {p}, head_dim {head_dim}"
        rope = RoPE(GPTConfig(n_head=2, n_embd=2 * head_dim, pos="rope")).frequencies
        count = round(p * len(rope))
        came = make(answer, p, head_dim).frequencies
        expect(
            torch.is_tensor(came),
            f"make_frequencies: a tensor was expected, a {type(came).__name__} came\nwith {case}",
        )
        lengths = f"expected {tuple(rope.shape)}, came {tuple(came.shape)}"
        expect(
            came.shape == rope.shape,
            f"make_frequencies: a frequency becomes zero, it does not go\nwith {case}\n{lengths}",
        )
        stay = int((came != 0).sum())
        numbers = f"expected {count} that are not zero, came {stay}"
        message = "make_frequencies: wrong number of frequencies"
        if p == 1 and stay == 0:
            message += ", what does f[-0:] mean?"
        elif abs(stay - p * len(rope)) < 1:
            message += ", how is p K rounded?"
        elif stay == count + 1:
            message += ", one too many"
        elif stay == round(0.75 * len(rope)):
            message += ", is it self.p?"
        elif torch.equal(came, rope) and p > 0.5:
            message += ", a head has half as many frequencies as dimensions"
        expect(stay == count, f"{message}\nwith {case}, p K = {p * len(rope):g}\n{numbers}")
        expected = rope.clone()
        expected[count:] = 0
        slow = rope.clone()
        slow[: len(rope) - count] = 0
        known = {"the slowest stayed: it is the fastest that stay": slow}
        expect_close("make_frequencies", came, expected, case, atol=1e-9, known=known)


def rotation(answer) -> None:
    x = torch.randn(1, 2, 5, 64)
    q, k = make(answer, 0.75, 64).encode(x, x, 100)
    for name, turned in (("q", q), ("k", k)):
        came = (turned != x).any(dim=2)[0, 0]
        expected = torch.tensor(2 * (24 * [True] + 8 * [False]))
        expect_close(
            f"which dimensions of {name} are turned (1) and which not (0)",
            came,
            expected,
            "p 0.75, head_dim 64",
        )
    torch.manual_seed(0)
    with registered("p_rope", answer.PRoPE):
        model = GPT(GPTConfig(32, 16, n_layer=1, n_head=2, n_embd=32, pos="p_rope")).eval()
        idx = torch.randint(32, (1, 40))
        whole = model.lm_head(model.hidden(idx))
        cache = [{}]
        parts = [model.lm_head(model.hidden(part, cache)) for part in idx.split([20, 1, 19], dim=1)]
    expect_close(
        "a model's logits with a cache, against without",
        torch.cat(parts, dim=1),
        whole,
        "40 tokens",
        atol=1e-3,
    )


def p_of_fope(answer) -> None:
    cases = [
        {},
        {"block_size": 8192},
        {"block_size": 1000},
        {"block_size": 64},
        {"block_size": 4},
        {"rope_theta": 5e6},
        {"fope_clip": False},
    ]
    for head_dim in (64, 24, 128, 256):
        for settings in cases:
            config = GPTConfig(n_head=2, n_embd=2 * head_dim, fope_series=False, **settings)
            case = (
                f"head_dim {head_dim}, N {config.block_size}, θ {config.rope_theta:g}, "
                f"fope_clip {config.fope_clip}"
            )
            fope = FoPE(config)
            came = answer.p_of_fope(config)
            pairs = head_dim // 2
            if is_number(came) and math.isfinite(came):
                stay = round(came * pairs)
                if stay == len(fope.frequencies):
                    continue  # p-RoPE rounds: any p near the share will do
                case += f"\nof {pairs} frequencies FoPE keeps {len(fope.frequencies)}, round(p K) is {stay}"
            known = {}
            if not config.fope_clip:
                clipped = FoPE(replace(config, fope_clip=True))
                known["fope_clip were ignored"] = 2 * len(clipped.frequencies) / head_dim
            known |= {
                "head_dim were the number of frequencies": len(fope.frequencies) / head_dim,
                "the share that goes were given, not the share that stays": 1
                - 2 * len(fope.frequencies) / head_dim,
            }
            expect_close(
                "p_of_fope",
                came,
                2 * len(fope.frequencies) / head_dim,
                case,
                atol=0.2 / head_dim,
                known=known,
            )


def same_rotation(answer) -> None:
    for head_dim, settings in (
        (64, {}),
        (24, {"block_size": 100}),
        (128, {"rope_theta": 5e6}),
        (64, {"block_size": 4}),
    ):
        config = GPTConfig(n_head=2, n_embd=2 * head_dim, fope_series=False, **settings)
        case = f"head_dim {head_dim}, N {config.block_size}, θ {config.rope_theta:g}"
        pos = make(answer, answer.p_of_fope(config), head_dim, **settings)
        x = torch.randn(1, 2, 9, head_dim)
        for start in (0, 1000):  # farther, float32 angles differ by how their frequencies were rounded
            expected, _ = FoPE(config).encode(x, x, start)
            came, _ = pos.encode(x, x, start)
            expect_close(
                "p-RoPE with your p, against FoPE's clip",
                came,
                expected,
                f"{case}, from {start} on",
                atol=1e-3,
            )


PARTS = [
    Part("frequencies", 3, frequencies),
    Part("rotation", 1, rotation),
    Part("p of FoPE", 3, p_of_fope),
    Part("the same rotation", 1, same_rotation),
]
