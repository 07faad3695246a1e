"""
analysis/: tables are those of the files, spectrum.py's numbers the paper's formulas, bench.py's sections run.

    pytest tests/test_analysis.py

No test judges a time.
"""

import json
import math
import runpy
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import data
import passkey
import perplexity
from analysis import bench, clip, encodings, heads, plots, spectrum, window
from model import GPT, POSITIONS, GPTConfig, RoPE, load_checkpoint
from train import TrainConfig

BYTES = data.get_encoding("bytes")
CPU = torch.device("cpu")
SHAPE = {"vocab_size": 320, "block_size": 128, "n_layer": 2, "n_head": 2, "n_embd": 32}


def tiny(**changes) -> GPT:
    return GPT(GPTConfig(**SHAPE | changes)).eval()


def call(monkeypatch, script, *arguments: object) -> None:
    """As if from the command line."""
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


@pytest.fixture
def run(tmp_path: Path) -> str:
    """The directory of an untrained run, and its corpus beside it."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    tokens = np.arange(4096, dtype=np.uint16) % 257
    tokens.tofile(corpus / "val.bin")
    meta = {"name": "corpus", "encoding": "bytes", "vocab_size": 257, "train_tokens": 0, "val_tokens": 4096}
    meta["sha256"] = "0"
    (corpus / "meta.json").write_text(json.dumps(meta))
    config = asdict(TrainConfig(**SHAPE, dataset=str(corpus)))
    checkpoint = {"model": tiny().state_dict(), "config": config, "meta": meta, "iter": 0}
    (tmp_path / "fope_run").mkdir()
    torch.save(checkpoint, tmp_path / "fope_run" / "ckpt.pt")
    return str(tmp_path / "fope_run")


# ---------------------------------------------------------------------------------------------------------
# plots.py: reading and grouping


def result(seed: int, numbers: dict, iter: int = 100, **changes) -> dict:
    """A run as the evaluations write it; numbers are its measures."""
    settings = {"block_size": 16, "max_iters": 100, "name": f"x_{seed}", "seed": seed} | changes
    config = asdict(TrainConfig(**settings))
    strength = config["logn_scale"]
    return {"checkpoint": config["out_dir"], "iter": iter, "config": config, **numbers, "strength": strength}


def perplexities(*values: float) -> dict:
    return {"perplexity": list(values)}


def accuracies(*values: float, lengths: tuple = (16, 64)) -> dict:
    """By depth: the ten parts are 0, 0.1, 0.2, ... of the accuracy, the thirds likewise."""
    parts = np.arange(10) / 10
    found = {"accuracy": list(values), "reach": [], "thirds": [], "by_depth": []}
    for value, length in zip(values, lengths):
        found["reach"].append(value * length)
        found["thirds"].append([0.0, value / 2, value])
        found["by_depth"].append((parts * value).tolist())
    return found


def write(path: Path, results: list[dict], lengths: tuple, **changes) -> Path:
    content = {"lengths": list(lengths), "tokens": 64, "corpus": {"sha256": "0"}, "results": results}
    path.write_text(json.dumps(content | changes))
    return path


def methods(*results: dict) -> dict[str, list[int]]:
    """Names and seeds of the methods that these runs make."""
    runs = [plots.Run(result["checkpoint"], result["iter"], result["config"]) for result in results]
    return {method.name: [plots.get_seed(run) for run in method.runs] for method in plots.group(runs)}


def test_runs_that_differ_in_their_seed_are_one_method():
    one, two = result(1, {}), result(2, {}, name="other", device="cpu", dtype="float32", eval_interval=7)
    assert methods(two, one) == {"FoPE": [1, 2]}
    with pytest.raises(SystemExit, match=r"^error: .*x_1 and .*again are the same method .FoPE. and seed"):
        methods(one, result(1, {}, name="again"))


def test_methods_bear_the_names_of_their_encodings():
    runs = [result(1, {}, pos=pos, name=pos) for pos in POSITIONS]
    runs.append(result(1, {}, fope_series=False, name="cf"))
    runs.append(result(1, {}, fope_clip=False, name="fs"))
    names = ["FoPE", "RoPE", "ALiBi", "clipping alone (CF)", "series alone (FS)", "RoPE-A", "NoPE"]
    assert list(methods(*runs)) == names
    assert list(plots.STYLES) == names


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"optimizer": "adamw", "learning_rate": 1e-3}, "FoPE, AdamW"),
        ({"qk_norm": True}, "FoPE, QK norm"),
        ({"logn_train": True}, "FoPE, log-n in training"),
        ({"logn_scale": 0.5}, "FoPE, strength 0.5"),
        ({"max_iters": 1500, "iter": 1500}, "FoPE, 1,500 steps"),
        ({"iter": 60}, "FoPE, at step 60"),
        ({"n_layer": 3, "qk_norm": True}, "FoPE, n_layer 3, QK norm"),
        ({"pos": "rope", "fope_sigma": 0.5}, "RoPE"),  # what it does not use makes no difference
    ],
)
def test_a_method_says_in_what_it_differs_from_the_recipe(changes, name):
    usual = [result(seed, {}, optimizer="muon") for seed in (1, 2)]
    odd = result(1, {}, **{"optimizer": "muon", "name": "odd"} | changes)
    assert methods(*usual, odd) == {"FoPE": [1, 2], name: [1]}


def test_what_the_recipe_has_is_said_where_it_is_missing():
    usual = [result(seed, {}, qk_norm=True) for seed in (1, 2)]
    assert list(methods(*usual, result(1, {}, name="odd"))) == ["FoPE", "FoPE, no QK norm"]


def test_each_optimizer_has_a_recipe_of_its_own():
    """AdamW's own rate is no part of the name, unless it is another than AdamW's usual one."""
    muon = [result(seed, {}, optimizer="muon") for seed in (1, 2, 3)]
    adamw = [result(seed, {}, learning_rate=1e-3, min_lr=1e-4, name=f"a{seed}") for seed in (1, 2)]
    odd = result(1, {}, learning_rate=2e-3, min_lr=2e-4, name="odd")
    names = ["FoPE", "FoPE, AdamW", "FoPE, AdamW, rate 0.002"]
    assert sorted(methods(*muon, *adamw, odd)) == sorted(names)


def test_files_of_several_lengths_are_put_together(tmp_path):
    write(tmp_path / "a.json", [result(1, perplexities(4.0, 5.0))], (16, 32))
    write(tmp_path / "b.json", [result(1, accuracies(1.0))], (16,))
    write(tmp_path / "c.json", [result(1, accuracies(0.5))], (64,))
    (tmp_path / "search.json").write_text('{"trials": []}')
    [run] = plots.read_runs([tmp_path])
    assert run.perplexity == {16: 4.0, 32: 5.0}
    assert run.passkey == {16: 1.0, 64: 0.5}
    assert run.thirds[64] == [0.0, 0.25, 0.5]


def test_a_jsonl_file_holds_an_evaluation_a_line(tmp_path):
    first = write(tmp_path / "a.json", [result(1, perplexities(4.0, 5.0))], (16, 32))
    second = write(tmp_path / "b.json", [result(1, accuracies(0.5))], (64,))
    (tmp_path / "runs.jsonl").write_text(f"{first.read_text()}\n{second.read_text()}\n")
    [run] = plots.read_runs([tmp_path / "runs.jsonl"])
    assert run.perplexity == {16: 4.0, 32: 5.0}
    assert run.passkey == {64: 0.5}


def test_another_strength_is_another_method(tmp_path):
    write(tmp_path / "a.json", [result(1, accuracies(1.0))], (16,))
    write(tmp_path / "b.json", [result(1, accuracies(0.5), logn_scale=1.0)], (16,))
    found = plots.group(plots.read_runs([tmp_path]))
    assert [(method.name, method.runs[0].passkey) for method in found] == [
        ("FoPE", {16: 1.0}),
        ("FoPE, strength 1", {16: 0.5}),
    ]


@pytest.mark.parametrize(
    "second, says",
    [
        (result(1, perplexities(4.0)), "perplexity of out/fope_x_1 at length 16 is there twice"),
        (result(1, perplexities(4.0), n_layer=3), "two different runs are both called out/fope_x_1"),
        (result(2, perplexities(4.0), block_size=32), "the runs have several training lengths: .16, 32."),
    ],
)
def test_files_that_do_not_go_together(second, says, tmp_path, monkeypatch):
    first = write(tmp_path / "a.json", [result(1, perplexities(4.0))], (16,))
    other = write(tmp_path / "b.json", [second], (16,))
    with pytest.raises(SystemExit, match=f"^error: {says}"):
        call(monkeypatch, plots, first, other, "--tables")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"results": []}', '{"lengths": null, "results": [{"config": {}, "accuracy": []}]}'],
)
def test_a_file_of_something_else(text, tmp_path, monkeypatch):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(SystemExit, match=r"^error: [^\n]*other.json"):
        call(monkeypatch, plots, tmp_path / "other.json")


def test_a_directory_without_results(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"^error: there are no results"):
        call(monkeypatch, plots, tmp_path)


# ---------------------------------------------------------------------------------------------------------
# plots.py: tables and figures


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two seeds of FoPE and RoPE, one of ALiBi; AdamW's FoPE has no RoPE to be compared with."""
    runs = [
        result(1, perplexities(4.0, 5.0, 6.0), optimizer="muon"),
        result(2, perplexities(6.0, 5.0, 8.004), optimizer="muon"),
        result(1, perplexities(5.0, 5.0, 12.0), optimizer="muon", pos="rope"),
        result(2, perplexities(5.0, 5.0, 4.002), optimizer="muon", pos="rope"),
        result(2, perplexities(2.5, 2.5, 2.5), optimizer="muon", pos="alibi"),
        result(1, perplexities(7.0, 7.0, 7.0), name="adamw"),
    ]
    folder = tmp_path / "results"
    folder.mkdir()
    write(folder / "perplexity.json", runs, (8, 16, 64))
    runs = [
        result(1, accuracies(1.0, 0.5), optimizer="muon"),
        result(2, accuracies(1.0, 0.25), optimizer="muon"),
        result(1, accuracies(0.9996, 0.0), optimizer="muon", pos="rope"),
    ]
    write(folder / "passkey.json", runs, (16, 64))
    write(folder / "far.json", [result(1, accuracies(0.125), optimizer="muon")], (256,))
    return folder


