"""
Passkey retrieval: can a model find five digits in a long text, and how far back (Figure 1a of the paper)?

    python passkey.py out/fope_tiny out/rope_tiny
    python passkey.py out/* --lengths 256 512 --trials 200 --json passkey.json --plot passkey.png
    python passkey.py out/rope_tiny --set yarn_scale=16
    python passkey.py out/fope_tiny --keys 4 --filler text

A prompt says a key twice somewhere in filler text and asks for it at the end; the task is Mohtashami and
Jaggi's (arXiv 2305.16300). Models learn it when train.py mixes such prompts into the corpus (passkey_frac),
with `make_prompt`. A model that copies the only number in sight finds it, too. So --keys 4 says four keys,
each with a letter, and asks for one by its letter, and --filler text hides them in text of the corpus.

Under the accuracy stand the shares found in the far third of the context, in the middle and near the
question: a model that sees a fixed distance loses the far ones first.
"""

import argparse
import importlib.util
import string
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import data
from model import GPT, autocast, load_checkpoint, parse_setting, pick_device, require

TASK = "Find the key."
FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
START = " The pass key{0} is"  # a key, " 12345", stands behind this; {0} is its letter, " A", or nothing
MIDDLE = ". Remember it."  # and behind this
END = " is the pass key{0}."
QUESTION = " What is the pass key{0}? The pass key{0} is"
BATCH_TOKENS = 16_384 if torch.cuda.is_available() else 2_048  # in one forward pass; what a CPU's cache holds


def encode_needle(encoding, letter: str, key: list[int]) -> list[int]:
    """The sentences that say a key. They are joined as token ids, so the key's are the same everywhere."""
    encode = encoding.encode_ordinary
    return encode(START.format(letter)) + key + encode(MIDDLE) + key + encode(END.format(letter))


def shortest(encoding, keys: int = 1) -> int:
    """A length, in tokens, that holds prompt and answer whatever the keys are; there is no filler then."""
    letter = " A" if keys > 1 else ""
    key = [0] * len(" 12345")  # a key is no more tokens than bytes
    needle = encode_needle(encoding, letter, key)
    question = encoding.encode_ordinary(QUESTION.format(letter))
    return len(encoding.encode_ordinary(TASK)) + keys * len(needle) + len(question) + len(key)


