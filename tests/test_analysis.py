"""analysis/: the numbers of spectrum.py are the paper's formulas, and every section of bench.py measures something."""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import data
import perplexity
from analysis import bench, plots, spectrum, window
from model import GPT, POSITIONS, GPTConfig
from passkey import make_prompt
from train import TrainConfig

BYTES = data.get_encoding("bytes")


SHAPE = {"vocab_size": 320, "block_size": 256, "n_layer": 2, "n_head": 2, "n_embd": 32}


def tiny(**changes) -> GPT:
    return GPT(GPTConfig(**SHAPE | changes)).eval()


@pytest.fixture
def run(tmp_path: Path) -> str:
    """The directory of an untrained run, and its corpus beside it."""
    (tmp_path / "corpus").mkdir()
    np.arange(4096, dtype=np.uint16).clip(max=256).tofile(tmp_path / "corpus" / "val.bin")
    meta = {"encoding": "bytes", "vocab_size": 257, "train_tokens": 0, "val_tokens": 4096}
    (tmp_path / "corpus" / "meta.json").write_text(json.dumps(meta))
    config = asdict(TrainConfig(**SHAPE, dataset=str(tmp_path / "corpus")))
    (tmp_path / "fope_run").mkdir()
    checkpoint = {"model": tiny().state_dict(), "config": config, "meta": meta, "iter": 0}
    torch.save(checkpoint, tmp_path / "fope_run" / "ckpt.pt")
    return str(tmp_path / "fope_run")


# ----------------------------------------------------------------------------------------------------------------------
# Distortion and truncation


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_a_power_makes_exactly_the_combinations_of_its_degree(degree):
    """Lemma 1: x^p of two waves holds jω1 + kω2 with |j| + |k| = p, p - 2, ..., and nothing else."""
    turns, spectrum_of_power = (37, 101), spectrum.distortion(lambda x: x**degree)
    expected = {
        abs(j * turns[0] + k * turns[1])
        for j in range(-degree, degree + 1)
        for k in range(-degree, degree + 1)
        if abs(j) + abs(k) in range(degree, -1, -2)
    }
    assert set(torch.nonzero(spectrum_of_power > 1e-9).flatten().tolist()) == expected


def test_amplitudes_are_those_of_equation_18():
    square = spectrum.distortion(torch.square)
    waves = torch.nonzero(square > 1e-9).flatten().tolist()
    found = {spectrum.combination(t): round(square[t].item(), 9) for t in waves}
    assert found == {(0, 0): 1.0, (2, 0): 0.5, (0, 2): 0.5, (1, -1): 1.0, (1, 1): 1.0}


def test_silu_makes_combinations_and_nothing_else():
    silu = spectrum.distortion(F.silu)
    peaks = torch.nonzero(silu > 1e-4).flatten().tolist()
    assert len(peaks) > 10 and all(spectrum.combination(t) for t in peaks)
    assert spectrum.combination(1, (16, 32)) is None  # every combination of these is a multiple of 16


def test_a_frequency_leaks_more_the_fewer_turns_it_makes():
    """Eq. 10, and the closed form of the share: the energy of sinc² between ±turns/2 bins."""
    shares = [spectrum.truncation(turns) for turns in (0.1, 0.5, 0.9, 1, 2, 8, 32)]
    assert shares == sorted(shares) and shares[0] < 0.11 and shares[-1] > 0.99
    for turns in (0.5, 1, 4):
        x = np.linspace(-turns / 2, turns / 2, 20_001)
        assert spectrum.truncation(turns) == pytest.approx(np.mean(np.sinc(x) ** 2) * turns, abs=0.01)


# ----------------------------------------------------------------------------------------------------------------------
# The expected score


@pytest.mark.parametrize("name", [name for name, encoding in POSITIONS.items() if hasattr(encoding, "table")])
def test_the_expected_score_is_that_of_sampled_q_and_k(name):
    """The closed form against the mean over Gaussian q and k that the encoding itself has turned."""
    encoding = POSITIONS[name](GPTConfig(n_head=2, n_embd=64, block_size=64, pos=name))
    found = spectrum.score([encoding], [0, 5, 40], shifts=2)
    samples, mean, generator = 10_000, 1.0, torch.Generator().manual_seed(0)
    q, k = torch.randn(2, samples, 2, 1, 32, generator=generator) + mean
    for distance, expected in zip(found["distances"], found["score"]):
        shifts = [(encoding.rotate(q, b + distance) * encoding.rotate(k, b)).sum(dim=-1) for b in range(2)]
        assert torch.stack(shifts).mean().item() == pytest.approx(mean**2 * expected, abs=4 * math.sqrt(96 / samples))


