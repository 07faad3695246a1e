"""perplexity.py against direct computation: which tokens it scores, their losses, and its errors."""

import copy
import importlib.util
import math

import numpy as np
import pytest
import torch
from runs import END, call, fails, make_model, make_tokens, read_json, write_corpus, write_run

import perplexity


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return make_model()


@pytest.fixture(scope="module")
def tokens():
    return make_tokens()


@pytest.fixture
def corpus(tmp_path, tokens):
    return write_corpus(tmp_path / "corpus", tokens)


@pytest.fixture
def run(tmp_path, model, corpus):
    return write_run(tmp_path / "tiny", model, corpus)


@pytest.fixture
def similar(tmp_path, model, corpus):
    """A run whose weights are nearly those of `run`."""
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data *= 1 + 0.02 * torch.randn_like(parameter)
    return write_run(tmp_path / "similar", other, corpus)


def record_texts(monkeypatch) -> list[np.ndarray]:
    """A list that every text scored from now on is added to."""
    texts = []
    token_losses = perplexity.token_losses

    def record(model, text, length):
        texts.append(text)
        return token_losses(model, text, length)

    monkeypatch.setattr(perplexity, "token_losses", record)
    return texts


# ---------------------------------------------------------------------------------------------------------
# Which tokens


@pytest.mark.parametrize(
    "total, count, stretch", [(1001, 7, 96), (1001, 10, 100), (17, 1, 16), (10**7, 999, 4096)]
)
def test_stretches_are_spread_evenly_and_do_not_overlap(total, count, stretch):
    positions = perplexity.spread(total, count, stretch)
    assert positions.shape == (count, stretch + 1)
    assert (np.diff(positions, axis=1) == 1).all()
    starts = positions[:, 0]
    assert starts[0] == 0 and positions.max() <= total - 1
    if count > 1:
        assert positions[-1, -1] == total - 1  # to the very end of the split
        gaps = np.diff(starts)
        assert gaps.min() >= stretch and gaps.max() - gaps.min() <= 1


