"""
How fast and how large: training, its parts, evaluation, sampling, memory, corpus writing, start-up.

    python -m analysis.bench                                          every section: some ten minutes
    python -m analysis.bench train memory --json results/bench/cpu.json
    python -m analysis.bench train --nanogpt ../nanoGPT               beside nanoGPT's own model.py

What is compared takes turns, and a ratio is the median of the rounds' ratios: a machine that slows down for a
while slows both sides of it. CPUs get a small model, GPUs the paper's 60M; "tiny" is config/fope_tiny.py.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import data
import passkey
import perplexity
from data.prepare import prepare
from model import GPT, POSITIONS, GPTConfig, autocast, pick_device
from train import TrainConfig, make_optimizers, parse_config

ROOT = Path(__file__).parent.parent
SMALL = GPTConfig(vocab_size=320, block_size=256, n_layer=4, n_head=4, n_embd=256)
MULTIPLES = (0.5, 1, 2, 4, 8, 16)  # of N: the lengths of an evaluation

# Matrix products in bfloat16, dense, as the makers state them, in FLOP/s
PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}


@dataclass
class Setup:
    """What every section gets."""

    device: torch.device
    shape: GPTConfig  # of the larger model
    batch_size: int = 16
    rounds: int = 3  # turns that all contenders take
    steps: int = 15  # the same, where a turn is only one training step
    nanogpt: Path | None = None  # nanoGPT's checkout, or its model.py
    trials: int = 100  # passkeys at a length
    tokens: int = 131_072  # of text, at a length
    new_tokens: int = 500  # to sample
    memory_lengths: tuple[int, ...] = (2048, 8192, 32768)


def tiny_recipe() -> TrainConfig:
    """config/fope_tiny.py, for bytes."""
    recipe = parse_config([])
    recipe.vocab_size = 320
    return recipe


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def seconds(function: Callable, device: torch.device) -> float:
    """That one call takes."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def compare(contenders: dict[str, Callable], rounds: int, device: torch.device) -> dict[str, np.ndarray]:
    """The seconds of every contender in every round: name -> (rounds,).

    Every other round goes backwards, so that nobody always runs after the same neighbour.
    """
    times = {name: np.zeros(rounds) for name in contenders}
    for i in range(rounds):
        names = list(contenders)
        if i % 2 == 1:
            names.reverse()
        for name in names:
            times[name][i] = seconds(contenders[name], device)
    return times


def ratio(times: dict[str, np.ndarray], name: str, other: str) -> float:
    """How many times as long `name` takes as `other`: the median over the rounds."""
    return float(np.median(times[name] / times[other]))


def show(title: str, rows: dict[str, dict[str, float]]) -> dict:
    columns = list(next(iter(rows.values())))
    print(title)
    print(" " * 24, *(f"{column:>20}" for column in columns))
    for name, row in rows.items():
        cells = []
        for column in columns:
            digits = 0 if abs(row[column]) > 100 else 3
            cells.append(f"{row[column]:20,.{digits}f}")
        print(f"{name:24}", *cells)
    print(flush=True)
    return rows


# ---------------------------------------------------------------------------------------------------------
# GPT-2, to compare with


