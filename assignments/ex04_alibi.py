"""
Exercise 4: ALiBi, and why flat is not far. 40 minutes, 10 points.

    python -m assignments.grade ex04
    python -m assignments.ex04_alibi out/fope_plain     a trained run, before and after it is held to N keys

Goal. Write a bias, and see what a flat curve of perplexity does not tell.

Before you start. Softmax of a matrix of scores. ALiBi (arXiv 2108.12409) writes no positions into q and k:
it lowers the score of query i for key j <= i by m (i - j), with a slope m of its own for each head. ALiBi in
model.py hides this in extra features of q and k; here you write the matrix.

Fill in the four functions. Where there are fewer queries than keys, as with a cache, the queries are the last
of the positions: query 0 of 3, with 10 keys, stands at position 7.

See. (a) Of -m (i - j), model.py keeps only m j. Why is that enough? (b) Slopes of two heads are 1/16 and
1/256. From which distance on is a key's weight below a thousandth of the own key's, for equal q · k? (c) Run
this file on a FoPE and on an ALiBi, which `python train.py config/plain_tiny.py` makes, the second with
`--pos=alibi`. How much perplexity, and which keys, does a model lose or gain that is held to its last N keys
in every layer? What does a flat curve say, then, of the use of text farther back? (d) Three layers, each held
to N keys: how far back can the last position still get something from? Are keys found there?
"""

import sys

import torch

import data
import passkey
import perplexity
from model import GPT, autocast, load_checkpoint, pick_device


def slopes(n_head: int) -> torch.Tensor:
    """m_h = 2^(-8h / n_head) for h = 1, ..., n_head, a power of two: (n_head,) float32."""
    raise NotImplementedError


def bias(n_head: int, q_len: int, k_len: int) -> torch.Tensor:
    """-m (i - j) for each head, query and key: (n_head, q_len, k_len) float32.

    For keys after the query, which attention hides, it may be anything finite.
    """
    raise NotImplementedError


def hold(model: GPT, window: int):
    """Changes the model in place: no query of any layer sees more than its last `window` keys.

    block.attn.window, which attention reads at each call, says how many a layer's queries see; 0: all.
    """
    raise NotImplementedError


def reach(by_depth: list[list[float]], lengths: list[int]) -> list[float]:
    """How many tokens back from the question keys are found, at each length.

    by_depth[i] is the share of keys found at lengths[i], in equal parts of the text (ten, in what passkey.py
    --json writes): the first part is farthest from the question. Go back from the question, part by part, as
    long as at least half of a part's keys are found. The reach is what these parts hold.
    """
    raise NotImplementedError


def print_held(run: str):
    """Perplexity, keys by depth and reach of a run, as it was trained and then held to its last N keys."""
    device = pick_device()
    model, checkpoint = load_checkpoint(run, device)
    N = model.config.block_size
    lengths = [N, 2 * N, 4 * N]
    tokens = data.load_tokens(checkpoint["config"]["dataset"], "val")
    text = tokens[perplexity.spread(len(tokens), 32, 4 * N)]
    encoding = data.get_encoding(checkpoint["meta"]["encoding"])
    for title in ("as trained", f"held to {N} keys"):
        print(title)
        for length in lengths:
            with autocast(device):
                loss = perplexity.token_losses(model, text, length).mean()
                right = passkey.evaluate(model, encoding, length, trials=100)
            by_depth = passkey.by_parts(right[None], 10).tolist()
            (far,) = reach(by_depth, [length])
            print(
                f"    length {length}: perplexity {loss.exp():.2f}, reach {far:.0f}, keys by depth", *by_depth
            )
        hold(model, N)


if __name__ == "__main__":
    print_held(sys.argv[1])
