"""Solution of exercise 4: the floor.

θ^(-2m/d) >= 2π/N  <=>  2m ln θ / d <= ln(N/2π)  <=>  m <= d ln(N/2π) / (2 ln θ): from m = 0 on, one more
pair than the whole part of that.
"""

import math


def kept(block_size: int, rope_theta: float, head_dim: int) -> int:
    last = head_dim * math.log(block_size / (2 * math.pi)) / (2 * math.log(rope_theta))
    count = math.floor(last) + 1
    return min(max(count, 0), head_dim // 2)


def undertrained(block_size: int, rope_theta: float, head_dim: int) -> list[int]:
    first = kept(block_size, rope_theta, head_dim)
    pairs = head_dim // 2
    return [*range(first, pairs), *range(first + pairs, head_dim)]


def shortest_unclipped(rope_theta: float, head_dim: int) -> int:
    slowest = rope_theta ** (-(head_dim - 2) / head_dim)
    return math.ceil(2 * math.pi / slowest)
