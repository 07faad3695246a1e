"""Solution of exercise 6: KERPLE.

The numbers that are learned are the logarithms of r1 and r2. No step of the optimizer makes a rate negative,
and its gradient does not die.
"""

import torch
from torch import nn

from model import GPTConfig, NoPE


class KERPLE(NoPE):
    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.log_rates = nn.Parameter(torch.zeros(2, config.n_head))

    def rates(self) -> tuple[torch.Tensor, torch.Tensor]:
        r1, r2 = self.log_rates.exp()
        return r1, r2

    def bias(self, q_len: int, k_len: int) -> torch.Tensor:
        j = torch.arange(k_len, device=self.log_rates.device)
        i = j[k_len - q_len :, None]
        distance = (i - j).abs()  # (q_len, k_len)
        r1, r2 = self.rates()
        return -r1[:, None, None] * torch.log1p(r2[:, None, None] * distance)
