"""Checks of exercise 2, against FoPE of model.py."""

import math

import torch
from torch.nn import functional as F

from assignments.harness import part, same, true
from model import FoPE, GPTConfig, RoPE

POSITIONS = torch.tensor([7, 0, 1, 63, 8191])
PENCIL = {"TURNING": 13, "SHORTEST": 47118, "P": 13 / 32}
LIKELY = {
    ("TURNING", 12): "m = 12 is the last pair that makes a turn; how many pairs are that?",
    ("SHORTEST", 62832): "the slowest of 32 pairs has m = 31",
    ("SHORTEST", 47117): "in so many positions the slowest pair lacks a little of its turn",
    ("P", 19 / 32): "this is the share that is set to zero; p is the one that stays",
}


@part("pencil", 2)
def pencil(answer):
    for name, right in PENCIL.items():
        came = getattr(answer, name)
        true(came is not None, f"{name}: not filled in yet")
        hint = LIKELY.get((name, came), "a turn is 2 pi; solve for m, or for N")
        true(abs(came - right) < 1e-3, f"{name}: {came} is wrong\n{hint}")


@part("floor", 2)
def floor(answer):
    cases = [(RoPE(GPTConfig(rope_theta=10_000.0)).frequencies, N) for N in (256, 4, 10**6)]
    cases.append((torch.tensor([1.0, 2 * math.pi / 64, 0.01]), 64))  # one equal to the floor, which is kept
    for given, N in cases:
        at_least = given >= 2 * math.pi / N
        known = {
            "zeros had been put in: leave out what is below": given * at_least,
            "the floor were 1/N: a turn is 2 pi radians": given[given >= 1 / N],
            "the floor were pi/N, half a turn": given[given >= math.pi / N],
            "a frequency equal to the floor were left out": given[given > 2 * math.pi / N],
        }
        case = f"N = {N} and {len(given)} frequencies from {given[0]:g} to {given[-1]:.3g}"
        same("keep", answer.keep(given.clone(), N), given[at_least], case, known, atol=1e-9)


@part("coefficients", 3)
def coefficients(answer):
    n_head = 8
    kept = 40
    sigma = 0.3
    case = f"n_head {n_head}, kept {kept}, sigma {sigma}"
    eye = torch.eye(kept)
    zeros = torch.zeros(n_head, kept, kept)
    came = answer.coefficients(n_head, kept, sigma)
    same("coefficients", came, (zeros, zeros), case, atol=math.inf)
    noise = torch.stack(came) - eye  # (2, n_head, kept, kept): the draw, if the 1 is in its place
    own = noise.diagonal(dim1=2, dim2=3)
    others = noise[:, :, eye == 0]
    true(not noise.requires_grad, "coefficients: they are never trained, but want a gradient")
    true(
        own.mean().abs() < 0.1, "coefficients: add 1 where the frequency is the output's own, on the diagonal"
    )
    true(not torch.equal(came[0], came[1]), "coefficients: sine needs a draw of its own, not cosine's")
    true(not torch.equal(noise[0, 0], noise[0, 1]), "coefficients: each head needs a draw of its own")
    again = answer.coefficients(n_head, kept, sigma)
    true(
        not torch.equal(came[0], again[0]), "coefficients: two calls gave the same draw: was it seeded anew?"
    )
    for draw in others:
        std = draw.std().item()
        hint = f"coefficients: expected a standard deviation of {sigma}, came {std:.3f}\nwith {case}"
        if std < sigma / 5:
            hint += (
                "\nit looks as if Xavier had drawn them, with sigma as its gain; the text says N(0, sigma)"
            )
        if abs(std - math.sqrt(sigma)) < 0.03 or abs(std - sigma**2) < 0.01:
            hint += "\nit looks as if sigma were taken for the variance"
        true(abs(std - sigma) < 0.03, hint)
    hint = "coefficients: on the diagonal 1 is added to the draw and does not replace it"
    true((own.std(dim=(1, 2)) > 0.2).all(), hint)


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
    both = (pos.cos_coef, pos.sin_coef)
    for i, wave in enumerate((torch.cos, torch.sin)):
        coefs = both[i]
        others = both[1 - i]
        rest = 1 - i  # f = 1 has cosine 1 and sine 0
        waves = wave(angles)
        sums = {
            "coefficients were transposed: a row is a frequency": waves @ coefs.mT,
            "cosine and sine had each other's coefficients": waves @ others,
            "angles were summed: the sum is of waves": wave(angles @ coefs),
            "the product were in bfloat16: .float() comes too late": waves.bfloat16() @ coefs.bfloat16(),
        }
        known = {mistake: F.pad(values.float(), clipped, value=rest) for mistake, values in sums.items()}
        mistake = f"clipped pairs had {i} here: f = 1 has cosine 1 and sine 0"
        known[mistake] = F.pad(waves @ coefs, clipped, value=1 - rest)
        same(f"table, {wave.__name__}", came[i], expected[i], case, known, atol=2e-3)


@part("table", 4)
def table(answer):
    for N in (256, 64, 4, 10**6):
        compare_tables(answer, N, autocast=False)


@part("table under autocast", 1)
def table_under_autocast(answer):
    compare_tables(answer, 256, autocast=True)
