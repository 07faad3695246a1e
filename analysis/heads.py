"""
Where a trained model finds the passkey, and where it loses it past N: what is left if one thing is changed.

    python -m analysis.heads out/fope_tiny
    python -m analysis.heads out/rope_tiny --lengths 256 1024 --trials 200 --factor 1.5 --json heads.json

A row is one change in the trained model, a column a length: passkeys found, in %, and perplexity. If more are
found where a layer is held to its last N keys, what it read further back misled it; if where queries are
sharper, its attention was too diluted. A head that the model needs takes the accuracy with it when silent.
"""

import argparse
import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import data
import passkey
import perplexity
from model import GPT, autocast, load_checkpoint, parse_setting, pick_device, require


@contextlib.contextmanager
def hold(model: GPT, layer: int, keys: int) -> Iterator[None]:
    """Inside it, a query of this layer sees only so many keys, up to its own."""
    attn = model.blocks[layer].attn
    before = attn.window
    attn.window = keys
    yield
    attn.window = before


@contextlib.contextmanager
def sharpen(model: GPT, layer: int, factor: float) -> Iterator[None]:
    """Inside it, the queries of this layer are multiplied by a factor; 0: by ln n / ln N, as with logn."""
    attn = model.blocks[layer].attn
    encode = attn.pos.encode

    def sharper(q, k, start):
        q = q * factor if factor > 0 else attn.scale_queries(q, start)
        return encode(q, k, start)

    attn.pos.encode = sharper
    yield
    del attn.pos.encode  # the class's own is there again


@contextlib.contextmanager
def silence(model: GPT, layer: int, head: int) -> Iterator[None]:
    """Inside it, what this head has read counts as zero."""
    head_dim = model.config.head_dim

    def erase(module, inputs):
        y = inputs[0].clone()  # (B, T, n_embd), the heads side by side
        y[..., head * head_dim : (head + 1) * head_dim] = 0
        return y

    hook = model.blocks[layer].attn.c_proj.register_forward_pre_hook(erase)
    yield
    hook.remove()


def interventions(model: GPT, factor: float) -> Iterator[tuple[str, contextlib.AbstractContextManager]]:
    """Name and context of each row. Left out is what would change nothing, or give log-n twice."""
    N = model.config.block_size
    yield "as it is", contextlib.nullcontext()
    for layer, block in enumerate(model.blocks):
        if block.attn.window == 0 or block.attn.window > N:
            yield f"layer {layer}: last N keys", hold(model, layer, N)
        if factor > 0 or not model.config.logn:
            yield f"layer {layer}: sharper", sharpen(model, layer, factor)
        for head in range(model.config.n_head):
            yield f"layer {layer}: no head {head}", silence(model, layer, head)


def validation_text(checkpoint: dict, tokens: int, stretch: int) -> np.ndarray:
    """About so many tokens of what the run was validated on, in stretches: (count, stretch + 1)."""
    dataset = checkpoint["config"]["dataset"]
    same = data.load_meta(dataset)["sha256"] == checkpoint["meta"]["sha256"]
    require(same, f"the run was trained on another corpus than data/{dataset}")
    text = data.load_tokens(dataset, "val")
    require(stretch < len(text), f"the validation split is shorter than {stretch} tokens")
    return text[perplexity.spread(len(text), max(tokens // stretch, 1), stretch)]


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("runs", nargs="+", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--lengths", nargs="+", type=int, help="default: N and 4 N of each run")
    parser.add_argument("--trials", type=int, default=100, help="passkeys a length and row (default: 100)")
    parser.add_argument("--tokens", type=int, default=16_384, help="of text to score (default: 16384)")
    parser.add_argument("--factor", type=float, default=0, help="of sharper queries; default: ln n / ln N")
    parser.add_argument("--set", nargs="+", type=parse_setting, default=[], help="settings, as logn=True")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--device", type=pick_device, default="auto", help="cuda, mps, cpu; auto: the best")
    args = parser.parse_args()

    results = []
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, args.device, **dict(args.set))
        encoding = data.get_encoding(checkpoint["meta"]["encoding"])
        N = model.config.block_size
        lengths = args.lengths or [N, 4 * N]
        text = validation_text(checkpoint, args.tokens, math.lcm(*lengths))
        print(f"{Path(run).name:24}", *(f"{length:>16}" for length in lengths))
        rows = {}
        results.append({"checkpoint": run, "iter": checkpoint["iter"], "lengths": lengths, "rows": rows})
        for name, context in interventions(model, args.factor):
            found = []
            scores = []
            with context, autocast(args.device):
                for length in lengths:
                    found.append(passkey.evaluate(model, encoding, length, args.trials).mean())
                    scores.append(perplexity.token_losses(model, text, length).mean().exp().item())
            rows[name] = {"passkey": found, "perplexity": scores}
            cells = [f"{100 * share:7.1f} {score:8.2f}" for share, score in zip(found, scores)]
            print(f"  {name:22}", *cells, flush=True)
            if args.json:
                data.write_results(args, results=results)


if __name__ == "__main__":
    main()
