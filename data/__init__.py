"""
Reads a corpus that data/prepare.py wrote, data/<name>/ with train.bin, val.bin (uint16 tokens) and meta.json;
writes the numbers of an evaluation.

>>> get_encoding(load_meta("python")["encoding"]).decode(load_tokens("python", "val")[:500])
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import tiktoken
import torch

DATA_DIR = Path(__file__).parent


def get_encoding(name: str) -> tiktoken.Encoding:
    """Encoding "bytes" (256 bytes and end-of-text) or "gpt2" (which tiktoken fetches at the first use)."""
    if name == "bytes":
        ranks = {bytes([i]): i for i in range(256)}
        special = {"<|endoftext|>": 256}
        return tiktoken.Encoding(name, pat_str=r"(?s).{1,64}", mergeable_ranks=ranks, special_tokens=special)
    try:
        return tiktoken.get_encoding(name)
    except OSError as error:  # what requests raises is one, too
        how = "go online once or set TIKTOKEN_CACHE_DIR to its folder"
        raise SystemExit(f"error: no vocabulary {name}, {how} ({type(error).__name__})") from None


def load_meta(name: str) -> dict:
    """meta.json of a corpus; `name` may be a full path."""
    path = DATA_DIR / name / "meta.json"
    if not path.exists():
        how = f"python -m data.prepare {name}, or python -m data.prepare text PATH --name={name}"
        raise SystemExit(f"error: there is no corpus {path.parent}; make it: {how}")
    return json.loads(path.read_text(encoding="utf-8"))


def load_tokens(name: str, split: str) -> np.memmap:
    """The tokens of split "train" or "val": 1-D uint16, read-only, mapped from disk."""
    return np.memmap(DATA_DIR / name / f"{split}.bin", dtype=np.uint16, mode="r")


def prepare_if_missing(name: str):
    """Makes the corpus "python", which needs no download, if it is asked for and not there yet."""
    if name == "python" and not (DATA_DIR / name).exists():
        from data.prepare import prepare  # only here: the writer is not needed to read

        print("preparing the corpus python from the Python source on this disk", flush=True)
        prepare(name)


def commit() -> str:
    """The commit of this checkout, with "-dirty" if Python files differ from it; "" outside of a checkout."""

    def git(command: str) -> str:
        # With --git-dir no other repository, around a copy of this one, is taken for it.
        line = f"git --git-dir=.git {command}"
        ran = subprocess.run(line, shell=True, cwd=DATA_DIR.parent, capture_output=True, text=True)
        return ran.stdout.strip()

    head = git("rev-parse HEAD")
    changed = git('status --porcelain --untracked-files=no -- "*.py"')
    return f"{head}-dirty" if changed else head


def write_results(args: argparse.Namespace, **results):
    """Writes an evaluation's numbers to args.json, with its arguments and the code that made them."""
    settings = {key: value for key, value in vars(args).items() if key not in ("json", "plot")}
    about = {"commit": commit(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps(settings | about | results, indent=1, default=str))
