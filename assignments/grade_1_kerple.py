"""
Grader of exercise 1, with the repository's own tests of every encoding:

    pytest assignments/grade_1_kerple.py tests/test_model.py -k kerple

It registers the class before pytest reads tests/test_model.py, whose tests walk the registry and so find it there.
"""

import math

import pytest
import torch

from assignments.ex1_kerple import KERPLE
from model import GPT, POSITIONS, GPTConfig

POSITIONS["kerple"] = KERPLE
CONFIG = GPTConfig(vocab_size=64, block_size=16, n_layer=2, n_head=3, n_embd=48, pos="kerple")


def trained() -> KERPLE:
    """An encoding whose parameters, different in every head, an optimizer may have left anywhere."""
    torch.manual_seed(0)
    pos = KERPLE(CONFIG)
    with torch.no_grad():
        for parameter in pos.parameters():
            parameter.add_(2 * torch.randn_like(parameter))
    return pos


def test_two_rates_are_learned_in_every_head():
    learned = sum(parameter.numel() for parameter in KERPLE(CONFIG).parameters())
    assert learned == 2 * CONFIG.n_head, f"r1 and r2 in {CONFIG.n_head} heads, and {learned} numbers are nn.Parameters"


def test_rates_stay_positive():
    for pos in KERPLE(CONFIG), trained():
        for rate in pos.rates():
            assert rate.shape == (CONFIG.n_head,)
            assert (rate > 0).all(), f"an optimizer step can make a rate {rate.min():.3g}"


@pytest.mark.parametrize(("q_len", "k_len"), [(7, 7), (1, 7), (3, 7)], ids=["training", "one new token", "three new"])
def test_formula(q_len, k_len):
    pos = trained()
    bias = pos.bias(q_len, k_len)
    assert bias.dtype == torch.float32
    bias = bias.expand(CONFIG.n_head, q_len, k_len).tolist()
    for head, (r1, r2) in enumerate(zip(*(rate.tolist() for rate in pos.rates()))):
        for row in range(q_len):
            i = k_len - q_len + row  # the queries are the last q_len positions
            for j in range(i + 1):  # later keys are masked
                expected = -r1 * math.log(1 + r2 * (i - j))
                assert math.isclose(bias[head][row][j], expected, rel_tol=1e-4, abs_tol=1e-6), (
                    f"head {head}, query {i}, key {j}, r1 {r1:.4g}, r2 {r2:.4g}: {expected:.5g} expected"
                )


def test_every_rate_of_every_head_and_layer_gets_a_gradient():
    torch.manual_seed(0)
    model = GPT(CONFIG)
    idx = torch.randint(CONFIG.vocab_size, (4, 17))
    model(idx[:, :-1], idx[:, 1:])[1].backward()
    for block in model.blocks:
        for parameter in block.attn.pos.parameters():
            assert parameter.grad is not None and (parameter.grad != 0).all(), "a rate does not learn"
