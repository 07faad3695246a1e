"""
Grader of exercise 2, with the repository's own tests of every encoding:

    pytest assignments/grade_2_p_rope.py tests/test_model.py -k p_rope
"""

import pytest
import torch

from assignments.ex2_p_rope import PRoPE, p_of_fope
from model import POSITIONS, FoPE, GPTConfig, RoPE

POSITIONS["p_rope"] = PRoPE


def config(pos: str, head_dim: int = 64, **settings) -> GPTConfig:
    return GPTConfig(n_head=2, n_embd=2 * head_dim, pos=pos, **settings)


@pytest.mark.parametrize("head_dim", [8, 64, 128])
@pytest.mark.parametrize("p", [0.0, 0.25, 0.75, 1.0])
def test_the_fastest_frequencies_stay_and_the_others_are_zero(monkeypatch, p, head_dim):
    monkeypatch.setattr(PRoPE, "p", p)
    frequencies, rope = PRoPE(config("p_rope", head_dim)).frequencies, RoPE(config("rope", head_dim)).frequencies
    count = int(p * head_dim / 2)
    assert len(frequencies) == len(rope), "a clipped frequency becomes zero, it does not go"
    torch.testing.assert_close(frequencies[:count], rope[:count])
    assert (frequencies[count:] == 0).all()


def test_the_clipped_dimensions_do_not_turn():
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    turned = PRoPE(config("p_rope")).rotate(x, start=100) != x
    assert turned.any(dim=(0, 1)).tolist() == 2 * (24 * [True] + 8 * [False])  # p = 3/4 of each half


@pytest.mark.parametrize(
    "settings",
    [{"block_size": 8192}, {"pos_length": 64}, {"rope_theta": 5e6}, {"head_dim": 128}, {"head_dim": 24}, {}],
    ids=str,
)
def test_p_of_fope_is_the_clip(monkeypatch, settings):
    fope = FoPE(config("fope", fope_series=False, **settings))
    p = p_of_fope(fope.config)
    assert 0 <= p <= 1
    monkeypatch.setattr(PRoPE, "p", p)
    x = torch.randn(2, 40, fope.config.head_dim, generator=torch.Generator().manual_seed(0))
    for start in (0, 10_000):
        torch.testing.assert_close(PRoPE(config("p_rope", **settings)).rotate(x, start), fope.rotate(x, start))
