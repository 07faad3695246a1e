"""
Position encodings in the frequency domain: what the paper's Figures 2, 6 and 7 show, measured.

    python -m analysis.spectrum                                  the paper's 60M, untrained: no run is needed
    python -m analysis.spectrum out/rope_tiny out/fope_tiny --plot spectrum.png --json spectrum.json

    distortion   a nonlinearity makes new frequencies of two (Lemma 1, Figure 2a); of a run: each layer's MLP
    truncation   a frequency that makes no whole turn in N tokens leaks into others (Eq. 10, Figure 2b)
    activations  the mean of q and k, by how often RoPE's frequency of a pair turns in N (Figure 6)
    score        the expected score by distance (Figure 7), and how far it depends on more than distance
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import data
from analysis.heads import validation_text
from analysis.plots import new_figure
from model import GPT, POSITIONS, GPTConfig, RoPE, load_checkpoint, parse_setting

TURNS = [37, 101]  # of the two waves whose distortion is measured


def distortion(layer: Callable, directions: Tensor, length: int = 4096) -> Tensor:
    """Amplitudes at 0, 1, 2, ... turns of layer(u cos ω1 n + v cos ω2 n), n < length, over all dimensions.

    directions (2, width) are u and v. Before the layer, each wave is one line of the spectrum, since it makes
    whole turns, TURNS: what lies elsewhere is the layer's doing.
    """
    n = torch.arange(length, dtype=torch.float64)
    angles = 2 * math.pi / length * n[:, None] * torch.tensor(TURNS)  # (length, 2)
    x = angles.cos().float() @ directions  # (length, width)
    amplitudes = torch.fft.rfft(layer(x), dim=0, norm="forward").abs()
    amplitudes[1:] *= 2  # a real wave's other half lies at the negative frequency
    return amplitudes.square().mean(dim=1).sqrt()


def new_share(amplitudes: Tensor) -> float:
    """Share of the energy, the constant aside, at other frequencies than the two waves'."""
    energy = amplitudes.square()
    return 1 - (energy[TURNS].sum() / energy[1:].sum()).item()


def truncation(turns: float, length: int = 512) -> float:
    """Share of the energy of e^{iωn}, n < length, that lies within ω/2 of ω; `turns` is ω length / 2π.

    Eq. 10 gives whole turns a clean line and the rest a leak; measured, the share grows smoothly.
    """
    n = torch.arange(length, dtype=torch.float64)
    wave = torch.exp(2j * math.pi * turns / length * n)
    samples = 256 * length  # zeros after the wave show its spectrum between the whole turns
    energy = torch.fft.fft(wave, n=samples).abs().square()
    found_turns = torch.fft.fftfreq(samples, dtype=torch.float64) * length
    near = (found_turns - turns).abs() < turns / 2
    return (energy[near].sum() / energy.sum()).item()


def rope_turns(config: GPTConfig) -> Tensor:
    """How often RoPE's frequency of each pair turns within N; under FoPE's floor it is under 1: (pairs,)."""
    return RoPE(config).make_frequencies() * config.block_size / (2 * math.pi)


@torch.no_grad()
def activations(model: GPT, idx: Tensor) -> Tensor:
    """Size of the mean of q and k over tokens idx (B, T), as the encoding gets them: (n_layer, 2, pairs)."""
    sizes = []

    def record(encode, q, k, start):
        mean = torch.stack((q, k)).float().mean(dim=(1, 3))  # (2, H, head_dim)
        pairs = mean.unflatten(2, (2, -1))  # (2, H, 2, pairs)
        sizes.append(pairs.square().mean(dim=(1, 2)).sqrt())  # the root mean square over heads and the pair
        return encode(q, k, start)

    for block in model.blocks:
        block.attn.pos.encode = partial(record, block.attn.pos.encode)
    model.hidden(idx)
    for block in model.blocks:
        del block.attn.pos.encode  # the class's own is there again
    return torch.stack(sizes)


def score(encodings: list[RoPE], distances: range, shifts: int) -> tuple[list[float], float]:
    """The expected score at each distance, for q and k of mean 1, and how far a score depends on more.

    Let z_m(n) be cos + i sin of the table: e^{iω_m n}, or FoPE's series. With h_m = z_m(a) z_m(b)* (Eq. 3),
    independent q and k whose elements all have the mean μ score 2 μ² Σ_m Re h_m at positions a and b. The
    mean is over heads and over b = 0, ..., shifts - 1. The second number is for q and k of mean 0: the root
    mean square change of a score as both shift, relative to the score; 0 if only the distance counts.
    """
    positions = torch.arange(max(distances) + shifts)
    heads = []
    for encoding in encodings:
        cos, sin = encoding.table(positions)  # (positions, pairs), for FoPE (H, positions, pairs)
        z = torch.complex(cos, sin)
        heads.append(z.view(-1, len(positions), z.size(-1)))
    z = torch.cat(heads)  # (heads, positions, pairs)
    scores = []
    moved = 0.0
    total = 0.0
    for distance in distances:
        h = z[:, distance : distance + shifts] * z[:, :shifts].conj()  # (heads, shifts, pairs)
        scores.append(2 * h.real.sum(dim=-1).mean().item())
        moved += (h - h.mean(dim=1, keepdim=True)).abs().square().sum().item()
        total += h.abs().square().sum().item()
    return scores, math.sqrt(moved / total)


