"""
What a run can be trusted with: kill -9, many processes, failing disks and machines, bad input.

    pytest tests/test_trust.py

Processes that are killed, that train together or run out of disk are forked by a server that has torch loaded
already: they are real processes and cost a tenth of what starting Python costs. One test starts torchrun.
"""

import contextlib
import errno
import gc
import io
import json
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import (
    ENCODING,
    PASSKEYS,
    ROOT,
    arguments,
    assert_same_run,
    checkpoint,
    log,
    losses,
    quicken,
    run,
    snapshot,
    write_corpus,
)
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import data
import passkey
import perplexity
import sample
import train
from model import GPT, load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX here")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["pytest", "torch._dynamo", "train"]
)  # the optimizer imports _dynamo at its first step
PATIENCE = 300  # seconds after which a process counts as hung


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    quicken(monkeypatch.setattr)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data") / "letters")


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory) -> Path:
    """The directory of a run that ended, not to be changed."""
    quicken()
    out = tmp_path_factory.mktemp("finished") / "out"
    run(corpus, out, max_iters=2)
    return out


# ---------------------------------------------------------------------------------------------------------
# Processes


def work(argv: list[str], environment: dict, stdout: Path, stderr: Path, hook, args: tuple) -> None:
    """What a process does: train, with the hook's changes; what it says goes to files."""
    os.environ.update(environment)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs are started deaf to Ctrl-C
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    quicken()
    if hook:
        hook(*args)
    train.train(train.parse_config(argv))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Group:
    """Processes that run the same command line, joined as torchrun would join them."""

    def __init__(self, directory: Path, argv: list[str], world: int = 1, hook=None, *args) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.processes = []
        port = free_port()
        for rank in range(world):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            environment = {key: str(number) for key, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}
            files = (directory / f"stdout{rank}", directory / f"stderr{rank}")
            process = SERVER.Process(target=work, args=(argv, environment, *files, hook, args))
            process.start()
            self.processes.append(process)

    def end(self) -> list[int]:
        """The exit codes, once all have ended by themselves."""
        deadline = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0))
        hung = [process for process in self.processes if process.is_alive()]
        for process in hung:
            process.kill()
        assert not hung, "processes stayed behind:\n" + self.stderr()
        return [process.exitcode for process in self.processes]

    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def said(self, kind: str, rank: int) -> str:
        return (self.directory / f"{kind}{rank}").read_text()

    def stderr(self) -> str:
        return "".join(self.said("stderr", rank) for rank in range(len(self.processes)))


def await_true(condition, alive, patience: float = PATIENCE) -> None:
    """Returns when the condition holds, before those that should bring it about have died."""
    deadline = time.monotonic() + patience
    while not condition():
        assert alive() and time.monotonic() < deadline
        time.sleep(0.01)