def test_only_fourier_series_are_not_exactly_relative():
    def deviation(**changes) -> float:
        config = GPTConfig(n_head=4, n_embd=128, block_size=128, **changes)
        return spectrum.score([POSITIONS[config.pos](config)], [0, 3, 50, 300], shifts=128)["deviation"]

    assert deviation(pos="rope") < 1e-3 > deviation(pos="rope_a")
    assert deviation(pos="fope", fope_sigma=0.0) < 1e-3 > deviation(pos="fope", fope_series=False)
    assert 0.01 < deviation(pos="fope", fope_sigma=0.1) < deviation(pos="fope", fope_sigma=0.6)


def test_rope_s_score_is_a_sum_of_cosines_of_the_distance():
    encoding = POSITIONS["rope"](GPTConfig(n_head=1, n_embd=64, block_size=64, pos="rope"))
    found = spectrum.score([encoding], [0, 64], shifts=9)
    assert found["score"][0] == pytest.approx(64)  # 2 Σ cos 0
    assert found["score"][1] == pytest.approx(2 * sum(math.cos(64 * 1e4 ** (-m / 32)) for m in range(32)), abs=0.01)
    assert found["spread"] == pytest.approx([0, 0], abs=0.01)


# ----------------------------------------------------------------------------------------------------------------------
# Models


def test_undertrained_dimensions_are_those_under_the_floor():
    config = GPTConfig(n_head=1, n_embd=64, block_size=512)
    slow = spectrum.undertrained(config)
    kept = len(POSITIONS["fope"](config).frequencies)
    assert slow.tolist() == 2 * ([False] * kept + [True] * (32 - kept))
    assert torch.equal(slow, spectrum.undertrained(GPTConfig(n_head=1, n_embd=64, block_size=64, pos_length=512)))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_activations_are_those_of_q_and_k_before_the_rotation(qk_norm):
    model, idx = tiny(qk_norm=qk_norm), torch.arange(60).view(2, 30)
    found = spectrum.activations(model, idx)
    q, k, _ = model.blocks[0].attn.c_attn(model.blocks[0].norm_1(model.wte(idx))).view(60, 3, 2, 16).unbind(1)
    if qk_norm:
        q, k = ((x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0) for x in (q, k))
    assert found.shape == (2, 2, 2, 16)
    for i, x in enumerate((q, k)):
        assert torch.allclose(found[0, 0, i], x.abs().mean(dim=(0, 1)), rtol=1e-2)
        assert torch.allclose(found[1, 0, i], x.mean(0).abs().mean(0), rtol=1e-2)
    assert not any(block.attn.c_attn._forward_hooks for block in model.blocks)


@pytest.mark.parametrize("pos", POSITIONS)
@pytest.mark.parametrize("logn_scale", [0.0, 2.0])
def test_last_rows_are_the_last_rows_of_the_attention_matrix(pos, logn_scale):
    """With values that number the positions, attention's own output is the matrix, row by row."""
    model, T = tiny(pos=pos, n_layer=1, n_embd=256, block_size=32, logn_scale=logn_scale), 100
    with torch.no_grad():
        model.blocks[0].attn.c_attn.weight[:512] *= 20  # so that attention is far from even
    idx = torch.randint(320, (2, T), generator=torch.Generator().manual_seed(1))
    rows, hidden = spectrum.last_rows(model, idx)
    assert torch.equal(hidden, model.hidden(idx))
    assert rows.shape == (1, 2, 2, T) and torch.allclose(rows.sum(-1), torch.ones(1, 2, 2))
    assert rows.max() > 3 / T

    attn, seen = model.blocks[0].attn, {}
    weight = attn.c_attn.weight.detach().double()
    x = model.blocks[0].norm_1(model.wte(idx)).detach().double()
    q, k, v = (x @ weight.T).view(2, T, 3, 2, 128).permute(2, 0, 3, 1, 4).float()
    q, k = attn.pos.rotate(q), attn.pos.rotate(k)
    factor = 1 + logn_scale * max(0.0, math.log(T) / math.log(32) - 1)
    scores = (q[:, :, -1:] * factor) @ k.transpose(-2, -1) / math.sqrt(128)
    if (bias := attn.pos.bias(T, T)) is not None:
        scores = scores + bias[:, -1:]
    dense = scores.softmax(-1)
    assert torch.allclose(rows[0], dense[:, :, 0], atol=1e-4)
    hook = attn.c_proj.register_forward_pre_hook(lambda module, inputs: seen.update(y=inputs[0]))
    model.hidden(idx)
    hook.remove()
    assert torch.allclose(seen["y"][:, -1].view(2, 2, 128), (rows[0][:, :, None] @ v)[:, :, 0], atol=1e-4)


