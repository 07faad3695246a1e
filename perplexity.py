"""
Perplexity by context length: how well a model predicts text in chunks shorter and longer than its training's.

    python perplexity.py out/fope_tiny out/rope_tiny
    python perplexity.py out/* --lengths 128 256 512 --json perplexity.json --plot perplexity.png
    python perplexity.py out/rope_tiny --set yarn_scale=16

Stretches of text, spread evenly over the whole validation split, are cut into chunks of T tokens that do
not overlap, and every token is predicted from those before it in its chunk. In one call all lengths and all
runs score the same tokens, so columns differ only in how much context there is, and rows only in the model.
(Other lengths may score others.) train.py measures its validation loss with `spread` and `token_losses`, too.

Under each further run stands its loss minus the first run's, in nats, and the standard error of that
difference, where a whole document counts as one draw. On the same text most of the noise cancels, so this is
the line that compares.
"""

import argparse
import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import data
from model import GPT, autocast, load_checkpoint, parse_setting, pick_device, require

BATCH_TOKENS = 16_384 if torch.cuda.is_available() else 2_048  # in one forward pass; what a CPU's cache holds
MAX_LOGITS = 2**25  # held at a time, 128 MiB in float32; those of one long chunk would take gigabytes


def spread(total: int, count: int, stretch: int) -> np.ndarray:
    """Positions of stretches, evenly over `total` tokens: (count, stretch + 1); the last is only a target."""
    starts = np.linspace(0, total - stretch - 1, count).astype(np.int64)
    return starts[:, None] + np.arange(stretch + 1)


