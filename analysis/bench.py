"""
How fast and how large: training steps, memory at 32,768 tokens, passkeys, sampling. One table, one JSON.

    python -m analysis.bench --json bench.json
    python -m analysis.bench --nanogpt ../nanoGPT            beside nanoGPT's own model.py
    python -m analysis.bench --set n_embd=512 n_head=8       in another shape

Every encoding is compared with RoPE and with a GPT-2 of as many weights: learned positions, LayerNorm, GELU,
tied embeddings, an MLP of 6 times the width, which holds as much as SwiGLU's three matrices. All train in the
same number format with the same optimizer. What is compared takes turns, and a ratio is the median of the
rounds' ratios, since a machine that is slow for a while is slow for all. On a CPU with OMP_NUM_THREADS=1 the
seconds are those of the processor, so that other processes disturb little; else they are the clock's.
"""

import argparse
import re
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import data
import passkey
from model import GPT, POSITIONS, GPTConfig, autocast, parse_setting, pick_device

SHAPE = {"vocab_size": 320, "block_size": 256, "n_layer": 4, "n_head": 4, "n_embd": 256}
TRIALS = 100  # passkeys
NEW_TOKENS = 300  # sampled


class GPT2(nn.Module):
    """GPT-2 as nanoGPT trains it, without biases and dropout."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        C = config.n_embd
        self.wte = nn.Embedding(config.vocab_size, C)
        self.wpe = nn.Embedding(config.block_size, C)
        style = {"dropout": 0, "activation": "gelu", "batch_first": True, "norm_first": True, "bias": False}
        block = nn.TransformerEncoderLayer(C, config.n_head, 6 * C, **style)
        self.blocks = nn.TransformerEncoder(block, config.n_layer, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(C, bias=False)

    def forward(self, idx: Tensor, targets: Tensor):
        T = idx.size(1)
        mask = nn.Transformer.generate_square_subsequent_mask(T, device=idx.device)
        x = self.blocks(self.wte(idx) + self.wpe.weight[:T], mask, is_causal=True)
        logits = F.linear(self.norm(x), self.wte.weight)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def load_nanogpt(folder: Path, config: GPTConfig) -> nn.Module:
    """The GPT of nanoGPT's model.py, with the same shape and MLP."""
    nanogpt = runpy.run_path(str(folder / "model.py"))
    shape = {name: getattr(config, name) for name in SHAPE}
    model = nanogpt["GPT"](nanogpt["GPTConfig"](**shape, dropout=0.0, bias=False))
    for block in model.transformer.h:
        block.mlp.c_fc = nn.Linear(config.n_embd, 6 * config.n_embd, bias=False)
        block.mlp.c_proj = nn.Linear(6 * config.n_embd, config.n_embd, bias=False)
    return model


def training_step(model: nn.Module, config: GPTConfig, batch_size: int, device: torch.device) -> Callable:
    """An optimizer step on random tokens, as train.py does it."""
    model.to(device).train()
    if device.type == "cuda":
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(config.vocab_size, (batch_size, config.block_size + 1), device=device)

    def step():
        with autocast(device):
            loss = model(tokens[:, :-1], tokens[:, 1:])[1]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad()

    return step


def recompute(model: GPT, idx: Tensor, max_new_tokens: int):
    """Sampling with a new cache for every token, so that each reads the whole text again."""
    for _ in range(max_new_tokens):
        idx = model.generate(idx, 1)


def measure(contenders: dict[str, Callable], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds that each contender takes in each round; a first round, which warms up, is not counted."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    times = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, function in contenders.items():
            start = clock()
            function()
            if device.type != "cpu":
                torch.accelerator.synchronize()
            times[name].append(clock() - start)
    return {name: found[1:] for name, found in times.items()}


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs))


def peak_memory(pos: str, length: int, device_name: str) -> float:
    """MiB that a training pass over `length` tokens adds at its peak, in a process that did nothing else.

    One layer of two heads of 64, and no logits, which would hide what attention takes.
    """
    device = torch.device(device_name)
    model = GPT(GPTConfig(vocab_size=320, n_layer=1, n_head=2, n_embd=128, pos=pos)).to(device)
    peaks = []
    for T in (64, length):  # the first brings in the libraries' own memory
        with autocast(device):
            model.hidden(torch.zeros(1, T, dtype=torch.long, device=device)).sum().backward()
        if device.type == "cuda":
            peaks.append(torch.cuda.max_memory_allocated() / 2**20)
        else:
            status = Path("/proc/self/status").read_text()
            peaks.append(int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024)
    return peaks[1] - peaks[0]


def add_row(rows: dict, name: str, numbers: dict[str, float]):
    rows[name] = numbers
    print(f"{name:16}", *(f"{value:12.2f} {unit:13}" for unit, value in numbers.items()), flush=True)


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--rounds", type=int, default=15, help="turns that all steps take (default: 15)")
    parser.add_argument("--batch_size", type=int, default=8, help="of a training step (default: 8)")
    parser.add_argument("--length", type=int, default=32_768, help="at which to measure memory")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT, to compare with")
    parser.add_argument("--set", nargs="+", type=parse_setting, default=[], help="settings, as n_embd=512")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--device", type=pick_device, default="auto", help="cuda, mps, cpu; auto: the best")
    args = parser.parse_args()
    device = args.device
    config = GPTConfig(**(SHAPE | dict(args.set)))
    rows = {}

    models = {pos: GPT(replace(config, pos=pos)) for pos in POSITIONS}
    models["GPT-2"] = load_nanogpt(args.nanogpt, config) if args.nanogpt else GPT2(config)
    steps = {}
    for name, model in models.items():
        steps[name] = training_step(model, config, args.batch_size, device)
    times = measure(steps, args.rounds, device)
    for name, found in times.items():
        ratios = {f"x {other}": ratio(found, times[other]) for other in ("rope", "GPT-2")}
        add_row(rows, f"step, {name}", {"ms": 1000 * statistics.median(found)} | ratios)

    memory = {}
    if device.type == "cuda" or sys.platform == "linux":  # elsewhere nothing tells the peak
        for pos in POSITIONS:
            call = f"peak_memory({pos!r}, {args.length}, {str(device)!r})"
            command = [sys.executable, "-c", f"from analysis.bench import peak_memory; print({call})"]
            memory[pos] = float(subprocess.check_output(command, cwd=data.DATA_DIR.parent))
    for pos, peak in memory.items():
        add_row(rows, f"memory, {pos}", {"MiB": peak, "x rope": peak / memory["rope"]})

    model = GPT(config).to(device).eval()
    encoding = data.get_encoding("bytes")
    start = torch.zeros(1, 1, dtype=torch.long, device=device)
    contenders = {
        "passkeys": partial(passkey.evaluate, model, encoding, config.block_size, TRIALS),
        "cached": partial(model.generate, start, NEW_TOKENS),
        "recomputed": partial(recompute, model, start, NEW_TOKENS),
    }
    with autocast(device):
        times = measure(contenders, max(args.rounds // 5, 1), device)
    add_row(rows, "passkeys at N", {"a second": TRIALS / statistics.median(times["passkeys"])})
    gain = ratio(times["recomputed"], times["cached"])
    speed = NEW_TOKENS / statistics.median(times["cached"])
    add_row(rows, "sampling", {"tokens/s": speed, "x recomputing": gain})
    if args.json:
        data.write_results(args, rows=rows)


if __name__ == "__main__":
    main()
