"""
What the README and the pages it leads to promise: pytest tests/test_readme.py

Their commands run, in small: the quick start's word for word with a few settings added, the others as far
as their settings go. Their files exist, their examples work, and their tables are what results/*.json hold.
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
from analysis import plots

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "docs/paper.md", ROOT / "results/README.md"]
TEXT = README.read_text(encoding="utf-8")
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
SHELL = re.compile(r"^```sh\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
BLOCKS = SHELL.findall(TEXT)
INLINE = re.compile(r"`((?:python|torchrun) [^`\n]+)`")
SMALL = {
    "train.py": "--device=cpu --n_layer=1 --n_embd=16 --batch_size=2 --max_iters=2 --eval_tokens=1",
    "sample.py": "--device cpu --max_new_tokens 5",
    "perplexity.py": "--device cpu --lengths 64 128 --tokens 256",
    "passkey.py": "--device cpu --lengths 128 --trials 10",
}


def commands() -> list[str]:
    found = set()
    for text in TEXTS.values():
        for block in SHELL.findall(text):
            found.update(line.strip() for line in block.splitlines() if line.strip())
        found.update(INLINE.findall(text))
    return sorted(found)


COMMANDS = commands()


def test_the_two_commands_of_the_quick_start_are_one_line_each():
    venv = "python3 -m venv .venv && .venv/bin/pip install -q -r"
    assert f"{venv} requirements.txt && .venv/bin/python train.py" in COMMANDS
    assert f"{venv} requirements-dev.txt && .venv/bin/pytest -n 2" in COMMANDS


def test_the_readme_is_short():
    assert len(TEXT.split()) <= 1800


def test_quick_start_runs(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "val"):
        rng.integers(97, 123, size=5000, dtype=np.uint16).tofile(corpus / f"{split}.bin")
    meta = {"encoding": "bytes", "vocab_size": 257, "train_tokens": 5000, "val_tokens": 5000, "sha256": "0"}
    (corpus / "meta.json").write_text(json.dumps(meta))
    monkeypatch.chdir(tmp_path)  # where out/ will be
    lines = next(block for block in BLOCKS if "python sample.py" in block).splitlines()
    for line in ["python train.py", *lines]:
        script, *arguments = shlex.split(line.removeprefix("python "))
        arguments += SMALL[script].split()
        if script == "train.py":
            arguments.append(f"--dataset={corpus}")
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(ROOT / script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "def " in printed and "rope_tiny" in printed
    assert {"ckpt.pt", "config.json", "log.jsonl"} == {path.name for path in Path("out/fope_tiny").iterdir()}


@pytest.mark.parametrize("command", [c for c in COMMANDS if "train.py" in c and "key=value" not in c])
def test_every_training_command_has_settings_that_exist(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(model.POSITIONS, "t5", model.NoPE)  # the example that the reader adds
    for line in re.findall(r"train\.py(.*?)(?:$|;|&&)", command):
        words = [word for word in shlex.split(line) if word != "--help" and "$" not in word]
        train.parse_config([word for word in words if not word.endswith("=P")])


def test_several_machines():
    """One line for torchrun, to be given on each machine: how many, which this is, where the first is."""
    (command,) = [command for command in COMMANDS if "--nnodes" in command]
    assert re.match(
        r"torchrun --nnodes=\d+ --node_rank=0 --master_addr=\S+ --master_port=\d+ --nproc", command
    )


EXAMPLES = re.findall(r"^```python\n(class (\w+).*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_there_is_an_example_of_a_fixed_and_of_a_learned_encoding():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("source, name", EXAMPLES, ids=[name for _, name in EXAMPLES])
def test_the_examples_of_new_encodings_work(source, name, monkeypatch):
    scope = vars(model).copy()
    exec(source, scope)
    monkeypatch.setitem(model.POSITIONS, "new", scope[name])
    config = model.GPTConfig(32, 64, n_layer=1, n_head=2, n_embd=16, pos="new")
    gpt = model.GPT(config).eval()
    for weight in gpt.parameters():
        weight.data *= 5  # so that attention is far from uniform
    idx = torch.randint(32, (1, 80))
    changed = idx.flip(1)
    changed[:, -1] = idx[:, -1]
    assert not torch.allclose(gpt(idx)[0], gpt(changed)[0], atol=1e-4)  # it sees order
    cache = [{}]
    cached = [gpt.hidden(part, cache) for part in idx.split([50, 1, 29], dim=1)]
    torch.testing.assert_close(torch.cat(cached, dim=1), gpt.hidden(idx), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_script_and_link_exists(page):
    text = TEXTS[page]
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / path).exists(), path
    for path in re.findall(r"python (\w+\.py|\w+(?:/\w+)*\.py)", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", text):
        if module not in ("venv", "pytest"):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


@pytest.mark.parametrize("page", [README, ROOT / "results/README.md"], ids=["README", "results"])
def test_tables_are_what_the_results_hold(page, capsys):
    """A table under `<!-- made by python -m analysis.plots ... -->` is a part of what that prints."""
    made = re.findall(r"<!-- made by python -m analysis\.plots (.*?) -->\n\n((?:\|.*\n)+)", TEXTS[page])
    assert made
    for arguments, table in made:
        words = shlex.split(arguments)
        folder = ROOT / words[0]
        methods = plots.group(plots.read_runs([folder]))
        if "--only" in words:
            methods = plots.choose(methods, words[words.index("--only") + 1 : -1])
        capsys.readouterr()
        plots.print_tables(methods)
        printed = capsys.readouterr().out.splitlines()
        for line in table.splitlines():
            assert line in printed, line


@pytest.mark.parametrize("page", [README, ROOT / "results/README.md"], ids=["README", "results"])
def test_means_in_the_text_are_in_the_tables(page, capsys):
    """What a sentence gives as mean ± deviation is a cell of a table of the files that the page names."""
    for file in sorted((ROOT / "results").glob("*/*.jsonl")):
        plots.print_tables(plots.group(plots.read_runs([file])))
    cells = capsys.readouterr().out
    prose = re.sub(r"^\|.*$", "", TEXTS[page], flags=re.MULTILINE)
    found = re.findall(r"\d+\.\d+ ± \d+\.\d+", prose)
    assert found
    for text in found:
        assert f"| {text} |" in cells, text
