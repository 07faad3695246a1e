"""
The experiments of exercises 4, 5 and 6: given, nothing to fill in. Each exercise's file runs its own:

    python -m assignments.ex4_relative
    python -m assignments.ex5_break out/fope_tiny
    python -m assignments.ex6_interpolated out/rope_tiny
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch

from data import get_encoding, load_tokens
from model import GPT, POSITIONS, FoPE, GPTConfig, RoPE, autocast, load_checkpoint, pick_device
from passkey import evaluate
from perplexity import token_losses

TOKENS = 32_768  # of the validation split, scored at every length
TRIALS = 100  # passkey prompts at every length: accuracies are good to about ±10 %


def errors(relative_error: Callable) -> None:
    """Exercise 4: the error of every encoding, FoPE's with σ = 0; then FoPE's for growing σ, the same draw scaled."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, 64, 64, generator=generator)
    for name, encoding in POSITIONS.items():
        pos = encoding(GPTConfig(pos=name, fope_sigma=0.0))
        print(f"{name:8} σ = 0       error {relative_error(pos, q, k, 512):.4f}")
    for init in ("normal", "xavier"):
        for sigma in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
            torch.manual_seed(0)
            pos = FoPE(GPTConfig(fope_sigma=sigma, fope_init=init))
            print(f"{init:8} σ = {sigma:<7} error {relative_error(pos, q, k, 512):.4f}")


def damages(redraw: Callable, pad_sine_with_ones: Callable, floor_from: Callable) -> None:
    """Exercise 5: the curves of a FoPE run, whole and broken in each of the ways."""
    model, checkpoint = load(FoPE)
    N = model.config.block_size
    models = {"intact": model}
    for name, damage in {
        "redraw": redraw,
        "pad_sine_with_ones": pad_sine_with_ones,
        "floor_from 2N": lambda model: floor_from(model, 2 * N),
        "floor_from 8N": lambda model: floor_from(model, 8 * N),
    }.items():
        models[name] = deepcopy(model)
        damage(models[name])
    print_curves(models, checkpoint)


def interpolations(interpolated: type[RoPE]) -> None:
    """Exercise 6: the curves of a RoPE run, of the same weights interpolated, and of the same with YaRN."""
    POSITIONS["interpolated"] = interpolated
    model, checkpoint = load(RoPE)
    models = {"RoPE": model}
    for name, change in {"interpolated": {"pos": "interpolated"}, "YaRN": {"yarn_scale": interpolated.scale}}.items():
        models[name] = GPT(replace(model.config, **change)).to(model.lm_head.weight.device).eval()
        models[name].load_state_dict(model.state_dict())
    print_curves(models, checkpoint)


def load(encoding: type) -> tuple[GPT, dict]:
    """The model and checkpoint of the run named on the command line. SystemExit unless it is one with that encoding."""
    if len(sys.argv) != 2:
        raise SystemExit("error: name one run's directory, such as out/fope_tiny")
    model, checkpoint = load_checkpoint(sys.argv[1], pick_device())
    if type(model.blocks[0].attn.pos) is not encoding:
        raise SystemExit(f"error: {sys.argv[1]} holds a {model.config.pos} run; this needs {encoding.__name__}")
    return model, checkpoint


def print_curves(models: dict[str, GPT], checkpoint: dict) -> None:
    """Perplexity and passkey accuracy of each model, from 1 to 8 times the training length."""
    lengths = [checkpoint["config"]["block_size"] * times for times in (1, 2, 4, 8)]
    tokens = load_tokens(checkpoint["config"]["dataset"], "val")[: TOKENS // lengths[-1] * lengths[-1] + 1]
    encoding, device = get_encoding(checkpoint["meta"]["encoding"]), pick_device()
    measures = {
        "perplexity": lambda model, length: token_losses(model, tokens, length).mean().exp().item(),
        "passkey, %": lambda model, length: 100 * sum(evaluate(model, encoding, length, TRIALS)) / TRIALS,
    }
    for title, measure in measures.items():
        print(title.ljust(20), *(f"{length:9}" for length in lengths))
        for name, model in models.items():
            with autocast(device):
                cells = [f"{measure(model, length):9.2f}" for length in lengths]
            print(name.ljust(20), *cells, flush=True)
