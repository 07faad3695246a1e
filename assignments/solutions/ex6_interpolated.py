"""
Solution of exercise 6: position interpolation. Graded with --solutions.

Interpolation shows the model no angle outside its training, at any length up to s N, but brings neighbours closer: in
the fastest pair they were one radian apart and are now a quarter of one. What heads have learned about the last few
tokens goes, which costs at every length until fine-tuning repairs it. YaRN leaves the fast pairs as they were.
"""

import torch

from assignments import experiments
from model import RoPE


class Interpolated(RoPE):
    """RoPE by which position n is encoded as n / scale (arXiv 2306.15595); yarn_scale stays 1."""

    scale = 4.0

    def table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().table(positions / self.scale)


if __name__ == "__main__":
    experiments.interpolations(Interpolated)
