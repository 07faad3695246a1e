"""
Trains a GPT: the one trainer, for a laptop's CPU, one GPU, or many GPUs and machines.

    python train.py                                          config/fope_tiny.py; nothing is downloaded
    python train.py --pos=rope                               the same with another position encoding
    python train.py config/fope_60m.py --batch_size=32       a configuration file, then --key=value
    python train.py --resume                                 go on with the first line's run
    torchrun --nproc_per_node=4 train.py config/fope_60m.py  four GPUs of one machine
    python train.py --help                                   every setting, its default and its meaning

A run is a directory, out/<pos>_<name>: ckpt.pt, config.json and log.jsonl (one JSON object a line).
Data are a function of (seed, step, row): a resumed run repeats and skips nothing, and the loss does not
depend on the number of processes. A variable named encoding is a tokenizer, which is tiktoken's word for one.
"""

import inspect
import json
import math
import os
import runpy
import shutil
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
from model import GPT, GPTConfig, autocast, load_checkpoint, parse_setting, pick_device, require
from sample import stream_text


@dataclass
class TrainConfig(GPTConfig):
    name: str = "run"  # names the run's directory
    out_dir: str = ""  # the run's directory; "": out/<pos>_<name>
    dataset: str = "python"  # data/<dataset>, made by python -m data.prepare; its encoding sets vocab_size
    passkey_frac: float = 0.0  # share of rows that begin with a passkey prompt of random length
    passkey_keys: int = 1  # keys in a prompt; with several, each has a label, and one is asked for by it
    passkey_filler: str = "grass"  # around them: "grass", always the same, or "text" of the corpus
    init_from: str = ""  # directory of a run whose weights to start from (fine-tuning)
    resume: bool = False  # continue the run in out_dir
    batch_size: int = 64  # sequences in one forward pass of one process
    gradient_accumulation_steps: int = 1  # forward passes a step, over all processes together
    max_iters: int = 20000  # steps
    eval_interval: int = 1000  # steps between evaluations; each saves a checkpoint
    eval_tokens: int = 65536  # validation tokens in an evaluation, spread over the whole split
    log_interval: int = 10  # steps between log lines
    learning_rate: float = 6e-4  # highest rate, reached after the warm-up; for fine-tuning try a tenth
    min_lr: float = 6e-5  # rate at max_iters, after a cosine; a tenth of learning_rate is usual
    warmup_iters: int = 0  # steps of linear warm-up; a few hundredths of max_iters are usual
    weight_decay: float = 0.1  # on all weights, norms and embeddings too
    beta1: float = 0.9  # AdamW's decay of the mean of gradients
    beta2: float = 0.95  # AdamW's decay of the mean of squared gradients
    grad_clip: float = 1.0  # largest gradient norm
    seed: int = 1337  # makes the weights and the order of the data
    device: str = "auto"  # cuda, mps, cpu, cuda:1 ...; auto: the best there is
    dtype: str = "auto"  # float32, bfloat16, float16; auto: the fastest that the hardware multiplies
    compile: bool = sys.platform == "linux" and torch.cuda.is_available()  # torch.compile

    def __post_init__(self):
        super().__post_init__()
        require(self.passkey_filler in ("grass", "text"), "passkey_filler is grass or text")
        self.out_dir = self.out_dir or f"out/{self.pos}_{self.name}"


def parse_config(argv: list[str]) -> TrainConfig:
    """The configuration of a command line: defaults, then files of assignments, then --key=value."""
    if "--help" in argv or "-h" in argv:
        print(__doc__, inspect.getsource(GPTConfig), inspect.getsource(TrainConfig), sep="\n")
        raise SystemExit
    settings = {}
    files = [arg for arg in argv if not arg.startswith("--")]
    for path in files or [Path(__file__).parent / "config/fope_tiny.py"]:
        require(Path(path).is_file(), f"there is no file {path} (settings are given as --key=value)")
        assignments = runpy.run_path(str(path))
        settings |= {key: value for key, value in assignments.items() if not key.startswith("_")}
    known = {field.name for field in fields(TrainConfig)}
    for key in settings:
        require(key in known, f"TrainConfig has no {key}; python train.py --help shows it")
    for arg in argv:
        if arg.startswith("--"):
            key, value = parse_setting(arg.removeprefix("--"), TrainConfig)
            settings[key] = value
    return TrainConfig(**settings)


