"""Solution of exercise 4: ALiBi, a window and reach."""

import torch

from model import GPT


def slopes(n_head: int) -> torch.Tensor:
    h = torch.arange(1, n_head + 1)
    return 2 ** (-8 * h / n_head)


def bias(n_head: int, q_len: int, k_len: int) -> torch.Tensor:
    query = torch.arange(k_len - q_len, k_len)
    key = torch.arange(k_len)
    distance = query[:, None] - key  # (q_len, k_len)
    return -slopes(n_head)[:, None, None] * distance


def hold(model: GPT, window: int):
    for block in model.blocks:
        if block.attn.window == 0 or block.attn.window > window:
            block.attn.window = window


def reach(by_depth: list[list[float]], lengths: list[int]) -> list[float]:
    reaches = []
    for shares, length in zip(by_depth, lengths):
        parts = 0
        for share in reversed(shares):
            if share < 0.5:
                break
            parts += 1
        reaches.append(parts * length / len(shares))
    return reaches
