"""
The trainer at its word: settings, learning rate, batches, optimizers, evaluation, exact resume, fine-tuning.

    pytest tests/test_train.py

Models of one narrow layer train for a few steps on a corpus of five thousand letters, in this process. What
happens when processes die, disks fill up and input is bad is in test_trust.py, which uses the helpers here.
"""

import functools
import gc
import hashlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import data
import passkey
import train
from model import GPT, POSITIONS, GPTConfig, NoPE

ROOT = Path(train.__file__).parent
ENCODING = data.get_encoding("bytes")
VOCAB = 320  # 257 tokens, padded to a multiple of 64
TINY = {
    "block_size": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "batch_size": 4,
    "max_iters": 6,
    "eval_interval": 2,
    "eval_tokens": 128,
    "log_interval": 1,
    "learning_rate": 0.02,
    "min_lr": 0.002,
    "warmup_iters": 2,
    "device": "cpu",
    "dtype": "float32",
    "compile": False,
}
PASSKEYS = {"passkey_frac": 0.5, "block_size": 160, "dropout": 0.1}


def write_corpus(directory: Path, train_tokens=5000, val_tokens=2000, seed=0, **meta) -> Path:
    """A corpus of words over few letters, or of the arrays given, and tiny.py, settings to train on it."""
    rng = np.random.default_rng(seed)
    counts = {}
    digest = hashlib.sha256()
    directory.mkdir(parents=True, exist_ok=True)
    for split, tokens in (("train", train_tokens), ("val", val_tokens)):
        if isinstance(tokens, int):
            tokens = rng.choice(list(b"aaabcde "), tokens)
        tokens = np.asarray(tokens, dtype=np.uint16)
        tokens.tofile(directory / f"{split}.bin")
        digest.update(tokens)
        counts[f"{split}_tokens"] = len(tokens)
    meta = (
        {"name": directory.name, "encoding": "bytes", "vocab_size": 257, "sha256": digest.hexdigest()}
        | counts
        | meta
    )
    (directory / "meta.json").write_text(json.dumps(meta))
    settings = {"dataset": str(directory), **TINY}
    (directory / "tiny.py").write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()))
    return directory


def arguments(corpus: Path, out: Path, **settings) -> list[str]:
    """The command line that trains the tiny model in the directory out."""
    return [
        str(corpus / "tiny.py"),
        f"--out_dir={out}",
        *(f"--{key}={value}" for key, value in settings.items()),
    ]


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
    """Equality to the last bit of two nests of dictionaries, lists and tensors."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert_same(dict(enumerate(a)), dict(enumerate(b)), where)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


def assert_same_run(a: Path, b: Path) -> None:
    """Two directories hold the same checkpoint, to the last bit, and the same log."""
    a_state = checkpoint(a)
    b_state = checkpoint(b)
    for key in ("model", "optimizers", "scaler", "iter"):
        assert_same(a_state[key], b_state[key], key)
    assert log(a) == log(b)


def snapshot(directory: Path) -> dict:
    """Everything that a change to a directory's files would change."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
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
    gc.collect()  # the frame that the exception kept alive, and with it the log and its lock


def quicken(setattr=setattr) -> None:
    """Leaves out what takes most of a tiny run's time: the sample at its end, an encoding for every run."""
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


# ---------------------------------------------------------------------------------------------------------
# Configuration


def test_command_line_over_file_over_default(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "_half = 8\nn_embd = 2*_half\nlearning_rate = 1\nbeta1 = 0.5\npos = 'rope'\nfope_clip = 1 > 2\n"
    )
    config = train.parse_config(
        ["--n_embd=32", str(file), "--name=a=b", "--qk_norm", "--seed=7", "--beta1=0"]
    )
    assert (config.n_embd, config.pos, config.learning_rate, config.beta1, config.seed) == (
        32,
        "rope",
        1,
        0,
        7,
    )
    assert (config.name, config.out_dir) == ("a=b", "out/rope_a=b")
    assert (config.fope_clip, config.qk_norm, config.fope_series) == (False, True, True)
    assert config.weight_decay == train.TrainConfig().weight_decay


