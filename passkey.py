"""
Passkey retrieval: can a model find five digits in a long text, and how far back (Figure 1a of the paper)?

    python passkey.py out/fope_tiny out/rope_tiny
    python passkey.py out/* --lengths 256 512 --trials 200 --json passkey.json --plot passkey.png

A prompt says a key twice somewhere in filler text and asks for it at the end; the task is Mohtashami and
Jaggi's (arXiv 2305.16300). Models learn it when train.py mixes such prompts into the corpus (passkey_frac),
with `make_prompt`.

Accuracy alone does not tell which keys are found. So under it stand the shares found in the far third of
the context, in the middle and near the question, and the reach: accuracy times length, the tokens over
which keys are found. A model that sees a fixed distance keeps its reach as the length grows, while its
accuracy falls.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import tiktoken
import torch
from tqdm import tqdm

import data
from model import GPT, autocast, load_checkpoint, pick_device

TASK = "Find the key."
FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
START = " The pass key is"  # a key, " 12345", stands behind this,
MIDDLE = ". Remember it."  # and behind this
END = " is the pass key."
QUESTION = " What is the pass key? The pass key is"
KEYS = range(10_000, 100_000)
BATCH_TOKENS = 16_384 if torch.cuda.is_available() else 2_048  # in one forward pass; what a CPU's cache holds


def shortest(encoding: tiktoken.Encoding) -> int:
    """A length, in tokens, that holds prompt and answer of every key; there is no filler then."""
    parts = [encoding.encode_ordinary(part) for part in (TASK, START, MIDDLE, END, QUESTION)]
    return sum(len(part) for part in parts) + 3 * len(" 12345")  # a key is no more tokens than bytes


def make_prompt(encoding, length: int, depth: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """The token ids of a prompt and of its answer, a random key: together exactly `length` tokens.

    At depth 0 the key follows the description of the task, at depth 1 it stands right before the question.
    The parts are joined as token ids and only the filler is cut, so the key is the same tokens wherever it
    stands. SystemExit if `length` is below `shortest(encoding)`.
    """
    if length < shortest(encoding):
        raise SystemExit(
            f"error: {length} tokens hold no passkey prompt, the shortest takes {shortest(encoding)}"
        )
    task = encoding.encode_ordinary(TASK)
    filler = encoding.encode_ordinary(FILLER)
    question = encoding.encode_ordinary(QUESTION)
    key = encoding.encode_ordinary(f" {rng.integers(KEYS.start, KEYS.stop)}")
    start = encoding.encode_ordinary(START)
    middle = encoding.encode_ordinary(MIDDLE)
    end = encoding.encode_ordinary(END)
    needle = start + key + middle + key + end
    room = length - len(task + needle + question + key)
    repeats = room // len(filler) + 1
    text = (filler * repeats)[:room]
    cut = round(depth * room)
    return task + text[:cut] + needle + text[cut:] + question, key


@torch.no_grad()  # not inference_mode, in which autocast would cast the weights at every call
def evaluate(
    model: GPT, encoding: tiktoken.Encoding, length: int, trials: int = 1000, seed: int = 0
) -> list[bool]:
    """Whether the model gives the key, for prompts of `length` tokens at depths evenly spread from 0 to 1.

    A trial is right when every token of the key is the arg-max given the true tokens before it, which one
    forward pass tells. Greedy generation gives the key in exactly the same trials: as long as it has been
    right, what it has written is the true prefix, so its next token is that arg-max; at the first wrong one
    both have failed.
    """
    device = next(model.parameters()).device
    batch_size = max(1, BATCH_TOKENS // length)
    rng = np.random.default_rng([seed, 0, 0, length])  # four numbers, never the two or three of train.py
    depths = np.linspace(0, 1, trials)
    starts = range(0, trials, batch_size)
    right = []
    for i in tqdm(starts, f"length {length}", leave=False, disable=None):
        pairs = [make_prompt(encoding, length, depth, rng) for depth in depths[i : i + batch_size]]
        ids = torch.tensor([prompt + key for prompt, key in pairs], device=device)  # (batch_size, length)
        # Keys differ in their number of tokens, but every row ends with its key.
        longest = max(len(key) for _, key in pairs)
        hidden = model.hidden(ids[:, :-1])[:, -longest:]  # (batch_size, longest, n_embd)
        hits = model.lm_head(hidden).argmax(dim=-1) == ids[:, -longest:]
        for row, (_, key) in zip(hits.cpu(), pairs):
            right.append(bool(row[-len(key) :].all()))
    return right


def wilson(share: np.ndarray, trials: int) -> np.ndarray:
    """95 % intervals (n, 2) of shares (n,) of so many trials (Wilson); at 0 and 1 a plain ± would be zero."""
    z = 1.96
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / scale
    return np.stack((centre - half, centre + half), axis=1).clip(0, 1)  # rounding may leave them just outside


def by_parts(right: np.ndarray, parts: int) -> np.ndarray:
    """Accuracy in equal parts of the depths, far to near, of right (lengths, trials): (lengths, parts)."""
    chunks = np.array_split(right, parts, axis=1)  # each (lengths, trials / parts)
    return np.stack([chunk.mean(axis=1) for chunk in chunks], axis=1)


def draw(lengths: list[int], results: list[dict]):
    """A figure: accuracy by context length (to the right) and depth (down to the question); a panel a run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(results) + 1, 3), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, run in zip(panels, results):
        image = axes.imshow(np.transpose(run["by_depth"]), vmin=0, vmax=1, aspect="auto")
        axes.set(title=Path(run["checkpoint"]).name, xlabel="context length, tokens")
        axes.set_xticks(range(len(lengths)), lengths, rotation=45)
    panels[0].set_ylabel("depth of the key, in tenths")
    figure.colorbar(image, label="accuracy")
    return figure


