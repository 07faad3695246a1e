"""config/: every file is a valid configuration, the paper's with its sizes, batches and schedule."""

import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from model import GPT, POSITIONS
from train import TrainConfig, get_lr, parse_config, start_from

FOLDER = Path(__file__).parent.parent / "config"
FILES = sorted(FOLDER.glob("*.py"))


def read(name: str, *arguments: str) -> TrainConfig:
    return parse_config([str(FOLDER / f"{name}.py"), *arguments])


def build(config: TrainConfig) -> GPT:
    """The model's shapes, without memory for its weights. NoPE, since FoPE's table needs real numbers."""
    with torch.device("meta"):
        return GPT(replace(config, pos="nope"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_parses_and_says_how_to_run_it(path):
    config, text = parse_config([str(path)]), path.read_text()
    assert config.out_dir == f"out/{config.pos}_{config.name}"
    if config.dataset == "c4":
        assert f"\n#   python train.py config/{path.name}" in text
        assert f"\n#   torchrun --nproc_per_node=4 train.py config/{path.name}" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_option_that_a_comment_names_is_one(path):
    """The command lines in the comments work: their settings exist and suit the file."""
    comments = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    for option in re.findall(r"--(?!nproc)\w+=[\w/.]*\w", comments):
        parse_config([str(path), option])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_two_files_share_a_directory(path):
    assert [p.stem for p in FILES if parse_config([str(p)]).out_dir == parse_config([str(path)]).out_dir] == [
        path.stem
    ]


@pytest.mark.parametrize(
    ("name", "blocks", "embedding", "counted"),
    [
        ("fope_60m", 33.6, 25.8, "60M"),
        ("fope_180m", 134.2, 51.5, "180M"),
        ("fope_1b", 1073.8, 103.0, "1.2B"),
        ("toy_20m", 8.4, 12.9, "20M"),
        ("finetune_1024", 33.6, 25.8, "60M"),
    ],
)
def test_parameters(name, blocks, embedding, counted):
    """As the paper counts: the blocks and one of the two embeddings."""
    model = build(read(name))
    assert sum(p.numel() for p in model.blocks.parameters()) / 1e6 == pytest.approx(blocks, abs=0.1)
    assert (
        model.wte.weight.numel() / 1e6
        == model.lm_head.weight.numel() / 1e6
        == pytest.approx(embedding, abs=0.1)
    )
    millions = float(counted[:-1]) * (1000 if counted.endswith("B") else 1)
    assert model.num_params() / 1e6 == pytest.approx(millions, rel=0.07)


@pytest.mark.parametrize(
    ("name", "layers", "heads", "head_dim", "sigma"),
    [("fope_60m", 8, 8, 64, 0.3), ("fope_180m", 8, 8, 128, 0.4), ("fope_1b", 16, 16, 128, 0.6)],
)
def test_table_2(name, layers, heads, head_dim, sigma):
    config = read(name)
    assert (config.n_layer, config.n_head, config.head_dim, config.fope_sigma) == (
        layers,
        heads,
        head_dim,
        sigma,
    )
    assert build(config).blocks[0].mlp.c_fc.weight.shape[0] == 8 * config.n_embd  # MLP_Ratio
    assert config.fope_dim in (0, head_dim)  # Num_Freq D
    assert config.batch_size == {"fope_60m": 64, "fope_180m": 32, "fope_1b": 8}[name]  # Mini_Batchsize at 512


@pytest.mark.parametrize("processes", [1, 4, 8])
@pytest.mark.parametrize(
    ("name", "sequences", "length", "tokens"),
    [
        ("fope_60m", 1024, 512, 10e9),
        ("fope_180m", 1024, 512, 10e9),
        ("fope_1b", 1024, 512, 10e9),
        ("toy_20m", 256, 512, 1e9),
        ("finetune_1024", 512, 1024, 1e9),
    ],
)
def test_the_batch_is_the_same_on_any_number_of_gpus(name, sequences, length, tokens, processes):
    config = read(name)
    assert config.gradient_accumulation_steps % processes == 0
    forward_passes = config.gradient_accumulation_steps // processes  # of one process, in one step
    assert processes * forward_passes * config.batch_size == sequences
    assert config.block_size == length
    assert config.max_iters * sequences * length == pytest.approx(tokens, rel=1e-3)


@pytest.mark.parametrize("name", ["fope_60m", "fope_180m", "fope_1b"])
def test_appendix_b(name):
    config = read(name)
    rates = [get_lr(config, step) for step in range(config.max_iters + 1)]
    assert rates[0] < 1e-7 and max(rates) == rates[10_000] == 6e-4
    assert rates[-1] == pytest.approx(6e-5) and config.min_lr == pytest.approx(config.learning_rate / 10)
    assert rates[10_000 + (config.max_iters - 10_000) // 2] == pytest.approx(
        3.3e-4, rel=1e-3
    )  # half-way down a cosine
    assert (config.beta1, config.beta2, config.weight_decay, config.grad_clip) == (0.9, 0.95, 0.1, 1.0)
    assert (config.rope_theta, config.dropout, config.passkey_frac, config.dataset) == (10_000, 0, 0, "c4")


@pytest.mark.parametrize("pos", POSITIONS)
def test_the_encoding_changes_the_directory(pos):
    assert read("fope_60m", f"--pos={pos}").out_dir == f"out/{pos}_60m"


def rows() -> dict[str, list[str]]:
    """The rows that finetune_1024.py's comments list: name to arguments."""
    found = re.findall(
        r"^#   (\w+ (?:to|\+) \w+) +(--.*)$", (FOLDER / "finetune_1024.py").read_text(), re.MULTILINE
    )
    return {"FoPE to FoPE": []} | {name: arguments.split() for name, arguments in found}


def test_figure_3_has_four_rows_in_directories_of_their_own():
    assert rows().keys() == {"RoPE + YaRN", "FoPE + YaRN", "RoPE to FoPE", "FoPE to FoPE"}
    assert len({read("finetune_1024", *arguments).out_dir for arguments in rows().values()}) == 4


def test_figure_3_rows_start_from_the_60m_runs(tmp_path):
    """Each names the run that it says, and takes its weights; FoPE's coefficients stay, also with YaRN."""
    for row, arguments in rows().items():
        config = read("finetune_1024", *arguments)
        yarn = "YaRN" in row
        first, second = row.split(" + " if yarn else " to ")
        old = read("fope_60m", f"--pos={first.lower()}")
        assert config.init_from == old.out_dir
        assert config.pos == (first if yarn else second).lower()
        assert (config.yarn_scale, config.yarn_length) == ((16, 512) if yarn else (1, 0))

        # One head of the same width has the same frequencies.
        small = {
            "vocab_size": 64,
            "n_layer": 1,
            "n_head": 1,
            "n_embd": 64,
            "init_from": str(tmp_path / old.pos),
        }
        before = GPT(replace(old, **small))
        model = GPT(replace(config, **small))
        meta = {"name": "c4", "encoding": "gpt2", "sha256": ""}
        (tmp_path / old.pos).mkdir(exist_ok=True)
        state = {"iter": 0, "config": asdict(before.config), "meta": meta, "model": before.state_dict()}
        torch.save(state, tmp_path / old.pos / "ckpt.pt")
        start_from(model, model.config)
        assert torch.equal(model.wte.weight, before.wte.weight)
        if config.pos == old.pos == "fope":
            new_coefficients = model.blocks[0].attn.pos.cos_coef
            old_coefficients = before.blocks[0].attn.pos.cos_coef
            assert torch.equal(new_coefficients[:, :16, :16], old_coefficients)  # 16 are over 2π/512


def turns(row: str, length: int) -> torch.Tensor:
    """Whole turns that a row's frequencies make in so many tokens."""
    config = read("finetune_1024", *rows()[row])
    model = GPT(replace(config, vocab_size=64, n_layer=1, n_head=1, n_embd=64))
    return model.blocks[0].attn.pos.frequencies * length / (2 * math.pi)


def test_figure_3_frequencies():
    """FoPE's floor comes from 1024, also under YaRN, which stretches by 16 what makes under a turn in 512."""
    assert len(turns("FoPE to FoPE", 1024)) == len(turns("FoPE + YaRN", 1024)) == 18
    assert turns("FoPE to FoPE", 1024).min() >= 1
    for pos in ("FoPE", "RoPE"):
        before = turns("FoPE to FoPE", 512)
        after = turns(f"{pos} + YaRN", 512)[:18]
        torch.testing.assert_close(after[before > 32], before[before > 32])
        assert (before < 1).sum() == 2
        torch.testing.assert_close(after[before < 1], before[before < 1] / 16)
        between = (before > 1.5) & (before < 20)
        assert (after[between] < before[between]).all() and (after[between] > before[between] / 16).all()
