"""
data/: what is prepared reads back token by token, validation is apart, and no failure leaves half a corpus.

    pytest tests/test_data.py
"""

import gzip
import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import data
from data import prepare

WORDS = "naïve 数学 🙂 <|endoftext|> \r\n\tdef f(x):  return x  # "


@pytest.fixture(params=["bytes", "gpt2"])
def encoding(request):
    try:
        return data.get_encoding(request.param)
    except SystemExit as error:
        pytest.skip(str(error))  # GPT-2's vocabulary is fetched once


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder of 45 different documents, some of them in a folder that is linked there."""
    folder = tmp_path / "files"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    for i in range(45):
        path = folder / ("linked" if i % 2 else "") / f"{i}.txt"
        path.write_bytes(f"{i} {WORDS * (i + 1)}".encode())
    return folder


def documents(corpus: Path, split: str) -> list[str]:
    encoding = data.get_encoding(data.load_meta(corpus)["encoding"])
    tokens = data.load_tokens(corpus, split)
    assert tokens[-1] == encoding.eot_token  # the last document, too, has its end
    parts = np.split(tokens, np.flatnonzero(tokens == encoding.eot_token) + 1)
    return [encoding.decode(part[:-1]) for part in parts[:-1]]


def fails(word: str, *args, **kwargs) -> None:
    with pytest.raises(SystemExit, match=rf"^error: [^\n]*{word}[^\n]*$"):
        prepare.prepare(*args, **kwargs)


# ---------------------------------------------------------------------------------------------------------
# Local files


def test_documents_read_back_and_validation_is_apart(files, tmp_path, encoding, monkeypatch):
    monkeypatch.setattr(prepare, "BATCH", 7)
    out = tmp_path / "corpus"
    prepare.prepare("text", [str(files)], name=str(out), encoding=encoding.name)
    train = documents(out, "train")
    val = documents(out, "val")
    paths = [*files.glob("*.txt"), *files.glob("linked/*.txt")]
    assert sorted(train + val) == sorted(path.read_bytes().decode() for path in paths)
    assert len(val) == 3  # the first of every twenty
    assert train != sorted(train)  # they are shuffled
    meta = data.load_meta(out)
    content = (out / "train.bin").read_bytes() + (out / "val.bin").read_bytes()
    assert 2 * (meta["train_tokens"] + meta["val_tokens"]) == len(content)
    assert meta["sha256"] == hashlib.sha256(content).hexdigest()
    assert (meta["encoding"], meta["vocab_size"]) == (encoding.name, encoding.n_vocab)
    tokens = encoding.encode_ordinary(train[0])
    assert data.load_tokens(out, "train")[: len(tokens) + 1].tolist() == [*tokens, encoding.eot_token]


def test_what_is_no_text_or_no_new_text_is_passed_over(files, tmp_path, capsys):
    contents = {"copy.txt": (files / "0.txt").read_bytes(), "empty": b"", ".hidden": b"h", "bin": b"\xff"}
    for name, content in contents.items():
        (files / name).write_bytes(content)
    prepare.prepare("text", [str(files)], name=str(tmp_path / "corpus"))
    texts = documents(tmp_path / "corpus", "train") + documents(tmp_path / "corpus", "val")
    assert len(texts) == len(set(texts)) == 45
    assert "45 files, 3 skipped" in capsys.readouterr().out


def test_one_text_alone_is_split(tmp_path):
    """Its last twentieth is held out, also if there is a picture beside it."""
    folder = tmp_path / "book"
    folder.mkdir()
    (folder / "book.txt").write_bytes((WORDS * 300).encode())
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    prepare.prepare("text", [str(folder)], name=str(tmp_path / "corpus"))
    (train,) = documents(tmp_path / "corpus", "train")
    (val,) = documents(tmp_path / "corpus", "val")
    assert train + val == WORDS * 300
    assert len(train) == len(WORDS) * 300 * 19 // 20


def test_python_takes_sources_and_leaves_tests(tmp_path, monkeypatch):
    wanted = [f"package/module{i}.py" for i in range(40)]
    for name in [*wanted, "package/tests/a.py", "test/b.py", "site-packages/c.py", "package/data.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    def get_paths():
        return {"stdlib": str(tmp_path)}

    monkeypatch.setattr(prepare.sysconfig, "get_paths", get_paths)
    monkeypatch.setattr(prepare, "PACKAGES", ("no_such_package",))
    monkeypatch.setattr(data, "DATA_DIR", tmp_path / "data")
    monkeypatch.setattr(prepare, "DATA_DIR", tmp_path / "data")
    data.prepare_if_missing("python")
    data.prepare_if_missing("python")  # the second time it is there
    assert sorted(documents("python", "train") + documents("python", "val")) == sorted(wanted)


# ---------------------------------------------------------------------------------------------------------
# Shards from a network, which here is a folder: C4's names, one for validation and three for training

VALIDATION = "c4-validation.00000-of-00008.json.gz"
TRAINING = [f"c4-train.{i:05d}-of-01024.json.gz" for i in range(3)]


def write_shard(path: Path) -> list[str]:
    """A shard of 50 documents, whose texts it returns."""
    texts = [f"{path.name}: document {i}" for i in range(50)]
    lines = [json.dumps({"text": text, "url": ""}) + "\n" for text in texts]
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return texts


@pytest.fixture
def c4(tmp_path, monkeypatch):
    """A function that prepares all of the three shards in tmp_path/c4; c4.asked is what it read."""
    folder = tmp_path / "c4"
    folder.mkdir()
    val = write_shard(folder / VALIDATION)
    train = []  # tokens, and not quite all: the last document has to be cut
    for name in TRAINING:
        for text in write_shard(folder / name):
            train += [*text.encode(), 256]
    train = train[:-3]
    urlopen = prepare.urllib.request.urlopen

    def fetch(request, timeout):
        c4.asked.append(request.full_url.rsplit("/", 1)[1])
        return urlopen(request, timeout=timeout)

    def c4(match=None):
        c4.asked = []
        options = {"name": str(tmp_path / "out"), "encoding": "bytes", "tokens": len(train)}
        options["url"] = f"file://{folder}"
        if match:
            fails(match, "c4", **options)
        else:
            prepare.prepare("c4", **options)

    monkeypatch.setattr(prepare, "PAUSES", (0, 0))
    monkeypatch.setattr(prepare, "BATCH", 3)  # so that a shard is partly written when it fails
    monkeypatch.setattr(prepare.urllib.request, "urlopen", fetch)
    c4.train = train
    c4.val = val
    return c4


def assert_whole(c4, out: Path) -> None:
    assert documents(out, "val") == c4.val
    assert data.load_tokens(out, "train").tolist() == c4.train
    assert not out.with_name("out.partial").exists()


def test_shards_are_read_in_order_and_no_more_than_needed(c4, tmp_path):
    c4()
    assert_whole(c4, tmp_path / "out")
    assert c4.asked == [VALIDATION, *TRAINING]
    c4("is there already")


@pytest.mark.parametrize("fault", ["missing", "cut"])
def test_after_a_failure_the_same_command_goes_on_at_that_shard(fault, c4, tmp_path):
    shard = tmp_path / "c4" / TRAINING[1]
    whole = shard.read_bytes()
    shard.unlink()
    if fault == "cut":
        shard.write_bytes(whole[: len(whole) // 2])
    c4(TRAINING[1])
    assert c4.asked == [VALIDATION, TRAINING[0], TRAINING[1], TRAINING[1]]  # it was tried twice
    assert not (tmp_path / "out").exists()
    shard.write_bytes(whole)
    c4()
    assert_whole(c4, tmp_path / "out")
    assert c4.asked == TRAINING[1:]


def test_a_failure_that_passes_is_healed_by_the_next_try(c4, tmp_path, monkeypatch):
    shard = tmp_path / "c4" / TRAINING[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])

    def sleep(seconds):
        if seconds == 5:
            shard.write_bytes(whole)

    monkeypatch.setattr(prepare, "PAUSES", (0, 5))
    monkeypatch.setattr(prepare.time, "sleep", sleep)
    c4()
    assert_whole(c4, tmp_path / "out")


# ---------------------------------------------------------------------------------------------------------
# Which code made a number


def test_commit(tmp_path, monkeypatch):
    def git(*words) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    (tmp_path / "copy" / "data").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "model.py").write_text("one")
    git("init")
    git("add", "model.py")
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD").strip()
    monkeypatch.setattr(data, "DATA_DIR", tmp_path / "data")
    assert data.commit() == head and len(head) == 40
    (tmp_path / "model.py").write_text("two")
    assert data.commit() == f"{head}-dirty"
    monkeypatch.setattr(data, "DATA_DIR", tmp_path / "copy" / "data")  # a copy inside another repository
    assert data.commit() == ""
