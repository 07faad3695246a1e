"""Prepare a corpus: documents in; data/<name>/train.bin, val.bin and meta.json out, which data/__init__.py reads back.

    python -m data.prepare python                     # Python source on this disk: no download, 80 MB of text
    python -m data.prepare text notes.txt books/      # UTF-8 files of your own, and all those in a directory
    python -m data.prepare c4 --tokens=10e9           # the paper's web pages: a download of 19 GB, 20 GB to keep
    python -m data.prepare books                      # the paper's Setting 2, Gutenberg books: 10 GB to keep

Or `from data import prepare; prepare.prepare("python")`. Below stand the corpora, each a few shards of documents, then
the writer of them all, then the command line. A new corpus is one function and one line in CORPORA.
"""

import argparse
import gzip
import hashlib
import importlib.util
import json
import os
import random
import re
import shutil
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import tiktoken
from tqdm import tqdm

from data import DATA_DIR, get_encoding, load_meta, load_tokens

PACKAGES = ("torch", "numpy", "sympy", "mpmath", "networkx")  # torch and what is installed with it
SKIP = {"test", "tests", "testing", "idle_test", "site-packages", "dist-packages"}
BATCH = 1 << 18  # characters that a thread encodes at a time
# Pieces of a long document end before a space or line end that follows a letter or sign: no token reaches across.
PIECE = re.compile(rf".{{{BATCH}}}.*?\S(?=[ \n])|.+", re.DOTALL)
TIMEOUT, PAUSES = 60, (2, 10, 60)  # seconds without a byte that end a download, and before it is tried again

# A function that gives documents, and a number k: the first of every k is held out for validation (1: all, 0: none).
Shard = tuple[Callable[[], Iterable[str]], int]


def python(_: str) -> Iterator[Shard]:
    """The source of the standard library and of PACKAGES, without their tests."""
    found = filter(None, map(importlib.util.find_spec, PACKAGES))  # found without importing them
    roots = [sysconfig.get_paths()["stdlib"], *(spec.submodule_search_locations[0] for spec in found)]
    yield partial(read_files, [file for root in roots for file in walk(root, ".py", SKIP)]), 20


def text(paths: Iterable[str]) -> Iterator[Shard]:
    """The reader's own files. What is named must be readable, what a directory holds is passed over if it is not."""
    named = [Path(path) for path in paths]
    files = [file for path in named for file in (walk(path) if path.is_dir() else [path])]
    yield partial(read_files, files, named), 20


def c4(url: str) -> Iterator[Shard]:
    """English C4: about 170M GPT-2 tokens a shard; the first of its own eight validation shards has about 22M."""
    yield partial(read_json, f"{url}/c4-validation.00000-of-00008.json.gz"), 1
    for i in range(1024):
        yield partial(read_json, f"{url}/c4-train.{i:05d}-of-01024.json.gz"), 0


def books(url: str) -> Iterator[Shard]:
    """The Gutenberg books of Dolma 1.7. They have no validation split, so one book in 500 is held out."""
    for i in range(3):
        yield partial(read_json, f"{url}/books-{i:04d}.json.gz"), 500


C4_URL = "https://huggingface.co/datasets/allenai/c4/resolve/1ddc917116b730e1859edef32896ec5c16be51d0/en"
CORPORA = {  # name: (function of the url or paths, encoding, url, training tokens to stop at or 0 for all)
    "python": (python, "bytes", "", 0),
    "text": (text, "bytes", "", 0),
    "c4": (c4, "gpt2", C4_URL, 10_000_000_000),
    "books": (books, "gpt2", "https://olmo-data.org/dolma-v1_7/books", 5_000_000_000),
}


def walk(root: str | Path, suffix: str = "", skip: Collection[str] = ()) -> list[Path]:
    """Files under `root`, sorted by their path from there on; none hidden, none in a directory named in `skip`."""
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skip and not name.startswith(".")]
        files += [Path(folder, name) for name in names if name.endswith(suffix) and not name.startswith(".")]
    return sorted(files)


