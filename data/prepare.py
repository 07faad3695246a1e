"""Prepare a corpus: documents in; data/<name>/train.bin, val.bin and meta.json out.

    python -m data.prepare python                  # Python source on this disk: no download, 80 MB of text
    python -m data.prepare text notes.txt books/   # UTF-8 files of your own, and all those in a directory
    python -m data.prepare c4 --tokens=10e9        # the paper's web pages: a download of 19 GB, 20 GB to keep
    python -m data.prepare books                   # the paper's Setting 2, Gutenberg books: 10 GB to keep

A corpus is a few shards of documents. A new one is one function and one line in CORPORA.
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
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import tiktoken
from tqdm import tqdm

from data import DATA_DIR, get_encoding, load_meta, load_tokens

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

PACKAGES = ("torch", "numpy", "sympy", "mpmath", "networkx")  # torch and what is installed with it
SKIP = {"test", "tests", "testing", "idle_test", "site-packages", "dist-packages"}
BATCH = 256  # documents that the threads share out at a time
TIMEOUT = 60  # seconds without a byte after which a download has failed
PAUSES = (0, 2, 10, 60)  # seconds before each try of a download
ALL = 10**15  # more tokens than there are

# Documents, and a number k: the first of every k is held out for validation (1: all, 0: none).
Shard = tuple[Iterable[str], int]


def python(_: str) -> Iterator[Shard]:
    """The source of the standard library and of PACKAGES, without their tests."""
    files = walk(sysconfig.get_paths()["stdlib"], ".py", SKIP)
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)  # does not import the package
        if spec:
            files += walk(spec.submodule_search_locations[0], ".py", SKIP)
    yield read_files(files), 20


def text(paths: Iterable[str]) -> Iterator[Shard]:
    """The reader's own files: those named must be readable, those found in a directory may be anything."""
    named = [Path(path) for path in paths]
    files = []
    for path in named:
        files += walk(path) if path.is_dir() else [path]
    yield read_files(files, named), 20


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
    "python": (python, "bytes", "", ALL),
    "text": (text, "bytes", "", ALL),
    "c4": (c4, "gpt2", C4_URL, 10_000_000_000),
    "books": (books, "gpt2", "https://olmo-data.org/dolma-v1_7/books", 5_000_000_000),
}


def walk(root: str | Path, suffix: str = "", skip: Collection[str] = ()) -> list[Path]:
    """Files under `root`, sorted; none hidden, none in a directory named in `skip`."""
    files = []
    for path in sorted(Path(root).rglob(f"*{suffix}")):
        parts = path.relative_to(root).parts
        left_out = any(part in skip or part.startswith(".") for part in parts)
        if not left_out and os.path.isfile(path):  # Path.is_file would raise where access is denied
            files.append(path)
    return files


def read_files(files: list[Path], named: Collection[Path] = ()) -> Iterator[str]:
    """Yield each text once: no copy of a held-out file is trained on. Of a single file first the last 5 %."""
    seen = {hash("")}
    for path in random.Random(0).sample(files, len(files)):
        try:
            document = path.read_bytes().decode("utf-8")  # read_text would change line ends
        except (OSError, UnicodeDecodeError) as error:
            if path in named:
                raise SystemExit(f"error: cannot read {path} ({error}); UTF-8 text is expected") from None
            continue
        if hash(document) in seen:
            continue
        seen.add(hash(document))
        if len(files) == 1:
            cut = len(document) * 19 // 20
            yield document[cut:]
            document = document[:cut]
        yield document
    count = len(seen) - 1
    tqdm.write(f"{count:,} files read, {len(files) - count:,} skipped: empty, a copy of another or not UTF-8")


def read_json(url: str) -> Iterator[str]:
    """Yield the field "text" of each line of gzipped JSON lines. After a failure it goes on where it was."""
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
                missing = getattr(response, "length", 0)  # bytes that were announced and did not come
            if done == 0 or missing:
                raise EOFError("the download ended early")
            return
        except Exception as error:  # network, gzip and JSON have a dozen kinds, and each means a bad shard
            message = f"{url}, line {done + 1:,}: {type(error).__name__}: {error}"
            tqdm.write(message)
    raise SystemExit(f"error: {message} (finished shards stay: repeat the command to go on)")


def encode(encoding: tiktoken.Encoding, documents: Iterable[str]) -> Iterator[np.ndarray]:
    """Yield the tokens of each document that is not empty, end-of-text behind them: 1-D uint16."""

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