def add_score(results: dict, name: str, encodings: list[RoPE]):
    N = encodings[0].config.block_size
    distances = range(0, 8 * N + 1, max(N // 16, 1))
    scores, deviation = score(encodings, distances, shifts=N)
    results["score"][name] = {"distances": list(distances), "score": scores, "deviation": deviation}
    cells = ", ".join(f"{value:.1f}" for value in scores[::16])
    print(f"{name}: expected score at distance 0, N, 2N, ..., 8N: {cells}")
    print(f"  for q and k of mean 0, shifting both moves a score by {deviation:.1%}", flush=True)


def add_run(results: dict, name: str, model: GPT, checkpoint: dict):
    config = model.config
    encodings = [block.attn.pos for block in model.blocks if isinstance(block.attn.pos, RoPE)]
    if encodings:
        add_score(results, name, encodings)
    shares = []
    for block in model.blocks:
        directions = torch.randn(2, config.n_embd)
        shares.append(new_share(distortion(nn.Sequential(block.norm_2, block.mlp), directions)))
    results["distortion"][name] = shares
    cells = ", ".join(f"{share:.0%}" for share in shares)
    print(f"{name}: of the energy that each layer's MLP makes of two waves, at new frequencies: {cells}")
    text = validation_text(checkpoint, 16 * config.block_size, config.block_size)
    sizes = activations(model, torch.from_numpy(text[:, :-1].astype(np.int64)))
    turns = rope_turns(config)
    results["activations"][name] = {"turns": turns.tolist(), "sizes": sizes.tolist()}
    for i, letter in enumerate("qk"):
        slow = sizes[:, i, turns < 1].square().mean().sqrt()
        fast = sizes[:, i, turns >= 1].square().mean().sqrt()
        print(f"  size of the mean {letter}: {slow:.2f} under the floor, {fast:.2f} over it", flush=True)


def draw(results: dict):
    figure = new_figure(12, 8)
    waves, leak, scores, means = figure.subplots(2, 2).flat
    waves.stem(results["lemma"][:300], markerfmt=" ", basefmt=" ")
    waves.set(title=f"SiLU of waves of {TURNS[0]} and {TURNS[1]} turns", xlabel="turns", ylabel="amplitude")
    leak.semilogx(results["truncation"].keys(), results["truncation"].values(), "o-")
    leak.set(title="truncation at N", xlabel="turns of ω in N", ylabel="share of the energy within ω/2 of ω")
    for name, found in results["score"].items():
        scores.plot(found["distances"], found["score"], label=name)
        scores.legend()
    scores.set(title="expected score, q and k of mean 1", xlabel="distance, tokens")
    for i, (name, found) in enumerate(results["activations"].items()):
        sizes = np.sqrt(np.square(found["sizes"]).mean(axis=0))  # over layers: (2, pairs)
        means.loglog(found["turns"], sizes[0], f"C{i}o-", label=f"{name}, q")
        means.loglog(found["turns"], sizes[1], f"C{i}x--", label=f"{name}, k")
        means.legend()
    means.set_visible(len(results["activations"]) > 0)
    means.axvline(1, color="grey", linestyle=":")
    means.set(title="size of the mean (left of the line: under the floor)", xlabel="RoPE's turns in N")
    return figure


@torch.no_grad()
def main():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("runs", nargs="*", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--set", nargs="+", type=parse_setting, default=[], help="settings, as yarn_scale=16")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--plot", help="draw them in this PNG file (needs matplotlib)")
    args = parser.parse_args()

    torch.manual_seed(1337)  # FoPE's coefficients, and the waves' directions
    lemma = distortion(F.silu, torch.ones(2, 1))
    shares = {turns: truncation(turns) for turns in (0.1, 0.25, 0.5, 0.9, 1, 1.5, 2, 4, 16, 64)}
    results = {"lemma": lemma.tolist(), "truncation": shares}
    results |= {"score": {}, "distortion": {}, "activations": {}}  # by run
    print(f"SiLU of two waves: {new_share(lemma):.0%} of the energy is at new frequencies")
    leaks = ", ".join(f"{turns:g}: {share:.0%}" for turns, share in shares.items())
    print("a wave cut off at N: energy within half its frequency of it, by its turns in N:", leaks)
    for pos in ("rope", "fope"):  # a layer of the paper's 60M; nothing in these tables is trained
        add_score(results, f"{pos}, 60M", [POSITIONS[pos](GPTConfig(pos=pos))])
    for run in args.runs:
        model, checkpoint = load_checkpoint(run, torch.device("cpu"), **dict(args.set))
        add_run(results, Path(run).name, model, checkpoint)
    if args.json:
        data.write_results(args, **results)
    if args.plot:
        draw(results).savefig(args.plot, dpi=150)


if __name__ == "__main__":
    main()