def test_tables(results, monkeypatch, capsys):
    call(monkeypatch, plots, results, "--tables")
    lines = capsys.readouterr().out.splitlines()
    expected = """\
| perplexity | seeds | 8 | 16 = N | 64 |
| --- | --- | --- | --- | --- |
| FoPE | 2 | 5.00 ± 1.41 | 5.00 ± 0.00 | 7.00 ± 1.42 |
| RoPE | 2 | 5.00 ± 0.00 | 5.00 ± 0.00 | 8.00 ± 5.66 |
| ALiBi | 1 | 2.50 | 2.50 | 2.50 |
| FoPE, AdamW | 1 | 7.00 | 7.00 | 7.00 |
| passkey accuracy, % | seeds | 16 = N | 64 |
| FoPE | 2 | 100.0 ± 0.0 | 37.5 ± 17.7 |
| RoPE | 1 | 100.0 | 0.0 |
| passkey accuracy by depth, % | seeds | 4N, far third | middle | near third |
| FoPE | 2 | 0.0 ± 0.0 | 18.8 ± 8.8 | 37.5 ± 17.7 |
| reach, tokens | seeds | 16 = N | 64 |
| FoPE | 2 | 16 ± 0 | 24 ± 11 |
| loss minus RoPE's, nats (in how many seeds it is lower) | 8 | 16 = N | 64 |
| FoPE | -0.020 ± 0.287 (1 of 2) | 0.000 ± 0.000 (0 of 2) | 0.000 ± 0.980 (1 of 2) |
| ALiBi | -0.693 (1 of 1) | -0.693 (1 of 1) | -0.471 (1 of 1) |
"""
    for line in expected.splitlines():
        assert line in lines, line
    assert sum(line.startswith("| FoPE, AdamW") for line in lines) == 1  # there is no RoPE with AdamW
    assert not any("256" in line for line in lines)  # one seed of two has that length


