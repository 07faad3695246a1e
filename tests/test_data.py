"""data/: what is prepared reads back token by token, validation is apart, no failure leaves a half."""

import gzip
import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiktoken

import data
from data import prepare

WORDS = "naïve 数学 🙂 <|endoftext|> \r\n\tdef f(x):  return x  # "


def gpt2_or_skip() -> tiktoken.Encoding:
    try:
        return data.get_encoding("gpt2")
    except SystemExit as error:
        pytest.skip(str(error))


@pytest.fixture(params=["bytes", "gpt2"])
def encoding(request) -> tiktoken.Encoding:
    return gpt2_or_skip() if request.param == "gpt2" else data.get_encoding("bytes")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory of 45 different documents in two levels."""
    for i in range(45):
        path = tmp_path / "files" / ("deep" if i % 2 else "") / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{i} {WORDS * (i + 1)}".encode())
    return tmp_path / "files"


def fails(match: str, function, *args, **kwargs) -> None:
    """Call a function that has to end in one line, which says what is wrong."""
    with pytest.raises(SystemExit, match=match) as error:
        function(*args, **kwargs)
    assert str(error.value).startswith("error: ") and "\n" not in str(error.value)


def documents(corpus: Path, split: str) -> list[str]:
    """The documents of a split, decoded."""
    encoding = data.get_encoding(data.load_meta(corpus)["encoding"])
    tokens = data.load_tokens(corpus, split)
    assert tokens.dtype == np.uint16 and tokens.ndim == 1
    *parts, rest = np.split(tokens, np.flatnonzero(tokens == encoding.eot_token) + 1)
    assert len(rest) == 0, "the last document has no end"
    return [encoding.decode(part[:-1]) for part in parts]


def beside(corpus: Path) -> list[str]:
    """What stands beside a corpus under a like name."""
    return [path.name for path in corpus.parent.glob(f"{corpus.name}*") if path != corpus]


# Local files


@pytest.mark.parametrize("batch", [7, 1000])
def test_documents_read_back_and_validation_is_apart(files, tmp_path, encoding, batch, monkeypatch):
    monkeypatch.setattr(prepare, "BATCH", batch)
    out = tmp_path / "corpus"
    prepare.prepare("text", [str(files)], name=str(out), encoding=encoding.name)
    train, val = documents(out, "train"), documents(out, "val")
    originals = {path.read_bytes().decode() for path in files.rglob("*.txt")}
    assert set(train) | set(val) == originals and not set(train) & set(val)
    assert (len(train), len(val)) == (42, 3)
    listed = [path.read_bytes().decode() for path in sorted(files.rglob("*.txt"))]
    assert train != [text for text in listed if text in train], "not shuffled"
    whole = encoding.encode_ordinary(train[0])
    assert data.load_tokens(out, "train")[: len(whole) + 1].tolist() == [*whole, encoding.eot_token]
    assert beside(out) == []


def test_meta_counts_what_the_files_hold(files, tmp_path, encoding):
    out = tmp_path / "corpus"
    prepare.prepare("text", [str(files)], name=str(out), encoding=encoding.name)
    meta, both = data.load_meta(out), (out / "train.bin").read_bytes() + (out / "val.bin").read_bytes()
    assert meta["name"] == "corpus" and meta["encoding"] == encoding.name
    assert meta["vocab_size"] == encoding.n_vocab
    assert 2 * (meta["train_tokens"] + meta["val_tokens"]) == len(both)
    assert meta["sha256"] == hashlib.sha256(both).hexdigest()


def test_same_files_same_bytes_wherever_they_lie_and_however_listed(files, tmp_path, monkeypatch):
    prepare.prepare("text", [str(files)], name=str(tmp_path / "a"))
    moved = files.rename(tmp_path / "0 another place")
    listing = sorted(moved.rglob("*"), reverse=True)
    monkeypatch.setattr(Path, "rglob", lambda root, pattern: listing)
    prepare.prepare("text", [str(moved)], name=str(tmp_path / "b"))
    assert data.load_meta(tmp_path / "a")["sha256"] == data.load_meta(tmp_path / "b")["sha256"]


def test_a_single_file_is_divided_without_loss(tmp_path, encoding):
    out, file = tmp_path / "corpus", tmp_path / "long.txt"
    file.write_bytes((WORDS * 300 + "x" * 500 + " \n\n" + WORDS).encode())
    prepare.prepare("text", [str(file)], name=str(out), encoding=encoding.name)
    train, val = documents(out, "train"), documents(out, "val")
    assert len(train) == len(val) == 1 and train[0] + val[0] == file.read_bytes().decode()
    assert len(train[0]) == 19 * len(train[0] + val[0]) // 20
    whole = encoding.encode_ordinary(train[0])
    assert data.load_tokens(out, "train").tolist() == [*whole, encoding.eot_token]


def test_copies_empty_hidden_and_binary_files_of_a_directory_are_passed_over(files, tmp_path, capsys):
    for name, content in (
        ("copy.txt", (files / "0.txt").read_bytes()),
        ("empty", b""),
        (".hidden", b"h"),
        ("bin", b"\xff"),
    ):
        (files / name).write_bytes(content)
    prepare.prepare("text", [str(files)], name=str(tmp_path / "corpus"))
    texts = documents(tmp_path / "corpus", "train") + documents(tmp_path / "corpus", "val")
    assert len(texts) == len(set(texts)) == 45
    assert "45 files read, 3 skipped" in capsys.readouterr().out


def test_python_takes_sources_and_leaves_tests(tmp_path, monkeypatch):
    library = tmp_path / "lib"
    wanted = [f"package/module{i}.py" for i in range(40)]
    for name in [*wanted, "package/tests/test_a.py", "test/b.py", "site-packages/c.py", "package/data.txt"]:
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(f"# {name}\n")
    monkeypatch.setattr(prepare.sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    monkeypatch.setattr(prepare, "PACKAGES", ("no_such_package",))
    prepare.prepare("python", name=str(tmp_path / "corpus"))
    texts = documents(tmp_path / "corpus", "train") + documents(tmp_path / "corpus", "val")
    assert sorted(texts) == sorted(f"# {name}\n" for name in wanted)
    assert data.load_meta(tmp_path / "corpus")["encoding"] == "bytes"


def test_tokens_stops_at_exactly_so_many(files, tmp_path):
    prepare.prepare("text", [str(files)], name=str(tmp_path / "all"))
    prepare.prepare("text", [str(files)], name=str(tmp_path / "some"), tokens=5000)
    tokens = data.load_tokens(tmp_path / "some", "train")
    assert len(tokens) == 5000
    assert (tokens == data.load_tokens(tmp_path / "all", "train")[:5000]).all()


# Errors


def test_errors_of_prepare(files, tmp_path):
    out, empty, binary = tmp_path / "corpus", tmp_path / "empty", tmp_path / "binary"
    empty.mkdir()
    binary.write_bytes(b"\xff\xfe")
    (empty / "nothing").touch()
    text = [str(files)]
    fails("unknown corpus 'pyhton', the known ones are python, text, c4, books", prepare.prepare, "pyhton")
    fails("unknown encoding 'gpt3'", prepare.prepare, "text", text, name=str(out), encoding="gpt3")
    fails("paths go with text", prepare.prepare, "text", name=str(out))
    fails("paths go with text", prepare.prepare, "python", text, name=str(out))
    fails("--tokens is a number", prepare.prepare, "c4", name=str(out), tokens=-1)
    fails("--tokens is a number", prepare.prepare, "c4", name=str(out), tokens=0.5)
    fails("--url goes with c4", prepare.prepare, "python", name=str(out), url="http://localhost")
    fails("too little text", prepare.prepare, "text", [str(empty)], name=str(out))
    fails("cannot read .*missing", prepare.prepare, "text", [str(tmp_path / "missing")], name=str(out))
    fails("was not written", prepare.prepare, "text", text, name=str(binary / "corpus"))
    fails("was not written", prepare.prepare, "text", text, name=str(tmp_path / ("long" * 100)))
    fails("not enough disk", prepare.prepare, "c4", name=str(out), encoding="bytes", tokens=9e14)
    shutil.rmtree(tmp_path / "corpus.partial")
    # named outright, an unreadable file must not be passed over, though others were tokenised before it
    fails("cannot read .*binary.*UTF-8", prepare.prepare, "text", [*text, str(binary)], name=str(out))
    assert not out.exists() and beside(out) == []
    prepare.prepare("text", text, name=str(out))
    fails("is there already", prepare.prepare, "python", name=str(out))
    before = (out / "train.bin").read_bytes()
    fails("is there already", prepare.prepare, "text", [str(files / "0.txt")], name=str(out))
    assert (out / "train.bin").read_bytes() == before


def test_too_much_or_too_little_validation_is_said(tmp_path, capsys):
    for size, said in ((10, True), (1000, False), (100_000, True)):
        for name, letters in (("a", size), ("b", 100)):
            (tmp_path / f"{name}.txt").write_text(name * letters)
        paths = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
        prepare.prepare("text", paths, name=str(tmp_path / f"{size}"))
        assert ("% is held out, in whole files" in capsys.readouterr().out) == said


def test_errors_of_reading(files, tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    fails("prepare it: python -m data.prepare no-such", data.load_meta, "no-such")
    fails("prepare it", data.load_meta, "prepare.py")  # a file, where a directory is expected
    prepare.prepare("text", [str(files)], name=str(out))
    whole = (out / "val.bin").read_bytes()
    for damaged in whole[:-1], whole + b"1", whole[:-2], b"":
        (out / "val.bin").write_bytes(damaged)
        fails(f"val.bin has {len(damaged)} bytes, not {len(whole)}", data.load_tokens, out, "val")
    (out / "val.bin").unlink()
    fails("val.bin has 0 bytes", data.load_tokens, out, "val")
    meta = data.load_meta(out)
    (out / "meta.json").write_text(json.dumps(meta | {"val_tokens": 0}))
    fails("val.bin has 0 bytes", data.load_tokens, out, "val")

    def no_network(name):
        raise ConnectionError("no route")

    monkeypatch.setattr(tiktoken, "get_encoding", no_network)
    fails("TIKTOKEN_CACHE_DIR", data.get_encoding, "gpt2")


DAMAGED = {
    "cut": '{"encoding": "by',
    "no UTF-8": b"\xff",
    "empty": "",
    "no object": ["encoding", "vocab_size", "train_tokens", "val_tokens", "sha256"],
    "a number": 5,
    "too deep": "[" * 100_000,
    "no keys": {},
    **{f"no {key}": {key: None} for key in data.META_KINDS},
    "encoding a list": {"encoding": ["bytes"]},
    "vocab_size a string": {"vocab_size": "257"},
    "vocab_size true": {"vocab_size": True},
    "vocab_size a float": {"vocab_size": 257.0},
    "vocab_size zero": {"vocab_size": 0},
    "vocab_size negative": {"vocab_size": -257},
    "train_tokens a float": {"train_tokens": 1e9},
    "val_tokens a string": {"val_tokens": "3"},
    "sha256 a number": {"sha256": 5},
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_meta_is_said_to_be_damaged(damage, files, tmp_path):
    """Whatever stands in meta.json, it ends in one line and not in a TypeError somewhere behind."""
    prepare.prepare("text", [str(files)], name=str(tmp_path / "corpus"))
    path = tmp_path / "corpus" / "meta.json"
    content = DAMAGED[damage]
    if isinstance(content, dict) and content:
        content = json.loads(path.read_text()) | content
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fails("meta.json is damaged", data.load_meta, tmp_path / "corpus")
    fails("meta.json is damaged", data.load_tokens, tmp_path / "corpus", "val")


@pytest.mark.parametrize("key", data.META_KINDS)
def test_a_meta_without_a_key_is_damaged(key, files, tmp_path):
    prepare.prepare("text", [str(files)], name=str(tmp_path / "corpus"))
    path = tmp_path / "corpus" / "meta.json"
    meta = json.loads(path.read_text())
    del meta[key]
    path.write_text(json.dumps(meta))
    fails("meta.json is damaged", data.load_meta, tmp_path / "corpus")


@pytest.mark.parametrize("there", [True, False])
def test_of_two_first_runs_one_prepares_the_corpus(there, tmp_path, monkeypatch):
    """The other finds it when it wants to put its own in place. Any other failure stays one."""

    def too_late(name):
        if there:
            (tmp_path / name).mkdir()
        raise SystemExit("error: it is there")

    monkeypatch.setattr(data, "DATA_DIR", tmp_path)
    monkeypatch.setattr(prepare, "prepare", too_late)
    if there:
        data.make_if_free("python")
    else:
        fails("it is there", data.make_if_free, "python")


def test_command_line(files, tmp_path):
    def run(*words):
        command = [sys.executable, "-m", "data.prepare", *words]
        return subprocess.run(command, cwd=data.DATA_DIR.parent, capture_output=True, text=True)

    done = run("text", f"--name={tmp_path / 'corpus'}", str(files / "0.txt"), str(files / "2.txt"))
    assert done.returncode == 0 and (tmp_path / "corpus/meta.json").exists()
    wrong = run("text", str(files), "--tokens=many")
    assert wrong.returncode != 0 and len(wrong.stderr.splitlines()) == 1 and "--tokens" in wrong.stderr


# Shards over the network: C4's names, three training shards and one for validation

VALIDATION = "c4-validation.00000-of-00008.json.gz"
TRAINING = [f"c4-train.{i:05d}-of-01024.json.gz" for i in range(3)]


def pack(texts: list[str]) -> bytes:
    return gzip.compress("".join(json.dumps({"text": text, "url": ""}) + "\n" for text in texts).encode())


@pytest.fixture
def server(monkeypatch):
    """A server on loopback: .files by name, .asked counts requests, .cut: bytes sent, .stall after them."""
    monkeypatch.setattr(prepare, "PAUSES", (0, 0))
    monkeypatch.setattr(prepare, "TIMEOUT", 60)  # longer than a busy machine takes
    monkeypatch.setattr(prepare, "BATCH", 3)  # so that a shard is partly written when it fails
    monkeypatch.setitem(prepare.CORPORA, "c4", (prepare.c4, "bytes", "http://localhost", 10**10))
    released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.strip("/")
            server.asked[name] += 1
            if name not in server.files:
                return self.send_error(404)
            content = server.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: server.cut.get(name)])
            self.wfile.flush()
            if name in server.stall:
                released.wait()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.asked, server.cut, server.stall = Counter(), {}, set()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.texts = {}
    for name in (VALIDATION, *TRAINING):
        server.texts[name] = [f"{name} {i} {'word ' * i}" for i in range(50)]
    server.files = {name: pack(texts) for name, texts in server.texts.items()}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield server
    released.set()
    server.shutdown()
    server.server_close()


def limit(server) -> int:
    """Training tokens that only all three shards together bring."""
    return sum(len(text) + 1 for name in TRAINING for text in server.texts[name])


def c4(server, out: Path, **kwargs) -> None:
    prepare.prepare("c4", name=str(out), url=server.url, **{"tokens": limit(server), **kwargs})


def check_whole(server, out: Path) -> None:
    assert documents(out, "val") == server.texts[VALIDATION]
    assert documents(out, "train") == [text for name in TRAINING for text in server.texts[name]]
    assert beside(out) == []


def test_shards_are_streamed_in_order(server, tmp_path):
    c4(server, tmp_path / "c4")
    fails("is there already", c4, server, tmp_path / "c4")
    check_whole(server, tmp_path / "c4")
    assert server.asked == Counter((VALIDATION, *TRAINING))  # each once, and no shard behind the limit


@pytest.mark.skipif(prepare.fcntl is None, reason="a system without fcntl")
def test_a_second_process_ends_in_one_line(server, tmp_path, monkeypatch):
    """It comes in the middle of the second shard's work; the first goes on as if it had been alone."""
    out = tmp_path / "c4"
    command = [sys.executable, "-m", "data.prepare", "c4", f"--name={out}", f"--url={server.url}"]
    command += [f"--tokens={limit(server)}", "--encoding=bytes"]
    write_shard = prepare.write_shard
    ended = []

    def write(folder, shard, encoding, meta, bar):
        if meta["shards"] == 1:
            ended.append(subprocess.run(command, cwd=data.DATA_DIR.parent, capture_output=True, text=True))
        write_shard(folder, shard, encoding, meta, bar)

    monkeypatch.setattr(prepare, "write_shard", write)
    c4(server, out)
    assert ended[0].returncode == 1 and ended[0].stdout == ""
    assert ended[0].stderr == f"error: another process is preparing {out}\n"
    check_whole(server, out)


