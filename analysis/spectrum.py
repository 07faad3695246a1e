"""
Position encodings in the frequency domain: what the paper's Figures 2, 6 and 7 show, measured. Nothing depends on it.

    python -m analysis.spectrum                            what needs no checkpoint: parts 1 to 3
    python -m analysis.spectrum out/rope_tiny out/fope_tiny --plot spectrum.png --json spectrum.json

(From the repository's root; -m puts it on Python's path.) The parts:

    1  distortion    a nonlinearity turns two frequencies into their linear combinations (Lemma 1)
    2  truncation    a frequency that makes no whole turn in N leaks (Eq. 10)
    3  score         the expected score by distance (Figure 7), and how far FoPE is from exactly relative
    4  activations   size of q and k by dimension (Figure 6), before the rotation, on validation text
    5  attention     what the key of a passkey prompt gets of it, by length, with and without logn_scale, and which
                     of its tokens are found
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import model as model_py
from data import get_encoding, load_tokens
from model import GPT, POSITIONS, GPTConfig, load_checkpoint, pick_device, write_whole
from passkey import make_prompt, shortest
from perplexity import output

TURNS = (37, 101)  # of ω1 and ω2 in part 1
MEANS = (0.0, 0.1, 1.0)  # of q and k in Figure 7
STRENGTHS = (0.0, 1.0, 2.0)  # of logn_scale


def distortion(g: Callable, turns: tuple[int, int] = TURNS, length: int = 4096) -> torch.Tensor:
    """Amplitudes of g(cos ω1 n + cos ω2 n) at 0, 1, 2, ... turns in `length` samples: (length // 2 + 1,), float64.

    ω1 and ω2 make whole `turns`, so each is one entry before g: whatever else is not zero after it is g's doing.
    """
    n = torch.arange(length, dtype=torch.float64) / length
    spectrum = torch.fft.rfft(g(sum((2 * math.pi * t * n).cos() for t in turns)), norm="forward").abs()
    spectrum[1:] *= 2  # a real wave's other half lies at the negative frequency
    return spectrum


def combination(turn: int, turns: tuple[int, int] = TURNS, order: int = 8) -> tuple[int, int] | None:
    """The j, k of least |j| + |k| <= order such that j ω1 + k ω2 makes so many turns (either way round), or None."""
    pairs = ((j, k) for j in range(order + 1) for k in range(j - order, order - j + 1))
    hits = (pair for pair in pairs if abs(pair[0] * turns[0] + pair[1] * turns[1]) == turn)
    return min(hits, key=lambda pair: (abs(pair[0]) + abs(pair[1]), -pair[1]), default=None)


def truncation(turns: float, length: int = 512) -> float:
    """Share of the energy of e^{iωn}, n < length, that its spectrum has within ω/2 of ω; `turns` is ω length / 2π.

    Eq. 10 gives whole turns a clean line and the rest a leak; measured, the share grows smoothly with the turns.
    """
    wave = torch.exp(2j * math.pi * turns / length * torch.arange(length, dtype=torch.float64))
    energy = torch.fft.fft(wave, n=256 * length).abs() ** 2  # zeros behind the wave show the spectrum between the bins
    near = (torch.fft.fftfreq(256 * length, dtype=torch.float64) * length / turns - 1).abs() < 0.5
    return (energy[near].sum() / energy.sum()).item()


def score(encodings: list[nn.Module], distances: list[int], shifts: int) -> dict:
    """The expected score of q and k by distance, for RoPE and its subclasses, and how it moves when both shift.

    With h_m = z_m(a) z_m(b)* (Eq. 3; z_m is e^{iω_m n}, or FoPE's series) independent q and k, all elements of mean μ,
    score 2 μ² Σ_m Re h_m. "score" is that at μ = 1 for each distance a - b, averaged over all heads of `encodings` and
    over b = 0, ..., shifts - 1; "spread" its standard deviation over b, 0 if nothing but the distance counts.
    "deviation" is for q and k of mean 0, over all distances: the root mean square change of a score as b changes,
    relative to the root mean square score.
    """
    tables = [encoding.table(torch.arange(max(distances) + shifts)) for encoding in encodings]
    z = torch.cat([torch.complex(*table).view(-1, *table[0].shape[-2:]) for table in tables])  # (heads, positions, M)
    scores, spreads, moved, total = [], [], 0.0, 0.0
    for distance in distances:
        h = z[:, distance : distance + shifts] * z[:, :shifts].conj()
        by_shift = 2 * h.real.sum(dim=-1)
        scores.append(by_shift.mean().item())
        spreads.append(by_shift.var(dim=1, correction=0).mean().sqrt().item())
        moved += (h - h.mean(dim=1, keepdim=True)).abs().square().sum().item()
        total += h.abs().square().sum().item()
    return {"distances": distances, "score": scores, "spread": spreads, "deviation": math.sqrt(moved / total)}


def undertrained(config: GPTConfig) -> torch.Tensor:
    """Whether RoPE's frequency of a dimension is under the floor 2π/N: (head_dim,) bool, whatever the encoding."""
    frequencies = config.rope_theta ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
    slow = frequencies < 2 * math.pi / (config.pos_length or config.block_size)
    return slow.repeat(2)[: config.head_dim]  # dimension m is paired with m + head_dim / 2


@torch.inference_mode()
def activations(model: GPT, idx: torch.Tensor) -> torch.Tensor:
    """E|x| and |E x| over tokens idx (B, T) of q and k before the rotation, by dimension: (2, n_layer, 2, head_dim).

    Both are averaged over heads. The second, the size of the mean, is what lets the score decay in Figure 7.
    """
    config, found = model.config, []

    def look(module, inputs, qkv):
        qk = qkv.view(-1, 3, config.n_head, config.head_dim)[:, :2].float()
        qk = F.layer_norm(qk, (config.head_dim,)) if config.qk_norm else qk
        found.append(torch.stack((qk.abs().mean(dim=(0, 2)), qk.mean(dim=0).abs().mean(dim=1))))

    hooks = [block.attn.c_attn.register_forward_hook(look) for block in model.blocks]
    model.hidden(idx)
    for hook in hooks:
        hook.remove()
    return torch.stack(found, dim=1).cpu()


@torch.inference_mode()
def last_rows(model: GPT, idx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last token's attention to every token of idx (B, T): (n_layer, B, n_head, T), float32; rows sum to 1.

    And model.hidden(idx), which came with it.
    """
    rows, attention = [], model_py.attention

    def look(q, k, v, bias=None, dropout=0.0):
        scores = q[:, :, -1:].float() @ k.float().transpose(-2, -1) * q.size(-1) ** -0.5
        rows.append((scores if bias is None else scores + bias[:, -1:]).softmax(dim=-1)[:, :, 0])
        return attention(q, k, v, bias, dropout)

    with mock.patch.object(model_py, "attention", look):  # it is given q and k as they meet: rotated and scaled
        hidden = model.hidden(idx)
    return torch.stack(rows), hidden


@torch.inference_mode()
def key_mass(model: GPT, encoding, length: int, trials: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean attention that the key gets in passkey prompts of `length` tokens (n_layer, n_head), and its tokens' hits.

    The attention is that of the token before the key's last one, which only the key can tell; depths are evenly spread.
    The hits, (tokens of the shortest key,), count from the key's end: the share of prompts in which that token is the
    arg-max given the true ones before it.
    """
    rng, mass, hits = np.random.default_rng([0, length]), 0.0, []
    for depth in np.linspace(0, 1, trials):
        prompt, key = make_prompt(encoding, length, depth, rng)
        starts = [i for i in range(len(prompt)) if prompt[i : i + len(key)] == key]  # it stands there twice
        rows, hidden = last_rows(model, torch.tensor([prompt + key[:-1]], device=model.lm_head.weight.device))
        mass += sum(rows[:, 0, :, i : i + len(key)].sum(dim=-1) for i in starts).cpu() / trials
        hits.append(model.lm_head(hidden[0, -len(key) :]).argmax(dim=-1).cpu() == torch.tensor(key))
    least = min(map(len, hits))
    return mass, torch.stack([hit[-least:] for hit in hits]).float().mean(dim=0)


# ----------------------------------------------------------------------------------------------------------------------
# Tables and pictures


def measure_theory(results: dict) -> None:
    silu = distortion(F.silu)
    loudest = [(*combination(t), silu[t].item()) for t in silu.argsort(descending=True)[:10].tolist()]
    new = 1 - (silu[list(TURNS)].square().sum() / silu[1:].square().sum()).item()
    results["distortion"] = {"waves": loudest, "share_new": new}
    print("1  SiLU(cos ω1 n + cos ω2 n): the strongest waves, j ω1 + k ω2, and their amplitudes")
    print("   " + "  ".join(f"({j}, {k}) {amplitude:.3f}" for j, k, amplitude in loudest))
    print(f"   {new:.1%} of the energy, the constant aside, lies at new frequencies\n")
    results["truncation"] = {turns: truncation(turns) for turns in (0.1, 0.25, 0.5, 0.9, 1, 1.5, 2, 4, 16, 64)}
    print("2  energy within ω/2 of ω, by the turns that ω makes in N = 512")
    print("   " + "  ".join(f"{turns:g}: {share:.1%}" for turns, share in results["truncation"].items()) + "\n")


def measure_score(results: dict, name: str, encodings: list[nn.Module]) -> None:
    N = encodings[0].length
    results["score"][name] = found = score(encodings, list(range(0, 8 * N + 1, max(N // 16, 1))), shifts=N)
    print(f"3  {name}: expected score by distance, ± over shifts, for q and k of mean 1 (of mean μ: times μ²)")
    shown = [found["distances"].index(distance) for distance in (0, N // 4, N, 2 * N, 8 * N)]
    print("   " + "  ".join("{}: {:.1f}±{:.1f}".format(*(found[x][i] for x in list(found)[:3])) for i in shown))
    print(f"   for q and k of mean 0, shifting both moves a score by {found['deviation']:.1%}\n", flush=True)


def measure_run(results: dict, run: str, device: torch.device) -> None:
    model, checkpoint = load_checkpoint(run, torch.device("cpu"))
    config, encoding = model.config, get_encoding(checkpoint["meta"]["encoding"])
    if hasattr(model.blocks[0].attn.pos, "table"):  # NoPE and ALiBi turn nothing
        measure_score(results, run, [block.attn.pos for block in model.blocks])
    model.to(device)

    tokens, N = load_tokens(checkpoint["config"]["dataset"], "val"), config.block_size
    windows = np.stack([tokens[i : i + N] for i in np.linspace(0, len(tokens) - N, 16).astype(int)]).astype(np.int64)
    sizes, slow = activations(model, torch.from_numpy(windows).to(device)), undertrained(config)
    ratios = (sizes[..., slow].mean(dim=(1, 3)) / sizes[..., ~slow].mean(dim=(1, 3))).tolist()  # [measure][q, k]
    results["activations"][run] = {"undertrained": slow.tolist(), "ratios": ratios, "sizes": sizes.tolist()}
    print(f"4  {run}: undertrained dimensions ({slow.sum()} of {len(slow)}) relative to the others")
    print("   E|x|: q {:.2f}, k {:.2f}  |E x|: q {:.2f}, k {:.2f}\n".format(*ratios[0], *ratios[1]))

    lengths = [N * 2**i for i in range(5) if N * 2**i >= shortest(encoding)]
    if not lengths:
        return
    print(f"5  {run}: attention to the passkey, of the head with the most at {lengths[0]} (mean of all heads)")
    found = torch.empty(len(STRENGTHS), len(lengths), config.n_layer * config.n_head)
    hits: list[list] = []  # [strength][length][token of the key]
    for i, config.logn_scale in enumerate(STRENGTHS):
        masses, shares = zip(*(key_mass(model, encoding, length) for length in lengths))
        found[i] = torch.stack([mass.flatten() for mass in masses])
        best = found[0, 0].argmax()
        hits.append([share.tolist() for share in shares])
        cells = "  ".join(f"{n}: {m[best]:.1%} ({m.mean():.1%})" for n, m in zip(lengths, found[i]))
        print(f"   logn_scale {config.logn_scale:g}   {cells}", flush=True)
        cells = "  ".join(f"{n}: {' '.join(f'{share:.0%}' for share in row)}" for n, row in zip(lengths, hits[-1]))
        print(f"   its tokens     {cells}", flush=True)
    print()
    head = {"layer": best.item() // config.n_head, "head": best.item() % config.n_head}
    numbers = {"best": found[..., best].tolist(), "mean": found.mean(dim=-1).tolist()}  # [strength][length]
    results["attention"][run] = head | {"logn_scale": STRENGTHS, "lengths": lengths, "tokens": hits} | numbers


def draw(figure, results: dict) -> None:
    (lemma, leak, fade), (sizes, means, scores) = figure.subplots(2, 3)
    lemma.stem(distortion(F.silu)[:300], markerfmt=" ", basefmt=" ")
    lemma.set(title="SiLU(cos ω1 n + cos ω2 n)", xlabel="turns (ω1: {}, ω2: {})".format(*TURNS), ylabel="amplitude")
    leak.semilogx(results["truncation"].keys(), results["truncation"].values(), "o-")
    leak.set(title="truncation at N", xlabel="turns of ω in N", ylabel="energy within ω/2 of ω")
    for i, (run, found) in enumerate(results["attention"].items()):
        for strength, best, style in zip(STRENGTHS, found["best"], ("-", "--", ":")):
            fade.plot(found["lengths"], best, f"C{i}{style}", label=f"{Path(run).name}, logn_scale {strength:g}")
        fade.set_xscale("log", base=2)
    fade.set(title="attention to the passkey, best head", xlabel="context length (tokens)", ylim=(0, None))
    for i, (run, found) in enumerate(results["activations"].items()):
        size, slow = np.mean(found["sizes"], axis=(1, 2))[0], np.flatnonzero(found["undertrained"])
        sizes.plot(size, f"C{i}", label=Path(run).name)
        sizes.plot(slow, size[slow], f"C{i}o", markersize=4)
    sizes.set(title="mean |q| and |k| (dots: ω < 2π/N)", xlabel="dimension")
    for i, (name, found) in enumerate(results["score"].items()):
        middle, spread = np.array(found["score"]), np.array(found["spread"])
        scores.plot(found["distances"], middle, f"C{i}", label=Path(name).name)
        scores.fill_between(found["distances"], middle - spread, middle + spread, color=f"C{i}", alpha=0.4)
        if i == 0:
            for mean in MEANS:
                means.plot(found["distances"], mean**2 * middle, label=f"q and k of mean {mean:g}")
            means.set(title=f"{name}: expected score", xlabel="distance")
            means.set_yscale("symlog", linthresh=0.1)
    scores.set(title="expected score, mean 1 (band: shifts)", xlabel="distance")
    for axes in (fade, sizes, means, scores):
        if axes.lines:
            axes.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser("analysis.spectrum", description="Position encodings in the frequency domain.")
    parser.error = lambda message: sys.exit(f"error: {message}")
    parser.add_argument("runs", nargs="*", metavar="out/NAME", help="directories of runs")
    parser.add_argument("--json", type=output, help="write the numbers to this file; one that is there is replaced")
    parser.add_argument("--plot", type=output, help="draw them in this PNG file; one that is there is replaced")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto is the first of them that is there")
    args = parser.parse_args()
    if args.plot:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise SystemExit("error: --plot needs matplotlib: pip install matplotlib") from None
    torch.manual_seed(1337)  # FoPE's coefficients
    results = {"score": {}, "activations": {}, "attention": {}}
    measure_theory(results)
    for pos in ("rope", "fope"):  # a layer of the paper's 60M; nothing in these tables is trained
        measure_score(results, f"{pos}, 60M", [POSITIONS[pos](GPTConfig(pos=pos))])
    for run in args.runs:
        measure_run(results, run, pick_device(args.device))
    if args.json:
        write_whole(args.json, lambda file: file.write(json.dumps(results, indent=1).encode() + b"\n"))
    if args.plot:
        figure = Figure(figsize=(14, 8), layout="constrained")
        draw(figure, results)
        write_whole(args.plot, lambda file: figure.savefig(file, format="png", dpi=150))


if __name__ == "__main__":
    main()