@pytest.mark.parametrize(
    "lengths, changes",
    [((8, 16, 64), {"tokens": 128}), ((8, 16, 64), {"corpus": {"sha256": "1"}}), ((8, 16), {})],
)
@pytest.mark.parametrize("moved", [slice(2, 4), slice(1, 2)], ids=["a method", "a seed"])
def test_losses_are_compared_on_the_same_text_alone(moved, lengths, changes, results, monkeypatch, tmp_path):
    """Other lengths may make other stretches of text, at the same number of tokens."""
    path = results / "perplexity.json"
    content = json.loads(path.read_text())
    others = content["results"][moved]
    del content["results"][moved]
    path.write_text(json.dumps(content))
    write(results / "others.json", others, lengths, **changes)
    for option in (["--tables"], ["--summary", tmp_path / "summary.json"]):
        with pytest.raises(SystemExit, match=r"^error: perplexities at length 8 are of different texts$"):
            call(monkeypatch, plots, results, *option)
    call(monkeypatch, plots, results, "--tables", "--only", "ALiBi")


def test_only_some_methods_in_an_order_of_their_own(results, monkeypatch, capsys):
    call(monkeypatch, plots, results, "--tables", "--only", "ALiBi", "FoPE, AdamW")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| ALiBi", "| FoPE, AdamW"]
    assert len(lines) == 5
    with pytest.raises(
        SystemExit, match=r"^error: no method Rope; there are: FoPE; RoPE; ALiBi; FoPE, AdamW"
    ):
        call(monkeypatch, plots, results, "--only", "Rope")


def test_the_summary_has_every_seed(results, monkeypatch, tmp_path):
    call(monkeypatch, plots, results, "--summary", tmp_path / "summary.json")
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["lengths"] == [8, 16, 64] and found["training_length"] == 16
    assert list(found["encodings"]) == ["FoPE", "RoPE", "ALiBi", "FoPE, AdamW"]
    assert found["encodings"]["FoPE"]["perplexity"] == [[4.0, 5.0, 6.0], [6.0, 5.0, 8.004]]
    assert found["encodings"]["RoPE"]["passkey"] == [[None, 0.9996, 0.0]]
    assert found["encodings"]["ALiBi"]["passkey"] == []


