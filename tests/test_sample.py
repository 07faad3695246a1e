"""sample.py: text as it is generated, whole characters, the same for the same seed."""

import io
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
from runs import END, call, make_model, make_tokens, write_corpus, write_run

import sample
from data import get_encoding

ENCODING = get_encoding("bytes")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return make_model(vocab_size=320, pos="fope")  # padded: ids from 257 on have no text


@pytest.fixture
def run(tmp_path, model):
    return write_run(tmp_path / "tiny", model, write_corpus(tmp_path / "corpus", make_tokens()))


class Script:
    """A model that gives the tokens of a list, and notes what it was asked."""

    def __init__(self, tokens) -> None:
        self.tokens = tokens
        self.given = 0
        self.lm_head = types.SimpleNamespace(weight=torch.zeros(1))

    def stream(self, idx, max_new_tokens, *args, **kwargs):
        self.idx = idx
        for token in self.tokens[:max_new_tokens]:
            self.given += 1
            yield torch.tensor([[token]])


def text_of(tokens, prompt="x") -> str:
    return "".join(sample.stream_text(Script(tokens), ENCODING, prompt, 100))


def test_characters_of_several_bytes_are_whole():
    assert text_of("naïve 中 θ".encode()) == "naïve 中 θ"
    pieces = list(sample.stream_text(Script(list("θ".encode())), ENCODING, "x", 9))
    assert pieces[0] == "" and pieces[1] == "θ"


def test_half_a_character_at_the_end_is_shown():
    assert text_of([*b"ab", "θ".encode()[0]]) == "ab\N{REPLACEMENT CHARACTER}"
    assert text_of([200, *b"ab"]) == "\N{REPLACEMENT CHARACTER}ab"


def test_text_ends_with_its_document():
    assert text_of([*b"ab", END, *b"cd"]) == "ab"


def test_ids_past_the_encoding_have_no_text():
    assert text_of([ord("a"), END + 1, 319, ord("b")]) == "ab"


def test_text_comes_as_it_is_generated():
    script = Script(b"abc")
    pieces = sample.stream_text(script, ENCODING, "x", 9)
    assert next(pieces) == "a" and script.given == 1
    assert next(pieces) == "b" and script.given == 2


def test_an_empty_prompt_starts_a_document():
    for prompt, ids in (("", [END]), ("ab", [97, 98]), ("<|endoftext|>", list(b"<|endoftext|>"))):
        script = Script(b"")
        list(sample.stream_text(script, ENCODING, prompt, 9))
        assert script.idx.tolist() == [ids]


def test_tokens_of_gpt2_with_half_characters():
    try:
        encoding = get_encoding("gpt2")
    except SystemExit as error:
        pytest.skip(str(error))
    text = "Fourier 🙂 εἰκών"
    tokens = encoding.encode_ordinary(text)
    script = Script([*tokens, 50300, encoding.eot_token, 5])
    assert "".join(sample.stream_text(script, encoding, "x", 100)) == text


def samples(capsys, monkeypatch, run, *options) -> str:
    capsys.readouterr()
    call(monkeypatch, sample, run, *options)
    return capsys.readouterr().out


def test_the_most_likely_tokens_are_those_of_generate(run, model, monkeypatch, capsys):
    idx = torch.tensor([list(b"def ")])
    tokens = model.generate(idx, 20, temperature=0)[0, 4:].tolist()
    expected = "".join(sample.stream_text(Script(tokens), ENCODING, "x", 20))
    assert len(expected) > 2
    options = ("--prompt", "def ", "--max_new_tokens", 20)
    assert f"def {expected}\n" in samples(capsys, monkeypatch, run, *options, "--temperature", 0)
    assert f"def {expected}\n" in samples(capsys, monkeypatch, run, *options, "--top_k", 1)


def test_the_seed_makes_the_text(run, monkeypatch, capsys):
    options = ("--max_new_tokens", 30, "--num_samples", 2)
    first = samples(capsys, monkeypatch, run, *options)
    assert samples(capsys, monkeypatch, run, *options) == first
    assert samples(capsys, monkeypatch, run, *options, "--seed", 2) != first
    assert samples(capsys, monkeypatch, run, *options, "--seed", 2**32 - 1) != first
    assert samples(capsys, monkeypatch, run, *options, "--temperature", 5, "--top_k", 320) != first
    assert samples(capsys, monkeypatch, run, "--max_new_tokens", 30) != first


def test_each_sample_continues_the_prompt(run, monkeypatch, capsys):
    text = samples(
        capsys, monkeypatch, run, "--prompt", "a prompt", "--num_samples", 3, "--max_new_tokens", 40
    )
    assert text.count("a prompt") == 3
    continuations = {part.split("\n---")[0] for part in text.split("a prompt")[1:]}
    assert len(continuations) == 3


def test_max_new_tokens(run, monkeypatch, capsys):
    asked = []
    configs = []

    def stream_text(model, encoding, prompt, max_new_tokens, temperature, top_k):
        asked.append((prompt, max_new_tokens, temperature, top_k))
        configs.append(model.config)
        yield "text"

    monkeypatch.setattr(sample, "stream_text", stream_text)
    options = ("--prompt", "p", "--max_new_tokens", 7, "--temperature", 0.5, "--top_k", 3)
    samples(capsys, monkeypatch, run, *options, "--logn_scale", 2)
    assert asked == [("p", 7, 0.5, 3)]
    assert configs[0].logn_scale == 2.0


def test_top_k_may_be_more_than_the_vocabulary(run, monkeypatch, capsys):
    assert samples(capsys, monkeypatch, run, "--top_k", 10**30, "--max_new_tokens", 2)


def test_logn_scale_changes_text_past_the_training_length_only(run, monkeypatch, capsys):
    options = ("--prompt", "abc", "--temperature", 0)
    texts = {}
    for count in (13, 60):
        plain = samples(capsys, monkeypatch, run, *options, "--max_new_tokens", count)
        scaled = samples(capsys, monkeypatch, run, *options, "--max_new_tokens", count, "--logn_scale", 5)
        texts[count] = plain == scaled
    assert texts == {13: True, 60: False}


def test_a_pipe_that_knows_few_characters(run, monkeypatch):
    """As on Windows, whose pipes have no θ, nor the sign for a byte that is no character."""
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding="cp1252", write_through=True))
    argv = ["sample.py", str(run), "--prompt=θ", "--max_new_tokens=2", "--device=cpu"]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(Path(sample.__file__)), run_name="__main__")
    assert b"?" in pipe.getvalue()
