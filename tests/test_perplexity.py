"""perplexity.py against direct computation: which tokens it scores, how it cuts and adds them up, and its errors."""

import json
import math
import os
import shutil
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

import perplexity
from model import GPT, GPTConfig, write_whole

VAL_TOKENS = 1001


@pytest.fixture
def model():
    """Weights large enough that a loss depends on the context."""
    model = GPT(GPTConfig(vocab_size=257, block_size=16, n_layer=2, n_head=2, n_embd=16, pos="rope")).eval()
    for parameter in model.parameters():
        parameter.data *= 8 if parameter.dim() > 1 else 1
    return model


@pytest.fixture
def corpus(tmp_path):
    """A directory as data.prepare writes it; the split gets easier towards its end, so it matters what is scored."""
    rng, path = np.random.default_rng(0), tmp_path / "corpus"
    path.mkdir()
    tokens = rng.integers(256 - np.arange(VAL_TOKENS) // 5, dtype=np.uint16)
    tokens.tofile(path / "val.bin")
    meta = {"name": "corpus", "encoding": "bytes", "vocab_size": 257, "train_tokens": 0, "val_tokens": VAL_TOKENS}
    (path / "meta.json").write_text(json.dumps(meta))
    return path


@pytest.fixture
def run(tmp_path, model, corpus):
    """The directory of a run, as train.py writes it."""
    path = tmp_path / "tiny"
    path.mkdir()
    meta = json.loads((corpus / "meta.json").read_text())
    config = asdict(model.config) | {"dataset": str(corpus), "seed": 3}
    torch.save({"model": model.state_dict(), "config": config, "meta": meta, "iter": 7}, path / "ckpt.pt")
    return path


def call(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["perplexity.py", *map(str, arguments), "--device", "cpu"])
    perplexity.main()


@pytest.fixture(autouse=True)
def autocasts(monkeypatch):
    """float32 whatever the machine has, and the devices that were asked for."""
    devices = []
    no_autocast = torch.autocast("cpu", enabled=False)
    monkeypatch.setattr(perplexity, "autocast", lambda device: devices.append(device.type) or no_autocast)
    return devices


def direct(model, tokens, length):
    """Mean loss of each chunk, with the plain forward pass: (chunks,)."""
    tokens = torch.from_numpy(tokens.astype(np.int64))
    starts = range(0, len(tokens) - 1, length)
    with torch.no_grad():
        return torch.stack(
            [model(tokens[None, s : s + length], tokens[None, s + 1 : s + length + 1])[1] for s in starts]
        )


@pytest.mark.parametrize("length", [1, 6, 16, 96])
def test_losses_are_those_of_a_direct_computation(model, corpus, length):
    tokens = np.fromfile(corpus / "val.bin", dtype=np.uint16)[: 96 * 2 + 1]
    losses = perplexity.token_losses(model, tokens, length)
    assert losses.shape == (96 * 2,)
    torch.testing.assert_close(losses.view(-1, length).mean(dim=1).float(), direct(model, tokens, length))


def test_slices_hold_few_logits_and_change_nothing(model, corpus, monkeypatch):
    tokens = np.fromfile(corpus / "val.bin", dtype=np.uint16)[: 96 * 4 + 1]
    whole = perplexity.token_losses(model, tokens, 96)
    held, passed = [], []
    model.lm_head.register_forward_hook(lambda module, args, logits: held.append(logits.numel()))
    model.wte.register_forward_hook(lambda module, args, x: passed.append(x.shape[:2].numel()))
    monkeypatch.setattr(perplexity, "MAX_LOGITS", 257 * 10 + 5)
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 2 * 96 + 7)
    torch.testing.assert_close(perplexity.token_losses(model, tokens, 96), whole)
    assert max(held) == 257 * 10 and sum(held) == 257 * len(whole)
    assert passed == [2 * 96] * 2


