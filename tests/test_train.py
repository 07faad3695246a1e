"""
The trainer: batches, steps, checkpoints and processes, against the same things written out plainly.

    pytest tests/test_train.py

Models of one narrow layer train for six steps on a corpus of a few thousand letters.
"""

import functools
import gc
import json
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import make_tokens, write_corpus
from torch.nn import functional as F

import data
import passkey
import train
from model import GPT

ROOT = Path(train.__file__).parent
ENCODING = data.get_encoding("bytes")
TINY = {
    "block_size": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "vocab_size": 320,  # 257 tokens, padded to a multiple of 64
    "batch_size": 4,
    "max_iters": 6,
    "eval_interval": 2,
    "eval_tokens": 192,
    "log_interval": 1,
    "learning_rate": 0.02,
    "min_lr": 0.002,
    "warmup_iters": 2,
    "device": "cpu",
    "dtype": "float32",
    "compile": False,
}
PASSKEYS = {"passkey_frac": 0.5, "block_size": 160}


def run(corpus: Path, out: Path, **settings) -> train.TrainConfig:
    paths = {"dataset": str(corpus), "out_dir": str(out)}
    config = train.TrainConfig(**(TINY | paths | settings))
    train.train(config)
    return config


def command_line(corpus: Path, out: Path, **settings) -> list[str]:
    """What `run` does, in the words of a shell."""
    settings = TINY | {"dataset": corpus, "out_dir": out} | settings
    return [f"--{key}={value}" for key, value in settings.items()]


def checkpoint(out: Path) -> dict:
    return torch.load(out / "ckpt.pt", weights_only=True)


def log(out: Path) -> list[dict]:
    """The log without the speed, which no two runs share."""
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for entry in entries:
        entry.pop("tokens_per_s", None)
    return entries


def losses(out: Path, key: str = "loss") -> list[float]:
    return [entry[key] for entry in log(out) if key in entry]


def assert_same(a, b, where: str = "") -> None:
    """Two nests of dictionaries, lists and tensors are equal to the last bit."""
    if isinstance(a, list):
        a = dict(enumerate(a))
        b = dict(enumerate(b))
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def assert_same_run(a: Path, b: Path) -> None:
    a_state = checkpoint(a)
    b_state = checkpoint(b)
    for key in ("model", "optimizer", "scaler", "iter"):
        assert_same(a_state[key], b_state[key], key)
    assert log(a) == log(b)


def refuses(word: str, corpus: Path, out: Path, **settings) -> None:
    """The run ends in one line, which has `word` in it."""
    with pytest.raises(SystemExit, match=rf"^error: [^\n]*{word}[^\n]*$"):
        run(corpus, out, **settings)
    gc.collect()  # the exception's frames hold the log, and with it the lock


class Stop(Exception):
    pass


def stop_at(monkeypatch, stop: int, corpus: Path, out: Path, **settings) -> None:
    """A run that ends when it asks for the batch of step `stop`."""
    whole = train.get_batch

    def get_batch(config, tokens, encoding, step, rows):
        if step == stop:
            raise Stop
        return whole(config, tokens, encoding, step, rows)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(train, "get_batch", get_batch)
        run(corpus, out, **settings)
    gc.collect()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Leaves out what takes most of a tiny run's time: the sample at its end, an encoding for each run."""

    def no_text(*args, **kwargs):
        return ""

    monkeypatch.setattr(train, "stream_text", no_text)
    monkeypatch.setattr(data, "get_encoding", functools.cache(data.get_encoding))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "letters"
    return write_corpus(path, make_tokens(), make_tokens(seed=1))


@pytest.fixture(scope="module")
def tokens(corpus) -> np.ndarray:
    return data.load_tokens(str(corpus), "train")


# ---------------------------------------------------------------------------------------------------------
# Configuration and learning rate


