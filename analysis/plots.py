"""
Tables and figures of what perplexity.py and passkey.py have measured, over all seeds.

    python -m analysis.plots results/tiny/runs.jsonl --tables
    python -m analysis.plots results/tiny/runs.jsonl --plot figure.png --maps maps.png --summary summary.json
    python -m analysis.plots out/*/*.json --tables --only FoPE RoPE "RoPE, AdamW"

It reads files written with --json, .jsonl files that hold one such a line, and directories of .json files;
files may hold different lengths of the same runs. Runs that differ in nothing but their seed are one method.
A method is called after its encoding, and after each setting in which it differs from the recipe, which is
what most runs with its optimizer have.

±, here, is one standard deviation over seeds. Every number comes unrounded from the files.
"""

import argparse
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import data

# Okabe and Ito's colours, which colour-blind readers can tell apart, and a marker of its own for each
STYLES = {
    "FoPE": ("#D55E00", "o"),
    "RoPE": ("#0072B2", "s"),
    "ALiBi": ("#009E73", "^"),
    "clipping alone (CF)": ("#E69F00", "D"),
    "series alone (FS)": ("#CC79A7", "v"),
    "RoPE-A": ("#56B4E9", "P"),
    "NoPE": ("#000000", "X"),
}
OTHER_STYLE = ("#777777", "*")
LINES = ["-", "--", ":", "-."]  # the recipe, then what differs from it
NAMES = {"fope": "FoPE", "rope": "RoPE", "alibi": "ALiBi", "rope_a": "RoPE-A", "nope": "NoPE"}
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}
SWITCHES = {"qk_norm": "QK norm", "logn_train": "log-n in training"}

# Settings that make no other method: the encoding's name says them, or they only say how to run
NOT_COMPARED = {"pos", "fope_series", "fope_clip", "seed", "name", "out_dir", "resume", "vocab_size"}
NOT_COMPARED |= {"eval_interval", "eval_tokens", "log_interval", "device", "dtype", "compile"}


@dataclass
class Run:
    """A trained model, evaluated with one logn_scale. Numbers are by length."""

    checkpoint: str
    iter: int
    config: dict
    perplexity: dict[int, float] = field(default_factory=dict)
    text: dict[int, tuple] = field(default_factory=dict)  # which tokens that perplexity is of
    passkey: dict[int, float] = field(default_factory=dict)  # accuracy
    reach: dict[int, float] = field(default_factory=dict)  # in tokens
    thirds: dict[int, list[float]] = field(
        default_factory=dict
    )  # accuracy far off, midway, near the question
    by_depth: dict[int, list[float]] = field(default_factory=dict)


@dataclass
class Method:
    """Runs that differ only in their seed."""

    encoding: str
    variant: str  # how it differs from the recipe: "", or such as ", AdamW"
    runs: list[Run]  # by seed

    @property
    def name(self) -> str:
        return self.encoding + self.variant

    def lengths(self, measure: str) -> list[int]:
        """Those at which all of its runs have this measure, if they have it at all."""
        numbers = [set(getattr(run, measure)) for run in self.measured(measure)]
        return sorted(set.intersection(*numbers)) if numbers else []

    def measured(self, measure: str) -> list[Run]:
        return [run for run in self.runs if getattr(run, measure)]

    def values(self, measure: str, length: int) -> np.ndarray:
        """One row a seed."""
        return np.array([getattr(run, measure)[length] for run in self.measured(measure)])


# ---------------------------------------------------------------------------------------------------------
# Reading


def read_runs(paths: list[Path]) -> list[Run]:
    """The runs in these files and directories, each once, with all that the files say of it."""
    runs = {}
    for path in paths:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        for file in files:
            try:
                text = file.read_text(encoding="utf-8")
                parts = text.splitlines() if file.suffix == ".jsonl" else [text]
                for part in parts:
                    content = json.loads(part)
                    if is_evaluation(content):
                        add_file(runs, content)
                    elif not path.is_dir():
                        raise ValueError("it holds no results of an evaluation")
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = f"{type(error).__name__} {error}"
                raise SystemExit(f"error: {file} is not what --json writes: {reason}") from None
    if not runs:
        raise SystemExit("error: there are no results of perplexity.py or passkey.py")
    return list(runs.values())


