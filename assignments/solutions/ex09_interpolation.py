"""Solution of exercise 9: interpolation.

The slowest pair is m = d/2 - 1, with ω = θ^(-(d - 2)/d): θ'^(-(d - 2)/d) = θ^(-(d - 2)/d) / s gives
θ' = θ s^(d/(d - 2)).
"""

import math

import torch

from model import RoPE


class Interpolated(RoPE):
    scale = 4.0

    def make_frequencies(self) -> torch.Tensor:
        return super().make_frequencies() / self.scale


def ntk_theta(theta: float, scale: float, head_dim: int) -> float:
    return theta * scale ** (head_dim / (head_dim - 2))


def unseen(old: torch.Tensor, new: torch.Tensor, block_size: int, length: int) -> torch.Tensor:
    made_a_turn = old * block_size >= 2 * math.pi
    goes_on = new * length > old * block_size
    return ~made_a_turn & goes_on
