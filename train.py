"""
Trains a GPT: the one trainer, for a laptop's CPU, one GPU, or many GPUs and machines.

    python train.py                                          config/fope_tiny.py; nothing is downloaded
    python train.py --pos=rope                               the same with another position encoding
    python train.py config/fope_60m.py --batch_size=32       a configuration file, then --key=value
    python train.py --resume                                 go on with the first line's run
    torchrun --nproc_per_node=4 train.py config/fope_60m.py  four GPUs of one machine
    python train.py --help                                   every setting, its default and its meaning

A run is a directory, out/<pos>_<name>: ckpt.pt, config.json and log.jsonl (one JSON object a line).
Data are a function of (seed, step), dropout of (seed, step, process). So a resumed run repeats and skips
nothing, and without dropout the loss does not depend on the number of processes. The model is in model.py,
the corpora come from data/, passkey prompts from passkey.py, the validation loss from perplexity.py.
A default is what holds where neither the configuration file nor the command line says otherwise.
A variable named encoding is a tokenizer, which is tiktoken's word for one.
"""

import argparse
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
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import data
import passkey
import perplexity
from model import GPT, GPTConfig, autocast, load_checkpoint, pick_device, require
from sample import stream_text

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


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
    eval_tokens: int = 65536  # validation tokens in an evaluation, spread over the whole split
    log_interval: int = 10  # steps between log lines
    optimizer: str = "adamw"  # "muon": Muon for the blocks' matrices, AdamW for all else
    learning_rate: float = 6e-4  # highest rate, reached after the warm-up
    min_lr: float = 6e-5  # rate at max_iters, after a cosine
    warmup_iters: int = 0  # steps of linear warm-up
    muon_lr_ratio: float = 2.0  # Muon's learning rate, in multiples of AdamW's
    weight_decay: float = 0.1  # on all weights, norms and embeddings too
    beta1: float = 0.9  # AdamW's decay of the mean of gradients
    beta2: float = 0.95  # AdamW's decay of the mean of squared gradients
    grad_clip: float = 1.0  # largest gradient norm; 0: no clipping
    seed: int = 1337  # makes the weights, the order of the data and the dropout
    device: str = "auto"  # cuda, mps, cpu, cuda:1 ...; auto: the best there is
    dtype: str = "auto"  # float32, bfloat16, float16; auto: the fastest that the hardware multiplies
    compile: bool = sys.platform == "linux" and torch.cuda.is_available()  # torch.compile

    def __post_init__(self):
        super().__post_init__()
        self.check_range("batch_size gradient_accumulation_steps max_iters", least=1)
        self.check_range("eval_interval eval_tokens log_interval", least=1)
        self.check_range("learning_rate min_lr warmup_iters muon_lr_ratio weight_decay grad_clip", least=0)
        self.check_range("beta1 beta2", least=0, below=1)
        self.check_range("seed", least=0, below=2**32)  # NumPy splits larger: 2^32 is [0, 1]
        require(0 <= self.passkey_frac <= 1, f"passkey_frac must be from 0 to 1, not {self.passkey_frac}")
        self.check_choice("optimizer", ["adamw", "muon"])
        self.check_choice("dtype", ["auto", "float32", "bfloat16", "float16"])
        self.out_dir = self.out_dir or f"out/{self.pos}_{self.name}"