def is_evaluation(content: object) -> bool:
    """A directory may hold other JSON files, too."""
    if not isinstance(content, dict) or not content.get("results"):
        return False
    first = content["results"][0]
    return "config" in first and ("perplexity" in first or "accuracy" in first)


def add_file(runs: dict[tuple, Run], content: dict) -> None:
    """Adds the numbers of a file's runs to `runs`, which are known by their checkpoint and logn_scale."""
    lengths = content["lengths"]
    if not lengths:
        raise ValueError("it does not say at which lengths")
    for result in content["results"]:
        key = (result["checkpoint"], result["config"]["logn_scale"])
        new = Run(result["checkpoint"], result["iter"], result["config"])
        run = runs.setdefault(key, new)
        if (run.iter, run.config) != (new.iter, new.config):
            raise SystemExit(f"error: two different runs are both called {run.checkpoint}")
        for i, length in enumerate(lengths):
            if "perplexity" in result:
                # the stretches of text follow from how many tokens there are and from their length
                text = (content["corpus"].get("sha256"), content["tokens"], math.lcm(*lengths))
                set_once(run, "perplexity", length, result["perplexity"][i])
                set_once(run, "text", length, text)
            else:
                set_once(run, "passkey", length, result["accuracy"][i])
                set_once(run, "reach", length, result["reach"][i])
                set_once(run, "thirds", length, result["thirds"][i])
                set_once(run, "by_depth", length, result["by_depth"][i])


def set_once(run: Run, measure: str, length: int, value: object) -> None:
    numbers = getattr(run, measure)
    if length in numbers:
        raise SystemExit(f"error: {measure} of {run.checkpoint} at length {length} is there twice")
    numbers[length] = value


# ---------------------------------------------------------------------------------------------------------
# Methods


def group(runs: list[Run]) -> list[Method]:
    """Runs as methods: the recipe's first, in the order of STYLES, then those that differ from it."""
    usual = find_recipe(runs)
    methods = {}
    for run in runs:
        encoding = name_encoding(run.config)
        variant = name_variant(run, usual)
        method = methods.setdefault((encoding, variant), Method(encoding, variant, []))
        method.runs.append(run)
    for method in methods.values():
        method.runs.sort(key=get_seed)
        for run, other in zip(method.runs, method.runs[1:]):
            if get_seed(run) == get_seed(other):
                names = f"{run.checkpoint} and {other.checkpoint}"
                raise SystemExit(f"error: {names} are the same method ({method.name}) and seed")
    return sorted(methods.values(), key=get_place)


def get_seed(run: Run) -> int:
    return run.config["seed"]


def get_place(method: Method) -> tuple:
    """For sorting."""
    order = list(STYLES)
    place = order.index(method.encoding) if method.encoding in order else len(order)
    return method.variant, place, method.encoding


def name_encoding(config: dict) -> str:
    if config["pos"] != "fope":
        return NAMES.get(config["pos"], config["pos"])
    if config["fope_series"] and config["fope_clip"]:
        return "FoPE"
    if config["fope_clip"]:
        return "clipping alone (CF)"
    if config["fope_series"]:
        return "series alone (FS)"
    return "FoPE without both parts"


def compared_settings(config: dict) -> dict:
    """The settings that tell one method from another, without those that this run does not use."""
    settings = {}
    for name, value in config.items():
        unused = name.startswith("fope_") and config["pos"] != "fope"
        unused = unused or (name == "muon_lr_ratio" and config["optimizer"] != "muon")
        if name not in NOT_COMPARED and not unused:
            settings[name] = value
    if config["learning_rate"]:  # what counts is where the rate ends, relative to where it began
        settings["min_lr"] = round(config["min_lr"] / config["learning_rate"], 6)
    return settings


def find_recipe(runs: list[Run]) -> dict[tuple, object]:
    """The most common value of each setting, by what `setting_key` gives."""
    counts = {}
    for run in runs:
        for name, value in compared_settings(run.config).items():
            key = setting_key(run.config, name)
            counter = counts.setdefault(key, Counter())
            counter[value] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in counts.items()}


