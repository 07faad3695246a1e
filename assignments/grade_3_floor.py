"""
Grader of exercise 3: the student's formulas against the frequencies that model.py keeps.

    pytest assignments/grade_3_floor.py
"""

import itertools

import pytest
import torch

from assignments.ex3_floor import kept, shortest_unclipped, undertrained
from model import FoPE, GPTConfig

CASES = list(itertools.product([4, 100, 256, 512, 4096, 60_000], [500.0, 10_000.0, 500_000.0], [2, 24, 64, 128]))


def fope(block_size: int, rope_theta: float, head_dim: int) -> FoPE:
    return FoPE(GPTConfig(n_head=1, n_embd=head_dim, block_size=block_size, rope_theta=rope_theta, fope_series=False))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "N={} θ={:.0f} head_dim={}".format(*case))
def test_kept_is_the_number_of_frequencies(case):
    assert kept(*case) == len(fope(*case).frequencies)


def test_kept_is_in_closed_form():
    head_dim = 2**40
    assert kept(512, 10_000.0, head_dim) == pytest.approx(0.4777 * head_dim / 2, rel=1e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "N={} θ={:.0f} head_dim={}".format(*case))
def test_undertrained_are_the_dimensions_that_do_not_turn(case):
    head_dim = case[-1]
    x = torch.ones(1, 50, head_dim)
    still = (fope(*case).rotate(x, start=1000) == x).all(dim=(0, 1))
    assert undertrained(*case) == still.nonzero().flatten().tolist()


@pytest.mark.parametrize(("rope_theta", "head_dim"), [(500.0, 64), (10_000.0, 64), (10_000.0, 128), (20_000.0, 2)])
def test_shortest_unclipped(rope_theta, head_dim):
    length = shortest_unclipped(rope_theta, head_dim)
    assert len(fope(length, rope_theta, head_dim).frequencies) == head_dim // 2, "a dimension is under the floor"
    assert len(fope(length - 1, rope_theta, head_dim).frequencies) < head_dim // 2, "a shorter length will do"
