"""
The plots of perplexity.py --plot and passkey.py --plot, from the results that --json writes.

The two import this file, and with it matplotlib, only when a plot is asked for.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter


def draw(lengths: list[int], results: list[dict]) -> Figure:
    """The figure of what one of the evaluations has measured: a dict a run."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    (draw_accuracy if "accuracy" in results[0] else draw_perplexity)(figure, lengths, results)
    return figure


def draw_perplexity(figure, lengths: list[int], results: list[dict]) -> None:
    axes = figure.subplots()
    draw_lines(axes, lengths, results, [(run["perplexity"], run["error"]) for run in results])
    axes.set(ylabel="perplexity", yscale="log")
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    axes.yaxis.set_major_formatter("{x:g}")


def draw_accuracy(figure, lengths: list[int], results: list[dict]) -> None:
    """Passkey accuracy by length, and under it for every run by length and depth."""
    grid = figure.add_gridspec(2, len(results))
    bars = [np.abs(np.transpose(run["interval"]) - run["accuracy"]) for run in results]
    axes = figure.add_subplot(grid[0, :])
    draw_lines(axes, lengths, results, [(run["accuracy"], bar) for run, bar in zip(results, bars)])
    axes.set(ylabel="passkey accuracy", ylim=(-0.03, 1.03))
    for i, run in enumerate(results):
        axes, shares = figure.add_subplot(grid[1, i]), np.transpose(run["by_depth"])
        extent = (-0.5, len(lengths) - 0.5, 1, 0)
        image = axes.imshow(shares, "cividis", vmin=0, vmax=1, aspect="auto", extent=extent)
        axes.set_xticks(range(len(lengths)), labels=lengths, rotation=90)
        axes.set(title=Path(run["checkpoint"]).name, xlabel="length", ylabel="" if i else "depth of the key")
    figure.colorbar(image, ax=figure.axes[1:], label="accuracy")


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
    axes.legend()
