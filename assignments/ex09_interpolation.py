"""
Exercise 9: four ways to a longer context, compared. 35 minutes and a training, 10 points. Needs exercise 2.

    python -m assignments.grade ex09
    python -m assignments.ex09_interpolation        how many pairs meet unseen angles, once all is written

A trained RoPE reads texts of up to N tokens. To read s times as many without training, position interpolation
(arXiv 2306.15595) divides all frequencies by s. "NTK-aware" scaling takes a larger θ, such that the fastest
frequency stays and the slowest is divided by s. YaRN (arXiv 2309.00071; `yarn` in model.py) keeps those with
over 32 turns in N, divides those with less than one, and has a ramp between. FoPE sets those with less than
one to zero, but before training.

What is to be repaired? A pair that makes a turn in N positions has seen all angles. One that makes none has
seen those from 0 to ωN, and beyond them training says nothing. So count, for each way, the pairs that leave
what they have seen.

See. Sketch a curve by length for RoPE and each repair of it, then look; THETA is what your ntk_theta gives.
For pos=interpolated, copy the class into model.py, above POSITIONS, and add it there.

    python train.py config/plain_tiny.py --pos=rope
    python perplexity.py out/rope_plain
    python perplexity.py out/rope_plain --set pos=interpolated
    python perplexity.py out/rope_plain --set rope_theta=THETA
    python perplexity.py out/rope_plain --set yarn_scale=4

(a) Which ways leave no pair with unseen angles at 4N, and does one of them have the best curve? (b)
Interpolation changes a text of N tokens, where nothing had to be repaired. What does it do to neighbours? (c)
YaRN divides the slow frequencies and FoPE has them at zero. What does each assume about what a model learns
from them?
"""

import torch

from model import FoPE, GPTConfig, RoPE


class Interpolated(RoPE):
    """RoPE with all frequencies divided by `scale`."""

    scale = 4.0

    def make_frequencies(self) -> torch.Tensor:
        """As many as RoPE has: (head_dim / 2,) float32."""
        raise NotImplementedError


def ntk_theta(theta: float, scale: float, head_dim: int) -> float:
    """The θ' that divides the slowest frequency, θ^(-2m / head_dim) for the last m, by scale exactly."""
    raise NotImplementedError


def unseen(old: torch.Tensor, new: torch.Tensor, block_size: int, length: int) -> torch.Tensor:
    """Which pairs meet angles at `length` that they have not seen in training: (pairs,) bool.

    A model was trained with the frequencies old (pairs,) at N = block_size, and is read with those of new. A
    pair has seen all angles if it made a turn in N, old N >= 2π; else it reaches unseen ones if
    new * length > old * N.
    """
    raise NotImplementedError


def print_counts():
    N = 256
    config = GPTConfig(block_size=N)
    rope = RoPE(config).frequencies
    fope = torch.zeros_like(rope)
    clipped = FoPE(config).frequencies
    fope[: len(clipped)] = clipped
    theta = ntk_theta(10_000.0, 4.0, 64)
    ways = {
        "RoPE": (rope, rope),
        "interpolated": (rope, Interpolated(config).frequencies),
        f"theta = {theta:.1f}": (rope, RoPE(GPTConfig(rope_theta=theta)).frequencies),
        "YaRN": (rope, RoPE(GPTConfig(block_size=N, yarn_scale=4.0)).frequencies),
        "FoPE": (fope, fope),
    }
    print("pairs with unseen angles at", *(f"{times:4}N" for times in (1, 2, 4, 8, 16)))
    for name, (old, new) in ways.items():
        counts = [int(unseen(old, new, N, times * N).sum()) for times in (1, 2, 4, 8, 16)]
        print(f"{name:27}", *(f"{count:5}" for count in counts))


if __name__ == "__main__":
    print_counts()