def setting_key(config: dict, name: str) -> tuple[str, str]:
    """Optimizer and setting: each optimizer has learning rates of its own, so it has a recipe of its own."""
    if name == "optimizer":
        return "any", name
    return config["optimizer"], name


def name_variant(run: Run, usual: dict[tuple, object]) -> str:
    words = []
    for name, value in compared_settings(run.config).items():
        if value != usual[setting_key(run.config, name)]:
            words.append(name_setting(name, value))
    if run.iter != run.config["max_iters"]:
        words.append(f"at step {run.iter:,}")
    return "".join(f", {word}" for word in words)


def name_setting(name: str, value: object) -> str:
    if name == "optimizer":
        return OPTIMIZERS.get(value, value)
    if name in SWITCHES:
        return SWITCHES[name] if value else f"no {SWITCHES[name]}"
    if name == "logn_scale":
        return f"strength {value:g}"
    if name == "max_iters":
        return f"{value:,} steps"
    if name == "learning_rate":
        return f"rate {value:g}"
    if name == "min_lr":
        return f"min_lr {value:g} of the rate"
    return f"{name} {value}"


def choose(methods: list[Method], names: list[str]) -> list[Method]:
    """The methods of these names, in this order."""
    by_name = {method.name: method for method in methods}
    for name in names:
        if name not in by_name:
            raise SystemExit(f"error: no method {name}; there are: {'; '.join(by_name)}")
    return [by_name[name] for name in names]


def training_length(methods: list[Method]) -> int:
    """N, of which there must be one: a row of lengths means nothing across several."""
    lengths = set()
    for method in methods:
        lengths |= {run.config["block_size"] for run in method.runs}
    if len(lengths) > 1:
        raise SystemExit(f"error: the runs have several training lengths: {sorted(lengths)}")
    return lengths.pop()


def require_one_text(methods: list[Method]) -> None:
    """Perplexities at one length can be averaged and compared only if they are of the same text."""
    texts = {}
    for method in methods:
        for run in method.runs:
            for length, text in run.text.items():
                if texts.setdefault(length, text) != text:
                    raise SystemExit(f"error: perplexities at length {length} are of different texts")


def all_lengths(methods: list[Method], measure: str) -> list[int]:
    """Every length that at least one of the methods has."""
    lengths = set()
    for method in methods:
        lengths |= set(method.lengths(measure))
    return sorted(lengths)


# ---------------------------------------------------------------------------------------------------------
# Tables


def show(values: np.ndarray, digits: int) -> str:
    """Mean ± standard deviation; one value stands alone."""
    text = f"{np.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.{digits}f}"
    return text


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """In Markdown."""
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")
    print()


def print_tables(methods: list[Method]) -> None:
    N = training_length(methods)
    print_means("perplexity", "perplexity", methods, N, times=1, digits=2)
    print_means("passkey accuracy, %", "passkey", methods, N, times=100, digits=1)
    print_thirds(methods, N)
    print_means("reach, tokens", "reach", methods, N, times=1, digits=0)
    print_differences(methods, N)


def name_length(length: int, N: int) -> str:
    return f"{length} = N" if length == N else str(length)


def name_multiple(length: int, N: int) -> str:
    """In multiples of the training length: N/2, N, 2N ...; the number itself if it is none."""
    if length == N:
        return "N"
    if length % N == 0:
        return f"{length // N}N"
    if N % length == 0:
        return f"N/{N // length}"
    return str(length)


def print_means(title: str, measure: str, methods: list[Method], N: int, times: int, digits: int) -> None:
    """Mean over seeds by length, of `times` a measure."""
    lengths = all_lengths(methods, measure)
    head = [title, "seeds"] + [name_length(length, N) for length in lengths]
    rows = []
    for method in methods:
        row = [method.name, str(len(method.measured(measure)))]
        for length in lengths:
            cell = ""
            if length in method.lengths(measure):
                cell = show(times * method.values(measure, length), digits)
            row.append(cell)
        if any(row[2:]):
            rows.append(row)
    if rows:
        print_table(head, rows)