def parse_config(argv: list[str]) -> TrainConfig:
    """The configuration that a command line asks for: defaults, then files of assignments, then --key=value.

    SystemExit, with one line, if something in it is wrong.
    """
    # The help of a setting is the comment behind it in the dataclass: `seed: int = 1337  # of the weights`
    source = inspect.getsource(GPTConfig) + inspect.getsource(TrainConfig)
    comments = dict(re.findall(r"^    (\w+): .*  # (.*)$", source, re.MULTILINE))
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", metavar="config/NAME.py", help="default: config/fope_tiny.py")
    settings = [field for field in fields(TrainConfig) if field.name != "vocab_size"]
    for field in settings:
        options = {"type": field.type}
        if field.type is bool:
            options = {"type": boolean, "nargs": "?", "const": True}  # a bare --flag is True
        text = f"{comments[field.name]} (default: {field.default})"
        parser.add_argument(f"--{field.name}", default=field.default, help=text, **options)

    # Parsed twice: for the names of the files, whose settings become the parser's defaults, then for the
    # settings of the command line.
    args, unknown = parser.parse_known_args(argv)
    for path in args.files or [Path(__file__).parent / "config/fope_tiny.py"]:
        try:
            assignments = runpy.run_path(str(path))
        except Exception as error:  # it is a program, and may fail in any way
            raise SystemExit(f"error: cannot run {path}: {type(error).__name__} {error}") from None
        assignments = {key: value for key, value in assignments.items() if not key.startswith("_")}
        unknown += assignments.keys() - vars(args).keys()
        parser.set_defaults(**assignments)
    if unknown:
        near = difflib.get_close_matches(unknown[0].split("=")[0], vars(args), n=1, cutoff=0)
        raise SystemExit(f"error: unknown setting {unknown[0]}; the nearest is {near[0]}, --help lists all")
    values = vars(parser.parse_args(argv))
    del values["files"]
    try:
        return TrainConfig(**values)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError  # which argparse reports
    return text.lower() == "true"


# ---------------------------------------------------------------------------------------------------------
# What a step needs


def get_batch(config: TrainConfig, tokens, encoding, step: int, rows: range):
    """Inputs and targets of some rows of a step's global batch, each (len(rows), block_size) int64.

    A row is a window of the corpus. With passkey_frac, some rows begin with a passkey prompt of any length
    up to block_size, and only its answer counts (the other targets are -1): the loss weighs rows alike, so
    that five digits weigh as much as a row of text and are learnt fast. Every process draws the random
    numbers of the whole batch and builds only its own rows.
    """
    size = config.batch_size * config.gradient_accumulation_steps  # rows of the global batch
    rng = np.random.default_rng([config.seed, step])
    starts = rng.integers(len(tokens) - config.block_size, size=size)
    with_passkey = rng.random(size) < config.passkey_frac
    windows = [tokens[starts[row] : starts[row] + config.block_size + 1] for row in rows]
    windows = torch.from_numpy(np.stack(windows).astype(np.int64))
    x = windows[:, :-1].clone()
    y = windows[:, 1:].clone()
    for i, row in enumerate(rows):
        if with_passkey[row]:
            # A generator of its own, so that no other row need be built. (row + 1: to NumPy [seed, step, 0]
            # is [seed, step], the batch's own.)
            row_rng = np.random.default_rng([config.seed, step, row + 1])
            length = int(row_rng.integers(passkey.shortest(encoding), config.block_size, endpoint=True))
            prompt, key = passkey.make_prompt(encoding, length, row_rng.random(), row_rng)
            x[i, :length] = torch.tensor(prompt + key)
            y[i] = -1  # nothing counts ...
            y[i, len(prompt) - 1 : length - 1] = torch.tensor(key)  # ... but the key
    return x, y


def get_lr(config: TrainConfig, step: int) -> float:
    """Linear warm-up from nearly zero, then a cosine down to min_lr at max_iters."""
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / (config.warmup_iters + 1)
    progress = (step - config.warmup_iters) / max(config.max_iters - config.warmup_iters, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    return config.min_lr + cosine * (config.learning_rate - config.min_lr)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): the mean of a matrix's gradients, made orthogonal, is its update.

    torch.optim.Muon takes the same steps, but always in bfloat16, which a CPU without it multiplies many
    times slower than float32. Here dtype is what matrix products are computed in.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], dtype: torch.dtype):
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": 0.1})
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        group = self.param_groups[0]
        for weight in group["params"]:
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            mean = state["momentum_buffer"]
            mean.lerp_(weight.grad, 0.05)  # forgets a twentieth of the past in each step
            ahead = weight.grad.lerp(mean, 0.95)  # Nesterov's momentum
            update = orthogonalize(ahead.to(self.dtype))
            # The updates of AdamW are about this large, so that both can share a rate (arXiv 2502.16982).
            size = 0.2 * math.sqrt(max(weight.shape))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update, alpha=-group["lr"] * size)


