"""What all tests share: a seed before each, and one thread a process, so that `-n 2` fills two cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it; the processes that tests start inherit it

import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