def test_key_mass_finds_the_key_wherever_it_stands(monkeypatch):
    """Even attention gives the key's two copies their share of the length; attention to one copy, all of it."""
    model = tiny()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.c_attn.weight.zero_()
    mass, hits = spectrum.key_mass(model, BYTES, length=300, trials=5)
    assert mass.shape == (2, 2) and hits.shape == (6,)
    assert torch.allclose(mass, torch.full((2, 2), 2 * 6 / 299))

    prompt, key = make_prompt(BYTES, 300, 0.0, np.random.default_rng([0, 300]))
    at = next(i for i in range(300) if prompt[i : i + 6] == key)

    def last_rows(model, idx):
        assert idx.tolist() == [prompt + key[:-1]]
        logits = F.one_hot(torch.tensor([[0] * (299 - 6) + [*key[:2], 0, *key[3:]]]), 257).float()
        return F.one_hot(torch.tensor(at + 5), 299).float().expand(2, 1, 2, 299), logits

    monkeypatch.setattr(spectrum, "last_rows", last_rows)
    monkeypatch.setattr(model, "lm_head", nn.Identity())
    model.lm_head.weight = torch.zeros(0)
    mass, hits = spectrum.key_mass(model, BYTES, length=300, trials=1)
    assert mass.tolist() == [[1, 1], [1, 1]] and hits.tolist() == [1, 1, 0, 1, 1, 1]


def test_spectrum_from_the_command_line(tmp_path, run, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(spectrum, "key_mass", lambda *_: (torch.rand(2, 2), torch.rand(6)))  # slow at 16 N
    arguments = [run, "--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")]
    monkeypatch.setattr(sys, "argv", ["spectrum", *arguments])
    spectrum.main()
    found = json.loads((tmp_path / "s.json").read_text())
    assert found.keys() == {"distortion", "truncation", "score", "activations", "attention"}
    assert found["score"]["fope, 60M"]["deviation"] > 0.01 > found["score"]["rope, 60M"]["deviation"]
    assert set(found["activations"]) == set(found["attention"]) == {run}
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "fope, 60M" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------------------
# bench.py at toy size; no number is judged but for being one

CPU = torch.device("cpu")


def check(rows: dict[str, dict[str, float]], *columns: str) -> None:
    assert rows
    for row in rows.values():
        assert set(columns) <= row.keys()
        assert all(0 < value < math.inf for value in row.values())


def test_bench_training():
    rows = bench.train(GPTConfig(vocab_size=64, block_size=16, n_layer=1, n_head=2, n_embd=32), 2, CPU, rounds=1)
    check(rows, "tokens/s", "time / rope", "speed / baseline")
    assert rows.keys() == {*POSITIONS, "baseline"}
    assert rows["rope"]["time / rope"] == rows["baseline"]["speed / baseline"] == 1


def test_the_baseline_is_gpt2():
    """Causal, with GPT-2's number of parameters: 12 C² and two norms a layer, one embedding, positions, a last norm."""
    config = GPTConfig(vocab_size=64, block_size=16, n_layer=2, n_head=2, n_embd=32)
    model, idx = bench.Baseline(config), torch.randint(64, (1, 16), generator=torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in model.parameters()) == 2 * (12 * 32**2 + 2 * 32) + 64 * 32 + 16 * 32 + 32
    changed = idx.clone()
    changed[0, 9] = (idx[0, 9] + 1) % 64
    (a, _), (b, _) = model(idx, idx), model(changed, idx)
    assert torch.allclose(a[0, :9], b[0, :9], atol=1e-6) and not torch.allclose(a[0, 9:], b[0, 9:], atol=1e-2)


def test_ratios_are_medians_of_the_rounds(monkeypatch):
    clock = iter([0, 2, 2, 3, 3, 13, 13, 33, 33, 35, 35, 36])  # a: 2, 20, 2 seconds; b: 1, 10, 1
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    calls = []
    rows = bench.compare(
        "x", {"a": (lambda: calls.append("a"), 4), "b": (lambda: calls.append("b"), 4)}, ["b"], rounds=3, device=CPU
    )
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert rows == {"a": {"x/s": 2.0, "speed / b": 0.5}, "b": {"x/s": 4.0, "speed / b": 1.0}}


def test_bench_sampling_and_passkey():
    check(bench.sample(tiny(), 5, CPU, rounds=1), "tokens/s", "speed / recomputed")
    check(bench.passkey(tiny(), 160, 2, CPU, rounds=1), "trials/s", "speed / generating")


def test_bench_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("eins zwei drei " * 100)
    (tmp_path / "b.txt").write_text("vier fünf sechs " * 100)
    rows = bench.data([tmp_path / "a.txt", tmp_path / "b.txt"], rounds=1)
    check(rows, "M characters/s", "speed / tiktoken")


def test_bench_memory():
    check(bench.memory((512,), CPU, names=("rope",)), "MiB at 512", "MiB at 512 / rope")


