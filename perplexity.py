"""
Perplexity by context length: how well a model predicts text in chunks shorter and longer than those of its training.

    python perplexity.py out/fope_tiny out/rope_tiny
    python perplexity.py out/* --lengths 128 256 512 1024 --json results/perplexity.json --plot results/perplexity.png

The validation text is cut into chunks of T tokens that do not overlap, and every token is predicted from those before
it in its chunk. Each T scores the same tokens, so one column differs from another only in how much context they have.
Under the perplexity stands the mean loss by position in the longest chunks, from the length of the column to the left
to this one: in column 512, next to 256, of the positions 256 to 511. It tells where a model breaks. The second half of
the file, `evaluation`, is the frame that passkey.py shares.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from data import load_meta, load_tokens
from model import GPT, at_least, autocast, load_checkpoint, pick_device, read_checkpoint, user_error, write_whole

# In one forward pass, as many chunks as fit, at least one: what fills a GPU would fall out of a CPU's cache.
BATCH_TOKENS = 16_384 if torch.cuda.is_available() else 2_048
MAX_LOGITS = 2**25  # held at a time, 128 MiB in float32; those of one long chunk would take gigabytes


@torch.inference_mode()
def token_losses(model: GPT, tokens: np.ndarray, length: int) -> torch.Tensor:
    """Cross-entropy, in nats, of every token but the first, read in chunks of `length`: (len(tokens) - 1,) float64.

    There are k * length + 1 tokens; the last target of a chunk is the first token of the next.
    """
    device, positions = next(model.parameters()).device, max(1, MAX_LOGITS // model.config.vocab_size)
    tokens, size = torch.from_numpy(tokens.astype(np.int64)), max(1, BATCH_TOKENS // length) * length
    batches, losses = list(zip(tokens[:-1].split(size), tokens[1:].split(size))), []
    for x, y in tqdm(batches, f"length {length}", leave=False, disable=None):
        hidden = model.hidden(x.view(-1, length).to(device)).flatten(0, 1)
        for h, target in zip(hidden.split(positions), y.to(device).split(positions)):
            losses.append(F.cross_entropy(model.lm_head(h).float(), target, reduction="none").cpu())
    return torch.cat(losses).double()


def standard_error(chunks: torch.Tensor) -> float:
    """Standard error of the mean of the losses (k, longest) in chunks of the longest length, k >= 2, by batch means.

    Neighbouring tokens are not independent, 32 stretches of the text (k if that is fewer) nearly are. They hold whole
    chunks, so that how the loss changes with the position in a chunk is not taken for chance.
    """
    means = torch.stack([stretch.mean() for stretch in chunks.tensor_split(min(len(chunks), 32))])
    return means.std().item() / math.sqrt(len(means))


def measure(model: GPT, checkpoint: dict, args: argparse.Namespace) -> tuple[dict, dict[str, list[str]]]:
    """One run's numbers and its rows of the table: from label to cells, "" for the name of the run."""
    dataset, encoding = args.dataset or checkpoint["config"]["dataset"], checkpoint["meta"]["encoding"]
    if load_meta(dataset)["encoding"] != encoding:
        raise SystemExit(f"error: corpus {dataset} is not in the checkpoint's encoding, {encoding}")
    tokens, unit = load_tokens(dataset, "val"), math.lcm(*args.lengths)  # a unit is whole chunks of every length
    total = unit * max(2, min(args.tokens, len(tokens) - 1) // unit)
    if total >= len(tokens):
        raise SystemExit(f"error: these --lengths need {total + 1:,} tokens, {dataset} has {len(tokens):,} to validate")
    if (highest := tokens[: total + 1].max()) >= checkpoint["config"]["vocab_size"]:
        raise SystemExit(f"error: {dataset} holds token {highest}, past the model's vocabulary; prepare it again")
    losses = [token_losses(model, tokens[: total + 1], n).view(-1, args.lengths[-1]) for n in args.lengths]
    perplexity = [chunks.mean().exp().item() for chunks in losses]
    error = [p * standard_error(chunks) for p, chunks in zip(perplexity, losses)]
    loss = [losses[-1][:, start:end].mean().item() for start, end in zip([0, *args.lengths], args.lengths)]
    numbers = {"dataset": dataset, "tokens": total, "perplexity": perplexity, "error": error, "loss_by_position": loss}
    cells = [f"{p:.{2 * (p < 100)}f}±{e:.{2 * (p < 100)}f}" for p, e in zip(perplexity, error)]
    return numbers, {"": cells, "  by position": [f"{x:.3f}" for x in loss]}


# ----------------------------------------------------------------------------------------------------------------------
# The frame of both evaluations: arguments, table, JSON, plot


def output(name: str) -> Path:
    """For argparse: a file that can be written, to be known before the long work."""
    if Path(name).is_dir() or not Path(name).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name} is not a file in a directory that exists")
    return Path(name)


