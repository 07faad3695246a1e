"""
Exercise 8: a broken trainer, and tests that find what is broken. 55 minutes, 10 points.

    python -m assignments.grade ex08
    python -m assignments.ex08_trainer      trains a tiny model on the text of model.py, and runs your tests

Goal. Find faults that raise no error: the loss falls, the numbers look fine, and all of them are wrong.

Before you start. Run the file: its loss is too good to be true. There is one fault in each of get_batch,
window_mask, positions, validate and best; docstrings say what they should do. Model and train are right.

Fill in the five tests, and mend the functions, before you grade: a grader's hints show what is wrong. A test
asserts a property that holds however a right trainer is written. It trains nothing, and compares with no
number that was copied from an output. We run each test on right trainers that are written differently, and on
wrong ones: with the fault that you find here, and with its neighbours, such as a window that is too short.
`trainer` is a module with the names of this one: call trainer.get_batch, not get_batch.

See. (a) Which of the five would you notice from the printed losses alone, and how? (b) A test could compare
the loss of a seeded model with a number that was written down when it ran first. When does that help, and
what does it say to who changes the model? (c) "Never seen in training" is said of the length 4N. Why may it
not be said any more of a checkpoint that was chosen by it? (d) Which tests in tests/ state the five
properties of this repository's own trainer and model?
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def get_batch(tokens: Tensor, length: int, count: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (count, length) from random places of tokens (n,): a target is the next token."""
    starts = torch.randint(len(tokens) - length, (count,))
    x = torch.stack([tokens[start : start + length] for start in starts])
    y = torch.stack([tokens[start : start + length] for start in starts])
    return x, y


def window_mask(q_len: int, k_len: int, window: int) -> Tensor:
    """True where a query sees a key: (q_len, k_len). It sees `window` keys, its own and those before it.

    The queries are the last q_len of k_len positions.
    """
    query = torch.arange(k_len - q_len, k_len)
    key = torch.arange(k_len)
    distance = query[:, None] - key
    return (distance >= 0) & (distance <= window)


def positions(past: int, count: int) -> Tensor:
    """Positions of `count` new tokens after `past` others, which a cache holds: (count,)."""
    return torch.arange(count)


class Model(nn.Module):
    """One layer of attention: queries see a window of keys, positions are added as sines and cosines."""

    def __init__(self, vocab_size=256, width=32, window=16, dropout=0.2):
        super().__init__()
        self.window = window
        self.wte = nn.Embedding(vocab_size, width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.dropout = nn.Dropout(dropout)
        self.lm_head = nn.Linear(width, vocab_size)
        self.register_buffer("frequencies", 100 ** -torch.linspace(0, 1, width // 2))

    def forward(self, idx: Tensor, cache: dict | None = None) -> Tensor:
        """Logits (B, T, vocab_size) of tokens idx (B, T); a cache, {} at first, holds those before idx."""
        past = cache["k"].size(1) if cache else 0
        angles = positions(past, idx.size(1))[:, None] * self.frequencies
        x = self.wte(idx) + torch.cat((angles.cos(), angles.sin()), dim=-1)
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        if cache:
            k = torch.cat((cache["k"], k), dim=1)
            v = torch.cat((cache["v"], v), dim=1)
        if cache is not None:
            cache.update(k=k, v=v)
        mask = window_mask(q.size(1), k.size(1), self.window)
        y = F.scaled_dot_product_attention(q, k, v, mask)
        return self.lm_head(self.dropout(x + y))


@torch.no_grad()
def validate(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean loss, in nats, without dropout. The model comes in training mode and is left in it."""
    logits = model(x)
    return F.cross_entropy(logits.flatten(0, 1), y.flatten()).item()


def best(history: list[dict]) -> dict:
    """The checkpoint to keep: the one with the lowest loss at N; 4N is only reported."""
    chosen = history[0]
    for entry in history:
        if entry["loss_4n"] < chosen["loss_4n"]:
            chosen = entry
    return chosen


def train(train_tokens: Tensor, val_tokens: Tensor, length=32, steps=400) -> dict:
    """Trains a Model at N = length; the checkpoint that it keeps, with its losses at N and at 4N."""
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    at_n = get_batch(val_tokens, length, 64)
    at_4n = get_batch(val_tokens, 4 * length, 16)
    history = []
    for step in range(1, steps + 1):
        x, y = get_batch(train_tokens, length, 16)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            weights = {name: weight.clone() for name, weight in model.state_dict().items()}
            entry = {"step": step, "loss_n": validate(model, *at_n), "loss_4n": validate(model, *at_4n)}
            print("step {step}: loss {loss_n:.3f} at N, {loss_4n:.3f} at 4N".format(**entry))
            history.append(entry | {"weights": weights})
    return best(history)


def test_get_batch(trainer):
    """The target of every position is the token that follows it in the text."""
    raise NotImplementedError


def test_window_mask(trainer):
    """A query sees its own key and those before it, as many as the window has, with and without a cache."""
    raise NotImplementedError


def test_positions(trainer):
    """A text gives the same logits whether it is read at once or, with a cache, in pieces."""
    raise NotImplementedError


def test_validate(trainer):
    """The loss is without dropout, and training goes on with dropout."""
    raise NotImplementedError


def test_best(trainer):
    """What is chosen does not depend on the losses at 4N."""
    raise NotImplementedError


if __name__ == "__main__":
    this = sys.modules["__main__"]
    for test in (test_get_batch, test_window_mask, test_positions, test_validate, test_best):
        try:
            test(this)
            print(f"{test.__name__}: holds")
        except (AssertionError, NotImplementedError) as error:
            print(f"{test.__name__}: {type(error).__name__} {error}")
    text = torch.tensor(list(Path("model.py").read_bytes()))
    kept = train(text[:-3000], text[-3000:])
    print(f"kept: step {kept['step']}")
