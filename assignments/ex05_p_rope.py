"""
Exercise 5: p-RoPE (arXiv 2410.06205) and FoPE's clip. 30 minutes, 8 points.

    python -m assignments.grade ex05

Goal. See FoPE's clip beside its nearest relative: p-RoPE sets the slowest of RoPE's frequencies to zero to
give the model dimensions without position; the share p of the frequencies stays. p = 1 is RoPE, p = 0 is
NoPE.

Before you start. Exercise 4; RoPE.make_frequencies and FoPE.make_frequencies in model.py.

Fill in make_frequencies and p_of_fope.

See. (a) When are p-RoPE and FoPE without its series the same, and what differs? For head_dim 64 and θ =
10,000, at which training lengths is p = 0.75 FoPE's clip? What does each do at a smaller N, and at a larger
one? (b) With the class in model.py, as "p_rope" in POSITIONS, compare the two trained (two trainings, see
assignments/README.md for their time):

    python train.py --pos=p_rope
    python train.py --fope_series=False --name=clip
    python perplexity.py out/p_rope_tiny out/fope_clip
"""

import torch

from model import FoPE, GPTConfig, RoPE  # noqa: F401 (what you may use)


class PRoPE(RoPE):
    """RoPE whose slowest frequencies are zero (arXiv 2410.06205): the round(p K) fastest of all K stay."""

    p = 0.75

    def make_frequencies(self) -> torch.Tensor:
        """As many as RoPE has, float32: (head_dim / 2,). round() is Python's."""
        raise NotImplementedError


def p_of_fope(config: GPTConfig) -> float:
    """A p from 0 to 1 with which p-RoPE rotates just as FoPE(config), which has no series, fope_dim or YaRN.

    With fope_clip=False, FoPE keeps all frequencies.
    """
    raise NotImplementedError
