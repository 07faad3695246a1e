"""Solution of exercise 9: position interpolation and YaRN's ramp."""

import math

import torch

from assignments import experiments
from model import RoPE


class Interpolated(RoPE):
    scale = 4.0

    def table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().table(positions / self.scale)


def index_of(turns: float, length: int, theta: float, dim: int) -> float:
    return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))


def ramp(length: int, theta: float, dim: int) -> torch.Tensor:
    low = max(math.floor(index_of(32, length, theta, dim)), 0)
    high = min(math.ceil(index_of(1, length, theta, dim)), dim - 1)
    index = torch.arange(dim // 2)
    return ((index - low) / max(high - low, 0.001)).clamp(0, 1)


def stretch(frequencies: torch.Tensor, ramp: torch.Tensor, scale: float) -> torch.Tensor:
    return frequencies * (1 - ramp) + frequencies / scale * ramp


def temperature(scale: float) -> float:
    return 0.1 * math.log(scale) + 1


if __name__ == "__main__":
    experiments.interpolations(Interpolated)
