"""sample.py, perplexity.py and passkey.py alike: what they read and write, how they fail and stop."""

import argparse
import ast
import errno
import os
import re
import runpy
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import call, fails, make_model, make_tokens, read_json, write_corpus, write_run

import data
import passkey
import perplexity
import sample

ROOT = Path(data.__file__).parent.parent
SCRIPTS = {
    sample: ["--max_new_tokens", 5, "--num_samples", 2],
    perplexity: ["--lengths", 8, 16, "--tokens", 64],
    passkey: ["--lengths", 120, "--trials", 10],
}
EVALUATIONS = [perplexity, passkey]
every_script = pytest.mark.parametrize("module", SCRIPTS, ids=lambda module: module.__name__)
needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
every_evaluation = pytest.mark.parametrize("module", EVALUATIONS, ids=lambda module: module.__name__)


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus", make_tokens())


@pytest.fixture
def run(tmp_path, corpus):
    return write_run(tmp_path / "tiny", make_model(), corpus)


def contents(path: Path) -> dict:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


# ---------------------------------------------------------------------------------------------------------
# What they are made of


IMPORTS = {"sample": {"data", "model"}, "perplexity": {"data", "model"}, "passkey": {"data", "model"}}
IMPORTS |= {"model": set(), "data/__init__": {"data.prepare"}}


@pytest.mark.parametrize("name", IMPORTS)
def test_arrows_run_one_way(name):
    """Neither evaluation imports the other, and nothing here imports train.py or analysis/."""
    ours = {path.stem for path in ROOT.glob("*.py")} | {"data", "analysis", "assignments", "tests"}
    tree = ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {module for module in imported if module.split(".")[0] in ours} == IMPORTS[name]
    at_start = {ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))}
    assert not any("matplotlib" in line for line in at_start)  # needed for --plot alone


# ---------------------------------------------------------------------------------------------------------
# What they read and write


@every_script
def test_a_run_is_only_read(module, run, corpus, monkeypatch, capsys):
    before = contents(run) | contents(corpus)
    monkeypatch.chdir(run)  # nor does anything appear where the user stands
    call(monkeypatch, module, run, *SCRIPTS[module])
    assert capsys.readouterr().out
    assert contents(run) | contents(corpus) == before