# ---------------------------------------------------------------------------------------------------------
# What a step needs


def get_batch(config: TrainConfig, tokens, encoding, step: int, rows: range):
    """Inputs and targets of some rows of a step's global batch, each (len(rows), block_size) int64.

    A row is a window of the corpus. With passkey_frac, some rows begin with a passkey prompt of any length
    up to block_size, and only its answer counts (the other targets are -1): the loss weighs rows alike, so
    that five digits weigh as much as a row of text and are learnt fast. Every row draws from a generator of
    its own, so that a process can build its rows alone.
    """
    shortest = passkey.shortest(encoding, config.passkey_keys)
    filler = tokens if config.passkey_filler == "text" else None
    xs = []
    ys = []
    for row in rows:
        rng = np.random.default_rng([config.seed, step, row])
        start = rng.integers(len(tokens) - config.block_size)
        window = torch.from_numpy(tokens[start : start + config.block_size + 1].astype(np.int64))
        x = window[:-1].clone()
        y = window[1:].clone()
        if rng.random() < config.passkey_frac:
            length = int(rng.integers(shortest, config.block_size, endpoint=True))
            depth = rng.random()
            prompt, key = passkey.make_prompt(encoding, length, depth, rng, config.passkey_keys, filler)
            x[:length] = torch.tensor(prompt + key)
            y[:] = -1  # nothing counts ...
            y[len(prompt) - 1 : length - 1] = torch.tensor(key)  # ... but the key
        xs.append(x)
        ys.append(y)
    return torch.stack(xs), torch.stack(ys)


