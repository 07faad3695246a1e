"""
Position encodings in the frequency domain: what the paper's Figures 2, 6 and 7 show, measured.

    python -m analysis.spectrum                                     parts 1 to 3, which need no checkpoint
    python -m analysis.spectrum out/rope_tiny out/fope_tiny --plot spectrum.png --json spectrum.json

    1  distortion    a nonlinearity turns two frequencies into their linear combinations (Lemma 1, Figure 2)
    2  truncation    a frequency that makes no whole turn in N leaks (Eq. 10)
    3  score         the expected score by distance (Figure 7), and how far FoPE is from exactly relative
    4  sizes         |q| and |k| by RoPE's frequency of their dimension (Figure 6), on validation text
"""

import argparse
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import data
import perplexity
from analysis.plots import new_figure, save
from analysis.window import own_text
from model import GPT, POSITIONS, GPTConfig, RoPE, load_checkpoint, pick_device

TURNS = (37, 101)  # of the two waves of part 1
MEANS = (0.0, 0.1, 1.0)  # of q and k in Figure 7
EDGES = (
    0,
    0.25,
    1,
    4,
    16,
    math.inf,
)  # of the groups of part 4, in turns within N; under 1 is under the floor


# ---------------------------------------------------------------------------------------------------------
# 1  Distortion, 2  truncation


def distortion(g: Callable, turns: tuple[int, int] = TURNS, length: int = 4096) -> torch.Tensor:
    """Amplitudes of g(cos ω1 n + cos ω2 n) at 0, 1, 2, ... turns in `length` samples: (length // 2 + 1,).

    ω1 and ω2 make whole `turns`, so before g each is a single entry: whatever else is not zero is g's doing.
    """
    n = torch.arange(length, dtype=torch.float64)
    first = torch.cos(2 * math.pi * turns[0] * n / length)
    second = torch.cos(2 * math.pi * turns[1] * n / length)
    amplitudes = torch.fft.rfft(g(first + second), norm="forward").abs()
    amplitudes[1:] *= 2  # a real wave's other half lies at the negative frequency
    return amplitudes


def combination(turn: int, turns: tuple[int, int] = TURNS, order: int = 8) -> tuple[int, int] | None:
    """The j, k of least |j| + |k| <= order so that j ω1 + k ω2 makes `turn` turns, either way; or None."""
    best = None
    for j in range(order + 1):
        for k in range(j - order, order - j + 1):
            hit = abs(j * turns[0] + k * turns[1]) == turn
            if hit and (best is None or (j + abs(k), -k) < (best[0] + abs(best[1]), -best[1])):
                best = (j, k)
    return best


def truncation(turns: float, length: int = 512) -> float:
    """Share of the energy of e^{iωn}, n < length, that lies within ω/2 of ω; `turns` is ω length / 2π.

    Eq. 10 gives whole turns a clean line and the rest a leak; measured, the share grows smoothly.
    """
    n = torch.arange(length, dtype=torch.float64)
    wave = torch.exp(2j * math.pi * turns / length * n)
    samples = 256 * length  # zeros after the wave show its spectrum between the whole turns
    energy = torch.fft.fft(wave, n=samples).abs() ** 2
    found_turns = torch.fft.fftfreq(samples, dtype=torch.float64) * length
    near = (found_turns - turns).abs() < turns / 2
    return (energy[near].sum() / energy.sum()).item()


# ---------------------------------------------------------------------------------------------------------
# 3  The expected score


def score(encodings: list[RoPE], distances: list[int], shifts: int) -> dict:
    """The expected score of q and k by distance, for RoPE and its kin, and how it moves when both shift.

    Let z_m(n) be cos + i sin of the table: e^{iω_m n}, or FoPE's series. With h_m = z_m(a) z_m(b)* (Eq. 3),
    independent q and k whose elements all have the mean μ score 2 μ² Σ_m Re h_m.

    "score" is that at μ = 1 for each distance a - b, the mean over all heads of `encodings` and over
    b = 0, ..., shifts - 1; "spread" is its standard deviation over b, 0 if nothing but the distance counts.
    "deviation" is for q and k of mean 0, over all distances: the root mean square change of a score as b
    changes, relative to the root mean square score.
    """
    positions = torch.arange(max(distances) + shifts)
    heads = []
    for encoding in encodings:
        cos, sin = encoding.table(positions)  # (positions, pairs), for FoPE (H, positions, pairs)
        z = torch.complex(cos, sin)
        heads.append(z.view(-1, len(positions), z.size(-1)))
    z = torch.cat(heads)  # (heads, positions, pairs)
    scores = []
    spreads = []
    moved = 0.0
    total = 0.0
    for distance in distances:
        h = z[:, distance : distance + shifts] * z[:, :shifts].conj()  # (heads, shifts, pairs)
        by_shift = 2 * h.real.sum(dim=-1)
        scores.append(by_shift.mean().item())
        spreads.append(by_shift.var(dim=1, correction=0).mean().sqrt().item())
        moved += (h - h.mean(dim=1, keepdim=True)).abs().square().sum().item()
        total += h.abs().square().sum().item()
    deviation = math.sqrt(moved / total)
    return {"distances": distances, "score": scores, "spread": spreads, "deviation": deviation}


