"""
Exercise 10: read the ablation. 40 minutes, 10 points; nothing is trained.

    python -m assignments.grade ex10
    python -m assignments.ex10_ablation results/recipe.jsonl n_head=2 local_window=64 logn=True qk_norm=True
    python -m assignments.ex10_ablation results/plain.jsonl n_head=2

Goal. Say what runs have shown, and no more: is FoPE better than its clipping alone, without the series (CF)?

Before you start. Mean, standard deviation, the binomial distribution. Each line of the files has
what perplexity.py or passkey.py writes with --json: the numbers of a run, and in config how it was trained.

Fill in the three functions.

See. (a) Runs of one seed read the same data in the same order, and begin with the same weights but for the
encoding's. When is the spread of their differences smaller than that of either method? Compare both in what
this file prints. (b) If neither method were better, how often would five seeds of five agree, on either one?
What is the most that the signs of five differences can show? (c) A model finds 25 keys of 25. What may one
say of its rate? And if the 25 are five prompts for each of five seeds, of what is it the rate? (d) Is FoPE
better than CF? Write the sentence that you would put into a paper, and say how many comparisons you looked at
before.
"""

import json
import statistics
import sys
from pathlib import Path

from model import parse_setting


def by_seed(evaluations: list[dict], settings: dict, measure: str, length: int) -> dict[int, float]:
    """The measure at this length, by seed, of all runs whose config has these settings.

    An evaluation is such as {"lengths": [256, 512], "set": [], "results": [run, ...]}, and a run such as
    {"config": {"pos": "rope", "seed": 1, ...}, "perplexity": [4.1, 5.3]}, with a number for each length; in
    place of "perplexity" some have other measures. Not every evaluation has this measure, or this length. One
    whose "set" is not empty has read its runs with settings that are not those of the training: leave it out.
    """
    raise NotImplementedError


def difference(a: dict[int, float], b: dict[int, float]) -> tuple[float, float]:
    """Mean of a - b over the seeds that both have, two or more, and its standard error.

    The error is of paired differences: it comes from how they vary from seed to seed, with n - 1.
    """
    raise NotImplementedError


def at_least(hits: int, trials: int, risk: float = 0.05) -> float:
    """The rate that `hits` of `trials` show at a risk of saying too much: the exact one-sided lower bound.

    That is the rate with which so many hits or more would have the probability `risk`. No hits show 0.0.
    Trials are at most 1000; the answer is right to 4 decimals.
    """
    raise NotImplementedError


FOPE = {"pos": "fope", "fope_series": True, "fope_clip": True, "fope_init": "xavier"}
CF = FOPE | {"fope_series": False}


def print_comparison(path: str, settings: list[str]):
    """FoPE beside CF at each length, of runs trained with these settings, such as "qk_norm=True"."""
    evaluations = [json.loads(line) for line in Path(path).read_text().splitlines()]
    more = dict(parse_setting(text) for text in settings)
    lengths = set()
    for evaluation in evaluations:
        lengths |= set(evaluation["lengths"])
    for measure in ("perplexity", "accuracy"):
        for length in sorted(lengths):
            fope = by_seed(evaluations, FOPE | more, measure, length)
            cf = by_seed(evaluations, CF | more, measure, length)
            both = fope.keys() & cf.keys()
            if len(both) < 2:
                print(f"{measure} at {length}: too few seeds in common, {len(both)}")
                continue
            print(f"{measure} at {length}")
            for name, values in (("FoPE", fope.values()), ("CF", cf.values())):
                sd = statistics.stdev(values)
                print(f"    {name:10} {statistics.mean(values):8.3f}, sd {sd:.3f}, {len(values)} seeds")
            mean, error = difference(fope, cf)
            sd = statistics.stdev(fope[seed] - cf[seed] for seed in both)
            lower = [seed for seed in both if fope[seed] < cf[seed]]
            print(f"    FoPE - CF  {mean:+8.3f}, sd {sd:.3f}, lower in {len(lower)} of {len(both)} seeds")
            print(f"               {mean:+8.3f} +- {error:.3f}, the error of this mean")
    print(f"25 of 25 show a rate of {at_least(25, 25):.3f}")


if __name__ == "__main__":
    print_comparison(sys.argv[1], sys.argv[2:])
