"""What every test file shares: each test starts from one seed, so that a failure returns when run alone."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
