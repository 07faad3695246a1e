"""
What the scripts have in common: a user's mistake is one line, a programmer's a traceback; numbers are kept.

    pytest tests/test_scripts.py
"""

import io
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from runs import call, fails, make_model, make_tokens, read_json, write_corpus, write_run

import data
import passkey
import perplexity
import sample
from model import GPT, POSITIONS, NoPE

ROOT = Path(data.__file__).parent.parent
SCRIPTS = {
    sample: ["--max_new_tokens", 5],
    perplexity: ["--lengths", 8, "--tokens", 64],
    passkey: ["--lengths", 120, "--trials", 10],
}
every_script = pytest.mark.parametrize("module", SCRIPTS, ids=["sample", "perplexity", "passkey"])
every_evaluation = pytest.mark.parametrize("module", [perplexity, passkey], ids=["perplexity", "passkey"])


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where a user stands: two corpora in data/, runs in out/, a configuration and a text."""
    letters = write_corpus(tmp_path / "data" / "letters", make_tokens())
    others = write_corpus(tmp_path / "data" / "others", make_tokens(), sha256="b" * 64)
    (tmp_path / "out").mkdir()
    model = make_model(vocab_size=320)  # as train.py makes it, a multiple of 64
    write_run(tmp_path / "out" / "tiny", model, letters)
    write_run(tmp_path / "out" / "other", model, others)
    write_run(tmp_path / "out" / "gpt2", model, letters, meta={"encoding": "gpt2", "sha256": ""})
    (tmp_path / "tiny.py").write_text(
        "dataset = 'letters'\nblock_size = 16\nn_layer = 1\nn_head = 2\nn_embd = 16\nmax_iters = 1\n"
        "device = 'cpu'\ncompile = False\nout_dir = 'out/new'"
    )
    (tmp_path / "typo.py").write_text("n_heads = 2")
    (tmp_path / "wrong.py").write_text("n_head = 'two'")
    (tmp_path / "note.txt").write_text("a note")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(data, "DATA_DIR", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MISTAKES = {  # a command line: what the one line names
    "train.py --n_heads=4": "n_heads",
    "train.py typo.py": "n_heads",
    "train.py wrong.py": "n_head",
    "train.py none.py": "none.py",
    "train.py --max_iters=ten": "max_iters",
    "train.py --qk_norm=yes": "qk_norm",
    "train.py --pos=ropee": "ropee",
    "train.py --pos_global=ropee": "ropee",
    "train.py --fope_init=uniform": "fope_init",
    "train.py --n_embd=100 --n_head=3": "n_head",
    "train.py tiny.py --n_embd=6": "even",
    "train.py tiny.py --fope_dim=12 --pos=fope": "fope_dim",
    "train.py tiny.py --device=tpu": "tpu",
    "train.py tiny.py --dataset=none": "data.prepare none",
    "train.py tiny.py --block_size=1000": "block_size",
    "train.py tiny.py --passkey_frac=0.5": "block_size",
    "train.py tiny.py --out_dir=out/tiny": "--resume",
    "train.py tiny.py --resume": "out/new/ckpt.pt",
    "train.py tiny.py --init_from=out/none": "out/none/ckpt.pt",
    "train.py tiny.py --init_from=out/tiny": "n_layer",
    "train.py tiny.py --init_from=out/tiny --n_layer=2 --n_head=1": "n_head",
    "perplexity.py out/none": "out/none/ckpt.pt",
    "perplexity.py out/tiny --lengths 0": "lengths",
    "perplexity.py out/tiny --lengths 100000": "100000",
    "perplexity.py out/tiny --lengths long": "long",
    "perplexity.py out/tiny --dataset none": "data.prepare none",
    "perplexity.py out/tiny --set yarn=16": "yarn",
    "perplexity.py out/tiny --set yarn_scale=much": "yarn_scale",
    "perplexity.py out/tiny --set logn=1": "logn",
    "perplexity.py out/tiny --set pos=ropee": "ropee",
    "perplexity.py out/tiny out/other --lengths 8": "out/other",
    "perplexity.py out/tiny out/gpt2 --lengths 8 --dataset letters": "encoding",
    "passkey.py out/none": "out/none/ckpt.pt",
    "passkey.py out/tiny --lengths 100": "116",
    "passkey.py out/tiny --trials 5": "trials",
    "passkey.py out/tiny --keys 27": "keys",
    "passkey.py out/tiny --filler hay": "hay",
    "passkey.py out/tiny --device tpu": "tpu",
    "sample.py out/none": "out/none/ckpt.pt",
    "sample.py out/tiny --top_k many": "many",
    "data.prepare pyhton": "pyhton",
    "data.prepare text": "paths",
    "data.prepare python note.txt": "paths",
    "data.prepare text none.txt": "none.txt",
    "data.prepare text photo.jpg": "photo.jpg",
    "data.prepare text empty": "too little",
    "data.prepare text note.txt --name=letters": "letters",
    "data.prepare c4 --tokens=many": "many",
    "data.prepare c4 --tokens=9e14 --encoding=bytes": "disk",
}


def start(monkeypatch, command: str) -> None:
    """What a shell does with a command line."""
    script = command.split()[0]
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    path = script if script.endswith(".py") else script.replace(".", "/") + ".py"
    runpy.run_path(str(ROOT / path), run_name="__main__")


@pytest.mark.parametrize("command", MISTAKES)
def test_a_users_mistake_is_one_line(command, place, monkeypatch, capsys):
    def run():
        start(monkeypatch, command)

    assert MISTAKES[command] in fails(capsys, run)
    assert not (place / "out" / "new" / "ckpt.pt").exists()


class Slip(NoPE):
    def encode(self, q, k, start):
        return q * self.config.my_scale, k


TRACEBACKS = ["train.py tiny.py --pos=slip", "perplexity.py out/tiny --lengths 8 --set pos=slip"]
TRACEBACKS += ["passkey.py out/tiny --lengths 120 --set pos=slip", "sample.py out/tiny --set pos=slip"]


@pytest.mark.parametrize("command", TRACEBACKS)
def test_a_slip_in_an_encoding_shows_its_line(command, place, monkeypatch):
    monkeypatch.setitem(POSITIONS, "slip", Slip)
    with pytest.raises(AttributeError, match="my_scale") as error:
        start(monkeypatch, command)
    last = error.traceback[-1]
    assert last.path == Path(__file__) and "my_scale" in str(last.statement)


@every_script
def test_set_replaces_settings_of_the_checkpoint(module, place, monkeypatch):
    """RoPE's weights with FoPE's clipping: the model that is run has it, and every run gets it."""
    seen = []

    def hidden(model, idx, cache=None):
        seen.append(model.config)
        return whole(model, idx, cache)

    whole = GPT.hidden
    monkeypatch.setattr(GPT, "hidden", hidden)
    settings = ["--set", "pos=fope", "fope_series=False", "yarn_scale=16"]
    call(monkeypatch, module, "out/tiny", *SCRIPTS[module], *settings)
    for config in seen:
        assert (config.pos, config.fope_series, config.yarn_scale, config.fope_clip) == (
            "fope",
            False,
            16,
            True,
        )
    assert seen


@every_evaluation
def test_numbers_and_figure_are_written(module, place, monkeypatch):
    pytest.importorskip("matplotlib")
    files = ("--json", "out.json", "--plot", "out.png", "--set", "logn=True")
    call(monkeypatch, module, "out/tiny", "out/tiny", *SCRIPTS[module], *files)
    result = read_json(place / "out.json")
    assert result["runs"] == ["out/tiny", "out/tiny"] and result["set"] == [["logn", True]]
    assert result["commit"] == data.commit() and result["device"] == "cpu"
    first = result["results"][0]
    assert len(result["results"]) == 2
    assert first["iter"] == 7 and first["config"]["block_size"] == 16 and first["trained_on"] == "a" * 64
    assert (place / "out.png").read_bytes().startswith(b"\x89PNG")


COMMANDS = ["perplexity.py out/tiny out/tiny --lengths 8", "passkey.py out/tiny --lengths 120 --trials 10"]
COMMANDS += ["sample.py out/tiny --prompt θ --max_new_tokens 5"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_that_knows_few_characters(command, place, monkeypatch):
    """What evaluations print is ASCII; a sample has "?" for what is not."""
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding="ascii", write_through=True))
    start(monkeypatch, command)
    assert terminal.getvalue()


@every_evaluation
def test_numbers_are_saved_before_they_are_printed(module, place, monkeypatch):
    def print_row(name, cells):
        if name == "tiny":
            raise UnicodeEncodeError("ascii", "", 0, 1, "a character that this terminal has not")

    monkeypatch.setattr(module, "print_row", print_row)
    with pytest.raises(UnicodeEncodeError):
        call(monkeypatch, module, "out/tiny", *SCRIPTS[module], "--json", "out.json")
    assert len(read_json(place / "out.json")["results"]) == 1