def print_thirds(methods: list[Method], N: int) -> None:
    """Accuracy where the key stands far from the question, midway, and near it, at 4N and 16N."""
    lengths = [length for length in all_lengths(methods, "thirds") if length in (4 * N, 16 * N)]
    head = ["passkey accuracy by depth, %", "seeds"]
    for length in lengths:
        head += [f"{name_multiple(length, N)}, far third", "middle", "near third"]
    rows = []
    for method in methods:
        row = [method.name, str(len(method.measured("thirds")))]
        for length in lengths:
            cells = ["", "", ""]
            if length in method.lengths("thirds"):
                thirds = method.values("thirds", length)  # (seeds, 3)
                cells = [show(100 * part, 1) for part in thirds.T]
            row += cells
        if any(row[2:]):
            rows.append(row)
    if rows:
        print_table(head, rows)


def print_differences(methods: list[Method], N: int) -> None:
    """Loss minus that of RoPE of the same variant and seed, on the same text.

    The two runs start from the same weights and read the same data in the same order: the luck in these is in
    both, and cancels.
    """
    lengths = all_lengths(methods, "perplexity")
    head = ["loss minus RoPE's, nats (in how many seeds it is lower)"]
    head += [name_length(length, N) for length in lengths]
    references = {method.variant: method for method in methods if method.encoding == "RoPE"}
    rows = []
    for method in methods:
        reference = references.get(method.variant)
        if reference is None or reference is method:
            continue
        row = [method.name]
        for length in lengths:
            values = differences(method, reference, length)
            cell = ""
            if len(values) > 0:
                cell = f"{show(values, 3)} ({np.sum(values < 0)} of {len(values)})"
            row.append(cell)
        if any(row[1:]):
            rows.append(row)
    if rows:
        print_table(head, rows)


def differences(method: Method, reference: Method, length: int) -> np.ndarray:
    """Of the losses at a length, one for each seed that both have: (seeds,)."""
    by_seed = {get_seed(run): run for run in reference.runs}
    values = []
    for run in method.runs:
        other = by_seed.get(get_seed(run))
        if other and length in run.perplexity and length in other.perplexity:
            values.append(math.log(run.perplexity[length]) - math.log(other.perplexity[length]))
    return np.array(values)


# ---------------------------------------------------------------------------------------------------------
# Figures