def test_shards_in_gpt2_encoding(server, tmp_path):
    encoding = gpt2_or_skip()
    tokens = sum(len(encoding.encode_ordinary(text)) + 1 for name in TRAINING for text in server.texts[name])
    c4(server, tmp_path / "c4", encoding="gpt2", tokens=tokens)
    check_whole(server, tmp_path / "c4")


def test_empty_texts_are_left_out_and_half_surrogates_replaced(server, tmp_path):
    server.files[TRAINING[0]] = pack(["", "half \ud83d of one", ""])
    c4(server, tmp_path / "c4", tokens=len("half ? of one") + 1)
    assert documents(tmp_path / "c4", "train") == ["half ? of one"]


def test_books_hold_out_whole_books(server, tmp_path, monkeypatch):
    monkeypatch.setitem(prepare.CORPORA, "books", (prepare.books, "bytes", "http://localhost", 10**10))
    server.texts = {f"books-000{i}.json.gz": [f"{i} book {j}" for j in range(600)] for i in range(3)}
    server.files = {name: pack(texts) for name, texts in server.texts.items()}
    prepare.prepare("books", name=str(tmp_path / "books"), url=server.url, tokens=1e6)
    held_out = [f"{i} book {j}" for i in range(3) for j in (0, 500)]
    assert documents(tmp_path / "books", "val") == held_out
    train = [text for texts in server.texts.values() for text in texts if text not in held_out]
    assert documents(tmp_path / "books", "train") == train


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ("missing", "404"),
        ("cut", "line .*EOFError|line .*IncompleteRead"),
        ("nothing", "line 1: EOFError"),
        ("stall", "TimeoutError"),
        ("not gzip", "line 1: BadGzipFile"),
        ("flipped bit", "BadGzipFile|error: .*zlib"),
        ("bad line", "line 31: JSONDecodeError"),
        ("no text", "line 31: KeyError"),
        ("null text", "line 31: AttributeError"),
    ],
)
def test_a_faulty_shard_is_named_and_fetched_again_alone(server, tmp_path, monkeypatch, fault, match):
    out, name, good = tmp_path / "c4", TRAINING[1], server.files[TRAINING[1]]
    lines = gzip.decompress(good).splitlines(keepends=True)
    if fault == "missing":
        del server.files[name]
    elif fault == "cut":
        server.cut[name] = len(good) // 2
    elif fault == "nothing":
        server.files[name] = b""
    elif fault == "stall":
        server.cut[name], server.stall = len(good) // 2, {name}
        monkeypatch.setattr(prepare, "TIMEOUT", 0.5)
    elif fault == "not gzip":
        server.files[name] = b"<html>"
    elif fault == "flipped bit":
        server.files[name] = good[:-6] + bytes([good[-6] ^ 1]) + good[-5:]
    else:
        bad = {"bad line": b'{"text": "a\n', "no text": b"{}\n", "null text": b'{"text": null}\n'}
        lines[30] = bad[fault]
        server.files[name] = gzip.compress(b"".join(lines))

    fails(f"{name}.*({match})", c4, server, out)
    monkeypatch.setattr(prepare, "TIMEOUT", 60)
    assert server.asked[name] == 2, "one new try, as PAUSES has it"
    assert not out.exists() and beside(out) == ["c4.partial"]

    server.files[name], server.cut, server.stall = good, {}, set()
    server.asked.clear()
    c4(server, out)
    check_whole(server, out)
    assert server.asked == Counter(TRAINING[1:])


