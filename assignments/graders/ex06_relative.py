"""Grader of exercise 6: the error by its definition, worked out here with complex numbers in float64."""

import math

import torch

from assignments.checks import Part, expect, expect_close, is_number
from model import POSITIONS, FoPE, GPTConfig, NoPE

MODEL_NAMES = {"NoPE"}
EXPERIMENTS = {"errors"}
SMALL = {"n_head": 3, "n_embd": 96, "block_size": 128}


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 3, 10, 32)
    q = q * torch.linspace(0.5, 2, 10)[:, None]
    return q + 0.5, k + 0.5  # with a mean, scores have one: a standard deviation is no root mean square


class Growing(NoPE):
    """No FoPE, and not relative: queries grow with where the text starts."""

    def encode(self, q, k, start):
        return q * (1 + start / 100), k

    def bias(self, q_len, k_len):
        return torch.ones(3, q_len, k_len)  # no part of the dot products


class Wider(NoPE):
    """Writes where a token stands into a feature in front, as ALiBi does, but not as a distance."""

    def encode(self, q, k, start):
        positions = torch.arange(start, start + q.size(2), dtype=q.dtype)[:, None]
        feature = (positions / 100 - 1).expand(*q.shape[:3], 1)
        return torch.cat((feature, q), dim=-1), torch.cat((feature, k), dim=-1)


def fope(sigma: float, init: str = "normal") -> FoPE:
    torch.manual_seed(0)  # the same draw for every σ, scaled
    return FoPE(GPTConfig(fope_sigma=sigma, fope_init=init, **SMALL))


def turned(pos: FoPE, x: torch.Tensor, start: int) -> torch.Tensor:
    positions = torch.arange(start, start + x.size(-2), dtype=torch.float64)
    angles = positions[:, None] * pos.frequencies.double()
    series = torch.complex(angles.cos() @ pos.cos_coef.double(), angles.sin() @ pos.sin_coef.double())
    clipped = torch.ones(*series.shape[:2], x.size(-1) // 2 - series.size(-1), dtype=series.dtype)
    a, b = x.double().chunk(2, dim=-1)
    return torch.complex(a, b) * torch.cat((series, clipped), dim=-1)


def scores(pos: FoPE, q_start: int, k_start: int) -> torch.Tensor:
    q, k = inputs()
    return (turned(pos, q, q_start) @ turned(pos, k, k_start).conj().transpose(-2, -1)).real


def root_mean_square(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()


def error(pos: FoPE, shift: int) -> float:
    here = scores(pos, 0, 0)
    return root_mean_square(scores(pos, shift, shift) - here) / root_mean_square(here)


def zero(answer) -> None:
    q, k = inputs()
    encodings = {name: POSITIONS[name](GPTConfig(pos=name, **SMALL)) for name in POSITIONS if name != "fope"}
    encodings["fope with σ = 0"] = fope(0.0)
    for name, pos in encodings.items():
        came = answer.relative_error(pos, q, k, 50)
        expect_close("relative_error of a relative encoding", came, 0.0, f"{name}, shift 50", atol=1e-3)


def definition(answer) -> None:
    q, k = inputs()
    for init in ("normal", "xavier"):
        for sigma in (0.3, 0.05, 2.0):
            for shift in (50, 1, 1000):
                pos = fope(sigma, init)
                here = scores(pos, 0, 0)
                there = scores(pos, shift, shift)
                change = there - here
                alone = scores(pos, shift, 0) - here
                deviation = change.std(correction=0) / here.std(correction=0)
                each = change.square().mean(dim=(1, 2, 3)) / here.square().mean(dim=(1, 2, 3))
                heads = change.square().mean(dim=(0, 2, 3)) / here.square().mean(dim=(0, 2, 3))
                causal = torch.ones(10, 10, dtype=torch.bool).tril()
                expected = error(pos, shift)
                known = {
                    "it were not divided by the size of the scores": root_mean_square(change),
                    "it were divided by the size of the moved scores": root_mean_square(change)
                    / root_mean_square(there),
                    "the queries alone were moved": root_mean_square(alone) / root_mean_square(here),
                    "mean absolute values were taken, not root mean squares": change.abs().mean()
                    / here.abs().mean(),
                    "standard deviations were taken, which leave out the mean": deviation,
                    "the ratio were of largest values": change.abs().max() / here.abs().max(),
                    "each score were divided by itself, and then averaged": (change / here).abs().mean(),
                    "each score were divided by itself": root_mean_square(change / here),
                    "each example had a ratio of its own, and these were averaged": each.sqrt().mean(),
                    "each head had a ratio of its own, and these were averaged": heads.sqrt().mean(),
                    "the root were missing": expected**2,
                    "scores were squared after the mean": abs(change.mean() / here.mean()),
                    "only keys before their query counted; the docstring says all": root_mean_square(
                        change[..., causal]
                    )
                    / root_mean_square(here[..., causal]),
                }
                came = answer.relative_error(pos, q, k, shift)
                case = f"FoPE, {init} σ = {sigma}, shift {shift}"
                expect_close(
                    "relative_error",
                    came,
                    expected,
                    case,
                    atol=0.01 * expected,
                    known=known,
                    known_atol=1e-4,
                )
    came = answer.relative_error(Growing(GPTConfig(pos="nope", **SMALL)), q, k, 50)
    case = "an encoding that is no FoPE, multiplies queries by 1 + start / 100 and has a bias of 1, shift 50"
    here = q @ k.transpose(-2, -1)
    biased = 0.5 * root_mean_square(here) / root_mean_square(here + 1)
    known = {"bias() were added: it is no part of the dot products": biased}
    expect_close("relative_error", came, 0.5, case, atol=1e-3, known=known)
    came = answer.relative_error(Growing(GPTConfig(pos="nope", **SMALL)), q / 1e4, k / 1e4, 50)
    case = "queries and keys ten thousand times smaller, which changes no share, shift 50"
    expect_close("relative_error", came, 0.5, case, atol=1e-3)
    wider = Wider(GPTConfig(pos="nope", **SMALL))
    before, after = (a @ b.transpose(-2, -1) for a, b in (wider.encode(q, k, 0), wider.encode(q, k, 50)))
    expected = root_mean_square(after - before) / root_mean_square(before)
    case = "an encoding that gives q and k a feature more, shift 50"
    expect_close("relative_error", answer.relative_error(wider, q, k, 50), expected, case, atol=1e-3)


def exponent(answer) -> None:
    came = answer.EXPONENT
    expect(came is not None, "not filled in yet: predict EXPONENT at the top of the file")
    expect(is_number(came), f"EXPONENT: a number was expected, a {type(came).__name__} came")
    slope = math.log10(error(fope(0.01), 50) / error(fope(0.001), 50))
    whole = round(slope)  # what multiplying out the series gives; the measured slope is a little off
    hint = "run the experiment: by which factor does the error grow when σ grows tenfold, from 0.003 to 0.03?"
    if came != whole and abs(came - whole) < 0.5:
        hint = "multiplied out, the series gives a whole number: a measurement is only near it"
    expect(came == whole, f"EXPONENT: {came} is not what is measured\n{hint}")


PARTS = [
    Part("relative encodings", 2, zero),
    Part("definition", 4, definition),
    Part("exponent", 2, exponent),
]
