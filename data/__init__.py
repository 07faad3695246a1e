"""
Files: read what data/prepare.py wrote, data/<name>/ with train.bin, val.bin (uint16 tokens) and meta.json;
write checkpoints and results whole.

>>> get_encoding(load_meta("python")["encoding"]).decode(load_tokens("python", "val")[:500])
"""

import argparse
import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tiktoken
import torch

DATA_DIR = Path(__file__).parent
META_KINDS = {"encoding": str, "vocab_size": int, "train_tokens": int, "val_tokens": int, "sha256": str}


def get_encoding(name: str) -> tiktoken.Encoding:
    """Encoding "bytes" (256 bytes and end-of-text) or "gpt2" (which tiktoken fetches at the first use)."""
    if name == "bytes":
        ranks = {bytes([i]): i for i in range(256)}
        special = {"<|endoftext|>": 256}
        return tiktoken.Encoding(name, pat_str=r"(?s).{1,64}", mergeable_ranks=ranks, special_tokens=special)
    if name != "gpt2":
        raise SystemExit(f"error: unknown encoding '{name}', the known ones are bytes and gpt2")
    try:
        return tiktoken.get_encoding(name)
    except OSError:  # what requests raises is one, too
        how = "go online once or set TIKTOKEN_CACHE_DIR to its folder"
        raise SystemExit(f"error: no GPT-2 vocabulary: {how}") from None


def load_meta(name: str) -> dict:
    """meta.json of a corpus, its values of the kinds in META_KINDS. `name` may be a full path."""
    path = DATA_DIR / name / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        there = sorted(found.parent.name for found in DATA_DIR.glob("*/meta.json"))
        problem = f"no corpus {name} (there are: {', '.join(there) or 'none'})"
        how = f"python -m data.prepare {name}, or python -m data.prepare text PATH --name={name}"
        raise SystemExit(f"error: {problem}; prepare it: {how}") from None
    except (ValueError, RecursionError):
        meta = None
    sound = isinstance(meta, dict) and all(type(meta.get(key)) is kind for key, kind in META_KINDS.items())
    if not sound or meta["vocab_size"] < 1:
        raise SystemExit(f"error: {path} is damaged: delete {path.parent} and prepare it again")
    return meta


def load_tokens(name: str, split: str) -> np.memmap:
    """The tokens of split "train" or "val": 1-D uint16, read-only, mapped from disk."""
    count = load_meta(name)[f"{split}_tokens"]
    path = DATA_DIR / name / f"{split}.bin"
    size = path.stat().st_size if path.exists() else 0
    if size == 0 or size != 2 * count:
        problem = f"{path} has {size} bytes, not {2 * count}"
        raise SystemExit(f"error: {problem}: delete {path.parent} and prepare it again")
    return np.memmap(path, dtype=np.uint16, mode="r")


def make_if_free(name: str):
    """Prepare the corpus that needs no download, if that is the one and it is not there yet."""
    if name != "python" or (DATA_DIR / name).exists():
        return
    from data.prepare import prepare  # only here: the writer is not needed to read

    print("preparing the corpus python from the Python source on this disk", flush=True)
    try:
        prepare(name)
    except SystemExit:
        if not (DATA_DIR / name).exists():  # another run was not faster
            raise


def run_script(main: Callable):
    """A script's main; Ctrl-C and too little memory end it in one line."""
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nstopped by Ctrl-C") from None
    except (MemoryError, RuntimeError) as error:
        raise SystemExit(f"error: {explain_memory(error)}") from None


def explain_memory(error: Exception) -> str:
    """The first line of an error that says that memory is short; any other error is raised again."""
    first_line = f"{type(error).__name__} {error}".splitlines()[0]
    if "memory" not in first_line.lower():
        raise error
    return first_line[:300]


def output(name: str) -> Path:
    """For argparse: a file that can be written, to be known before the long work."""
    path = Path(os.path.realpath(name))  # what a link points to; only links in a circle stay links
    if path.is_symlink() or not os.access(path.parent, os.W_OK) or (path.exists() and not path.is_file()):
        raise argparse.ArgumentTypeError(f"{name} is no file in a directory that can be written to")
    if path.exists() and path.suffix not in (".json", ".png"):
        raise argparse.ArgumentTypeError(f"{name} exists and is neither .json nor .png: it may be another's")
    return path


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """A file beside path to write to, moved to path at the end: path itself is never half a file."""
    path = path.resolve()  # a link stays, what it points to is written
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        with open(beside, "wb") as file:
            yield file
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        while error.__context__:  # torch.save hides a full disk, and Ctrl-C, behind an error of its own
            error = error.__context__
        if isinstance(error, OSError):
            raise SystemExit(f"error: cannot write {path}, what was there stays: {error}") from None
        raise error from None


def write_json(path: Path, value: object):
    try:
        text = json.dumps(value, indent=1, default=str, allow_nan=False)
    except ValueError as error:  # NaN and infinity are no JSON
        raise SystemExit(f"error: cannot write {path}: {error}") from None
    with write_whole(path) as file:
        file.write(text.encode())


def write_results(path: Path, args: argparse.Namespace, **results):
    """An evaluation's numbers as JSON, with its arguments and the commit of the code that made them."""
    git = subprocess.run("git rev-parse HEAD", shell=True, cwd=DATA_DIR, capture_output=True, text=True)
    settings = {key: value for key, value in vars(args).items() if key not in ("json", "plot")}
    about = {"commit": git.stdout.strip(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    write_json(path, settings | about | results)
