"""
Pictures of what perplexity.py and passkey.py have measured: their --plot, and means over seeds from their --json.

    python -m analysis.plots results/tiny/perplexity.json results/tiny/passkey.json --plot results/tiny/figure_1.png

Run so, it prints a table in Markdown, mean ± standard deviation over the runs that differ only in the number at the end
of their name (their seed), and draws one panel a measure. perplexity.py and passkey.py import this file, and with it
matplotlib, only when a plot is asked for.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from model import user_error, write_whole


def draw(lengths: list[int], results: list[dict]) -> Figure:
    """The figure of what one of the evaluations has measured: a dict a run."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    (draw_accuracy if "accuracy" in results[0] else draw_perplexity)(figure, lengths, results)
    return figure


def draw_perplexity(figure, lengths: list[int], results: list[dict]) -> None:
    axes = figure.subplots()
    draw_lines(axes, lengths, results, [(run["perplexity"], run["error"]) for run in results])
    scale(axes, "perplexity")


def draw_accuracy(figure, lengths: list[int], results: list[dict]) -> None:
    """Passkey accuracy by length, and under it for every run by length and depth."""
    grid = figure.add_gridspec(2, len(results))
    bars = [np.abs(np.transpose(run["interval"]) - run["accuracy"]) for run in results]
    axes = figure.add_subplot(grid[0, :])
    draw_lines(axes, lengths, results, [(run["accuracy"], bar) for run, bar in zip(results, bars)])
    scale(axes, "accuracy")
    for i, run in enumerate(results):
        axes, shares = figure.add_subplot(grid[1, i]), np.transpose(run["by_depth"])
        extent = (-0.5, len(lengths) - 0.5, 1, 0)
        image = axes.imshow(shares, "cividis", vmin=0, vmax=1, aspect="auto", extent=extent)
        axes.set_xticks(range(len(lengths)), labels=lengths, rotation=90)
        axes.set(title=Path(run["checkpoint"]).name, xlabel="length", ylabel="" if i else "depth of the key")
    figure.colorbar(image, ax=figure.axes[1:], label="accuracy")


def scale(axes, measure: str) -> None:
    """The vertical axis of a measure."""
    if measure == "accuracy":
        axes.set(ylabel="passkey accuracy", ylim=(-0.03, 1.03))
    else:
        axes.set(ylabel="perplexity", yscale="log")
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axes.yaxis.set_major_formatter("{x:g}")


def draw_lines(axes, lengths: list[int], results: list[dict], curves: list[tuple]) -> None:
    """One curve (values, error bars) a run over the lengths, each training length a dotted line."""
    for i, (run, (values, errors)) in enumerate(zip(results, curves)):
        style = {"color": f"C{i}", "marker": "osD^vPX*"[i % 8], "linestyle": ("-", "--", "-.", ":")[i % 4]}
        axes.errorbar(lengths, values, errors, label=Path(run["checkpoint"]).name, capsize=3, **style)
    for n in {run["config"]["block_size"] for run in results}:
        axes.axvline(n, color="grey", linestyle=":", zorder=0)
        axes.text(n, 1.01, f"trained at {n}", transform=axes.get_xaxis_transform(), ha="center", va="bottom")
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, labels=lengths)
    axes.set(xlabel="context length (tokens)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


# ----------------------------------------------------------------------------------------------------------------------
# Means over seeds


def shared_name(run: dict) -> str:
    """The name of a run without the number at its end: "fope_tiny" of out/fope_tiny_1."""
    return re.sub(r"_\d+$", "", Path(run["checkpoint"]).name)


def over_seeds(results: list[dict], measure: str, lengths: list[int]) -> dict[str, dict]:
    """Runs by the name they share, with their mean and their standard deviation (0 for one run) at some lengths.

    In each of the results, `measure` is a dict from length to value.
    """
    groups: dict[str, list[dict]] = {}
    for run in results:
        strength = run["config"]["logn_scale"]
        label = shared_name(run) + f", strength {strength:g}" * (strength > 0) + ", window" * ("window" in run)
        groups.setdefault(label, []).append(run)
    means = {}
    for label, runs in groups.items():
        if len({run["checkpoint"] for run in runs}) < len(runs):
            raise SystemExit(f"error: a run of {label} is in two of the files, so it would count as two seeds")
        values = np.array([[run[measure][n] for n in lengths] for run in runs])
        spread = values.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(values.shape[1])
        means[label] = {"checkpoint": label, "config": runs[0]["config"], "mean": values.mean(axis=0), "spread": spread}
        means[label]["seeds"] = len(runs)
    return means


def print_table(measure: str, lengths: list[int], means: dict[str, dict]) -> None:
    times, digits, unit = (100, 1, ", %") if measure == "accuracy" else (1, 2, "")
    print(f"| {measure}{unit} | seeds |", *(f"{length} |" for length in lengths))
    print("|", " --- |" * (len(lengths) + 2), sep="")
    for label, row in means.items():
        cells = [f"{times * value:.{digits}f}" for value in row["mean"]]
        if row["seeds"] > 1:
            cells = [f"{cell} ± {times * value:.{digits}f}" for cell, value in zip(cells, row["spread"])]
        print(f"| {label} | {row['seeds']} |", *(f"{cell} |" for cell in cells))
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description="Mean over seeds of what perplexity.py and passkey.py measured.")
    parser.error = lambda message: sys.exit(f"error: {message}")
    parser.add_argument("files", nargs="+", type=Path, help="of --json; lengths that one lacks are left out")
    parser.add_argument("--plot", type=Path, help="draw them in this PNG file; one that is there is replaced")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these runs, named without their number")
    args = parser.parse_args()
    measured: dict[str, list[dict]] = {}
    for path in args.files:
        with user_error(f"{path} is not what --json writes: ", OSError, ValueError, LookupError, TypeError):
            file = json.loads(path.read_text())
            measure = "accuracy" if "accuracy" in file["results"][0] else "perplexity"
        for run in file["results"]:
            if not args.only or shared_name(run) in args.only:
                measured.setdefault(measure, []).append(run | {measure: dict(zip(file["lengths"], run[measure]))})
    if not measured:
        raise SystemExit("error: the files hold none of these runs")
    figure = Figure(figsize=(5.5 * len(measured), 4.5), layout="constrained")
    panels = figure.subplots(1, len(measured), squeeze=False)[0]
    for axes, (measure, results) in zip(panels, measured.items()):
        lengths = sorted(set.intersection(*(set(run[measure]) for run in results)))  # that all of them have
        if not lengths:
            raise SystemExit("error: no length is in all of the files")
        means = over_seeds(results, measure, lengths)
        print_table(measure, lengths, means)
        draw_lines(axes, lengths, list(means.values()), [(row["mean"], row["spread"]) for row in means.values()])
        scale(axes, measure)
    if args.plot:
        write_whole(args.plot, lambda file: figure.savefig(file, format="png", dpi=150))


if __name__ == "__main__":
    main()
