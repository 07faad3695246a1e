"""Read a corpus that data/prepare.py wrote: data/<name>/ with train.bin, val.bin (uint16 tokens) and meta.json.

>>> get_encoding(load_meta("python")["encoding"]).decode(load_tokens("python", "val")[:500])
"""

import json
from pathlib import Path

import numpy as np
import tiktoken

DATA_DIR = Path(__file__).parent


def get_encoding(name: str) -> tiktoken.Encoding:
    """Encoding "bytes" (the 256 bytes of UTF-8 and end-of-text) or "gpt2" (which tiktoken fetches at the first use)."""
    if name == "bytes":
        ranks, special = {bytes([i]): i for i in range(256)}, {"<|endoftext|>": 256}
        return tiktoken.Encoding(name, pat_str=r"(?s).{1,64}", mergeable_ranks=ranks, special_tokens=special)
    if name != "gpt2":
        raise SystemExit(f"error: unknown encoding '{name}', the known ones are bytes and gpt2")
    try:
        return tiktoken.get_encoding(name)
    except OSError:  # what requests raises is one, too
        raise SystemExit("error: no GPT-2 vocabulary: go online once or set TIKTOKEN_CACHE_DIR to its folder") from None


def load_meta(name: str) -> dict:
    """meta.json of a corpus: its encoding, vocab_size, and tokens and documents by split. `name` may be a full path."""
    path = DATA_DIR / name / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if not {"encoding", "vocab_size", "train_tokens", "val_tokens"} <= set(meta):
            raise ValueError
        return meta
    except (FileNotFoundError, NotADirectoryError):
        how = f"python -m data.prepare {name}, or of your own files: python -m data.prepare text PATH --name={name}"
        there = ", ".join(sorted(found.parent.name for found in DATA_DIR.glob("*/meta.json"))) or "none"
        raise SystemExit(f"error: no corpus {name} (there are: {there}); prepare it: {how}") from None
    except (ValueError, TypeError):
        raise SystemExit(f"error: {path} is damaged: delete {path.parent} and prepare it again") from None


def load_tokens(name: str, split: str) -> np.memmap:
    """The tokens of split "train" or "val": 1-D uint16, read-only, mapped from disk."""
    path, count = DATA_DIR / name / f"{split}.bin", load_meta(name)[f"{split}_tokens"]
    size = path.stat().st_size if path.exists() else 0
    if size == 0 or size != 2 * count:
        raise SystemExit(f"error: {path} has {size} bytes, not {2 * count}: delete {path.parent} and prepare it again")
    return np.memmap(path, dtype=np.uint16, mode="r")


def make_if_free(name: str) -> None:
    """Prepares the corpus that needs no download, if that is the one and it is not there yet."""
    if name == "python" and not (DATA_DIR / name).exists():
        from data.prepare import prepare  # only here: the writer is not needed to read

        print("preparing the corpus python from the Python source on this disk", flush=True)
        try:
            prepare(name)
        except SystemExit:
            if not (DATA_DIR / name).exists():  # another run was not faster
                raise
