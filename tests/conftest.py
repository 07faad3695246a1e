"""
What every test file shares: each test starts from one seed, so that a failure returns when run alone, and
every process computes with one thread, so that `pytest -n 2` keeps two cores busy and no more.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it; the processes that tests start inherit it

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
