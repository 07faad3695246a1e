"""Solution of exercise 8: the five functions mended, and their tests. All else is the exercise's."""

import inspect

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assignments import ex08_trainer

# The exercise's source is run in this module, so that its Model and its train call the functions below.
exec(inspect.getsource(ex08_trainer))


def get_batch(tokens: Tensor, length: int, count: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (count, length) from random places of tokens (n,): a target is the next token."""
    starts = torch.randint(len(tokens) - length, (count,))
    x = torch.stack([tokens[start : start + length] for start in starts])
    y = torch.stack([tokens[start + 1 : start + length + 1] for start in starts])
    return x, y


def window_mask(q_len: int, k_len: int, window: int) -> Tensor:
    """True where a query sees a key: (q_len, k_len). It sees `window` keys, its own and those before it.

    The queries are the last q_len of k_len positions.
    """
    query = torch.arange(k_len - q_len, k_len)
    key = torch.arange(k_len)
    distance = query[:, None] - key
    return (distance >= 0) & (distance < window)


def positions(past: int, count: int) -> Tensor:
    """Positions of `count` new tokens after `past` others, which a cache holds: (count,)."""
    return torch.arange(past, past + count)


@torch.no_grad()
def validate(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean loss, in nats, without dropout. The model comes in training mode and is left in it."""
    model.eval()
    logits = model(x)
    model.train()
    return F.cross_entropy(logits.flatten(0, 1), y.flatten()).item()


def best(history: list[dict]) -> dict:
    """The checkpoint to keep: the one with the lowest loss at N; 4N is only reported."""
    chosen = history[0]
    for entry in history:
        if entry["loss_n"] < chosen["loss_n"]:
            chosen = entry
    return chosen


def test_get_batch(trainer):
    tokens = torch.arange(100, 140)
    x, y = trainer.get_batch(tokens, length=7, count=20)
    assert x.shape == y.shape == (20, 7)
    assert (y == x + 1).all()


def test_window_mask(trainer):
    for q_len, k_len, window in ((9, 9, 4), (2, 9, 4), (1, 9, 1), (3, 9, 20)):
        mask = trainer.window_mask(q_len, k_len, window)
        for i in range(q_len):
            own = k_len - q_len + i
            seen = mask[i].nonzero().flatten().tolist()
            assert seen == list(range(max(own - window + 1, 0), own + 1))


def test_positions(trainer):
    model = trainer.Model().eval()
    text = torch.randint(256, (2, 20))
    cache = {}
    pieces = [model(piece, cache) for piece in text.split((9, 1, 10), dim=1)]
    assert torch.allclose(torch.cat(pieces, dim=1), model(text), atol=1e-5)


def test_validate(trainer):
    model = trainer.Model(dropout=0.5)
    x, y = torch.randint(256, (2, 4, 10))
    loss = trainer.validate(model, x, y)
    assert model.training
    model.eval()
    logits = model(x)
    expected = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    assert abs(loss - expected.item()) < 1e-4


def test_best(trainer):
    history = [{"step": step, "loss_n": abs(step - 3)} for step in range(6)]
    for losses in ([6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [5, 1, 6, 2, 4, 3]):
        for entry, loss in zip(history, losses):
            entry["loss_4n"] = loss
        assert trainer.best(history)["step"] == 3
