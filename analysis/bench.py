"""
How fast and how large: training, memory, sampling, passkey, corpus writing, start-up. Nothing depends on this file.

    python -m analysis.bench                                     everything; about five minutes on two cores
    python -m analysis.bench train memory --json results/bench/cpu.json

(From the repository's root; -m puts it on Python's path.) All that is compared takes turns in one run, and a ratio is
the median of the rounds' ratios: a machine that slows down for a while slows both sides of it.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from data import get_encoding
from data.prepare import prepare
from model import GPT, POSITIONS, GPTConfig, at_least, autocast, pick_device, pick_dtype, write_whole
from passkey import evaluate, make_prompt
from perplexity import output
from train import mfu

ROOT = Path(__file__).parent.parent
SMALL = GPTConfig(vocab_size=320, block_size=256, n_layer=4, n_head=4, n_embd=256)  # for CPUs; GPUs get the paper's 60M


def compare(unit: str, contenders: dict[str, tuple], against: Iterable[str], rounds: int, device: torch.device) -> dict:
    """Contenders (function, units of work in a call) take turns: name -> {unit per second, speed / each of `against`}.

    Medians over the rounds; every other round goes backwards, so that nobody always runs after the same neighbour.
    """
    speeds = {name: np.zeros(rounds) for name in contenders}
    for i in range(rounds):
        for name in list(contenders)[:: (-1) ** i]:
            function, amount = contenders[name]
            start = time.perf_counter()
            function()
            if device.type != "cpu":
                getattr(torch, device.type).synchronize()
            speeds[name][i] = amount / (time.perf_counter() - start)
    return {
        name: {f"{unit}/s": float(np.median(speed))}
        | {f"speed / {other}": float(np.median(speed / speeds[other])) for other in against}
        for name, speed in speeds.items()
    }


def show(title: str, rows: dict[str, dict[str, float]]) -> dict:
    columns = list(next(iter(rows.values())))
    print(f"{title}\n{'':10}", *(f"{column:>20}" for column in columns))
    for name, row in rows.items():
        print(f"{name:10}", *(f"{row[column]:20,.{0 if row[column] > 100 else 3}f}" for column in columns))
    print(flush=True)
    return rows


class BaselineBlock(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, C = config.n_head, config.n_embd
        self.norm_1, self.norm_2 = nn.LayerNorm(C, bias=False), nn.LayerNorm(C, bias=False)
        self.c_attn, self.c_proj = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C, bias=False)
        self.mlp = nn.Sequential(nn.Linear(C, 4 * C, bias=False), nn.GELU(), nn.Linear(4 * C, C, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = self.c_attn(self.norm_1(x)).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp(self.norm_2(x))


class Baseline(nn.Module):
    """GPT-2 as nanoGPT trains it: learned positions, LayerNorm, GELU MLP of 4 x width, tied embeddings, no biases."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, C = config, config.n_embd
        self.wte, self.wpe = nn.Embedding(config.vocab_size, C), nn.Embedding(config.block_size, C)
        self.blocks = nn.Sequential(*(BaselineBlock(config) for _ in range(config.n_layer)))
        self.norm = nn.LayerNorm(C, bias=False)

    def forward(self, idx: torch.Tensor, targets: torch.Tensor):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1), device=idx.device))
        logits = F.linear(self.norm(self.blocks(x)), self.wte.weight)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters()) - self.wpe.weight.numel()


