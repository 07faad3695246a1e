"""
Grader of exercise 6, with the repository's own tests of every encoding:

    pytest assignments/grade_6_interpolated.py tests/test_model.py -k interpolated
"""

import pytest
import torch

from assignments.ex6_interpolated import Interpolated
from model import POSITIONS, GPTConfig, RoPE

POSITIONS["interpolated"] = Interpolated
POSITIONS_OF_TEST = torch.tensor([0, 1, 2, 3, 100, 511, 8191])


def config(pos: str) -> GPTConfig:
    return GPTConfig(n_head=2, n_embd=128, pos=pos)


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0, 16.0])
def test_position_n_is_encoded_as_n_over_scale(monkeypatch, scale):
    monkeypatch.setattr(Interpolated, "scale", scale)
    cos, sin = Interpolated(config("interpolated")).table(POSITIONS_OF_TEST)
    angles = POSITIONS_OF_TEST[:, None].double() / scale * RoPE(config("rope")).frequencies.double()
    assert cos.dtype == sin.dtype == torch.float32
    torch.testing.assert_close(cos.double(), angles.cos(), atol=2e-3, rtol=0)
    torch.testing.assert_close(sin.double(), angles.sin(), atol=2e-3, rtol=0)


def test_a_multiple_of_the_scale_is_a_position_of_rope():
    x = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0))
    pos, rope = Interpolated(config("interpolated")), RoPE(config("rope"))
    for n in (0, 1, 7, 511):
        torch.testing.assert_close(pos.rotate(x, start=int(n * pos.scale)), rope.rotate(x, start=n), atol=1e-3, rtol=0)


def test_lengths_of_q_and_k_stay():
    x = torch.randn(2, 20, 64, generator=torch.Generator().manual_seed(0))
    rotated = Interpolated(config("interpolated")).rotate(x, start=1000)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))  # the temperature is YaRN's, not interpolation's
