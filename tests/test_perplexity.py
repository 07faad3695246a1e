"""
perplexity.py: which tokens it scores, their losses and the errors, against the same written out.

    pytest tests/test_perplexity.py
"""

import math

import numpy as np
import pytest
import torch
from runs import END, call, make_model, make_tokens, read_json, write_corpus, write_run
from torch.nn import functional as F

import perplexity


@pytest.fixture(scope="module")
def tokens():
    return make_tokens()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return make_model()


@pytest.fixture
def corpus(tmp_path, tokens):
    return write_corpus(tmp_path / "corpus", tokens)


@pytest.fixture
def run(tmp_path, model, corpus):
    return write_run(tmp_path / "tiny", model, corpus)


@pytest.fixture
def similar(tmp_path, corpus):
    """A run whose weights are nearly those of `run`."""
    torch.manual_seed(0)
    model = make_model()
    for parameter in model.parameters():
        parameter.data *= 1 + 0.02 * torch.randn_like(parameter)
    return write_run(tmp_path / "similar", model, corpus)


def plain_losses(model, text: np.ndarray, length: int) -> np.ndarray:
    """Every token's loss, chunk by chunk: (count, stretch)."""
    losses = []
    for stretch in text.astype(np.int64):
        for start in range(0, len(stretch) - 1, length):
            chunk = torch.from_numpy(stretch[start : start + length + 1])
            with torch.no_grad():
                logits = model.lm_head(model.hidden(chunk[None, :-1]))[0]
            losses.append(F.cross_entropy(logits.double(), chunk[1:], reduction="none").numpy())
    return np.concatenate(losses).reshape(len(text), -1)


# ---------------------------------------------------------------------------------------------------------
# Which tokens, and their losses


def test_stretches_are_spread_evenly_from_end_to_end():
    for total, count, stretch in ((1001, 7, 96), (1001, 10, 100), (17, 1, 16), (10**7, 999, 4096)):
        positions = perplexity.spread(total, count, stretch)
        assert positions.shape == (count, stretch + 1)
        assert (np.diff(positions, axis=1) == 1).all() and positions[0, 0] == 0
        if count > 1:
            gaps = np.diff(positions[:, 0])
            assert gaps.min() >= stretch and gaps.max() - gaps.min() <= 1  # they do not overlap
            assert positions[-1, -1] == total - 1  # the last token of the split is scored


@pytest.mark.parametrize("length", [1, 6, 96])
def test_losses_are_those_of_a_plain_loop(length, model, tokens, monkeypatch):
    """Whatever is computed at a time: batches of one and of two chunks, and slices of ten logits."""
    text = tokens[perplexity.spread(len(tokens), 3, 96)]
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 2 * 96 + 7)
    monkeypatch.setattr(perplexity, "MAX_LOGITS", 257 * 10 + 5)
    losses = perplexity.token_losses(model, text, length)
    assert losses.dtype == torch.float64
    np.testing.assert_allclose(losses, plain_losses(model, text, length), rtol=1e-4, atol=1e-4)