def test_as_many_stretches_as_fit_never_overlap():
    rng = np.random.default_rng(0)
    for _ in range(200):
        total, stretch = (int(size) for size in rng.integers((2000, 1), (100_000, 1999)))
        positions = perplexity.spread(total, (total - 1) // stretch, stretch)
        assert np.diff(positions[:, 0]).min(initial=stretch) >= stretch
        assert positions.min() >= 0 and positions.max() < total


def test_every_length_and_run_scores_the_same_tokens_all_over_the_split(
    run, similar, tokens, monkeypatch, tmp_path
):
    texts = record_texts(monkeypatch)
    options = ("--lengths", 32, 12, 16, "--tokens", 960, "--json", tmp_path / "out.json")
    call(monkeypatch, perplexity, run, similar, *options)
    assert len(texts) == 6
    assert all(np.array_equal(text, texts[0]) for text in texts)
    # 96 is what 12, 16 and 32 all divide.
    assert texts[0].shape == (10, 97)
    expected = [tokens[start : start + 97] for start in np.linspace(0, len(tokens) - 97, 10).astype(int)]
    assert np.array_equal(texts[0], expected)
    result = read_json(tmp_path / "out.json")
    assert result["scored"] == 960 and result["lengths"] == [12, 16, 32]


def test_more_tokens_than_there_are_means_all_that_fit(run, tokens, monkeypatch):
    texts = record_texts(monkeypatch)
    call(monkeypatch, perplexity, run, "--lengths", 64, "--tokens", 10**30)
    assert len(texts[0]) == (len(tokens) - 1) // 64


def test_the_least_text_is_one_stretch_and_a_token(run, corpus, tokens, monkeypatch, capsys):
    write_corpus(corpus, tokens[:501])
    call(monkeypatch, perplexity, run, "--lengths", 500, "--tokens", 500)
    assert "500" in fails(
        capsys, lambda: call(monkeypatch, perplexity, run, "--lengths", 500, "--tokens", 499)
    )
    write_corpus(corpus, tokens[:500])
    assert "500" in fails(capsys, lambda: call(monkeypatch, perplexity, run, "--lengths", 500))


# ---------------------------------------------------------------------------------------------------------
# Their losses


def direct(model, text: np.ndarray, length: int) -> torch.Tensor:
    """Every token's loss in float64, chunk by chunk and token by token."""
    model = copy.deepcopy(model).double()
    losses = []
    for stretch in torch.from_numpy(text.astype(np.int64)):
        for start in range(0, len(stretch) - 1, length):
            chunk = stretch[start : start + length + 1]
            with torch.no_grad():
                logits = model.lm_head(model.hidden(chunk[None, :-1]))[0]
            log_probabilities = logits.log_softmax(dim=-1)
            losses += [-log_probabilities[i, token] for i, token in enumerate(chunk[1:])]
    return torch.stack(losses).view(len(text), -1)


@pytest.mark.parametrize("length", [1, 6, 16, 96])
def test_losses_are_those_of_a_plain_loop(model, tokens, length):
    text = tokens[perplexity.spread(len(tokens), 3, 96)]
    losses = perplexity.token_losses(model, text, length)
    assert losses.shape == (3, 96) and losses.dtype == torch.float64
    torch.testing.assert_close(losses, direct(model, text, length), rtol=1e-4, atol=1e-4)


def test_more_context_is_another_loss(model, tokens):
    """What the test above would not see, were the model blind to context."""
    text = tokens[perplexity.spread(len(tokens), 3, 96)]
    short, long = (perplexity.token_losses(model, text, length) for length in (16, 32))
    first_of_two = torch.arange(96) % 32 < 16
    torch.testing.assert_close(short[:, first_of_two], long[:, first_of_two])
    assert (short - long)[:, ~first_of_two].abs().mean() > 0.01


def test_slices_hold_few_logits_and_change_nothing(model, tokens, monkeypatch):
    text = tokens[perplexity.spread(len(tokens), 5, 96)]
    whole = perplexity.token_losses(model, text, 96)
    held = []
    passed = []
    hooks = [
        model.lm_head.register_forward_hook(lambda module, args, logits: held.append(logits.numel())),
        model.wte.register_forward_hook(lambda module, args, x: passed.append(x.shape[:2].numel())),
    ]
    monkeypatch.setattr(perplexity, "MAX_LOGITS", 257 * 10 + 5)
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 2 * 96 + 7)
    losses = perplexity.token_losses(model, text, 96)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(losses, whole, rtol=1e-5, atol=1e-5)
    assert max(held) == 257 * 10 and sum(held) == 257 * 5 * 96
    assert passed == [2 * 96, 2 * 96, 96]


def test_a_vocabulary_or_a_chunk_over_the_limits_still_works(model, tokens, monkeypatch):
    text = tokens[perplexity.spread(len(tokens), 1, 96)]
    whole = perplexity.token_losses(model, text, 96)
    monkeypatch.setattr(perplexity, "MAX_LOGITS", 1)
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 1)
    torch.testing.assert_close(perplexity.token_losses(model, text, 96), whole, rtol=1e-5, atol=1e-5)


def test_no_text_has_no_losses(model):
    """As for a process beyond the number of stretches, when several evaluate together."""
    losses = perplexity.token_losses(model, np.zeros((0, 97), dtype=np.uint16), 16)
    assert losses.shape == (0, 96) and losses.sum() == 0


