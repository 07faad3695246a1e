"""Solution of exercise 5: the error of FoPE."""

import torch

from model import NoPE

EXPONENT = 1.0


def relative_error(pos: NoPE, q: torch.Tensor, k: torch.Tensor, shift: int) -> float:
    scores = []
    for start in (0, shift):
        encoded_q, encoded_k = pos.encode(q, k, start)
        scores.append(encoded_q @ encoded_k.mT)
    here, there = scores
    change = (there - here).square().mean()
    size = here.square().mean()
    return (change / size).sqrt().item()
