"""
What a run can be trusted with: kill -9, many processes, failing disks and machines, bad input.

    pytest tests/test_trust.py

Processes that are killed, that train together or run out of disk are forked by a server that has torch loaded already:
they are real processes and cost a tenth of what starting Python costs. Two tests start torchrun itself.
"""

import errno
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
    VOCAB,
    arguments,
    assert_same_run,
    checkpoint,
    losses,
    quicken,
    run,
    snapshot,
    write_corpus,
)
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import passkey
import perplexity
import sample
import train
from model import POSITIONS, RoPE, load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX here")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pytest", "torch._dynamo", "train"])  # the optimizer imports _dynamo at its first step
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
    run(corpus, out := tmp_path_factory.mktemp("finished"), max_iters=2)
    return out


# ----------------------------------------------------------------------------------------------------------------------
# Processes


def work(argv: list[str], environment: dict, errors: Path, hook, args: tuple) -> None:
    """What a process does: train, with the hook's changes; its stderr goes to a file."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started deaf to Ctrl-C
    for number, path in ((1, os.devnull), (2, errors)):
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
        self.errors = [directory / f"stderr{rank}" for rank in range(world)]
        port, self.processes = free_port(), []
        for rank, errors in enumerate(self.errors):
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            environment = {key: str(value) for key, value in environment.items()} | {"MASTER_ADDR": "127.0.0.1"}
            self.processes.append(SERVER.Process(target=work, args=(argv, environment, errors, hook, args)))
            self.processes[-1].start()

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

    def stderr(self, rank: int | None = None) -> str:
        paths = self.errors if rank is None else [self.errors[rank]]
        return "".join(path.read_text() for path in paths if path.exists())


def await_log(out: Path, lines: int, alive) -> None:
    """Returns when a run that goes on has logged so many lines."""
    deadline = time.monotonic() + PATIENCE
    while not (out / "log.jsonl").exists() or (out / "log.jsonl").read_text().count("\n") < lines:
        assert alive() and time.monotonic() < deadline
        time.sleep(0.01)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def at_first_save(strike) -> None:
    """Before there is a checkpoint, and after there is a log."""
    torch.save = lambda *args: strike()


# Moments: each changes the process so that `strike` comes in the middle of something, after the checkpoint of step 2.


def at_step(strike) -> None:
    whole = train.get_batch

    def get_batch(config, tokens, encoding, step, rows):
        if step == 3:
            strike()
        return whole(config, tokens, encoding, step, rows)

    train.get_batch = get_batch


def at_write(strike, number: int = 60) -> None:
    """Torch writes a checkpoint in pieces: after that many of them in the second or later checkpoint."""
    whole, calls = torch.save, []

    class Striking:
        def __init__(self, file):
            self.file, self.pieces = file, 0

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


def at_replace(strike, name: str, after: bool) -> None:
    whole, calls = os.replace, []

    def replace(source, target):
        calls.extend([target] * target.name.startswith(name))
        hit = len(calls) == {"ckpt.pt": 3, "log.jsonl": 1}[name]
        if hit and not after:
            strike()
        whole(source, target)
        if hit and after:
            strike()

    os.replace = replace


def at_log(strike, key: str, out: Path) -> None:
    """Half a line is written."""
    whole = json.dumps

    def dumps(entry, **how):
        text = whole(entry, **how)
        if key in entry and entry["iter"] == 4:
            (out / "log.jsonl").open("a").write(text[: len(text) // 2])
            strike()
        return text

    json.dumps = dumps


MOMENTS = {
    "in a step": lambda out: at_step(die),
    "writing a checkpoint": lambda out: at_write(die),
    "before a checkpoint is moved": lambda out: at_replace(die, "ckpt.pt", after=False),
    "after a checkpoint is moved": lambda out: at_replace(die, "ckpt.pt", after=True),
    "writing a line of the log": lambda out: at_log(die, "loss", out),
    "writing an evaluation's line": lambda out: at_log(die, "val_loss", out),
}


def at(moment: str, out: Path) -> None:
    MOMENTS[moment](out)


# ----------------------------------------------------------------------------------------------------------------------
# kill -9


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Path:
    quicken()
    run(corpus, out := tmp_path_factory.mktemp("whole"), **PASSKEYS)
    return out


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed(moment, corpus, whole, tmp_path):
    """Equals, to the last bit, the run that nobody killed; with dropout and passkey prompts."""
    out = tmp_path / "out"
    killed = Group(tmp_path, arguments(corpus, out, **PASSKEYS), 1, at, moment, out)
    assert killed.end() == [-signal.SIGKILL], killed.stderr()
    assert 2 <= checkpoint(out)["iter"] <= 4  # whatever was going on, the file under this name is whole
    run(corpus, out, resume=True, **PASSKEYS)
    assert_same_run(whole, out)
    assert sorted(path.name for path in out.iterdir()) == ["ckpt.pt", "config.json", "log.jsonl"]


def test_killed_while_resuming(corpus, whole, tmp_path):
    """And killed again where the resumed run rewrites the log."""
    out = tmp_path / "out"
    for hook, resume in ((at_step, False), (at_replace, True)):
        args = (die,) if hook is at_step else (die, "log.jsonl", False)
        killed = Group(tmp_path, arguments(corpus, out, resume=resume, **PASSKEYS), 1, hook, *args)
        assert killed.end() == [-signal.SIGKILL], killed.stderr()
    run(corpus, out, resume=True, **PASSKEYS)
    assert_same_run(whole, out)


def test_killed_before_a_checkpoint(corpus, whole, tmp_path):
    """There is nothing to resume yet. Begun again, the log too is begun again."""
    out = tmp_path / "out"
    killed = Group(tmp_path, arguments(corpus, out, **PASSKEYS), 1, at_first_save, die)
    assert killed.end() == [-signal.SIGKILL], killed.stderr()
    assert (out / "log.jsonl").exists() and not (out / "ckpt.pt").exists()
    fails(lambda: run(corpus, out, resume=True, **PASSKEYS), str(out))
    run(corpus, out, **PASSKEYS)
    assert_same_run(whole, out)
    assert sorted(path.name for path in out.iterdir()) == ["ckpt.pt", "config.json", "log.jsonl"]


def slowly(seconds: float) -> None:
    whole = train.get_batch
    train.get_batch = lambda *args: time.sleep(seconds) or whole(*args)


def test_two_processes_killed_and_resumed(corpus, tmp_path):
    """From outside, at no moment in particular."""
    settings = {"gradient_accumulation_steps": 2, "max_iters": 16, **PASSKEYS}
    whole = Group(tmp_path, arguments(corpus, tmp_path / "whole", **settings), 2)
    parts = Group(tmp_path, arguments(corpus, out := tmp_path / "parts", **settings), 2, slowly, 0.2)
    await_log(out, 8, lambda: all(process.is_alive() for process in parts.processes))
    for process in parts.processes:
        process.kill()
    assert parts.end() == [-signal.SIGKILL] * 2
    assert 2 <= checkpoint(out)["iter"] < 16
    resumed = Group(tmp_path, arguments(corpus, out, resume=True, **settings), 2)
    assert (whole.end(), resumed.end()) == ([0, 0], [0, 0]), whole.stderr() + resumed.stderr()
    assert_same_run(tmp_path / "whole", out)


# ----------------------------------------------------------------------------------------------------------------------
# Many processes


def count_syncs(directory: Path) -> None:
    """Writes a line for every bucket of gradients that is averaged over the processes; this model's are one bucket."""

    def average(directory, bucket):
        with open(directory / f"syncs{os.environ['RANK']}", "a") as file:
            file.write("one\n")
        return allreduce_hook(None, bucket)

    class Counting(train.DistributedDataParallel):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.register_comm_hook(directory, average)

    train.DistributedDataParallel = Counting


