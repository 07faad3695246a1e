"""
Exercise 1: RoPE (arXiv 2104.09864; Eq. 1 to 3 of the FoPE paper). 30 minutes, 10 points.

    python -m assignments.grade ex01

Write rotary position embedding: its frequencies, its table of cosines and sines, its rotation. model.py holds
the same in a class, so look there when you are done, and compare.

A head has head_dim dimensions in head_dim / 2 pairs: pair m = 0, 1, ... is made of the dimensions m and
m + head_dim / 2. At position n it is turned, counter-clockwise, by the angle n ω_m, with
ω_m = θ^(-2m / head_dim) (Eq. 2).

See. (a) Which pair is the fastest, and how many positions does its turn take? And the slowest, with head_dim
64 and θ = 10,000? (b) Why does the score of a query and a key depend on their distance alone, though each is
turned by its own position? (c) q and k are turned, v is not. What would change if v were turned, too?
"""

import torch


def frequencies(head_dim: int, theta: float) -> torch.Tensor:
    """ω_m of every pair, the fastest first, in radians per position: (head_dim / 2,) float32."""
    raise NotImplementedError


def table(positions: torch.Tensor, frequencies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every pair's angle at positions (T,), int64: float32, each (T, pairs).

    frequencies is (pairs,), float32. The positions come in any order and may be as large as they like.
    """
    raise NotImplementedError


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns x (B, H, T, head_dim) by a table (T, head_dim / 2) or one for each head (H, T, head_dim / 2).

    The table is float32. What comes back has the dtype of x, and x itself stays as it is.
    """
    raise NotImplementedError
