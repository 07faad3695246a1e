"""Grader of exercise 9: interpolation against RoPE, and the ramp against `yarn` of model.py."""

import math

import torch

from assignments.checks import Part, expect, expect_close
from model import GPTConfig, RoPE, rotate, yarn

MODEL_NAMES = {"RoPE"}
EXPERIMENTS = {"interpolations"}
CASES = [(512, 10_000.0, 64), (4096, 10_000.0, 128), (256, 10_000.0, 64), (64, 500.0, 16), (10**6, 500.0, 32)]
CASES += [
    (4700, 500.0, 32),
    (1000, 10.0, 32),
    (4, 10_000.0, 64),
    (32_768, 10.0, 8),
]  # where `low` or `high` meets its bound


def interpolation(answer) -> None:
    config = GPTConfig(n_head=2, n_embd=128, pos="rope")
    rope = RoPE(config)
    positions = torch.tensor([0, 1, 2, 3, 100, 511, 8191])
    x = torch.randn(1, 2, 1, 64)
    for scale in (4.0, 1.0, 2.0, 16.0):
        case = f"scale {scale:g}, positions {positions.tolist()}"
        pos = type("Interpolated", (answer.Interpolated,), {"scale": scale})(config)
        angles = positions[:, None].double() / scale * rope.frequencies.double()
        known = {
            "positions were multiplied by the scale": (angles * scale**2).cos(),
            "positions were divided to whole numbers": (
                (positions // scale)[:, None] * rope.frequencies
            ).cos(),
            "nothing were interpolated": (angles * scale).cos(),
        }
        floats = positions.float()
        came = pos.table(floats)
        expect(
            torch.equal(floats, positions.float()), f"table changed the positions\nwith {case}, in float32"
        )
        expect_close("table, cos", came[0], angles.cos().float(), case, atol=2e-3, known=known)
        expect_close("table, sin", came[1], angles.sin().float(), case, atol=2e-3)
        again = pos.table(positions)[0]
        case += "; the first call was right"
        expect_close("table, cos, in a second call", again, angles.cos().float(), case, atol=2e-3)
        turned, _ = pos.encode(x, x, int(7 * scale))
        expected = rotate(x, *rope.table(torch.tensor([7])))
        expect_close("a query at 7 s, against RoPE's at 7", turned, expected, f"scale {scale:g}", atol=2e-3)


def index_of(answer) -> None:
    for length, theta, dim in CASES:
        for turns in (1, 32, 0.5):
            case = f"{turns} turns, length {length}, θ {theta:g}, dim {dim}"
            radians = 2 * math.pi * turns / length
            expected = -dim / 2 * math.log(radians) / math.log(theta)
            known = {
                "a turn were 1 radian": -dim / 2 * math.log(turns / length) / math.log(theta),
                "the index of a dimension were given, not of a pair": 2 * expected,
                "turns and length had changed places": -expected,
                "the index were in a list from slow to fast": dim / 2 - expected,
                "the index were rounded": round(expected),
                "the index were rounded down": math.floor(expected),
                "a negative index were replaced by 0": max(expected, 0),
            }
            came = answer.index_of(turns, length, theta, dim)
            expect_close("index_of", came, expected, case, atol=1e-3, known=known)


def line(low: float, high: float, dim: int) -> torch.Tensor:
    return ((torch.arange(dim // 2) - low) / max(high - low, 0.001)).clamp(0, 1)


def ramp(answer) -> None:
    for length, theta, dim in CASES:
        case = f"length {length}, θ {theta:g}, dim {dim}"
        at_32, at_1 = (
            -dim / 2 * math.log(2 * math.pi * turns / length) / math.log(theta) for turns in (32, 1)
        )
        low = max(math.floor(at_32), 0)
        high = min(math.ceil(at_1), dim - 1)
        expected = line(low, high, dim)
        turns = length * theta ** (-torch.arange(0, dim, 2) / dim) / math.tau
        known = {
            "it fell: the fast frequencies, first in the list, stay": 1 - expected,
            "it were not cut off below 0 and above 1": (torch.arange(dim // 2) - low)
            / max(high - low, 0.001),
            "low and high were not rounded": line(max(at_32, 0), min(at_1, dim - 1), dim),
            "low and high were rounded to the nearest": line(
                max(round(at_32), 0), min(round(at_1), dim - 1), dim
            ),
            "low were rounded up and high down": line(
                max(math.ceil(at_32), 0), min(math.floor(at_1), dim - 1), dim
            ),
            "low were below 0": line(math.floor(at_32), high, dim),
            "the last index were dim / 2 - 1": line(low, min(math.ceil(at_1), dim // 2 - 1), dim),
            "the ramp were over turns, not over the index": 1 - ((turns - 1) / 31).clamp(0, 1),
            "high were above M - 1": line(low, math.ceil(at_1), dim),
            "there were a step, no ramp": (turns < 1).float(),
            "there were a step at 32 turns, no ramp": (turns < 32).float(),
        }
        known = {mistake: value for mistake, value in known.items() if torch.is_tensor(value)}
        expect_close("ramp", answer.ramp(length, theta, dim), expected.float(), case, atol=1e-4, known=known)


def stretch(answer) -> None:
    frequencies = RoPE(GPTConfig(n_head=2, n_embd=64, pos="rope")).frequencies
    weights = torch.linspace(-0.5, 1.5, 16).clamp(0, 1)
    for scale in (4.0, 1.0, 16.0):
        case = f"RoPE's 16 frequencies, a ramp from 0 to 1, scale {scale:g}"
        expected = frequencies * (1 - weights) + frequencies * weights / scale
        periods = 1 / frequencies
        known = {
            "fast and slow had changed places": frequencies * weights + frequencies * (1 - weights) / scale,
            "the mean were of periods, not of frequencies": 1
            / (periods * (1 - weights) + periods * scale * weights),
            "frequencies were multiplied by the scale": frequencies * (1 - weights)
            + frequencies * weights * scale,
            "all were divided: this is position interpolation": frequencies / scale,
            "the mean were geometric": frequencies / scale**weights,
        }
        copy = frequencies.clone()
        copied_weights = weights.clone()
        came = answer.stretch(copy, copied_weights, scale)
        for name, same in (
            ("frequencies", torch.equal(copy, frequencies)),
            ("ramp", torch.equal(copied_weights, weights)),
        ):
            expect(same, f"stretch changed the {name} that it was given\nwith {case}")
        expect_close("stretch", came, expected, case, atol=1e-7, known=known)


def temperature(answer) -> None:
    for scale in (4.0, 1.0, 16.0):
        expected = 0.1 * math.log(scale) + 1
        known = {
            "the logarithm were to base 2": 0.1 * math.log2(scale) + 1,
            "the logarithm were to base 10": 0.1 * math.log10(scale) + 1,
            "it were the factor of the score, which cos and sin of q and of k give together": expected**2,
            "it were the inverse": 1 / expected,
            "the 1 were inside of the logarithm": 0.1 * math.log(scale + 1),
        }
        came = answer.temperature(scale)
        expect_close("temperature", came, expected, f"scale {scale:g}", atol=1e-4, known=known)


def together(answer) -> None:
    for length, theta, dim in CASES:
        for scale in (2.0, 16.0):
            config = GPTConfig(n_head=1, n_embd=dim, block_size=length, rope_theta=theta, pos="rope")
            frequencies = RoPE(config).frequencies
            config.yarn_scale = scale
            came = answer.stretch(frequencies, answer.ramp(length, theta, dim), scale)
            case = f"length {length}, θ {theta:g}, dim {dim}, scale {scale:g}"
            what = "your stretch and ramp, against yarn of model.py"
            expect_close(what, came, yarn(frequencies, dim, config), case, atol=1e-7)


PARTS = [
    Part("interpolation", 2, interpolation),
    Part("index", 2, index_of),
    Part("ramp", 4, ramp),
    Part("stretch", 2, stretch),
    Part("temperature", 1, temperature),
    Part("together", 1, together),
]
