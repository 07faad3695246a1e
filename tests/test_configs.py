"""
config/: every file is a valid configuration; the paper's have its sizes, batches and schedule.

    pytest tests/test_configs.py
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import GPT
from train import TrainConfig, get_lr, parse_config

FOLDER = Path(__file__).parent.parent / "config"
FILES = sorted(FOLDER.glob("*.py"))


def read(name: str, *arguments: str) -> TrainConfig:
    return parse_config([str(FOLDER / f"{name}.py"), *arguments])


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_file_and_every_option_in_its_comments(path):
    parse_config([str(path)])
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for option in re.findall(r"--(?!nproc)\w+=[\w/.]*\w", "\n".join(comments)):
        parse_config([str(path), option])


def test_no_two_files_share_a_directory():
    directories = {parse_config([str(path)]).out_dir for path in FILES}
    assert len(directories) == len(FILES)


@pytest.mark.parametrize(
    "name, layers, heads, head_dim, sigma, batch_size, blocks, counted",
    [
        ("fope_60m", 8, 8, 64, 0.3, 64, 33.6, 60),
        ("fope_180m", 8, 8, 128, 0.4, 32, 134.2, 180),
        ("fope_1b", 16, 16, 128, 0.6, 8, 1073.8, 1200),
    ],
)
def test_table_2(name, layers, heads, head_dim, sigma, batch_size, blocks, counted):
    """The parameters, in millions, are the blocks' and those of one of the two embeddings."""
    config = read(name)
    assert (config.n_layer, config.n_head, config.head_dim) == (layers, heads, head_dim)
    assert (config.fope_sigma, config.fope_dim, config.batch_size) == (sigma, 0, batch_size)
    with torch.device("meta"):  # shapes without memory
        model = GPT(replace(config, pos="nope"))
    assert sum(p.numel() for p in model.blocks.parameters()) / 1e6 == pytest.approx(blocks, abs=0.1)
    assert model.num_params() / 1e6 == pytest.approx(counted, rel=0.07)


@pytest.mark.parametrize("name", ["fope_60m", "fope_180m", "fope_1b"])
def test_appendix_b(name):
    config = read(name)
    rates = [get_lr(config, step) for step in range(config.max_iters + 1)]
    assert rates[0] < 1e-7 and max(rates) == rates[10_000] == 6e-4
    assert rates[-1] == pytest.approx(6e-5)
    assert (config.beta1, config.beta2, config.weight_decay, config.grad_clip) == (0.9, 0.95, 0.1, 1.0)
    assert (config.rope_theta, config.passkey_frac, config.dataset) == (10_000, 0, "c4")


@pytest.mark.parametrize(
    "name, sequences, length, tokens",
    [
        ("fope_60m", 1024, 512, 10e9),
        ("fope_180m", 1024, 512, 10e9),
        ("fope_1b", 1024, 512, 10e9),
        ("toy_20m", 256, 512, 1e9),
        ("finetune_1024", 512, 1024, 1e9),
    ],
)
def test_a_step_and_all_steps(name, sequences, length, tokens):
    config = read(name)
    assert config.batch_size * config.gradient_accumulation_steps == sequences
    assert config.gradient_accumulation_steps % 8 == 0  # for 1, 2, 4 and 8 processes
    assert config.block_size == length
    assert config.max_iters * sequences * length == pytest.approx(tokens, rel=1e-3)