def shares(batch_size: int, accumulate: int) -> dict:
    """Settings of which all have 8 sequences a step and 16 validation windows."""
    return {"batch_size": batch_size, "gradient_accumulation_steps": accumulate, "eval_iters": 16 // batch_size}


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory) -> Path:
    quicken()
    run(corpus, out := tmp_path_factory.mktemp("alone"), **shares(8, 1))
    return out


@pytest.mark.parametrize("world, batch_size, accumulate", [(2, 4, 2), (2, 1, 8), (4, 2, 4), (4, 1, 8)])
def test_processes_give_the_same_losses(world, batch_size, accumulate, corpus, alone, tmp_path):
    """Each process takes its rows of the same global batch, and gradients are averaged once a step."""
    out, settings = tmp_path / "out", shares(batch_size, accumulate)
    group = Group(tmp_path, arguments(corpus, out, **settings), world, count_syncs, tmp_path)
    assert group.end() == [0] * world, group.stderr()
    for key in ("loss", "val_loss"):
        np.testing.assert_allclose(losses(out, key), losses(alone, key), rtol=1e-5)
    assert [(tmp_path / f"syncs{rank}").read_text().count("one") for rank in range(world)] == [6] * world


def prepare_late(corpus: Path) -> None:
    def make(name: str) -> None:
        time.sleep(1)
        write_corpus(corpus)

    train.data.make_if_free = make