def test_every_key_of_the_command_line():
    """Takes its default, written out, and gives it back in its type; a switch without a value means True."""
    for field in fields(train.TrainConfig):
        if field.name == "vocab_size":  # the corpus sets it
            continue
        config = train.parse_config([f"--{field.name}={field.default}"])
        if field.name != "out_dir":  # "" becomes out/<pos>_<name>
            assert getattr(config, field.name) == field.default
        assert type(getattr(config, field.name)) is field.type
        if field.type is bool:
            assert getattr(train.parse_config([f"--{field.name}"]), field.name) is True
            assert getattr(train.parse_config([f"--{field.name}=false"]), field.name) is False


def test_no_arguments_is_the_default_file():
    assert train.parse_config([]) == train.parse_config([str(ROOT / "config/fope_tiny.py")])


def test_help():
    """Ends, and lists every setting with its default and the comment beside its definition.

    Also on a pipe that knows few characters, as on Windows, which has no θ.
    """
    environment = os.environ | {"COLUMNS": "1000", "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "train.py", "--help"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, encoding="cp1252", timeout=300, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    comments = {}
    for cls in (train.TrainConfig, GPTConfig):
        definitions = inspect.getsource(cls).split("def __post_init__")[0]
        for token in tokenize.generate_tokens(io.StringIO(definitions).readline):
            if token.type == tokenize.COMMENT:
                comments[token.line.split(":")[0].strip()] = token.string[2:]
    listed = re.findall(r"^  --(\w+) ", done.stdout, flags=re.MULTILINE)
    assert set(listed) == {field.name for field in fields(train.TrainConfig)} - {"vocab_size"}
    for field in fields(train.TrainConfig):
        said = f"{comments[field.name]} (default: {field.default})"
        said = said.encode("cp1252", errors="replace").decode("cp1252")
        assert field.name == "vocab_size" or re.search(
            rf"--{field.name} .*\s+{re.escape(said)}\n", done.stdout
        ), said


def test_config_json_is_the_configuration(corpus, tmp_path):
    config = run(corpus, tmp_path / "out", max_iters=1)
    assert train.TrainConfig(**json.loads((tmp_path / "out" / "config.json").read_text())) == config
    assert config.vocab_size == VOCAB
    assert train.TrainConfig(**checkpoint(tmp_path / "out")["config"]) == config


# ---------------------------------------------------------------------------------------------------------
# Learning rate


def test_learning_rate():
    config = tiny_config(learning_rate=1.0, min_lr=0.1, warmup_iters=10, max_iters=110)
    rates = [train.get_lr(config, step) for step in range(111)]
    np.testing.assert_allclose(
        rates[:10], np.arange(1, 11) / 11
    )  # a line from zero, one step before the first
    turn = np.pi * np.arange(101) / 100
    np.testing.assert_allclose(rates[10:], 0.1 + 0.9 * (1 + np.cos(turn)) / 2)
    assert train.get_lr(tiny_config(learning_rate=1.0, warmup_iters=0), 0) == 1.0


# ---------------------------------------------------------------------------------------------------------
# Batches


def rows_of(config, tokens, step: int, *rows: range) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [train.get_batch(config, tokens, ENCODING, step, part) for part in rows]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


@pytest.mark.parametrize("settings", [{}, PASSKEYS], ids=["text", "passkeys"])
def test_batch_is_a_function_of_seed_and_step(tokens, settings):
    def draw(seed: int, step: int, *rows: range, batch_size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
        accumulate = 8 // batch_size
        config = tiny_config(
            seed=seed, batch_size=batch_size, gradient_accumulation_steps=accumulate, **settings
        )
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
    assert min(starts) < 50 and max(starts) > len(tokens) - 67 and len(set(starts)) > 1500  # from end to end
    x, y = rows_of(config, tokens[:17], 0, range(2))  # the shortest corpus holds one window
    assert x[0].tolist() == tokens[:16].tolist() and y[1, -1] == tokens[16]


def test_passkey_rows(tokens):
    """Begin with a prompt and its answer, and only the answer counts; the other rows are what they were."""
    settings = {"batch_size": 400, "block_size": 160}
    x, y = rows_of(tiny_config(passkey_frac=0.5, **settings), tokens, 0, range(400))
    text_x, text_y = rows_of(tiny_config(**settings), tokens, 0, range(400))
    keys = []
    lengths = []
    depths = []
    for i in range(400):
        row = ENCODING.decode(x[i].tolist())
        if row.startswith(passkey.TASK):
            key = re.search(re.escape(passkey.QUESTION) + r"( \d{5})", row)
            assert row[: key.end()].count(key[1]) == 3
            assert torch.equal(x[i, key.end() :], text_x[i, key.end() :])
            assert bytes(y[i, key.start(1) - 1 : key.end() - 1].tolist()).decode() == key[1]
            assert (y[i] >= 0).sum() == len(key[1])
            keys.append(key[1])
            lengths.append(key.end())
            depths.append(row.index(key[1]) / key.start())
        else:
            assert torch.equal(x[i], text_x[i]) and torch.equal(y[i], text_y[i])
    assert 150 < len(lengths) < 250
    assert min(lengths) == passkey.shortest(ENCODING) and max(lengths) == 160 and len(set(lengths)) > 35
    assert max(depths) - min(depths) > 0.2 and len(set(keys)) > 0.95 * len(keys)


def test_the_first_row_draws_its_passkey_apart_from_its_window():
    """NumPy pads a seed with zeros: [seed, step, 0] would repeat the stream that drew the windows."""
    positions = np.arange(60_000)  # a corpus in which a token says where it stands
    config = tiny_config(batch_size=1, block_size=400, passkey_frac=1.0)
    starts = []
    lengths = []
    for step in range(500):
        x, y = train.get_batch(config, positions, ENCODING, step, range(1))
        starts.append(x[0, -1].item())
        lengths.append((y[0] >= 0).nonzero().max().item())
    starts = np.array(starts)
    lengths = np.array(lengths)
    windows = starts > 256  # not the rows that their prompt fills
    assert windows.sum() > 490
    assert abs(np.corrcoef(starts[windows], lengths[windows])[0, 1]) < 0.2


# ---------------------------------------------------------------------------------------------------------
# Evaluation


def test_validation_loss(corpus, tmp_path):
    """Of the same stretches at N and at 4N, from the split's first token to its last, all weighing alike."""
    config = run(corpus, tmp_path / "out", eval_tokens=192, max_iters=1, pos="rope", dropout=0.5)
    tokens = data.load_tokens(str(corpus), "val").astype(np.int64)
    torch.manual_seed(config.seed)
    model = GPT(config).eval()
    starts = [0, (len(tokens) - 65) // 2, len(tokens) - 65]  # of three stretches of 4N = 64
    for key, length in (("val_loss", 16), ("val_loss_4x", 64)):
        expected = []
        for start in starts:
            for first in range(start, start + 64, length):
                window = torch.from_numpy(tokens[first : first + length + 1])[None]
                expected.append(model(window[:, :-1], window[:, 1:])[1].item())
        assert losses(tmp_path / "out", key)[0] == pytest.approx(np.mean(expected), rel=1e-5)


def test_evaluation_and_logging_leave_training_alone(corpus, tmp_path):
    run(corpus, tmp_path / "often", dropout=0.2, eval_interval=1, log_interval=1)
    run(corpus, tmp_path / "seldom", dropout=0.2, eval_interval=6, log_interval=5)
    assert losses(tmp_path / "seldom") == losses(tmp_path / "often")[::5]
    assert_same(checkpoint(tmp_path / "seldom")["model"], checkpoint(tmp_path / "often")["model"])


# ---------------------------------------------------------------------------------------------------------
# Steps


def test_log(corpus, tmp_path):
    run(corpus, tmp_path / "out", log_interval=2, max_iters=5)
    entries = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    evaluations = [entry for entry in entries if "loss" not in entry]
    assert [entry["iter"] for entry in steps] == [0, 2, 4] and [entry["iter"] for entry in evaluations] == [
        0,
        2,
        4,
        5,
    ]
    assert all(entry.keys() == {"iter", "loss", "lr", "tokens_per_s"} for entry in steps)
    assert all(entry.keys() == {"iter", "val_loss", "val_loss_4x"} for entry in evaluations)
    assert all(entry["tokens_per_s"] > 0 for entry in steps)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "ckpt.pt",
        "config.json",
        "log.jsonl",
    ]


class Learned(NoPE):
    """An encoding with a parameter of its own, a matrix: a bias that is learnt for each head and distance."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.table = torch.nn.Parameter(torch.zeros(config.n_head, 32))

    def bias(self, q_len: int, k_len: int) -> torch.Tensor:
        distance = torch.arange(k_len)[k_len - q_len :, None] - torch.arange(k_len)
        return self.table[:, distance.clamp(0, 31)]


MATRICES = {
    *("blocks.0.attn.c_attn.weight", "blocks.0.attn.c_proj.weight"),
    *("blocks.0.mlp.c_fc.weight", "blocks.0.mlp.c_proj.weight"),
}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_are_those_of_a_plain_loop(optimizer, corpus, tokens, tmp_path, monkeypatch):
    """Gradients clipped, the schedule's rates, AdamW's formula for all weights: written out again, compared.

    With muon, the blocks' matrices are Muon's, at a rate of their own; embeddings, head, norms and what an
    encoding learns stay AdamW's.
    """
    monkeypatch.setitem(POSITIONS, "learned", Learned)
    settings = {"optimizer": optimizer, "grad_clip": 0.05, "weight_decay": 0.5, "beta1": 0.8, "beta2": 0.9}
    config = run(corpus, tmp_path / "out", pos="learned", max_iters=4, muon_lr_ratio=3, **settings)
    torch.manual_seed(config.seed)
    model = GPT(config)
    weights = dict(model.named_parameters())
    adamw = weights
    muon = None
    if optimizer == "muon":
        adamw = {name: p for name, p in weights.items() if name not in MATRICES}
        assert len(adamw) == len(weights) - 4 and any(name.endswith("pos.table") for name in adamw)
        matrices = [weights[name] for name in MATRICES]
        muon = train.Muon(matrices, torch.float32)
    state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in adamw.items()}
    rates = []
    for step in range(4):
        x, y = train.get_batch(config, tokens, ENCODING, step, range(4))
        model.zero_grad()
        F.cross_entropy(model(x, y)[0].transpose(1, 2), y).backward()
        norm = sum(p.grad.square().sum() for p in weights.values()).sqrt()
        assert norm > 0.05
        rate = train.get_lr(config, step)
        rates.append(rate)
        with torch.no_grad():
            for p in weights.values():
                p.grad *= 0.05 / norm
            for name, p in adamw.items():
                mean, square = state[name]
                mean.lerp_(p.grad, 0.2)
                square.lerp_(p.grad.square(), 0.1)
                p *= 1 - 0.5 * rate
                p -= (
                    rate * mean / (1 - 0.8 ** (step + 1)) / ((square / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8)
                )
            if muon:
                muon.param_groups[0].update(lr=3 * rate, weight_decay=0.5)
                muon.step()
    for name, value in checkpoint(tmp_path / "out")["model"].items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=2e-3, atol=1e-4)
    assert losses(tmp_path / "out", "lr") == rates
    assert not model.blocks[0].attn.pos.table.eq(0).all()


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 32)], ids=str)
def test_muon(shape):
    """In bfloat16 torch's Muon to the bit; in float32 nothing is rounded to bfloat16."""
    matrices = [torch.nn.Parameter(torch.ones(shape)) for _ in range(3)]
    ours, torchs, single = matrices
    optimizers = [
        train.Muon([ours], torch.bfloat16),
        torch.optim.Muon([torchs], momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        train.Muon([single], torch.float32),
    ]
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        gradient = torch.randn(shape, generator=generator)
        for matrix, optimizer in zip(matrices, optimizers):
            matrix.grad = gradient.clone()
            optimizer.param_groups[0].update(lr=0.1 + step, weight_decay=0.01)
            optimizer.step()
        assert torch.equal(ours, torchs)
        assert not torch.equal(ours, single)
        torch.testing.assert_close(ours, single, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 32)], ids=str)
def test_muon_makes_orthogonal(shape):
    """The singular vectors stay what they were; the singular values become near 1, by five polynomials."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert ((s > 0.6) & (s < 1.3)).all()
    torch.testing.assert_close(train.orthogonalize(x), u * s @ v)
    assert torch.equal(train.orthogonalize(torch.zeros(shape)), torch.zeros(shape))  # no gradient, no step


@pytest.mark.parametrize("dtype, expected", [("float32", 32), ("bfloat16", 16), ("float16", 32)])
def test_muon_computes_as_training_does(dtype, expected, corpus, tmp_path, monkeypatch):
    """A CPU without bfloat16 takes many times as long for it; float16 is too coarse near zero."""
    bits = set()
    orthogonalize = train.orthogonalize
    monkeypatch.setattr(train, "orthogonalize", lambda x: bits.add(x.itemsize * 8) or orthogonalize(x))
    run(corpus, tmp_path / "out", optimizer="muon", dtype=dtype, max_iters=1)
    assert bits == {expected}


def test_no_clipping_at_zero(corpus, tmp_path):
    for out, clip in (("zero", 0), ("never", 1e9), ("always", 1e-6)):
        run(corpus, tmp_path / out, grad_clip=clip, max_iters=2)
    assert_same_run(tmp_path / "zero", tmp_path / "never")
    assert losses(tmp_path / "zero") != losses(tmp_path / "always")


def update(corpus: Path, out: Path, **settings) -> torch.Tensor:
    """What training adds to the weights, as one vector."""
    config = run(corpus, out, **settings)
    torch.manual_seed(config.seed)
    before = dict(GPT(config).named_parameters())
    after = checkpoint(out)["model"]
    return torch.cat([(after[name] - weight).flatten() for name, weight in before.items()])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_float16_is_clipped_without_its_scale(optimizer, corpus, tmp_path):
    """Clipped with it, gradients would be so small that AdamW's ε outweighs them."""
    settings = {
        "optimizer": optimizer,
        "grad_clip": 1e-3,
        "weight_decay": 0,
        "max_iters": 1,
        "warmup_iters": 0,
    }
    half = update(corpus, tmp_path / "half", dtype="float16", **settings)
    single = update(corpus, tmp_path / "single", **settings)
    assert (half - single).norm() < 0.5 * single.norm()
    assert checkpoint(tmp_path / "half")["scaler"]["_growth_tracker"] == 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_float16_that_overflows_once(optimizer, corpus, tmp_path, monkeypatch):
    """The step is left out, for every weight and by both optimizers, and the next has a smaller scale."""
    steps = []

    class Overflowing(GPT):
        def __init__(self, config):
            super().__init__(config)
            self.wte.weight.register_hook(self.overflow)

        def overflow(self, gradient):
            steps.append(torch.cat([p.detach().flatten() for p in self.parameters()]))
            return gradient * float("nan") if len(steps) == 2 else gradient

    monkeypatch.setattr(train, "GPT", Overflowing)
    run(corpus, tmp_path / "out", dtype="float16", optimizer=optimizer, max_iters=4, eval_interval=4)
    assert torch.equal(steps[1], steps[2]) and not torch.equal(steps[2], steps[3])
    assert checkpoint(tmp_path / "out")["scaler"]["scale"] == 2**15


def test_gradient_accumulation(corpus, tmp_path):
    """The same global batch, 1 x 4, 2 x 2 or 4 x 1: the same losses, and before the first step to the bit."""
    for batch_size in (4, 2, 1):
        settings = {"batch_size": batch_size, "gradient_accumulation_steps": 4 // batch_size}
        run(corpus, tmp_path / str(batch_size), **settings, **{**PASSKEYS, "dropout": 0})
    for other in ("2", "1"):
        assert losses(tmp_path / other, "val_loss")[0] == losses(tmp_path / "4", "val_loss")[0]
        assert losses(tmp_path / other, "val_loss_4x")[0] == losses(tmp_path / "4", "val_loss_4x")[0]
        np.testing.assert_allclose(losses(tmp_path / other), losses(tmp_path / "4"), rtol=1e-5)
        for name, value in checkpoint(tmp_path / other)["model"].items():
            torch.testing.assert_close(value, checkpoint(tmp_path / "4")["model"][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns(optimizer, tmp_path):
    text = np.frombuffer(b"abc" * 700, dtype=np.uint8)
    settings = {"max_iters": 60, "eval_interval": 60, "log_interval": 60, "optimizer": optimizer}
    run(write_corpus(tmp_path / "abc", text, text), tmp_path / "out", **settings)
    assert losses(tmp_path / "out", "val_loss")[-1] < 0.3


# ---------------------------------------------------------------------------------------------------------
# Resume


RESUMED = [{"pos": "fope"}, {"pos": "alibi"}, {"dtype": "float16"}, {"optimizer": "muon"}]
RESUMED += [{"optimizer": "muon", "dtype": "float16"}]


@pytest.mark.parametrize("settings", RESUMED, ids=str)
def test_resume_is_exact(settings, corpus, tmp_path, monkeypatch):
    """Weights, the optimizers' averages, float16's scale, the log; with dropout and passkey prompts."""
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
    out = tmp_path / "out"
    run(corpus, out)
    weights = checkpoint(out)["model"]
    entries = log(out)
    run(corpus, out, resume=True)
    assert_same(checkpoint(out)["model"], weights)
    assert log(out) == entries
    run(corpus, out, resume=True, max_iters=9)
    assert checkpoint(out)["iter"] == 9
    assert [entry["iter"] for entry in log(out) if "loss" in entry] == list(range(9))


def test_resume_with_other_settings_of_the_optimizer(corpus, tmp_path):
    """Rates and weight decay may change; what would change the optimizer's averages is refused."""
    out = tmp_path / "out"
    run(corpus, out, max_iters=2, optimizer="muon")
    for name, value in (("beta1", 0.5), ("beta2", 0.75), ("optimizer", "adamw")):
        with pytest.raises(SystemExit, match=rf"^error: [^\n]*{name}"):
            run(corpus, out, max_iters=4, resume=True, **{"optimizer": "muon", name: value})
    settings = {"learning_rate": 0.5, "min_lr": 0.5, "muon_lr_ratio": 3, "weight_decay": 0.25}
    run(corpus, out, max_iters=3, resume=True, optimizer="muon", **settings)
    adamw, muon = [state["param_groups"][0] for state in checkpoint(out)["optimizers"]]
    assert (adamw["lr"], muon["lr"]) == (0.5, 1.5)
    assert adamw["weight_decay"] == muon["weight_decay"] == 0.25


# ---------------------------------------------------------------------------------------------------------
# Fine-tuning


@pytest.mark.parametrize("old, new", [("rope", "fope"), ("fope", "fope"), ("fope", "rope")])
def test_fine_tuning_at_a_longer_length(old, new, corpus, tmp_path, monkeypatch):
    """The trained weights are the start. FoPE's old coefficients keep their corner; the rest is as drawn."""
    run(corpus, tmp_path / "old", pos=old)
    before = snapshot(tmp_path / "old")
    settings = {"pos": new, "block_size": 64, "seed": 7}
    stop_at(monkeypatch, 0, corpus, tmp_path / "new", init_from=tmp_path / "old", **settings)
    torch.manual_seed(7)
    drawn = GPT(tiny_config(**settings)).state_dict()
    source = checkpoint(tmp_path / "old")["model"]
    start = checkpoint(tmp_path / "new")
    assert start["iter"] == 0 and not start["optimizers"][0]["state"]
    assert start["model"].keys() == drawn.keys()
    for name, value in start["model"].items():
        if not name.endswith("_coef"):
            assert torch.equal(value, source[name]), name
        elif old != "fope":
            assert torch.equal(value, drawn[name]), name
        else:
            corner = tuple(slice(size) for size in source[name].shape)
            assert value[0].numel() > source[name][0].numel() > 0  # a longer N keeps more frequencies
            expected = drawn[name].clone()
            expected[corner] = source[name]
            assert torch.equal(value, expected), name
    assert snapshot(tmp_path / "old") == before


OTHER = [{"n_embd": 32}, {"n_layer": 2}, {"n_head": 4}]
OTHER += [{"fope_dim": 16}, {"fope_sigma": 0.5}, {"fope_init": "normal"}, {"fope_series": False}]


@pytest.mark.parametrize("settings", OTHER, ids=lambda settings: next(iter(settings)))
def test_fine_tuning_another_shape(settings, corpus, tmp_path):
    """Is refused, also where only the settings tell: the weights of 2 and of 4 heads have one shape.

    So are other settings of the coefficients, which the fine-tuned model takes from the old one.
    """
    run(corpus, tmp_path / "old", max_iters=1)
    (name,) = settings
    with pytest.raises(SystemExit, match=rf"^error: [^\n]*{name}[^\n]*$"):
        run(corpus, tmp_path / "new", init_from=tmp_path / "old", block_size=32, **settings)
    assert not (tmp_path / "new").exists()


def test_fine_tuning_resumes(corpus, tmp_path, monkeypatch):
    """From its own checkpoint, not from the run that it began with, which may be gone."""
    run(corpus, tmp_path / "old", max_iters=2)
    settings = {"init_from": tmp_path / "old", "block_size": 32}
    run(corpus, tmp_path / "whole", **settings)
    stop_at(monkeypatch, 3, corpus, tmp_path / "parts", **settings)
    (tmp_path / "old" / "ckpt.pt").unlink()
    run(corpus, tmp_path / "parts", resume=True, **settings)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
