"""Checks of exercise 2, against FoPE of model.py."""

import math

import torch
from torch.nn import functional as F

from assignments.harness import part, same, true
from model import FoPE, GPTConfig, RoPE

POSITIONS = torch.tensor([7, 0, 1, 63, 8191])


@part("pencil", 2)
def pencil(answer):
    given = [answer.TURNING, answer.SHORTEST, answer.P]
    true(None not in given, "not filled in yet: TURNING, SHORTEST and P at the top of the file")
    true(answer.TURNING != 12, "TURNING: the largest m that makes a turn is 12; how many pairs are that?")
    true(
        answer.TURNING == 13,
        f"TURNING: {answer.TURNING} is wrong; a turn is 2π, and m may be no whole number",
    )
    true(answer.SHORTEST != 62832, "SHORTEST: the slowest of 32 pairs has m = 31, and is faster than 1/θ")
    true(
        answer.SHORTEST != 47117, "SHORTEST: in 47,117 positions the slowest pair lacks a little of its turn"
    )
    true(answer.SHORTEST == 47118, f"SHORTEST: {answer.SHORTEST} is wrong; solve ω_31 N = 2π for N")
    true(abs(answer.P - 19 / 32) > 1e-3, "P: this is the share that is set to zero; p is the one that stays")
    true(abs(answer.P - 13 / 32) < 1e-3, f"P: {answer.P} is wrong; which share of the 32 is TURNING?")


@part("floor", 2)
def floor(answer):
    cases = [(RoPE(GPTConfig(rope_theta=10_000.0)).frequencies, N) for N in (256, 4, 10**6)]
    cases.append((torch.tensor([1.0, 2 * math.pi / 64, 0.01]), 64))  # one equal to the floor, which is kept
    for given, N in cases:
        at_least = given >= 2 * math.pi / N
        known = {
            "zeros had been put in: leave out what is below": given * at_least,
            "the floor were 1/N: a turn is 2π radians": given[given >= 1 / N],
            "the floor were π/N, half a turn": given[given >= math.pi / N],
            "a frequency equal to the floor were left out": given[given > 2 * math.pi / N],
        }
        case = f"N = {N} and {len(given)} frequencies from {given[0]:g} to {given[-1]:.3g}"
        same("keep", answer.keep(given.clone(), N), given[at_least], case, known, atol=1e-9)


@part("coefficients", 3)
def coefficients(answer):
    n_head, kept, sigma = 8, 40, 0.3
    case = f"\nwith n_head {n_head}, kept {kept}, sigma {sigma}"
    eye = torch.eye(kept)
    came = answer.coefficients(n_head, kept, sigma)
    alike = eye.expand(n_head, kept, kept)
    same("coefficients", came, (alike, alike), case.strip().removeprefix("with "), atol=math.inf)
    noise = torch.stack(came) - eye  # (2, n_head, kept, kept): the draw, if the 1 is in its place
    true(not noise.requires_grad, f"coefficients: they are never trained, but want a gradient{case}")
    own = noise.diagonal(dim1=2, dim2=3)
    others = noise[:, :, eye == 0]
    true(own.mean().abs() < 0.1, f"coefficients: add 1 where ω is the output's own, on the diagonal{case}")
    for name, draw in zip(("cosine", "sine"), others):
        std = draw.std().item()
        hint = f"coefficients: expected a standard deviation of {sigma} for {name}, came {std:.3f}{case}"
        if std < sigma / 5:
            hint += "\nit looks as if Xavier had drawn them, with σ as its gain; the text says N(0, σ)"
        if abs(std - math.sqrt(sigma)) < 0.03 or abs(std - sigma**2) < 0.01:
            hint += "\nit looks as if σ were taken for the variance"
        true(abs(std - sigma) < 0.03, hint)
    hint = "on the diagonal 1 is added to the draw and does not replace it"
    true((own.std(dim=(1, 2)) > 0.2).all(), f"coefficients: {hint}{case}")
    kurtosis = (others / sigma).pow(4).mean()  # 3 for a normal draw, 1.8 for a uniform one
    true(abs(kurtosis - 3) < 0.5, f"coefficients: the draw is not normal; is it uniform?{case}")
    true(not torch.equal(came[0], came[1]), f"coefficients: sine has a draw of its own, not cosine's{case}")
    true(not torch.equal(noise[0, 0], noise[0, 1]), f"coefficients: each head draws its own; two agree{case}")
    drawn_apart = len(others.unique()) > 0.9 * others.numel()
    true(drawn_apart, f"coefficients: each number is drawn by itself, but many are the same{case}")
    again = answer.coefficients(n_head, kept, sigma)
    true(not torch.equal(came[0], again[0]), "coefficients: two calls give the same draw, as if reseeded")


def compare_tables(answer, N: int, autocast: bool):
    pos = FoPE(GPTConfig(n_head=2, n_embd=128, fope_init="normal", block_size=N))
    w = pos.frequencies
    angles = POSITIONS.float()[:, None] * w
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        came = answer.table(POSITIONS, w, pos.cos_coef, pos.sin_coef, 32)
    expected = pos.table(POSITIONS)
    case = f"positions {POSITIONS.tolist()}, 2 heads of 32 pairs, {len(w)} of them kept"
    case += ", under bfloat16 autocast: switch it off around the product" if autocast else ""
    same("table", came, expected, case, atol=math.inf)
    clipped = (0, 32 - len(w))
    for i, wave, rest in ((0, torch.cos, 1.0), (1, torch.sin, 0.0)):
        coefs = (pos.cos_coef, pos.sin_coef)[i]
        others = (pos.sin_coef, pos.cos_coef)[i]
        waves = wave(angles)
        sums = {
            "coefficients were transposed: a row is a frequency": waves @ coefs.mT,
            "cosine and sine had each other's coefficients": waves @ others,
            "angles were summed: the sum is of waves": wave(angles @ coefs),
            "the product were in bfloat16: .float() comes too late": waves.bfloat16() @ coefs.bfloat16(),
        }
        known = {mistake: F.pad(values.float(), clipped, value=rest) for mistake, values in sums.items()}
        mistake = f"clipped pairs had {1 - rest:g} here: f = 1 has cosine 1 and sine 0"
        known[mistake] = F.pad(waves @ coefs, clipped, value=1 - rest)
        same(f"table, {wave.__name__}", came[i], expected[i], case, known, atol=2e-3)


@part("table", 4)
def table(answer):
    for N in (256, 64, 4, 10**6):
        compare_tables(answer, N, autocast=False)


@part("table under autocast", 1)
def table_under_autocast(answer):
    compare_tables(answer, 256, autocast=True)
