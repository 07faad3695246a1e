"""
Solution of exercise 2: p-RoPE. Graded with --solutions.

A zero frequency has cosine 1 and sine 0 at every position, which is what Eq. 13 gives to clipped dimensions: p-RoPE
with the share that FoPE keeps is FoPE without its series. The difference is who chooses the share: here the user, there
the training length. FoPE keeps more as N grows (exercise 3) and p-RoPE does not. With p = 0.75, head_dim 64 and
θ = 10,000 it keeps 24 of 32 pairs, as the clip does for N from 4,712 to 6,283; for a smaller N it turns undertrained
pairs, for a larger one it stops trained pairs.
"""

import torch

from model import FoPE, GPTConfig, RoPE


class PRoPE(RoPE):
    """RoPE whose slowest frequencies are zero; of the M there are, the round(p M) fastest stay (arXiv 2410.06205)."""

    p = 0.75

    def make_frequencies(self) -> torch.Tensor:
        frequencies = super().make_frequencies()
        frequencies[round(self.p * len(frequencies)) :] = 0
        return frequencies


def p_of_fope(config: GPTConfig) -> float:
    """The p with which p-RoPE rotates exactly as FoPE does when it only clips (fope_series=False)."""
    return len(FoPE(config).frequencies) / (config.head_dim // 2)