def orthogonalize(x: torch.Tensor) -> torch.Tensor:
    """The matrix with x's singular vectors, and singular values near 1.

    They are from 0.68 to 1.14 where x's was above a hundredth of its norm. Each Newton-Schulz step makes
    3.4445 s - 4.7750 s^3 + 2.0315 s^5 of every singular value s.
    """
    is_tall = x.size(0) > x.size(1)
    if is_tall:  # the smaller of the two Gram matrices will do
        x = x.T
    x = x / x.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(5):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.addmm(x, polynomial, x, beta=3.4445)
    return x.T if is_tall else x


def make_optimizers(config: TrainConfig, model: GPT, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest, without their rates."""
    matrices = []
    others = []
    for name, weight in model.named_parameters():
        own = ".pos." in name  # what a learned position encoding has of its own
        is_matrix = name.startswith("blocks.") and weight.ndim == 2 and not own
        if is_matrix and config.optimizer == "muon":
            matrices.append(weight)
        else:
            others.append(weight)
    optimizers = [torch.optim.AdamW(others, betas=(config.beta1, config.beta2), fused=True)]
    if matrices:
        # float16's smallest numbers are not small enough for this.
        optimizers.append(Muon(matrices, torch.float32 if dtype == torch.float16 else dtype))
    return optimizers


def start_from(model: GPT, config: TrainConfig):
    """Fine-tuning: copies the weights of the run in init_from, whose length and position encoding may differ.

    At a longer length FoPE has more frequencies: the old coefficients fill the top left of the new
    matrices, the rest stays as drawn. (The paper's code restores the optimizer, too; here it starts anew.)
    """
    _, checkpoint = load_checkpoint(config.init_from, torch.device("cpu"))
    old = checkpoint["model"]
    new = model.state_dict()  # shares memory with the model
    shared = old.keys() & new.keys()
    names = ["vocab_size", "n_layer", "n_head", "n_embd"]  # only FoPE's coefficients may differ in shape
    if any("_coef" in name for name in shared):
        names += ["fope_dim", "fope_sigma", "fope_init", "fope_series"]
    require_same(names, checkpoint["config"], asdict(config))
    for name in shared:
        # The part that both shapes have
        corner = tuple(slice(min(sizes)) for sizes in zip(old[name].shape, new[name].shape))
        new[name][corner] = old[name][corner]


def require_same(names: list[str], old: dict, new: dict):
    """SystemExit unless the checkpoint's settings and the new ones agree in these names."""
    for name in names:
        if old.get(name) != new[name]:
            raise SystemExit(f"error: {name} was {old.get(name)!r} in the checkpoint, not {new[name]!r}")


def open_run(out: Path, resume: bool):
    """Opens the run's log and locks it, so that a second process on the same directory ends here."""
    try:
        if not resume:
            out.mkdir(parents=True, exist_ok=True)
        log = (out / "log.jsonl").open("a")
        if fcntl:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends, however it does
        if not resume:
            if (out / "ckpt.pt").exists():
                raise SystemExit(f"error: {out} holds a run: --resume goes on with it, --name=... is another")
            log.truncate(0)  # what a run left that ended before its first checkpoint
        for unfinished in out.glob("*.*.[0-9]*.tmp"):  # left by data.write_whole in a process that was killed
            unfinished.unlink()
    except BlockingIOError:
        raise SystemExit(f"error: another process is training in {out}") from None
    except OSError as error:
        raise SystemExit(f"error: cannot write to {out}: {error}") from None
    return log


def sum_over_processes(x: torch.Tensor) -> float:
    if dist.is_initialized():
        dist.all_reduce(x)
    return x.item()


# ---------------------------------------------------------------------------------------------------------


def train(config: TrainConfig):
    # Processes: one, or as many as torchrun started
    rank = int(os.environ.get("RANK", 0))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    main_process = rank == 0
    device = pick_device(config.device)
    if world_size > 1 and device.type == "cuda":  # with several GPUs, each process takes its own
        device = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    micro_steps = config.gradient_accumulation_steps // world_size  # forward passes of this process
    if micro_steps * world_size != config.gradient_accumulation_steps:
        raise SystemExit(f"error: gradient_accumulation_steps is not divisible by {world_size} processes")

    # The corpus
    if main_process:
        data.make_if_free(config.dataset)  # "python" is free: it needs no download
    if world_size > 1:
        dist.barrier()
    meta = data.load_meta(config.dataset)
    train_tokens = data.load_tokens(config.dataset, "train")
    val_tokens = data.load_tokens(config.dataset, "val")
    encoding = data.get_encoding(meta["encoding"])
    config.vocab_size = math.ceil(meta["vocab_size"] / 64) * 64
    stretch = 4 * config.block_size  # validation text comes in pieces of 4N, which are scored at N and at 4N
    if len(train_tokens) <= config.block_size or len(val_tokens) <= stretch:
        raise SystemExit(f"error: {config.dataset} is too short for block_size {config.block_size}")
    if config.passkey_frac > 0 and config.block_size < passkey.shortest(encoding):
        raise SystemExit(f"error: a passkey prompt needs a block_size of {passkey.shortest(encoding)}")
    count = max(min(config.eval_tokens, len(val_tokens) - 1) // stretch, 1)
    places = perplexity.spread(len(val_tokens), count, stretch)  # (count, stretch + 1)
    val_text = val_tokens[places[rank::world_size]]  # every process takes its share

    # The model, the optimizers
    torch.manual_seed(config.seed)
    out = Path(config.out_dir)
    if main_process and config.resume:  # locked before it is read: another trainer might write to it
        log = open_run(out, resume=True)
    checkpoint = None
    try:
        if config.resume:
            model, checkpoint = load_checkpoint(config.out_dir, device)
            names = [field.name for field in fields(GPTConfig)]
            names += ["dataset", "passkey_frac", "seed", "optimizer", "beta1", "beta2"]
            require_same(names, checkpoint["config"], asdict(config))
            require_same(["sha256"], checkpoint["meta"], meta)  # of the corpus
        else:
            model = GPT(config).to(device)
            if config.init_from:
                start_from(model, config)
        casting = autocast(device, config.dtype)  # its fast_dtype is what matrix products are computed in
        optimizers = make_optimizers(config, model, casting.fast_dtype)
        scaler = torch.amp.GradScaler(device.type, enabled=casting.fast_dtype == torch.float16)
        if checkpoint:
            states = checkpoint["optimizers"]
            require(type(states) is list and len(states) == len(optimizers), "it has other optimizers")
            for optimizer, state in zip(optimizers, states):
                optimizer.load_state_dict(state)
            scaler.load_state_dict(checkpoint["scaler"])
            if main_process:  # what was logged after the checkpoint will be logged again
                log.truncate(min(checkpoint["log_size"], log.tell()))
    except Exception as error:  # too large a model, a damaged checkpoint: these fail in a dozen ways
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise SystemExit(f"error: cannot make or resume this model: {reason[:300]}") from None
    start = checkpoint["iter"] if checkpoint else 0
    model.train()
    if config.compile:
        model.compile()  # in place, so that the names in the checkpoint stay
    parallel = DistributedDataParallel(model) if world_size > 1 else model

    if main_process:
        if not config.resume:  # only now, so that a model that cannot be made leaves no directory
            log = open_run(out, resume=False)
        data.write_json(out / "config.json", asdict(config))
        size = f"{model.num_params() / 1e6:.2f}M parameters, {meta['train_tokens'] / 1e6:.1f}M tokens"
        print(f"{out}: {size}, {world_size} x {device}, {casting.fast_dtype}", flush=True)
    hide_bar = None if main_process else True  # None: where the output is no terminal
    bar = tqdm(total=config.max_iters, initial=start, unit="step", disable=hide_bar)

    def report(entry: dict):  # called in every process, so that all end together if a loss is not finite
        text = ", ".join(f"{key} {value:,.6g}" for key, value in entry.items())
        if not all(math.isfinite(value) for value in entry.values()):
            raise SystemExit(f"error: the loss is not finite ({text}); {out} keeps its last checkpoint")
        if main_process:
            log.write(json.dumps(entry) + "\n")
            log.flush()
            tqdm.write(text)

    # The loop
    saved = start if checkpoint else -1  # the step of the last checkpoint, which is not evaluated again
    tokens_per_step = config.batch_size * config.gradient_accumulation_steps * config.block_size
    clock = time.perf_counter()  # the time of the last log line
    steps = 0  # steps since that line
    try:
        for step in range(start, config.max_iters + 1):
            if (step % config.eval_interval == 0 or step == config.max_iters) and step != saved:
                pause = time.perf_counter()
                entry = {"iter": step}
                model.eval()
                for key, length in (("val_loss", config.block_size), ("val_loss_4x", stretch)):
                    with casting:
                        losses = perplexity.token_losses(model, val_text, length)
                    total = sum_over_processes(losses.sum().float().to(device))
                    entry[key] = total / (count * stretch)
                model.train()
                report(entry)
                if main_process:
                    state = {
                        "iter": step,
                        "config": asdict(config),
                        "meta": meta,
                        "model": model.state_dict(),
                        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                        "scaler": scaler.state_dict(),
                        "log_size": log.tell(),
                    }
                    with data.write_whole(out / "ckpt.pt") as file:
                        torch.save(state, file)
                saved = step
                clock += time.perf_counter() - pause  # evaluating is not training
            if step == config.max_iters:
                break

            lr = get_lr(config, step)
            for optimizer in optimizers:
                ratio = config.muon_lr_ratio if isinstance(optimizer, Muon) else 1
                # weight_decay, too, is set here, since a checkpoint brings the old one.
                optimizer.param_groups[0].update(lr=lr * ratio, weight_decay=config.weight_decay)
            # For the dropout: one number from three. (Integers in a tuple have the same hash everywhere.)
            torch.manual_seed(hash((config.seed, step, rank)))
            step_loss = torch.zeros((), device=device)
            for micro in range(micro_steps):
                # This process's rows of the global batch
                first = (micro * world_size + rank) * config.batch_size
                rows = range(first, first + config.batch_size)
                x, y = get_batch(config, train_tokens, encoding, step, rows)
                if device.type == "cuda":  # from pinned memory the copy runs while the GPU still works
                    x = x.pin_memory()
                    y = y.pin_memory()
                x = x.to(device, non_blocking=True)
                y = y.to(device, non_blocking=True)
                # Gradients are averaged over the processes once a step.
                parallel.require_backward_grad_sync = micro == micro_steps - 1
                with casting:
                    loss = parallel(x, y)[1] / micro_steps
                scaler.scale(loss).backward()
                step_loss += loss.detach()
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
            largest = config.grad_clip or math.inf
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
            # A float16 step that overflows is skipped. Asked here, for both optimizers at once: scaler.step
            # would decide for each alone.
            if not scaler.is_enabled() or norm.isfinite():
                for optimizer in optimizers:
                    scaler.step(optimizer)
            scaler.update()
            model.zero_grad()

            steps += 1
            if step % config.log_interval == 0:
                mean_loss = sum_over_processes(step_loss) / world_size
                now = time.perf_counter()
                speed = steps * tokens_per_step / (now - clock)
                report({"iter": step, "loss": mean_loss, "lr": lr, "tokens_per_s": speed})
                clock = now
                steps = 0
            bar.update()
    except OSError as error:  # a full disk
        raise SystemExit(f"error: {out}, iter {step}: {error}") from None
    except (MemoryError, RuntimeError) as error:  # a batch too large
        raise SystemExit(f"error: {out}, iter {step}: {data.explain_memory(error)}") from None
    except KeyboardInterrupt:
        again = f"--resume goes on from iter {saved}" if saved >= 0 else "nothing was saved yet"
        raise SystemExit(f"interrupted at iter {step}; {again}") from None
    finally:
        bar.close()
        if main_process:
            with contextlib.suppress(OSError):  # of a full disk
                log.close()
        parallel = None  # DDP has to go before its process group, or a process may hang at the end
        if world_size > 1:
            dist.destroy_process_group()

    if main_process:
        with casting:
            text = "".join(stream_text(model.eval(), encoding, "", max_new_tokens=300, top_k=50))
        print(f"\ndone: {out}/ckpt.pt; a sample of it:\n\n{text}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a pipe on Windows may not know every character
    train(parse_config(sys.argv[1:]))
