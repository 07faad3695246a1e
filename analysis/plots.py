"""
A table and a figure over seeds, of what perplexity.py and passkey.py wrote with --json.

    python -m analysis.plots results/recipe.jsonl --table
    python -m analysis.plots a.json b.json --table --order fope rope --baseline rope --perplexity_at 256 4096
    python -m analysis.plots results/recipe.jsonl --figure figure.png --names fope=FoPE "cf=clipping alone"

A run's directory is named NAME_SEED: out/recipe/rope_yarn_2 is seed 2 of the group rope_yarn. Settings that
--set replaced belong to the group's name, as in "rope yarn_scale=16.0". A run may be spread over several
files, each with lengths of its own, or over the lines of a .jsonl file, each of which is such a file.

In the table, "5.61 ± 0.02" is the mean and the standard deviation over the seeds; "(3)" behind it: only
three of the group's seeds have this length. Differences of the loss, at N, are taken within each seed, whose
runs read the same data in the same order; "(4 of 5)" says in how many seeds they are below zero.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

from model import require

NAMES = {"fope": "FoPE", "rope": "RoPE", "rope_a": "RoPE-A", "alibi": "ALiBi", "nope": "NoPE"}
TITLES = {
    "perplexity": "perplexity at {length}",
    "difference": "loss minus {baseline}'s at {length}, nats",
    "accuracy": "passkeys at {length}, %",
}
COLORS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#000000"]  # Okabe and Ito's, for all eyes
MARKERS = ["o", "s", "^", "D", "v"]


def name_run(checkpoint: str, settings: list) -> tuple[str, str]:
    """Group and seed of the run in the directory `checkpoint`, evaluated with these settings replaced."""
    name, _, seed = Path(checkpoint).name.rpartition("_")
    require(name, f"{checkpoint} is not named NAME_SEED, as fope_3")
    words = [f"{key}={value}" for key, value in settings]
    return " ".join([name, *words]), seed


class Results:
    """The numbers of all files, by seed: numbers[measure, group, length] is {seed: number}."""

    def __init__(self, paths: list[Path]):
        self.numbers = {}
        self.groups = []  # in the order of the files
        self.trials = {}  # passkey prompts in a run, by length
        self.N = 0  # training length
        self.commits = []  # of the code that measured
        self.said = {}  # what has to be the same everywhere: its value, and the file that said it first
        for path in paths:
            files = sorted(path.glob("*.json")) if path.is_dir() else [path]
            for file in files:
                require(file.exists(), f"there is no {file}")
                text = file.read_text(encoding="utf-8")
                parts = text.splitlines() if file.suffix == ".jsonl" else [text]
                for part in parts:
                    self.add(json.loads(part), file)
        require(self.groups, "no results of perplexity.py or passkey.py are there")

    def add(self, content: dict, file: Path):
        """Adds the numbers of an evaluation; what is not perplexity.py's or passkey.py's has none."""
        for result in content.get("results", []):
            if "perplexity" in result:
                measure = "perplexity"
                stretch = math.lcm(*content["lengths"])  # with it, the text depends on the other lengths
                corpus = content["corpus"]["sha256"][:8]
                conditions = f"{content['scored']} tokens of {corpus} in stretches of {stretch}"
            elif "accuracy" in result:
                measure = "accuracy"
                conditions = {key: content[key] for key in ("trials", "keys", "filler", "seed")}
            else:
                continue
            group, seed = name_run(result["checkpoint"], content["set"])
            self.N = result["config"]["block_size"]
            self.check("the training length", self.N, file)
            self.check(f"the steps of {group}", result["iter"], file)
            self.check(f"the training corpus of {group}", result["trained_on"][:8], file)
            if group not in self.groups:
                self.groups.append(group)
            if content["commit"] not in self.commits:
                self.commits.append(content["commit"])
            for length, number in zip(content["lengths"], result[measure]):
                self.check(f"{measure} at {length} tokens", conditions, file)
                self.check(f"{measure} of {group}_{seed} at {length} tokens", number, file)
                self.numbers.setdefault((measure, group, length), {})[seed] = number
                if measure == "accuracy":
                    self.trials[length] = content["trials"]

    def check(self, what: str, value, file: Path):
        """Numbers that differ in more than model and seed are neither averaged nor compared."""
        first, where = self.said.setdefault(what, (value, file))
        require(value == first, f"{what}: {first} in {where}, but {value} in {file}")

    def lengths(self, measure: str, groups: list[str]) -> list[int]:
        """Those that at least one of the groups has."""
        return sorted({key[2] for key in self.numbers if key[0] == measure and key[1] in groups})

    def values(self, measure: str, group: str, length: int) -> list[float]:
        """One a seed; none where nothing was measured."""
        return list(self.numbers.get((measure, group, length), {}).values())

    def add_differences(self, baseline: str):
        """Adds the measure "difference", at N: a run's loss minus that of the baseline's run of its seed."""
        theirs = self.numbers.get(("perplexity", baseline, self.N), {})
        for group in self.groups:
            ours = self.numbers.get(("perplexity", group, self.N), {})
            shared = [seed for seed in ours if seed in theirs and group != baseline]
            differences = {seed: math.log(ours[seed]) - math.log(theirs[seed]) for seed in shared}
            self.numbers["difference", group, self.N] = differences


def show(measure: str, values: list[float]) -> str:
    """Mean and standard deviation over seeds; one value stands alone."""
    form = {"perplexity": ".2f", "accuracy": ".1f", "difference": "+.3f"}[measure]
    if measure == "accuracy":
        values = [100 * value for value in values]
        if min(values) == 100:
            return "100"
    text = format(statistics.mean(values), form)
    if len(values) > 1:
        text += f" ± {format(statistics.stdev(values), form.lstrip('+'))}"
    if measure == "difference":
        below = sum(value < 0 for value in values)
        text += f" ({below} of {len(values)})"
    return text


def name_length(length: int, N: int) -> str:
    """In units of the training length N, where it is a multiple or a part of it: "N", "4 N", "N/2"."""
    if length == N:
        return "N"
    if length % N == 0:
        return f"{length // N} N"
    return f"N/{N // length}" if N % length == 0 else str(length)


def print_table(results: Results, columns: list, groups: list[str], names: dict[str, str], baseline: str):
    """In Markdown: a row a group, a column a pair (measure, length); the first one of a measure is titled."""
    head = ["", "seeds"]
    trials = ["trials in a run", ""]
    titled = set()
    for measure, length in columns:
        label = name_length(length, results.N)
        title = TITLES[measure].format(length=label, baseline=names.get(baseline, baseline))
        head.append(label if measure in titled else title)
        titled.add(measure)
        trials.append(str(results.trials[length]) if measure == "accuracy" else "")
    rows = [head, ["---"] * len(head)]
    for group in groups:
        by_column = [results.values(measure, group, length) for measure, length in columns]
        seeds = max(len(values) for values in by_column)
        cells = [names.get(group, group), str(seeds)]
        for (measure, _), values in zip(columns, by_column):
            text = show(measure, values) if values else ""
            if 0 < len(values) < seeds and measure != "difference":
                text += f" ({len(values)})"
            cells.append(text)
        rows.append(cells)
    if "accuracy" in titled:
        rows.append(trials)
    print("\n".join(f"| {' | '.join(cells)} |" for cells in rows), end="\n\n")


def new_figure(width: float, height: float):
    """A Matplotlib figure of this size, in inches; white, so that it can be read on a dark page."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def draw(results: Results, groups: list[str], names: dict[str, str]):
    """Perplexity and passkey accuracy by length: a dot for each seed, a line through the means."""
    require(len(groups) <= len(COLORS), f"a figure has {len(COLORS)} groups at most; name them by --order")
    measures = [measure for measure in ("perplexity", "accuracy") if results.lengths(measure, groups)]
    figure = new_figure(5.5 * len(measures), 4.2)
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures):
        lengths = results.lengths(measure, groups)
        for group, color, marker in zip(groups, COLORS, MARKERS):
            own_lengths = results.lengths(measure, [group])
            means = []
            for length in own_lengths:
                values = results.values(measure, group, length)
                means.append(statistics.mean(values))
                axes.plot([length] * len(values), values, ".", color=color, alpha=0.5)
            axes.plot(own_lengths, means, marker=marker, color=color, label=names.get(group, group))
        axes.axvline(results.N, color="grey", linestyle=":", zorder=0)
        above = axes.get_xaxis_transform()  # x in tokens, y in heights of the panel
        axes.text(results.N, 1.02, f"trained at N = {results.N}", transform=above)
        axes.set_xscale("log")
        axes.set_xticks(lengths, lengths)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if measure == "perplexity":
            axes.set(xlabel="context length, tokens", ylabel="perplexity")
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}")
            low, high = axes.get_ylim()
            axes.set_ylim(2 ** math.floor(math.log2(low)), 2 ** math.ceil(math.log2(high)))
        else:
            trials = ", ".join(str(results.trials[length]) for length in lengths)
            axes.set(xlabel=f"context length, tokens (trials in a run: {trials})", ylim=(-0.03, 1.03))
            axes.set_ylabel("share of passkeys found")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="JSON files, or folders of them; .jsonl has one a line",
    )
    parser.add_argument("--table", action="store_true", help="print a table in Markdown")
    parser.add_argument("--perplexity_at", nargs="+", type=int, metavar="LENGTH", help="(default: at all)")
    parser.add_argument("--figure", help="draw both measures in this PNG file (needs matplotlib)")
    parser.add_argument("--order", nargs="+", metavar="GROUP", help="these groups alone, in this order")
    parser.add_argument("--names", nargs="+", default=[], metavar="GROUP=NAME", help="for readers")
    parser.add_argument("--baseline", metavar="GROUP", help="a column of the losses at N minus this group's")
    args = parser.parse_args()

    require(all("=" in text for text in args.names), "--names takes GROUP=NAME")
    results = Results(args.paths)
    groups = args.order or results.groups
    names = NAMES | dict(text.rsplit("=", 1) for text in args.names)
    for group in [*groups, args.baseline or groups[0]]:
        require(group in results.groups, f"no group {group}; there are {', '.join(results.groups)}")
    if args.baseline:
        results.add_differences(args.baseline)
    if args.table:
        perplexity_at = args.perplexity_at or results.lengths("perplexity", groups)
        columns = [("perplexity", length) for length in perplexity_at]
        if args.baseline:
            columns.append(("difference", results.N))
        columns += [("accuracy", length) for length in results.lengths("accuracy", groups)]
        print_table(results, columns, groups, names, args.baseline)
        print("Measured by commit", ", ".join(commit or "(no checkout)" for commit in results.commits))
    if args.figure:
        draw(results, groups, names).savefig(args.figure, dpi=150)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # for the sign between mean and deviation
    main()
