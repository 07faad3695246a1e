"""
Exercise 4: how far from relative is FoPE, as a function of σ?

    pytest assignments/grade_4_relative.py
    python -m assignments.ex4_relative           the experiment's table, once the function is written

An encoding is relative if the score of a query at position a and a key at b depends on a - b alone (Eq. 3). Then
nothing changes when all positions move by the same amount, and that is how you measure it.
"""

import torch

from assignments import experiments
from model import NoPE

# For small σ the error grows like σ to the power of this: predict it from Eq. 11 before you run the experiment.
EXPONENT: float | None = None


def relative_error(pos: NoPE, q: torch.Tensor, k: torch.Tensor, shift: int) -> float:
    """How much the scores change when every position moves by `shift`, as a share of their size.

    With S(t) the (H, T, T) scores q·k of all the queries and keys q, k (H, T, head_dim) at the positions t, t + 1, ...:
    the root mean square of S(shift) - S(0), divided by the root mean square of S(0).
    """
    raise NotImplementedError


if __name__ == "__main__":
    experiments.errors(relative_error)
