"""
One GPU and two, mostly without one: python -m pytest tests/test_cuda.py

Without a CUDA card the scripts run up to where the driver is missing. Only the driver is stubbed: PyTorch
checks its arguments as always. The model walks on the "meta" device, which has shapes and no numbers, and
where a tensor made on the CPU by mistake is an error. The last test needs a card.
"""

import contextlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from runs import make_model, make_tokens, write_corpus, write_run

import passkey
import perplexity
import sample
import train
from model import GPT, POSITIONS, GPTConfig, autocast, pick_device

HAS_CARD = torch.cuda.is_available()
simulated = pytest.mark.skipif(HAS_CARD, reason="there is a card, and the driver would answer")
# What PyTorch says when a tensor is to be made on a card that is not there
NO_DRIVER = pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA")
each_name = pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
DTYPES = {(9, 0): torch.bfloat16, (7, 5): torch.float16}  # by compute capability, of an H100 and of a T4
each_card = pytest.mark.parametrize("card", DTYPES, indirect=True, ids=["H100", "T4"])
SMALL = {
    "block_size": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "batch_size": 4,
    "eval_tokens": 128,
    "log_interval": 1,
}


@pytest.fixture
def card(request, monkeypatch):
    """Two cards of a compute capability; `used` is the one that set_device chose, `group` that of NCCL."""
    capability = getattr(request, "param", (9, 0))
    seen = SimpleNamespace(capability=capability, used=None, group=None)

    def set_device(index):
        seen.used = index

    def init_process_group(backend, device_id):
        assert backend == "nccl"
        seen.group = device_id

    def value(result):
        def stub(*arguments, **settings):
            return result

        return stub

    monkeypatch.setattr(torch.cuda, "is_available", value(True))
    monkeypatch.setattr(torch.cuda, "device_count", value(2))
    monkeypatch.setattr(torch.cuda, "get_device_capability", value(capability))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", value(capability >= (8, 0)))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", value(torch.device("cuda")))
    monkeypatch.setattr(torch._C, "_cuda_setDevice", set_device, raising=False)
    monkeypatch.setattr(dist, "init_process_group", init_process_group)
    monkeypatch.setattr(dist, "barrier", value(None))
    return seen


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus", make_tokens())


def configure(corpus, out_dir, **settings) -> train.TrainConfig:
    """A small run; its settings go through the command line."""
    settings = SMALL | {"dataset": corpus, "out_dir": out_dir} | settings
    (corpus / "small.py").write_text("")  # in place of the default configuration
    return train.parse_config([str(corpus / "small.py")] + [f"--{key}={settings[key]}" for key in settings])


@simulated
@each_name
@each_card
def test_training_gets_as_far_as_the_driver(card, name, corpus, tmp_path, monkeypatch, capsys):
    """Past the choice of device and number format, model and optimizer, to the first tensor of a step."""

    def stay(model, device):
        return model

    monkeypatch.setattr(GPT, "to", stay)  # here alone the missing driver is passed over
    with NO_DRIVER:
        train.train(configure(corpus, tmp_path / "out", device=name))
    assert card.used == 0
    assert f"1 x {pick_device(name)}, {DTYPES[card.capability]}" in capsys.readouterr().out


@simulated
@each_name
@pytest.mark.parametrize("local_rank", [0, 1])
def test_each_process_takes_a_card_of_its_own(card, local_rank, name, corpus, tmp_path, monkeypatch):
    """As torchrun starts two: the rank on this machine is the card's number, for NCCL, too."""
    monkeypatch.setenv("RANK", str(2 + local_rank))
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setenv("WORLD_SIZE", "4")
    with NO_DRIVER:
        train.train(configure(corpus, tmp_path / "out", device=name, gradient_accumulation_steps=4))
    assert card.used == local_rank
    assert card.group == torch.device("cuda", local_rank)


@simulated
@each_name
@pytest.mark.parametrize("script", [perplexity, passkey, sample], ids=["perplexity", "passkey", "sample"])
def test_scripts_get_as_far_as_the_driver(card, name, script, corpus, tmp_path, monkeypatch):
    """To where the model moves to the card."""
    run = write_run(tmp_path / "tiny", make_model(), corpus)
    monkeypatch.setattr(sys, "argv", [script.__name__, str(run), "--device", name])
    with NO_DRIVER:
        script.main()


@simulated
@each_card
def test_number_format(card):
    """bfloat16 where the card multiplies it, else float16; another accelerator than the card is none."""
    with autocast(pick_device()) as casting:
        assert casting.device == "cuda"
        assert casting.fast_dtype == DTYPES[card.capability]
    with pytest.raises(SystemExit, match="mps"):
        pick_device("mps")


@pytest.mark.parametrize("pos", POSITIONS)
def test_no_tensor_is_made_on_the_cpu(pos, monkeypatch):
    """Forward, backward, with a cache and with a window, log-n and QK norm."""

    def no_autocast(*arguments, **settings):
        return contextlib.nullcontext()

    monkeypatch.setattr(torch, "autocast", no_autocast)  # which does not know the device meta
    settings = {"logn": True, "qk_norm": True, "local_window": 3, "yarn_scale": 2.0}
    model = GPT(GPTConfig(64, 16, 2, 2, 32, pos=pos, **settings)).to("meta")
    idx = torch.zeros(2, 48, dtype=torch.int64, device="meta")
    logits, loss = model(idx, idx)
    loss.backward()
    assert logits.device.type == loss.device.type == "meta"
    assert all(parameter.grad.device.type == "meta" for parameter in model.parameters())
    cache = [{} for _ in model.blocks]
    for part in idx.split([30, 17, 1], dim=1):
        assert model.hidden(part, cache).device.type == "meta"
    assert model.generate(idx, 3, top_k=4).shape == (2, 51)


def train_and_evaluate(device: str, corpus, tmp_path, monkeypatch, **settings):
    """Ten steps, ten more after --resume, a sample, perplexity and passkeys, with one key and with four."""
    out = tmp_path / "out"
    settings |= {"device": device, "eval_interval": 10, "warmup_iters": 2}
    train.train(configure(corpus, out, max_iters=10, **settings))
    train.train(configure(corpus, out, max_iters=20, resume=True, **settings))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 20 and losses[-1] < losses[0]
    calls = [
        (sample, "--max_new_tokens 20"),
        (perplexity, "--lengths 16 64 256"),
        (passkey, "--lengths 256 --trials 10"),
        (passkey, "--lengths 600 --trials 10 --keys 4 --filler text"),
    ]
    for script, arguments in calls:
        monkeypatch.setattr(sys, "argv", [script.__name__, str(out), "--device", device, *arguments.split()])
        script.main()


@pytest.mark.skipif(not HAS_CARD, reason="needs a CUDA card")
@pytest.mark.parametrize("pos", ["fope", "alibi"])
def test_on_a_card(pos, corpus, tmp_path, monkeypatch, capsys):
    """A compiled run in half precision, resumed, sampled from and evaluated."""
    train_and_evaluate("cuda", corpus, tmp_path, monkeypatch, pos=pos, compile=True, learning_rate=0.01)
    assert "perplexity" in capsys.readouterr().out
