"""
Exercise 8: break FoPE in three ways, and read the curves. 90 minutes, 12 points.

    python -m assignments.grade ex08
    python -m assignments.ex08_break out/fope_tiny      the curves, of a run that python train.py has made

Goal. Find out which mistakes a curve of perplexity by length shows. Three that are easy to make: the
coefficients a_ω (Eq. 11) are not kept with the weights but drawn again on loading; the clipped dimensions
get sine 1, not 0 (Eq. 13 demands f = 1); the floor is taken from the length of the evaluation, not from N.

Before you start. Exercise 2; FoPE in model.py, with fope_dim: the bank of frequencies may be larger than the
outputs.

Fill in the three functions. Each changes a trained model in place, and nothing but what it says: the other
weights stay, and so do model.config and what a layer has of it. A layer's encoding is
model.blocks[i].attn.pos; you may change it, or put another in its place. No model here has YaRN.

See. Sketch the curves that you expect, then look (a training's time: assignments/README.md). (a) For each
mistake: does it show at N, beyond N only, or not at all, and what kind of test would find it then? (b) Which
one changes scores whatever the positions, and what would it do to a model trained with it? (c) Which lines
of this repository prevent each? (d) Repeat the experiment with a run whose σ is a true standard deviation,
as in the paper's text (--fope_init=normal --name=normal), and explain what is new. Accuracies come from 100
prompts, good to about ±10 %.
"""

import torch  # noqa: F401

from assignments import experiments
from model import GPT, FoPE  # noqa: F401 (what you may use)


def redraw(model: GPT) -> None:
    """Draws all Fourier coefficients again, in every layer, as if the checkpoint had not kept them."""
    raise NotImplementedError


def pad_sine_with_ones(model: GPT) -> None:
    """Gives the clipped dimensions sine 1 in place of 0; cosine stays 1 (released code, against Eq. 13)."""
    raise NotImplementedError


def floor_from(model: GPT, length: int) -> None:
    """Takes the floor 2π/N from N = length >= block_size, as if the evaluation's length had been the
    training's.

    Under the lower floor FoPE has more frequencies: the trained model's coefficients keep the top left corner
    of the larger matrices, and what is new is drawn as FoPE draws such larger ones. At length = block_size
    nothing changes.
    """
    raise NotImplementedError


if __name__ == "__main__":
    experiments.damages(redraw, pad_sine_with_ones, floor_from)
