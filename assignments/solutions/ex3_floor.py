"""
Solution of exercise 3: the floor. Graded with --solutions.

θ^(-2m/d) >= 2π/N  <=>  2m ln θ / d <= ln(N/2π)  <=>  m <= d ln(N/2π) / (2 ln θ): from m = 0 on, one more pair than the
whole part of that. Doubling N keeps d ln 2 / (2 ln θ) more pairs: 2.4 of 32 for d = 64, θ = 10,000.

Llama-2 (appendix A.1: θ = 10,000, d = 128, N = 4096): m <= 45.03, so the pairs 46 to 63 are undertrained: dimensions 46
to 63 and 110 to 127 counted from 0, or 47 to 64 and 111 to 128 counted from 1. The paper gives [45, 64] and [109, 128],
whose ends count from 1; then its first two pairs, 44 and 45 from 0, do complete a turn: 1.16 and 1.004 of one.
"""

import math


def kept(block_size: int, rope_theta: float, head_dim: int) -> int:
    """How many pairs are not undertrained, for N = block_size (M - M_0 in section 4)."""
    last = head_dim * math.log(block_size / (2 * math.pi)) / (2 * math.log(rope_theta))
    return min(max(math.floor(last) + 1, 0), head_dim // 2)


def undertrained(block_size: int, rope_theta: float, head_dim: int) -> list[int]:
    """The undertrained dimensions of a head, ascending, counted from 0."""
    first, pairs = kept(block_size, rope_theta, head_dim), head_dim // 2
    return [*range(first, pairs), *range(first + pairs, head_dim)]


def shortest_unclipped(rope_theta: float, head_dim: int) -> int:
    """The smallest training length N that leaves no dimension undertrained: the slowest pair completes one turn."""
    return math.ceil(2 * math.pi * rope_theta ** ((head_dim - 2) / head_dim))
