"""
Grader of exercise 5: each function breaks what it should, in every layer, and nothing else.

    pytest assignments/grade_5_break.py
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from assignments.ex5_break import floor_from, pad_sine_with_ones, redraw
from model import GPT, FoPE, GPTConfig

N = 64
CONFIG = GPTConfig(vocab_size=50, block_size=N, n_layer=3, n_head=4, n_embd=256, pos="fope")
COEFFICIENTS = ("cos_coef", "sin_coef")
IDX = torch.randint(CONFIG.vocab_size, (2, 3 * N), generator=torch.Generator().manual_seed(0))


def make_model() -> GPT:
    """A small model whose weights are large enough for its logits to depend on positions."""
    torch.manual_seed(0)
    model = GPT(CONFIG).eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data *= 5
    return model


@pytest.fixture
def model() -> GPT:
    return make_model()


def encodings(model: GPT) -> list[FoPE]:
    return [block.attn.pos for block in model.blocks]


def assert_same_but_for_coefficients(model: GPT) -> None:
    old, new = make_model().state_dict(), model.state_dict()
    assert old.keys() == new.keys()
    for name in old:
        assert name.endswith(COEFFICIENTS) or torch.equal(old[name], new[name]), f"{name} should stay as it was"
    assert model.config == CONFIG, "the model's configuration should stay as it was"
    assert all(isinstance(pos, FoPE) for pos in encodings(model))


@torch.no_grad()
def change(model: GPT) -> float:
    """How much the logits have changed, as a share of their size."""
    before, after = (m.lm_head(m.hidden(IDX)) for m in (make_model(), model))
    return ((after - before).norm() / before.norm()).item()


def test_redraw_draws_every_coefficient_again(model):
    redraw(model)
    assert_same_but_for_coefficients(model)
    harmonics = []
    for pos, old in zip(encodings(model), encodings(make_model())):
        for name in COEFFICIENTS:
            new, drawn = getattr(pos, name), getattr(old, name)
            assert new.shape == drawn.shape
            assert (new != drawn).all(), f"some of {name} is as before"
            spread, expected = ((coef - torch.eye(coef.size(-1))).std().item() for coef in (new, drawn))
            assert spread == pytest.approx(expected, rel=0.3), "the dominant frequency keeps its 1, the scale its σ"
            harmonics += list(new)
    for i, a in enumerate(harmonics):
        assert not any(torch.equal(a, b) for b in harmonics[:i]), (
            "every layer and head has a draw of its own (a FoPE leaves torch's generator as it found it)"
        )
    assert change(model) > 1e-3


def test_redraw_is_random(model):
    other = deepcopy(model)
    redraw(model)
    redraw(other)
    assert not torch.equal(encodings(model)[0].cos_coef, encodings(other)[0].cos_coef)


def test_pad_sine_with_ones_changes_the_sine_of_clipped_dimensions(model):
    pad_sine_with_ones(model)
    assert_same_but_for_coefficients(model)
    positions = torch.tensor([0, 1, 77, 5000])
    for pos, old in zip(encodings(model), encodings(make_model())):
        (cos, sin), (old_cos, old_sin), kept = pos.table(positions), old.table(positions), len(old.frequencies)
        assert torch.equal(cos, old_cos), "the cosine should stay as it was"
        assert torch.equal(sin[..., :kept], old_sin[..., :kept]), "the kept dimensions should stay as they were"
        assert sin.shape == old_sin.shape and (sin[..., kept:] == 1).all()
        assert all(torch.equal(getattr(pos, name), getattr(old, name)) for name in COEFFICIENTS)
    assert change(model) > 1e-3


@pytest.mark.parametrize("times", [2, 8])
def test_floor_from_keeps_the_old_corner(model, times):
    floor_from(model, times * N)
    assert_same_but_for_coefficients(model)
    for pos, old in zip(encodings(model), encodings(make_model())):
        longer = FoPE(replace(CONFIG, block_size=times * N))
        torch.testing.assert_close(pos.frequencies, longer.frequencies)
        kept = len(old.frequencies)
        for name in COEFFICIENTS:
            new = getattr(pos, name)
            assert new.shape == getattr(longer, name).shape
            assert torch.equal(new[:, :kept, :kept], getattr(old, name)), f"the trained {name} keeps its corner"
            drawn = new.clone()
            drawn[:, :kept, :kept] = torch.eye(kept)
            drawn -= torch.eye(len(pos.frequencies))
            assert 0 < drawn.abs().max() < 0.7, "the new coefficients are drawn, around 1 for the dominant frequency"
    assert change(model) > 1e-3


def test_floor_from_the_training_length_changes_nothing(model):
    floor_from(model, N)
    assert_same_but_for_coefficients(model)
    assert change(model) == 0