def test_a_run_is_measured_on_the_same_tokens_at_every_length(
    run, model, corpus, tmp_path, monkeypatch, capsys, autocasts
):
    scored, token_losses = [], perplexity.token_losses
    monkeypatch.setattr(perplexity, "token_losses", lambda m, t, n: scored.append(t) or token_losses(m, t, n))
    call(monkeypatch, run, "--lengths", 32, 12, 16, "--tokens", 470, "--json", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    (numbers,) = result["results"]
    tokens = np.fromfile(corpus / "val.bin", dtype=np.uint16)[:385]  # 4 times 96, what 12, 16 and 32 all divide
    assert numbers["tokens"] == 384 and len(scored) == 3
    assert all(np.array_equal(part, tokens) for part in scored)
    expected = [direct(model, tokens, length).mean().exp().item() for length in (12, 16, 32)]
    assert numbers["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert result["lengths"] == [12, 16, 32] and result["device"] == "cpu" and result["torch"] == torch.__version__
    assert numbers["checkpoint"] == str(run) and numbers["iter"] == 7
    assert numbers["config"]["dataset"] == str(corpus) and numbers["config"]["seed"] == 3
    loss = np.array(numbers["loss_by_position"])
    assert np.average(loss, weights=[12, 4, 16]) == pytest.approx(math.log(expected[-1]), rel=1e-5)
    first = perplexity.token_losses(model, tokens, 32).view(-1, 32)[:, :12].mean().item()
    assert loss[0] == pytest.approx(first, rel=1e-5)

    assert autocasts == ["cpu"]
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["perplexity", "12", "16", "32"] and len(header) == len(row)
    assert [float(cell.split("±")[0]) for cell in row.split()[1:]] == pytest.approx(expected, rel=1e-2)


def test_default_lengths_fit_the_terminal_and_leave_the_run_alone(run, tmp_path, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in run.iterdir()}
    (tmp_path / "out.json").write_text("old")
    call(monkeypatch, run, run, "--json", tmp_path / "out.json")
    out = capsys.readouterr().out
    assert out.split()[:7] == ["perplexity", "8", "16", "32", "64", "128", "256"]
    assert all(len(line) <= 80 for line in out.splitlines() if "corpus" not in line)
    assert len(json.loads((tmp_path / "out.json").read_text())["results"]) == 2
    assert before == {path: path.read_bytes() for path in run.iterdir()}
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_is_replaced_by_a_whole_one_or_not_at_all(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert path.read_text() == "old"
    write_whole(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_standard_error_is_that_of_independent_stretches():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2048, 16, generator=generator, dtype=torch.float64)
    assert perplexity.standard_error(noise) == pytest.approx(1 / math.sqrt(2048 * 16), rel=0.4)
    # Every 64 chunks alike, as in one document: 32 independent values, not 2048.
    documents = noise[:32, :1].repeat_interleave(64, dim=0).expand(-1, 16)
    assert perplexity.standard_error(documents) == pytest.approx(noise[:32, 0].std().item() / math.sqrt(32))
    # A loss that falls along every chunk in the same way is no uncertainty.
    assert perplexity.standard_error(torch.arange(16.0).expand(4, 16)) == 0
    assert perplexity.standard_error(noise[:2]) > 0


def test_logn_scale_acts_past_the_training_length_only(run, tmp_path, monkeypatch):
    numbers = []
    for scale in ((), ("--logn_scale", 1)):
        call(monkeypatch, run, *scale, "--lengths", 16, 64, "--json", tmp_path / "out.json")
        numbers += json.loads((tmp_path / "out.json").read_text())["results"]
    plain, scaled = (run["perplexity"] for run in numbers)
    assert plain[0] == pytest.approx(scaled[0], rel=1e-6) and plain[1] != pytest.approx(scaled[1], rel=1e-4)
    assert [run["config"]["logn_scale"] for run in numbers] == [0, 1]


def test_another_corpus_takes_the_place_of_the_runs_own(run, corpus, tmp_path, monkeypatch):
    other = tmp_path / "other"
    corpus.rename(other)
    call(monkeypatch, run, "--lengths", 8, "--dataset", other, "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["results"][0]["dataset"] == str(other)


def test_runs_scored_on_different_text_are_told_apart(run, corpus, tmp_path, monkeypatch, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    call(monkeypatch, run, other)
    assert "warning" not in capsys.readouterr().out
    checkpoint = torch.load(other / "ckpt.pt", weights_only=True)
    checkpoint["config"]["dataset"] = str(shutil.copytree(corpus, tmp_path / "other corpus"))
    torch.save(checkpoint, other / "ckpt.pt")
    call(monkeypatch, run, other)
    assert "warning: these runs were scored on different text" in capsys.readouterr().out


def test_plot(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    call(monkeypatch, run, run, "--lengths", 8, 16, "--plot", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_is_one_line(run, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(perplexity, "token_losses", stop)
    with pytest.raises(SystemExit, match=r"^error: stopped by KeyboardInterrupt$"):
        call(monkeypatch, run, run)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--lengths", "0"], "at least 1"),
        (["--lengths", "-8"], "--lengths"),
        (["--lengths", "long"], "long"),
        (["--lengths", "8", "512"], f"{VAL_TOKENS:,}"),
        (["--tokens", "0"], "--tokens"),
        (["--logn_scale", "-1"], "--logn_scale"),
        (["--dataset", "/nowhere"], "nowhere"),
        (["--json", "nowhere/out.json"], "nowhere"),
        (["--plot", "."], "--plot"),
        (["nowhere"], "nowhere"),
        (["--tokns", "9"], "--tokns"),
    ],
)
def test_errors_are_one_line_and_come_before_the_work(run, monkeypatch, arguments, says):
    monkeypatch.setattr(perplexity, "token_losses", None)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, run, *arguments)
    assert str(stop.value).startswith("error: ") and says in str(stop.value) and "\n" not in str(stop.value)


def test_tokens_past_the_vocabulary_are_an_error(run, corpus, monkeypatch):
    np.full(VAL_TOKENS, 257, dtype=np.uint16).tofile(corpus / "val.bin")
    with pytest.raises(SystemExit, match=r"^error: [^\n]*token 257[^\n]*$"):
        call(monkeypatch, run, "--lengths", 8)


@pytest.mark.parametrize("count, enough", [(1000, False), (1001, True)])
def test_two_chunks_and_a_token_are_the_least(count, enough, run, corpus, monkeypatch, capsys):
    meta = json.loads((corpus / "meta.json").read_text())
    (corpus / "meta.json").write_text(json.dumps(meta | {"val_tokens": count}))
    os.truncate(corpus / "val.bin", 2 * count)
    if enough:
        return call(monkeypatch, run, "--lengths", 500)
    with pytest.raises(SystemExit, match=r"^error: .*1,001.*1,000[^\n]*$"):
        call(monkeypatch, run, "--lengths", 500)


def test_a_corpus_in_another_encoding_is_an_error(run, corpus, monkeypatch):
    meta = json.loads((corpus / "meta.json").read_text())
    (corpus / "meta.json").write_text(json.dumps(meta | {"encoding": "gpt2"}))
    with pytest.raises(SystemExit, match=r"^error: .*encoding, bytes$"):
        call(monkeypatch, run)


def test_a_plot_without_matplotlib_stops_before_the_work(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "analysis.plots", raising=False)
    monkeypatch.setattr(perplexity, "token_losses", None)
    with pytest.raises(SystemExit, match="pip install matplotlib"):
        call(monkeypatch, run, "--plot", "out.png")