def write_shard(folder: Path, shard: Shard, encoding: tiktoken.Encoding, meta: dict, bar: tqdm) -> None:
    """Append a shard to the tokens that `meta` counts, and count it there once all of it is written."""
    documents, k = shard
    with open(folder / "train.bin", "ab") as train, open(folder / "val.bin", "ab") as val:
        files = {"train": train, "val": val}
        for split, file in files.items():
            counted = 2 * meta[f"{split}_tokens"]
            if file.tell() < counted:
                raise SystemExit(f"error: {file.name} has lost what it had: delete {folder} and start again")
            file.truncate(counted)  # cuts off what an unfinished shard left behind
        for i, tokens in enumerate(encode(encoding, documents)):
            split = "val" if k and i % k == 0 else "train"
            if split == "train":
                tokens = tokens[: meta["max_tokens"] - meta["train_tokens"]]  # the last document may be cut
                bar.update(len(tokens))
            files[split].write(tokens)
            meta[f"{split}_tokens"] += len(tokens)
            if meta["train_tokens"] == meta["max_tokens"]:
                break
    meta["shards"] += 1
    write_meta(folder, meta)


def write_meta(folder: Path, meta: dict) -> None:
    (folder / "meta.tmp").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    os.replace(folder / "meta.tmp", folder / "meta.json")


def write_corpus(folder: Path, shards: Iterable[Shard], encoding: tiktoken.Encoding, order: dict) -> dict:
    """Write all shards to `folder`, behind those that an earlier run finished there. Returns the meta."""
    counts = {"train_tokens": 0, "val_tokens": 0, "shards": 0}
    meta = {**order, "vocab_size": encoding.n_vocab, **counts, "sha256": ""}
    if (folder / "meta.json").exists():
        meta = load_meta(folder)
        if not order.items() <= meta.items():
            raise SystemExit(f"error: {folder} was begun with other options: repeat those, or delete it")
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
    digest = hashlib.sha256(load_tokens(folder, "train"))
    digest.update(load_tokens(folder, "val"))
    meta["sha256"] = digest.hexdigest()
    write_meta(folder, meta)
    return meta


def prepare(corpus: str, paths: Collection[str] = (), name="", encoding="", tokens=0.0, url="") -> None:
    """Write `corpus` to data/<name>, by default its own name; nothing may stand there. Options: --help."""
    if corpus not in CORPORA:
        raise SystemExit(f"error: unknown corpus '{corpus}', the known ones are {', '.join(CORPORA)}")
    shards, default_encoding, default_url, default_tokens = CORPORA[corpus]
    if bool(paths) != (corpus == "text"):
        raise SystemExit("error: paths go with text, and only with text")
    if url and not default_url:
        raise SystemExit("error: --url goes with c4 and books")
    if tokens and not 1 <= tokens <= ALL:
        raise SystemExit("error: --tokens is a number >= 1")
    url = (url or default_url).rstrip("/")
    encoder = get_encoding(encoding or default_encoding)
    out = DATA_DIR / (name or corpus)
    if os.path.exists(out):  # Path.exists would raise where a name is too long
        raise SystemExit(f"error: {out} is there already: use it, delete it, or choose another --name")
    limit = int(tokens or default_tokens)
    order = {"name": out.name, "corpus": corpus, "url": url, "max_tokens": limit, "encoding": encoder.name}
    # All is written beside and renamed at the end. After a failure, what was downloaded stays.
    own = "" if url else f".{os.getpid()}"
    folder = out.with_name(f"{out.name}{own}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "train.bin", "ab") as lock:  # until all is written or this process ends
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            meta = write_corpus(folder, shards(url or paths), encoder, order)
        folder.rename(out)
    except BlockingIOError:
        raise SystemExit(f"error: another process is preparing {out}") from None
    except (OSError, KeyboardInterrupt) as error:
        raise SystemExit(f"error: {out} was not written: {type(error).__name__} {error}") from None
    finally:
        if not url:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{out}: {meta['train_tokens']:,} training and {meta['val_tokens']:,} validation tokens")
    share = meta["val_tokens"] / (meta["train_tokens"] + meta["val_tokens"])
    if not url and not 0.01 < share < 0.5:
        print(f"warning: {share:.1%} is held out, in whole files: give more or smaller ones")


if __name__ == "__main__":
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("corpus", help=", ".join(CORPORA))
    parser.add_argument("paths", nargs="*", help="for text: files and directories")
    parser.add_argument("--name", default="", help="write to data/NAME, or a full path; default: the corpus")
    parser.add_argument("--encoding", default="", help="bytes or gpt2; default: gpt2 for c4 and books")
    parser.add_argument("--tokens", default=0, type=float, help="stop at N training tokens")
    parser.add_argument("--url", default="", help="a mirror of c4 or books; file:///directory works, too")

    def error(message: str) -> None:
        raise SystemExit(f"error: {message} (see --help)")

    parser.error = error
    prepare(**vars(parser.parse_intermixed_args()))