@torch.no_grad()  # not inference_mode, in which autocast would cast the weights at every call
def token_losses(model: GPT, text: np.ndarray, length: int) -> Tensor:
    """Cross-entropy, in nats, of every token of text (count, stretch + 1) but the first: (count, stretch).

    Each stretch is read in chunks of `length` tokens, which divides `stretch`.
    """
    device = model.lm_head.weight.device
    tokens = torch.from_numpy(text.astype(np.int64))
    x = tokens[:, :-1].reshape(-1, length)  # (chunks, length)
    y = tokens[:, 1:].reshape(-1, length)
    batch_size = max(1, BATCH_TOKENS // length)  # chunks in one forward pass
    slice_size = max(1, MAX_LOGITS // model.config.vocab_size)  # positions whose logits are held at a time
    losses = []
    for inputs, targets in zip(x.split(batch_size), y.split(batch_size)):
        hidden = model.hidden(inputs.to(device)).flatten(0, 1)  # (batch_size * length, n_embd)
        targets = targets.to(device).flatten()
        for part, answers in zip(hidden.split(slice_size), targets.split(slice_size)):
            logits = model.lm_head(part).float()
            losses.append(F.cross_entropy(logits, answers, reduction="none").cpu())
    return torch.cat(losses).double().view(len(text), text.shape[1] - 1)


def standard_error(losses: Tensor, documents: Tensor) -> float:
    """Standard error of the mean of losses (n,), clustered by document: documents (n,) numbers each token's.

    The tokens of a document are alike, so documents are what is drawn: the error comes from how far the
    tokens of each lie, in sum, from the mean. NaN for a single document, which tells nothing of others.
    """
    _, index = documents.unique(return_inverse=True)  # documents as 0, 1, 2, ...
    sums = torch.bincount(index, weights=losses - losses.mean())  # one a document
    if len(sums) == 1:
        return math.nan
    variance = sums.square().sum() * len(sums) / (len(sums) - 1)
    return variance.sqrt().item() / len(losses)


def draw(lengths: list[int], results: list[dict]):
    """A figure of perplexity by context length, one line a run."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    for run in results:
        axes.plot(lengths, run["perplexity"], marker="o", label=Path(run["checkpoint"]).name)
    axes.axvline(results[0]["config"]["block_size"], color="grey", linestyle=":", label="training length")
    axes.set(xscale="log", xlabel="context length, tokens", ylabel="perplexity")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(lengths, lengths)
    axes.minorticks_off()
    axes.legend()
    return figure


def print_row(name: str, cells: list):
    print(f"{name:24}", *(f"{cell:>14}" for cell in cells), flush=True)


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("runs", nargs="+", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--lengths", nargs="+", type=int, help="default: N/2 to 16 N of the first run")
    parser.add_argument("--tokens", type=int, default=131_072, help="to score (default: 131072)")
    parser.add_argument("--dataset", help="the corpus to score; default: what the first run was trained on")
    parser.add_argument("--set", nargs="+", type=parse_setting, default=[], help="settings, as yarn_scale=16")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--plot", help="draw them in this PNG file (needs matplotlib)")
    parser.add_argument("--device", type=pick_device, default="auto", help="cuda, mps, cpu; auto: the best")
    args = parser.parse_args()
    can_plot = importlib.util.find_spec("matplotlib")
    require(can_plot or not args.plot, "--plot needs matplotlib: pip install matplotlib")

    # The text, the same for every length and run
    _, first = load_checkpoint(args.runs[0], args.device)
    N = first["config"]["block_size"]
    dataset = args.dataset or first["config"]["dataset"]
    meta = data.load_meta(dataset)
    tokens = data.load_tokens(dataset, "val")
    half = [N // 2] if N % 2 == 0 else []
    lengths = half + [n for n in (N, 2 * N, 4 * N, 8 * N, 16 * N) if n < len(tokens)]
    lengths = sorted(args.lengths or lengths)
    require(lengths[0] > 0, "lengths are above 0")
    stretch = math.lcm(*lengths)  # every length divides it
    require(stretch < len(tokens), f"these lengths take {stretch} tokens, {dataset} has {len(tokens)}")
    count = max(min(args.tokens, len(tokens) - 1) // stretch, 1)
    positions = spread(len(tokens), count, stretch)
    text = tokens[positions]  # (count, stretch + 1)
    # The number of a token's document is how many have ended before it.
    ends = np.flatnonzero(tokens == data.get_encoding(meta["encoding"]).eot_token)
    documents = torch.from_numpy(np.searchsorted(ends, positions[:, 1:].flatten()))

    print_row("perplexity", lengths)
    results = []
    first_losses = {}  # the first run's, by length
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, args.device, **dict(args.set))
        can_read = checkpoint["meta"]["encoding"] == meta["encoding"]
        require(can_read, f"{run} is not in the encoding of {dataset}, {meta['encoding']}")
        is_own = checkpoint["meta"]["sha256"] == meta["sha256"]
        require(
            is_own or args.dataset, f"{run} was trained on another corpus; name one to score by --dataset"
        )
        perplexities = []
        differences = []
        errors = []
        for length in tqdm(lengths, run, leave=False, disable=None):
            with autocast(args.device):
                losses = token_losses(model, text, length).flatten()  # of every token
            perplexities.append(losses.mean().exp().item())
            if run == args.runs[0]:
                first_losses[length] = losses
            difference = losses - first_losses[length]  # zero for the first run itself
            differences.append(difference.mean().item())
            errors.append(standard_error(difference, documents))
        numbers = {
            "checkpoint": run,
            "iter": checkpoint["iter"],
            "config": checkpoint["config"],
            "trained_on": checkpoint["meta"]["sha256"],  # by --dataset, the scored corpus is another
            "perplexity": perplexities,
            "difference": differences,
            "difference_error": errors,
        }
        results.append(numbers)
        if args.json:  # after each run, so that nothing is lost if a later one fails
            data.write_results(args, lengths=lengths, scored=text[:, 1:].size, corpus=meta, results=results)
        print_row(Path(run).name, [f"{value:.2f}" for value in perplexities])
        if len(results) > 1:
            pairs = zip(differences, errors)
            print_row("  loss - the first run's", [f"{mean:+.3f}+-{error:.3f}" for mean, error in pairs])
    if args.plot:
        draw(lengths, results).savefig(args.plot)


if __name__ == "__main__":
    main()
