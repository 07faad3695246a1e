"""
Trains a GPT: the one trainer, for a laptop's CPU, one GPU, or many GPUs and machines.

    python train.py                                          the tiny FoPE model, on a corpus that needs no download
    python train.py --pos=rope                               the same with another encoding
    python train.py config/fope_60m.py --batch_size=32       a configuration file, then --key=value for what differs
    python train.py --resume=True                            go on where the last checkpoint of that run was saved
    torchrun --nproc_per_node=4 train.py config/fope_60m.py  four GPUs of one machine
    python train.py --help                                   every setting, its default and its meaning

A run is a directory, out/<pos>_<name>: ckpt.pt, config.json and log.jsonl (one JSON object a line). Everything random
is a function of (seed, step), so a resumed run repeats and skips nothing, and without dropout the loss does not depend
on the number of processes. The model is in model.py, the corpora come from data/, passkey prompts from passkey.py.
"""

import contextlib
import difflib
import inspect
import json
import math
import os
import re
import runpy
import sys
import time
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import data
import passkey
from model import DTYPES, GPT, GPTConfig, autocast, pick_device, read_checkpoint, require, user_error, write_whole
from sample import stream_text


@dataclass
class TrainConfig(GPTConfig):
    name: str = "run"  # names the run's directory
    out_dir: str = ""  # the run's directory; "": out/<pos>_<name>
    dataset: str = "python"  # data/<dataset>, made by python -m data.prepare; its encoding sets vocab_size
    passkey_frac: float = 0.0  # share of rows that begin with a passkey prompt of random length
    init_from: str = ""  # directory of a run whose weights to start from (fine-tuning)
    resume: bool = False  # continue the run in out_dir
    batch_size: int = 64  # sequences in one forward pass of one process
    gradient_accumulation_steps: int = 1  # forward passes a step, over all processes together
    max_iters: int = 20000  # steps
    eval_interval: int = 1000  # steps between evaluations; each saves a checkpoint
    eval_iters: int = 20  # batches in an evaluation
    log_interval: int = 10  # steps between log lines
    learning_rate: float = 6e-4  # highest rate, reached after the warm-up
    min_lr: float = 6e-5  # rate at max_iters, after a cosine
    warmup_iters: int = 0  # steps of linear warm-up
    weight_decay: float = 0.1  # on all weights, norms and embeddings too
    beta1: float = 0.9  # AdamW's mean of gradients
    beta2: float = 0.95  # and of their squares
    grad_clip: float = 1.0  # largest gradient norm; 0: no clipping
    seed: int = 1337  # of the weights, the order of the data and the dropout
    device: str = "auto"  # cuda, mps, cpu, cuda:1 ...; auto: the best there is
    dtype: str = "auto"  # float32, bfloat16, float16; auto: bfloat16 if the hardware has it, float16 on older CUDA
    compile: bool = sys.platform == "linux" and torch.cuda.is_available()  # torch.compile; default: Linux with CUDA

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(1, "batch_size gradient_accumulation_steps max_iters eval_interval eval_iters log_interval")
        self.check(0, "learning_rate min_lr warmup_iters weight_decay grad_clip seed")
        self.check(0, "beta1 beta2", below=1)
        require(self.learning_rate > 0, "learning_rate must be above 0")
        require(0 <= self.passkey_frac <= 1, f"passkey_frac must be from 0 to 1, not {self.passkey_frac}")
        require(self.dtype in ("auto", *DTYPES), f"dtype must be auto or one of {', '.join(DTYPES)}, not {self.dtype}")
        self.out_dir = self.out_dir or f"out/{self.pos}_{self.name}"


# ----------------------------------------------------------------------------------------------------------------------
# Configuration: defaults, then a file of assignments, then --key=value

SETTINGS = {f.name: f.type for f in fields(TrainConfig) if f.name != "vocab_size"}