def test_figures(results, monkeypatch, tmp_path):
    """Opaque white, with a margin; thin lines are the seeds, thick ones their mean, all within [0, 1]."""
    pytest.importorskip("matplotlib")
    import matplotlib.image

    call(monkeypatch, plots, results, "--plot", tmp_path / "a.png", "--maps", tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        pixels = matplotlib.image.imread(tmp_path / name)
        assert (pixels[:, :, 3] == 1).all()
        assert (pixels[:8] == 1).all() and (pixels[:, :8] == 1).all()
    found = plots.group(plots.read_runs([results]))
    losses, shares = plots.draw_lines(found).axes
    thick = [line for line in losses.lines if line.get_linewidth() > 2]
    assert len(thick) == 4
    assert thick[0].get_ydata() == pytest.approx([5, 5, 7.002])
    assert (
        len({line.get_color() for line in thick}) == 3 and len({line.get_linestyle() for line in thick}) == 2
    )
    thin = [line.get_ydata().tolist() for line in losses.lines if line.get_linewidth() < 1]
    assert [4.0, 5.0, 6.0] in thin and [6.0, 5.0, 8.004] in thin
    for line in shares.lines:
        assert min(line.get_ydata()) >= 0 and max(line.get_ydata()) <= 1
    maps = plots.draw_maps(found)
    first = maps.axes[0].get_images()[0].get_array()
    assert first.shape == (10, 2) and first[5].tolist() == pytest.approx([0.5, 0.1875])  # depths by lengths


def test_no_figure_without_matplotlib(results, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match=r"^error: figures need matplotlib"):
        call(monkeypatch, plots, results, "--plot", tmp_path / "a.png")


def test_it_reads_what_the_evaluations_write(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["perplexity.py", run, "--lengths", "64", "128", "--tokens", "256"])
    sys.argv += ["--json", str(tmp_path / "perplexity.json"), "--device=cpu"]
    perplexity.main()
    monkeypatch.setattr(
        sys, "argv", ["passkey.py", run, "--lengths", "128", "--trials", "10", "--device=cpu"]
    )
    sys.argv += ["--json", str(tmp_path / "passkey.json")]
    passkey.main()
    capsys.readouterr()
    call(monkeypatch, plots, tmp_path / "perplexity.json", tmp_path / "passkey.json", "--tables")
    said = capsys.readouterr().out
    assert "| perplexity | seeds | 64 | 128 = N |" in said
    assert "| FoPE, at step 0 | 1 | 0.0 |" in said


# ---------------------------------------------------------------------------------------------------------
# encodings.py


@pytest.mark.parametrize("name", ["rope", "rope_a", "fope"])
def test_the_picture_shows_the_scores_of_the_tables(name):
    """Pair by pair q · k = 2 Re z(query) z(key)*, for q and k of ones; clipped pairs are flat."""
    pos = POSITIONS[name](GPTConfig(n_head=2, n_embd=64, block_size=64, pos=name))
    parts, whole = encodings.position_scores(pos, query=100)
    z = torch.complex(*pos.table(torch.arange(101))).expand(2, 101, 16)
    expected = 2 * (z[:, 100:] * z.conj()).real / math.sqrt(32)
    assert torch.allclose(parts, expected.transpose(1, 2), atol=1e-5)
    assert torch.allclose(whole, expected.sum(dim=-1), atol=1e-4)
    flat = (parts - parts[:, :, :1]).abs().amax(dim=(0, 2)) < 1e-6
    kept = len(pos.frequencies)
    assert flat.tolist() == [False] * kept + [True] * (16 - kept)
    assert kept < 16 or name != "fope"


def test_the_picture_shows_what_alibi_adds():
    pos = POSITIONS["alibi"](GPTConfig(n_head=2, n_embd=64, pos="alibi"))
    parts, whole = encodings.position_scores(pos, query=300)
    distances = torch.arange(300, -1, -1)
    for head, slope in enumerate((1 / 16, 1 / 256)):
        assert torch.allclose(whole[head], math.sqrt(32) - slope * distances, atol=1e-4)
    assert torch.equal(parts, torch.full((2, 16, 301), 2 / math.sqrt(32)))


def test_the_picture_is_drawn(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    call(monkeypatch, encodings, "--plot", tmp_path / "encodings.png")
    assert (tmp_path / "encodings.png").read_bytes().startswith(b"\x89PNG")


def test_flat_lines_look_flat():
    assert plots.at_least_an_octave(2, 8) == pytest.approx((2, 8))
    low, high = plots.at_least_an_octave(3.9, 4.1)
    assert high / low == pytest.approx(2) and low * high == pytest.approx(3.9 * 4.1)
    assert len(plots.perplexity_ticks((low, high))) >= 3


# ---------------------------------------------------------------------------------------------------------
# heads.py, window.py


def test_a_head_without_output_is_a_head_without_weights():
    """Its columns of c_proj set to zero do the same; afterwards the model is as it was."""
    model = tiny()
    idx = torch.randint(256, (1, 30))
    whole = model.hidden(idx)
    with heads.without_head(model, layer=1, head=0):
        ablated = model.hidden(idx)
    assert torch.equal(model.hidden(idx), whole)
    assert not torch.allclose(ablated, whole)
    with torch.no_grad():
        model.blocks[1].attn.c_proj.weight[:, :16] = 0
    assert torch.allclose(model.hidden(idx), ablated, atol=1e-6)


def test_each_head_is_ablated_once(run, monkeypatch, tmp_path, capsys):
    """With an evaluation that succeeds unless the second head of the first layer is gone."""

    def evaluate(model, encoding, length, trials):
        seen = {}
        layer = model.blocks[0].attn.c_proj
        hook = layer.register_forward_hook(lambda module, inputs, output: seen.update(y=inputs[0]))
        model.hidden(torch.arange(9)[None])
        hook.remove()
        return [seen["y"][..., 16:].any().item()] * trials

    monkeypatch.setattr(heads.passkey, "evaluate", evaluate)
    arguments = [run, "--trials", 3, "--lengths", 128, "--json", tmp_path / "heads.json", "--device=cpu"]
    call(monkeypatch, heads, *arguments)
    [found] = json.loads((tmp_path / "heads.json").read_text())["results"]
    assert found["whole"] == 1 and found["without"] == [[1, 0], [1, 1]] and found["length"] == 128
    assert capsys.readouterr().out.splitlines()[2].split() == ["layer", "0", "100.0%", "0.0%"]


def test_a_layer_that_sees_only_its_last_keys():
    """Up to N nothing changes; past it only that layer does, and afterwards the model is as it was."""
    model = tiny()
    idx = torch.randint(256, (1, 200))  # N is 128
    whole = model.hidden(idx)
    with heads.near_alone(model, layer=1):
        near = model.hidden(idx)
    assert torch.equal(model.hidden(idx), whole)
    assert torch.allclose(near[:, :128], whole[:, :128], atol=1e-5)
    assert not torch.allclose(near[:, 128:], whole[:, 128:], atol=1e-5)
    found = heads.ablate(model, BYTES, 128, trials=2), heads.ablate(model, BYTES, 160, trials=2)
    assert [len(each["near_alone"]) for each in found] == [0, 2]


def test_a_window_that_a_layer_was_trained_with_is_not_widened(run, monkeypatch):
    """Neither by heads.py, which holds one layer after another to N keys, nor by window.py."""
    model = tiny(local_window=5)
    with heads.near_alone(model, layer=0):
        assert [block.attn.window for block in model.blocks] == [5, 0]
    with heads.near_alone(model, layer=1):
        assert [block.attn.window for block in model.blocks] == [5, 128]

    windows = []

    def record(model, *args):
        windows.append([block.attn.window for block in model.blocks])
        return torch.ones(1)

    monkeypatch.setattr(window, "load_checkpoint", lambda *args: (model, load_checkpoint(*args)[1]))
    monkeypatch.setattr(window.perplexity, "token_losses", record)
    call(monkeypatch, window, run, "--tokens", 2048, "--device=cpu")
    assert windows[::5] == [[5, 0], [5, 0], [5, 0], [5, 128]]


def test_a_window_acts_on_its_layers_past_n(run, monkeypatch, tmp_path):
    call(monkeypatch, window, run, "--tokens", 2048, "--json", tmp_path / "window.json", "--device=cpu")
    [found] = json.loads((tmp_path / "window.json").read_text())["results"]
    assert found["lengths"] == [128, 256, 512, 1024, 2048]
    at_n = [found[keys][0] for keys in window.WINDOWS]
    assert at_n == pytest.approx(4 * at_n[:1], rel=1e-5)
    everything, first, every_other, near = (found[keys][4] for keys in window.WINDOWS)
    assert len({f"{value:.5g}" for value in (everything, first, near)}) == 3
    assert first == every_other  # the model has two layers


@pytest.mark.parametrize("script", [window, spectrum], ids=["window", "spectrum"])
def test_another_corpus_under_the_same_name_is_refused(script, run, monkeypatch):
    path = Path(run).parent / "corpus" / "meta.json"
    path.write_text(path.read_text().replace('"sha256": "0"', '"sha256": "1"'))
    with pytest.raises(SystemExit, match="another corpus"):
        call(monkeypatch, script, run, "--device=cpu")


# ---------------------------------------------------------------------------------------------------------
# clip.py


def test_frequencies_under_the_floor_are_zero_and_come_back():
    model = tiny(pos="rope")
    before = model.blocks[1].attn.pos.frequencies.clone()
    floor = before[3].item()
    with clip.clipped(model, floor):
        for block in model.blocks:
            frequencies = block.attn.pos.frequencies
            assert torch.equal(frequencies[:4], before[:4])
            assert not frequencies[4:].any()
    assert torch.equal(model.blocks[1].attn.pos.frequencies, before)


def test_rope_without_its_frequencies_is_nope():
    idx = torch.randint(256, (1, 200))
    torch.manual_seed(0)
    rope = tiny(pos="rope")
    torch.manual_seed(0)
    nope = tiny(pos="nope")
    assert not torch.allclose(rope.hidden(idx), nope.hidden(idx), atol=1e-4)
    with clip.clipped(rope, math.inf):
        assert torch.allclose(rope.hidden(idx), nope.hidden(idx), atol=1e-5)


def test_every_floor_is_measured_and_the_first_is_the_model(run, monkeypatch, tmp_path):
    """With a passkey accuracy that tells how many frequencies of the last layer are left."""

    def count(model, *args):
        return [model.blocks[1].attn.pos.frequencies.count_nonzero().item() / 8]

    checkpoint = load_checkpoint(run, CPU)[1]
    monkeypatch.setattr(clip, "load_checkpoint", lambda *args: (tiny(pos="rope"), checkpoint))
    monkeypatch.setattr(clip.passkey, "evaluate", count)
    monkeypatch.setattr(clip.perplexity, "token_losses", lambda *args: torch.zeros(1))
    call(monkeypatch, clip, run, "--json", tmp_path / "clip.json", "--device=cpu")
    found = json.loads((tmp_path / "clip.json").read_text())["results"]
    assert [each["floor"] for each in found] == list(clip.FLOORS)
    omega = RoPE(GPTConfig(**SHAPE, pos="rope")).frequencies
    for each in found:
        left = (omega >= each["floor"] * 2 * math.pi / 128).sum().item()
        assert each["accuracy"] == 3 * [left / 8] and each["perplexity"] == 3 * [1.0]
        assert each["lengths"] == [128, 256, 512]
    assert len({tuple(each["accuracy"]) for each in found}) > 2


@pytest.mark.parametrize("option", ["--lengths", "--tokens", "--trials"])
def test_clip_of_nothing_is_one_line(option, run, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, clip, run, option, 0)
    assert "must be above 0" in capsys.readouterr().err


def test_clip_is_for_rope(run, monkeypatch):
    with pytest.raises(SystemExit, match="not trained with --pos=rope"):
        call(monkeypatch, clip, run, "--device=cpu")


# ---------------------------------------------------------------------------------------------------------
# spectrum.py: distortion and truncation


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_a_power_makes_exactly_the_combinations_of_its_degree(degree):
    """Lemma 1: x^p of two waves holds jω1 + kω2 with |j| + |k| = p, p - 2, ..., and nothing else."""
    found = spectrum.distortion(lambda x: x**degree)
    expected = set()
    for j in range(-degree, degree + 1):
        for k in range(-degree, degree + 1):
            if abs(j) + abs(k) in range(degree, -1, -2):
                expected.add(abs(37 * j + 101 * k))
    assert set(torch.nonzero(found > 1e-9).flatten().tolist()) == expected


def test_amplitudes_are_those_of_equation_18():
    square = spectrum.distortion(torch.square)
    waves = torch.nonzero(square > 1e-9).flatten().tolist()
    found = {spectrum.combination(turn): round(square[turn].item(), 9) for turn in waves}
    assert found == {(0, 0): 1.0, (2, 0): 0.5, (0, 2): 0.5, (1, -1): 1.0, (1, 1): 1.0}


def test_silu_makes_combinations_and_nothing_else():
    silu = spectrum.distortion(F.silu)
    peaks = torch.nonzero(silu > 1e-4).flatten().tolist()
    assert len(peaks) > 10 and all(spectrum.combination(turn) for turn in peaks)
    assert spectrum.combination(1, (16, 32)) is None  # every combination of these is a multiple of 16


def test_a_frequency_leaks_more_the_fewer_turns_it_makes():
    """Eq. 10, and the closed form of the share: the energy of sinc² between ±turns/2 bins."""
    shares = [spectrum.truncation(turns) for turns in (0.1, 0.5, 0.9, 1, 2, 8, 32)]
    assert shares == sorted(shares) and shares[0] < 0.11 and shares[-1] > 0.99
    for turns in (0.5, 1, 4):
        x = np.linspace(-turns / 2, turns / 2, 20_001)
        assert spectrum.truncation(turns) == pytest.approx(np.mean(np.sinc(x) ** 2) * turns, abs=0.01)


# ---------------------------------------------------------------------------------------------------------
# spectrum.py: the expected score


@pytest.mark.parametrize("name", [name for name, encoding in POSITIONS.items() if issubclass(encoding, RoPE)])
def test_the_expected_score_is_that_of_sampled_q_and_k(name):
    """The closed form against the mean over Gaussian q and k that the encoding itself has turned."""
    encoding = POSITIONS[name](GPTConfig(n_head=2, n_embd=64, block_size=64, pos=name))
    found = spectrum.score([encoding], [0, 5, 40], shifts=2)
    samples = 10_000
    q = torch.randn(samples, 2, 1, 32) + 1
    k = torch.randn(samples, 2, 1, 32) + 1
    for distance, expected in zip(found["distances"], found["score"]):
        scores = []
        for shift in range(2):
            turned_q, _ = encoding.encode(q, q, shift + distance)
            _, turned_k = encoding.encode(k, k, shift)
            scores.append((turned_q * turned_k).sum(dim=-1).mean().item())
        assert np.mean(scores) == pytest.approx(expected, abs=4 * math.sqrt(96 / samples))


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
    cosines = [math.cos(64 * 1e4 ** (-m / 32)) for m in range(32)]
    assert found["score"][1] == pytest.approx(2 * sum(cosines), abs=0.01)
    assert found["spread"] == pytest.approx([0, 0], abs=0.01)


# ---------------------------------------------------------------------------------------------------------
# spectrum.py: sizes of q and k


def test_turns_under_one_are_under_the_floor():
    config = GPTConfig(n_head=1, n_embd=64, block_size=512)
    turns = spectrum.turns_in_training(config)
    kept = len(POSITIONS["fope"](config).frequencies)
    assert (turns >= 1).tolist() == [True] * kept + [False] * (32 - kept)
    assert turns[0] == pytest.approx(512 / (2 * math.pi))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_sizes_are_those_of_q_and_k_before_the_rotation(qk_norm):
    model = tiny(qk_norm=qk_norm)
    idx = torch.arange(60).view(2, 30)
    found = spectrum.measure_sizes(model, idx)
    assert found.shape == (2, 2, 2, 8)  # layers, q and k, heads, pairs
    block = model.blocks[0]
    qkv = block.attn.c_attn(block.norm_1(model.wte(idx))).view(60, 3, 2, 16)
    for i in range(2):
        x = qkv[:, i]
        if qk_norm:
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        squares = (x[..., :8].square() + x[..., 8:].square()).mean(dim=0) / 2  # m is paired with m + 8
        assert torch.allclose(found[0, i], squares.sqrt(), rtol=1e-4)
    assert not any("encode" in vars(block.attn.pos) for block in model.blocks)


def test_sizes_by_groups_of_frequencies():
    turns = torch.tensor([20.0, 5.0, 1.0, 0.9])
    sizes = torch.tensor([[1.0, 2.0, 4.0, 8.0], [3.0, 3.0, 3.0, 3.0]])[None, :, None].repeat(3, 1, 2, 1)
    sizes[0, 0, 0, 3] = 0
    q, k = spectrum.group_sizes(sizes, turns)
    assert q == [None, pytest.approx(8 * math.sqrt(5 / 6)), 4, 2, 1]
    assert k == [None, 3, 3, 3, 3]


def test_spectrum_from_the_command_line(tmp_path, run, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(
        spectrum.report_score.__globals__, "GPTConfig", lambda pos: GPTConfig(64, 32, pos=pos)
    )
    call(
        monkeypatch,
        spectrum,
        run,
        "--json",
        tmp_path / "s.json",
        "--plot",
        tmp_path / "s.png",
        "--device=cpu",
    )
    found = json.loads((tmp_path / "s.json").read_text())
    assert found.keys() == {"distortion", "truncation", "score", "sizes"}
    assert found["score"]["fope, 60M"]["deviation"] > 0.01 > found["score"]["rope, 60M"]["deviation"]
    assert list(found["sizes"]) == [run]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "fope, 60M" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------
# bench.py at toy size; no number is judged but for being one


@pytest.fixture
def setup(monkeypatch) -> bench.Setup:
    shape = {"vocab_size": 320, "block_size": 128, "n_layer": 1, "n_head": 2, "n_embd": 32}
    recipe = TrainConfig(**shape | {"block_size": 512}, batch_size=1)
    monkeypatch.setattr(bench, "tiny_recipe", lambda: recipe)
    monkeypatch.setattr(bench, "MULTIPLES", (0.25, 0.5))
    return bench.Setup(CPU, GPTConfig(**shape), 2, rounds=1, steps=1, trials=2, tokens=512, new_tokens=3)


def check(rows: dict[str, dict[str, float]], *columns: str) -> None:
    assert rows
    for row in rows.values():
        assert set(columns) <= row.keys()
        assert all(0 < value < math.inf for value in row.values())


def test_bench_training(setup):
    rows = bench.time_training(setup)
    check(rows, "tokens/s", "time / rope", "speed / GPT-2", "speed / equal count")
    assert rows.keys() == {*POSITIONS, "GPT-2", "GPT-2, equal count"}
    assert rows["rope"]["time / rope"] == rows["GPT-2"]["speed / GPT-2"] == 1
    counts = {name: row["parameters"] for name, row in rows.items()}
    assert counts["fope"] == counts["GPT-2, equal count"] > counts["GPT-2"]


NANOGPT = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        C = config.n_embd
        block = nn.ModuleDict({"mlp": nn.Module()})
        block.mlp.c_fc = nn.Linear(C, 4 * C, bias=config.bias)
        block.mlp.c_proj = nn.Linear(4 * C, C, bias=config.bias)
        wte = nn.Embedding(config.vocab_size, C)
        wpe = nn.Embedding(config.block_size, C)
        self.transformer = nn.ModuleDict({"wte": wte, "wpe": wpe, "h": nn.ModuleList([block])})
        print("number of parameters")

    def forward(self, idx, targets):
        x = self.transformer.wte(idx)
        mlp = self.transformer.h[0].mlp
        x = mlp.c_proj(mlp.c_fc(x)) + self.transformer.wpe.weight
        return x, x.square().mean()
"""


def test_nanogpt_s_own_model_takes_part(setup, tmp_path, capsys):
    """With a stand-in for its model.py; the real one has the same names."""
    (tmp_path / "model.py").write_text(NANOGPT)
    setup.nanogpt = tmp_path
    rows = bench.time_training(setup)
    check(rows, "speed / nanoGPT")
    assert rows["nanoGPT"]["parameters"] == 320 * 32 + 8 * 32**2
    assert rows["nanoGPT, equal count"]["parameters"] == 320 * 32 + 12 * 32**2
    assert "number of parameters" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^error: no model.py of nanoGPT at"):
        bench.load_nanogpt(tmp_path / "elsewhere", setup.shape)


def test_the_baseline_is_gpt2():
    """Causal, with GPT-2's number of parameters: 12 C² and two norms a layer, one embedding, a last norm."""
    config = GPTConfig(vocab_size=64, block_size=16, n_layer=2, n_head=2, n_embd=32)
    model = bench.Baseline(config)
    assert bench.count(model) == 2 * (12 * 32**2 + 2 * 32) + 64 * 32 + 32
    idx = torch.randint(64, (1, 16))
    changed = idx.clone()
    changed[0, 9] = (idx[0, 9] + 1) % 64
    (a, _), (b, _) = model(idx, idx), model(changed, idx)
    assert torch.allclose(a[0, :9], b[0, :9], atol=1e-6) and not torch.allclose(a[0, 9:], b[0, 9:], atol=1e-2)


def test_mfu_counts_what_multiplies():
    """A product with m weights takes 6 m FLOPs a token in training; nanoGPT counts both embeddings."""
    config = GPTConfig(vocab_size=64, block_size=16, n_layer=2, n_head=2, n_embd=32)
    model = GPT(config)
    weights = sum(parameter.numel() for parameter in model.parameters())
    attention = 12 * 2 * 32 * 16
    found = bench.mfu(model, tokens_per_s=10.0, peak=1e9)
    assert found["MFU"] == pytest.approx(10 * (6 * (weights - 64 * 32) + attention) / 1e9)
    assert found["MFU, nanoGPT's count"] == pytest.approx(10 * (6 * weights + attention) / 1e9)
    baseline = bench.mfu(bench.Baseline(config), 10.0, 1e9)
    assert baseline["MFU"] == baseline["MFU, nanoGPT's count"]


def test_ratios_are_medians_of_the_rounds(monkeypatch):
    clock = iter([0, 2, 2, 3, 3, 13, 13, 33, 33, 35, 35, 36])  # a: 2, 20, 2 seconds; b: 1, 10, 1
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    calls = []
    contenders = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = bench.compare(contenders, rounds=3, device=CPU)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert times["a"].tolist() == [2, 20, 2] and times["b"].tolist() == [1, 10, 1]
    times["b"][0] = 100
    assert bench.ratio(times, "a", "b") == 2


def test_a_training_step_learns_with_both_optimizers(setup):
    for optimizer in ("adamw", "muon"):
        model = GPT(setup.shape)
        before = {name: weight.clone() for name, weight in model.state_dict().items() if "_coef" not in name}
        bench.training_step(model, 2, CPU, optimizer)()
        after = model.state_dict()
        assert not any(torch.equal(weight, after[name]) for name, weight in before.items())


def test_bench_optimizers(setup):
    for rows in bench.time_optimizers(setup).values():
        check(rows, "ms a step", "time / adamw")
        assert list(rows) == ["adamw", "muon", "torch's muon"] and rows["adamw"]["time / adamw"] == 1


def test_a_device_without_compiler_is_told(setup, monkeypatch, capsys):
    def in_new_process(call: str):
        code = "raise SystemExit('no compiler')" if "True" in call else "print(1)"
        return subprocess_result(code)

    def subprocess_result(code: str):
        command = [sys.executable, "-c", code]
        done = bench.subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    monkeypatch.setattr(bench, "in_new_process", in_new_process)
    assert bench.time_compile(setup) == {"error": "no compiler"}
    assert "torch.compile does not work here: no compiler" in capsys.readouterr().out


def test_a_compiled_step_is_compiled(setup, monkeypatch):
    compiled = []
    monkeypatch.setattr(GPT, "compile", lambda model: compiled.append(model.config.pos))
    check({"": bench.compiled_step("rope", False, "cpu", steps=1)}, "first step, s", "tokens/s", "MiB")
    assert compiled == []
    bench.compiled_step("rope", True, "cpu", steps=1)
    assert compiled == ["rope"]


def test_backward_passes_count_where_their_forward_passes_do():
    weight = torch.ones(3, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        turned = bench.labelled("rotation", torch.sin)(weight)
        turned.tanh().sum().backward()
    events = profiler.events()
    nodes = bench.label_nodes(events)
    labels = {event.name: bench.find_label(event, nodes) for event in events}
    assert labels["aten::sin"] == labels["SinBackward0"] == labels["aten::cos"] == "rotation"
    assert labels["aten::tanh"] == labels["TanhBackward0"] == labels["aten::tanh_backward"] == ""


def test_bench_parts_of_a_step(setup):
    found = bench.profile_parts(setup)
    assert list(found) == [*bench.PARTS, "Python, waiting", "peak"]
    for name in ("matrix products", "attention", "rotation", "norms", "optimizer"):
        check({name: found[name]}, "tiny, ms", "1 x 32, %")
    shares = [row["tiny, %"] for name, row in found.items() if name != "peak"]
    assert sum(shares) == pytest.approx(100)


def test_bench_evaluation_sampling_and_passkey(setup):
    check(bench.time_evaluation(setup), "s at 128", "s at 256", "s in all")
    check(bench.time_sampling(setup), "tokens/s", "speed / recomputed")
    check(bench.time_passkey(setup), "trials/s", "speed / generating")


def test_bench_corpus(setup, tmp_path):
    (tmp_path / "a.txt").write_text("eins zwei drei " * 100)
    (tmp_path / "b.txt").write_text("vier fünf sechs " * 100)
    rows = bench.time_corpus(setup, [tmp_path / "a.txt", tmp_path / "b.txt"])
    check(rows, "M characters/s", "speed / tiktoken")


def test_bench_memory(setup):
    setup.memory_lengths = (512,)
    check(bench.measure_memory(setup, names=("rope",)), "MiB at 512")


def test_bench_startup(setup, monkeypatch):
    """The processes themselves are left out here: seconds each, and other tests start train.py."""
    commands = []
    monkeypatch.setattr(bench.subprocess, "run", lambda command, **options: commands.append(command[1:]))
    check(bench.time_startup(setup), "time / torch")
    assert commands == [["train.py", "--help"], ["-c", "import torch"]]


def test_bench_runs_the_sections_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SECTIONS", {"one": lambda setup: {"rounds": setup.rounds}, "two": None})
    call(monkeypatch, bench, "one", "--rounds", 7, "--json", tmp_path / "b.json", "--device=cpu")
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["one"] == {"rounds": 7} and "two" not in found and found["torch"] == torch.__version__
    with pytest.raises(SystemExit, match=r"^error: no section oen; there are one, two"):
        call(monkeypatch, bench, "oen")


def test_the_tiny_recipe_is_that_of_the_config():
    config = runpy.run_path(str(bench.ROOT / "config" / "fope_tiny.py"))
    recipe = bench.tiny_recipe()
    for name in ("block_size", "n_layer", "n_head", "n_embd", "batch_size"):
        assert getattr(recipe, name) == config[name]
    assert isinstance(GPT(recipe).lm_head, nn.Linear) and recipe.vocab_size == 320


# ---------------------------------------------------------------------------------------------------------
# results/tiny/run_all.py


def test_a_run_whose_log_ends_in_half_a_line_is_not_trained(tmp_path):
    is_trained = runpy.run_path("results/tiny/run_all.py")["is_trained"]
    (tmp_path / "ckpt.pt").touch()
    (tmp_path / "config.json").write_text('{"max_iters": 2}')
    whole = '{"iter": 1, "loss": 5.1}\n{"iter": 2, "val_loss": 5.0}\n'
    for log, trained in ((whole, True), (whole[:-9], False), (whole.splitlines()[0], False)):
        (tmp_path / "log.jsonl").write_text(log)
        assert is_trained(tmp_path) == trained
