"""
Exercise 3: which dimensions of a head are undertrained (section 3.3)? Pencil and paper first.

    pytest assignments/grade_3_floor.py

A head has head_dim / 2 pairs of dimensions. Pair m = 0, 1, ..., made of the dimensions m and m + head_dim / 2, turns by
ω_m = θ^(-2m / head_dim) a position (Eq. 2). If ω_m < 2π / N it completes no turn in N positions: it is undertrained.
"""


def kept(block_size: int, rope_theta: float, head_dim: int) -> int:
    """How many pairs are not undertrained, for N = block_size (M - M_0 in section 4).

    In closed form: no loop and no list, so that a head_dim of 2^40 takes no longer than one of 64.
    """
    raise NotImplementedError


def undertrained(block_size: int, rope_theta: float, head_dim: int) -> list[int]:
    """The undertrained dimensions of a head, ascending, counted from 0."""
    raise NotImplementedError


def shortest_unclipped(rope_theta: float, head_dim: int) -> int:
    """The smallest training length N that leaves no dimension undertrained: there FoPE's clip does nothing."""
    raise NotImplementedError