def convert(key: str, value: object) -> object:
    """The value of a setting in the type of its field; text, as on the command line, is read as that type."""
    if key not in SETTINGS:
        near = difflib.get_close_matches(key, SETTINGS, n=1)
        hint = f"did you mean {near[0]}?" if near else "python train.py --help lists the settings"
        raise SystemExit(f"error: unknown setting {key}; {hint}")
    kind, text = SETTINGS[key], str(value)
    if kind is str and isinstance(value, str):
        return value
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    with contextlib.suppress(ValueError, OverflowError):  # of text that is no number, and of int(nan) and int(inf)
        if kind in (int, float) and kind(float(text)) == float(text):  # not for 1.5 as an int, nor for nan
            return kind(float(text))
    raise SystemExit(f"error: {key} must be of type {kind.__name__}, not {value!r}")


def parse_config(argv: list[str]) -> TrainConfig:
    """The configuration that a command line asks for. SystemExit, with one line, for what cannot be."""
    values, files = {}, [argument for argument in argv if not argument.startswith("--")]
    for path in files or [Path(__file__).parent / "config/fope_tiny.py"]:
        with user_error(f"configuration file {path} (settings are written --key=value): ", Exception):
            assignments = runpy.run_path(str(path))
        values.update({key: convert(key, value) for key, value in assignments.items() if not key.startswith("_")})
    for argument in argv:
        if argument.startswith("--"):
            key, _, text = argument[2:].partition("=")
            values[key] = convert(key, text if "=" in argument else "True")
    with user_error("", ValueError):
        return TrainConfig(**values)


def print_help() -> None:
    print(__doc__.strip(), "\n\nSettings:", sep="")
    defaults = {f.name: f.default for f in fields(TrainConfig)}
    for cls in (TrainConfig, GPTConfig):
        for name, kind, comment in re.findall(r"^    (\w+): (\w+) = .*?(?:  # (.*))?$", inspect.getsource(cls), re.M):
            if name in SETTINGS:
                print(f"  --{name}={defaults[name]}".ljust(34), f"{kind:5}", comment)


# ----------------------------------------------------------------------------------------------------------------------
# Data: every process can draw the whole global batch, and builds only its own rows


def get_batch(config: TrainConfig, tokens, encoding, step: int, rows: range):
    """Inputs and targets of some rows of a step's global batch, each (len(rows), block_size) int64.

    A row is a window of the corpus. With passkey_frac, some rows begin with a passkey prompt of any length up to N, and
    only its answer counts (targets of -1 do not): five digits that weigh as much as a row of text are learnt fast.
    """
    rng, size = np.random.default_rng([config.seed, step]), config.batch_size * config.gradient_accumulation_steps
    starts = rng.integers(len(tokens) - config.block_size, size=size)
    with_passkey = rng.random(size) < config.passkey_frac
    x, y = windows(config, tokens, starts[rows.start : rows.stop], config.block_size)
    for i, row in enumerate(rows):
        if with_passkey[row]:
            rng = np.random.default_rng([config.seed, step, row])
            length = int(rng.integers(passkey.shortest(encoding), config.block_size, endpoint=True))
            prompt, answer = (torch.tensor(ids) for ids in passkey.make_prompt(encoding, length, rng.random(), rng))
            x[i, :length], y[i] = torch.cat((prompt, answer)), -1
            y[i, len(prompt) - 1 : length - 1] = answer
    return x, y


