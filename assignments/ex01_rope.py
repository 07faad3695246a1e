"""
Exercise 1: RoPE (arXiv 2104.09864; Eq. 1 to 3 of the FoPE paper). 45 minutes, 10 points.

    python -m assignments.grade ex01

Goal. Write rotary position embedding yourself: its frequencies, its table of cosines and sines, its rotation.

Before you start. Tensors that broadcast; the rotation of the plane; Eq. 1 to 3. model.py holds the same in a
class: do not look until you are done, then compare.

Fill in the three functions. A head has head_dim dimensions in head_dim / 2 pairs: pair m = 0, 1, ... is made
of the dimensions m and m + head_dim / 2. At position n it is turned, counter-clockwise, by the angle n ω_m
(Eq. 2).

See. (a) Which pair is the fastest, and how many positions does its turn take? And the slowest of head_dim
64, θ = 10,000? (b) Why does the score of a query and a key depend on their distance alone, though both are
turned by their positions? (c) q and k are turned, v is not. What would be lost if v were turned, too?
"""

import torch


def frequencies(head_dim: int, theta: float) -> torch.Tensor:
    """ω_m of every pair, the fastest first, in radians a position: (head_dim / 2,) float32."""
    raise NotImplementedError


def table(positions: torch.Tensor, frequencies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every pair's angle at positions (T,), int64, not negative: float32, each (T, pairs).

    frequencies is (pairs,), float32. Positions come in any order, with gaps, and there is no longest one; far
    out, where float32 rounds the angle, the table may be off by that. It is no less exact under a caller's
    bfloat16 autocast, and on the device of positions, as frequencies are.
    """
    raise NotImplementedError


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns x (B, H, T, head_dim) by a table (T, head_dim / 2) or one for each head (H, T, head_dim / 2).

    What comes back has the dtype and the device of x; x itself stays as it is, and gradients reach it.
    Float32 arithmetic is exact enough for any x; cos and sin are float32.
    """
    raise NotImplementedError