def test_a_passing_fault_is_healed_by_a_new_try(server, tmp_path, monkeypatch):
    server.cut[TRAINING[0]] = len(server.files[TRAINING[0]]) // 2
    monkeypatch.setattr(prepare, "PAUSES", (0, 5))
    monkeypatch.setattr(prepare.time, "sleep", lambda seconds: server.cut.clear() if seconds == 5 else None)
    c4(server, tmp_path / "c4")
    check_whole(server, tmp_path / "c4")
    assert server.asked[TRAINING[0]] == 2


def test_an_address_that_is_none_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "PAUSES", (0,))
    out = str(tmp_path / "c4")
    fails("unknown url type", prepare.prepare, "c4", name=out, encoding="bytes", url="mirror", tokens=9)


def test_a_damaged_partial_corpus_is_said_to_be_damaged(server, tmp_path):
    del server.files[TRAINING[2]]
    fails("404", c4, server, tmp_path / "c4")
    (tmp_path / "c4.partial" / "meta.json").write_text('{"name": "c4", "sha')
    fails("c4.partial.* is damaged", c4, server, tmp_path / "c4")


def test_a_cut_between_two_gzip_members_is_seen(server, tmp_path):
    name = TRAINING[0]
    server.cut[name] = len(server.files[name])
    server.files[name] += pack(["never sent"])
    fails(f"{name}.*line 51: EOFError", c4, server, tmp_path / "c4")


def test_going_on_with_other_options_or_lost_tokens_is_an_error(server, tmp_path):
    out, last = tmp_path / "c4", server.files.pop(TRAINING[2])
    fails("404", c4, server, out)
    fails("begun with other options", c4, server, out, tokens=limit(server) + 1)
    server.files[TRAINING[2]] = last
    part = tmp_path / "c4.partial/train.bin"
    part.write_bytes(part.read_bytes()[:-2])
    fails("has lost what it had", c4, server, out)