def test_others_wait_for_the_corpus(corpus, tmp_path):
    """The first process makes it, and the others read what it has made."""
    argv = arguments(corpus, tmp_path / "out", gradient_accumulation_steps=2, max_iters=1, dataset=tmp_path / "made")
    group = Group(tmp_path, argv, 2, prepare_late, tmp_path / "made")
    assert group.end() == [0, 0], group.stderr()


def torchrun(*options, argv: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", *options, ROOT / "train.py", *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_nodes(corpus, alone, tmp_path):
    address = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    argv = arguments(corpus, tmp_path, **shares(4, 2))
    nodes = [torchrun(*address, f"--node_rank={rank}", argv=argv) for rank in range(2)]
    try:
        outputs = [node.communicate(timeout=PATIENCE) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], outputs
    for key in ("loss", "val_loss"):
        np.testing.assert_allclose(losses(tmp_path, key), losses(alone, key), rtol=1e-5)
    said = [stdout for stdout, _ in outputs if stdout]
    assert len(said) == 1 and "2 x cpu" in said[0] and "done" in said[0]  # one process speaks


# ----------------------------------------------------------------------------------------------------------------------
# What goes wrong on a machine: the last good checkpoint stays, the message is clear, no process stays behind


def one_line(stderr: str) -> str:
    """The only line of stderr, which is an error."""
    assert re.fullmatch(r"error: [^\n]{1,600}\n", stderr), stderr
    return stderr


def assert_good(out: Path) -> None:
    model, _ = load_checkpoint(str(out), torch.device("cpu"))
    assert all(p.isfinite().all() for p in model.state_dict().values())
    assert not list(out.glob("*.tmp"))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_failed_rank(corpus, tmp_path):
    """kill -9 on one of torchrun's processes ends them all."""
    out, pids = tmp_path / "out", tmp_path / "pids.py"
    pids.write_text(  # a configuration file is Python: this one has its process write down who it is
        "import os as _os, pathlib as _pathlib\n"
        f"_pathlib.Path({str(tmp_path)!r}, 'pid' + _os.environ['RANK']).write_text(str(_os.getpid()))"
    )
    settings = {"max_iters": 10**6, "gradient_accumulation_steps": 2, "eval_interval": 50}
    argv = [*arguments(corpus, out, **settings), str(pids)]
    agent = torchrun("--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={free_port()}", argv=argv)
    try:
        await_log(out, 60, lambda: agent.poll() is None)
        ids = [int((tmp_path / f"pid{rank}").read_text()) for rank in range(2)]
        os.kill(ids[1], signal.SIGKILL)
        _, stderr = agent.communicate(timeout=PATIENCE)
    finally:
        agent.kill()
    assert agent.returncode != 0 and all(map(gone, ids))
    assert "Signal 9" in stderr  # torchrun names the process that failed
    assert checkpoint(out)["iter"] >= 50
    assert_good(out)


def disk_of(size: int) -> None:
    """No file can be longer than so many bytes: what a full disk does to a checkpoint that grows."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("world", [1, 2])
def test_full_disk(world, corpus, tmp_path):
    """The checkpoint before the first step is small, for AdamW has nothing to remember yet; the next finds no room."""
    out, settings = tmp_path / "out", {"gradient_accumulation_steps": world}
    run(corpus, whole := tmp_path / "whole", gradient_accumulation_steps=1)
    group = Group(tmp_path, arguments(corpus, out, **settings), world, disk_of, 100_000)
    codes = group.end()
    assert codes[0] == 1 and all(codes)
    message = one_line(group.stderr(0))
    assert str(out / "ckpt.pt") in message and os.strerror(errno.EFBIG) in message  # why, not only where
    assert checkpoint(out)["iter"] == 0
    assert_good(out)
    if world == 1:  # with room again, nothing is lost
        run(corpus, out, resume=True)
        assert_same_run(whole, out)


def no_room_in_the_log(out: Path) -> None:
    at_step(lambda: disk_of((out / "log.jsonl").stat().st_size + 20))


def test_full_disk_for_the_log(corpus, tmp_path):
    """Half a line fits. Resumed where there is room, it is as if nothing had been."""
    run(corpus, tmp_path / "whole")
    out = tmp_path / "out"
    group = Group(tmp_path, arguments(corpus, out), 1, no_room_in_the_log, out)
    assert group.end() == [1]
    message = one_line(group.stderr())
    assert str(out / "log.jsonl") in message and os.strerror(errno.EFBIG) in message
    assert not (out / "log.jsonl").read_text().endswith("\n")
    assert_good(out)
    run(corpus, out, resume=True)
    assert_same_run(tmp_path / "whole", out)


INTERRUPTIONS = {
    "in a step": lambda: at_step(interrupt),
    "writing a checkpoint": lambda: at_write(interrupt),
    "before a checkpoint is moved": lambda: at_replace(interrupt, "ckpt.pt", after=False),
}


def interrupted_at(moment: str, ranks: str = "01") -> None:
    if os.environ["RANK"] in ranks:
        INTERRUPTIONS[moment]()


@pytest.mark.parametrize("moment", INTERRUPTIONS)
def test_interrupted(moment, corpus, tmp_path):
    """Ctrl-C says how to go on, also in the middle of writing a checkpoint."""
    group = Group(tmp_path, arguments(corpus, tmp_path / "out"), 1, interrupted_at, moment)
    assert group.end()[0] not in (0, -signal.SIGKILL)
    assert re.fullmatch(r"interrupted [^\n]*--resume=True[^\n]*\n", group.stderr()), group.stderr()
    assert checkpoint(tmp_path / "out")["iter"] == 2
    assert_good(tmp_path / "out")


def test_interrupted_before_a_checkpoint(corpus, tmp_path):
    """There is nothing to go on from, and the message promises nothing."""
    group = Group(tmp_path, arguments(corpus, tmp_path / "out"), 1, at_first_save, interrupt)
    assert group.end()[0] not in (0, -signal.SIGKILL)
    assert re.fullmatch(r"interrupted [^\n]*nothing was saved[^\n]*\n", group.stderr()), group.stderr()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "log.jsonl"]


def test_two_processes_interrupted(corpus, tmp_path):
    """Ctrl-C reaches both."""
    argv = arguments(corpus, tmp_path / "out", gradient_accumulation_steps=2)
    group = Group(tmp_path, argv, 2, interrupted_at, "in a step")
    assert all(group.end())
    assert "interrupted at iter 3" in group.stderr(0) and "Traceback" not in group.stderr()
    assert_good(tmp_path / "out")


@pytest.mark.parametrize("settings", [{}, {"log_interval": 100}, {"grad_clip": 0}], ids=str)
def test_loss_that_is_not_finite(settings, corpus, tmp_path):
    """Ends the run before such weights could be saved, also where only the evaluation can see it."""
    fails(lambda: run(corpus, tmp_path, learning_rate=1e15, min_lr=0, warmup_iters=0, **settings), "loss is")
    assert_good(tmp_path)


# ----------------------------------------------------------------------------------------------------------------------
# Evaluating changes nothing


SCRIPTS = {
    sample: ["--max_new_tokens=5", "--num_samples=2", "--logn_scale=1"],
    perplexity: ["--lengths", "8", "16", "--tokens=64", "--logn_scale=1"],
    passkey: ["--lengths=130", "--trials=2"],
}


def script(monkeypatch, module, *argv) -> None:
    """The script's main function, with a command line."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, argv)])
    module.main()


@pytest.mark.parametrize("module", SCRIPTS, ids=lambda module: module.__name__)
def test_a_run_is_only_read(module, finished, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(finished, tmp_path / "out")
    before = snapshot(out)
    monkeypatch.chdir(out)  # nor does anything appear where the user stands
    script(monkeypatch, module, out, *SCRIPTS[module], "--device=cpu")
    assert capsys.readouterr().out
    assert snapshot(out) == before


# ----------------------------------------------------------------------------------------------------------------------
# Bad input: one line, which names what is wrong


def fails(call, *words: str) -> str:
    """Calls, and expects one line that holds all the words. An exit with text is status 1 and that text on stderr."""
    with pytest.raises(SystemExit) as error:
        call()
    message = one_line(f"{error.value.code}\n")
    for word in words:
        assert word in message, message
    return message


SIZES = "n_layer n_head n_embd block_size batch_size gradient_accumulation_steps max_iters eval_interval eval_iters"
RATES = "min_lr weight_decay grad_clip warmup_iters seed fope_sigma fope_dim pos_length logn_scale"
VALUES = [  # a setting, a value that it cannot have, and more that the line says
    *((name, value, "") for name in [*SIZES.split(), "log_interval"] for value in (0, -1)),
    *((name, -1, "") for name in RATES.split()),
    ("seed", 2**53, ""),
    *(("learning_rate", value, "") for value in (0, -1e-3, "nan", "inf")),
    *((name, value, "") for name in ("dropout", "beta1", "beta2") for value in (-0.1, 1)),
    *(("passkey_frac", value, "") for value in (-0.1, 1.1)),
    *(("rope_theta", value, "") for value in (0, 1, "inf", "nan")),
    ("yarn_scale", 0.5, ""),
    ("n_layer", "two", "int"),
    ("n_layer", 1.5, "int"),
    ("n_layer", "inf", "int"),
    ("learning_rate", "fast", "float"),
    ("qk_norm", "maybe", "bool"),
    ("fope_init", "he", "xavier"),
    ("dtype", "int8", ""),
    *(("pos", "rotary", name) for name in POSITIONS),
]


@pytest.mark.parametrize("name, value, word", VALUES, ids=lambda value: str(value))
def test_impossible_value(name, value, word):
    fails(lambda: train.parse_config([f"--{name}={value}"]), name, word)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--n_heads=2"], ["n_heads", "did you mean n_head?"]),
        (["--learning-rate=1"], ["learning-rate", "did you mean learning_rate?"]),
        (["--colour=red"], ["colour", "--help"]),
        (["--vocab_size=5"], ["vocab_size"]),
        (["--n_layer"], ["n_layer", "int"]),
        (["--n_embd=18", "--n_head=4"], ["n_embd 18", "n_head 4"]),
        (["config/none.py"], ["config/none.py"]),
        (["config"], ["config"]),
        (["-x"], ["-x", "--key=value"]),
    ],
    ids=lambda value: str(value[0]),
)
def test_bad_command_line(argv, words):
    fails(lambda: train.parse_config(argv), *words)