def test_losses_of_bfloat16_are_not_rounded(model, tokens):
    text = tokens[perplexity.spread(len(tokens), 3, 96)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = perplexity.token_losses(model, text, 96)
    assert (losses != losses.bfloat16()).float().mean() > 0.9


def test_every_length_and_run_scores_the_same_tokens(run, similar, tokens, monkeypatch, tmp_path):
    texts = []
    whole = perplexity.token_losses

    def token_losses(model, text, length):
        texts.append(text)
        return whole(model, text, length)

    monkeypatch.setattr(perplexity, "token_losses", token_losses)
    options = ("--lengths", 32, 12, 16, "--tokens", 970, "--json", tmp_path / "out.json")
    call(monkeypatch, perplexity, run, similar, *options)
    # All three lengths divide 96, and 970 tokens hold ten such stretches.
    expected = tokens[perplexity.spread(len(tokens), 10, 96)]
    assert len(texts) == 6
    for text in texts:
        assert np.array_equal(text, expected)
    assert read_json(tmp_path / "out.json")["scored"] == 960


# ---------------------------------------------------------------------------------------------------------
# Perplexity, differences and their errors


def test_standard_error_by_hand():
    losses = torch.tensor([1.0, 2.0, 6.0, 7.0, 3.0, 5.0], dtype=torch.float64)  # mean 4
    documents = torch.tensor([40, 40, 7, 7, 7, 9])
    # Distances from the mean, summed: -3 - 2 = -5; 2 + 3 - 1 = 4; 1. Their squares: 25 + 16 + 1 = 42.
    expected = math.sqrt(42 * 3 / 2) / 6
    assert perplexity.standard_error(losses, documents) == pytest.approx(expected)
    # Documents of one token each: the usual standard error of independent numbers.
    usual = losses.std().item() / math.sqrt(6)
    assert perplexity.standard_error(losses, torch.arange(6)) == pytest.approx(usual)
    assert math.isnan(perplexity.standard_error(losses, torch.zeros(6)))  # one document tells of no other


def test_the_numbers_of_two_runs(run, similar, model, tokens, monkeypatch, tmp_path, capsys):
    """Perplexity, the paired difference and its error over documents, each from its definition."""
    options = ("--lengths", 32, 8, "--tokens", 320, "--json", tmp_path / "out.json")
    call(monkeypatch, perplexity, run, similar, *options)
    first, second = read_json(tmp_path / "out.json")["results"]
    other, _ = perplexity.load_checkpoint(similar, torch.device("cpu"))
    positions = perplexity.spread(len(tokens), 10, 32)
    ended = np.cumsum(tokens == END)  # documents that have ended with a token or before it
    documents = ended[positions[:, :-1]]  # an end-of-text belongs to the document that it ends
    documents = documents.flatten()
    for i, length in enumerate((8, 32)):
        losses = plain_losses(model, tokens[positions], length).flatten()
        other_losses = plain_losses(other, tokens[positions], length).flatten()
        assert first["perplexity"][i] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
        assert second["perplexity"][i] == pytest.approx(math.exp(other_losses.mean()), rel=1e-4)
        difference = other_losses - losses
        distances = difference - difference.mean()
        sums = np.array([distances[documents == number].sum() for number in set(documents)])
        error = math.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(losses)
        assert second["difference"][i] == pytest.approx(difference.mean(), abs=1e-4)
        assert second["difference_error"][i] == pytest.approx(error, rel=1e-2)
        assert first["difference"][i] == first["difference_error"][i] == 0
    paired = capsys.readouterr().out.splitlines()[-1]
    expected = f"{second['difference'][1]:+.3f}+-{second['difference_error'][1]:.3f}"
    assert paired.split()[-1] == expected


# ---------------------------------------------------------------------------------------------------------
# Which lengths, which corpus


@pytest.mark.parametrize(
    "N, expected",
    [(16, "8 16 32 64 128 256"), (2, "1 2 4 8 16 32"), (255, "255 510 1020 2040"), (2048, "1024 2048")],
)
def test_default_lengths(N, expected, corpus, tmp_path, monkeypatch, capsys):
    """N/2 to 16 N; those that the validation split of 3,000 tokens holds, and N/2 only of an even N."""
    run = write_run(tmp_path / "tiny", make_model(block_size=N), corpus)
    call(monkeypatch, perplexity, run, "--tokens", 1)
    assert capsys.readouterr().out.splitlines()[0].split()[1:] == expected.split()


def test_runs_of_two_corpora_on_one_of_them(run, model, tokens, tmp_path, monkeypatch):
    other = write_corpus(tmp_path / "other", tokens, sha256="b" * 64)
    stranger = write_run(tmp_path / "stranger", model, other)
    options = ("--dataset", other, "--lengths", 8, "--json", tmp_path / "out.json")
    call(monkeypatch, perplexity, run, stranger, *options)
    result = read_json(tmp_path / "out.json")
    assert [numbers["trained_on"] for numbers in result["results"]] == ["a" * 64, "b" * 64]
    assert result["corpus"]["sha256"] == "b" * 64
    assert result["scored"] == (len(tokens) - 1) // 8 * 8  # all that fit, and none twice
