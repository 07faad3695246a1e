"""
What the pages promise: the README's commands run, in small; other commands have settings that exist; and
every table is what the command above it prints.

    pytest tests/test_readme.py
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from runs import make_tokens, write_corpus

from analysis import plots
from model import POSITIONS, NoPE
from train import parse_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs/paper.md", ROOT / "results/README.md"]
TEXT = PAGES[0].read_text(encoding="utf-8")
SHELL_BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
CLASSES = re.findall(r"^```python\n(.*?^class (\w+).*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SMALL = {  # what is added to a command
    "train.py": "--device=cpu --compile=False --n_layer=2 --n_embd=16 --batch_size=2 --max_iters=2",
    "perplexity.py": "--device cpu --lengths 128 --tokens 256",
    "passkey.py": "--device cpu --lengths 400 --trials 10",
    "sample.py": "--device cpu --max_new_tokens 5",
}
RUN = """
import runpy, shlex, sys
for line in sys.stdin:
    sys.argv = shlex.split(line)
    print("$", line, flush=True)
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def commands() -> list[str]:
    """The command lines of the README's shell blocks, without what makes the environment."""
    lines = []
    for block in SHELL_BLOCKS:
        for line in block.splitlines():
            for script, settings in SMALL.items():
                found = re.search(rf"\bpython {script}(.*)", line)
                if found and "--help" not in line:
                    lines.append(f"{script}{found[1]} {settings}")
    return list(dict.fromkeys(lines))


def test_the_commands_run_in_a_fresh_copy(tmp_path):
    """One after the other, in one process; the encodings of the README are added and trained, too."""
    for pattern in ("*.py", "config/*.py", "data/*.py"):
        for path in ROOT.glob(pattern):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    write_corpus(tmp_path / "data" / "python", make_tokens())
    lines = commands()
    assert any(line.startswith("train.py") for line in lines) and len(CLASSES) > 0
    with (tmp_path / "model.py").open("a", encoding="utf-8") as model:
        for source, name in CLASSES:
            model.write(f"\n\n{source}\n\nPOSITIONS['{name}'] = {name}\n")
            lines.append(f"train.py --pos={name} {SMALL['train.py']}")
    python = [sys.executable, "-c", RUN]
    done = subprocess.run(python, cwd=tmp_path, input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_and_links_lead_somewhere(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for _, name in CLASSES:
        monkeypatch.setitem(POSITIONS, name.lower(), NoPE)  # which the reader adds
    text = page.read_text(encoding="utf-8")
    for settings in re.findall(r"\btrain\.py((?: +(?:config/[a-z]\w+\.py|--\w+(?:=[\w./-]+)?))+)", text):
        words = settings.split()
        if "--help" not in words and "--key=value" not in words:
            parse_config(words)
    for module in re.findall(r"\bpython -m ((?:analysis|assignments|data)\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_tables_are_what_their_commands_print(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding="utf-8")
    tables = re.findall(r"<!-- python -m analysis\.plots (.*) -->\n\n((?:\|.*\n|\n)+)", text)
    assert len(tables) == text.count("<!-- python -m analysis.plots")
    for arguments, table in tables:
        monkeypatch.setattr(sys, "argv", ["plots.py", *shlex.split(arguments)])
        plots.main()
        printed = capsys.readouterr().out.partition("Measured by")[0]
        assert table.split() == printed.split()
