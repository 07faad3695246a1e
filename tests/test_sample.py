"""
sample.py: text as it is generated, whole characters, the same for the same seed.

    pytest tests/test_sample.py
"""

import types

import pytest
import torch
from runs import END, call, make_model, make_tokens, write_corpus, write_run

import sample
from data import get_encoding

ENCODING = get_encoding("bytes")


class Script:
    """A model that gives the tokens of a list, and notes what it was asked."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.given = 0
        self.lm_head = types.SimpleNamespace(weight=torch.zeros(1))

    def stream(self, idx, max_new_tokens, temperature, top_k):
        self.idx = idx
        for token in self.tokens[:max_new_tokens]:
            self.given += 1
            yield torch.tensor([[token]])


@pytest.mark.parametrize(
    "tokens, text",
    [
        ("naïve 中 θ".encode(), "naïve 中 θ"),
        ([*b"ab", 200], "ab\N{REPLACEMENT CHARACTER}"),  # half a character at the end is shown
        ([*b"ab", END, *b"cd"], "ab"),  # the document ends
        ([*b"ab", 300, *b"cd"], "ab"),  # past the encoding: the vocabulary is padded
    ],
)
def test_characters_are_whole_and_text_ends_with_its_document(tokens, text):
    assert "".join(sample.stream_text(Script(tokens), ENCODING, "x", 100)) == text


def test_text_comes_as_it_is_generated():
    script = Script(b"abc")
    pieces = sample.stream_text(script, ENCODING, "x", 9)
    assert next(pieces) == "a" and script.given == 1


@pytest.mark.parametrize("prompt, ids", [("", [END]), ("ab", [97, 98])])
def test_an_empty_prompt_starts_a_document(prompt, ids):
    script = Script(b"")
    list(sample.stream_text(script, ENCODING, prompt, 9))
    assert script.idx.tolist() == [ids]


def test_command_line(tmp_path, monkeypatch, capsys):
    """The most likely tokens are those of `generate`; the seed makes the text; each sample is another."""
    model = make_model()
    run = write_run(tmp_path / "tiny", model, write_corpus(tmp_path / "corpus", make_tokens()))

    def samples(*options) -> str:
        capsys.readouterr()
        call(monkeypatch, sample, run, "--prompt", "def ", "--max_new_tokens", 20, *options)
        return capsys.readouterr().out

    tokens = model.generate(torch.tensor([list(b"def ")]), 20, temperature=0)[0, 4:].tolist()
    most_likely = "".join(sample.stream_text(Script(tokens), ENCODING, "x", 20))
    assert f"def {most_likely}\n" in samples("--temperature", 0)
    assert f"def {most_likely}\n" in samples("--top_k", 1)
    two = samples("--num_samples", 2)
    assert samples("--num_samples", 2) == two
    assert samples("--num_samples", 2, "--seed", 2) != two
    first, second = two.split("--- sample")[1:]
    assert first.count("def ") == second.count("def ") == 1 and first[3:] != second[3:]
