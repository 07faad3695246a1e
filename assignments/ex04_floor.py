"""
Exercise 4: derive the floor (section 3.3). 45 minutes, 10 points.

    python -m assignments.grade ex04

Goal. Know, without a computer, how much of a head a training length N can train.

Before you start. Exercise 2; logarithms; pencil and paper.

Fill in the three functions. A head has head_dim / 2 pairs of dimensions. Pair m = 0, 1, ..., made of the
dimensions m and m + head_dim / 2, turns by ω_m = θ^(-2m / head_dim) a position (Eq. 2). If ω_m < 2π / N it
completes no turn in N positions: it is undertrained. How many are there? Solve for m. Any N from 1 on and any
θ above 1 may come, large ones, too: float32 is too coarse for these, Python's own floats are not.

See. (a) How many more pairs does doubling N train? (b) Appendix A.1 gives the undertrained dimensions of
Llama-2 (θ = 10,000, head_dim 128, N = 4096) as [45, 64] and [109, 128]. Where does your formula agree and
where not, counting from 0, and from 1? (c) A larger θ is a common way to longer contexts. What does it do to
the number of undertrained pairs?
"""


def kept(block_size: int, rope_theta: float, head_dim: int) -> int:
    """How many pairs are not undertrained, for N = block_size (half of M - M_0, the paper counts dimensions).

    Closed form required: no loop, no list and no recursion, nor in what it calls. A head_dim of 2^40 takes no
    longer than one of 64.
    """
    raise NotImplementedError


def undertrained(block_size: int, rope_theta: float, head_dim: int) -> list[int]:
    """The undertrained dimensions of a head, ascending, counted from 0."""
    raise NotImplementedError


def shortest_unclipped(rope_theta: float, head_dim: int) -> int:
    """The smallest training length N that leaves no dimension undertrained: FoPE's clip does nothing."""
    raise NotImplementedError
