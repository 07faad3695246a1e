"""Checks of exercise 10, on numbers that are drawn here."""

import math
import statistics

import torch

from assignments.harness import part, same

FOPE = {"pos": "fope", "fope_series": True, "local_window": 0}


def evaluation(measure: str, lengths: list[int], configs: list[dict], replaced=()) -> dict:
    """What an evaluation would write of runs trained so: its numbers are drawn."""
    runs = [{"config": config, measure: torch.rand(len(lengths)).tolist()} for config in configs]
    return {"lengths": lengths, "set": list(replaced), "results": runs}


def collect(evaluations, settings, measure, length, read_otherwise=False, column=None) -> dict:
    """by_seed, right or with a mistake."""
    values = {}
    for one in evaluations:
        if length in one["lengths"] and (read_otherwise or not one["set"]):
            for run in one["results"]:
                if measure in run and settings.items() <= run["config"].items():
                    place = one["lengths"].index(length) if column is None else column
                    values[run["config"]["seed"]] = run[measure][place]
    return values


@part("by_seed", 3)
def by_seed(answer):
    series = [FOPE | {"seed": seed} for seed in (1, 2, 3)]
    others = [FOPE | {"seed": 1, "fope_series": False}, FOPE | {"seed": 2, "local_window": 64}]
    evaluations = [
        evaluation("accuracy", [256, 512], series),
        evaluation("accuracy", [4096], series),
        evaluation("perplexity", [512, 256], [series[0], *others]),
        evaluation("perplexity", [128, 256, 512], series[1:]),
        evaluation("perplexity", [128, 512, 256], series, replaced=[["yarn_scale", 16.0]]),
    ]
    for measure, length in (("perplexity", 256), ("perplexity", 128), ("accuracy", 4096)):
        arguments = (FOPE, measure, length)
        known = {
            "evaluations with other settings, under set, were counted": collect(
                evaluations, *arguments, True
            ),
            "a setting were not looked at": collect(evaluations, {"pos": "fope"}, measure, length),
            "every file had its lengths in the first one's order": collect(evaluations, *arguments, column=0),
        }
        case = f"settings {FOPE}, {measure} at {length}, and five evaluations of the form in the docstring"
        same(
            "by_seed", answer.by_seed(evaluations, *arguments), collect(evaluations, *arguments), case, known
        )


@part("difference", 4)
def difference(answer):
    for seeds_a, seeds_b in (([1, 2, 3], [1, 2, 3]), ([5, 1, 2, 4, 3], [3, 4, 6, 5, 1])):
        strength = 10 * torch.rand(7)  # of a seed, whatever the method
        a = {seed: (strength[seed] + torch.rand(1)).item() for seed in seeds_a}
        b = {seed: (strength[seed] + torch.rand(1)).item() for seed in seeds_b}
        pairs = [a[seed] - b[seed] for seed in a if seed in b]
        as_listed = [x - y for x, y in zip(a.values(), b.values())]
        n = len(pairs)
        mean = statistics.mean(pairs)
        sd = statistics.stdev(pairs)
        variances = statistics.variance(a.values()) + statistics.variance(b.values())
        known = {
            "it were b - a": (-mean, sd / math.sqrt(n)),
            "it were the standard deviation: divide by sqrt(n) for the mean's error": (mean, sd),
            "the deviation had n in place of n - 1": (mean, statistics.pstdev(pairs) / math.sqrt(n)),
            "values were paired as they are listed, not by seed": (
                statistics.mean(as_listed),
                statistics.stdev(as_listed) / math.sqrt(len(as_listed)),
            ),
            "the two were not paired": (mean, math.sqrt(variances / n)),
        }
        case = f"a {a}, b {b}"
        same("difference", answer.difference(a, b), (mean, sd / math.sqrt(n)), case, known)


def lower_bound(hits: int, trials: int, risk: float) -> float:
    rates = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    k = torch.arange(hits, trials + 1, dtype=torch.float64)
    ways = torch.tensor([math.comb(trials, int(i)) for i in k], dtype=torch.float64)
    tail = (ways * rates[:, None] ** k * (1 - rates[:, None]) ** (trials - k)).sum(dim=1)
    return rates[(tail - risk).abs().argmin()].item()


@part("at_least", 3)
def at_least(answer):
    for hits, trials, risk in (
        (24, 25, 0.05),
        (25, 25, 0.05),
        (25, 25, 0.01),
        (0, 25, 0.05),
        (31, 60, 0.05),
        (900, 1000, 0.05),
    ):
        rate = hits / trials
        expected = 0.0 if hits == 0 else lower_bound(hits, trials, risk)
        known = {
            "it were the share itself": rate,
            "the risk were split between two sides": lower_bound(hits, trials, risk / 2),
            "only more hits counted, not so many or more": lower_bound(hits + 1, trials, risk),
            "it were the rule of three, which is near but not exact": 1 - 3 / trials,
            "a normal distribution were taken": rate - 1.645 * math.sqrt(rate * (1 - rate) / trials),
        }
        case = f"hits {hits}, trials {trials}, risk {risk}"
        same("at_least", answer.at_least(hits, trials, risk), expected, case, known)