def windows(config: TrainConfig, tokens, starts, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows of `length` tokens that begin at starts, and the tokens that follow each of theirs."""
    batch = np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int64)
    if batch.max() >= config.vocab_size:
        raise SystemExit(f"error: {config.dataset} holds token {batch.max()}, past its vocabulary; prepare it again")
    return torch.from_numpy(batch[:, :-1].copy()), torch.from_numpy(batch[:, 1:].copy())


@torch.no_grad()
def estimate_loss(model: GPT, config: TrainConfig, tokens, length: int, ranks: "Ranks", context) -> float:
    """Mean loss over windows of `length` tokens, N or 4N; both read the same stretches of the validation split."""
    stretch, batch = 4 * config.block_size, max(config.batch_size // 4, 1)
    count = max(config.eval_iters * config.batch_size // 4, 1)
    starts = np.linspace(0, len(tokens) - stretch - 1, count).astype(int)[ranks.rank :: ranks.world]
    total = torch.zeros(2, dtype=torch.float64)  # sum of losses, number of windows
    model.eval()
    for first in range(0, len(starts), batch):
        x, y = (t.view(-1, length).to(ranks.device) for t in windows(config, tokens, starts[first:][:batch], stretch))
        with context:
            loss = model.forward(x, y)[1]  # not model(x, y): torch.compile would compile again for every new length
        total += torch.tensor([loss.item() * len(x), len(x)])
    model.train()
    total = ranks.sum(total)
    return (total[0] / total[1]).item()


# ----------------------------------------------------------------------------------------------------------------------
# Processes, the learning rate, speed


class Ranks:
    """The processes of this run: one, or as many as torchrun started."""

    def __init__(self, device: str) -> None:
        """Picks this process's device, by name or "auto", and joins the others."""
        defaults = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}
        self.rank, local, self.world = (int(os.environ.get(name, default)) for name, default in defaults.items())
        many_gpus = self.world > 1 and device.split(":")[0] in ("auto", "cuda") and torch.cuda.is_available()
        self.main, self.device = self.rank == 0, pick_device(f"cuda:{local}" if many_gpus else device)
        if many_gpus:
            torch.cuda.set_device(self.device)
        if self.world > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        if self.world > 1:
            dist.all_reduce(numbers := numbers.to(self.device))
        return numbers.cpu()

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


def get_lr(config: TrainConfig, step: int) -> float:
    """Linear warm-up from nearly zero, then a cosine down to min_lr at max_iters."""
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / (config.warmup_iters + 1)
    progress = (step - config.warmup_iters) / max(config.max_iters - config.warmup_iters, 1)
    return config.min_lr + 0.5 * (1 + math.cos(math.pi * min(progress, 1))) * (config.learning_rate - config.min_lr)


# Dense bfloat16 peak in FLOP/s by the vendors' data sheets; of two names that fit, the first counts.
PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}


def mfu(model: GPT, tokens_per_s: float, gpu: str) -> dict[str, float]:
    """{"mfu": the share of the card's peak that a training speed takes}, or {} for a card with another name.

    Forward and backward: 6 for every weight (the input embedding multiplies nothing), and attention's scores.
    """
    config, peaks = model.config, [flops for name, flops in PEAK_FLOPS.items() if name in gpu]
    flops = 6 * model.num_params() + 12 * config.n_layer * config.n_embd * config.block_size
    return {"mfu": tokens_per_s * flops / peaks[0]} if peaks else {}


# ----------------------------------------------------------------------------------------------------------------------


def require_same(names, checkpoint: dict, config: GPTConfig, task: str) -> None:
    for name in names:
        was, now = checkpoint["config"].get(name), getattr(config, name)
        if was != now:
            raise SystemExit(f"error: cannot {task}: {name} was {was} and is now {now}")


def load_weights(model: GPT, checkpoint: dict, source: str) -> None:
    """Starts from another run's weights. A longer block_size or another encoding is welcome, another shape is not.

    What an encoding keeps is its own affair: with a longer N FoPE keeps more frequencies, so the old coefficients keep
    their corner of the larger matrices and the rest stays as drawn; after RoPE all of them do.
    """
    new, old = model.state_dict(), checkpoint["model"]
    kept = any(".attn.pos." in key for key in new.keys() & old.keys())  # coefficients of the same bank, then
    names = "vocab_size n_layer n_head n_embd" + " fope_dim fope_sigma fope_init fope_series" * kept
    require_same(names.split(), checkpoint, model.config, f"start from {source}")
    shapes, old_shapes = ({k: v.shape for k, v in x.items() if ".attn.pos." not in k} for x in (new, old))
    if shapes != old_shapes:
        raise SystemExit(f"error: cannot start from {source}: its weights have other names or shapes")
    for key in new.keys() & old.keys():
        corner = tuple(slice(min(sizes)) for sizes in zip(new[key].shape, old[key].shape))
        new[key][corner] = old[key][corner]


