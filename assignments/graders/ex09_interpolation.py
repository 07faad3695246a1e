"""Checks of exercise 9."""

import math

import torch

from assignments.harness import part, same
from model import FoPE, GPTConfig, RoPE


@part("interpolation", 2)
def interpolation(answer):
    for scale in (4.0, 2.0):
        answer.Interpolated.scale = scale
        config = GPTConfig()
        rope = RoPE(config).frequencies
        known = {
            "they were multiplied by the scale": rope * scale,
            "the scale were always 4: it is self.scale": rope / 4,
        }
        came = answer.Interpolated(config).frequencies
        same("the frequencies of Interpolated", came, rope / scale, f"scale {scale:g}", known, atol=1e-9)


@part("theta", 3)
def theta(answer):
    for theta, scale, head_dim in ((10_000.0, 4.0, 64), (500_000.0, 2.0, 128), (10_000.0, 1.0, 64)):
        expected = theta * scale ** (head_dim / (head_dim - 2))
        known = {
            "theta had been multiplied by the scale: the slowest m is head_dim / 2 - 1": theta * scale,
            "theta had been raised to a power": theta**scale,
            "it were made faster": theta * scale ** (-head_dim / (head_dim - 2)),
            "m went up to head_dim - 1": theta * scale ** (head_dim / (2 * head_dim - 2)),
        }
        case = f"theta {theta:g}, scale {scale:g}, head_dim {head_dim}"
        same("ntk_theta", answer.ntk_theta(theta, scale, head_dim), expected, case, known)


@part("unseen angles", 5)
def unseen(answer):
    N = 256
    rope = RoPE(GPTConfig(block_size=N)).frequencies
    yarn = RoPE(GPTConfig(block_size=N, yarn_scale=4.0)).frequencies
    fope = torch.zeros_like(rope)
    fope[:13] = FoPE(GPTConfig(block_size=N)).frequencies
    for name, old, new in (("RoPE", rope, rope), ("YaRN", rope, yarn), ("FoPE", fope, fope)):
        for length in (N // 2, N, 2 * N, 4 * N, 8 * N):
            turned = old * N >= 2 * math.pi
            beyond = new * length > old * N
            known = {
                "pairs that make a turn were counted, too: they have seen all angles": beyond,
                "all pairs without a turn were counted, whatever the length": ~turned,
                "a turn were looked for in `length` positions, not in N": ~(old * length >= 2 * math.pi)
                & beyond,
                "a turn were looked for with the new frequencies": ~(new * N >= 2 * math.pi) & beyond,
                "a turn were 1 and not 2 pi": ~(old * N >= 1) & beyond,
                "the angle of old at `length` were compared, not that of new": ~turned
                & (old * length > old * N),
                "it were the other way round, True for what has been seen": ~(~turned & beyond),
            }
            came = answer.unseen(old.clone(), new.clone(), N, length)
            same("unseen", came, ~turned & beyond, f"{name}, N {N}, length {length}", known)
