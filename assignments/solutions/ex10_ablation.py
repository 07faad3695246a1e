"""Solution of exercise 10: runs by seed, paired differences, and what 25 of 25 show."""

import math
import statistics


def by_seed(evaluations: list[dict], settings: dict, measure: str, length: int) -> dict[int, float]:
    values = {}
    for evaluation in evaluations:
        if evaluation["set"] or length not in evaluation["lengths"]:
            continue
        column = evaluation["lengths"].index(length)
        for run in evaluation["results"]:
            config = run["config"]
            fits = all(config[key] == value for key, value in settings.items())
            if fits and measure in run:
                values[config["seed"]] = run[measure][column]
    return values


def difference(a: dict[int, float], b: dict[int, float]) -> tuple[float, float]:
    differences = [a[seed] - b[seed] for seed in a if seed in b]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.mean(differences), error


def at_least(hits: int, trials: int, risk: float = 0.05) -> float:
    low = 0.0
    high = 1.0
    for _ in range(40):
        rate = (low + high) / 2
        terms = [math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(hits, trials + 1)]
        if sum(terms) < risk:
            low = rate
        else:
            high = rate
    return low
