"""
Exercise 6: position interpolation (arXiv 2306.15595) against YaRN (arXiv 2309.00071), without fine-tuning.

    pytest assignments/grade_6_interpolated.py tests/test_model.py -k interpolated
    python -m assignments.ex6_interpolated out/rope_tiny   the curves (checkpoint: python train.py --pos=rope)

Position interpolation squeezes s N positions into the N that the model was trained on: position n is encoded as n / s.
YaRN squeezes the slow frequencies only, and makes attention sharper: RoPE._yarn and RoPE.table in model.py.
"""

import torch

from assignments import experiments
from model import RoPE


class Interpolated(RoPE):
    """RoPE by which position n is encoded as n / scale (arXiv 2306.15595); yarn_scale stays 1."""

    scale = 4.0

    def table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


if __name__ == "__main__":
    experiments.interpolations(Interpolated)
