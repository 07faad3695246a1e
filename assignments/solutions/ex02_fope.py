"""Solution of exercise 2: FoPE.

θ^(-2m/d) >= 2π/N  <=>  m <= d ln(N/2π) / (2 ln θ) = 12.9 for N = 256: the pairs 0 to 12, which are 13.
The slowest pair is m = 31; all make a turn from N = 2π θ^(62/64) = 47,117.2 on.
"""

import math

import torch
from torch.nn import functional as F

TURNING = 13
SHORTEST = 47118
P = 13 / 32


def keep(frequencies: torch.Tensor, block_size: int) -> torch.Tensor:
    floor = 2 * math.pi / block_size
    return frequencies[frequencies >= floor]


def coefficients(n_head: int, kept: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    cos_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)
    sin_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)
    return cos_coef, sin_coef


def table(positions, frequencies, cos_coef, sin_coef, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = positions.float()[:, None] * frequencies  # (T, kept)
    with torch.autocast(positions.device.type, enabled=False):
        cos = angles.cos() @ cos_coef  # (n_head, T, kept)
        sin = angles.sin() @ sin_coef
    clipped = pairs - len(frequencies)
    cos = F.pad(cos, (0, clipped), value=1.0)
    sin = F.pad(sin, (0, clipped), value=0.0)
    return cos, sin
