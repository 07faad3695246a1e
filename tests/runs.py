"""A corpus and runs as data/prepare.py and train.py write them, and how tests call the scripts."""

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from model import GPT, GPTConfig

END = 256  # the end-of-text token of the encoding "bytes"


def make_model(**settings) -> GPT:
    """A small model with weights so large that every logit depends on the context."""
    sizes = {"vocab_size": 257, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "pos": "rope"}
    model = GPT(GPTConfig(**(sizes | settings))).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 8
    return model


def make_tokens(documents: int = 60, seed: int = 0) -> np.ndarray:
    """Documents of 20 to 79 letters; the alphabet grows from document to document, so their losses differ."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(documents):
        letters = rng.integers(0, 4 + 4 * i, size=rng.integers(20, 80))
        parts += [letters, [END]]
    return np.concatenate(parts).astype(np.uint16)


def write_corpus(path: Path, val: np.ndarray, train: np.ndarray | None = None, **changes) -> Path:
    """A corpus's directory; without `train`, both splits hold the same. `changes` are those of meta.json."""
    path.mkdir(parents=True, exist_ok=True)
    train = val if train is None else train
    val.tofile(path / "val.bin")
    train.tofile(path / "train.bin")
    meta = {
        "name": path.name,
        "encoding": "bytes",
        "vocab_size": 257,
        "train_tokens": len(train),
        "val_tokens": len(val),
        "sha256": "a" * 64,
    }
    (path / "meta.json").write_text(json.dumps(meta | changes))
    return path


def write_run(path: Path, model: GPT, corpus: Path, **changes) -> Path:
    """A run's directory; `changes` take the place of entries of its checkpoint."""
    path.mkdir()
    config = asdict(model.config) | {"dataset": str(corpus), "seed": 3}
    meta = json.loads((corpus / "meta.json").read_text())
    checkpoint = {"iter": 7, "config": config, "meta": meta, "model": model.state_dict()}
    torch.save(checkpoint | changes, path / "ckpt.pt")
    return path


def call(monkeypatch, module, *arguments):
    """The script's main with a command line, in float32 whatever the machine has."""

    def float32(device):
        return contextlib.nullcontext()

    monkeypatch.setattr(module, "autocast", float32)
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments), "--device", "cpu"])
    module.main()


def read_json(path: Path) -> dict:
    """Strict JSON: NaN and Infinity are none."""

    def refuse(constant):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def fails(capsys, script) -> str:
    """The one line in which the script ends: an exit with a text, or argparse's on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        script()
    message = stop.value.code
    if message == 2:
        message = capsys.readouterr().err.strip().splitlines()[-1]  # under argparse's usage
    assert "error: " in message and "\n" not in message, message
    return message
