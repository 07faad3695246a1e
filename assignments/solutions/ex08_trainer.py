"""Solution of exercise 8: the trainer mended, and its tests."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
