"""
Exercise 2: p-RoPE, RoPE without the slowest of its frequencies (arXiv 2410.06205), and FoPE's clip.

    pytest assignments/grade_2_p_rope.py tests/test_model.py -k p_rope

p-RoPE keeps the share p of the frequencies, the fastest, and sets the others to zero: p = 1 is RoPE, p = 0 is NoPE.
"""

import torch

from model import GPTConfig, RoPE


class PRoPE(RoPE):
    """RoPE whose slowest frequencies are zero; of the M there are, the round(p M) fastest stay (arXiv 2410.06205)."""

    p = 0.75

    def make_frequencies(self) -> torch.Tensor:
        raise NotImplementedError


def p_of_fope(config: GPTConfig) -> float:
    """The p with which p-RoPE rotates exactly as FoPE does when it only clips (fope_series=False)."""
    raise NotImplementedError