# ---------------------------------------------------------------------------------------------------------
# 4  The sizes of q and k


def turns_in_training(config: GPTConfig) -> torch.Tensor:
    """How often RoPE's frequency of each pair of dimensions turns within N, whatever the encoding: (pairs,).

    Under 1 it is under FoPE's floor 2π/N.
    """
    exponents = torch.arange(0, config.head_dim - 1, 2) / config.head_dim
    return config.rope_theta**-exponents * config.block_size / (2 * math.pi)


@torch.inference_mode()
def measure_sizes(model: GPT, idx: torch.Tensor) -> torch.Tensor:
    """Root mean square of q and k by pair of dimensions, over tokens idx (B, T): (n_layer, 2, n_head, pairs).

    As the encoding gets them: after QK norm and scaled queries, before positions are written in.
    """
    sizes = []

    def look(q: torch.Tensor, k: torch.Tensor) -> None:
        pairs = model.config.head_dim // 2
        for x in (q, k):  # (B, H, T, head_dim)
            squares = x.float().square().mean(dim=(0, 2))  # (H, head_dim)
            squares = (squares[:, :pairs] + squares[:, pairs : 2 * pairs]) / 2
            sizes.append(squares.sqrt().cpu())

    for block in model.blocks:
        block.attn.pos.encode = look_first(look, block.attn.pos.encode)
    model.hidden(idx)
    for block in model.blocks:
        del block.attn.pos.encode  # what stood before it, the class's own, is there again
    return torch.stack(sizes).unflatten(0, (-1, 2))


def look_first(look: Callable, encode: Callable) -> Callable:
    def wrapped(q, k, start):
        look(q, k)
        return encode(q, k, start)

    return wrapped


def group_sizes(sizes: torch.Tensor, turns: torch.Tensor) -> list[list[float | None]]:
    """Root mean square of q and of k in each group of EDGES, over layers and heads; None for no pair."""
    rows = []
    for part in range(2):
        row = []
        for low, high in pairwise(EDGES):
            members = (turns >= low) & (turns < high)
            squares = sizes[:, part, :, members].square()
            row.append(squares.mean().sqrt().item() if members.any() else None)
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------------------------------------
# Tables and pictures


def report_theory(results: dict) -> None:
    silu = distortion(F.silu)
    waves = []
    for turn in silu.argsort(descending=True)[:10].tolist():
        waves.append({"waves": combination(turn), "amplitude": silu[turn].item()})
    old = silu[list(TURNS)].square().sum() / silu[1:].square().sum()
    results["distortion"] = {"strongest": waves, "share_new": 1 - old.item()}
    print("1  SiLU(cos ω1 n + cos ω2 n): the strongest waves j ω1 + k ω2, as (j, k), and their amplitudes")
    print("  ", "  ".join(f"{wave['waves']} {wave['amplitude']:.3f}" for wave in waves))
    print(f"   {1 - old:.1%} of the energy, the constant aside, lies at new frequencies\n")

    shares = {turns: truncation(turns) for turns in (0.1, 0.25, 0.5, 0.9, 1, 1.5, 2, 4, 16, 64)}
    results["truncation"] = shares
    print("2  energy within ω/2 of ω, by the turns that ω makes in N = 512")
    print("  ", "  ".join(f"{turns:g}: {share:.1%}" for turns, share in shares.items()) + "\n")


