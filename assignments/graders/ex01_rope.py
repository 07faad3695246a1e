"""Checks of exercise 1, against RoPE and rotate of model.py."""

import torch

from assignments.harness import part, same, true
from model import GPTConfig, RoPE, rotate

SHAPES = ((64, 10_000.0), (24, 500.0), (2, 10_000.0))  # of head_dim and theta
POSITIONS = torch.tensor([7, 0, 1, 63, 8190, 8191])


def rope(head_dim: int, theta: float) -> RoPE:
    return RoPE(GPTConfig(n_head=1, n_embd=head_dim, rope_theta=theta))


@part("frequencies", 3)
def frequencies(answer):
    for head_dim, theta in SHAPES:
        m = torch.arange(head_dim // 2)
        known = {
            "the exponent were m / head_dim: m counts pairs, and each has two dimensions": theta
            ** (-m / head_dim),
            "m began at 1: the fastest pair has m = 0, and turns by 1": theta ** (-2 * (m + 1) / head_dim),
            "the sign of the exponent were missing": theta ** (2 * m / head_dim),
            "2 pi were in it: they are in radians a position": 2 * torch.pi * theta ** (-2 * m / head_dim),
            "every pair came twice": theta ** (-2 * torch.arange(head_dim).div(2).floor() / head_dim),
        }
        case = f"head_dim {head_dim}, theta {theta:g}"
        same(
            "frequencies", answer.frequencies(head_dim, theta), rope(head_dim, theta).frequencies, case, known
        )


@part("table", 3)
def table(answer):
    for head_dim, theta in SHAPES:
        pos = rope(head_dim, theta)
        cos, sin = pos.table(POSITIONS)
        counted = pos.table(torch.arange(len(POSITIONS)))
        known = {
            "cosine and sine were exchanged": (sin, cos),
            "a row were a pair: a row is a position": (cos.T, sin.T),
            "the positions were counted from 0, and those given not looked at": counted,
            "a tensor were stacked of the two: a tuple is expected": torch.stack((cos, sin)),
        }
        case = f"positions {POSITIONS.tolist()}, frequencies of head_dim {head_dim}, theta {theta:g}"
        came = answer.table(POSITIONS, pos.frequencies)
        same("table", came, (cos, sin), case, known, atol=1e-3)  # angles in float64 are right, too


@part("rotate", 3)
def rotation(answer):
    for dtype in (torch.float32, torch.bfloat16):
        pos = rope(8, 100.0)
        cos, sin = pos.table(torch.arange(3, 8))
        x = torch.randn(2, 3, 5, 8, dtype=dtype)
        given = x.clone()
        a = x[..., ::2]
        b = x[..., 1::2]
        parted = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        neighbours = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        interleaved = torch.stack(rotate(x, cos, sin).chunk(2, dim=-1), dim=-1).flatten(-2)
        known = {
            "it turned clockwise: the sine has the wrong sign": rotate(x, cos, -sin),
            "neighbours were paired: m goes with m + head_dim / 2": neighbours.to(dtype),
            "neighbours were paired, and parted again: m goes with m + head_dim / 2": parted.to(dtype),
            "the turned halves were put together pair by pair: first all a, then all b": interleaved,
        }
        came = answer.rotate(x, cos, sin)
        atol = 1e-4 if dtype == torch.float32 else 0.02
        case = f"x of shape {tuple(x.shape)} and {dtype}, cos and sin {tuple(cos.shape)}"
        true(torch.equal(x, given), f"rotate: x itself was written to\nwith {case}")
        same("rotate", came, rotate(x, cos, sin), case, known, atol)


@part("a table for each head", 1)
def heads(answer):
    angles = torch.randn(3, 5, 4)
    x = torch.randn(2, 3, 5, 8)
    expected = rotate(x, angles.cos(), angles.sin())
    case = "x (2, 3, 5, 8), cos and sin (3, 5, 4): one table for each of 3 heads"
    same("rotate", answer.rotate(x, angles.cos(), angles.sin()), expected, case)