def test_losses_of_a_half_precision_pass_are_not_rounded(model, tokens):
    text = tokens[perplexity.spread(len(tokens), 3, 96)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = perplexity.token_losses(model, text, 96)
    assert (losses != losses.bfloat16()).float().mean() > 0.9
    torch.testing.assert_close(losses.mean(), direct(model, text, 96).mean(), rtol=0.02, atol=0)


# ---------------------------------------------------------------------------------------------------------
# Their errors


def draw_documents(generator, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of tokens whose documents differ as much as the tokens in each do, and each token's document."""
    sizes = torch.randint(20, 60, (count,), generator=generator)
    documents = torch.arange(count).repeat_interleave(sizes)
    common = 3 + torch.randn(count, dtype=torch.float64, generator=generator)
    own = torch.randn(len(documents), dtype=torch.float64, generator=generator)
    return common[documents] + own, documents


def test_the_standard_error_is_the_spread_over_many_draws():
    generator = torch.Generator().manual_seed(0)
    means = []
    claimed = []
    token_wise = []
    for _ in range(600):
        losses, documents = draw_documents(generator)
        means.append(losses.mean())
        claimed.append(float(perplexity.standard_error(losses, documents)))
        token_wise.append(losses.std().item() / math.sqrt(len(losses)))
    actual = torch.stack(means).std().item()
    assert np.mean(claimed) == pytest.approx(actual, rel=0.15)
    assert actual > 4 * np.mean(token_wise)


def test_the_standard_error_by_hand():
    losses = torch.tensor([1.0, 2.0, 6.0, 7.0, 3.0, 5.0], dtype=torch.float64)  # mean 4
    documents = torch.tensor([40, 40, 7, 7, 7, 9])
    # Distances from the mean, summed: -3 - 2 = -5; 2 + 3 - 1 = 4; 1. Their squares: 25 + 16 + 1 = 42.
    expected = math.sqrt(42 * 3 / 2) / 6
    assert float(perplexity.standard_error(losses, documents)) == pytest.approx(expected)
    # Documents of one token each: the usual standard error of independent numbers.
    error = perplexity.standard_error(losses, torch.arange(6))
    assert float(error) == pytest.approx(losses.std().item() / math.sqrt(6))


def test_one_document_has_no_error(run, similar, corpus, monkeypatch, tmp_path, capsys):
    """As of a single file, the end of which is held out: no ±, and null in the file, where NaN is no JSON."""
    assert perplexity.standard_error(torch.rand(32, dtype=torch.float64), torch.full((32,), 3)) is None
    write_corpus(corpus, np.append(np.arange(200) % 9, END).astype(np.uint16))
    options = ["--lengths", 8, 16, "--json", tmp_path / "out.json"]
    if importlib.util.find_spec("matplotlib"):
        options += ["--plot", tmp_path / "out.png"]
    call(monkeypatch, perplexity, run, similar, *options)
    for numbers in read_json(tmp_path / "out.json")["results"]:
        assert numbers["error"] == numbers["difference_error"] == [None, None]
    said = capsys.readouterr().out
    assert "similar" in said and "±" not in said


def test_a_pair_shares_its_documents():
    """The error of a difference is that of what is left when the common part is gone."""
    generator = torch.Generator().manual_seed(0)
    losses, documents = draw_documents(generator)
    noise = 0.1 * torch.randn(losses.shape, dtype=torch.float64, generator=generator)
    paired = float(perplexity.standard_error(losses + noise - losses, documents))
    assert paired == pytest.approx(0.1 / math.sqrt(len(losses)), rel=0.3)
    assert float(perplexity.standard_error(losses, documents)) > 20 * paired


def test_the_numbers_of_a_run(run, model, tokens, monkeypatch, tmp_path):
    """Perplexity and its error, from the definition: e to the mean loss, times the mean loss's error."""
    call(monkeypatch, perplexity, run, "--lengths", 8, 32, "--tokens", 320, "--json", tmp_path / "out.json")
    (numbers,) = read_json(tmp_path / "out.json")["results"]
    positions = perplexity.spread(len(tokens), 10, 32)
    document = np.cumsum(np.concatenate(([0], tokens[:-1] == END)))[positions[:, 1:]]
    for i, length in enumerate((8, 32)):
        losses = direct(model, tokens[positions], length).numpy()
        sums = [(losses - losses.mean())[document == number].sum() for number in np.unique(document)]
        error = math.sqrt(np.sum(np.square(sums)) * len(sums) / (len(sums) - 1)) / losses.size
        assert numbers["perplexity"][i] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
        assert numbers["error"][i] == pytest.approx(math.exp(losses.mean()) * error, rel=1e-3)
    assert numbers["difference"] == [0, 0] and numbers["difference_error"] == [0, 0]


def test_the_difference_to_the_first_run_is_paired(run, similar, monkeypatch, tmp_path, capsys):
    call(monkeypatch, perplexity, run, similar, run, "--lengths", 8, 32, "--json", tmp_path / "out.json")
    first, second, third = read_json(tmp_path / "out.json")["results"]
    for i in range(2):
        difference = math.log(second["perplexity"][i]) - math.log(first["perplexity"][i])
        assert second["difference"][i] == pytest.approx(difference, abs=1e-9) and difference != 0
        unpaired = math.hypot(
            first["error"][i] / first["perplexity"][i], second["error"][i] / second["perplexity"][i]
        )
        assert 0 < second["difference_error"][i] < unpaired / 4
    assert third["difference"] == [0, 0] and third["difference_error"] == [0, 0]
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    under_similar = lines[names.index("similar") + 1]
    assert under_similar.split()[0] == "loss"
    cells = [cell.split("±") for cell in under_similar.split()[-2:]]
    assert [float(value) for value, _ in cells] == pytest.approx(second["difference"], abs=5e-4)
    assert [float(error) for _, error in cells] == pytest.approx(second["difference_error"], abs=5e-4)


# ---------------------------------------------------------------------------------------------------------
# The table, the file, the picture


def test_table_and_file_say_the_same(run, model, corpus, monkeypatch, tmp_path, capsys):
    call(monkeypatch, perplexity, run, "--lengths", 32, 8, "--json", tmp_path / "out.json")
    result = read_json(tmp_path / "out.json")
    (numbers,) = result["results"]
    assert numbers["checkpoint"] == str(run) and numbers["iter"] == 7
    assert numbers["config"]["dataset"] == str(corpus) and numbers["config"]["seed"] == 3
    assert result["corpus"]["name"] == "corpus" and result["corpus"]["sha256"] == "a" * 64
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["perplexity", "8", "32"] and len(header) == len(row)
    cells = [cell.split("±") for cell in row.split()[1:]]
    assert [float(value) for value, _ in cells] == pytest.approx(numbers["perplexity"], abs=5e-3)
    assert [float(error) for _, error in cells] == pytest.approx(numbers["error"], abs=5e-3)


def test_the_file_says_which_corpus_was_trained_on_and_which_scored(run, tokens, monkeypatch, tmp_path):
    other = write_corpus(tmp_path / "other", tokens, sha256="b" * 64)
    options = ("--dataset", other, "--lengths", 8, "--json", tmp_path / "out.json")
    call(monkeypatch, perplexity, run, *options)
    result = read_json(tmp_path / "out.json")
    assert result["results"][0]["trained_on"] == "a" * 64 and result["corpus"]["sha256"] == "b" * 64


def test_default_lengths_go_from_half_to_16_times_the_training_length(run, monkeypatch, capsys):
    call(monkeypatch, perplexity, run)
    assert capsys.readouterr().out.split()[:7] == ["perplexity", "8", "16", "32", "64", "128", "256"]


def test_the_shortest_training_length_has_a_half(corpus, tmp_path, monkeypatch, capsys):
    shortest = write_run(tmp_path / "short", make_model(block_size=2), corpus)
    call(monkeypatch, perplexity, shortest)
    assert capsys.readouterr().out.split()[:6] == ["perplexity", "1", "2", "4", "8", "16"]


def test_logn_scale_acts_past_the_training_length_only(run, monkeypatch, tmp_path):
    numbers = []
    for scale in ((), ("--logn_scale", 1)):
        call(monkeypatch, perplexity, run, *scale, "--lengths", 16, 64, "--json", tmp_path / "out.json")
        numbers += read_json(tmp_path / "out.json")["results"]
    plain, scaled = (run["perplexity"] for run in numbers)
    assert plain[0] == pytest.approx(scaled[0], rel=1e-6) and plain[1] != pytest.approx(scaled[1], rel=1e-4)
    assert [run["config"]["logn_scale"] for run in numbers] == [0, 1]


def test_the_picture_shows_the_numbers():
    pytest.importorskip("matplotlib")
    config = {"block_size": 16}
    runs = [
        {"checkpoint": "out/a", "config": config, "perplexity": [4.0, 5.0, 9.0], "error": [0.5, 0.25, 1.0]},
        {"checkpoint": "out/b", "config": config, "perplexity": [3.0, 2.0, 1.5], "error": [0.1, 0.1, 0.1]},
    ]
    (axes,) = perplexity.draw([8, 16, 64], runs).axes
    assert [bars.get_label() for bars in axes.containers] == ["a", "b"]
    for bars, run in zip(axes.containers, runs):
        line, _, (segments,) = bars
        assert line.get_xydata().tolist() == [list(point) for point in zip([8, 16, 64], run["perplexity"])]
        halves = [(high - low) / 2 for (_, low), (_, high) in segments.get_segments()]
        assert halves == pytest.approx(run["error"])
    legend = {text.get_text() for text in axes.get_legend().get_texts()}
    assert legend == {"a", "b", "training length"}
    assert [line.get_xdata()[0] for line in axes.lines if line.get_label() == "training length"] == [16]


# ---------------------------------------------------------------------------------------------------------
# Which corpus


def test_a_run_of_another_corpus_needs_the_corpus_by_name(run, model, tokens, tmp_path, monkeypatch, capsys):
    other = write_corpus(tmp_path / "other", tokens[::-1].copy(), sha256="b" * 64)
    stranger = write_run(tmp_path / "stranger", model, other)
    arguments = (run, stranger, "--lengths", 8, "--json", tmp_path / "out.json")
    message = fails(capsys, lambda: call(monkeypatch, perplexity, *arguments))
    assert str(stranger) in message and "another corpus" in message and "--dataset" in message
    assert len(read_json(tmp_path / "out.json")["results"]) == 1  # what was measured before is kept
    call(monkeypatch, perplexity, *arguments, "--dataset", other)
    result = read_json(tmp_path / "out.json")
    assert (
        result["dataset"] == str(other)
        and result["corpus"]["sha256"] == "b" * 64
        and len(result["results"]) == 2
    )


def test_a_corpus_that_changed_under_its_name_is_another_one(run, corpus, tokens, monkeypatch, capsys):
    write_corpus(corpus, tokens, sha256="c" * 64)
    message = fails(capsys, lambda: call(monkeypatch, perplexity, run, "--lengths", 8))
    assert str(run) in message and "another corpus" in message


def test_another_encoding_is_refused_whatever_is_named(
    run, model, corpus, tokens, tmp_path, monkeypatch, capsys
):
    other = write_corpus(tmp_path / "other", tokens, encoding="gpt2")
    stranger = write_run(tmp_path / "stranger", model, other)
    for options in ((), ("--dataset", corpus)):
        arguments = (run, stranger, "--lengths", 8, *options)
        message = fails(capsys, lambda arguments=arguments: call(monkeypatch, perplexity, *arguments))
        assert str(stranger) in message and "encoding" in message and "bytes" in message


def test_a_failing_run_leaves_the_numbers_before_it(run, model, corpus, tmp_path, monkeypatch, capsys):
    broken = write_run(tmp_path / "broken", model, corpus, iter="many")
    arguments = (run, broken, "--lengths", 8, "--json", tmp_path / "out.json")
    assert str(broken) in fails(capsys, lambda: call(monkeypatch, perplexity, *arguments))
    (numbers,) = read_json(tmp_path / "out.json")["results"]
    assert numbers["checkpoint"] == str(run) and len(numbers["perplexity"]) == 1


def test_a_perplexity_beyond_all_numbers_is_one_line(model, corpus, tmp_path, monkeypatch, capsys):
    """Finite weights can give logits whose loss has no e-th power, or none at all."""
    for factor in (1e4, 1e38):
        wild = copy.deepcopy(model)
        wild.lm_head.weight.data *= factor
        run = write_run(tmp_path / f"wild{factor}", wild, corpus)
        arguments = (run, "--lengths", 8, "--json", tmp_path / "out.json")
        assert str(run) in fails(
            capsys, lambda arguments=arguments: call(monkeypatch, perplexity, *arguments)
        )
        assert not (tmp_path / "out.json").exists()