def make_prompt(
    encoding, length: int, depth: float, rng: np.random.Generator, keys: int = 1, text=None
) -> tuple[list[int], list[int]]:
    """The token ids of a prompt and of its answer, a random key: together exactly `length` tokens.

    At depth 0 the key follows the description of the task, at depth 1 it stands right before the question.
    With several keys, up to 26, the others stand anywhere. The filler is FILLER, again and again, or a random
    part of the tokens `text`.
    """
    letters = [""]
    if keys > 1:
        letters = [f" {letter}" for letter in rng.choice([*string.ascii_uppercase], keys, replace=False)]
    numbers = [encoding.encode_ordinary(f" {rng.integers(10_000, 100_000)}") for _ in letters]
    needles = [encode_needle(encoding, letter, key) for letter, key in zip(letters, numbers)]
    task = encoding.encode_ordinary(TASK)
    question = encoding.encode_ordinary(QUESTION.format(letters[0]))
    answer = numbers[0]
    room = length - len(task) - sum(len(needle) for needle in needles) - len(question) - len(answer)
    require(room >= 0, f"a prompt with its key takes up to {shortest(encoding, keys)} tokens, not {length}")
    if text is None:
        filler = encoding.encode_ordinary(FILLER)
        filler = (filler * (room // len(filler) + 1))[:room]
    else:
        start = rng.integers(len(text) - room)
        filler = text[start : start + room].tolist()

    depths = [depth, *rng.random(keys - 1)]
    prompt = task
    done = 0  # tokens of the filler that stand in the prompt
    for i in np.argsort(depths):
        cut = round(depths[i] * room)
        prompt = prompt + filler[done:cut] + needles[i]
        done = cut
    return prompt + filler[done:] + question, answer


@torch.no_grad()  # not inference_mode, in which autocast would cast the weights at every call
def evaluate(
    model: GPT, encoding, length: int, trials: int = 1000, seed: int = 0, keys: int = 1, text=None
) -> np.ndarray:
    """Whether the model gives the key, for prompts of `length` tokens at depths evenly spread from 0 to 1.

    A trial is right when every token of the key is the arg-max given the true tokens before it, which one
    forward pass tells. Greedy generation gives the key in exactly the same trials: as long as it has been
    right, what it has written is the true prefix, so its next token is that arg-max; at the first wrong one
    both have failed.
    """
    device = model.lm_head.weight.device
    batch_size = max(1, BATCH_TOKENS // length)
    rng = np.random.default_rng([seed, 0, 0, length])  # four numbers, never the three of train.py
    depths = np.linspace(0, 1, trials)
    right = []
    for i in tqdm(range(0, trials, batch_size), f"length {length}", leave=False, disable=None):
        batch = depths[i : i + batch_size]
        pairs = [make_prompt(encoding, length, depth, rng, keys, text) for depth in batch]
        ids = torch.tensor([prompt + key for prompt, key in pairs], device=device)  # (batch_size, length)
        # Keys differ in their number of tokens, but every row ends with its key.
        longest = max(len(key) for _, key in pairs)
        hidden = model.hidden(ids[:, :-1])[:, -longest:]  # (batch_size, longest, n_embd)
        hits = model.lm_head(hidden).argmax(dim=-1) == ids[:, -longest:]
        for row, (_, key) in zip(hits.cpu(), pairs):
            right.append(bool(row[-len(key) :].all()))
    return np.array(right)


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
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("runs", nargs="+", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--lengths", nargs="+", type=int, help="default: N/2 to 16 N of the first run")
    parser.add_argument("--trials", type=int, default=1000, help="prompts a length (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the keys")
    parser.add_argument("--keys", type=int, default=1, help="in a prompt; one is asked for (default: 1)")
    parser.add_argument("--filler", choices=["grass", "text"], default="grass", help="text: of the corpus")
    parser.add_argument("--set", nargs="+", type=parse_setting, default=[], help="settings, as yarn_scale=16")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--plot", help="draw them in this PNG file (needs matplotlib)")
    parser.add_argument("--device", type=pick_device, default="auto", help="cuda, mps, cpu; auto: the best")
    args = parser.parse_args()
    can_plot = importlib.util.find_spec("matplotlib")
    require(can_plot or not args.plot, "--plot needs matplotlib: pip install matplotlib")
    require(args.trials >= 10 and 1 <= args.keys <= 26, "--trials is at least 10, --keys from 1 to 26")

    _, first = load_checkpoint(args.runs[0], args.device)
    N = first["config"]["block_size"]
    least = shortest(data.get_encoding(first["meta"]["encoding"]), args.keys)
    lengths = args.lengths or [n for n in (N // 2, N, 2 * N, 4 * N, 8 * N, 16 * N) if n >= least]
    lengths = sorted(lengths)
    require(lengths and lengths[0] >= least, f"a passkey prompt takes {least} tokens")
    text = data.load_tokens(first["config"]["dataset"], "val") if args.filler == "text" else None
    print_row("passkey, %", lengths)
    results = []
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, args.device, **dict(args.set))
        encoding = data.get_encoding(checkpoint["meta"]["encoding"])
        right = []
        for length in lengths:
            with autocast(args.device):
                right.append(evaluate(model, encoding, length, args.trials, args.seed, args.keys, text))
        right = np.array(right)  # (lengths, trials)
        accuracy = right.mean(axis=1)
        thirds = by_parts(right, 3)
        numbers = {
            "checkpoint": run,
            "iter": checkpoint["iter"],
            "config": checkpoint["config"],
            "trained_on": checkpoint["meta"]["sha256"],
            "accuracy": accuracy.tolist(),
            "thirds": thirds.tolist(),
            "by_depth": by_parts(right, 10).tolist(),
        }
        results.append(numbers)
        if args.json:  # after each run, so that nothing is lost if a later one fails
            data.write_results(args, lengths=lengths, results=results)
        print_row(Path(run).name, [f"{100 * share:.1f}" for share in accuracy])
        print_row("  far/middle/near", [f"{far:.0f}/{mid:.0f}/{near:.0f}" for far, mid, near in 100 * thirds])
    if args.plot:
        draw(lengths, results).savefig(args.plot)


if __name__ == "__main__":
    main()
