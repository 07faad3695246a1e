"""Checks of exercise 7, with a small model whose coefficients are the Xavier draw."""

import math
from copy import deepcopy
from dataclasses import replace

import torch

from assignments.harness import part, same, true
from model import GPT, FoPE, GPTConfig

N = 256
NAMES = ("cos_coef", "sin_coef")
POSITIONS = torch.tensor([0, 1, 77, 5000])


def small_gpt() -> GPT:
    """Of its 32 pairs 13 are kept."""
    return GPT(GPTConfig(vocab_size=64, block_size=N, n_layer=2, n_head=2, n_embd=128)).eval()


def rest_stays(what: str, model: GPT, old: GPT):
    """Wrong if more than the encodings has changed."""
    true(model.config == old.config, f"{what}: model.config should stay as it is")
    for (name, came), weight in zip(model.named_parameters(), old.parameters()):
        true(torch.equal(came, weight), f"{what}: the weight {name} should stay as it is")


def noise(coefs: torch.Tensor) -> torch.Tensor:
    """What was drawn: coefficients (H, kept, kept) without the 1 of the own frequency."""
    return coefs - torch.eye(coefs.size(1))


def has_ones(what: str, coefs: torch.Tensor):
    """Wrong unless the diagonal is about 1."""
    mean = coefs.diagonal(dim1=1, dim2=2).mean()
    true(abs(mean - 1) < 0.5, f"{what}: the 1 is missing where the frequency is the output's own")


def drawn(what: str, came: torch.Tensor, expected: torch.Tensor):
    """Wrong unless two draws, of hundreds of numbers each, have a similar standard deviation."""
    stds = f"standard deviation: expected about {expected.std():.3f}, came {came.std():.3f}"
    if came.std() > 5 * expected.std():
        stds += "\nit looks as if N(0, sigma) had drawn them: with fope_init xavier, sigma is Xavier's gain"
    true(0.6 < came.std() / expected.std() < 1.6, f"{what}: not drawn as FoPE(config) draws\n{stds}")


@part("redraw", 4)
def redraw(answer):
    model = small_gpt()
    old = deepcopy(model)
    answer.redraw(model)
    rest_stays("redraw", model, old)
    draws = []
    for layer, block in enumerate(model.blocks):
        for name in NAMES:
            what = f"redraw: {name} of layer {layer}"
            came = getattr(block.attn.pos, name)
            before = getattr(old.blocks[layer].attn.pos, name)
            same(what, came, before, "2 heads, 13 pairs kept", atol=math.inf)
            true(not torch.equal(came, before), f"{what} is as before")
            has_ones(what, came)
            draw = noise(came)
            drawn(what, draw, noise(before))
            kept = (draw * noise(before)).mean() / noise(before).square().mean()
            true(kept < 0.5, f"{what}: the old draw is still in it")
            true(not torch.equal(draw[0], draw[1]), f"{what}: each head needs a draw of its own")
            true(not any(torch.equal(draw, other) for other in draws), f"{what}: the same draw as one before")
            draws.append(draw)


@part("sine 1", 3)
def pad_sine(answer):
    model = small_gpt()
    old = deepcopy(model)
    tables = [block.attn.pos.table(POSITIONS) for block in old.blocks]
    answer.pad_sine_with_ones(model)
    rest_stays("pad_sine_with_ones", model, old)
    same("another model's FoPE, which stays", old.blocks[0].attn.pos.table(POSITIONS), tables[0], "sine 0")
    last_cos = tables[-1][0]
    last_sin = tables[-1][1].clone()
    last_sin[..., 13:] = 1
    for layer, block in enumerate(model.blocks):
        cos, sin = tables[layer]
        right = sin.clone()
        right[..., 13:] = 1
        known = {
            "nothing had changed": (cos, sin),
            "the sine of all pairs were 1": (cos, torch.ones_like(sin)),
            "cosine were 0 there": (cos * (right != 1), right),
            "every layer had the last layer's table, by late binding: a function that\nis made in a loop "
            "sees the loop's variables as they are at its end": (last_cos, last_sin),
        }
        what = f"pad_sine_with_ones: the table of layer {layer}"
        case = f"positions {POSITIONS.tolist()}, 13 pairs of 32 kept"
        same(what, block.attn.pos.table(POSITIONS), (cos, right), case, known)


@part("floor", 3)
def floor_from(answer):
    for length in (N, 8 * N):
        model = small_gpt()
        old = deepcopy(model)
        answer.floor_from(model, length)
        rest_stays("floor_from", model, old)
        for layer, block in enumerate(model.blocks):
            pos = block.attn.pos
            new = FoPE(replace(old.config, block_size=length))
            case = f"block_size {N}, length {length}"
            what = f"floor_from: layer {layer}'s "
            same(what + "frequencies", pos.frequencies, new.frequencies, case, atol=1e-9)
            for name in NAMES:
                came = getattr(pos, name)
                expected = getattr(new, name)
                before = getattr(old.blocks[layer].attn.pos, name)
                same(what + name, came, expected, case, atol=math.inf)
                same(f"{what}corner of {name}", came[:, :13, :13], before, case, atol=1e-6)
                has_ones(what + name, came)
                if length > N:
                    part_of = f"{what}new part of {name}"
                    drawn(part_of, noise(came)[:, 13:], noise(expected)[:, 13:])
                    drawn(part_of, noise(came)[:, :13, 13:], noise(expected)[:, :13, 13:])