@pytest.mark.parametrize(
    "text, word",
    [("n_heads = 2", "n_head?"), ("name = 5", "str"), ("n_layer = None", "int"), ("n_layer = True", "int"),
     ("n_layer = '", "mine.py"), ("n_layer = 1 / 0", "mine.py"), ("import math", "math"), ("\0", "mine.py")],
)  # fmt: skip
def test_bad_configuration_file(text, word, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    fails(lambda: train.parse_config([str(tmp_path / "mine.py")]), word)


@pytest.mark.parametrize("pos", [name for name, cls in POSITIONS.items() if issubclass(cls, RoPE)])
def test_odd_head_dim(pos, corpus, tmp_path):
    fails(lambda: run(corpus, tmp_path, pos=pos, n_embd=18, n_head=2), "head_dim", "9", pos)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps:7", "hpu", "meta", ""])
def test_absent_device(device, corpus, finished, tmp_path, monkeypatch):
    fails(lambda: run(corpus, tmp_path / "out", device=device), "device", device)
    fails(lambda: script(monkeypatch, sample, finished, f"--device={device}"), "device", device)
    assert not (tmp_path / "out").exists()


def test_directory_in_use(corpus, finished, tmp_path):
    """A run is not overwritten, a file is not a directory."""
    out = shutil.copytree(finished, tmp_path / "out")
    before = snapshot(out)
    fails(lambda: run(corpus, out), str(out), "--resume=True")
    fails(lambda: run(corpus, tmp_path / "new", init_from=tmp_path / "nothing"), "nothing")
    fails(lambda: run(corpus, out, init_from=out), str(out))
    for path in (out / "config.json", out / "config.json" / "below"):
        fails(lambda path=path: run(corpus, path), str(path))
    assert snapshot(out) == before


OTHERS = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 32, "pos": "rope", "fope_sigma": 0.1, "qk_norm": True}
OTHERS |= {"seed": 2}  # and other data


