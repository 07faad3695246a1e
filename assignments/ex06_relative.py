"""
Exercise 6: how far from relative is FoPE, as a function of σ? 60 minutes, 8 points.

    python -m assignments.grade ex06
    python -m assignments.ex06_relative         the experiment's table, once the function is written: seconds

Goal. Measure a property that an equation claims. RoPE's score depends on the distance n = n_a - n_b alone
(Eq. 3). Eq. 11 writes FoPE's as a function of n as well; but the model multiplies q by a Fourier series at
n_a, and k by the same series at n_b. If a score is relative, nothing changes when all positions move by the
same amount.

Before you start. Exercise 2; NoPE.encode in model.py.

Fill in relative_error, and your prediction EXPONENT: multiply out the two series before you run anything.

See. (a) Which encodings are at zero? (b) Where does your power law end, and why there? (c) Which σ of the
N(0, σ) in the text is like σ = 0.3 of the Xavier gain in the released code? (d) Is a model with
position-dependent scores broken, or has it only more to learn?
"""

import torch

from assignments import experiments
from model import NoPE

# For small σ the error grows like σ to the power of this: predict it from Eq. 11 before you run the
# experiment.
EXPONENT: float | None = None


def relative_error(pos: NoPE, q: torch.Tensor, k: torch.Tensor, shift: int) -> float:
    """How much the scores change when every position moves by `shift`, as a share of their size.

    With S(t) the scores (B, H, T, T), the dot products of all the queries and keys q, k (B, H, T, head_dim)
    encoded at the positions t, t + 1, ...: the root mean square of S(shift) - S(0), divided by the root mean
    square of S(0). Encoding may add features to q and k, which belong to the product; mask, factor and bias()
    do not. The share may be above 1.
    """
    raise NotImplementedError


if __name__ == "__main__":
    experiments.errors(relative_error)