def print_row(name: str, cells: list):
    print(f"{name:24}", *(f"{cell:>12}" for cell in cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", metavar="out/NAME", help="directories of runs")
    parser.add_argument(
        "--lengths", nargs="+", type=int, help="in tokens; default: the first run's N/2 to 16 N"
    )
    parser.add_argument("--trials", type=int, default=1000, help="prompts a length (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the keys")
    parser.add_argument("--logn_scale", type=float, help="instead of the checkpoint's own")
    parser.add_argument("--json", type=data.output, help="write the numbers to this file")
    parser.add_argument("--plot", type=data.output, help="draw them in this PNG file (needs matplotlib)")
    parser.add_argument("--device", type=pick_device, default="auto", help="cuda, mps, cpu; auto: the best")
    args = parser.parse_args()
    if args.plot and not importlib.util.find_spec("matplotlib"):
        parser.error("--plot needs matplotlib: pip install matplotlib")
    if not 10 <= args.trials <= 10**6 or args.seed < 0:
        parser.error("--trials must be from 10 (tenths of the depths) to 1,000,000, --seed not below 0")

    _, first = load_checkpoint(args.runs[0], args.device)  # for its lengths
    N = first["config"]["block_size"]
    least = shortest(data.get_encoding(first["meta"]["encoding"]))
    lengths = sorted(args.lengths or [n for n in (N // 2, N, 2 * N, 4 * N, 8 * N, 16 * N) if n >= least])
    if lengths[0] < least or lengths[-1] > 2**24:
        parser.error(f"--lengths must be from {least} to 2^24, up to which float32 tells positions apart")
    print_row("passkey, %", lengths)
    results = []
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, args.device, args.logn_scale)
        encoding = data.get_encoding(checkpoint["meta"]["encoding"])
        right = []
        with autocast(args.device):
            for length in lengths:
                right.append(evaluate(model, encoding, length, args.trials, args.seed))
        right = np.array(right)  # (lengths, trials)
        accuracy = right.mean(axis=1)
        interval = wilson(accuracy, args.trials)
        thirds = by_parts(right, 3)
        reach = accuracy * lengths
        print_row(Path(run).name, [f"{100 * share:.1f}" for share in accuracy])
        print_row("  95 % interval", [f"{low:.1f}-{high:.1f}" for low, high in 100 * interval])
        print_row("  far/middle/near", [f"{far:.0f}/{mid:.0f}/{near:.0f}" for far, mid, near in 100 * thirds])
        print_row("  reach, tokens", [f"{tokens:.0f}" for tokens in reach])
        numbers = {
            "checkpoint": run,
            "iter": checkpoint["iter"],
            "trained_on": checkpoint["meta"]["sha256"],
            "config": checkpoint["config"],
            "accuracy": accuracy.tolist(),
            "interval": interval.tolist(),
            "reach": reach.tolist(),
            "thirds": thirds.tolist(),
            "by_depth": by_parts(right, 10).tolist(),
        }
        results.append(numbers)
        if args.json:  # after each run, so that nothing is lost if a later one fails
            data.write_results(args.json, args, lengths=lengths, results=results)
    if args.plot:
        with data.write_whole(args.plot) as file:
            draw(lengths, results).savefig(file, format="png")


if __name__ == "__main__":
    data.run_script(main)