def evaluation(parser, measure: Callable, shortest=lambda encoding: 1) -> list[dict]:
    """Adds the arguments that both evaluations take, measures every run, prints the table, writes JSON and plot.

    `measure` is as the one above; no default length is below shortest(name of the encoding).
    """
    parser.error = lambda message: sys.exit(f"error: {message}")
    parser.add_argument("runs", nargs="+", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--lengths", nargs="+", type=at_least(1), help="in tokens; 1/2 to 16 times the first run's N")
    parser.add_argument("--logn_scale", type=at_least(0.0), help="instead of the checkpoint's own")
    parser.add_argument("--json", type=output, help="write the numbers to this file; one that is there is replaced")
    parser.add_argument("--plot", type=output, help="draw them in this PNG file; one that is there is replaced")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto is the first of them that is there")
    args = parser.parse_args()
    if args.plot:
        with user_error("--plot needs matplotlib (pip install matplotlib): ", ImportError):
            from analysis.plots import draw
    device, found = pick_device(args.device), map(read_checkpoint, args.runs)  # one at a time, for they are large
    (train_length, encoding), *_ = [(c["config"]["block_size"], c["meta"]["encoding"]) for c in found]
    lengths = args.lengths or [n for i in range(6) if (n := train_length * 2**i // 2) >= shortest(encoding)]
    args.lengths, results = sorted(set(lengths)), []
    width = max(14, *(len(Path(run).name) for run in args.runs))
    print(parser.prog.removesuffix(".py").ljust(width), *(f"{n:10}" for n in args.lengths))
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, device, args.logn_scale)
        with autocast(device) as context, user_error("stopped by ", KeyboardInterrupt):
            numbers, rows = measure(model, checkpoint, args)
        config = checkpoint["config"] | {"logn_scale": model.config.logn_scale}
        results.append({"checkpoint": run, "iter": checkpoint["iter"], "config": config} | numbers)
        for label, cells in rows.items():
            print((label or Path(run).name).ljust(width), *(f"{cell:>10}" for cell in cells), flush=True)
    if args.json:
        command = "git rev-parse --verify HEAD"
        git = subprocess.run(command, shell=True, cwd=Path(__file__).parent, capture_output=True, text=True)
        about = {"commit": git.stdout.strip() or None, "torch": torch.__version__, "device": str(device)}
        about = vars(args) | about | {"dtype": str(context.fast_dtype), "results": results}
        text = json.dumps(about, indent=1, default=str) + "\n"
        write_whole(args.json, lambda file: file.write(text.encode()))
    if args.plot:
        figure = draw(args.lengths, results)
        write_whole(args.plot, lambda file: figure.savefig(file, format="png", dpi=150))
    return results


def main(measure: Callable = measure) -> None:
    parser = argparse.ArgumentParser(description="Perplexity by context length.")
    parser.add_argument("--dataset", help="another corpus than the run's own, in the same encoding")
    parser.add_argument("--tokens", type=at_least(1), default=131_072, help="how many to score, to whole chunks")
    results = evaluation(parser, measure)
    counts = sorted({f"{run['tokens']:,} tokens of {run['dataset']}" for run in results})
    print(" and ".join(counts), "scored at each length; ± is one standard error")
    if len(counts) > 1:
        print("warning: these runs were scored on different text, so their rows do not compare; give one --dataset")
    print("by position: mean loss in the longest chunks between the column before and this")


if __name__ == "__main__":
    main()
