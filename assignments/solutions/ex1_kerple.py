"""
Solution of exercise 1: KERPLE. Graded with --solutions.

The numbers that are learned are the logarithms of r1 and r2, so that no step of the optimizer can make a rate negative.
They start at 0, r1 = r2 = 1, in every head; the heads part because q, k and v differ. A bias of shape (H, 1, k_len), as
ALiBi's, cannot say it: the logarithm of a distance is not a term of i plus a term of j.
"""

import torch
import torch.nn as nn

from model import GPTConfig, NoPE


class KERPLE(NoPE):
    """Kernelized relative position embedding, logarithmic variant (arXiv 2205.09921)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.log_rates = nn.Parameter(torch.zeros(2, config.n_head))

    def rates(self) -> tuple[torch.Tensor, torch.Tensor]:
        r1, r2 = self.log_rates.float().exp()
        return r1, r2

    def bias(self, q_len: int, k_len: int) -> torch.Tensor:
        j = torch.arange(k_len, device=self.log_rates.device)
        distance = (j[-q_len:, None] - j).abs()
        r1, r2 = (rate[:, None, None] for rate in self.rates())
        return -r1 * torch.log1p(r2 * distance)
