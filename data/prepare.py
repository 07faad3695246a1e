"""
Prepares a corpus: documents in; data/<name>/train.bin, val.bin and meta.json out.

    python -m data.prepare python                  # Python source on this disk: no download, 80 MB of text
    python -m data.prepare text notes.txt books/   # UTF-8 files of your own, and all those in a directory
    python -m data.prepare c4 --tokens=10e9        # the paper's web pages: a download of 19 GB, 20 GB to keep
    python -m data.prepare books                   # the paper's Setting 2, Gutenberg books: 10 GB to keep

Behind each document stands an end-of-text. A corpus is a few shards of documents; after a failed download the
same command goes on behind the last finished shard. A new corpus is one function and one line in CORPORA.
"""

import argparse
import gzip
import hashlib
import importlib.util
import json
import os
import random
import shutil
import sysconfig
import time
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from itertools import islice
from pathlib import Path

import numpy as np
import tiktoken
from tqdm import tqdm

from data import DATA_DIR, get_encoding

PACKAGES = ("torch", "numpy", "sympy", "mpmath", "networkx")  # torch and what is installed with it
SKIP = {"test", "tests", "testing", "idle_test", "site-packages", "dist-packages"}
PAUSES = (0, 2, 10, 60)  # seconds before each try of a download
TIMEOUT = 60  # seconds without a byte after which a download has failed
BATCH = 256  # documents that the threads share out at a time

# Documents, and a number k: the first of every k is held out for validation (1: all, 0: none).
Shard = tuple[Iterable[str], int]


def python(_: str) -> Iterator[Shard]:
    """The source of the standard library and of PACKAGES, without their tests."""
    files = walk(sysconfig.get_paths()["stdlib"], ".py")
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)  # does not import the package
        if spec:
            files += walk(spec.submodule_search_locations[0], ".py")
    yield read_files(files), 20


def text(paths: Iterable[str]) -> Iterator[Shard]:
    """The reader's own files: those named must be readable, those found in a directory may be anything."""
    files = []
    for path in map(Path, paths):
        if not path.is_dir() and read(path) is None:
            raise SystemExit(f"error: {path} is not there, or no UTF-8 text")
        files += walk(path) if path.is_dir() else [path]
    yield read_files(files), 20


def c4(url: str) -> Iterator[Shard]:
    """English C4: about 170M GPT-2 tokens a shard; the first of its eight validation shards has about 22M."""
    yield read_json(f"{url}/c4-validation.00000-of-00008.json.gz"), 1
    for i in range(1024):
        yield read_json(f"{url}/c4-train.{i:05d}-of-01024.json.gz"), 0


def books(url: str) -> Iterator[Shard]:
    """The Gutenberg books of Dolma 1.7. They have no validation split, so one book in 500 is held out."""
    for i in range(3):
        yield read_json(f"{url}/books-{i:04d}.json.gz"), 500


C4_URL = "https://huggingface.co/datasets/allenai/c4/resolve/1ddc917116b730e1859edef32896ec5c16be51d0/en"
CORPORA = {  # name: (function of the url or paths, encoding, url, training tokens to stop at)
    "python": (python, "bytes", "", 10**15),
    "text": (text, "bytes", "", 10**15),
    "c4": (c4, "gpt2", C4_URL, 10_000_000_000),
    "books": (books, "gpt2", "https://olmo-data.org/dolma-v1_7/books", 5_000_000_000),
}


def walk(root: str | Path, suffix: str = "") -> list[Path]:
    """Files under `root`, sorted; none that is hidden or in a directory named in SKIP. Links are followed."""
    files = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if name not in SKIP and not name.startswith(".")]
        files += [Path(folder, name) for name in names if name.endswith(suffix) and not name.startswith(".")]
    return sorted(files)


def read(path: Path) -> str | None:
    """A file's text, or None if it is no UTF-8 text or cannot be opened."""
    try:
        return path.read_bytes().decode("utf-8")  # read_text would change line ends
    except (OSError, UnicodeDecodeError):
        return None


def read_files(files: list[Path]) -> Iterator[str]:
    """Yields each text once, so that no copy of a held-out one is trained on; of one alone its end first."""
    texts = {}  # the file of each text, by the text's hash
    for path in files:
        document = read(path)
        if document:
            texts.setdefault(hash(document), path)
    skipped = len(files) - len(texts)
    tqdm.write(f"{len(texts):,} files, {skipped:,} skipped: empty, a copy of another or no UTF-8 text")
    paths = list(texts.values())
    for path in random.Random(0).sample(paths, len(paths)):
        document = read(path)
        if len(paths) == 1:
            cut = len(document) * 19 // 20
            yield document[cut:]
            document = document[:cut]
        yield document


def read_json(url: str) -> Iterator[str]:
    """Yields the field "text" of each line of gzipped JSON lines. After a failure it goes on where it was."""
    done = 0
    for pause in PAUSES:
        time.sleep(pause)
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "nanoFoPE"})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response, gzip.open(response) as lines:
                for line in islice(lines, done, None):
                    document = json.loads(line)["text"]
                    yield document.encode(errors="replace").decode()  # half a surrogate pair is not UTF-8
                    done += 1
            return
        except (OSError, EOFError, HTTPException, zlib.error) as error:  # the network's, and half a file's
            problem = f"{url}, line {done + 1:,}: {type(error).__name__}: {error}"
            tqdm.write(problem)
    raise SystemExit(f"error: {problem} (finished shards stay: repeat the command to go on)")