@pytest.mark.parametrize("name, value", OTHERS.items())
def test_resume_with_another_architecture(name, value, corpus, finished):
    before, was = snapshot(finished), checkpoint(finished)["config"][name]
    fails(lambda: run(corpus, finished, resume=True, **{name: value}), name, str(was), str(value))
    assert snapshot(finished) == before


def test_resume_with_nothing_there(corpus, tmp_path):
    fails(lambda: run(corpus, tmp_path / "out", resume=True), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_processes_that_do_not_divide_the_batch(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(train.dist, "init_process_group", lambda backend: None)
    fails(lambda: run(corpus, tmp_path, gradient_accumulation_steps=4), "gradient_accumulation_steps", "4", "3")


CORPORA = {
    "none": (shutil.rmtree, "data.prepare"),
    "no meta.json": (lambda c: (c / "meta.json").unlink(), "data.prepare"),
    "no train.bin": (lambda c: (c / "train.bin").unlink(), "train.bin"),
    "cut meta.json": (lambda c: os.truncate(c / "meta.json", 20), "meta.json"),
    "unknown encoding": (lambda c: write_corpus(c, encoding="morse"), "gpt2"),
    "empty": (lambda c: write_corpus(c, train_tokens=0), ""),
    "shorter than a block": (lambda c: write_corpus(c, train_tokens=16), "16"),
    "shorter than 4 blocks to validate": (lambda c: write_corpus(c, val_tokens=64), "64"),
    "odd bytes": (lambda c: os.truncate(c / "train.bin", 9999), "9999"),
    "fewer tokens than promised": (lambda c: os.truncate(c / "val.bin", 3000), "3000"),
    "token past the vocabulary": (lambda c: write_corpus(c, train_tokens=np.full(5000, VOCAB)), str(VOCAB)),
    "validation token past it": (lambda c: write_corpus(c, val_tokens=np.full(2000, 60_000)), "60000"),
}


@pytest.mark.parametrize("damage", CORPORA)
def test_bad_corpus(damage, tmp_path):
    corpus = write_corpus(tmp_path / "letters")
    config = train.parse_config(arguments(corpus, tmp_path / "out"))
    change, word = CORPORA[damage]
    change(corpus)
    fails(lambda: train.train(config), word)


def test_corpus_without_room_for_passkeys(corpus, tmp_path):
    fails(lambda: run(corpus, tmp_path, passkey_frac=0.5, block_size=100), "100", str(passkey.shortest(ENCODING)))


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
    return lambda path: rewrite(config={**torch.load(path, weights_only=True)["config"], **settings})(path)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Malicious(path.parent / "ran")}, protocol=2))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "text": lambda path: path.write_text("hello"),
    "malicious": lambda path: torch.save({"model": Malicious(path.parent / "ran")}, path),
    "malicious in the old format": lambda path: torch.save(
        {"model": Malicious(path.parent / "ran")}, path, _use_new_zipfile_serialization=False
    ),
    "malicious pickle": pickled,
    "a list": lambda path: torch.save([1, 2], path),
    "weights alone": lambda path: torch.save(torch.load(path, weights_only=True)["model"], path),
    "another project's": lambda path: torch.save({"model": {}, "iter_num": 5, "config": {}}, path),
    "weights that are none": rewrite(model=[1]),
    "other weights": rewrite(model={"weight": torch.zeros(3)}),
    "a configuration that is none": rewrite(config=[1]),
    "settings missing": rewrite(config={}),
    "an encoding missing": rewrite(meta={}),
}
FOR_RESUME = {
    "no optimizer": rewrite(optimizer=None),
    "another optimizer": rewrite(optimizer={"state": {}, "param_groups": []}),
    "no step": rewrite(iter="many"),
}
FOR_SAMPLE = {
    "impossible settings": config_with(n_head=3),
    "unknown encoding of positions": config_with(pos="rotary"),
    "a corpus that is none": rewrite(meta=[1]),
}