def test_command_line_over_file_over_default(tmp_path):
    (tmp_path / "a.py").write_text("_half = 8\nn_embd = 2 * _half\nlearning_rate = 1\npos = 'rope'")
    (tmp_path / "b.py").write_text("beta2 = 0.5\nn_head = 2")
    files = [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
    config = train.parse_config(["--n_embd=32", *files, "--name=a=b", "--qk_norm"])
    assert (config.n_embd, config.n_head, config.learning_rate, config.beta2) == (32, 2, 1, 0.5)
    assert config.qk_norm and config.out_dir == "out/rope_a=b"
    assert config.weight_decay == train.TrainConfig().weight_decay


def test_every_setting_can_be_given_on_the_command_line():
    for field in fields(train.TrainConfig):
        config = train.parse_config([f"--{field.name}={field.default}"])
        value = getattr(config, field.name)
        assert type(value) is field.type
        assert value == field.default or field.name == "out_dir"  # "" becomes out/<pos>_<name>


def test_learning_rate():
    config = train.TrainConfig(learning_rate=1.0, min_lr=0.1, warmup_iters=10, max_iters=110)
    rates = [train.get_lr(config, step) for step in range(111)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 11)  # a line that would be 0 at step -1
    turn = np.pi * np.arange(101) / 100
    np.testing.assert_allclose(rates[10:], 0.1 + 0.9 * (1 + np.cos(turn)) / 2)


# ---------------------------------------------------------------------------------------------------------
# Batches


def test_a_batch_is_a_function_of_seed_step_and_row(tokens):
    def draw(rows: range, seed: int = 1, step: int = 0):
        config = train.TrainConfig(**(TINY | PASSKEYS | {"seed": seed}))
        x, y = train.get_batch(config, tokens, ENCODING, step, rows)
        return torch.cat((x, y), dim=1)

    batch = draw(range(8))
    parts = [draw(rows) for rows in (range(4, 8), range(3, 4), range(3))]  # as processes might share it
    assert torch.equal(torch.cat(parts[::-1]), batch)
    assert not torch.equal(draw(range(8), seed=2), batch)
    assert not torch.equal(draw(range(8), step=1), batch)


def test_rows_are_windows_of_the_whole_corpus_and_targets_are_shifted():
    places = np.arange(5000, dtype=np.uint16)  # a corpus in which a token says where it stands
    config = train.TrainConfig(**TINY)
    x, y = train.get_batch(config, places, ENCODING, 3, range(2000))
    starts = x[:, 0]
    assert torch.equal(x, starts[:, None] + torch.arange(16))
    assert torch.equal(y, x + 1)
    assert starts.min() < 50 and starts.max() > 4950 - 16
    x, y = train.get_batch(config, places[:17], ENCODING, 0, range(2))  # the shortest corpus: one window
    assert x[1, 0] == 0 and y[1, -1] == 16


@pytest.mark.parametrize("keys, filler", [(1, "grass"), (3, "text")])
def test_passkey_rows(keys, filler, tokens, monkeypatch):
    """Begin with a prompt and its answer, and only the answer counts; other rows are what they were."""
    make_prompt = passkey.make_prompt
    made = []

    def note_prompt(encoding, length, depth, rng, keys, text):
        prompt, key = make_prompt(encoding, length, depth, rng, keys, text)
        made.append((length, depth, keys, text, prompt, key))
        return prompt, key

    monkeypatch.setattr(passkey, "make_prompt", note_prompt)
    sizes = TINY | {"block_size": 400}
    config = train.TrainConfig(**sizes, passkey_frac=0.5, passkey_keys=keys, passkey_filler=filler)
    x, y = train.get_batch(config, tokens, ENCODING, 0, range(200))
    text_x, text_y = train.get_batch(train.TrainConfig(**sizes), tokens, ENCODING, 0, range(200))
    is_passkey = y[:, 0] == -1
    assert torch.equal(x[~is_passkey], text_x[~is_passkey])
    assert torch.equal(y[~is_passkey], text_y[~is_passkey])
    assert 70 < is_passkey.sum() == len(made) < 130
    for i, (length, _, prompt_keys, text, prompt, key) in zip(is_passkey.nonzero().flatten(), made):
        assert x[i].tolist() == prompt + key + text_x[i, length:].tolist()
        expected = torch.full((400,), -1)
        expected[len(prompt) - 1 : length - 1] = torch.tensor(key)  # a target is what follows
        assert torch.equal(y[i], expected)
        assert prompt_keys == keys and text is (tokens if filler == "text" else None)
    lengths = [prompt[0] for prompt in made]
    depths = [prompt[1] for prompt in made]
    shortest = passkey.shortest(ENCODING, keys)
    assert shortest <= min(lengths) < shortest + 30 and 370 < max(lengths) <= 400
    assert min(depths) < 0.1 and max(depths) > 0.9


# ---------------------------------------------------------------------------------------------------------
# Steps and evaluation


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-3), ("float16", 0.05)])
def test_steps_are_those_of_a_plain_loop(dtype, tolerance, corpus, tokens, tmp_path):
    """Gradients averaged and clipped, the schedule's rates, AdamW's formula for every weight.

    In float16, gradients are clipped without the scaler's factor, or AdamW's epsilon would outweigh them.
    """
    settings = {"batch_size": 2, "gradient_accumulation_steps": 2, "max_iters": 4, "dtype": dtype}
    optimizer = {"grad_clip": 0.05, "weight_decay": 0.5, "beta1": 0.8, "beta2": 0.9}
    config = run(corpus, tmp_path / "out", **settings, **optimizer)
    torch.manual_seed(config.seed)
    model = GPT(config)
    weights = list(model.parameters())
    means = [torch.zeros_like(p) for p in weights]
    squares = [torch.zeros_like(p) for p in weights]
    rates = []
    step_losses = []
    for step in range(4):
        x, y = train.get_batch(config, tokens, ENCODING, step, range(4))
        model.zero_grad()
        logits = model.lm_head(model.hidden(x))
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        step_losses.append(loss.item())
        norm = sum(p.grad.square().sum() for p in weights).sqrt()
        assert norm > 0.05
        rate = train.get_lr(config, step)
        rates.append(rate)
        with torch.no_grad():
            for p, mean, square in zip(weights, means, squares):
                gradient = p.grad * 0.05 / norm
                mean.lerp_(gradient, 1 - 0.8)
                square.lerp_(gradient.square(), 1 - 0.9)
                unbiased_mean = mean / (1 - 0.8 ** (step + 1))
                unbiased_square = square / (1 - 0.9 ** (step + 1))
                p *= 1 - 0.5 * rate
                p -= rate * unbiased_mean / (unbiased_square.sqrt() + 1e-8)
    for name, value in checkpoint(tmp_path / "out")["model"].items():
        expected = model.state_dict()[name]
        assert (value - expected).norm() <= tolerance * expected.norm(), name
    assert losses(tmp_path / "out", "lr") == rates
    np.testing.assert_allclose(losses(tmp_path / "out"), step_losses, rtol=tolerance)