@every_evaluation
def test_numbers_and_picture_are_written(module, run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    there = tmp_path / "out"
    there.mkdir()
    (there / "out.json").write_text("old")
    files = ("--json", there / "out.json", "--plot", there / "out.png")
    call(monkeypatch, module, run, run, *SCRIPTS[module], *files)
    assert len(read_json(there / "out.json")["results"]) == 2
    assert (there / "out.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in there.iterdir()) == ["out.json", "out.png"]  # and no temporary


@every_evaluation
def test_numbers_say_what_made_them(module, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, module, "tiny", *SCRIPTS[module], "--json", "out.json")
    result = read_json(tmp_path / "out.json")
    assert result["runs"] == ["tiny"] and result["device"] == "cpu" and result["logn_scale"] is None
    assert result["commit"] == "" or len(result["commit"]) == 40
    assert result["results"][0]["config"]["block_size"] == 16 and result["results"][0]["iter"] == 7
    text = (tmp_path / "out.json").read_text().replace(str(run.parent / "corpus"), "")
    assert str(tmp_path) not in text  # where the reader's directories are is nobody's business


@every_evaluation
def test_numbers_are_kept_after_each_run(module, run, tmp_path, monkeypatch):
    """Ctrl-C in the second run leaves the first's."""
    load_checkpoint = module.load_checkpoint
    loaded = []

    def load(*args):
        loaded.append(args[0])
        if len(loaded) == 3:  # once to know the lengths, then once a run
            raise KeyboardInterrupt
        return load_checkpoint(*args)

    monkeypatch.setattr(module, "load_checkpoint", load)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, module, run, run, *SCRIPTS[module], "--json", tmp_path / "out.json")
    assert len(read_json(tmp_path / "out.json")["results"]) == 1


@every_evaluation
def test_a_plot_without_matplotlib_stops_before_the_work(module, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(module, "load_checkpoint", None)
    arguments = (run, "--plot", tmp_path / "out.png")
    assert "pip install matplotlib" in fails(capsys, lambda: call(monkeypatch, module, *arguments))


# ---------------------------------------------------------------------------------------------------------
# Files are whole or not touched


def write(path: Path, content: bytes = b"new") -> None:
    with data.write_whole(path) as file:
        file.write(content)


@needs_fifo
def test_output_is_for_files_in_directories_that_exist(tmp_path):
    (tmp_path / "old.json").write_text("old")
    for name in ("new.json", "old.json"):
        assert data.output(str(tmp_path / name)).resolve() == (tmp_path / name).resolve()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link to fifo").symlink_to("fifo")
    (tmp_path / "circle").symlink_to("round")
    (tmp_path / "round").symlink_to("circle")
    (tmp_path / "link to nowhere").symlink_to("none/a.json")
    (tmp_path / "ckpt.pt").write_text("a slip of the shell's completion, and the run would be gone")
    for name in (
        tmp_path,
        tmp_path / "ckpt.pt",
        tmp_path / "fifo",
        tmp_path / "link to fifo",
        tmp_path / "circle",
        tmp_path / "circle" / "a.json",
        tmp_path / "link to nowhere",
        tmp_path / "none" / "a.json",
        "/dev/null",
    ):
        with pytest.raises(argparse.ArgumentTypeError):
            data.output(str(name))


@needs_fifo
@every_evaluation
@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_what_is_no_file_is_refused_before_the_work(module, option, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "load_checkpoint", None)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "link").symlink_to("nowhere/out")
    names = ("fifo", "", "nowhere/out", "circle", "link", "/dev/full")
    for path in [tmp_path / name for name in names]:
        arguments = (run, option, path)
        message = fails(capsys, lambda arguments=arguments: call(monkeypatch, module, *arguments))
        assert str(path) in message and option in message
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


@every_evaluation
def test_links_are_followed(module, run, tmp_path, monkeypatch):
    there = tmp_path / "there"
    there.mkdir()
    (there / "old.json").write_text("old")
    (tmp_path / "link").symlink_to(there / "old.json")
    (tmp_path / "link to nothing yet").symlink_to(there / "new.json")
    for name in ("link", "link to nothing yet"):
        call(monkeypatch, module, run, *SCRIPTS[module], "--json", tmp_path / name)
        assert (tmp_path / name).is_symlink()
    assert {path.name for path in there.iterdir()} == {"old.json", "new.json"}
    for path in there.iterdir():
        assert len(read_json(path)["results"]) == 1


def test_a_checkpoint_that_is_a_link_is_followed(tmp_path):
    """Such as one whose user keeps large files on another disk."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "ckpt.pt").write_text("old")
    (tmp_path / "ckpt.pt").symlink_to(tmp_path / "large" / "ckpt.pt")
    write(tmp_path / "ckpt.pt")
    assert (tmp_path / "ckpt.pt").is_symlink()
    assert (tmp_path / "large" / "ckpt.pt").read_text() == "new"


@needs_fifo
def test_what_is_no_file_is_never_replaced(tmp_path, capsys):
    """Also where it came to stand there during the work."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "directory"):
        assert name in fails(capsys, lambda name=name: write(tmp_path / name))
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "fifo"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, SystemExit])
def test_a_failing_write_leaves_the_old_file(error, tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(error), data.write_whole(path) as file:
        file.write(b"half")
        raise error
    assert path.read_text() == "old"
    write(path)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    """And the new one is named after its process, so that two at once do not share it."""
    path = tmp_path / "out.json"
    path.write_text("old")
    with data.write_whole(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
        (temporary,) = set(tmp_path.iterdir()) - {path}
        assert str(os.getpid()) in temporary.name
    assert path.read_text() == "new"


def test_two_processes_write_one_file(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    with data.write_whole(path) as first:
        first.write(b"first")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        write(path, b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


class FullDisk:
    """A file that takes so many bytes; then `error` comes, at every write."""

    def __init__(self, error: BaseException, room: int) -> None:
        self.error = error
        self.room = room

    def write(self, content) -> int:
        self.room -= memoryview(content).nbytes
        if self.room < 0:
            raise self.error
        return memoryview(content).nbytes

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("room", [0, 100, 20_000])
def test_a_full_disk_within_torch_save_is_one_line(room, tmp_path, capsys):
    path = tmp_path / "ckpt.pt"
    path.write_text("old")

    def save():
        with data.write_whole(path):
            torch.save(
                {"weights": torch.zeros(10_000)}, FullDisk(OSError(errno.ENOSPC, "No space left"), room)
            )

    message = fails(capsys, save)
    assert str(path) in message and "No space left" in message
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("room", [0, 100, 20_000])
def test_ctrl_c_within_torch_save_is_ctrl_c(room, tmp_path):
    path = tmp_path / "ckpt.pt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), data.write_whole(path):
        torch.save({"weights": torch.zeros(10_000)}, FullDisk(KeyboardInterrupt(), room))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@every_evaluation
def test_a_disk_that_is_full_at_the_end_is_one_line(module, run, tmp_path, monkeypatch, capsys):
    (tmp_path / "out.json").write_text("old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data.os, "replace", full)
    arguments = (run, *SCRIPTS[module], "--json", tmp_path / "out.json")
    assert "No space left" in fails(capsys, lambda: call(monkeypatch, module, *arguments))
    assert (tmp_path / "out.json").read_text() == "old"


def test_json_is_strict(tmp_path, capsys):
    path = tmp_path / "out.json"
    data.write_json(path, {"a": 0.1, "b": [1, None], "c": "θ"})
    assert read_json(path) == {"a": 0.1, "b": [1, None], "c": "θ"}
    for value in (float("nan"), float("inf")):
        message = fails(capsys, lambda value=value: data.write_json(path, {"a": value}))
        assert f"cannot write {path}: " in message
        assert read_json(path)["a"] == 0.1


# ---------------------------------------------------------------------------------------------------------
# Bad input is one line


NUMBERS = {
    sample: {
        "--num_samples": ["0", "-1", "nan", "inf", "1.5"],
        "--max_new_tokens": ["0", "-1", "nan"],
        "--top_k": ["0", "-1", "inf"],
        "--temperature": ["-1", "nan", "inf", "-inf", "1e999", "warm"],
        "--seed": ["-1", "nan", 2**32, 2**32 + 5, 10**30],
    },
    perplexity: {
        "--lengths": ["0", "-8", "nan", "inf", 10**6, 10**30, "long"],
        "--tokens": ["0", "-1", "nan", "inf"],
    },
    passkey: {
        "--lengths": ["0", "-8", "nan", "115", 10**13, 10**30],
        "--trials": ["0", "-1", "nan", "inf", 10**13, 10**30],
        "--seed": ["-1", "nan", "1.5"],
    },
}
CASES = []
for script, options in NUMBERS.items():
    for option, values in options.items():
        CASES += [(script, option, str(value)) for value in values]
    CASES += [(script, "--logn_scale", value) for value in ("-1", "nan", "inf", "1e999", "1e300", "much")]
    CASES += [(script, "--device", "tpu"), (script, "--colour", "red")]


@pytest.mark.parametrize(
    "module, option, value", CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_bad_numbers(module, option, value, run, monkeypatch, capsys):
    """After options with which the script works, as a test above shows: the last one counts."""
    arguments = [str(argument) for argument in SCRIPTS[module]]
    argv = [module.__name__, str(run), *arguments, "--device", "cpu", option, value]
    monkeypatch.setattr(sys, "argv", argv)
    fails(capsys, module.main)


@every_evaluation
def test_bad_numbers_beside_good_ones(module, run, monkeypatch, capsys):
    for value in (0, -120):
        arguments = (run, "--lengths", 120, value)
        fails(capsys, lambda arguments=arguments: call(monkeypatch, module, *arguments))


def test_a_corpus_that_is_not_there(run, corpus, monkeypatch, capsys):
    arguments = (run, "--dataset", "/nowhere")
    assert "/nowhere" in fails(capsys, lambda: call(monkeypatch, perplexity, *arguments))
    shutil.rmtree(corpus)
    assert str(corpus) in fails(capsys, lambda: call(monkeypatch, perplexity, run))


DAMAGES = {
    "no hash": {"sha256": None},
    "no encoding": {"encoding": None},
    "vocabulary as text": {"vocab_size": "257"},
    "no vocabulary": {"vocab_size": None},
    "count as text": {"val_tokens": "99"},
    "another count": {"val_tokens": 5},
    "unknown encoding": {"encoding": "morse"},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_corpus(damage, run, corpus, monkeypatch, capsys):
    write_corpus(corpus, make_tokens(), **DAMAGES[damage])
    fails(capsys, lambda: call(monkeypatch, perplexity, run, *SCRIPTS[perplexity]))


# ---------------------------------------------------------------------------------------------------------
# Checkpoints that are none


def spoil(**changes):
    """Changes settings, or other entries, of a checkpoint."""

    def change(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        for name, value in changes.items():
            part = checkpoint["config"] if name in checkpoint["config"] else checkpoint
            part[name] = value
        torch.save(checkpoint, path)

    return change


def spoil_weight(value: float):
    def change(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["model"]["blocks.1.mlp.c_fc.weight"][3, 5] = value
        torch.save(checkpoint, path)

    return change


CHECKPOINTS = {
    "none": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "text": lambda path: path.write_text("hello"),
    "a list": lambda path: torch.save([1, 2], path),
    "of NaNs": spoil_weight(float("nan")),
    "of infinities": spoil_weight(-float("inf")),
    "without weights": spoil(model={}),
    "without corpus": spoil(meta={}),
    "corpus that is none": spoil(meta=[1]),
    "dataset null": spoil(dataset=None),
    "block_size as text": spoil(block_size="16"),
    "block_size null": spoil(block_size=None),
    "iter negative": spoil(iter=-1),
    "iter as text": spoil(iter="many"),
    "impossible heads": spoil(n_head=3),
    "unknown encoding of positions": spoil(pos="rotary"),
    "strength of NaN": spoil(logn_scale=float("nan")),
    "config that is none": lambda path: torch.save(
        torch.load(path, weights_only=True) | {"config": [1]}, path
    ),
}


@every_script
@pytest.mark.parametrize("damage", CHECKPOINTS)
def test_a_bad_checkpoint_is_one_line(damage, module, run, monkeypatch, capsys):
    CHECKPOINTS[damage](run / "ckpt.pt")
    message = fails(capsys, lambda: call(monkeypatch, module, run, *SCRIPTS[module]))
    assert str(run) in message


@every_script
def test_a_directory_that_is_none(module, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "file"):
        path = tmp_path / name
        message = fails(capsys, lambda path=path: call(monkeypatch, module, path, *SCRIPTS[module]))
        assert str(path) in message


# ---------------------------------------------------------------------------------------------------------
# Ctrl-C


@every_script
@pytest.mark.parametrize("place", ["load_checkpoint", "hidden"])
def test_ctrl_c_is_one_line(module, place, run, monkeypatch, capsys):
    """Wherever it comes, while a checkpoint is loaded or deep in the model."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    owner = sys.modules["model"] if place == "load_checkpoint" else sys.modules["model"].GPT
    monkeypatch.setattr(owner, place, stop)
    arguments = [str(argument) for argument in SCRIPTS[module]]
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", str(run), "--device", "cpu", *arguments])
    with pytest.raises(
        (SystemExit, KeyboardInterrupt)
    ) as end:  # the latter, uncaught, would end pytest itself
        runpy.run_path(str(ROOT / f"{module.__name__}.py"), run_name="__main__")
    assert str(end.value).strip() == "stopped by Ctrl-C"


@every_script
def test_too_little_memory_is_one_line(module, run, monkeypatch, capsys):
    """As torch's own allocator says it; any other error of torch's keeps its traceback."""
    for need, ends in (
        (lambda: torch.empty(2**50), SystemExit),
        (lambda: torch.ones(2) @ torch.ones(3), None),
    ):
        monkeypatch.setattr(sys.modules["model"].GPT, "hidden", lambda *args, need=need: need())
        arguments = [str(argument) for argument in SCRIPTS[module]]
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", str(run), "--device", "cpu", *arguments])
        with pytest.raises(ends or RuntimeError) as end:
            runpy.run_path(str(ROOT / f"{module.__name__}.py"), run_name="__main__")
        assert bool(re.fullmatch(r"error: .*memory.*", str(end.value))) == bool(ends)


@every_evaluation
def test_ctrl_c_while_writing_keeps_the_old_numbers(module, run, tmp_path, monkeypatch):
    (tmp_path / "out.json").write_text("old")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(data.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, module, run, *SCRIPTS[module], "--json", tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "old"
    assert not list(tmp_path.glob("out.json?*"))


def test_the_helpers_say_what_fails(tmp_path):
    """read_json, on which the tests above rely, does refuse what is no JSON."""
    (tmp_path / "out.json").write_text('{"a": NaN}')
    with pytest.raises(AssertionError):
        read_json(tmp_path / "out.json")
    assert np.isfinite(make_tokens()).all()