@pytest.mark.parametrize(
    "use, damage", [(use, damage) for use, more in [("resume", FOR_RESUME), ("init_from", {}),
                                                    *((module, FOR_SAMPLE) for module in SCRIPTS)]
                    for damage in DAMAGE | more]
)  # fmt: skip
def test_bad_checkpoint(use, damage, corpus, finished, tmp_path, monkeypatch):
    """No code in it runs, no file changes, and the line says which directory it is."""
    old = shutil.copytree(finished, tmp_path / "old")
    (DAMAGE | FOR_RESUME | FOR_SAMPLE)[damage](old / "ckpt.pt")
    before = snapshot(old)
    if use == "resume":
        fails(lambda: run(corpus, old, resume=True), str(old))
    elif use == "init_from":
        fails(lambda: run(corpus, tmp_path / "new", init_from=old), str(old))
    else:
        fails(lambda: script(monkeypatch, use, old, "--device=cpu"), str(old))
    assert snapshot(old) == before
    assert not (tmp_path / "new" / "ckpt.pt").exists()


@pytest.mark.parametrize(
    "option, word",
    [("--temperature=-1", "temperature"), ("--temperature=nan", "temperature"), ("--temperature=warm", "warm"),
     ("--top_k=0", "top_k"), ("--max_new_tokens=0", "max_new_tokens"), ("--num_samples=-1", "num_samples"),
     ("--logn_scale=-1", "logn_scale"), ("--seed=9007199254740992", "seed"), ("--colour=red", "colour")],
)  # fmt: skip
def test_bad_sample(option, word, finished, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        script(monkeypatch, sample, finished, "--device=cpu", option)
    assert word in one_line(f"{error.value.code}\n")


def test_sample_of_nothing(tmp_path, monkeypatch):
    fails(lambda: script(monkeypatch, sample, tmp_path / "none"), str(tmp_path / "none"))


def test_a_pipe_that_knows_few_characters(finished):
    """As on Windows, whose pipes have no θ in the help, nor the sign for a byte that is no character."""
    commands = [["train.py", "--help"], ["sample.py", str(finished), "--prompt=θ", "--max_new_tokens=5"]]
    pipes = {"stdout": subprocess.PIPE, "cwd": ROOT, "env": os.environ | {"PYTHONIOENCODING": "cp1252"}}
    for process in [subprocess.Popen([sys.executable, *command], **pipes) for command in commands]:
        stdout, _ = process.communicate(timeout=PATIENCE)
        assert b"?" in stdout and process.returncode == 0


def test_status_and_stderr(finished):
    """As a shell sees it."""
    commands = [["train.py", "--n_heads=2"], ["sample.py", str(finished), "--temperature=-1"]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    for process in [subprocess.Popen([sys.executable, *command], **pipes) for command in commands]:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        one_line(stderr)
        assert stdout == "" and process.returncode == 1
