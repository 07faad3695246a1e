"""
Which heads find the passkey, and which layer loses it past N: what is left of the accuracy if one head's
output is zero, and if one layer sees only its last N keys.

    python -m analysis.heads out/fope_tiny
    python -m analysis.heads out/fope_tiny --lengths 256 1024 --trials 100 --logn_scale 1 --json heads.json

A head that the model needs takes the accuracy with it when it goes. How much attention a head pays to the
key would not tell: it may look at the key and pass nothing on, or another head may do the same. If accuracy
rises where a layer is held to its last N keys, what it read further back misled it.
"""

import argparse
import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import data
import passkey
from model import GPT, autocast, load_checkpoint, pick_device


@contextlib.contextmanager
def without_head(model: GPT, layer: int, head: int) -> Iterator[None]:
    """Inside it, what this head of this layer has read counts as zero."""
    head_dim = model.config.head_dim

    def erase(module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        y = inputs[0].clone()  # (B, T, n_embd), the heads side by side
        y[..., head * head_dim : (head + 1) * head_dim] = 0
        return y

    hook = model.blocks[layer].attn.c_proj.register_forward_pre_hook(erase)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def near_alone(model: GPT, layer: int) -> Iterator[None]:
    """Inside it, this layer sees only its last N keys, or those that its own window has."""
    attn = model.blocks[layer].attn
    before = attn.window
    attn.window = before or model.config.block_size
    try:
        yield
    finally:
        attn.window = before


def ablate(model: GPT, encoding, length: int, trials: int) -> dict:
    """Accuracy of the whole model; without each head, as n_layer lists of n_head shares; and near_alone.

    near_alone, a share a layer, is empty for lengths up to N, where it changes nothing.
    """

    def accuracy() -> float:
        return float(np.mean(passkey.evaluate(model, encoding, length, trials)))

    found = {"length": length, "whole": accuracy(), "without": [], "near_alone": []}
    for layer in range(model.config.n_layer):
        row = []
        for head in range(model.config.n_head):
            with without_head(model, layer, head):
                row.append(accuracy())
        found["without"].append(row)
        if length > model.config.block_size:
            with near_alone(model, layer):
                found["near_alone"].append(accuracy())
    return found


def print_heads(name: str, found: dict) -> None:
    heads = [f"head {head}" for head in range(len(found["without"][0]))]
    print(f"{name}, {found['length']} tokens: {found['whole']:.1%} of the passkeys found; without")
    if found["near_alone"]:
        heads.append("only its last N keys")
    print(" " * 10, *(f"{head:>8}" for head in heads))
    for layer, row in enumerate(found["without"]):
        cells = [f"{share:8.1%}" for share in row]
        if found["near_alone"]:
            cells.append(f"{found['near_alone'][layer]:20.1%}")
        print(f"  layer {layer:2}", *cells, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--lengths", nargs="+", type=int, help="in tokens; default: N and 4 N of each run")
    parser.add_argument("--trials", type=int, default=100, help="prompts a length and head")
    parser.add_argument("--logn_scale", type=float, help="instead of the checkpoint's own")
    parser.add_argument("--json", type=data.output, help="write the numbers to this file")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto: the first that is there")
    args = parser.parse_args()
    if args.trials < 1 or not 0 <= (args.logn_scale or 0) < math.inf:
        parser.error("--trials must be above 0, --logn_scale not below 0")

    device = pick_device(args.device)
    results = []
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, device, args.logn_scale)
        encoding = data.get_encoding(checkpoint["meta"]["encoding"])
        N = model.config.block_size
        for length in args.lengths or [N, 4 * N]:
            with autocast(device):
                found = ablate(model, encoding, length, args.trials)
            config = checkpoint["config"] | {"logn_scale": model.config.logn_scale}
            results.append({"checkpoint": run, "iter": checkpoint["iter"], "config": config, **found})
            print_heads(Path(run).name, found)
    if args.json:
        data.write_results(args.json, args, results=results)


if __name__ == "__main__":
    main()
