"""
Perplexity when a token sees only the last N keys: are the far keys what a model cannot read?

    python -m analysis.window out/fope_tiny out/rope_tiny

Where a model does better with the window, what it loses past N comes from keys further back than N; where it
does worse, it makes use of them. The window in all layers repairs perplexity past N for any encoding, and
finds no passkey further back than itself: a flat perplexity does not tell that a model reads what lies there.
In the first layer alone and in every other layer, it tells where the loss arises. Layers that were trained
with a window of their own (local_window) keep that.
"""

import argparse
from pathlib import Path

import numpy as np

import data
import perplexity
from model import autocast, load_checkpoint, pick_device

# Which layers see only the last N keys
WINDOWS = {
    "all keys": lambda layer: False,
    "first layer": lambda layer: layer == 0,
    "every other": lambda layer: layer % 2 == 0,
    "the last N": lambda layer: True,
}


def own_text(checkpoint: dict) -> np.ndarray:
    """The validation tokens of the corpus that a run was trained on. SystemExit if that is another by now."""
    dataset = checkpoint["config"]["dataset"]
    if data.load_meta(dataset)["sha256"] != checkpoint["meta"]["sha256"]:
        raise SystemExit(f"error: the run was trained on another corpus than data/{dataset}")
    return data.load_tokens(dataset, "val")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--tokens", type=int, default=131_072, help="how many to score")
    parser.add_argument("--json", type=data.output, help="write the numbers to this file")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto: the first that is there")
    args = parser.parse_args()

    device = pick_device(args.device)
    results = []
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, device)
        N = model.config.block_size
        tokens = own_text(checkpoint)
        count = max(args.tokens // (16 * N), 1)
        if len(tokens) <= 16 * N:
            raise SystemExit(f"error: the validation split of {run} is shorter than 16 N = {16 * N} tokens")
        text = tokens[perplexity.spread(len(tokens), count, 16 * N)]
        lengths = [N, 2 * N, 4 * N, 8 * N, 16 * N]
        found = {"lengths": lengths}
        trained = [block.attn.window for block in model.blocks]
        for keys, is_windowed in WINDOWS.items():
            found[keys] = []
            for layer, block in enumerate(model.blocks):
                narrowed = is_windowed(layer) and trained[layer] == 0
                block.attn.window = N if narrowed else trained[layer]
            for length in lengths:
                with autocast(device):
                    loss = perplexity.token_losses(model, text, length).mean()
                found[keys].append(loss.exp().item())
        results.append(
            {
                "checkpoint": run,
                "iter": checkpoint["iter"],
                "trained_on": checkpoint["meta"]["sha256"],
                "config": checkpoint["config"],
                **found,
            }
        )
        print(f"{Path(run).name:20}", *(f"{length:>10}" for length in lengths))
        for keys in WINDOWS:
            print(f"  {keys:18}", *(f"{value:10.2f}" for value in found[keys]), flush=True)
    if args.json:
        data.write_results(args.json, args, lengths=lengths, results=results)


if __name__ == "__main__":
    main()
