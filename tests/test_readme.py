"""
What the README promises: pytest tests/test_readme.py

Its commands run, in small: the quick start's word for word with a few settings added, the others as far as their
settings go. Its files exist.
"""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import model
import train

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = sorted({*LINES, *re.findall(r"`((?:python|torchrun) [^`\n]+)`", TEXT)})
SMALL = {
    "train.py": "--device=cpu --n_layer=1 --n_head=1 --n_embd=16 --batch_size=2 --max_iters=2 --eval_iters=1",
    "sample.py": "--device cpu --max_new_tokens 5",
    "perplexity.py": "--device cpu --lengths 64 128 --tokens 256",
    "passkey.py": "--device cpu --lengths 128 --trials 4",
}


def test_the_two_commands_of_the_quick_start_are_one_line_each():
    venv = "python3 -m venv .venv && .venv/bin/pip install -q -r"
    assert f"{venv} requirements.txt && .venv/bin/python train.py" in LINES
    assert f"{venv} requirements-dev.txt && .venv/bin/pytest" in LINES


def test_quick_start_runs(tmp_path, monkeypatch, capsys):
    rng, corpus = np.random.default_rng(0), tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "val"):
        rng.integers(97, 123, size=5000, dtype=np.uint16).tofile(corpus / f"{split}.bin")
    meta = {"name": "corpus", "encoding": "bytes", "vocab_size": 257, "train_tokens": 5000, "val_tokens": 5000}
    (corpus / "meta.json").write_text(json.dumps(meta))
    monkeypatch.chdir(tmp_path)  # where out/ will be
    commands = next(block for block in BLOCKS if "python sample.py" in block).splitlines()
    for command in ["python train.py", *commands]:
        script, *arguments = shlex.split(command.removeprefix("python "))
        arguments += SMALL[script].split() + [f"--dataset={corpus}"] * (script == "train.py")
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(ROOT / script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "def " in printed and "rope_tiny" in printed
    assert {"ckpt.pt", "config.json", "log.jsonl"} == {path.name for path in Path("out/fope_tiny").iterdir()}


@pytest.mark.parametrize("command", [c for c in COMMANDS if "train.py" in c and "key=value" not in c])
def test_every_training_command_has_settings_that_exist(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(model.POSITIONS, "root", model.ALiBi)  # the example that the reader adds
    for line in re.findall(r"train\.py(.*?)(?:$|;|&&)", command):
        words = [word for word in shlex.split(line) if word != "--help" and "$" not in word]
        train.parse_config([word for word in words if not word.endswith("=P")])


def test_several_machines():
    """One line for torchrun, to be given on each machine: how many there are, which this is, where the first is."""
    (command,) = {command for command in COMMANDS if "--nnodes" in command}
    assert re.match(r"torchrun --nnodes=\d+ --node_rank=0 --master_addr=\S+ --master_port=\d+ --nproc", command)


def test_the_example_of_a_new_encoding_works(monkeypatch):
    example = re.search(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)[1]
    scope = vars(model).copy()
    exec(example, scope)
    monkeypatch.setattr(model, "POSITIONS", scope["POSITIONS"])
    gpt = model.GPT(model.GPTConfig(32, 64, n_layer=1, n_head=2, n_embd=16, pos="root")).eval()
    pos, idx = gpt.blocks[0].attn.pos, torch.randint(32, (1, 80))
    assert pos.bias(2, 10)[1, 0, 4].item() == pytest.approx(-pos.slopes[1].item() * 2)  # query 8, key 4
    cache = [{}]
    cached = [gpt.hidden(part, cache) for part in idx.split([50, 1, 29], dim=1)]
    torch.testing.assert_close(torch.cat(cached, dim=1), gpt.hidden(idx), atol=1e-5, rtol=1e-4)


def test_every_script_and_link_exists():
    for path in re.findall(r"\]\(([^)#:]+)\)", TEXT) + re.findall(r"python (\w+\.py|\w+/\w+\.py)", TEXT):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        if module not in ("venv", "pytest"):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
