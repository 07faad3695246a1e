"""Checks of exercise 8: each function is mended, and each test passes right trainers and fails wrong ones."""

from functools import partial
from pathlib import Path

import torch

from assignments.harness import Wrong, load, part, same, true


def get_batch(tokens, length, count, ahead=1):
    starts = torch.randint(len(tokens) - length, (count,))
    places = starts[:, None] + torch.arange(length)
    return tokens[places], tokens[(places + ahead).clamp(max=len(tokens) - 1)]


def window_mask(q_len, k_len, window, more=0, first=None):
    first = k_len - q_len if first is None else first
    return torch.ones(q_len, k_len).tril(first).triu(first - window - more + 1).bool()


def positions(past, count, lost=0):
    start = max(past - lost, 0)
    return torch.arange(start, start + count)


@torch.no_grad()
def validate(model, x, y, dropout=False, goes_on=True):
    model.train(dropout)
    log_probabilities = model(x).log_softmax(dim=-1)
    model.train(goes_on)
    return -log_probabilities.gather(-1, y[..., None]).mean().item()


def best(history, weight_n=1, weight_4n=0):
    losses = [weight_n * entry["loss_n"] + weight_4n * entry["loss_4n"] for entry in history]
    return history[losses.index(min(losses))]


RIGHT = {
    "get_batch": get_batch,
    "window_mask": window_mask,
    "positions": positions,
    "validate": validate,
    "best": best,
}
WRONG = {
    "get_batch": {
        "targets are the inputs": partial(get_batch, ahead=0),
        "targets are two tokens ahead": partial(get_batch, ahead=2),
    },
    "window_mask": {
        "a query sees one key too many": partial(window_mask, more=1),
        "a query sees one key too few": partial(window_mask, more=-1),
        "queries stand at the first positions, not the last": partial(window_mask, first=0),
    },
    "positions": {
        "positions begin at 0 after a cache": partial(positions, lost=10**6),
        "positions after a cache are one too low": partial(positions, lost=1),
    },
    "validate": {
        "validation has dropout": partial(validate, dropout=True),
        "training goes on without dropout": partial(validate, goes_on=False),
    },
    "best": {
        "the loss at 4N decides": partial(best, weight_n=0, weight_4n=1),
        "the sum of both losses decides": partial(best, weight_4n=1),
    },
}
HISTORY = [
    {"step": 1, "loss_n": 5.0, "loss_4n": 4.0},
    {"step": 2, "loss_n": 1.0, "loss_4n": 8.5},
    {"step": 3, "loss_n": 4.0, "loss_4n": 4.5},
]
CASES = {  # arguments
    "get_batch": [(torch.arange(30, 37) ** 2, 6, 2)],  # tokens for one window, so that nothing is random
    "window_mask": [(5, 5, 3), (2, 5, 3), (1, 5, 1)],
    "positions": [(0, 4), (7, 1), (7, 3)],
    "best": [(HISTORY,), (HISTORY[::-1],)],
}


def check_function(answer, name: str):
    neighbours = list(WRONG[name].items())[1:]  # the first is the planted fault, which is to be found
    for arguments in CASES[name]:
        known = {mistake: wrong(*arguments) for mistake, wrong in neighbours}
        came = getattr(answer, name)(*arguments)
        same(name, came, RIGHT[name](*arguments), f"{arguments}", known)


def check_validate(answer):
    model = answer.Model(dropout=0.5)
    x, y = torch.randint(256, (2, 8, 16))
    came = answer.validate(model, x, y)
    true(
        model.training, "validate: the model is left in evaluation mode, so training goes on without dropout"
    )
    same(
        "validate",
        came,
        validate(model, x, y),
        "a random model, which comes in training mode",
    )


def check_test(answer, name: str):
    """The student's test of a function: it passes a right trainer and fails all that are wrong."""
    test = getattr(answer, f"test_{name}")
    right = load(Path(answer.__file__))  # the student's module anew, with the functions of this file
    vars(right).update(RIGHT)
    test(right)  # what it raises here says where a right trainer, only written differently, fails
    for mistake, wrong in WRONG[name].items():
        vars(right).update(RIGHT | {name: wrong})
        try:
            test(right)
        except Exception:
            continue
        raise Wrong(
            f"test_{name} finds nothing where {mistake}; it has to use trainer.{name}, or trainer.Model"
        )


def register(name: str):
    @part(f"{name} mended", 1)
    def function(answer):
        if name == "validate":
            check_validate(answer)
        else:
            check_function(answer, name)

    @part(f"test_{name}", 1)
    def test(answer):
        check_test(answer, name)


for name in RIGHT:
    register(name)