def training_step(model: nn.Module, batch_size: int, device: torch.device, plain: bool = False) -> Callable:
    """One optimizer step, as train.py does it; `plain`: in float32 and without the fused AdamW, as nanoGPT on a CPU."""
    model.to(device)
    if device.type == "cuda":
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=not plain and device.type != "mps")
    idx = torch.randint(model.config.vocab_size, (batch_size, model.config.block_size + 1), device=device)

    def step() -> None:
        with autocast(device, "float32" if plain else "auto"):
            loss = model(idx[:, :-1], idx[:, 1:])[1]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def train(config: GPTConfig, batch_size: int, device: torch.device, rounds: int) -> dict:
    """Training steps of every encoding and of the baseline; MFU where the GPU's peak is known.

    MFU counts 6 N plus attention a token, N with one embedding: so does nanoGPT, whose two embeddings are one.
    """
    models = {pos: GPT(replace(config, pos=pos)) for pos in POSITIONS} | {"baseline": Baseline(config)}
    work, steps = batch_size * config.block_size, {}
    for name, model in models.items():
        plain = name == "baseline" and device.type == "cpu"
        steps[name] = training_step(model, batch_size, device, plain), work
    compare("", steps, (), 2, device)  # compiles, and takes the memory
    rows = compare("tokens", steps, ("rope", "baseline"), 5 * rounds, device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    for name, row in rows.items():
        row["time / rope"] = 1 / row.pop("speed / rope")
        row |= mfu(models[name], row["tokens/s"], gpu)
    shape = f"{config.n_layer} layers, width {config.n_embd}, T {config.block_size}, batch {batch_size}"
    return show(f"training, {shape}", rows)


def high_water(device: torch.device) -> int:
    """The most bytes that this process has held: on the GPU, or in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # whose ru_maxrss begins with what the parent process held
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def step_memory(pos: str, length: int, device: torch.device) -> int:
    """Bytes that a training pass over `length` tokens adds at its peak. Only a fresh process can tell.

    One layer, and no logits, which would hide what attention takes.
    """
    model = GPT(GPTConfig(vocab_size=320, n_layer=1, n_head=2, n_embd=128, pos=pos)).to(device)
    for n in (64, length):  # the first brings the libraries' own memory
        before = high_water(device)
        with autocast(device):
            model.hidden(torch.zeros(1, n, dtype=torch.long, device=device)).sum().backward()
    return high_water(device) - before


def memory(lengths: Iterable[int], device: torch.device, names: Iterable[str] = POSITIONS) -> dict:
    """`step_memory` of every encoding and length, each in a process of its own."""
    rows = {name: {} for name in names}
    for name, n in ((name, n) for n in lengths for name in names):
        code = f"import torch, analysis.bench as b; print(b.step_memory({name!r}, {n}, torch.device({str(device)!r})))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        rows[name][f"MiB at {n}"] = int(done.stdout) / 2**20
    for row in rows.values():
        row |= {f"{column} / rope": mib / rows["rope"][column] for column, mib in row.items()}
    return show("peak memory of a training pass: 1 layer, width 128, batch 1, no logits", rows)


@torch.inference_mode()
def sample(model: GPT, tokens: int, device: torch.device, rounds: int) -> dict:
    """Sampling with generate(), which keeps a cache, and by computing everything again for every token."""
    first = torch.zeros(1, 1, dtype=torch.long, device=device)

    def recompute() -> None:
        idx = first
        for _ in range(tokens):
            idx = torch.cat((idx, torch.multinomial(model(idx)[0][:, -1].float().softmax(dim=-1), 1)), dim=1)

    contenders = {"cached": (partial(model.generate, first, tokens), tokens), "recomputed": (recompute, tokens)}
    with autocast(device):
        return show(f"sampling {tokens} tokens", compare("tokens", contenders, ["recomputed"], rounds, device))


@torch.inference_mode()
def passkey(model: GPT, length: int, trials: int, device: torch.device, rounds: int) -> dict:
    """passkey.evaluate, and generating ten tokens a trial, one trial at a time, without a cache."""
    encoding, few = get_encoding("bytes"), max(trials // 25, 1)

    def generate() -> None:
        for depth in np.linspace(0, 1, few):
            prompt, _ = make_prompt(encoding, length, depth, np.random.default_rng(0))
            idx = torch.tensor([prompt], device=device)
            for _ in range(10):
                idx = torch.cat((idx, model(idx)[0][:, -1].argmax(dim=-1, keepdim=True)), dim=1)

    one_pass = partial(evaluate, model, encoding, length, trials)
    contenders = {"one pass": (one_pass, trials), "generating": (generate, few)}
    with autocast(device):
        return show(f"passkey, {length} tokens", compare("trials", contenders, ["generating"], rounds, device))


def data(files: list[Path], rounds: int) -> dict:
    """Writing a corpus of UTF-8 files, and tiktoken's batch encoder, which only fills lists."""
    texts, rows = [path.read_bytes().decode() for path in files], {}
    for name in ("bytes", "gpt2"):
        try:
            encoding = get_encoding(name)
        except SystemExit as error:
            print(f"corpus writing in {name} left out, {str(error)[7:]}")
            continue

        def write(name=name) -> None:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                prepare("text", files, name=f"{folder}/corpus", encoding=name)

        def encode(encoding=encoding) -> None:
            encoding.encode_ordinary_batch(texts, num_threads=os.cpu_count())

        contenders = {name: (write, sum(map(len, texts)) / 1e6), "tiktoken": (encode, sum(map(len, texts)) / 1e6)}
        rows[name] = compare("M characters", contenders, ["tiktoken"], rounds, torch.device("cpu"))[name]
    return show(f"corpus writing, {len(files)} files", rows)


def startup(rounds: int) -> dict:
    """`python train.py --help`, and a Python that only imports torch."""

    start = partial(subprocess.run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    commands = {"--help": ["train.py", "--help"], "torch": ["-c", "import torch"]}
    contenders = {name: (partial(start, [sys.executable, *command]), 1) for name, command in commands.items()}
    rows = compare("starts", contenders, ["torch"], rounds, torch.device("cpu"))
    for row in rows.values():
        row |= {"seconds": 1 / row.pop("starts/s"), "time / torch": 1 / row.pop("speed / torch")}
    return show("python train.py --help, and import torch", rows)


def main() -> None:
    parser = argparse.ArgumentParser("analysis.bench", description="How fast and how large.")
    parser.error = lambda message: sys.exit(f"error: {message}")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="train memory sample passkey data startup; all")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="turns that all contenders take")
    parser.add_argument("--json", type=output, help="write the numbers to this file, or over it")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto is the first of them that is there")
    args = parser.parse_args()
    device, rounds = pick_device(args.device), args.rounds
    gpu = device.type == "cuda"
    config, batch_size, trials = (GPTConfig(), 64, 1000) if gpu else (SMALL, 16, 250)
    sections = {
        "train": lambda: train(config, batch_size, device, rounds),
        "memory": lambda: memory((2048, 8192, 32768), device),
        "sample": lambda: sample(GPT(config).to(device).eval(), 500, device, rounds),
        "passkey": lambda: passkey(GPT(config).to(device).eval(), 256, trials, device, rounds),
        "data": lambda: data(sorted(Path(os.__file__).parent.glob("*.py")), rounds),  # 6 MB of Python's own library
        "startup": lambda: startup(rounds),
    }
    for name in args.sections:
        if name not in sections:
            raise SystemExit(f"error: no section {name}; there are {', '.join(sections)}")
    cpu = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", platform.machine())
    results = {
        "device": torch.cuda.get_device_name(device) if gpu else cpu,
        "dtype": str(pick_dtype(device))[6:],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(", ".join(f"{key} {value}" for key, value in results.items()), end="\n\n")
    for name in args.sections or sections:
        results[name] = sections[name]()
    if args.json:
        write_whole(args.json, lambda file: file.write(json.dumps(results, indent=1).encode() + b"\n"))


if __name__ == "__main__":
    main()
