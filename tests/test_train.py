"""
The trainer at its word: settings, learning rate, batches, the optimizer's steps, exact resume, fine-tuning.

    pytest tests/test_train.py

Models of one narrow layer train for a few steps on a corpus of five thousand letters, in this process. What happens
when processes die, disks fill up and input is bad is in test_trust.py, which borrows the helpers at the top.
"""

import functools
import hashlib
import inspect
import io
import json
import math
import re
import subprocess
import sys
import tokenize
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

import data
import passkey
import train
from model import GPT, POSITIONS, GPTConfig

ROOT = Path(train.__file__).parent
ENCODING = data.get_encoding("bytes")
VOCAB = 320  # 257 tokens, padded to a multiple of 64
TINY = {
    **{"block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16, "batch_size": 4, "max_iters": 6},
    **{"eval_interval": 2, "eval_iters": 2, "log_interval": 1, "learning_rate": 0.02, "min_lr": 0.002},
    **{"warmup_iters": 2, "device": "cpu", "dtype": "float32", "compile": False},
}
PASSKEYS = {"passkey_frac": 0.5, "block_size": 160, "dropout": 0.1}


def write_corpus(directory: Path, train_tokens=5000, val_tokens=2000, **meta) -> Path:
    """A corpus of words over few letters, or of the arrays given, and a configuration file, tiny.py, to train on it."""
    rng, counts = np.random.default_rng(0), {}
    directory.mkdir(parents=True, exist_ok=True)
    for split, tokens in (("train", train_tokens), ("val", val_tokens)):
        if isinstance(tokens, int):
            tokens = rng.choice(list(b"aaabcde "), tokens)
        np.asarray(tokens, dtype=np.uint16).tofile(directory / f"{split}.bin")
        counts[f"{split}_tokens"] = len(tokens)
    meta = {"name": directory.name, "encoding": "bytes", "vocab_size": 257, **counts, **meta}
    (directory / "meta.json").write_text(json.dumps(meta))
    settings = {"dataset": str(directory), **TINY}
    (directory / "tiny.py").write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()))
    return directory


def arguments(corpus: Path, out: Path, **settings) -> list[str]:
    """The command line that trains the tiny model in the directory out."""
    return [str(corpus / "tiny.py"), f"--out_dir={out}", *(f"--{key}={value}" for key, value in settings.items())]


def run(corpus: Path, out: Path, **settings) -> train.TrainConfig:
    config = train.parse_config(arguments(corpus, out, **settings))
    train.train(config)
    return config


def checkpoint(out: Path) -> dict:
    return torch.load(out / "ckpt.pt", weights_only=True)


def log(out: Path) -> list[dict]:
    """The log without the speed, which no two runs share."""
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key != "tokens_per_s"} for entry in entries]


def losses(out: Path, key: str = "loss") -> list[float]:
    return [entry[key] for entry in log(out) if key in entry]


def assert_same(a, b, where: str = "") -> None:
    """Equality to the last bit of two nests of dictionaries and tensors."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


def assert_same_run(a: Path, b: Path) -> None:
    """Two directories hold the same checkpoint, to the last bit, and the same log."""
    a_state, b_state = checkpoint(a), checkpoint(b)
    for key in ("model", "optimizer", "scaler", "iter"):
        assert_same(a_state[key], b_state[key], key)
    assert log(a) == log(b)


def snapshot(directory: Path) -> dict:
    """Everything that a change to a directory's files would change."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.rglob("*")
        if path.is_file()
    }


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


def quicken(setattr=setattr) -> None:
    """Leaves out what takes most of a tiny run's time: the sample at its end, and a new encoding for every run."""
    setattr(train, "stream_text", lambda *args, **kwargs: "")
    setattr(data, "get_encoding", functools.cache(data.get_encoding))
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    quicken(monkeypatch.setattr)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data") / "letters")


@pytest.fixture(scope="module")
def tokens(corpus) -> np.ndarray:
    return data.load_tokens(str(corpus), "train")


def tiny_config(**settings) -> train.TrainConfig:
    return train.TrainConfig(**{**TINY, "vocab_size": VOCAB, **settings})


# ----------------------------------------------------------------------------------------------------------------------
# Configuration


