"""
Which of RoPE's frequencies hurt past N: perplexity and passkeys of a trained model whose frequencies under a
floor are set to zero.

    python -m analysis.clip out/rope_tiny
    python -m analysis.clip out/rope_tiny --lengths 256 1024 --trials 100 --json clip.json

A floor is given in multiples of 2π/N, FoPE's, where a frequency makes one turn in the training length; 0
leaves the model as it is. Nothing is trained again. Where a floor leaves the numbers at N alone and mends
those past N, the frequencies under it did no good at N, and harm beyond.
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
from analysis.window import own_text
from model import GPT, RoPE, autocast, load_checkpoint, pick_device

FLOORS = (0, 1 / 8, 1 / 4, 1 / 2, 1)  # in multiples of 2π/N


@contextlib.contextmanager
def clipped(model: GPT, floor: float) -> Iterator[None]:
    """Inside it, frequencies under the floor, in radians a position, are zero in every layer."""
    buffers = [block.attn.pos.frequencies for block in model.blocks]
    before = [frequencies.clone() for frequencies in buffers]
    for frequencies in buffers:
        frequencies[frequencies < floor] = 0
    try:
        yield
    finally:
        for frequencies, old in zip(buffers, before):
            frequencies.copy_(old)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", metavar="out/NAME", help="directories of runs with --pos=rope")
    parser.add_argument(
        "--lengths", nargs="+", type=int, help="in tokens; default: N, 2 N and 4 N of each run"
    )
    parser.add_argument("--trials", type=int, default=50, help="passkey prompts a length and floor")
    parser.add_argument("--tokens", type=int, default=32_768, help="how many to score")
    parser.add_argument("--json", type=data.output, help="write the numbers to this file")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto: the first that is there")
    args = parser.parse_args()
    if min(args.trials, args.tokens, *(args.lengths or [])) < 1:
        parser.error("--trials, --tokens and --lengths must be above 0")

    device = pick_device(args.device)
    results = []
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, device)
        if type(model.blocks[0].attn.pos) is not RoPE:
            raise SystemExit(f"error: {run} was not trained with --pos=rope")
        encoding = data.get_encoding(checkpoint["meta"]["encoding"])
        N = model.config.block_size
        lengths = args.lengths or [N, 2 * N, 4 * N]
        tokens = own_text(checkpoint)
        stretch = math.lcm(*lengths)
        if len(tokens) <= stretch:
            raise SystemExit(f"error: the validation split of {run} is shorter than {stretch} tokens")
        text = tokens[perplexity.spread(len(tokens), max(args.tokens // stretch, 1), stretch)]
        print(f"{Path(run).name:24}", *(f"{length:>16}" for length in lengths))
        for multiple in FLOORS:
            found = {"checkpoint": run, "iter": checkpoint["iter"], "config": checkpoint["config"]}
            found |= {"floor": multiple, "lengths": lengths, "accuracy": [], "perplexity": []}
            with clipped(model, multiple * 2 * math.pi / N), autocast(device):
                for length in lengths:
                    right = passkey.evaluate(model, encoding, length, args.trials)
                    losses = perplexity.token_losses(model, text, length)
                    found["accuracy"].append(float(np.mean(right)))
                    found["perplexity"].append(losses.mean().exp().item())
            pairs = zip(found["accuracy"], found["perplexity"])
            cells = [f"{share:7.1%} {value:8.2f}" for share, value in pairs]
            print(f"  floor {multiple:<16g}", *cells, flush=True)
            results.append(found)
    if args.json:
        data.write_results(args.json, args, results=results)


if __name__ == "__main__":
    main()
