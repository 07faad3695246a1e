"""
Exercise 5: break FoPE in three ways that implementations of it can be broken, and read the curves.

    pytest assignments/grade_5_break.py
    python -m assignments.ex5_break out/fope_tiny       the curves (the checkpoint comes from python train.py)

Each function changes a trained model in place. A layer's encoding is model.blocks[i].attn.pos.
"""

from assignments import experiments
from model import GPT


def redraw(model: GPT) -> None:
    """Draws all Fourier coefficients again, as if the checkpoint had not kept them."""
    raise NotImplementedError


def pad_sine_with_ones(model: GPT) -> None:
    """Gives the clipped dimensions sine 1 in place of 0; their cosine stays 1 (the released code, against Eq. 13)."""
    raise NotImplementedError


def floor_from(model: GPT, length: int) -> None:
    """Takes the floor 2π/N from N = length >= block_size, as if the evaluation's length had been the training's.

    Under the lower floor FoPE has more frequencies: the trained model's coefficients keep their corner of the larger
    matrices, and what is new is drawn. At length = block_size nothing changes.
    """
    raise NotImplementedError


if __name__ == "__main__":
    experiments.damages(redraw, pad_sine_with_ones, floor_from)
