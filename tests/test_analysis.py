"""analysis/: tables of numbers written out, interventions that do what they say, spectra of known waves."""

import json
import math
import sys
from functools import partial

import numpy as np
import pytest
import torch
from runs import call, fails, make_model, make_tokens, read_json, write_corpus, write_run

from analysis import bench, encodings, heads, plots, spectrum
from model import GPT, POSITIONS, FoPE, GPTConfig, RoPE

IDX = torch.arange(40)[None]
SMALL = {"block_size": 16, "n_head": 2, "n_embd": 16}


def run_main(monkeypatch, script, *arguments):
    """For scripts without --device."""
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


def is_picture(path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------------------------------------------------
# plots.py


def write(path, measure: str, runs: dict[str, list[float]], lengths=(16, 32), **changes):
    """A file as perplexity.py (measure "perplexity") or passkey.py ("accuracy") writes it, but shorter."""
    common = {"iter": 100, "config": {"block_size": 16}, "trained_on": "a" * 64}
    results = [{"checkpoint": f"out/{name}", **common, measure: numbers} for name, numbers in runs.items()]
    content = {"lengths": lengths, "set": [], "commit": "c1", "results": results}
    if measure == "perplexity":
        content |= {"scored": 64, "corpus": {"sha256": "a" * 64}}
    else:
        content |= {"trials": 50, "keys": 1, "filler": "grass", "seed": 0}
    path.write_text(json.dumps(content | changes))


def test_the_table_holds_mean_deviation_and_paired_differences(tmp_path, monkeypatch, capsys):
    """Deviations of 1, 2, 3 and of 1, 3 are 1 and √2; ln 2 is 0.693."""
    rope = {"rope_1": [4, 8], "rope_2": [6, 8], "rope_3": [5, 8]}
    fope = {"fope_1": [2, 8], "fope_2": [3, 2], "fope_9": [1, 2]}
    write(tmp_path / "p.json", "perplexity", rope | fope)
    write(tmp_path / "k.json", "accuracy", {"rope_1": [1, 0.2], "rope_2": [0.98, 0.4], "fope_1": [1, 1]})
    options = ["--table", "--order", "fope", "rope", "--baseline", "rope"]
    run_main(monkeypatch, plots, tmp_path, *options)
    assert capsys.readouterr().out.splitlines() == [
        "|  | seeds | perplexity at N | 2 N | loss minus RoPE's at N, nats | passkeys at N, % | 2 N |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| FoPE | 3 | 2.00 ± 1.00 | 4.00 ± 3.46 | -0.693 ± 0.000 (2 of 2) | 100 (1) | 100 (1) |",
        "| RoPE | 3 | 5.00 ± 1.00 | 8.00 ± 0.00 |  | 99.0 ± 1.4 (2) | 30.0 ± 14.1 (2) |",
        "| trials in a run |  |  |  |  | 50 | 50 |",
        "",
        "Measured by commit c1",
    ]
    run_main(monkeypatch, plots, tmp_path, *options, "--perplexity_at", "32")
    assert "| FoPE | 3 | 4.00 ± 3.46 | -0.693 ± 0.000 (2 of 2) | 100 (1) |" in capsys.readouterr().out


def test_a_run_may_be_spread_over_files_and_lengths(tmp_path, monkeypatch, capsys):
    write(tmp_path / "near.json", "accuracy", {"a_b_1": [1, 1], "a_b_2": [1, 0.5]})
    write(tmp_path / "far.jsonl", "accuracy", {"a_b_1": [0.5]}, lengths=[64], trials=20, commit="c2-dirty")
    (tmp_path / "heads.json").write_text('{"results": [{"rows": {}}]}')  # another script's: left out
    run_main(monkeypatch, plots, tmp_path, tmp_path / "far.jsonl", "--table", "--names", "a_b=A and B")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "|  | seeds | passkeys at N, % | 2 N | 4 N |"
    assert lines[2] == "| A and B | 2 | 100 | 75.0 ± 35.4 | 50.0 (1) |"
    assert lines[3] == "| trials in a run |  | 50 | 50 | 20 |"
    assert lines[-1] == "Measured by commit c1, c2-dirty"


def test_what_set_replaced_makes_a_group_of_its_own(tmp_path):
    write(tmp_path / "a.json", "perplexity", {"rope_1": [4, 8]})
    write(tmp_path / "b.json", "perplexity", {"rope_1": [3, 5]}, set=[["yarn_scale", 16.0]])
    results = plots.Results([tmp_path])
    assert results.groups == ["rope", "rope yarn_scale=16.0"]
    assert results.values("perplexity", "rope yarn_scale=16.0", 32) == [5]


@pytest.mark.parametrize(
    "measure, changes",
    [
        ("accuracy", {"trials": 60}),
        ("accuracy", {"keys": 4}),
        ("accuracy", {"filler": "text"}),
        ("perplexity", {"scored": 65}),
        ("perplexity", {"corpus": {"sha256": "b" * 64}}),
        ("perplexity", {"lengths": [16, 64]}),  # which makes longer stretches, and so another text
    ],
)
def test_what_was_measured_differently_is_not_averaged(measure, changes, tmp_path, capsys):
    write(tmp_path / "a.json", measure, {"rope_1": [2, 4]})
    write(tmp_path / "b.json", measure, {"rope_2": [2, 4]})
    plots.Results([tmp_path])
    write(tmp_path / "b.json", measure, {"rope_2": [2, 4]}, **changes)
    assert f"{measure} at 16 tokens" in fails(capsys, partial(plots.Results, [tmp_path]))


def test_one_run_with_two_numbers_is_refused(tmp_path, capsys):
    write(tmp_path / "a.json", "accuracy", {"rope_1": [1, 1]})
    write(tmp_path / "b.json", "accuracy", {"rope_1": [1, 0.9]})
    assert "accuracy of rope_1 at 32 tokens" in fails(capsys, partial(plots.Results, [tmp_path]))


def test_the_figure_is_written(tmp_path, monkeypatch):
    write(tmp_path / "p.json", "perplexity", {"rope_1": [4, 8], "rope_2": [5, 9], "fope_1": [3, 3]})
    write(tmp_path / "k.json", "accuracy", {"rope_1": [1, 0.5], "fope_1": [1, 1]})
    run_main(monkeypatch, plots, tmp_path, "--figure", tmp_path / "figure.png")
    assert is_picture(tmp_path / "figure.png")


# ---------------------------------------------------------------------------------------------------------
# heads.py


def logits(model) -> torch.Tensor:
    return model(IDX, IDX)[0]


def test_holding_a_layer_is_a_window_in_that_layer_alone():
    model = make_model()
    windowed = make_model(local_window=5)  # in layer 0 of two
    windowed.load_state_dict(model.state_dict())
    before = logits(model)
    with heads.hold(model, 0, 5):
        held = logits(model)
    torch.testing.assert_close(held, logits(windowed))
    assert not torch.allclose(held, before)
    torch.testing.assert_close(logits(model), before)  # and nothing of it stays


def test_sharpening_is_a_factor_on_queries_or_logn():
    model = make_model(logn=False)
    sharp = make_model(logn=True)
    sharp.load_state_dict(model.state_dict())
    with heads.sharpen(model, 0, 0), heads.sharpen(model, 1, 0):
        torch.testing.assert_close(logits(model), logits(sharp))
    before = logits(model)
    with heads.sharpen(model, 1, 2.0):
        doubled = logits(model)
    model.blocks[1].attn.c_attn.weight.data[:16] *= 2  # the rows that make q
    torch.testing.assert_close(doubled, logits(model))
    assert not torch.allclose(doubled, before)


def test_a_silent_head_adds_nothing():
    """As if c_proj did not read its dimensions: head 1 of two has the last 8 of 16."""
    model = make_model()
    before = logits(model)
    with heads.silence(model, 1, 1):
        silent = logits(model)
    torch.testing.assert_close(logits(model), before)
    model.blocks[1].attn.c_proj.weight.data[:, 8:] = 0
    torch.testing.assert_close(silent, logits(model))
    assert not torch.allclose(silent, before)


@pytest.fixture
def run(tmp_path):
    """An untrained run whose N, 160 bytes, holds a passkey prompt; its layer 0 has a window."""
    corpus = write_corpus(tmp_path / "corpus", make_tokens())
    return write_run(tmp_path / "fope_1", make_model(block_size=160, pos="fope", local_window=8), corpus)


def test_heads_writes_every_intervention(run, tmp_path, monkeypatch):
    sizes = ["--lengths", 160, 320, "--trials", 10, "--tokens", 640]
    call(monkeypatch, heads, run, *sizes, "--json", tmp_path / "h.json")
    rows = read_json(tmp_path / "h.json")["results"][0]["rows"]
    names = ["as it is", "layer 0: sharper", "layer 0: no head 0", "layer 0: no head 1"]
    names += ["layer 1: last N keys", "layer 1: sharper", "layer 1: no head 0", "layer 1: no head 1"]
    assert list(rows) == names  # layer 0 has a window of its own and is not held
    whole = rows["as it is"]["perplexity"]
    held = rows["layer 1: last N keys"]["perplexity"]
    assert held[0] == pytest.approx(whole[0]) and held[1] != pytest.approx(whole[1])  # at N; at 2N


# ---------------------------------------------------------------------------------------------------------
# spectrum.py, encodings.py, bench.py


def test_a_square_makes_sums_and_differences():
    """(cos a + cos b)² = 1 + cos 2a / 2 + cos 2b / 2 + cos (a + b) + cos (a - b)."""
    expected = torch.zeros(2049)
    expected[0] = 1
    expected[[2 * 37, 2 * 101]] = 0.5
    expected[[101 + 37, 101 - 37]] = 1
    found = spectrum.distortion(torch.square, torch.ones(2, 1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert spectrum.new_share(found) == pytest.approx(1)
    linear = spectrum.distortion(torch.neg, torch.ones(2, 1))
    assert spectrum.new_share(linear) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("turns", [0.5, 1.0, 4.0])
def test_truncation_is_the_energy_of_a_sinc(turns):
    """Cut off at N, a wave has energy sin²(x) / x² at x / π turns from its own; near is half its turns."""
    x = (np.arange(100_000) + 0.5) / 100_000 * math.pi * turns / 2
    share = turns * np.mean((np.sin(x) / x) ** 2)
    assert spectrum.truncation(turns) == pytest.approx(share, abs=5e-3)


def test_the_expected_score_is_a_sum_of_cosines():
    rope = RoPE(GPTConfig(**SMALL))
    scores, deviation = spectrum.score([rope], range(0, 9, 4), shifts=16)
    for distance, score in zip((0, 4, 8), scores):
        assert score == pytest.approx(2 * (rope.frequencies * distance).cos().sum().item(), abs=1e-4)
    assert deviation == pytest.approx(0, abs=1e-3)  # RoPE sees the distance alone
    assert spectrum.score([FoPE(GPTConfig(fope_sigma=1.0, **SMALL))], range(0, 9, 4), 16)[1] > 0.05


def test_activations_are_the_means_of_q_and_k():
    model = make_model(n_layer=1)
    block = model.blocks[0]
    qkv = block.attn.c_attn(block.norm_1(model.wte(IDX)))[0].mean(dim=0)  # (3 * 16,)
    squares = qkv.view(3, 2, 2, 4).square()  # q, k, v; head; half of the pair; pair
    torch.testing.assert_close(spectrum.activations(model, IDX)[0], squares[:2].mean(dim=(1, 2)).sqrt())


def test_spectrum_writes_numbers_and_picture(run, tmp_path, monkeypatch):
    run_main(monkeypatch, spectrum, run, "--json", tmp_path / "s.json", "--plot", tmp_path / "s.png")
    found = read_json(tmp_path / "s.json")
    assert list(found["score"]) == ["rope, 60M", "fope, 60M", "fope_1"]
    assert len(found["distortion"]["fope_1"]) == 2  # layers
    assert is_picture(tmp_path / "s.png")


def test_position_scores_are_those_of_the_formulas():
    """RoPE: 2 / √M cos ω_m d for a pair; ALiBi: -m d, with the slopes 1/16 and 1/256 of two heads."""
    config = GPTConfig(**SMALL)
    distances = torch.arange(8, -1, -1)
    rope = RoPE(config)
    whole, parts = encodings.position_scores(rope, 8)
    torch.testing.assert_close(parts[1], (rope.frequencies[:, None] * distances).cos() * 2 / 8**0.5)
    torch.testing.assert_close(whole, parts.sum(dim=1) - 8**0.5)
    whole, _ = encodings.position_scores(POSITIONS["alibi"](config), 8)
    torch.testing.assert_close(whole, -torch.tensor([[1 / 16], [1 / 256]]) * distances)


def test_the_pictures_of_the_encodings_are_written(tmp_path, monkeypatch):
    run_main(monkeypatch, encodings, "--scores", tmp_path / "s.png", "--arcs", tmp_path / "a.png")
    assert is_picture(tmp_path / "s.png") and is_picture(tmp_path / "a.png")


def test_bench_compares_with_a_gpt2_of_as_many_weights():
    config = GPTConfig(vocab_size=320, **SMALL)
    gpt2 = bench.GPT2(config)
    weights = sum(weight.numel() for weight in gpt2.parameters())
    assert weights - gpt2.wpe.weight.numel() == GPT(config).num_params()
    idx = torch.arange(16)[None]
    changed = idx.clone()
    changed[0, 9] = 99
    torch.testing.assert_close(gpt2(idx, idx)[0][:, :9], gpt2(changed, idx)[0][:, :9])  # it is causal


def test_bench_writes_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "TRIALS", 10)
    monkeypatch.setattr(bench, "NEW_TOKENS", 2)
    monkeypatch.setattr(bench, "POSITIONS", {"rope": RoPE})
    shape = ["n_layer=1", "n_head=2", "n_embd=16", "block_size=160"]
    options = ["--rounds", 1, "--batch_size", 1, "--length", 2048, "--json", tmp_path / "b.json"]
    call(monkeypatch, bench, *options, "--set", *shape)
    rows = read_json(tmp_path / "b.json")["rows"]
    assert list(rows) == ["step, rope", "step, GPT-2", "memory, rope", "passkeys at N", "sampling"]
    assert rows["step, rope"]["x rope"] == 1
    assert 1 < rows["memory, rope"]["MiB"] < 100