def test_command_line_over_file_over_default(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("_half = 8\nn_embd = 2*_half\nlearning_rate = 1\nmax_iters = 1e4\npos = 'rope'\nfope_clip = 1 > 2")
    config = train.parse_config(["--n_embd=32", str(file), "--name=a=b", "--qk_norm", "--seed=2e3", "--beta1=0"])
    assert (config.n_embd, config.pos, config.name, config.out_dir) == (32, "rope", "a=b", "out/rope_a=b")
    assert (config.fope_clip, config.qk_norm, config.fope_series) == (False, True, True)
    for name, value in {"learning_rate": 1.0, "max_iters": 10_000, "seed": 2000, "beta1": 0.0}.items():
        assert getattr(config, name) == value and type(getattr(config, name)) is type(value), name
    assert config.weight_decay == train.TrainConfig().weight_decay


def test_no_arguments_is_the_default_file():
    assert train.parse_config([]) == train.parse_config([str(ROOT / "config/fope_tiny.py")])


def test_shipped_configurations():
    files = sorted((ROOT / "config").glob("*.py"))
    configs = [train.parse_config([str(file)]) for file in files]
    assert len({config.out_dir for config in configs}) == len(files) > 0, "two experiments share a directory"


def test_help():
    """Ends, and lists every setting with its default and the comment beside its definition."""
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    listed = dict(re.findall(r"^ *--(\w+)=(.*?) +(?:int|float|str|bool)\b", done.stdout, flags=re.MULTILINE))
    for field in fields(train.TrainConfig):
        if field.name != "vocab_size":  # the corpus sets it
            assert train.convert(field.name, listed.pop(field.name)) == field.default, field.name
    assert not listed
    for cls in (train.TrainConfig, GPTConfig):
        definitions = inspect.getsource(cls).split("def __post_init__")[0]
        for token in tokenize.generate_tokens(io.StringIO(definitions).readline):
            if token.type == tokenize.COMMENT and "vocab_size" not in token.line.split(":")[0]:
                assert token.string[2:] in done.stdout


def test_config_json_is_the_configuration(corpus, tmp_path):
    config = run(corpus, tmp_path / "out", max_iters=1)
    assert train.TrainConfig(**json.loads((tmp_path / "out" / "config.json").read_text())) == config
    assert config.vocab_size == VOCAB
    assert train.TrainConfig(**checkpoint(tmp_path / "out")["config"]) == config


# ----------------------------------------------------------------------------------------------------------------------
# Learning rate


def test_learning_rate():
    config = tiny_config(learning_rate=1.0, min_lr=0.1, warmup_iters=10, max_iters=110)
    rates = [train.get_lr(config, step) for step in range(111)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 11)  # a line from zero, one step before the first
    turn = np.pi * np.arange(101) / 100
    np.testing.assert_allclose(rates[10:], 0.1 + 0.9 * (1 + np.cos(turn)) / 2)
    assert train.get_lr(tiny_config(learning_rate=1.0, warmup_iters=0), 0) == 1.0


# ----------------------------------------------------------------------------------------------------------------------
# Batches


def rows_of(config, tokens, step: int, *rows: range) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(map(torch.cat, zip(*(train.get_batch(config, tokens, ENCODING, step, r) for r in rows))))


@pytest.mark.parametrize("settings", [{}, PASSKEYS], ids=["text", "passkeys"])
def test_batch_is_a_function_of_seed_and_step(tokens, settings):
    def draw(seed: int, step: int, *rows: range, batch_size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
        accumulate = 8 // batch_size
        config = tiny_config(seed=seed, batch_size=batch_size, gradient_accumulation_steps=accumulate, **settings)
        return rows_of(config, tokens, step, *rows)

    x, y = draw(1, 0, range(8))
    assert x.shape == y.shape == (8, settings.get("block_size", 16)) and x.dtype == y.dtype == torch.int64
    draw(5, 5, range(8))  # nothing is remembered from one call to the next
    for world in (1, 2, 4, 8):  # whoever draws a part of the batch, it is the same batch
        parts = [range(first, first + 8 // world) for first in range(0, 8, 8 // world)]
        for batch_size in (1, 2, 8):
            again = draw(1, 0, *parts, batch_size=batch_size)
            assert torch.equal(again[0], x) and torch.equal(again[1], y)
    for seed, step in ((1, 1), (2, 0)):
        assert not torch.equal(draw(seed, step, range(8))[0], x)


def test_rows_are_windows_of_the_corpus(tokens):
    where = {tokens[i : i + 17].tobytes(): i for i in range(len(tokens) - 16)}
    config = tiny_config(batch_size=2000)
    x, y = rows_of(config, tokens, 3, range(2000))
    assert torch.equal(x[:, 1:], y[:, :-1])
    starts = [where[row.numpy().astype(np.uint16).tobytes()] for row in torch.cat((x, y[:, -1:]), dim=1)]
    assert min(starts) < 50 and max(starts) > len(tokens) - 67 and len(set(starts)) > 1500  # from one end to the other
    x, y = rows_of(config, tokens[:17], 0, range(2))  # the shortest corpus holds one window
    assert x[0].tolist() == tokens[:16].tolist() and y[1, -1] == tokens[16]


def test_passkey_rows(tokens):
    """Begin with a prompt and its answer, and only the answer counts; all the other rows are what they were."""
    settings = {"batch_size": 400, "block_size": 160}
    x, y = rows_of(tiny_config(passkey_frac=0.5, **settings), tokens, 0, range(400))
    text_x, text_y = rows_of(tiny_config(**settings), tokens, 0, range(400))
    lengths, depths = [], []
    for i in range(400):
        row = ENCODING.decode(x[i].tolist())
        if row.startswith(passkey.TASK):
            key = re.search(re.escape(passkey.QUESTION) + r"( \d{5})", row)
            assert row[: key.end()].count(key[1]) == 3
            assert torch.equal(x[i, key.end() :], text_x[i, key.end() :])
            assert bytes(y[i, key.start(1) - 1 : key.end() - 1].tolist()).decode() == key[1]
            assert (y[i] >= 0).sum() == len(key[1])
            lengths.append(key.end())
            depths.append(row.index(passkey.NEEDLE[0]) / key.start())
        else:
            assert torch.equal(x[i], text_x[i]) and torch.equal(y[i], text_y[i])
    assert 150 < len(lengths) < 250
    assert min(lengths) == passkey.shortest(ENCODING) and max(lengths) == 160 and len(set(lengths)) > 35
    assert max(depths) - min(depths) > 0.2


# ----------------------------------------------------------------------------------------------------------------------
# Evaluation


class Listener(torch.nn.Module):
    """Keeps the windows that it is asked to predict; its loss is a window's mean token."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def forward(self, x, y):
        assert not self.training and torch.equal(x[:, 1:], y[:, :-1])
        self.heard += torch.cat((x, y[:, -1:]), dim=1).tolist()
        return None, y.double().mean()


class OneOf(train.Ranks):
    """One of `world` processes, that adds up nothing: its sums are kept."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world, self.sums, self.device = rank, world, [], torch.device("cpu")

    def sum(self, numbers):
        self.sums.append(numbers)
        return numbers


def evaluate(tokens, rank: int = 0, world: int = 1, length: int = 16):
    model, ranks = Listener(), OneOf(rank, world)
    context = torch.autocast("cpu", enabled=False)
    config = tiny_config(eval_iters=3, batch_size=16)
    loss = train.estimate_loss(model, config, tokens, length, ranks, context)
    assert model.training
    return loss, model.heard, ranks.sums[0]


@pytest.mark.parametrize("length, count", [(16, 48), (64, 12)])
def test_validation_windows(corpus, length, count):
    """The same at every call, evenly spread from the first token to the last; no random number is drawn."""
    tokens = data.load_tokens(str(corpus), "val")
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    loss, heard, _ = evaluate(tokens, length=length)
    assert len(heard) == count and {len(window) for window in heard} == {length + 1}
    assert heard[0] == tokens[: length + 1].tolist() and heard[-1] == tokens[-length - 1 :].tolist()
    assert (loss, heard) == evaluate(tokens, length=length)[:2]
    assert (np.random.get_state()[1] == numpy_state).all() and torch.equal(torch.get_rng_state(), torch_state)


def test_both_lengths_are_evaluated_on_the_same_text(corpus):
    """Else the loss at 4N would be above that at N, or below, for no other reason than the text."""
    tokens = data.load_tokens(str(corpus), "val")
    short, long = evaluate(tokens, length=16)[1], evaluate(tokens, length=64)[1]
    assert torch.tensor(short)[:, :-1].flatten().tolist() == torch.tensor(long)[:, :-1].flatten().tolist()


@pytest.mark.parametrize("world", [2, 4, 5])
def test_evaluation_is_spread_over_processes(corpus, world):
    """Each window is read once, and sums over counts give one process's mean, however unequal the shares are."""
    tokens = data.load_tokens(str(corpus), "val")
    loss, whole, _ = evaluate(tokens)
    parts = [evaluate(tokens, rank, world) for rank in range(world)]
    assert sorted(window for _, heard, _ in parts for window in heard) == sorted(whole)
    assert max(len(heard) for _, heard, _ in parts) == 4 * math.ceil(len(whole) / 4 / world)  # of 4N
    total, count = sum(sums for _, _, sums in parts)
    assert count == len(whole) and (total / count).item() == pytest.approx(loss, rel=1e-6)


# ----------------------------------------------------------------------------------------------------------------------
# Steps


def test_log(corpus, tmp_path):
    run(corpus, tmp_path, log_interval=2, max_iters=5)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    evaluations = [entry for entry in entries if "loss" not in entry]
    assert [entry["iter"] for entry in steps] == [0, 2, 4] and [entry["iter"] for entry in evaluations] == [0, 2, 4, 5]
    assert all(entry.keys() == {"iter", "loss", "lr", "tokens_per_s"} for entry in steps)
    assert all(entry.keys() == {"iter", "val_loss", "val_loss_4x"} for entry in evaluations)
    assert all(entry["tokens_per_s"] > 0 for entry in steps)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt.pt", "config.json", "log.jsonl"]


def test_steps_are_those_of_a_plain_loop(corpus, tokens, tmp_path):
    """AdamW on all weights, gradients clipped, the schedule's rates: written out again and compared."""
    config = run(corpus, tmp_path, pos="rope", grad_clip=0.05, weight_decay=0.5, beta1=0.8, beta2=0.9, max_iters=4)
    torch.manual_seed(config.seed)
    model, rates = GPT(config), []
    state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in model.named_parameters()}
    for step in range(4):
        x, y = train.get_batch(config, tokens, ENCODING, step, range(4))
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x, y)[0].transpose(1, 2), y).backward()
        norm = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
        assert norm > 0.05
        rates.append(train.get_lr(config, step))
        with torch.no_grad():
            for name, p in model.named_parameters():
                gradient, (mean, square) = p.grad * 0.05 / norm, state[name]
                mean.lerp_(gradient, 0.2)
                square.lerp_(gradient.square(), 0.1)
                p *= 1 - 0.5 * rates[-1]
                p -= rates[-1] * mean / (1 - 0.8 ** (step + 1)) / ((square / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8)
    for name, value in checkpoint(tmp_path)["model"].items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert [entry["lr"] for entry in log(tmp_path) if "lr" in entry] == rates


def test_no_clipping_at_zero(corpus, tmp_path):
    for out, clip in (("zero", 0), ("never", 1e9), ("always", 1e-6)):
        run(corpus, tmp_path / out, grad_clip=clip, max_iters=2)
    assert_same_run(tmp_path / "zero", tmp_path / "never")
    assert losses(tmp_path / "zero") != losses(tmp_path / "always")


def test_gradient_accumulation(corpus, tmp_path):
    """The same global batch in one forward pass, or two, or four."""
    for batch_size in (4, 2, 1):
        settings = {"batch_size": batch_size, "gradient_accumulation_steps": 4 // batch_size}
        run(corpus, tmp_path / str(batch_size), **settings, **{**PASSKEYS, "dropout": 0})
    for other in ("2", "1"):
        np.testing.assert_allclose(losses(tmp_path / other), losses(tmp_path / "4"), rtol=1e-5)
        for name, value in checkpoint(tmp_path / other)["model"].items():
            torch.testing.assert_close(value, checkpoint(tmp_path / "4")["model"][name], rtol=1e-3, atol=1e-5)


def test_it_learns(corpus, tmp_path):
    text = np.frombuffer(b"abc" * 700, dtype=np.uint8)
    run(write_corpus(tmp_path / "abc", text, text), tmp_path / "out", max_iters=60, eval_interval=60, log_interval=60)
    assert losses(tmp_path / "out", "val_loss")[-1] < 0.3


def test_evaluation_and_logging_leave_training_alone(corpus, tmp_path):
    run(corpus, tmp_path / "often", dropout=0.2, eval_interval=1, log_interval=1)
    run(corpus, tmp_path / "seldom", dropout=0.2, eval_interval=6, log_interval=5)
    assert losses(tmp_path / "seldom") == losses(tmp_path / "often")[::5]
    assert_same(checkpoint(tmp_path / "seldom")["model"], checkpoint(tmp_path / "often")["model"])


# ----------------------------------------------------------------------------------------------------------------------
# Resume


@pytest.mark.parametrize("settings", [*({"pos": pos} for pos in POSITIONS), {"dtype": "float16"}], ids=str)
def test_resume_is_exact(settings, corpus, tmp_path, monkeypatch):
    """Weights, AdamW's averages, float16's gradient scale; with dropout and passkey prompts."""
    settings = {**settings, **PASSKEYS}
    run(corpus, tmp_path / "whole", **settings)
    stop_at(monkeypatch, 3, corpus, tmp_path / "parts", **settings)
    assert checkpoint(tmp_path / "parts")["iter"] == 2
    stop_at(monkeypatch, 5, corpus, tmp_path / "parts", resume=True, **settings)
    assert checkpoint(tmp_path / "parts")["iter"] == 4
    run(corpus, tmp_path / "parts", resume=True, **settings)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_resume_of_a_finished_run(corpus, tmp_path):
    """Changes nothing; with a larger max_iters it goes on."""
    run(corpus, tmp_path)
    before = checkpoint(tmp_path), log(tmp_path)
    run(corpus, tmp_path, resume=True)
    assert_same(checkpoint(tmp_path)["model"], before[0]["model"])
    assert log(tmp_path) == before[1]
    run(corpus, tmp_path, resume=True, max_iters=9)
    assert checkpoint(tmp_path)["iter"] == 9
    assert [entry["iter"] for entry in log(tmp_path) if "loss" in entry] == list(range(9))


def test_resume_with_other_settings_of_adamw(corpus, tmp_path):
    """They count from there on: the optimizer's state must not bring the old ones back."""
    run(corpus, tmp_path, max_iters=2)
    run(corpus, tmp_path, max_iters=4, resume=True, weight_decay=0.25, beta1=0.5, beta2=0.75)
    group = checkpoint(tmp_path)["optimizer"]["param_groups"][0]
    assert group["weight_decay"] == 0.25 and tuple(group["betas"]) == (0.5, 0.75)


# ----------------------------------------------------------------------------------------------------------------------
# Fine-tuning


def fresh(**settings) -> dict:
    config = tiny_config(**settings)
    torch.manual_seed(config.seed)
    return GPT(config).state_dict()


@pytest.mark.parametrize("old, new", [("rope", "fope"), ("fope", "fope"), ("fope", "rope"), ("rope", "rope")])
def test_fine_tuning_at_a_longer_length(old, new, corpus, tmp_path, monkeypatch):
    """The trained weights are the start. FoPE's old coefficients keep their corner; the others are as the seed drew."""
    run(corpus, tmp_path / "old", pos=old)
    before = snapshot(tmp_path / "old")
    settings = {"pos": new, "block_size": 64, "seed": 7}
    stop_at(monkeypatch, 0, corpus, tmp_path / "new", init_from=tmp_path / "old", **settings)
    start, source, drawn = checkpoint(tmp_path / "new"), checkpoint(tmp_path / "old")["model"], fresh(**settings)
    assert start["iter"] == 0 and not start["optimizer"]["state"]
    assert start["model"].keys() == drawn.keys()
    for name, value in start["model"].items():
        if not name.endswith("_coef"):
            assert torch.equal(value, source[name]), name
        elif old != "fope":
            assert torch.equal(value, drawn[name]), name
        else:
            corner = tuple(map(slice, source[name].shape))
            assert value[0].numel() > source[name][0].numel() > 0  # a longer N keeps more frequencies
            expected = drawn[name].clone()
            expected[corner] = source[name]
            assert torch.equal(value, expected), name
    assert snapshot(tmp_path / "old") == before


OTHER = [{"n_embd": 32}, {"n_layer": 2}, {"n_head": 4}]
OTHER += [{"fope_dim": 16}, {"fope_sigma": 0.5}, {"fope_init": "normal"}, {"fope_series": False}]


@pytest.mark.parametrize("settings", OTHER, ids=lambda settings: next(iter(settings)))
@pytest.mark.parametrize("grow", [True, False], ids=["more", "fewer"])
def test_fine_tuning_another_shape(settings, grow, corpus, tmp_path):
    """Is refused, also where only the settings tell: the weights of 2 and of 4 heads have one shape.

    So are other settings of the coefficients, which the fine-tuned model takes from the old one.
    """
    old, new = ({}, settings) if grow else (settings, {})
    run(corpus, tmp_path / "old", max_iters=1, **old)
    with pytest.raises(SystemExit, match=r"^error: .*old.*") as error:
        run(corpus, tmp_path / "new", init_from=tmp_path / "old", block_size=32, **new)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new" / "ckpt.pt").exists()


def test_fine_tuning_resumes(corpus, tmp_path, monkeypatch):
    """From its own checkpoint, not from the run that it began with, which may be gone."""
    run(corpus, tmp_path / "old", max_iters=2)
    settings = {"init_from": tmp_path / "old", "block_size": 32}
    run(corpus, tmp_path / "whole", **settings)
    stop_at(monkeypatch, 3, corpus, tmp_path / "parts", **settings)
    (tmp_path / "old" / "ckpt.pt").unlink()
    run(corpus, tmp_path / "parts", resume=True, **settings)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