class BaselineBlock(nn.Module):
    def __init__(self, config: GPTConfig, mlp_ratio: int) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.norm_1 = nn.LayerNorm(C, bias=False)
        self.c_attn = nn.Linear(C, 3 * C, bias=False)
        self.c_proj = nn.Linear(C, C, bias=False)
        self.norm_2 = nn.LayerNorm(C, bias=False)
        up = nn.Linear(C, mlp_ratio * C, bias=False)
        down = nn.Linear(mlp_ratio * C, C, bias=False)
        self.mlp = nn.Sequential(up, nn.GELU(), down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = self.c_attn(self.norm_1(x)).split(C, dim=2)
        q = q.view(B, T, self.n_head, -1).transpose(1, 2)
        k = k.view(B, T, self.n_head, -1).transpose(1, 2)
        v = v.view(B, T, self.n_head, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp(self.norm_2(x))


class Baseline(nn.Module):
    """GPT-2 as nanoGPT trains it: learned positions, LayerNorm, GELU MLP, tied embeddings, no biases."""

    def __init__(self, config: GPTConfig, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.Sequential(*(BaselineBlock(config, mlp_ratio) for _ in range(config.n_layer)))
        self.norm = nn.LayerNorm(config.n_embd, bias=False)

    def forward(self, idx: torch.Tensor, targets: torch.Tensor):
        positions = torch.arange(idx.size(1), device=idx.device)
        x = self.blocks(self.wte(idx) + self.wpe(positions))
        logits = F.linear(self.norm(x), self.wte.weight)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def load_nanogpt(path: Path, config: GPTConfig, mlp_ratio: int = 4) -> nn.Module:
    """The GPT of nanoGPT's own model.py, in the shape of config; SystemExit if there is none at path."""
    file = path / "model.py" if path.is_dir() else path
    if not file.is_file():
        raise SystemExit(f"error: no model.py of nanoGPT at {path}")
    spec = importlib.util.spec_from_file_location("nanogpt_model", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    names = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
    settings = {name: getattr(config, name) for name in names}
    with contextlib.redirect_stdout(io.StringIO()):  # it says how many parameters it has
        model = module.GPT(module.GPTConfig(**settings, dropout=0.0, bias=False))
    if mlp_ratio != 4:
        for block in model.transformer.h:
            block.mlp.c_fc = nn.Linear(config.n_embd, mlp_ratio * config.n_embd, bias=False)
            block.mlp.c_proj = nn.Linear(mlp_ratio * config.n_embd, config.n_embd, bias=False)
    return model


def count(model: nn.Module) -> int:
    """Trained weights with one token embedding and without learned positions, which are a GPT-2's alone."""
    if isinstance(model, GPT):
        return model.num_params()
    positions = model.wpe if isinstance(model, Baseline) else model.transformer.wpe
    return sum(weight.numel() for weight in model.parameters()) - positions.weight.numel()


def mfu(model: nn.Module, tokens_per_s: float, peak: float) -> dict[str, float]:
    """Share of the peak (FLOP/s) that a training speed makes use of, counted in two ways.

    A token takes 6 FLOPs for every weight that multiplies, forward and backward, and 12 L C T for attention.
    The input embedding multiplies nothing, so our own count has one embedding. nanoGPT counts every weight
    but learned positions: the same for its tied embeddings, more for untied ones.
    """
    config = model.config
    attention = 12 * config.n_layer * config.n_embd * config.block_size
    ours = count(model)
    nanogpts = sum(weight.numel() for weight in model.parameters()) if isinstance(model, GPT) else ours
    return {
        "MFU": tokens_per_s * (6 * ours + attention) / peak,
        "MFU, nanoGPT's count": tokens_per_s * (6 * nanogpts + attention) / peak,
    }


# ---------------------------------------------------------------------------------------------------------
# Training


def training_step(
    model, batch_size: int, device: torch.device, optimizer="adamw", plain=False, muon_dtype=None
) -> Callable:
    """One optimizer step, as train.py does it; `plain`: in float32 and not fused, as nanoGPT on a CPU.

    muon_dtype is what Muon multiplies in, if not in what training does.
    """
    model.to(device).train()
    context = autocast(device, "float32" if plain else "auto")
    muon_dtype = muon_dtype or context.fast_dtype
    optimizers = make_optimizers(TrainConfig(optimizer=optimizer), model, muon_dtype)
    if plain:
        optimizers = [torch.optim.AdamW(model.parameters(), fused=False)]
    T = model.config.block_size
    tokens = torch.randint(model.config.vocab_size, (batch_size, T + 1), device=device)

    def step() -> None:
        with context:
            loss = model(tokens[:, :-1], tokens[:, 1:])[1]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in optimizers:
            each.step()
        model.zero_grad()

    return step


def time_training(setup: Setup) -> dict:
    """Steps of every encoding, and of GPT-2 in the same shape and with a wider MLP, for equal parameters."""
    config = setup.shape
    gpu = setup.device.type == "cuda"
    models = {pos: GPT(replace(config, pos=pos)) for pos in POSITIONS}
    if setup.nanogpt:
        models["nanoGPT"] = load_nanogpt(setup.nanogpt, config)
        models["nanoGPT, equal count"] = load_nanogpt(setup.nanogpt, config, mlp_ratio=6)
    else:
        models["GPT-2"] = Baseline(config)
        models["GPT-2, equal count"] = Baseline(config, mlp_ratio=6)  # SwiGLU's three matrices are 12 C², too
    steps = {}
    for name, model in models.items():
        plain = name not in POSITIONS and not gpu
        if gpu:
            model.compile()
        steps[name] = training_step(model, setup.batch_size, setup.device, plain=plain)
    compare(steps, 2, setup.device)  # compiles, and takes the memory
    times = compare(steps, setup.steps, setup.device)
    rows = {}
    same, equal = list(models)[-2:]
    for name, model in models.items():
        tokens_per_s = setup.batch_size * config.block_size / float(np.median(times[name]))
        rows[name] = {
            "parameters": count(model),
            "tokens/s": tokens_per_s,
            "time / rope": ratio(times, name, "rope"),
            f"speed / {same}": ratio(times, same, name),
            "speed / equal count": ratio(times, equal, name),
        }
        for card, peak in PEAK_FLOPS.items():
            if gpu and card in torch.cuda.get_device_name(setup.device):
                rows[name] |= mfu(model, tokens_per_s, peak)
                break
    shape = f"{config.n_layer} layers, width {config.n_embd}, T {config.block_size}, batch {setup.batch_size}"
    return show(f"training, {shape}", rows)


def time_optimizers(setup: Setup) -> dict:
    """A step with Muon against one with AdamW, and with torch's Muon, which always multiplies in bfloat16."""
    found = {}
    for name, config, batch_size in shapes(setup):
        steps = {}
        for optimizer in ("adamw", "muon"):
            steps[optimizer] = training_step(GPT(config), batch_size, setup.device, optimizer)
        steps["torch's muon"] = training_step(
            GPT(config), batch_size, setup.device, "muon", muon_dtype=torch.bfloat16
        )
        compare(steps, 1, setup.device)
        times = compare(steps, setup.steps, setup.device)
        rows = {}
        for optimizer in steps:
            milliseconds = 1000 * float(np.median(times[optimizer]))
            rows[optimizer] = {"ms a step": milliseconds, "time / adamw": ratio(times, optimizer, "adamw")}
        found[name] = show(f"optimizers, {name}", rows)
    return found


def shapes(setup: Setup) -> list[tuple[str, GPTConfig, int]]:
    """Name, shape and batch size of the tiny model and of the larger one."""
    tiny = tiny_recipe()
    larger = f"{setup.shape.n_layer} x {setup.shape.n_embd}"
    return [("tiny", tiny, tiny.batch_size), (larger, setup.shape, setup.batch_size)]


def compiled_step(pos: str, compiled: bool, device_name: str, steps: int = 20) -> dict[str, float]:
    """Cost of the tiny model's training steps, where nothing else in this process has used memory."""
    device = torch.device(device_name)
    config = replace(tiny_recipe(), pos=pos)
    model = GPT(config)
    if compiled:
        model.compile()
    step = training_step(model, config.batch_size, device)
    first = seconds(step, device)
    times = [seconds(step, device) for _ in range(steps)]
    tokens = config.batch_size * config.block_size
    speed = tokens / float(np.median(times))
    return {"first step, s": first, "tokens/s": speed, "MiB": high_water(device) / 2**20}


def time_compile(setup: Setup) -> dict:
    """Training with torch.compile, which on CPUs needs a C++ compiler: time, speed, memory."""
    rows = {}
    for pos in ("rope", "fope"):
        for compiled in (False, True):
            call = f"compiled_step({pos!r}, {compiled}, {str(setup.device)!r})"
            try:
                rows[f"{pos}, {'compiled' if compiled else 'eager'}"] = in_new_process(call)
            except subprocess.CalledProcessError as error:
                reason = error.stderr.strip().splitlines()[-1]
                print(f"torch.compile does not work here: {reason[:200]}\n", flush=True)
                return {"error": reason}
    return show("torch.compile, training at the tiny shape", rows)


def in_new_process(call: str):
    """What a function of this file returns there."""
    code = f"import json, analysis.bench as bench; print(json.dumps(bench.{call}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


# ---------------------------------------------------------------------------------------------------------
# The parts of a step

MATRIX_PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
CASTS = {"aten::_to_copy", "aten::to", "aten::copy_"}
PARTS = ["matrix products", "attention", "casts and copies", "rotation", "norms", "optimizer", "other"]
BACKWARD = "autograd::engine::evaluate_function"  # how the profiler calls a node of the backward pass


def labelled(label: str, function: Callable) -> Callable:
    def wrapped(*args):
        with torch.profiler.record_function(label):
            return function(*args)

    return wrapped


def ancestors(event) -> list:
    """The event itself, what called it, and so on."""
    found = []
    while event is not None:
        found.append(event)
        event = event.cpu_parent
    return found


def find_label(event, nodes: dict[int, str]) -> str:
    """A name in PARTS, or "": who called an event, or the forward operation whose backward pass it is in."""
    for ancestor in ancestors(event):
        if ancestor.name in ("rotation", "norms"):
            return ancestor.name
        if ancestor.name.startswith("Optimizer."):
            return "optimizer"
        if ancestor.name.startswith(BACKWARD):
            return nodes.get(ancestor.sequence_nr, "")
    return ""


def label_nodes(events: list) -> dict[int, str]:
    """Labels of the nodes of the backward pass, by their number.

    A node has the number of the forward operation that made it: of several with this number the last one,
    since until the next node is made, every operation is given the number which that will have.
    """
    nodes = {}
    for event in events:
        in_backward = any(ancestor.name.startswith(BACKWARD) for ancestor in ancestors(event))
        if event.sequence_nr >= 0 and not in_backward:
            nodes[event.sequence_nr] = find_label(event, {})
    return nodes


def find_part(event, nodes: dict[int, str]) -> str:
    """The one of PARTS that an event's own time counts in."""
    label = find_label(event, nodes)
    if label:
        return label
    if any("scaled_dot_product" in ancestor.name for ancestor in ancestors(event)):
        return "attention"
    if event.name in MATRIX_PRODUCTS:
        return "matrix products"
    if event.name in CASTS:
        return "casts and copies"
    return "other"


def profile_step(config: GPTConfig, batch_size: int, device: torch.device, steps: int) -> dict[str, float]:
    """Milliseconds that each part of a training step takes, and those in which none of them runs."""
    model = GPT(config)
    for module in model.modules():
        if isinstance(module, nn.RMSNorm):
            module.forward = labelled("norms", module.forward)
    for block in model.blocks:
        block.attn.pos.encode = labelled("rotation", block.attn.pos.encode)
    step = training_step(model, batch_size, device)
    step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        total = sum(seconds(step, device) for _ in range(steps))
    events = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CPU]

    nodes = label_nodes(events)
    parts = dict.fromkeys(PARTS, 0.0)
    for event in events:
        own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        parts[find_part(event, nodes)] += own / 1000 / steps  # from microseconds
    parts["Python, waiting"] = max(1000 * total / steps - sum(parts.values()), 0.0)
    return parts


def matmul_peak(device: torch.device, size: int = 2048) -> float:
    """FLOP/s of a large square matrix product in the number format that training uses: the best of ten."""
    a = torch.randn(size, size, device=device)

    def multiply() -> None:
        torch.mm(a, a)

    with autocast(device):
        times = [seconds(multiply, device) for _ in range(10)]
    return 2 * size**3 / min(times)


def profile_parts(setup: Setup) -> dict:
    """Where a step's time goes. The profiler itself slows small operations down, the more the smaller."""
    peak = matmul_peak(setup.device)
    columns = {}
    for name, config, batch_size in shapes(setup):
        parts = profile_step(config, batch_size, setup.device, steps=setup.steps)
        columns[name] = parts
        flops = 6 * GPT(config).num_params() * batch_size * config.block_size
        achieved = flops / (parts["matrix products"] / 1000)
        print(f"{name}: matrix products at {achieved / 1e9:,.0f} of {peak / 1e9:,.0f} GFLOP/s measured")
    rows = {}
    for part in columns["tiny"]:
        rows[part] = {}
        for name, parts in columns.items():
            rows[part][f"{name}, ms"] = parts[part]
            rows[part][f"{name}, %"] = 100 * parts[part] / sum(parts.values())
    return show("parts of a training step", rows) | {"peak": {"GFLOP/s": peak / 1e9}}


# ---------------------------------------------------------------------------------------------------------
# Memory


def high_water(device: torch.device) -> int:
    """The most bytes that this process has held: on the GPU, or in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # whose ru_maxrss begins with what the parent process held
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def step_memory(pos: str, length: int, device_name: str) -> int:
    """Bytes that a training pass over `length` tokens adds at its peak. Only a fresh process can tell.

    One layer, and no logits, which would hide what attention takes.
    """
    device = torch.device(device_name)
    model = GPT(GPTConfig(vocab_size=320, n_layer=1, n_head=2, n_embd=128, pos=pos)).to(device)
    for n in (64, length):  # the first brings the libraries' own memory
        before = high_water(device)
        with autocast(device):
            model.hidden(torch.zeros(1, n, dtype=torch.long, device=device)).sum().backward()
    return high_water(device) - before


def measure_memory(setup: Setup, names=tuple(POSITIONS)) -> dict:
    """`step_memory` of every encoding and length."""
    rows = {name: {} for name in names}
    for length in setup.memory_lengths:
        for name in names:
            used = in_new_process(f"step_memory({name!r}, {length}, {str(setup.device)!r})")
            rows[name][f"MiB at {length}"] = used / 2**20
    return show("peak memory of a training pass: 1 layer, width 128, batch 1, no logits", rows)


# ---------------------------------------------------------------------------------------------------------
# Evaluation, sampling


def time_evaluation(setup: Setup) -> dict:
    """Seconds of perplexity.py and passkey.py on a tiny run, length by length."""
    config = tiny_recipe()
    model = GPT(config).to(setup.device).eval()
    encoding = data.get_encoding("bytes")
    longest = int(max(MULTIPLES) * config.block_size)
    count = max(setup.tokens // longest, 1)
    text = np.random.default_rng(0).integers(256, size=(count, longest + 1), dtype=np.uint16)
    rows = {"perplexity": {}, "passkey": {}}
    with autocast(setup.device):
        for multiple in MULTIPLES:
            n = int(multiple * config.block_size)

            def score(n=n) -> None:
                perplexity.token_losses(model, text, n)

            def find(n=n) -> None:
                passkey.evaluate(model, encoding, n, setup.trials)

            rows["perplexity"][f"s at {n}"] = seconds(score, setup.device)
            rows["passkey"][f"s at {n}"] = seconds(find, setup.device)
    for row in rows.values():
        row["s in all"] = sum(row.values())
    return show(f"evaluation, tiny: {text[:, 1:].size:,} tokens, {setup.trials} passkeys", rows)


@torch.no_grad()  # as sample.py and passkey.py: in inference_mode autocast casts the weights anew each time
def time_sampling(setup: Setup) -> dict:
    """Sampling with generate(), which keeps a cache, and by computing everything again for every token."""
    model = GPT(setup.shape).to(setup.device).eval()
    first = torch.zeros(1, 1, dtype=torch.long, device=setup.device)

    def cached() -> None:
        model.generate(first, setup.new_tokens)

    def recomputed() -> None:
        idx = first
        for _ in range(setup.new_tokens):
            probabilities = model(idx)[0][:, -1].float().softmax(dim=-1)
            idx = torch.cat((idx, torch.multinomial(probabilities, 1)), dim=1)

    with autocast(setup.device):
        times = compare({"cached": cached, "recomputed": recomputed}, setup.rounds, setup.device)
    rows = {}
    for name, found in times.items():
        speed = setup.new_tokens / float(np.median(found))
        rows[name] = {"tokens/s": speed, "speed / recomputed": ratio(times, "recomputed", name)}
    return show(f"sampling {setup.new_tokens} tokens", rows)


@torch.no_grad()  # as sample.py and passkey.py: in inference_mode autocast casts the weights anew each time
def time_passkey(setup: Setup) -> dict:
    """passkey.evaluate at N, and generating six tokens a trial, one trial at a time, without a cache."""
    model = GPT(setup.shape).to(setup.device).eval()
    encoding = data.get_encoding("bytes")
    length = setup.shape.block_size
    few = max(setup.trials // 25, 1)

    def one_pass() -> None:
        passkey.evaluate(model, encoding, length, setup.trials)

    def generating() -> None:
        rng = np.random.default_rng(0)
        for depth in np.linspace(0, 1, few):
            prompt, key = passkey.make_prompt(encoding, length, depth, rng)
            idx = torch.tensor([prompt], device=setup.device)
            for _ in key:
                new = model(idx)[0][:, -1].argmax(dim=-1, keepdim=True)
                idx = torch.cat((idx, new), dim=1)

    with autocast(setup.device):
        times = compare({"one pass": one_pass, "generating": generating}, setup.rounds, setup.device)
    times["one pass"] = times["one pass"] / setup.trials
    times["generating"] = times["generating"] / few
    rows = {}
    for name, found in times.items():
        gain = ratio(times, "generating", name)
        rows[name] = {"trials/s": 1 / float(np.median(found)), "speed / generating": gain}
    return show(f"passkey, {length} tokens", rows)


# ---------------------------------------------------------------------------------------------------------
# Corpus, start-up


def time_corpus(setup: Setup, files: list[Path] | None = None) -> dict:
    """Writing a corpus of UTF-8 files, and tiktoken's batch encoder alone, which only fills lists."""
    files = files or sorted(Path(os.__file__).parent.glob("*.py"))  # 6 MB of Python's own library
    texts = [path.read_bytes().decode() for path in files]
    characters = sum(len(text) for text in texts)
    rows = {}
    for name in ("bytes", "gpt2"):
        try:
            encoding = data.get_encoding(name)
        except SystemExit as error:
            print(f"corpus writing in {name} left out: {error}")
            continue

        def write(name=name) -> None:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                prepare("text", files, name=f"{folder}/corpus", encoding=name)

        def encode(encoding=encoding) -> None:
            encoding.encode_ordinary_batch(texts, num_threads=os.cpu_count())

        times = compare({"write": write, "tiktoken": encode}, setup.rounds, torch.device("cpu"))
        speed = characters / 1e6 / float(np.median(times["write"]))
        rows[name] = {"M characters/s": speed, "speed / tiktoken": ratio(times, "tiktoken", "write")}
    return show(f"corpus writing, {len(files)} files", rows)


def time_startup(setup: Setup) -> dict:
    """`python train.py --help`, and a Python that only imports torch."""

    def help() -> None:
        subprocess.run(
            [sys.executable, "train.py", "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )

    def import_torch() -> None:
        subprocess.run([sys.executable, "-c", "import torch"], check=True)

    times = compare({"--help": help, "torch": import_torch}, setup.rounds, torch.device("cpu"))
    rows = {}
    for name, found in times.items():
        rows[name] = {"seconds": float(np.median(found)), "time / torch": ratio(times, name, "torch")}
    return show("python train.py --help, and import torch", rows)


SECTIONS = {
    "train": time_training,
    "optimizers": time_optimizers,
    "compile": time_compile,
    "profile": profile_parts,
    "evaluate": time_evaluation,
    "sample": time_sampling,
    "passkey": time_passkey,
    "memory": measure_memory,
    "data": time_corpus,
    "startup": time_startup,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns that all contenders take")
    parser.add_argument(
        "--nanogpt", type=Path, help="a checkout of nanoGPT, or its model.py, to compare with"
    )
    parser.add_argument("--json", type=data.output, help="write the numbers to this file")
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto: the first that is there")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be above 0")
    for name in args.sections:
        if name not in SECTIONS:
            raise SystemExit(f"error: no section {name}; there are {', '.join(SECTIONS)}")
    device = pick_device(args.device)
    setup = Setup(device, SMALL, rounds=args.rounds, steps=5 * args.rounds, nanogpt=args.nanogpt)
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", platform.machine())
    if device.type == "cuda":
        setup.shape = GPTConfig()
        setup.batch_size = 64
        name = torch.cuda.get_device_name(device)
    results = {"device": name, "dtype": str(autocast(device).fast_dtype), "threads": torch.get_num_threads()}
    results["torch"] = torch.__version__
    print(", ".join(f"{key} {value}" for key, value in results.items()), end="\n\n")
    for section in args.sections or SECTIONS:
        results[section] = SECTIONS[section](setup)
        if args.json:  # after each, so that nothing is lost if a later one fails
            data.write_json(args.json, results)


if __name__ == "__main__":
    main()