def read_files(files: list[Path], named: Collection[Path] = ()) -> Iterator[str]:
    """Yield each text once, so that no copy of a held-out file is trained on; of a single file first the last 5 %."""
    seen = set()
    for path in random.Random(0).sample(files, len(files)):
        try:
            document = path.read_bytes().decode("utf-8")  # read_text would change line ends
        except (OSError, UnicodeDecodeError) as error:
            if path in named:
                raise SystemExit(f"error: cannot read {path} ({error}); UTF-8 text is expected") from None
            continue
        if document and hash(document) not in seen:
            seen.add(hash(document))
            if len(files) == 1:
                tqdm.write("a single file: its last 5 % are held out for validation")
                cut = len(document) * 19 // 20
                yield document[cut:]
                document = document[:cut]
            yield document
    tqdm.write(f"{len(seen):,} files read, {len(files) - len(seen):,} skipped: empty, a copy of another or not UTF-8")


def read_json(url: str) -> Iterator[str]:
    """Yield the field "text" of each line of a gzipped JSON-lines file. After a failure it goes on where it stopped."""
    done = 0
    for pause in (*PAUSES, None):
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "nanoFoPE"})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response, gzip.open(response) as lines:
                for line in islice(lines, done, None):
                    yield json.loads(line)["text"].encode(errors="replace").decode()  # no half surrogates in it
                    done += 1
                if done == 0 or getattr(response, "length", 0):  # length: bytes that were announced and did not come
                    raise EOFError("the download ended early")
            return
        except Exception as error:  # network, gzip and JSON have a dozen kinds, and each means a bad shard
            message = f"{url}, line {done + 1:,}: {type(error).__name__}: {error}"
            if pause is None:
                raise SystemExit(f"error: {message} (finished shards stay: repeat the command to go on)") from None
            tqdm.write(f"{message}; next try in {pause} s")
            time.sleep(pause)


# The writer appends to data/<name>.partial, where meta.json counts what the finished shards brought, and renames that
# directory when all is there. So an interrupted download goes on behind its last finished shard.


def batches(documents: Callable[[], Iterable[str]], k: int) -> Iterator[list[tuple[str, str, bool]]]:
    """Yield lists of about BATCH characters: (split, piece of a document, whether it is the last piece)."""
    batch, size = [], 0
    for i, document in enumerate(filter(None, documents())):
        split = "val" if k and i % k == 0 else "train"
        for match in PIECE.finditer(document):
            batch.append((split, match[0], match.end() == len(document)))
            size += len(match[0])
            if size >= BATCH:
                yield batch
                batch, size = [], 0
    yield batch


def encode(encoding: tiktoken.Encoding, batches: Iterable[list]) -> Iterator[dict[str, np.ndarray]]:
    """Yield uint16 tokens by split, end-of-text after each document. All cores work: tiktoken releases the GIL."""

    def ids(piece):
        if encoding.name == "bytes":  # its tokens are the bytes themselves: no need to look them up
            return np.frombuffer(piece.encode(), np.uint8)
        return encoding.encode_to_numpy(piece, disallowed_special=())  # "<|endoftext|>" in a document is ordinary text

    def tokens(batch):
        parts = {"train": [end[:0]], "val": [end[:0]]}
        for split, piece, last in batch:
            parts[split] += [ids(piece), end[: int(last)]]
        return {split: np.concatenate(parts[split], dtype=np.uint16, casting="unsafe") for split in parts}

    end = np.array([encoding.eot_token])
    threads, pending = os.cpu_count() or 1, []  # a few batches are fetched ahead, never more
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            pending.append(pool.submit(tokens, batch))
            if len(pending) > 2 * threads:
                yield pending.pop(0).result()
        while pending:
            yield pending.pop(0).result()


def write_shard(folder: Path, shard: Shard, encoding: tiktoken.Encoding, meta: dict, bar: tqdm) -> dict:
    """Append a shard's tokens to those that `meta` counts; return meta with the shard counted, too."""
    meta = {**meta, "shards": meta["shards"] + 1}
    with open(folder / "train.bin", "ab") as train, open(folder / "val.bin", "ab") as val:
        files = {"train": train, "val": val}
        for split, file in files.items():
            if file.tell() < 2 * meta[f"{split}_tokens"]:
                raise SystemExit(f"error: {file.name} has lost what it had: delete {folder} and start again")
            file.truncate(2 * meta[f"{split}_tokens"])  # cuts off what an unfinished shard left behind
        for tokens in encode(encoding, batches(*shard)):
            for split, file in files.items():
                file.write(tokens[split])
                meta[f"{split}_tokens"] += len(tokens[split])
                meta[f"{split}_documents"] += int((tokens[split] == encoding.eot_token).sum())
            bar.update(meta["train_tokens"] - bar.n)
            if 0 < meta["max_tokens"] <= meta["train_tokens"]:
                break
    write_meta(folder, meta)
    return meta


