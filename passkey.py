"""
Passkey retrieval: can a model find five digits in a long text? Accuracy by context length and depth (Figure 1a).

    python passkey.py out/fope_tiny out/rope_tiny
    python passkey.py out/* --lengths 128 256 512 --trials 200 --json results/passkey.json --plot results/passkey.png

A prompt says a key twice somewhere in filler text and asks for it at the end; the task is Mohtashami and Jaggi's
(arXiv 2305.16300). Models learn it when train.py mixes such prompts into the corpus (passkey_frac). The command line,
the JSON and the plot are perplexity.py's `evaluation`.
"""

import argparse
import math
from functools import lru_cache

import numpy as np
import tiktoken
import torch
from tqdm import tqdm

from data import get_encoding
from model import GPT, at_least
from perplexity import BATCH_TOKENS, evaluation

TASK = "Find the key."
FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = " The pass key is", ". Remember it.", " is the pass key."  # a key, " 12345", stands between the parts
QUESTION = " What is the pass key? The pass key is"
KEYS = range(10_000, 100_000)


@lru_cache
def _pieces(encoding: tiktoken.Encoding) -> list[list[int]]:
    return [encoding.encode_ordinary(text) for text in (TASK, FILLER, *NEEDLE, QUESTION)]


@lru_cache
def shortest(encoding: tiktoken.Encoding) -> int:
    """The smallest length, in tokens, that holds prompt and answer of every key; there is no filler then."""
    longest_key = max(len(encoding.encode_ordinary(f" {key}")) for key in KEYS)
    task, _, *others = _pieces(encoding)
    return len(task) + sum(map(len, others)) + 3 * longest_key


def make_prompt(encoding, length: int, depth: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """The token ids of a prompt and of its answer, a random key: together exactly `length` tokens.

    At depth 0 the key follows the description of the task, at depth 1 it stands right before the question. The parts
    are joined as token ids and only the filler is cut, so the key is the same tokens wherever it stands.
    SystemExit if `length` is below `shortest(encoding)`.
    """
    if length < shortest(encoding):
        raise SystemExit(f"error: {length} tokens hold no passkey prompt, the shortest takes {shortest(encoding)}")
    task, filler, start, middle, end, question = _pieces(encoding)
    key = encoding.encode_ordinary(f" {rng.integers(KEYS.start, KEYS.stop)}")
    needle = start + key + middle + key + end
    room = length - len(task + needle + question + key)
    filler, cut = (filler * (room // len(filler) + 1))[:room], round(depth * room)
    return task + filler[:cut] + needle + filler[cut:] + question, key


@torch.inference_mode()
def evaluate(model: GPT, encoding: tiktoken.Encoding, length: int, trials: int = 1000, seed: int = 0) -> list[bool]:
    """Whether the model gives the key, for prompts of `length` tokens at depths evenly spread from 0 to 1, in order.

    A trial is right when every token of the key is the arg-max given the true tokens before it, which one forward pass
    tells. Greedy generation gives the key in exactly the same trials: as long as it has been right, what it has written
    is the true prefix, so its next token is that arg-max; at the first wrong one the trial is lost both ways.
    """
    device, rows, right = next(model.parameters()).device, max(1, BATCH_TOKENS // length), []
    rng = np.random.default_rng([seed, 0, 0, length])  # not the trainer's [seed, step, row]
    batches = np.split(np.linspace(0, 1, trials), range(rows, trials, rows))
    for depths in tqdm(batches, f"length {length}", leave=False, disable=None):
        prompts, answers = zip(*(make_prompt(encoding, length, depth, rng) for depth in depths))
        ids = torch.tensor([prompt + answer for prompt, answer in zip(prompts, answers)], device=device)
        last = max(map(len, answers))  # keys differ in their number of tokens, but every row ends with its key
        hits = model.lm_head(model.hidden(ids[:, :-1])[:, -last:]).argmax(dim=-1) == ids[:, -last:]
        right += [bool(row[-len(answer) :].all()) for row, answer in zip(hits.cpu(), answers)]
    return right


def wilson(right: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share, right / trials (Wilson score): sound at 0 and 1 too, where ± would be zero."""
    share, z = right / trials, 1.96
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / trials / 2) ** 2) / (1 + z**2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def measure(model: GPT, checkpoint: dict, args: argparse.Namespace) -> tuple[dict, dict[str, list[str]]]:
    """One run's numbers and its rows of the table; by_depth has ten shares, shallow to deep, for each length."""
    encoding = get_encoding(checkpoint["meta"]["encoding"])
    trials = [evaluate(model, encoding, length, args.trials, args.seed) for length in args.lengths]
    accuracy, intervals = [np.mean(right) for right in trials], [wilson(sum(right), len(right)) for right in trials]
    by_depth = [[part.mean() for part in np.array_split(right, min(10, args.trials))] for right in trials]
    cells = [f"{100 * low:.1f}-{100 * high:.1f}" for low, high in intervals]
    numbers = {"accuracy": accuracy, "interval": intervals, "by_depth": by_depth}
    return numbers, {"": [f"{100 * share:.1f}" for share in accuracy], "  95 %": cells}


def main() -> None:
    parser = argparse.ArgumentParser(description="Passkey retrieval by context length and depth.")
    parser.add_argument("--trials", type=at_least(1), default=1000, help="prompts a length")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the keys")
    evaluation(parser, measure, shortest=lambda name: shortest(get_encoding(name)))
    print("accuracy in %, and its 95 % interval")


if __name__ == "__main__":
    main()