def new_figure(width: float, height: float):
    """White and with margins of its own, so that it can be read on a dark page."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("error: figures need matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure


def draw_lines(methods: list[Method]):
    """Perplexity and passkey accuracy by length: each seed a thin line, their mean a thick one."""
    N = training_length(methods)
    measures = [measure for measure in ("perplexity", "passkey") if all_lengths(methods, measure)]
    figure = new_figure(5 * len(measures), 4.8)
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    variants = list(dict.fromkeys(method.variant for method in methods))
    handles = {}
    for axes, measure in zip(panels, measures):
        for method in methods:
            lengths = method.lengths(measure)
            if not lengths:
                continue
            color, marker = STYLES.get(method.encoding, OTHER_STYLE)
            line = LINES[variants.index(method.variant) % len(LINES)]
            values = np.stack([method.values(measure, length) for length in lengths])  # (lengths, seeds)
            if values.shape[1] > 1:
                axes.plot(lengths, values, color=color, linestyle=line, linewidth=0.8, alpha=0.5)
            style = {"color": color, "linestyle": line, "linewidth": 2.4, "marker": marker}
            if method.variant:
                style["markerfacecolor"] = "white"
            [thick] = axes.plot(lengths, values.mean(axis=1), **style)
            handles.setdefault(method.name, thick)
        axes.axvline(N, color="#777777", linestyle=":", zorder=0)
        axes.text(N, 1.01, f"trained at {N}", transform=axes.get_xaxis_transform(), ha="center", va="bottom")
        axes.set_xscale("log", base=2)
        lengths = all_lengths(methods, measure)
        axes.set_xticks(lengths, lengths)
        axes.minorticks_off()
        axes.set_xlabel("context length, tokens")
        axes.grid(alpha=0.3)
        if measure == "perplexity":
            axes.set(ylabel="perplexity (log)", yscale="log")
            axes.set_ylim(at_least_an_octave(*axes.get_ylim()))
            ticks = perplexity_ticks(axes.get_ylim())
            axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        else:
            axes.set(ylabel="passkeys found, share", ylim=(-0.02, 1.02))
    style = {"ncols": min(len(handles), 4), "frameon": False, "handlelength": 3}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", **style)
    return figure


def at_least_an_octave(low: float, high: float) -> tuple[float, float]:
    """These limits, or wider ones about the same middle: nearly flat lines should look flat."""
    middle = math.sqrt(low * high)
    half = math.sqrt(max(high / low, 2))
    return middle / half, middle * half


def perplexity_ticks(limits: tuple[float, float]) -> list[float]:
    """About five round numbers between the limits, evenly spread on a logarithmic scale."""
    low, high = limits
    wanted = np.geomspace(low, high, 7)[1:-1]
    rounded = [float(f"{value:.1g}") if value >= 10 else round(2 * value) / 2 for value in wanted]
    return sorted({value for value in rounded if low <= value <= high})


def draw_maps(methods: list[Method]):
    """Passkey accuracy by length (across) and depth of the key (down), mean over seeds: a panel a method."""
    N = training_length(methods)
    shown = [method for method in methods if method.lengths("by_depth")]
    if not shown:
        raise SystemExit("error: --maps needs results of passkey.py")
    columns = min(len(shown), 4)
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(2.5 * columns + 1.2, 2.1 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, method in zip(panels.flat, shown):
        lengths = method.lengths("by_depth")
        means = [method.values("by_depth", length).mean(axis=0) for length in lengths]  # (lengths, depths)
        extent = (0, len(lengths), 1, 0)
        image = axes.imshow(np.transpose(means), cmap="cividis", vmin=0, vmax=1, aspect="auto", extent=extent)
        names = [name_multiple(length, N) for length in lengths]
        axes.set_xticks(np.arange(len(lengths)) + 0.5, names, fontsize=9)
        axes.set_yticks([0, 1], ["far", "near"])
        axes.set_title(method.name, fontsize=10)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel(f"context length (N = {N} tokens)", fontsize=10)
    figure.supylabel("where the key stands", fontsize=10)
    figure.colorbar(image, ax=panels, label="passkeys found")
    return figure


def summarise(methods: list[Method]) -> dict:
    """All values by encoding and measure: lists over seeds of lists over lengths, null where none is."""
    lengths = sorted(set(all_lengths(methods, "perplexity")) | set(all_lengths(methods, "passkey")))
    encodings = {}
    for method in methods:
        values = {"perplexity": [], "passkey": []}
        for measure, rows in values.items():
            for run in method.measured(measure):
                numbers = getattr(run, measure)
                rows.append([numbers.get(length) for length in lengths])
        encodings[method.name] = values
    return {"training_length": training_length(methods), "lengths": lengths, "encodings": encodings}


def save(figure, path: Path) -> None:
    with data.write_whole(path) as file:
        figure.savefig(file, format="png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="JSON files or directories")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="these methods alone, in this order")
    parser.add_argument("--tables", action="store_true", help="print tables in Markdown")
    parser.add_argument("--plot", type=data.output, help="draw both measures by length in this PNG file")
    parser.add_argument("--maps", type=data.output, help="draw passkey by length and depth in this PNG file")
    parser.add_argument("--summary", type=data.output, help="write all values to this JSON file")
    args = parser.parse_args()
    methods = group(read_runs(args.paths))
    if args.only:
        methods = choose(methods, args.only)
    training_length(methods)  # ends here if there are several
    require_one_text(methods)
    if args.tables:
        print_tables(methods)
    if args.plot:
        save(draw_lines(methods), args.plot)
    if args.maps:
        save(draw_maps(methods), args.maps)
    if args.summary:
        data.write_json(args.summary, summarise(methods))
    if not (args.tables or args.plot or args.maps or args.summary):
        for method in methods:
            seeds = ", ".join(str(get_seed(run)) for run in method.runs)
            print(f"{method.name}: seeds {seeds}")


if __name__ == "__main__":
    main()