def lines_of(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def at_first_save(strike) -> None:
    """Before there is a checkpoint, and after there is a log."""

    def save(*args):
        strike()

    torch.save = save


# Moments: each has `strike` come in the middle of something, after the checkpoint of step 2.


def at_step(strike) -> None:
    whole = train.get_batch

    def get_batch(config, tokens, encoding, step, rows):
        if step == 3:
            strike()
        return whole(config, tokens, encoding, step, rows)

    train.get_batch = get_batch


def at_write(strike, number: int = 60) -> None:
    """Torch writes a checkpoint in pieces: after that many of them in the third checkpoint, of step 4."""
    whole = torch.save
    calls = []

    class Striking:
        def __init__(self, file):
            self.file = file
            self.pieces = 0

        def write(self, piece):
            self.pieces += 1
            if self.pieces == number:
                self.file.flush()
                strike()
            return self.file.write(piece)

        def flush(self):
            self.file.flush()

    def save(state, file):
        calls.append(file)
        whole(state, Striking(file) if len(calls) == 3 else file)

    torch.save = save


def at_replace(strike, after: bool) -> None:
    """Where the third checkpoint is moved into place."""
    whole = os.replace
    calls = []

    def replace(source, target):
        if target.name == "ckpt.pt":
            calls.append(target)
        if len(calls) == 3 and not after:
            strike()
        whole(source, target)
        if len(calls) == 3:
            strike()

    os.replace = replace


def at_log(strike, key: str, out: Path) -> None:
    """Half a line is written."""
    whole = json.dumps

    def dumps(entry, **how):
        text = whole(entry, **how)
        if key in entry and entry["iter"] == 4:
            with open(out / "log.jsonl", "a") as file:
                file.write(text[: len(text) // 2])
            strike()
        return text

    json.dumps = dumps


MOMENTS = {
    "in a step": lambda out: at_step(die),
    "writing a checkpoint": lambda out: at_write(die),
    "before a checkpoint is moved": lambda out: at_replace(die, after=False),
    "after a checkpoint is moved": lambda out: at_replace(die, after=True),
    "writing a line of the log": lambda out: at_log(die, "loss", out),
    "writing an evaluation's line": lambda out: at_log(die, "val_loss", out),
}


def at(moment: str, out: Path) -> None:
    MOMENTS[moment](out)


# ---------------------------------------------------------------------------------------------------------
# kill -9


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Path:
    quicken()
    out = tmp_path_factory.mktemp("whole") / "out"
    run(corpus, out, **PASSKEYS)
    return out


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed(moment, corpus, whole, tmp_path):
    """Equals, to the last bit, the run that nobody killed, and so does its log; with dropout and passkeys."""
    out = tmp_path / "out"
    killed = Group(tmp_path, arguments(corpus, out, **PASSKEYS), 1, at, moment, out)
    assert killed.end() == [-signal.SIGKILL], killed.stderr()
    assert 2 <= checkpoint(out)["iter"] <= 4  # whatever was going on, the file under this name is whole
    run(corpus, out, resume=True, **PASSKEYS)
    assert_same_run(whole, out)
    assert sorted(path.name for path in out.iterdir()) == ["ckpt.pt", "config.json", "log.jsonl"]


def test_killed_before_a_checkpoint(corpus, whole, tmp_path):
    """There is nothing to resume yet. Begun again, the log too is begun again."""
    out = tmp_path / "out"
    killed = Group(tmp_path, arguments(corpus, out, **PASSKEYS), 1, at_first_save, die)
    assert killed.end() == [-signal.SIGKILL], killed.stderr()
    assert (out / "log.jsonl").exists() and not (out / "ckpt.pt").exists()
    fails(lambda: run(corpus, out, resume=True, **PASSKEYS), str(out))
    run(corpus, out, **PASSKEYS)
    assert_same_run(whole, out)


def hang() -> None:
    at_step(lambda: time.sleep(2 * PATIENCE))


def test_two_processes_killed_and_resumed(corpus, tmp_path):
    """From outside."""
    settings = {"gradient_accumulation_steps": 2, "optimizer": "muon", **PASSKEYS}
    out = tmp_path / "parts" / "out"
    whole = Group(tmp_path / "whole", arguments(corpus, tmp_path / "whole" / "out", **settings), 2)
    parts = Group(tmp_path / "parts", arguments(corpus, out, **settings), 2, hang)
    await_true(lambda: lines_of(out / "log.jsonl") == 5, parts.alive)  # two evaluations and three steps
    for process in parts.processes:
        process.kill()
    assert parts.end() == [-signal.SIGKILL] * 2
    assert checkpoint(out)["iter"] == 2
    resumed = Group(tmp_path / "parts", arguments(corpus, out, resume=True, **settings), 2)
    assert (whole.end(), resumed.end()) == ([0, 0], [0, 0]), whole.stderr() + resumed.stderr()
    assert_same_run(tmp_path / "whole" / "out", out)


# ---------------------------------------------------------------------------------------------------------
# Many processes


def count_syncs(directory: Path) -> None:
    """Writes a line for every bucket of gradients that is averaged; this model's gradients are one bucket."""

    def average(directory, bucket):
        with open(directory / f"syncs{os.environ['RANK']}", "a") as file:
            file.write("one\n")
        return allreduce_hook(None, bucket)

    class Counting(train.DistributedDataParallel):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.register_comm_hook(directory, average)

    train.DistributedDataParallel = Counting


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory) -> dict[str, Path]:
    """One process's runs of 8 sequences a step, by optimizer, with three stretches to validate."""
    quicken()
    out = tmp_path_factory.mktemp("alone")
    for optimizer in ("adamw", "muon"):
        run(corpus, out / optimizer, batch_size=8, eval_tokens=192, optimizer=optimizer)
    return {optimizer: out / optimizer for optimizer in ("adamw", "muon")}


SPLITS = [(2, 1, 8, "adamw"), (2, 4, 2, "muon"), (4, 2, 4, "adamw")]


@pytest.mark.parametrize("world, batch_size, accumulate, optimizer", SPLITS)
def test_processes_give_the_same_run(world, batch_size, accumulate, optimizer, corpus, alone, tmp_path):
    """Each takes its rows of the same global batch, gradients are averaged once a step, one process speaks.

    The fourth of four processes finds no stretch to validate. Muon makes differences of the last bit larger.
    """
    out = tmp_path / "out"
    settings = {"batch_size": batch_size, "gradient_accumulation_steps": accumulate, "optimizer": optimizer}
    argv = arguments(corpus, out, eval_tokens=192, **settings)
    group = Group(tmp_path, argv, world, count_syncs, tmp_path)
    assert group.end() == [0] * world, group.stderr()
    assert losses(out, "val_loss")[0] == pytest.approx(losses(alone[optimizer], "val_loss")[0], rel=1e-6)
    tolerance = 1e-5 if optimizer == "adamw" else 1e-3
    for key in ("loss", "val_loss", "val_loss_4x"):
        np.testing.assert_allclose(losses(out, key), losses(alone[optimizer], key), rtol=tolerance)
    expected = checkpoint(alone[optimizer])["model"]
    for name, value in checkpoint(out)["model"].items():
        assert (value - expected[name]).norm() <= 10 * tolerance**0.5 * expected[name].norm(), name
    assert [lines_of(tmp_path / f"syncs{rank}") for rank in range(world)] == [6] * world
    assert [group.said("stdout", rank).count("done") for rank in range(world)] == [1] + [0] * (world - 1)


def prepare_late(corpus: Path) -> None:
    def make(name: str) -> None:
        time.sleep(0.5)
        write_corpus(corpus)

    data.make_if_free = make


def test_others_wait_for_the_corpus(corpus, tmp_path):
    """The first process makes it, and the others read what it has made."""
    made = tmp_path / "made"
    argv = arguments(corpus, tmp_path / "out", gradient_accumulation_steps=2, max_iters=1, dataset=made)
    group = Group(tmp_path, argv, 2, prepare_late, made)
    assert group.end() == [0, 0], group.stderr()


def test_failed_rank(corpus, tmp_path):
    """kill -9 on one of torchrun's processes ends them all."""
    out = tmp_path / "out"
    pids = tmp_path / "pids.py"
    pids.write_text(  # a configuration file is Python: this one has its process write down who it is
        "import os as _os, pathlib as _pathlib\n"
        f"_pathlib.Path({str(tmp_path)!r}, 'pid' + _os.environ['RANK']).write_text(str(_os.getpid()))"
    )
    settings = {"max_iters": 10**6, "gradient_accumulation_steps": 2, "eval_interval": 50}
    options = ["--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    argv = [str(pids), *arguments(corpus, out, **settings)]
    command = [sys.executable, "-m", "torch.distributed.run", *options, ROOT / "train.py", *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    agent = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)
    try:
        await_true(lambda: lines_of(out / "log.jsonl") >= 60, lambda: agent.poll() is None)
        ids = [int((tmp_path / f"pid{rank}").read_text()) for rank in range(2)]
        os.kill(ids[1], signal.SIGKILL)
        _, stderr = agent.communicate(timeout=PATIENCE)
    finally:
        agent.kill()
    assert agent.returncode != 0 and all(gone(pid) for pid in ids)
    assert "Signal 9" in stderr  # torchrun names the process that failed
    assert checkpoint(out)["iter"] >= 50
    assert_good(out)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---------------------------------------------------------------------------------------------------------
# Two runs, one directory


def until(signal: Path) -> None:
    """The run waits at its first batch, so that it is going on as long as the test wants it to."""
    whole = train.get_batch

    def get_batch(*args):
        while not signal.exists():
            time.sleep(0.01)
        return whole(*args)

    train.get_batch = get_batch


@pytest.mark.parametrize("resume", [False, True], ids=["new", "resumed"])
def test_two_runs_at_once(resume, corpus, whole, tmp_path):
    """Exactly one goes on, as if it had been alone; the other ends in one line."""
    out = tmp_path / "out"
    if resume:
        run(corpus, out, **{**PASSKEYS, "max_iters": 2})
    signal = tmp_path / "signal"
    argv = arguments(corpus, out, resume=resume, **PASSKEYS)
    first, second = [Group(tmp_path / name, argv, 1, until, signal) for name in ("first", "second")]
    try:
        await_true(lambda: not (first.alive() and second.alive()), lambda: True, patience=60)
    finally:
        signal.touch()  # else those that wait for it would keep pytest from ending
    codes = first.end() + second.end()
    assert sorted(codes) == [0, 1], first.stderr() + second.stderr()
    assert str(out) in one_line((second if codes[1] else first).stderr())
    if resume:  # its first part ended with a shorter schedule
        assert [entry["iter"] for entry in log(out) if "loss" in entry] == list(range(6))
    else:
        assert_same_run(whole, out)


def test_temporary_names_hold_the_process(tmp_path, monkeypatch):
    """So two processes that write one file do not write into each other's."""
    sources = []
    monkeypatch.setattr(os, "replace", lambda source, target: sources.append(source))
    data.write_json(tmp_path / "config.json", {})
    assert str(os.getpid()) in sources[0].name and sources[0].parent == tmp_path


# ---------------------------------------------------------------------------------------------------------
# What goes wrong on a machine: the last good checkpoint stays, the message is clear, no process stays behind


def one_line(stderr: str) -> str:
    """The only line of stderr, which is an error; argparse puts the script's name before it."""
    assert re.fullmatch(r"([\w.-]+: )?error: [^\n]{1,600}\n", stderr), stderr
    return stderr


def assert_good(out: Path) -> None:
    load_checkpoint(str(out), torch.device("cpu"))  # checks that weights are finite
    assert not list(out.glob("*.tmp"))


def disk_of(size: int) -> None:
    """No file can be longer than so many bytes: what a full disk does to a checkpoint that grows."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("world", [1, 2])
def test_full_disk(world, corpus, tmp_path):
    """The checkpoint before the first step is small, AdamW remembers nothing yet; the next finds no room."""
    out = tmp_path / "out"
    argv = arguments(corpus, out, gradient_accumulation_steps=world)
    group = Group(tmp_path, argv, world, disk_of, 100_000)
    codes = group.end()
    assert codes[0] == 1 and all(codes)
    message = one_line(group.said("stderr", 0))
    assert str(out / "ckpt.pt") in message and os.strerror(errno.EFBIG) in message  # why, not only where
    assert checkpoint(out)["iter"] == 0
    assert_good(out)
    if world == 1:  # with room again, nothing is lost
        run(corpus, tmp_path / "whole")
        run(corpus, out, resume=True)
        assert_same_run(tmp_path / "whole", out)


def no_room_in_the_log(out: Path) -> None:
    at_step(lambda: disk_of((out / "log.jsonl").stat().st_size + 20))


def test_full_disk_for_the_log(corpus, tmp_path):
    """Half a line fits. Resumed where there is room, it is as if nothing had been."""
    run(corpus, tmp_path / "whole")
    out = tmp_path / "out"
    group = Group(tmp_path, arguments(corpus, out), 1, no_room_in_the_log, out)
    assert group.end() == [1]
    message = one_line(group.stderr())
    assert str(out) in message and os.strerror(errno.EFBIG) in message
    assert not (out / "log.jsonl").read_text().endswith("\n")
    assert_good(out)
    run(corpus, out, resume=True)
    assert_same_run(tmp_path / "whole", out)


INTERRUPTIONS = {"in a step": at_step, "writing a checkpoint": at_write}


def interrupted(moment: str) -> None:
    INTERRUPTIONS[moment](interrupt)


@pytest.mark.parametrize("world, moment", [(1, "in a step"), (1, "writing a checkpoint"), (2, "in a step")])
def test_interrupted(world, moment, corpus, tmp_path):
    """Ctrl-C, which reaches all processes, says how to go on, also in the middle of writing a checkpoint."""
    out = tmp_path / "out"
    argv = arguments(corpus, out, gradient_accumulation_steps=world)
    group = Group(tmp_path, argv, world, interrupted, moment)
    assert all(code not in (0, -signal.SIGKILL) for code in group.end())
    stderr = group.said("stderr", 0)
    assert re.fullmatch(r"interrupted at iter [34]; [^\n]*--resume [^\n]*iter 2\n", stderr), stderr
    assert "Traceback" not in group.stderr()
    assert checkpoint(out)["iter"] == 2
    assert_good(out)


def test_interrupted_before_a_checkpoint(corpus, tmp_path):
    """There is nothing to go on from, and the message promises nothing."""
    group = Group(tmp_path, arguments(corpus, tmp_path / "out"), 1, at_first_save, interrupt)
    assert group.end()[0] not in (0, -signal.SIGKILL)
    assert re.fullmatch(r"interrupted [^\n]*nothing was saved[^\n]*\n", group.stderr()), group.stderr()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "log.jsonl"]


@pytest.mark.parametrize("settings", [{}, {"log_interval": 100}], ids=str)
def test_loss_that_is_not_finite(settings, corpus, tmp_path):
    """Ends the run before such weights could be saved, also where only the evaluation can see it."""
    out = tmp_path / "out"
    settings = {"learning_rate": 1e15, "min_lr": 0, "warmup_iters": 0} | settings
    fails(lambda: run(corpus, out, **settings), "loss is")
    assert_good(out)


@pytest.fixture
def little_memory():
    """No more than 64 GiB of addresses, so that the system does not promise what it does not have."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (2**36, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name, value", [("n_embd", 2**40), ("batch_size", 10**12), ("block_size", 2**40)])
def test_sizes_that_no_memory_holds(name, value, corpus, tmp_path, little_memory):
    fails(lambda: run(corpus, tmp_path / "out", **{name: value}))


def test_a_batch_that_no_memory_holds(corpus, tmp_path, monkeypatch):
    """As torch's own allocator on a CPU says it, in the middle of training; a bug keeps its traceback."""
    forward = GPT.forward
    for need, kind in (
        (lambda: torch.empty(2**50), SystemExit),
        (lambda: torch.ones(2) @ torch.ones(3), RuntimeError),
    ):

        def fail(model, idx, targets=None, need=need):
            return need() if model.training else forward(model, idx, targets)

        monkeypatch.setattr(GPT, "forward", fail)
        with pytest.raises(kind) as end:
            run(corpus, tmp_path / kind.__name__)
        assert ("iter 0: " in str(end.value) and "memory" in str(end.value)) == (kind is SystemExit)
        assert_good(tmp_path / kind.__name__)


def test_more_validation_than_there_is(corpus, tmp_path):
    """The whole split, as often as it goes into stretches."""
    run(corpus, tmp_path / "all", eval_tokens=10**15, max_iters=1)
    run(corpus, tmp_path / "once", eval_tokens=2000, max_iters=1)
    assert losses(tmp_path / "all", "val_loss") == losses(tmp_path / "once", "val_loss")


# ---------------------------------------------------------------------------------------------------------
# Evaluating changes nothing


SCRIPTS = {
    sample: ["--max_new_tokens=5", "--num_samples=2", "--logn_scale=1"],
    perplexity: ["--lengths", "8", "16", "--tokens=64", "--logn_scale=1"],
    passkey: ["--lengths=130", "--trials=10"],
}
NAMES = [module.__name__ for module in SCRIPTS]


def script(monkeypatch, module, *argv) -> None:
    """The script's main function, with a command line."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, argv)])
    module.main()


@pytest.mark.parametrize("module", SCRIPTS, ids=NAMES)
def test_a_run_is_only_read(module, finished, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(finished, tmp_path / "out")
    before = snapshot(out)
    monkeypatch.chdir(out)  # nor does anything appear where the user stands
    script(monkeypatch, module, out, *SCRIPTS[module], "--device=cpu")
    assert capsys.readouterr().out
    assert snapshot(out) == before


# ---------------------------------------------------------------------------------------------------------
# Bad input: one line, which names what is wrong


def fails(call, *words: str) -> None:
    """Calls, and expects one line that holds all the words. An exit with text prints it, with status 1."""
    stderr = io.StringIO()
    with pytest.raises(SystemExit) as error, contextlib.redirect_stderr(stderr):
        call()
    code = error.value.code
    del error
    gc.collect()  # the frames that the exception kept alive, and with them a log and its lock
    message = one_line(f"{code}\n" if isinstance(code, str) else stderr.getvalue())
    for word in words:
        assert word in message, message


# What the model's settings refuse is in test_model.py.
POSITIVE = ["batch_size", "gradient_accumulation_steps", "max_iters", "eval_interval", "eval_tokens"]
POSITIVE += ["log_interval", "n_layer"]
NOT_NEGATIVE = ["min_lr", "warmup_iters", "muon_lr_ratio", "weight_decay", "grad_clip"]
COMMAND_LINES = [  # an argument, and words that the line says
    *((f"--{name}=0", [name]) for name in POSITIVE),
    *((f"--{name}=-1", [name]) for name in NOT_NEGATIVE),
    *((f"--{name}=nan", [name]) for name in ("learning_rate", "min_lr", "weight_decay", "passkey_frac")),
    ("--learning_rate=-1", ["learning_rate"]),
    ("--learning_rate=inf", ["learning_rate"]),
    ("--beta1=1", ["beta1"]),
    ("--beta2=1", ["beta2"]),
    ("--passkey_frac=-0.1", ["passkey_frac"]),
    ("--passkey_frac=1.1", ["passkey_frac"]),
    ("--seed=-1", ["seed"]),
    (f"--seed={2**32}", ["seed"]),
    ("--dtype=int8", ["dtype", "bfloat16"]),
    ("--optimizer=sgd", ["optimizer", "muon"]),
    ("--pos=rotary", ["pos", "rope_a"]),
    ("--n_layer=two", ["n_layer", "two"]),
    ("--n_layer=1.5", ["n_layer", "1.5"]),
    ("--n_layer", ["n_layer"]),
    ("--learning_rate=fast", ["learning_rate", "fast"]),
    ("--qk_norm=maybe", ["qk_norm", "maybe"]),
    ("--n_heads=2", ["n_heads", "n_head"]),
    ("--n_lay=2", ["n_lay", "n_layer"]),
    ("--learning-rate=1", ["learning-rate", "learning_rate"]),
    ("--colour=red", ["colour", "--help"]),
    ("--vocab_size=5", ["vocab_size"]),
    ("-x", ["x"]),
    ("config/none.py", ["config/none.py"]),
    ("config", ["config"]),
]


@pytest.mark.parametrize("argument, words", COMMAND_LINES, ids=lambda value: str(value))
def test_bad_command_line(argument, words):
    fails(lambda: train.parse_config([argument]), *words)


BAD_FILES = {
    "n_heads = 2": "n_head",
    "name = 5": "str",
    "n_layer = None": "int",
    "n_layer = True": "int",
    "n_layer = 1e1": "int",
    "qk_norm = 1": "bool",
    "n_layer = '": "mine.py",
    "n_layer = 1 / 0": "mine.py",
    "import math": "math",
    "\0": "mine.py",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_bad_configuration_file(text, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    fails(lambda: train.parse_config([str(tmp_path / "mine.py")]), BAD_FILES[text])


def test_what_only_the_model_refuses(corpus, tmp_path):
    fails(lambda: run(corpus, tmp_path / "out", pos="rope", n_embd=18, n_head=2), "head_dim", "9")
    fails(lambda: run(corpus, tmp_path / "out", fope_dim=12), "fope_dim", "12")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps:7", "meta", ""])
def test_absent_device(device, corpus, finished, tmp_path, monkeypatch):
    fails(lambda: run(corpus, tmp_path / "out", device=device), "device", device)
    fails(lambda: script(monkeypatch, sample, finished, f"--device={device}"), "device", device)
    assert not (tmp_path / "out").exists()


def test_directory_in_use(corpus, finished, tmp_path):
    """A run is not overwritten, a file is not a directory."""
    out = shutil.copytree(finished, tmp_path / "out")
    before = snapshot(out)
    fails(lambda: run(corpus, out), str(out), "--resume")
    fails(lambda: run(corpus, tmp_path / "new", init_from=tmp_path / "nothing"), "nothing")
    fails(lambda: run(corpus, out, init_from=out), str(out))
    fails(lambda: run(corpus, out / "config.json"), str(out / "config.json"))
    fails(lambda: run(corpus, out / "config.json" / "below"), str(out / "config.json"))
    assert snapshot(out) == before


OTHERS = {"n_layer": 2, "n_head": 4, "block_size": 32, "pos": "rope", "fope_sigma": 0.1, "qk_norm": True}
OTHERS |= {"seed": 2, "passkey_frac": 0.5, "optimizer": "muon"}


@pytest.mark.parametrize("name", OTHERS)
def test_resume_as_another_run(name, corpus, finished):
    before = snapshot(finished)
    was = checkpoint(finished)["config"][name]
    settings = {name: OTHERS[name]} | ({"block_size": 160} if name == "passkey_frac" else {})
    fails(lambda: run(corpus, finished, resume=True, **settings), "in the checkpoint")
    if len(settings) == 1:
        fails(lambda: run(corpus, finished, resume=True, **settings), name, str(was), str(OTHERS[name]))
    assert snapshot(finished) == before


def test_resume_with_another_corpus_of_the_same_name(tmp_path):
    corpus = write_corpus(tmp_path / "letters")
    out = tmp_path / "out"
    run(corpus, out, max_iters=2)
    before = snapshot(out)
    write_corpus(corpus, seed=1)
    fails(lambda: run(corpus, out, max_iters=4, resume=True), "sha256")
    assert snapshot(out) == before
    write_corpus(corpus)
    run(corpus, out, max_iters=4, resume=True)


def test_resume_with_nothing_there(corpus, tmp_path):
    fails(lambda: run(corpus, tmp_path / "out", resume=True), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


DAMAGED_LOGS = {"empty": b"", "no text": b"\0\xff\n{", "longer": b'{"iter": null}\n' * 100, "gone": None}


@pytest.mark.parametrize("damage", DAMAGED_LOGS)
def test_resume_with_a_damaged_log(damage, corpus, finished, tmp_path):
    """The log is only written: what is lost is lost, and the run goes on."""
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "log.jsonl").unlink()
    if DAMAGED_LOGS[damage] is not None:
        (out / "log.jsonl").write_bytes(DAMAGED_LOGS[damage])
    run(corpus, out, max_iters=4, resume=True)
    written = re.findall(rb'"iter": (\d+), "', (out / "log.jsonl").read_bytes())
    assert written == [b"2", b"3", b"4"]


def test_resume_without_a_log_to_write(corpus, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "log.jsonl").unlink()
    (out / "log.jsonl").mkdir()
    fails(lambda: run(corpus, out, max_iters=4, resume=True), str(out))


def test_processes_that_do_not_divide_the_batch(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(train.dist, "init_process_group", lambda backend: None)
    fails(
        lambda: run(corpus, tmp_path / "out", gradient_accumulation_steps=4),
        "gradient_accumulation_steps",
        "3",
    )


# What is wrong inside a corpus is in test_data.py.
CORPORA = {
    "none": (shutil.rmtree, "data.prepare"),
    "damaged": (lambda corpus: os.truncate(corpus / "meta.json", 20), "meta.json"),
    "empty": (lambda corpus: write_corpus(corpus, train_tokens=0), "train.bin"),
    "shorter than a block": (lambda corpus: write_corpus(corpus, train_tokens=16), "16"),
    "shorter than 4 blocks to validate": (lambda corpus: write_corpus(corpus, val_tokens=64), "letters"),
    "fewer tokens than promised": (lambda corpus: os.truncate(corpus / "val.bin", 3000), "3000"),
}


@pytest.mark.parametrize("damage", CORPORA)
def test_bad_corpus(damage, tmp_path):
    corpus = write_corpus(tmp_path / "letters")
    config = train.parse_config(arguments(corpus, tmp_path / "out"))
    change, word = CORPORA[damage]
    change(corpus)
    fails(lambda: train.train(config), word)
    assert not (tmp_path / "out").exists()


def test_corpus_without_room_for_passkeys(corpus, tmp_path):
    least = str(passkey.shortest(ENCODING))
    fails(lambda: run(corpus, tmp_path / "out", passkey_frac=0.5, block_size=100), "block_size", least)


class Malicious:
    """What pickle, let loose, would turn into a file on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def rewrite(**changes):
    """Writes a checkpoint that is another one but for some entries; an entry None is left out."""

    def change(path: Path) -> None:
        state = {**torch.load(path, weights_only=True), **changes}
        torch.save({key: value for key, value in state.items() if value is not None}, path)

    return change


def config_with(**settings):
    def change(path: Path) -> None:
        config = torch.load(path, weights_only=True)["config"]
        rewrite(config={**config, **settings})(path)

    return change


def not_finite(path: Path) -> None:
    weights = torch.load(path, weights_only=True)["model"]
    weights["norm.weight"] *= float("nan")
    rewrite(model=weights)(path)


def malicious(path: Path) -> None:
    torch.save({"model": Malicious(path.parent / "ran")}, path)


def malicious_old(path: Path) -> None:
    torch.save({"model": Malicious(path.parent / "ran")}, path, _use_new_zipfile_serialization=False)


def malicious_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Malicious(path.parent / "ran")}, protocol=2))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "text": lambda path: path.write_text("hello"),
    "malicious": malicious,
    "malicious in the old format": malicious_old,
    "malicious pickle": malicious_pickle,
    "a list": lambda path: torch.save([1, 2], path),
    "weights alone": lambda path: torch.save(torch.load(path, weights_only=True)["model"], path),
    "weights that are none": rewrite(model=[1]),
    "other weights": rewrite(model={"weight": torch.zeros(3)}),
    "weights that are not finite": not_finite,
    "a configuration that is none": rewrite(config=[1]),
    "settings missing": rewrite(config={}),
    "impossible settings": config_with(n_head=3),
    "a setting of another type": config_with(block_size="16"),
    "unknown encoding of positions": config_with(pos="rotary"),
    "no corpus": config_with(dataset=None),
    "an encoding missing": rewrite(meta={}),
    "a corpus that is none": rewrite(meta=[1]),
    "no step": rewrite(iter="many"),
    "a negative step": rewrite(iter=-1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_bad_checkpoint(damage, finished, tmp_path):
    """No code in it runs, no file changes, and the line says which directory it is."""
    old = shutil.copytree(finished, tmp_path / "old")
    DAMAGE[damage](old / "ckpt.pt")
    before = snapshot(old)
    fails(lambda: load_checkpoint(str(old), torch.device("cpu")), str(old))
    assert snapshot(old) == before


@pytest.mark.parametrize(
    "use", ["resume", "init_from", *SCRIPTS], ids=lambda use: getattr(use, "__name__", use)
)
def test_every_use_of_a_bad_checkpoint(use, corpus, finished, tmp_path, monkeypatch):
    old = shutil.copytree(finished, tmp_path / "old")
    DAMAGE["cut"](old / "ckpt.pt")
    before = snapshot(old)
    if use == "resume":
        fails(lambda: run(corpus, old, resume=True), str(old))
    elif use == "init_from":
        fails(lambda: run(corpus, tmp_path / "new", init_from=old), str(old))
    else:
        fails(lambda: script(monkeypatch, use, old, "--device=cpu"), str(old))
    assert snapshot(old) == before
    assert not (tmp_path / "new").exists()


OPTIMIZERS = {
    "none": rewrite(optimizers=None),
    "no list": rewrite(optimizers=1),
    "too few": rewrite(optimizers=[]),
    "another": rewrite(optimizers=[{"state": {}, "param_groups": []}]),
}


@pytest.mark.parametrize("damage", OPTIMIZERS)
def test_resume_with_a_bad_optimizer(damage, corpus, finished, tmp_path):
    old = shutil.copytree(finished, tmp_path / "old")
    OPTIMIZERS[damage](old / "ckpt.pt")
    fails(lambda: run(corpus, old, resume=True), "" if damage == "another" else "optimizers")


@pytest.mark.parametrize("size", [None, "x", -1, 1.5, [1]])
def test_resume_with_a_bad_size_of_the_log(size, corpus, finished, tmp_path):
    old = shutil.copytree(finished, tmp_path / "old")
    rewrite(log_size=size)(old / "ckpt.pt")
    fails(lambda: run(corpus, old, max_iters=4, resume=True), "cannot make or resume")


def test_a_checkpoint_is_read_when_nobody_else_can_write_it(corpus, finished, tmp_path, monkeypatch):
    """Or a resumed run could go back behind one that has just ended."""
    fcntl = pytest.importorskip("fcntl")
    old = shutil.copytree(finished, tmp_path / "old")
    read = []

    def load(*arguments):
        with open(old / "log.jsonl", "a") as log, pytest.raises(BlockingIOError):
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        read.append(True)
        return whole(*arguments)

    whole = train.load_checkpoint
    monkeypatch.setattr(train, "load_checkpoint", load)
    run(corpus, old, max_iters=4, resume=True)
    assert read


def test_only_leftovers_of_killed_processes_are_swept_up(corpus, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.tmp").write_text("mine")
    (out / "ckpt.pt.4711.tmp").write_text("half")
    run(corpus, out, max_iters=2)
    assert (out / "notes.tmp").read_text() == "mine"
    assert not (out / "ckpt.pt.4711.tmp").exists()


@pytest.mark.parametrize(
    "option, word",
    [
        ("--temperature=-1", "temperature"),
        ("--temperature=nan", "temperature"),
        ("--temperature=warm", "warm"),
        ("--top_k=0", "top_k"),
        ("--max_new_tokens=0", "tokens"),
        ("--num_samples=-1", "samples"),
        ("--logn_scale=-1", "logn_scale"),
        ("--seed=-1", "seed"),
        ("--colour=red", "colour"),
    ],
)
def test_bad_sample(option, word, finished, monkeypatch):
    fails(lambda: script(monkeypatch, sample, finished, "--device=cpu", option), word)


def test_as_a_shell_sees_it(finished):
    """One line on stderr and status 1; and a pipe that knows few characters, as on Windows: it has no θ."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT}
    pipes["env"] = os.environ | {"PYTHONIOENCODING": "cp1252"}
    commands = [["train.py", "--n_heads=2"], ["sample.py", str(finished), "--prompt=θ", "--max_new_tokens=5"]]
    bad, good = [subprocess.Popen([sys.executable, *command], **pipes) for command in commands]
    stdout, stderr = bad.communicate(timeout=PATIENCE)
    assert stdout == b"" and bad.returncode == 1
    one_line(stderr.decode())
    stdout, stderr = good.communicate(timeout=PATIENCE)
    assert b"?" in stdout and good.returncode == 0
