"""The experiments of exercises 6, 8 and 9: given, nothing to fill in. Each exercise's file runs its own:

python -m assignments.ex06_relative
python -m assignments.ex08_break out/fope_tiny
python -m assignments.ex09_yarn out/rope_tiny
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch

import data
from analysis.window import own_text
from model import GPT, POSITIONS, FoPE, GPTConfig, RoPE, autocast, load_checkpoint, pick_device
from passkey import evaluate
from perplexity import spread, token_losses

TOKENS = 32_768  # of the validation split, scored at every length
TRIALS = 100  # passkey prompts at every length: accuracies are good to about ±10 %


def errors(relative_error: Callable) -> None:
    """Exercise 6: the error of every encoding, then FoPE's for growing σ, the same draw scaled."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 8, 64, 64, generator=generator)
    for name, encoding in POSITIONS.items():
        pos = encoding(GPTConfig(pos=name, fope_sigma=0.0))
        print(f"{name:8} σ = 0       error {relative_error(pos, q, k, 512):.4f}")
    for init in ("normal", "xavier"):
        for sigma in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
            torch.manual_seed(0)
            pos = FoPE(GPTConfig(fope_sigma=sigma, fope_init=init))
            print(f"{init:8} σ = {sigma:<7} error {relative_error(pos, q, k, 512):.4f}")


def damages(redraw: Callable, pad_sine_with_ones: Callable, floor_from: Callable) -> None:
    """Exercise 8: the curves of a FoPE run, whole and broken in each of the ways."""
    model, checkpoint = load(FoPE)
    N = model.config.block_size
    names = ("intact", "redraw", "pad_sine_with_ones", "floor_from 2N", "floor_from 8N")
    models = {name: deepcopy(model) for name in names}
    redraw(models["redraw"])
    pad_sine_with_ones(models["pad_sine_with_ones"])
    floor_from(models["floor_from 2N"], 2 * N)
    floor_from(models["floor_from 8N"], 8 * N)
    print_curves(models, checkpoint)


def interpolations(interpolated: type[RoPE]) -> None:
    """Exercise 9: the curves of a RoPE run, of the same weights interpolated, and of the same with YaRN."""
    POSITIONS["interpolated"] = interpolated
    model, checkpoint = load(RoPE)
    configs = {
        "interpolated": replace(model.config, pos="interpolated"),
        "YaRN": replace(model.config, yarn_scale=interpolated.scale),
    }
    models = {"RoPE": model}
    for name, config in configs.items():
        models[name] = GPT(config).to(model.lm_head.weight.device).eval()
        models[name].load_state_dict(model.state_dict())
    print_curves(models, checkpoint)


def load(encoding: type) -> tuple[GPT, dict]:
    """Model and checkpoint of the run on the command line. SystemExit unless it is one with that encoding."""
    if len(sys.argv) != 2:
        raise SystemExit("error: name one run's directory, such as out/fope_tiny")
    model, checkpoint = load_checkpoint(sys.argv[1], pick_device())
    if type(model.blocks[0].attn.pos) is not encoding:
        raise SystemExit(
            f"error: {sys.argv[1]} holds a {model.config.pos} run; this needs {encoding.__name__}"
        )
    return model, checkpoint


def print_curves(models: dict[str, GPT], checkpoint: dict) -> None:
    """Perplexity and passkey accuracy of each model, from 1 to 8 times the training length."""
    N = checkpoint["config"]["block_size"]
    lengths = [N, 2 * N, 4 * N, 8 * N]
    tokens = own_text(checkpoint)
    stretch = lengths[-1]
    if len(tokens) <= stretch:
        raise SystemExit(f"error: {len(tokens):,} validation tokens are too few for a length of {stretch:,}")
    text = tokens[spread(len(tokens), max(TOKENS // stretch, 1), stretch)]
    encoding = data.get_encoding(checkpoint["meta"]["encoding"])
    device = pick_device()

    print("perplexity".ljust(20), *(f"{length:9}" for length in lengths))
    for name, model in models.items():
        with autocast(device):
            values = [token_losses(model, text, length).mean().exp().item() for length in lengths]
        print(name.ljust(20), *(f"{value:9.2f}" for value in values), flush=True)

    print("passkey, %".ljust(20), *(f"{length:9}" for length in lengths))
    for name, model in models.items():
        with autocast(device):
            values = [100 * sum(evaluate(model, encoding, length, TRIALS)) / TRIALS for length in lengths]
        print(name.ljust(20), *(f"{value:9.0f}" for value in values), flush=True)
