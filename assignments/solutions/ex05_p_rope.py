"""Solution of exercise 5: p-RoPE."""

import torch

from model import FoPE, GPTConfig, RoPE


class PRoPE(RoPE):
    p = 0.75

    def make_frequencies(self) -> torch.Tensor:
        frequencies = super().make_frequencies()
        count = round(self.p * len(frequencies))
        frequencies[count:] = 0
        return frequencies


def p_of_fope(config: GPTConfig) -> float:
    kept = len(FoPE(config).frequencies)
    return kept / (config.head_dim // 2)
