"""
Exercise 1: KERPLE, a bias that learns how fast attention fades with distance (arXiv 2205.09921).

    pytest assignments/grade_1_kerple.py tests/test_model.py -k kerple

Its logarithmic variant adds to the score of query i and key j, with r1 > 0 and r2 > 0 learned in every head,

    -r1 log(1 + r2 |i - j|)

Model for your class: ALiBi in model.py. When the grader passes, the class moves there (see README.md beside this file).
"""

import torch

from model import GPTConfig, NoPE


class KERPLE(NoPE):
    """Kernelized relative position embedding, logarithmic variant (arXiv 2205.09921)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        raise NotImplementedError  # what is learned: two numbers a head

    def rates(self) -> tuple[torch.Tensor, torch.Tensor]:
        """r1 and r2, each (n_head,): positive whatever values the optimizer gives to the parameters."""
        raise NotImplementedError

    def bias(self, q_len: int, k_len: int) -> torch.Tensor:
        """(n_head, q_len, k_len), float32. NoPE.bias in model.py says which positions the queries have."""
        raise NotImplementedError
