"""Solution of exercise 2: FoPE."""

import math

import torch
from torch.nn import functional as F


def keep(frequencies: torch.Tensor, block_size: int) -> torch.Tensor:
    floor = 2 * math.pi / block_size
    return frequencies[frequencies >= floor]


def coefficients(n_head: int, kept: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    cos_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)
    sin_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)
    return cos_coef, sin_coef


def table(
    positions: torch.Tensor,
    frequencies: torch.Tensor,
    cos_coef: torch.Tensor,
    sin_coef: torch.Tensor,
    pairs: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    angles = positions.float()[:, None] * frequencies  # (T, frequencies)
    with torch.autocast(positions.device.type, enabled=False):
        cos = angles.cos() @ cos_coef  # (n_head, T, outputs)
        sin = angles.sin() @ sin_coef
    clipped = pairs - cos.size(-1)
    cos = F.pad(cos, (0, clipped), value=1.0)
    sin = F.pad(sin, (0, clipped), value=0.0)
    return cos, sin