def report_score(results: dict, name: str, encodings: list[RoPE]) -> None:
    N = encodings[0].config.block_size
    distances = list(range(0, 8 * N + 1, max(N // 16, 1)))
    found = score(encodings, distances, shifts=N)
    results["score"][name] = found
    print(
        f"3  {name}: expected score by distance, ± over shifts, for q and k of mean 1 (of mean μ: times μ²)"
    )
    cells = []
    for distance in (0, N // 4, N, 2 * N, 8 * N):
        i = distances.index(distance // (distances[1]) * distances[1])
        cells.append(f"{distances[i]}: {found['score'][i]:.1f}±{found['spread'][i]:.1f}")
    print("  ", "  ".join(cells))
    print(f"   for q and k of mean 0, shifting both moves a score by {found['deviation']:.1%}\n", flush=True)


def report_run(results: dict, run: str, device: torch.device) -> None:
    model, checkpoint = load_checkpoint(run, torch.device("cpu"))
    encodings = [block.attn.pos for block in model.blocks]
    if isinstance(encodings[0], RoPE):
        report_score(results, run, encodings)
    model.to(device)
    tokens = own_text(checkpoint)
    N = model.config.block_size
    text = tokens[perplexity.spread(len(tokens), 16, N)[:, :-1]]
    turns = turns_in_training(model.config)
    sizes = measure_sizes(model, torch.from_numpy(text.astype(np.int64)).to(device))
    groups = group_sizes(sizes, turns)
    results["sizes"][run] = {"turns": turns.tolist(), "sizes": sizes.tolist(), "groups": groups}
    print(f"4  {run}: root mean square of q and k, by RoPE's turns within N (under 1: under the floor)")
    names = [f"{low:g} to {high:g}" for low, high in pairwise(EDGES)]
    print("    ", *(f"{name:>10}" for name in names))
    for letter, row in zip("qk", groups):
        cells = ["" if value is None else f"{value:.3f}" for value in row]
        print(f"    {letter}", *(f"{cell:>10}" for cell in cells), flush=True)
    print()


def draw(results: dict):
    figure = new_figure(14, 8)
    panels = figure.subplots(2, 3)
    lemma, leak, means, scores, queries, keys = panels.flat
    lemma.stem(distortion(F.silu)[:300], markerfmt=" ", basefmt=" ")
    title = f"SiLU(cos ω1 n + cos ω2 n), ω1: {TURNS[0]} turns, ω2: {TURNS[1]}"
    lemma.set(title=title, xlabel="turns", ylabel="amplitude")
    leak.semilogx(results["truncation"].keys(), results["truncation"].values(), "o-")
    leak.set(title="truncation at N", xlabel="turns of ω in N", ylabel="energy within ω/2 of ω")
    for i, (name, found) in enumerate(results["score"].items()):
        middle = np.array(found["score"])
        spread = np.array(found["spread"])
        scores.plot(found["distances"], middle, f"C{i}", label=Path(name).name)
        scores.fill_between(found["distances"], middle - spread, middle + spread, color=f"C{i}", alpha=0.4)
    name, found = next(iter(results["score"].items()))
    for mean in MEANS:
        values = mean**2 * np.array(found["score"])
        means.plot(found["distances"], values, label=f"q and k of mean {mean:g}")
    means.set(title=f"{name}: expected score", xlabel="distance")
    means.set_yscale("symlog", linthresh=0.1)
    scores.set(title="expected score, mean 1 (band: shifts)", xlabel="distance")
    for i, (run, found) in enumerate(results["sizes"].items()):
        sizes = np.array(found["sizes"])  # (layers, 2, heads, pairs)
        for part, axes in enumerate((queries, keys)):
            root_mean_square = np.sqrt((sizes[:, part] ** 2).mean(axis=(0, 1)))
            axes.loglog(found["turns"], root_mean_square, f"C{i}o-", label=Path(run).name)
    for axes, letter in ((queries, "q"), (keys, "k")):
        axes.axvline(1, color="grey", linestyle=":")
        axes.set(
            title=f"size of {letter} (left of the line: under the floor)", xlabel="RoPE's turns within N"
        )
    for axes in (means, scores, queries, keys):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="*", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--json", type=data.output, help="write the numbers to this file")
    parser.add_argument("--plot", type=data.output, help="draw them in this PNG file")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto: the first that is there")
    args = parser.parse_args()
    device = pick_device(args.device)
    torch.manual_seed(1337)  # FoPE's coefficients
    results = {"score": {}, "sizes": {}}
    report_theory(results)
    for pos in ("rope", "fope"):  # a layer of the paper's 60M; nothing in these tables is trained
        encoding = POSITIONS[pos](GPTConfig(pos=pos))
        report_score(results, f"{pos}, 60M", [encoding])
    for run in args.runs:
        report_run(results, run, device)
    if args.json:
        data.write_json(args.json, results)
    if args.plot:
        save(draw(results), args.plot)


if __name__ == "__main__":
    main()