def write_meta(folder: Path, meta: dict) -> None:
    (folder / "meta.tmp").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    os.replace(folder / "meta.tmp", folder / "meta.json")


def prepare(corpus: str, paths: Collection[str] = (), name="", encoding="", tokens=0.0, url="") -> None:
    """Write `corpus` to data/<name>, by default its own name; nothing may stand there. Options as in --help."""
    if corpus not in CORPORA:
        raise SystemExit(f"error: unknown corpus '{corpus}', the known ones are {', '.join(CORPORA)}")
    shards, default_encoding, default_url, default_tokens = CORPORA[corpus]
    if bool(paths) != (corpus == "text") or (url and not default_url) or (tokens and not 1 <= tokens < 1e15):
        raise SystemExit("error: paths go with text and only text, --url with c4 and books, --tokens is a number >= 1")
    url, limit = (url or default_url).rstrip("/"), int(tokens or default_tokens)
    encoder, out = get_encoding(encoding or default_encoding), DATA_DIR / (name or corpus)
    folder = out.with_name(f"{out.name}.partial" if url else f"{out.name}.{os.getpid()}.partial")
    order = {"name": out.name, "corpus": corpus, "url": url, "max_tokens": limit, "encoding": encoder.name}
    if not paths and (out / "meta.json").exists() and order.items() <= load_meta(out).items():
        return print(f"{out} is there already")
    if out.exists():
        raise SystemExit(f"error: {out} is there already: use it, delete it, or choose another place with --name")
    counts = ("train_tokens", "val_tokens", "train_documents", "val_documents", "shards")
    meta = {**order, "vocab_size": encoder.n_vocab, **dict.fromkeys(counts, 0)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "meta.json").exists():
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            if not order.items() <= meta.items():
                raise SystemExit(f"error: {folder} was begun with other options: repeat those, or delete it")
        need, free = 2.02 * limit + 5e7 - 2 * meta["train_tokens"], shutil.disk_usage(folder).free
        if url:
            print(f"{out} needs {need / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free")
            if need > free:
                raise SystemExit("error: not enough disk: ask for fewer --tokens, or name another place with --name")
        with tqdm(total=limit or None, initial=meta["train_tokens"], unit="tok", unit_scale=True, disable=None) as bar:
            for shard in islice(shards(url or paths), meta["shards"], None):
                if 0 < limit <= meta["train_tokens"]:
                    break
                meta = write_shard(folder, shard, encoder, meta, bar)
        if 0 in (meta["train_tokens"], meta["val_tokens"]):
            raise SystemExit("error: too little text: training and validation need a document each")
        digest = hashlib.sha256(load_tokens(folder, "train"))
        digest.update(load_tokens(folder, "val"))
        write_meta(folder, {**meta, "sha256": digest.hexdigest()})
        folder.rename(out)
    except (OSError, KeyboardInterrupt) as error:
        raise SystemExit(f"error: {out} was not written: {type(error).__name__} {error}") from None
    finally:
        if not url:
            shutil.rmtree(folder, ignore_errors=True)  # nothing there to go on from
    print(f"{out}: {meta['train_tokens']:,} training and {meta['val_tokens']:,} validation tokens ({encoder.name})")
    if meta["val_tokens"] > meta["train_tokens"]:
        print("warning: more text is held out than trained on, since whole files are; give more files, or smaller ones")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(2, f"error: {message} (see --help)\n")
    parser.add_argument("corpus", help=", ".join(CORPORA))
    parser.add_argument("paths", nargs="*", help="for text: files and directories")
    parser.add_argument("--name", default="", help="write to data/NAME or to an absolute path; default: the corpus")
    parser.add_argument("--encoding", default="", help="bytes or gpt2; default: gpt2 for c4 and books, else bytes")
    parser.add_argument("--tokens", default=0, type=float, help="stop with the batch that brings N training tokens")
    parser.add_argument("--url", default="", help="a mirror of c4 or books; file:///directory works, too")
    prepare(**vars(parser.parse_intermixed_args()))
