"""Checks of exercise 4, against ALiBi of model.py and numbers written by hand."""

import torch

from assignments.harness import part, same, true
from model import GPT, ALiBi, GPTConfig


@part("slopes", 2)
def slopes(answer):
    for n_head in (8, 2, 16):
        h = torch.arange(1, n_head + 1)
        known = {
            "h began at 0: the first head has 2^(-8 / n_head)": 2 ** (-8 * (h - 1) / n_head),
            "8 / n_head were missing: the last slope is 2^-8 for any n_head": 2.0**-h,
            "the sign of the exponent were missing": 2 ** (8 * h / n_head),
        }
        same("slopes", answer.slopes(n_head), ALiBi.make_slopes(n_head), f"n_head {n_head}", known)


@part("bias", 3)
def bias(answer):
    for n_head, q_len, k_len in ((2, 10, 10), (4, 3, 10), (8, 1, 10)):
        m = ALiBi.make_slopes(n_head)[:, None, None]
        key = torch.arange(k_len)
        distance = torch.arange(k_len - q_len, k_len)[:, None] - key
        from_first = torch.arange(q_len)[:, None] - key
        known = {
            "the sign were wrong: a key far back gets less": m * distance,
            "the queries stood at the first positions: they are the last of k_len": -m * from_first,
            "it were m j alone: softmax sees no difference, but -m (i - j) is asked for": m * key,
            "all heads had the first slope": -m[:1].expand(n_head, 1, 1) * distance,
        }
        came = answer.bias(n_head, q_len, k_len)
        visible = distance >= 0  # attention hides the rest
        true(came.isfinite().all(), "bias: -inf times 0 is no number: leave what attention hides finite")
        for mistake, value in known.items():
            known[mistake] = value * visible
        case = f"n_head {n_head}, q_len {q_len}, k_len {k_len}, of keys that are not after the query"
        same("bias", came * visible, -m * distance * visible, case, known)


def random_model(windows=(4, 0, 4)) -> GPT:
    """Three layers with these windows; the weights are large, so that every key that is seen counts."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=9, n_layer=3, n_head=2, n_embd=16))
    for block, window in zip(model.blocks, windows):
        block.attn.window = window
        block.attn.c_attn.weight.data *= 8
        block.attn.c_proj.weight.data *= 8
    return model


@part("hold", 2)
def hold(answer):
    text = torch.randint(9, (2, 20))
    for window, expected in ((7, (4, 7, 4)), (2, (2, 2, 2))):
        small = min(4, window)
        known = {
            "nothing changed: attention reads block.attn.window, not config": random_model()(text)[0],
            "a window that was smaller grew": random_model((window, window, window))(text)[0],
            "layers that see all keys, window 0, still did": random_model((small, 0, small))(text)[0],
        }
        model = random_model()
        answer.hold(model, window)
        case = f"windows 4, 0 and 4, held to {window} keys: {expected}"
        same("logits", model(text)[0], random_model(expected)(text)[0], case, known)


@part("reach", 3)
def reach(answer):
    # Each: the farthest part first, the length, the reach, what comes of beginning at the far end, of gaps
    for shares, length, expected, from_far, with_gaps in (
        ([1.0] * 10, 256, 256.0, 256.0, 256.0),
        ([0.0] * 9 + [0.4], 1024, 0.0, 0.0, 0.0),
        ([0.0] * 7 + [0.6, 0.9, 1.0], 1000, 300.0, 0.0, 300.0),
        ([1.0, 0.9, 0.0, 0.4, 1.0], 1000, 200.0, 400.0, 600.0),
        ([0.3, 0.0, 0.8, 0.5, 0.7], 2000, 1200.0, 0.0, 1200.0),
    ):
        known = {
            "it began at the far end: the last part is the nearest": [1.0, from_far],
            "it went on after a part in which too few are found": [1.0, with_gaps],
            "it were accuracy times length": [1.0, sum(shares) / len(shares) * length],
        }
        came = answer.reach([[1.0] * len(shares), shares], [1, length])
        same("reach", came, [1.0, expected], f"by_depth [[1.0, ...], {shares}], lengths [1, {length}]", known)
