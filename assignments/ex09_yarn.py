"""
Exercise 9: position interpolation and YaRN's ramp. 75 minutes, 12 points.

    python -m assignments.grade ex09
    python -m assignments.ex09_yarn out/rope_tiny      the curves of a run: python train.py --pos=rope

Goal. Stretch RoPE to s times the length that it was trained on. Position interpolation (arXiv 2306.15595)
encodes position n as n / s. YaRN (arXiv 2309.00071) looks at how many turns a frequency makes in the
original length N: a fast one, with 32 turns or more, stays as it is; a slow one, with 1 turn or fewer, is
divided by s; between them there is a ramp. And it sharpens attention.

Before you start. Exercises 1 and 4. RoPE.table in model.py; `yarn` there holds the answer to the ramp: look
when you are done.

Fill in the four functions and the class. The ramp is not over the turns but over the index m of the frequency
ω_m = θ^(-2m/M) in the list, where M is called `dim`, N `length` and s `scale`: it rises in a line from 0 at
the index `low` to 1 at the index `high`. m(32), the index, a real number, of a frequency with 32 turns in N,
is rounded down to give `low`; m(1), that of 1 turn, is rounded up to give `high`. `low` is not below 0,
`high` not above M - 1 (M, though the list ends at M/2 - 1: so it is in the published code); and since the two
may be equal, `high - low`, by which the ramp divides, is at least 0.001. These formulas decide where the
turns would say otherwise: at N = 4 even the fastest frequency makes less than a turn, `high` is below `low`,
and 0.001 stands for their difference all the same.

See. Sketch three curves, RoPE, interpolation and YaRN, from N to 8N, before you look; assignments/README.md
has a training's time. (a) Where do the curves cross? Why does interpolation with s = 4 change anything at
N, where nothing had to be interpolated? What happens beyond 4N? (b) YaRN divides frequencies with less than
one turn, FoPE sets them to zero. What does each assume about what the model has learned from them? (c) To
fine-tune, go on from the same weights at four times the length, 1024 if N is 256; YaRN has to be told the
old N (a tenth of a training):

    python train.py --init_from=out/rope_tiny --block_size=1024 --batch_size=2 --max_iters=300 --pos=rope \\
        --name=yarn --yarn_scale=4 --yarn_length=256
"""

import torch

from assignments import experiments
from model import RoPE


class Interpolated(RoPE):
    """RoPE by which position n is encoded as n / scale (arXiv 2306.15595); a subclass may have another."""

    scale = 4.0

    def table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


def index_of(turns: float, length: int, theta: float, dim: int) -> float:
    """m, a real number, for which ω_m = θ^(-2m / dim) makes so many turns in `length` positions."""
    raise NotImplementedError


def ramp(length: int, theta: float, dim: int) -> torch.Tensor:
    """For each of the dim / 2 frequencies, from 0 (stays) to 1 (is divided by s): (dim / 2,) float32."""
    raise NotImplementedError


def stretch(frequencies: torch.Tensor, ramp: torch.Tensor, scale: float) -> torch.Tensor:
    """YaRN's frequencies: where the ramp is 0 the old ones, where it is 1 the divided ones, between them a
    mean of both.

    The mean is of frequencies, the ramp the weight of the divided ones. What is given stays as it is.
    """
    raise NotImplementedError


def temperature(scale: float) -> float:
    """By which cos and sin, of q and of k, are multiplied: 0.1 ln s + 1."""
    raise NotImplementedError


if __name__ == "__main__":
    experiments.interpolations(Interpolated)
