"""
Exercise 7: break FoPE in three ways, and read the curves. 50 minutes and two trainings, 10 points.

    python -m assignments.grade ex07
    python -m assignments.ex07_break out/fope_tiny      the curves, of a run that python train.py has made

Three mistakes are easy to make. The coefficients a_ω are not kept with the weights but drawn again on
loading. The clipped dimensions get sine 1, not 0 as Eq. 13 demands. The floor is taken from the length of the
evaluation, not from N. Make each of them in a trained model, and find out which a curve of perplexity or
accuracy by length would have shown you. It needs exercise 2.

Each function changes the model in place and nothing but what it says: all weights stay, and so does
model.config. A layer's encoding is block.attn.pos for block in model.blocks; change it, or put another in its
place. Read FoPE in model.py first.

See. Sketch the curves that you expect, then look. (a) For each mistake: does it show at N, beyond N only, or
not at all, and what kind of test would find it then? (b) Which one changes scores whatever the positions are,
and what would it do to a model trained with it? (c) Which lines of this repository prevent each? (d) Do it
again with a run whose σ is a standard deviation, as in the paper's text (python train.py --fope_init=normal
--name=normal). What is new? The accuracies come from 100 prompts, so they are good to about 10 %.
"""

import sys
from copy import deepcopy

import data
import passkey
from model import GPT, autocast, load_checkpoint, pick_device
from perplexity import spread, token_losses


def redraw(model: GPT):
    """Draws all Fourier coefficients again, in every layer, as if the checkpoint had not kept them."""
    raise NotImplementedError


def pad_sine_with_ones(model: GPT):
    """Gives the clipped pairs sine 1 in place of 0 in each layer's pos.table; cosine stays 1."""
    raise NotImplementedError


def floor_from(model: GPT, length: int):
    """Takes the floor 2π/N from N = length >= block_size, as if that had been the training length.

    Under a lower floor FoPE has more frequencies. The trained coefficients keep the top left corner of the
    larger matrices, and what is new is drawn as FoPE(config) draws it. dataclasses.replace(config, ...) gives
    a changed copy of a config.
    """
    raise NotImplementedError


def broken_copy(model: GPT, name: str, length: int) -> GPT:
    """The model with the mistake of that name, as it is evaluated at this length."""
    copy = deepcopy(model)
    if name == "redraw":
        redraw(copy)
    if name == "pad_sine_with_ones":
        pad_sine_with_ones(copy)
    if name == "floor_from":
        floor_from(copy, length)
    return copy


def print_curves(run: str):
    """Perplexity and passkey accuracy of the run, whole and broken, from N to 8 N."""
    device = pick_device()
    model, checkpoint = load_checkpoint(run, device)
    N = model.config.block_size
    tokens = data.load_tokens(checkpoint["config"]["dataset"], "val")
    text = tokens[spread(len(tokens), 16, 8 * N)]
    encoding = data.get_encoding(checkpoint["meta"]["encoding"])
    print("perplexity and accuracy at", *(f"{length:16}" for length in (N, 2 * N, 4 * N, 8 * N)))
    for name in ("whole", "redraw", "pad_sine_with_ones", "floor_from"):
        cells = []
        for length in (N, 2 * N, 4 * N, 8 * N):
            broken = broken_copy(model, name, length)
            with autocast(device):
                loss = token_losses(broken, text, length).mean()
                share = passkey.evaluate(broken, encoding, length, trials=100).mean()
            cells.append(f"{loss.exp():8.2f} {share:6.0%} ")
        print(f"{name:25}", *cells, flush=True)


if __name__ == "__main__":
    print_curves(sys.argv[1])