def test_bench_startup(monkeypatch):
    """The processes themselves are left out here: three seconds each, and other tests start train.py."""
    commands = []
    monkeypatch.setattr(bench.subprocess, "run", lambda command, **options: commands.append(command[1:]))
    check(bench.startup(rounds=1), "time / torch")
    assert commands == [["train.py", "--help"], ["-c", "import torch"]]


def test_bench_names_its_sections(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "trian"])
    with pytest.raises(SystemExit, match="error: no section trian; there are train, memory"):
        bench.main()


# ----------------------------------------------------------------------------------------------------------------------
# plots.py, run by itself


def measured(path: Path, measure: str, runs: dict[str, list[float]], strength: float = 0.0) -> Path:
    config = {"block_size": 16, "logn_scale": strength}
    results = [{"checkpoint": f"out/{name}", "config": config, measure: values} for name, values in runs.items()]
    lengths = [16, 32, 64][: len(next(iter(runs.values())))]
    path.write_text(json.dumps({"lengths": lengths, "results": results}))
    return path


def test_means_over_seeds(tmp_path, monkeypatch, capsys):
    """Runs that differ in the last number of their name are one row; a strength of logn_scale makes another."""
    perplexity = {"a_1": [2.0, 3.0], "a_2": [4.0, 3.0], "b_1": [5.0, 6.0]}
    files = [measured(tmp_path / "0.json", "perplexity", perplexity)]
    files += [measured(tmp_path / "1.json", "perplexity", {"a_1": [2.0, 2.5, 3.0]}, strength=0.5)]
    files += [measured(tmp_path / "2.json", "accuracy", {"a_1": [1.0, 0.5], "a_2": [1.0, 0.25]})]
    plot = tmp_path / "plot.png"
    monkeypatch.setattr(sys, "argv", ["plots.py", *map(str, files), "--plot", str(plot)])
    plots.main()
    said = capsys.readouterr().out
    assert (
        "| a | 2 | 3.00 ± 1.41 | 3.00 ± 0.00 |\n| b | 1 | 5.00 | 6.00 |\n| a, strength 0.5 | 1 | 2.00 | 2.50 |" in said
    )
    assert "| accuracy, % | seeds | 16 | 32 |" in said and "| a | 2 | 100.0 ± 0.0 | 37.5 ± 17.7 |" in said
    assert plot.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "argv", ["plots.py", str(files[0]), "--only", "b"])
    plots.main()
    said = capsys.readouterr().out
    assert "| b | 1 | 5.00 | 6.00 |" in said and "| a |" not in said


@pytest.mark.parametrize(
    "second, says", [({"a_1": [2.0, 3.0]}, "a run of a is in two"), ({"a_2": [1.0]}, "no length is in all")]
)
def test_files_that_do_not_go_together(second, says, tmp_path, monkeypatch):
    """The same run in two files would count as two seeds; without a common length there is nothing to compare."""
    files = [measured(tmp_path / "0.json", "perplexity", {"a_1": [2.0, 3.0]})]
    files += [measured(tmp_path / "1.json", "perplexity", second)]
    files[1].write_text(files[1].read_text().replace("[16]", "[64]"))
    monkeypatch.setattr(sys, "argv", ["plots.py", *map(str, files)])
    with pytest.raises(SystemExit, match=f"^error: {says}"):
        plots.main()


@pytest.mark.parametrize("text", ["", "[]", '{"results": []}', "{"])
def test_a_file_of_something_else(text, tmp_path, monkeypatch):
    (tmp_path / "other.json").write_text(text)
    monkeypatch.setattr(sys, "argv", ["plots.py", str(tmp_path / "other.json")])
    with pytest.raises(SystemExit, match=r"^error: [^\n]*other.json"):
        plots.main()


# ----------------------------------------------------------------------------------------------------------------------
# window.py


@pytest.mark.parametrize("pos", POSITIONS)
def test_a_window_hides_what_lies_before_it(pos):
    """In one layer a prediction hangs on the last `window` tokens alone; without a window, on all."""
    model, idx = tiny(pos=pos, n_layer=1), torch.randint(0, 256, (1, 40))
    other = idx.clone()
    other[:, :20] = (idx[:, :20] + 1) % 256
    differ = []
    for _ in range(2):
        differ.append((model.hidden(idx) - model.hidden(other)).abs().amax(dim=-1)[0] > 1e-6)
        window.look_back(model.blocks[0].attn.pos, 8)
    assert differ[0].all() and differ[1][:27].all() and not differ[1][27:].any()


def test_a_window_of_the_whole_context_changes_nothing(run, monkeypatch, capsys):
    said = []
    for script in perplexity, window:
        monkeypatch.setattr(sys, "argv", ["script", run, "--lengths", "128", "512", "--tokens", "1024", "--device=cpu"])
        script.main()
        said.append(capsys.readouterr().out.splitlines()[1].split())
    assert said[0][:2] == said[1][:2] and said[0][2] != said[1][2]  # past N = 256 it does