def get_lr(config: TrainConfig, step: int) -> float:
    """Linear warm-up from nearly zero, then a cosine down to min_lr at max_iters."""
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / (config.warmup_iters + 1)
    progress = (step - config.warmup_iters) / max(config.max_iters - config.warmup_iters, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    return config.min_lr + cosine * (config.learning_rate - config.min_lr)


def start_from(model: GPT, out_dir: str):
    """Fine-tuning: copies the weights of a run, whose length and position encoding may differ.

    At a longer length FoPE has more frequencies: the old coefficients fill the top left of the new matrices,
    the rest stays as drawn. (The paper's code restores the optimizer, too; here it starts anew.)
    """
    old_model, _ = load_checkpoint(out_dir, torch.device("cpu"))
    for name in ("vocab_size", "n_layer", "n_head", "n_embd", "fope_dim"):
        old_value = getattr(old_model.config, name)
        new_value = getattr(model.config, name)
        require(old_value == new_value, f"{name} is {old_value} in {out_dir}, not {new_value}")
    old = old_model.state_dict()
    new = model.state_dict()  # shares memory with the model
    for name in old.keys() & new.keys():
        if name.endswith("_coef"):  # (n_head, frequencies, pairs)
            rows = min(old[name].size(1), new[name].size(1))
            columns = min(old[name].size(2), new[name].size(2))
            new[name][:, :rows, :columns] = old[name][:, :rows, :columns]
        else:
            new[name].copy_(old[name])


def require_same(checkpoint: dict, config: TrainConfig, meta: dict):
    """A resumed run goes on as it began: the same model, data and optimizer."""
    names = [field.name for field in fields(GPTConfig)]
    names += ["dataset", "passkey_frac", "passkey_keys", "passkey_filler"]
    names += ["seed", "beta1", "beta2", "weight_decay"]
    for name in names:
        old, new = checkpoint["config"][name], getattr(config, name)
        require(old == new, f"{name} was {old!r} in the checkpoint, not {new!r}")
    require(checkpoint["meta"]["sha256"] == meta["sha256"], f"the corpus {config.dataset} is another one now")
    start = checkpoint["iter"]
    require(start <= config.max_iters, f"the run is at step {start}, past max_iters {config.max_iters}")


def validate(model: GPT, text: np.ndarray, length: int) -> float:
    """Mean loss, in nats, of validation text in chunks of `length`; text: this process's share of it."""
    model.eval()
    losses = perplexity.token_losses(model, text, length)
    model.train()
    total = torch.tensor([losses.sum(), losses.numel()])
    if dist.is_initialized():
        total = total.to(model.lm_head.weight.device)
        dist.all_reduce(total)
    return (total[0] / total[1]).item()


def open_log(out: Path, size: int):
    """The run's log, cut to `size` bytes: what was logged after the checkpoint will be logged again."""
    log = (out / "log.jsonl").open("a")
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends, however it does
        except BlockingIOError:
            raise SystemExit(f"error: another process is training in {out}") from None
    log.truncate(size)
    return log


# ---------------------------------------------------------------------------------------------------------


def train(config: TrainConfig):
    # Processes: one, or as many as torchrun started
    rank = int(os.environ.get("RANK", 0))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    require(world_size == 1 or "RANK" in os.environ, "WORLD_SIZE is set without RANK: start with torchrun")
    main_process = rank == 0
    device = pick_device(config.device)
    if device.type == "cuda":
        if world_size > 1:  # each process takes a GPU of its own
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device.index or 0)
    if world_size > 1 and device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    elif world_size > 1:
        dist.init_process_group("gloo")
    micro_steps = config.gradient_accumulation_steps // world_size  # forward passes of this process
    divides = micro_steps * world_size == config.gradient_accumulation_steps
    require(divides, f"gradient_accumulation_steps must be a multiple of {world_size} processes")
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    require(compiler or not config.compile, "torch.compile needs gcc; --compile=False does without")

    # The corpus
    if main_process:
        data.prepare_if_missing(config.dataset)
    if world_size > 1:
        dist.barrier()
    meta = data.load_meta(config.dataset)
    train_tokens = data.load_tokens(config.dataset, "train")
    val_tokens = data.load_tokens(config.dataset, "val")
    encoding = data.get_encoding(meta["encoding"])
    config.vocab_size = math.ceil(meta["vocab_size"] / 64) * 64
    stretch = 4 * config.block_size  # validation text comes in pieces of 4N, which are scored at N and at 4N
    enough = len(train_tokens) > config.block_size and len(val_tokens) > stretch
    require(enough, f"{config.dataset} is too short for block_size {config.block_size}")
    shortest = passkey.shortest(encoding, config.passkey_keys)
    fits = config.passkey_frac == 0 or config.block_size >= shortest
    require(fits, f"passkey prompts need a block_size of {shortest}")
    count = max(min(config.eval_tokens, len(val_tokens) - 1) // stretch, 1)
    places = perplexity.spread(len(val_tokens), count, stretch)  # (count, stretch + 1)
    val_text = val_tokens[places[rank::world_size]]  # every process takes its share

    # The model and the optimizer
    torch.manual_seed(config.seed)
    out = Path(config.out_dir)
    start = 0
    log_size = 0
    checkpoint = None
    if config.resume:
        model, checkpoint = load_checkpoint(config.out_dir, device)
        require_same(checkpoint, config, meta)
        start = checkpoint["iter"]
        log_size = checkpoint["log_size"]
    else:
        is_new = not (out / "ckpt.pt").exists()
        require(is_new, f"{out} holds a run: --resume goes on with it, --name=... is another")
        model = GPT(config).to(device)
        if config.init_from:
            start_from(model, config.init_from)
    model.train()
    casting = autocast(device, config.dtype)  # its fast_dtype is what matrix products are computed in
    optimizer = torch.optim.AdamW(
        model.parameters(),
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=casting.fast_dtype == torch.float16)
    if checkpoint:
        optimizer.load_state_dict(checkpoint["optimizer"])
        scaler.load_state_dict(checkpoint["scaler"])
    checkpoint = None  # 12 bytes a weight
    if config.compile:
        model.compile()  # in place, so that the names in the checkpoint stay
    parallel = model
    if world_size > 1:  # FoPE's buffers are the same everywhere, by the seed, and stay so
        parallel = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    if main_process:
        out.mkdir(parents=True, exist_ok=True)
        log = open_log(out, log_size)
        (out / "config.json").write_text(json.dumps(asdict(config), indent=1))
        size = f"{model.num_params() / 1e6:.2f}M parameters, {len(train_tokens) / 1e6:.1f}M tokens"
        print(f"{out}: {size}, {world_size} x {device}, {casting.fast_dtype}", flush=True)
    hide_bar = None if main_process else True  # None: where the output is no terminal
    bar = tqdm(total=config.max_iters, initial=start, unit="step", disable=hide_bar)

    def report(entry: dict):  # called in every process, so that all end together if a loss is not finite
        text = ", ".join(f"{key} {value:,.6g}" for key, value in entry.items())
        is_finite = all(math.isfinite(value) for value in entry.values())
        require(is_finite, f"the loss is not finite ({text}); {out} keeps its last checkpoint, if it has one")
        if main_process:
            log.write(json.dumps(entry) + "\n")
            log.flush()
            tqdm.write(text)

    # The loop
    tokens_per_step = config.batch_size * config.gradient_accumulation_steps * config.block_size
    logged = start  # steps that were done at the last log line
    clock = time.perf_counter()  # its time
    for step in range(start, config.max_iters + 1):
        if step > start and (step % config.eval_interval == 0 or step == config.max_iters):
            pause = time.perf_counter()
            with casting:
                at_n = validate(model, val_text, config.block_size)
                at_4n = validate(model, val_text, stretch)
            report({"iter": step, "val_loss": at_n, "val_loss_4x": at_4n})
            if main_process:
                state = {
                    "iter": step,
                    "config": asdict(config),
                    "meta": meta,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
                    "log_size": log.tell(),
                }
                torch.save(state, out / "ckpt.tmp")
                os.replace(out / "ckpt.tmp", out / "ckpt.pt")  # so that ckpt.pt is never half a file
            clock += time.perf_counter() - pause  # evaluating is not training
        if step == config.max_iters:
            break

        lr = get_lr(config, step)
        optimizer.param_groups[0]["lr"] = lr
        step_loss = torch.zeros((), device=device)
        for micro in range(micro_steps):
            # This process's rows of the global batch
            first = (micro * world_size + rank) * config.batch_size
            rows = range(first, first + config.batch_size)
            x, y = get_batch(config, train_tokens, encoding, step, rows)
            if device.type == "cuda":  # from pinned memory the copy runs while the GPU still works
                x = x.pin_memory()
                y = y.pin_memory()
            x = x.to(device, non_blocking=device.type == "cuda")
            y = y.to(device, non_blocking=device.type == "cuda")
            # Gradients are averaged over the processes once a step.
            parallel.require_backward_grad_sync = micro == micro_steps - 1
            with casting:
                loss = parallel(x, y)[1] / micro_steps
            scaler.scale(loss).backward()
            step_loss += loss.detach()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        scaler.step(optimizer)
        scaler.update()
        model.zero_grad()
        bar.update()

        if step % config.log_interval == 0:
            step_loss /= world_size
            if world_size > 1:
                dist.all_reduce(step_loss)
            now = time.perf_counter()
            speed = tokens_per_step * (step + 1 - logged) / (now - clock)
            report({"iter": step, "loss": step_loss.item(), "lr": lr, "tokens_per_s": speed})
            logged = step + 1
            clock = now
    bar.close()
    parallel = None  # DDP has to go before its process group, or a process may hang at the end
    if world_size > 1:
        dist.destroy_process_group()

    if main_process:
        with casting:
            text = "".join(stream_text(model.eval(), encoding, "", max_new_tokens=300, top_k=50))
        print(f"\ndone: {out}/ckpt.pt; a sample of it:\n\n{text}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a pipe or terminal may not know every character
    train(parse_config(sys.argv[1:]))