def test_validation_loss(corpus, tmp_path):
    """Of the same stretches at N and at 4N, from the split's first token to its last, all weighing alike."""
    run(corpus, tmp_path / "out", max_iters=1)
    model, _ = train.load_checkpoint(tmp_path / "out", torch.device("cpu"))
    text = torch.from_numpy(data.load_tokens(str(corpus), "val").astype(np.int64))
    last = len(text) - 65
    for key, length in (("val_loss", 16), ("val_loss_4x", 64)):
        expected = []
        for stretch in (0, last // 2, last):  # 192 tokens are three stretches of 64
            for first in range(stretch, stretch + 64, length):
                window = text[first : first + length + 1]
                expected.append(model(window[None, :-1], window[None, 1:])[1].item())
        assert losses(tmp_path / "out", key) == [pytest.approx(np.mean(expected), rel=1e-5)]


def test_what_a_run_leaves(corpus, tmp_path):
    out = tmp_path / "out"
    config = run(corpus, out, log_interval=2, max_iters=5)
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [entry["iter"] for entry in entries if entry.keys() == {"iter", "loss", "lr", "tokens_per_s"}]
    evaluations = [entry["iter"] for entry in entries if entry.keys() == {"iter", "val_loss", "val_loss_4x"}]
    assert (steps, evaluations) == ([0, 2, 4], [2, 4, 5])
    assert train.TrainConfig(**json.loads((out / "config.json").read_text())) == config
    assert checkpoint(out)["config"] == vars(config) and config.vocab_size == 320
    assert {path.name for path in out.iterdir()} == {"ckpt.pt", "config.json", "log.jsonl"}


# ---------------------------------------------------------------------------------------------------------
# Resuming


@pytest.mark.parametrize("settings", [{"pos": "fope"}, {"dtype": "float16"}], ids=str)
def test_resume_is_exact(settings, corpus, tmp_path, monkeypatch):
    """Weights, AdamW's averages, float16's scale; the log is cut back to the checkpoint and goes on."""
    settings = PASSKEYS | settings
    parts = tmp_path / "parts"
    run(corpus, tmp_path / "whole", **settings)
    stop_at(monkeypatch, 3, corpus, parts, **settings)
    assert checkpoint(parts)["iter"] == 2 and len(losses(parts)) == 3
    stop_at(monkeypatch, 5, corpus, parts, resume=True, **settings)
    assert checkpoint(parts)["iter"] == 4
    run(corpus, parts, resume=True, **settings)
    assert_same_run(tmp_path / "whole", parts)


def test_resume_refuses_what_would_be_another_run(tmp_path):
    corpus = write_corpus(tmp_path / "letters", make_tokens())
    out = tmp_path / "out"
    run(corpus, out)
    before = [(path, path.read_bytes()) for path in out.iterdir()]
    changes = {"n_layer": 2, "seed": 7, "beta2": 0.5, "passkey_filler": "text", "max_iters": 5}
    for name, value in changes.items():
        refuses(name, corpus, out, resume=True, **{name: value})
    write_corpus(corpus, make_tokens(), sha256="b" * 64)
    refuses("corpus", corpus, out, resume=True)
    write_corpus(corpus, make_tokens())
    assert [(path, path.read_bytes()) for path in out.iterdir()] == before
    run(corpus, out, resume=True, max_iters=9, learning_rate=0.01)  # further, or at another rate, it may go
    assert [entry["iter"] for entry in log(out) if "loss" in entry] == list(range(9))


KILLED = {
    "saving": """
import os as _os, signal as _signal, torch as _torch
_save = _torch.save
def _half_a_save(state, path):
    if state["iter"] == 4:
        path.write_bytes(b"half a checkpoint")
        _os.kill(_os.getpid(), _signal.SIGKILL)
    _save(state, path)
_torch.save = _half_a_save
""",
    "between": """
import os as _os, signal as _signal, torch as _torch
_clip = _torch.nn.utils.clip_grad_norm_
_steps = []
def _clip_or_die(*args):
    _steps.append(args)
    if len(_steps) == 4:
        _os.kill(_os.getpid(), _signal.SIGKILL)
    _clip(*args)
_torch.nn.utils.clip_grad_norm_ = _clip_or_die
""",
}


@pytest.mark.parametrize("moment", KILLED)
def test_killed_and_resumed(moment, corpus, tmp_path):
    """A run that kill -9 ended while it saved, or between two saves, ends as if nothing had been."""
    # A configuration file is Python, which this one uses to kill the process at a step of its own choice.
    file = tmp_path / "killed.py"
    file.write_text(KILLED[moment])
    out = tmp_path / "out"
    command = [sys.executable, ROOT / "train.py", file, *command_line(corpus, out)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint(out)["iter"] == 2
    run(corpus, out, resume=True)
    run(corpus, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", out)
    assert {path.name for path in out.iterdir()} == {"ckpt.pt", "config.json", "log.jsonl"}


# ---------------------------------------------------------------------------------------------------------
# What must not be lost, or be wrong without a word


def test_a_second_trainer_in_the_same_run_is_refused(corpus, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    out = tmp_path / "out"
    out.mkdir()
    with (out / "log.jsonl").open("a") as log_of_the_first:
        log_of_the_first.write("a line\n")
        log_of_the_first.flush()
        fcntl.flock(log_of_the_first, fcntl.LOCK_EX)
        refuses("another process", corpus, out)
        assert (out / "log.jsonl").read_text() == "a line\n"


@pytest.mark.parametrize("log_interval", [1, 100], ids=["seen in a step", "seen in an evaluation"])
def test_a_loss_that_is_not_finite_ends_training(log_interval, corpus, tmp_path, monkeypatch):
    whole = train.get_lr

    def get_lr(config, step):
        return whole(config, step) if step < 2 else float("inf")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(train, "get_lr", get_lr)
        refuses("not finite", corpus, tmp_path / "early", eval_interval=6, log_interval=log_interval)
        refuses("not finite", corpus, out, log_interval=log_interval)
    assert checkpoint(out)["iter"] == 2  # the last before it
    run(corpus, out, resume=True)
    run(corpus, tmp_path / "early", eval_interval=6)  # there is no checkpoint that the retry could destroy
    assert len(losses(tmp_path / "early")) == 6
    assert_same(checkpoint(tmp_path / "early")["model"], checkpoint(out)["model"])


def test_no_compiler(corpus, tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    refuses("--compile=False", corpus, tmp_path / "out", compile=True)


def test_world_size_without_torchrun(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refuses("torchrun", corpus, tmp_path / "out", gradient_accumulation_steps=2)


# ---------------------------------------------------------------------------------------------------------
# Fine-tuning and many processes


def test_fine_tuning_at_a_longer_length(corpus, tmp_path):
    """Starts from the trained weights. FoPE's old coefficients keep their corner, the rest is as drawn."""
    run(corpus, tmp_path / "old", n_head=1, max_iters=2)
    settings = {"n_head": 1, "block_size": 64, "seed": 7, "max_iters": 1}
    # At a rate of zero, what one step leaves is what it began with.
    settings |= {"learning_rate": 0.0, "min_lr": 0.0}
    config = run(corpus, tmp_path / "new", init_from=str(tmp_path / "old"), **settings)
    torch.manual_seed(7)
    expected = GPT(config).state_dict()
    source = checkpoint(tmp_path / "old")["model"]
    for name, value in source.items():
        if name.endswith("_coef"):
            assert value.shape[1] < expected[name].shape[1]  # a longer N keeps more frequencies
            expected[name][:, : value.shape[1], : value.shape[2]] = value
        else:
            expected[name] = value
    assert_same(checkpoint(tmp_path / "new")["model"], expected)


FIRST_RUN = """
import time as _time
from pathlib import Path as _Path
import data as _data
_data.DATA_DIR = _Path({folder!r})
from data import prepare as _prepare
def _few_documents(_):
    _time.sleep(1)  # which the other process has to wait for
    yield [f"number {{i}} " * 20 for i in range(40)], 20
_prepare.CORPORA["python"] = (_few_documents, "bytes", "", 10**9)
"""


def test_two_processes_are_one(tmp_path):
    """The first run of all, with torchrun: one process prepares the corpus, and the other waits for it.

    Each has two forward passes of two rows a step; a single process with one pass of eight logs the same.
    """
    file = tmp_path / "first.py"
    file.write_text(FIRST_RUN.format(folder=str(tmp_path)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    settings = {"dataset": "python", "batch_size": 2, "gradient_accumulation_steps": 4}
    words = command_line(tmp_path, tmp_path / "two", **settings)
    command = [*torchrun, "--nproc_per_node=2", ROOT / "train.py", file, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 1  # one process speaks

    run(tmp_path / "python", tmp_path / "one", batch_size=8)
    assert len(losses(tmp_path / "two")) == 6
    for key in ("loss", "val_loss", "val_loss_4x"):
        np.testing.assert_allclose(losses(tmp_path / "two", key), losses(tmp_path / "one", key), rtol=1e-5)
