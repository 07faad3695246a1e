"""
Grader of exercise 4: the error by its definition, worked out here with complex numbers in float64.

    pytest assignments/grade_4_relative.py
"""

import math

import pytest
import torch

from assignments.ex4_relative import EXPONENT, relative_error
from model import POSITIONS, FoPE, GPTConfig

SMALL = {"n_head": 3, "n_embd": 96, "block_size": 128}
Q, K = torch.randn(2, 3, 10, 32, generator=torch.Generator().manual_seed(0))


def fope(sigma: float, init: str = "normal") -> FoPE:
    torch.manual_seed(0)  # the same draw for every sigma, scaled
    return FoPE(GPTConfig(pos="fope", fope_sigma=sigma, fope_init=init, **SMALL))


def expected(pos: FoPE, shift: int) -> float:
    def scores(start: int) -> torch.Tensor:
        positions = torch.arange(start, start + Q.size(1), dtype=torch.float64)
        angles = positions[:, None] * pos.frequencies.double()
        series = torch.complex(angles.cos() @ pos.cos_coef.double(), angles.sin() @ pos.sin_coef.double())
        clipped = torch.ones(*series.shape[:2], Q.size(-1) // 2 - series.size(-1), dtype=series.dtype)
        turn = torch.cat((series, clipped), dim=-1)
        q, k = (torch.complex(*x.double().chunk(2, dim=-1)) * turn for x in (Q, K))
        return (q @ k.conj().transpose(-2, -1)).real

    change = scores(shift) - scores(0)
    return (change.square().mean() / scores(0).square().mean()).sqrt().item()


@pytest.mark.parametrize("name", [name for name in POSITIONS if not issubclass(POSITIONS[name], FoPE)])
def test_zero_for_relative_encodings(name):
    pos = POSITIONS[name](GPTConfig(pos=name, **SMALL))
    assert relative_error(pos, Q, K, shift=50) == pytest.approx(0, abs=1e-4)


def test_zero_for_fope_at_sigma_zero():
    assert relative_error(fope(0.0), Q, K, shift=50) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("init", ["normal", "xavier"])
@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("shift", [1, 50, 1000])
def test_definition(sigma, init, shift):
    pos = fope(sigma, init)
    assert relative_error(pos, Q, K, shift) == pytest.approx(expected(pos, shift), rel=1e-2)


def test_grows_with_sigma():
    errors = [relative_error(fope(sigma), Q, K, shift=50) for sigma in (0.0, 0.01, 0.03, 0.1, 0.3)]
    assert errors == sorted(errors) and len(set(errors)) == len(errors)


def test_exponent():
    assert EXPONENT is not None, "predict EXPONENT at the top of the file"
    slope = math.log(expected(fope(0.01), 50) / expected(fope(0.001), 50)) / math.log(10)
    assert pytest.approx(slope, abs=0.1) == EXPONENT
