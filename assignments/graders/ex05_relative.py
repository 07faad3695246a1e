"""Checks of exercise 5, with the encodings of model.py."""

import torch

from assignments.harness import part, same, true
from model import POSITIONS, FoPE, GPTConfig, NoPE

SMALL = {"n_head": 3, "n_embd": 96, "block_size": 128}


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys (2, 3, 10, 32), with a mean: so a standard deviation is no root mean square."""
    q = torch.randn(2, 3, 10, 32) + 0.5
    k = torch.randn(2, 3, 10, 32) + 0.5
    return q, k


def scores(pos: NoPE, q: torch.Tensor, k: torch.Tensor, q_start: int, k_start: int) -> torch.Tensor:
    encoded_q, _ = pos.encode(q, k, q_start)
    _, encoded_k = pos.encode(q, k, k_start)
    return encoded_q @ encoded_k.mT


def size(x: torch.Tensor) -> float:
    """Root mean square."""
    return x.square().mean().sqrt().item()


@part("relative encodings", 2)
def relative(answer):
    q, k = inputs()
    for name in ("nope", "rope", "rope_a", "fope"):
        pos = POSITIONS[name](GPTConfig(pos=name, fope_sigma=0.0, **SMALL))
        case = f"{name} with fope_sigma 0, shift 50"
        here = scores(pos, q, k, 0, 0)
        known = {"queries alone had moved": size(scores(pos, q, k, 50, 0) - here) / size(here)}
        same("relative_error", answer.relative_error(pos, q, k, 50), 0.0, case, known, atol=1e-3)


@part("definition", 4)
def definition(answer):
    q, k = inputs()
    for sigma in (0.3, 2.0):
        for shift in (1, 50, 1000):
            pos = FoPE(GPTConfig(fope_sigma=sigma, fope_init="normal", **SMALL))
            here = scores(pos, q, k, 0, 0)
            there = scores(pos, q, k, shift, shift)
            change = there - here
            expected = size(change) / size(here)
            past = torch.ones(10, 10, dtype=torch.bool).tril()
            known = {
                "it were not divided by the size of the scores": size(change),
                "it were divided by the size of the moved scores": size(change) / size(there),
                "queries alone had moved": size(scores(pos, q, k, shift, 0) - here) / size(here),
                "mean absolute values were taken": (change.abs().mean() / here.abs().mean()).item(),
                "standard deviations were taken": (change.std() / here.std()).item(),
                "each score were divided by itself": size(change / here),
                "the root were missing": expected**2,
                "keys before their query alone counted": size(change[..., past]) / size(here[..., past]),
            }
            case = f"FoPE with N(0, {sigma}), shift {shift}"
            same("relative_error", answer.relative_error(pos, q, k, shift), expected, case, known)


@part("exponent", 2)
def exponent(answer):
    came = answer.EXPONENT
    true(came is not None, "not filled in yet: EXPONENT at the top of the file")
    hint = "run the experiment: by which factor does the error grow from sigma 0.003 to 0.03?"
    if abs(came - 1) < 0.5:
        hint = "multiplied out, the series gives a whole number, and a measurement is only near it"
    true(came == 1, f"EXPONENT: {came} is wrong\n{hint}")
