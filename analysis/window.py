"""
Perplexity by context length when a token sees only the last N keys: are far keys what a model cannot read?

    python -m analysis.window out/fope_tiny out/rope_tiny --tokens 32768

(From the repository's root; -m puts it on Python's path.) Options and table are those of perplexity.py. Where a model
is better with the window, what it loses past N comes from keys further back than it was trained on; where it is worse,
it makes use of them. The window is the cheapest repair of perplexity past N, and finds no passkey further back than
itself: a flat perplexity alone does not tell that a model reads what lies there.
"""

import argparse
import math

import torch

import perplexity
from model import GPT, NoPE


def look_back(pos: NoPE, window: int, device: torch.device | None = None) -> None:
    """Adds -inf to an encoding's bias for keys `window` or more tokens before the query."""
    inner = pos.bias

    def bias(q_len: int, k_len: int) -> torch.Tensor:
        own, keys = inner(q_len, k_len), torch.arange(k_len, device=device)
        far = keys[k_len - q_len :, None] - keys >= window
        mask = torch.zeros(far.shape, device=device).masked_fill(far, -math.inf)[None]
        return mask if own is None else mask + own

    pos.bias = bias


def measure(model: GPT, checkpoint: dict, args: argparse.Namespace) -> tuple[dict, dict[str, list[str]]]:
    """As perplexity.measure, each token with the training length's keys at most."""
    window = model.config.block_size
    for block in model.blocks:
        look_back(block.attn.pos, window, model.lm_head.weight.device)
    numbers, rows = perplexity.measure(model, checkpoint, args)
    return numbers | {"window": window}, rows


def main() -> None:
    perplexity.main(measure)
    print("each token sees the last N keys, N being the run's training length; perplexity.py lets it see all")


if __name__ == "__main__":
    main()