def open_run(config: TrainConfig, ranks: Ranks) -> dict | None:
    """Makes the run's directory, or reads its checkpoint to resume. Nothing that is there is overwritten silently."""
    out = Path(config.out_dir)
    if config.resume:
        checkpoint = read_checkpoint(config.out_dir)
        names = [f.name for f in fields(GPTConfig)] + ["dataset", "passkey_frac", "seed"]  # model and data stay
        require_same(names, checkpoint, config, f"resume {out}")
        return checkpoint
    if (out / "ckpt.pt").exists():
        raise SystemExit(f"error: {out} already holds a run; --resume=True continues it, --name=... starts another")
    ranks.wait()  # no process may look for a checkpoint after the first has written one
    if ranks.main:
        with user_error(f"cannot make the directory {out}: ", OSError):
            out.mkdir(parents=True, exist_ok=True)
            (out / "log.jsonl").unlink(missing_ok=True)
    return None


def train(config: TrainConfig) -> None:
    ranks = Ranks(config.device)
    device, context = ranks.device, autocast(ranks.device, config.dtype)
    steps = config.gradient_accumulation_steps  # forward passes of all processes together
    if steps % ranks.world:
        raise SystemExit(f"error: gradient_accumulation_steps {steps} is not divisible by {ranks.world} processes")

    # The corpus
    if ranks.main:
        data.make_if_free(config.dataset)
    ranks.wait()
    meta, splits = data.load_meta(config.dataset), {s: data.load_tokens(config.dataset, s) for s in ("train", "val")}
    encoding = data.get_encoding(meta["encoding"])
    config.vocab_size = math.ceil(meta["vocab_size"] / 64) * 64
    for split, tokens in splits.items():
        least = config.block_size * (4 if split == "val" else 1) + 1  # the validation loss is also taken at 4N
        if len(tokens) < least:
            raise SystemExit(f"error: data/{config.dataset} has {len(tokens)} {split} tokens, fewer than {least}")
    if config.passkey_frac > 0 and config.block_size < (least := passkey.shortest(encoding)):
        raise SystemExit(f"error: block_size {config.block_size} is too short for a passkey prompt, {least} tokens")

    # The model and its optimizer
    checkpoint = open_run(config, ranks)
    start = checkpoint["iter"] if checkpoint else 0
    torch.manual_seed(config.seed)
    with user_error("", ValueError):
        model = GPT(config)
    if config.init_from and not checkpoint:
        load_weights(model, read_checkpoint(config.init_from), config.init_from)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.type != "mps")  # its settings come at every step
    scaler = torch.amp.GradScaler(device.type, enabled=context.fast_dtype == torch.float16)
    parts = {"model": model, "optimizer": optimizer, "scaler": scaler}
    for name in parts if checkpoint else ():
        with user_error(f"cannot resume {config.out_dir}: its {name} does not fit: ", Exception):
            parts[name].load_state_dict(checkpoint[name])
    if config.compile:
        model.compile()  # in place, so that the names in the checkpoint stay
    parallel = DistributedDataParallel(model) if ranks.world > 1 else model

    out, log = Path(config.out_dir), Path(config.out_dir) / "log.jsonl"
    if ranks.main:
        if checkpoint and log.exists():  # what was logged after the checkpoint will be logged again
            whole = re.findall(r".*}\n", log.read_text())
            kept = "".join(line for line in whole if json.loads(line)["iter"] < start + ("val_loss" in line))
            write_whole(log, lambda file: file.write(kept.encode()))
        write_whole(out / "config.json", lambda file: file.write(json.dumps(asdict(config), indent=2).encode()))
        about = f"{config.pos}, {model.num_params() / 1e6:.2f}M parameters, {ranks.world} x {device.type}"
        about += f", {str(context.fast_dtype)[6:]}" + ", torch.compile" * config.compile
        about += f", {meta['train_tokens'] / 1e6:.1f}M tokens of {config.dataset}"
        print(f"{out}: {about}; training begins with an evaluation, wait a moment", flush=True)
    bar = tqdm(total=config.max_iters, initial=start, unit="step", disable=not (ranks.main and sys.stderr.isatty()))

    def report(entry: dict) -> None:
        text = ", ".join(f"{key} {value:,.5g}" for key, value in entry.items())
        if not all(map(math.isfinite, entry.values())):
            raise SystemExit(f"error: the loss is not finite ({text}); {out} keeps its last good checkpoint")
        if ranks.main:
            with user_error(f"cannot write {log}, the checkpoint stays: ", OSError), open(log, "a") as file:
                file.write(json.dumps(entry) + "\n")
            bar.set_postfix_str(text) if not bar.disable and "loss" in entry else tqdm.write(text)
            sys.stdout.flush()

    # The loop
    micro_steps, tokens_per_step = steps // ranks.world, config.batch_size * steps * config.block_size
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    clock, clock_step, saved_step = time.perf_counter(), start, start if checkpoint else None
    try:
        for step in range(start, config.max_iters + 1):
            if (step % config.eval_interval == 0 or step == config.max_iters) and step != saved_step:
                paused, entry = time.perf_counter(), {"iter": step}
                for key, length in (("val_loss", config.block_size), ("val_loss_4x", 4 * config.block_size)):
                    entry[key] = estimate_loss(model, config, splits["val"], length, ranks, context)
                report(entry)
                if ranks.main:
                    saved = {"iter": step, "config": asdict(config), "meta": meta}
                    saved |= {name: part.state_dict() for name, part in parts.items()}
                    write_whole(out / "ckpt.pt", partial(torch.save, saved))
                saved_step = step
                clock += time.perf_counter() - paused  # evaluating is not training
            if step == config.max_iters:
                break

            torch.manual_seed(hash((config.seed, step, ranks.rank)))  # dropout, too, is a function of (seed, step)
            lr, betas = get_lr(config, step), (config.beta1, config.beta2)
            for group in optimizer.param_groups:  # here, since a resumed run may change them
                group.update(lr=lr, betas=betas, weight_decay=config.weight_decay)
            step_loss = torch.zeros((), device=device)
            for micro in range(micro_steps):
                first = (micro * ranks.world + ranks.rank) * config.batch_size
                batch = get_batch(config, splits["train"], encoding, step, range(first, first + config.batch_size))
                # From pinned memory the copy runs while the GPU still works.
                x, y = ((t.pin_memory() if gpu else t).to(device, non_blocking=bool(gpu)) for t in batch)
                last = micro == micro_steps - 1  # gradients are averaged over the processes once a step
                with parallel.no_sync() if ranks.world > 1 and not last else contextlib.nullcontext(), context:
                    loss = parallel(x, y)[1] / micro_steps
                scaler.scale(loss).backward()
                step_loss += loss.detach()
            scaler.unscale_(optimizer)
            if config.grad_clip > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            if step % config.log_interval == 0:
                loss = (ranks.sum(step_loss) / ranks.world).item()
                speed = (step + 1 - clock_step) * tokens_per_step / (time.perf_counter() - clock)
                entry = {"iter": step, "loss": loss, "lr": lr, "tokens_per_s": speed}
                report(entry | mfu(model, speed / ranks.world, gpu))
                clock, clock_step = time.perf_counter(), step + 1
            bar.update()
        ranks.wait()
    except KeyboardInterrupt:
        again = "nothing was saved yet" if saved_step is None else f"--resume=True goes on from iter {saved_step}"
        raise SystemExit(f"interrupted at iter {step}; {again}") from None
    finally:
        bar.close()
        parallel = None  # it must be gone before the processes part, or one of them may wait forever
        if ranks.world > 1:
            dist.destroy_process_group()

    if ranks.main:
        with context, user_error("stopped by ", KeyboardInterrupt):
            text = "".join(stream_text(model.eval(), encoding, "", max_new_tokens=300, top_k=50))
        print(f"\ndone: {out}/ckpt.pt; a sample of it:\n\n{text}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a pipe on Windows may know no θ
    if {"-h", "--help"} & set(sys.argv):
        print_help()
    else:
        train(parse_config(sys.argv[1:]))