def encode(encoding: tiktoken.Encoding, documents: Iterable[str]) -> Iterator[np.ndarray]:
    """Yields the tokens of each document that is not empty, end-of-text behind them: 1-D uint16."""

    def tokens(document: str) -> np.ndarray:
        if encoding.name == "bytes":  # its tokens are the bytes themselves: no need to look them up
            ids = np.frombuffer(document.encode(), np.uint8)
        else:
            ids = encoding.encode_to_numpy(document, disallowed_special=())  # "<|endoftext|>" in it is text
        return np.append(ids.astype(np.uint16), np.uint16(encoding.eot_token))

    documents = filter(None, documents)
    with ThreadPoolExecutor() as pool:  # tiktoken lets other threads run
        batch = list(islice(documents, BATCH))
        while batch:
            yield from pool.map(tokens, batch)
            batch = list(islice(documents, BATCH))


def write_shard(folder: Path, shard: Shard, encoding: tiktoken.Encoding, meta: dict, bar: tqdm):
    """Appends a shard to the tokens that `meta` counts, and counts it there once all of it is written."""
    documents, k = shard
    with open(folder / "train.bin", "ab") as train, open(folder / "val.bin", "ab") as val:
        train.truncate(2 * meta["train_tokens"])  # cuts off what an unfinished shard left behind
        val.truncate(2 * meta["val_tokens"])
        for i, tokens in enumerate(encode(encoding, documents)):
            if k and i % k == 0:
                val.write(tokens)
                meta["val_tokens"] += len(tokens)
                continue
            tokens = tokens[: meta["max_tokens"] - meta["train_tokens"]]  # the last document may be cut
            train.write(tokens)
            meta["train_tokens"] += len(tokens)
            bar.update(len(tokens))
            if meta["train_tokens"] == meta["max_tokens"]:
                break
    meta["shards"] += 1
    write_meta(folder, meta)


def write_meta(folder: Path, meta: dict):
    (folder / "meta.tmp").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    os.replace(folder / "meta.tmp", folder / "meta.json")


def write_corpus(folder: Path, shards: Iterable[Shard], encoding: tiktoken.Encoding, meta: dict):
    """Writes all shards to `folder`, behind those that an earlier call finished there."""
    if (folder / "meta.json").exists():
        begun = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        for key in ("corpus", "url", "max_tokens", "encoding"):
            if begun[key] != meta[key]:
                raise SystemExit(
                    f"error: {folder} was begun with {key} {begun[key]}: repeat it, or delete it"
                )
        meta = begun
    need = 2.02 * (meta["max_tokens"] - meta["train_tokens"])  # bytes, validation included
    free = shutil.disk_usage(folder).free
    if meta["url"] and need > free:
        raise SystemExit(f"error: not enough disk: {need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    total = meta["max_tokens"] if meta["url"] else None
    with tqdm(total=total, initial=meta["train_tokens"], unit="tok", unit_scale=True, disable=None) as bar:
        for shard in islice(shards, meta["shards"], None):
            if meta["train_tokens"] < meta["max_tokens"]:
                write_shard(folder, shard, encoding, meta, bar)
    if meta["train_tokens"] == 0 or meta["val_tokens"] == 0:
        raise SystemExit("error: too little text: training and validation need a document each")
    digest = hashlib.sha256()
    for split in ("train", "val"):
        digest.update(np.memmap(folder / f"{split}.bin", mode="r"))
    meta["sha256"] = digest.hexdigest()
    write_meta(folder, meta)
    counts = f"{meta['train_tokens']:,} training and {meta['val_tokens']:,} validation tokens"
    print(f"{folder.with_name(meta['name'])}: {counts}")


def prepare(corpus: str, paths: Iterable[str] = (), name="", encoding="", tokens=0.0, url=""):
    """Writes a corpus of CORPORA to data/<name>, by default its own name; nothing may stand there."""
    make_shards, default_encoding, default_url, default_tokens = CORPORA[corpus]
    url = (url or default_url).rstrip("/")
    encoder = get_encoding(encoding or default_encoding)
    out = DATA_DIR / (name or corpus)
    if out.exists():
        raise SystemExit(f"error: {out} is there already: use it, delete it, or choose another --name")
    if bool(paths) != (corpus == "text") or bool(url) != bool(default_url):
        raise SystemExit("error: paths go with text, and only with text; --url goes with c4 and books")

    # All is written beside and renamed at the end; after a failure, the shards that were downloaded stay.
    meta = {
        "name": out.name,
        "corpus": corpus,
        "url": url,
        "max_tokens": int(tokens or default_tokens),
        "encoding": encoder.name,
        "vocab_size": encoder.n_vocab,
        "train_tokens": 0,
        "val_tokens": 0,
        "shards": 0,
    }
    own = "" if url else f".{os.getpid()}"
    folder = out.with_name(f"{out.name}{own}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_corpus(folder, make_shards(url or paths), encoder, meta)
        if not out.exists():  # else another process was faster
            folder.rename(out)
    finally:
        if not url:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("paths", nargs="*", help="for text: files and directories")
    parser.add_argument("--name", default="", help="write to data/NAME, or a full path; default: the corpus")
    parser.add_argument("--encoding", default="", choices=["bytes", "gpt2"], help="gpt2 for c4 and books")
    parser.add_argument("--tokens", default=0, type=float, help="stop at so many training tokens")
    parser.add_argument("--url", default="", help="a mirror of c4 or books; file:///directory works, too")
    prepare(**vars(parser.parse_intermixed_args()))
