"""
Solution of exercise 4: the error of FoPE. Graded with --solutions.

The rotation at position n is R(n) = R0(n) + σ R1(n), and a score is the real part of Σ q R(a) R(b)* k*. Its term in σ^0
is RoPE's, clipped, and relative. Its terms in σ^1 multiply the dominant frequency of one side by another frequency of
the other side, e^{i(ωa - ω'b)}, and are not. So the error starts as σ to the power 1. Where the series outweighs the
dominant frequencies, the scores grow as σ² and so does their change: the share levels off. Xavier's σ is a gain, as a
standard deviation 14 times smaller at the default size: the same curve moved to the right.
"""

import torch

from assignments import experiments
from model import NoPE

EXPONENT: float | None = 1.0


def relative_error(pos: NoPE, q: torch.Tensor, k: torch.Tensor, shift: int) -> float:
    """Root mean square of S(shift) - S(0) by that of S(0), for the scores S(t) of q, k (H, T, head_dim) from t on."""
    here, there = (pos.rotate(q, start) @ pos.rotate(k, start).transpose(-2, -1) for start in (0, shift))
    return ((there - here).square().mean() / here.square().mean()).sqrt().item()


if __name__ == "__main__":
    experiments.errors(relative_error)
