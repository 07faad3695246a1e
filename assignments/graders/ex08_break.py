"""Grader of exercise 8: each function breaks what it should, in every layer, and nothing else."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache

import torch

from assignments.checks import Part, expect, expect_close
from model import GPT, FoPE, GPTConfig

MODEL_NAMES = {"GPT", "FoPE", "GPTConfig", "RoPE", "rotate"}
EXPERIMENTS = {"damages"}
N = 64
COEFFICIENTS = ("cos_coef", "sin_coef")


@lru_cache
def first_model(**settings) -> GPT:
    """A small model whose weights are large enough for its logits to depend on positions."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(50, N, n_layer=2, n_head=2, n_embd=128, **settings)).eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data *= 8
    return model


def pairs_of_models() -> Iterator[tuple[str, GPT, GPT]]:
    """The name of a case, the model to break, and the same model to compare with."""
    cases = {
        "2 layers, 2 heads, head_dim 64, N 64": {},
        "the same with fope_dim 128, twice head_dim": {"fope_dim": 128},
        "the same with fope_init normal, σ 0.1": {"fope_init": "normal", "fope_sigma": 0.1},
    }
    for settings in cases.values():
        first_logits(first_model(**settings))  # kept before an answer can change the classes that give them
    for case, settings in cases.items():
        yield case, deepcopy(first_model(**settings)), first_model(**settings)


def expect_the_rest_stays(what: str, case: str, model: GPT, old: GPT) -> None:
    state = model.state_dict()
    for name, value in old.state_dict().items():
        expect(name in state, f"{what}: {name} is gone\nwith {case}")
        same = name.endswith(COEFFICIENTS) or torch.equal(state[name], value)
        expect(same, f"{what}: {name} should stay as it was\nwith {case}")
    training = {name: module.training for name, module in model.named_modules()}
    for name, module in old.named_modules():
        same = "attn.pos" in name or training.get(name) == module.training
        message = f"{what}: the model was in evaluation mode, and should stay in it"
        expect(same, f"{message}\nwith {case}")
    extra = sorted(set(state) - set(old.state_dict()))
    expect(not extra, f"{what}: the model has got new weights: {extra[:3]}\nwith {case}")
    expect(model.config == old.config, f"{what}: model.config should stay as it was\nwith {case}")
    for i, block in enumerate(model.blocks):
        message = f"{what}: the config of layer {i}'s attention should stay as it was: it scales queries by N"
        expect(block.attn.config == old.config, f"{message}\nwith {case}")


def encodings(what: str, model: GPT, old: GPT) -> Iterator[tuple[str, FoPE, FoPE]]:
    for i, (block, old_block) in enumerate(zip(model.blocks, old.blocks)):
        pos = block.attn.pos
        expect(
            isinstance(pos, FoPE),
            f"{what}: the encoding of layer {i} is no FoPE any more, but {type(pos).__name__}",
        )
        yield f"layer {i}", pos, old_block.attn.pos


def logits(model: GPT) -> torch.Tensor:
    idx = torch.randint(50, (1, 2 * N), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.lm_head(model.hidden(idx))


@lru_cache
def first_logits(old: GPT) -> torch.Tensor:
    return logits(old)


def expect_a_change(what: str, case: str, model: GPT, old: GPT) -> None:
    before = first_logits(old)
    change = ((logits(model) - before).norm() / before.norm()).item()
    expect(change > 1e-3, f"{what}: the model's logits are as before\nwith {case}, {2 * N} tokens")


def noise(coef: torch.Tensor) -> torch.Tensor:
    """The drawn part of coefficients, without the 1 of the dominant frequency."""
    stride = -(-coef.size(-2) // coef.size(-1))
    return coef - torch.eye(coef.size(-2))[:, ::stride]


def expect_drawn(what: str, case: str, came: torch.Tensor, expected: torch.Tensor) -> None:
    spread = came.std().item()
    right = expected.std().item()
    numbers = f"standard deviation: expected about {right:.4f}, came {spread:.4f}"
    expect(0.7 * right < spread < 1.4 * right, f"{what}: not drawn as FoPE draws\nwith {case}\n{numbers}")
    mean = came.mean().item()
    numbers = f"mean: expected about 0 (the own frequency's 1 apart), came {mean:.4f}"
    expect(
        abs(mean) < 6 * right / came.numel() ** 0.5,
        f"{what}: not drawn as FoPE draws\nwith {case}\n{numbers}",
    )


def redraw(answer) -> None:
    for case, model, old in pairs_of_models():
        answer.redraw(model)
        expect_the_rest_stays("redraw", case, model, old)
        draws = {}
        for layer, pos, old_pos in encodings("redraw", model, old):
            for name in COEFFICIENTS:
                here = f"{case}; {layer}, {name}"
                new_coef = getattr(pos, name)
                old_coef = getattr(old_pos, name)
                shapes = f"expected {tuple(old_coef.shape)}, came {tuple(new_coef.shape)}"
                expect(new_coef.shape == old_coef.shape, f"redraw: wrong shape\nwith {here}\n{shapes}")
                same = int((new_coef == old_coef).sum())
                count = f"{same} of {old_coef.numel()} coefficients are as before"
                expect(same == 0, f"redraw: not everything is drawn again\nwith {here}\n{count}")
                a = noise(new_coef).flatten()
                b = noise(old_coef).flatten()
                alike = torch.corrcoef(torch.stack((a, b)))[0, 1].item()
                numbers = f"correlation of old and new: expected about 0, came {alike:.2f}"
                expect(
                    abs(alike) < 0.3,
                    f"redraw: the old coefficients are still in the new ones\nwith {here}\n{numbers}",
                )
                diagonal = (new_coef - noise(new_coef) > 0).expand_as(new_coef)
                mean = new_coef[diagonal].mean().item()
                numbers = f"its mean: expected about 1, came {mean:.3f}"
                expect(
                    abs(mean - 1) < 0.2, f"redraw: the dominant frequency keeps its 1\nwith {here}\n{numbers}"
                )
                expect_drawn("redraw", here, noise(new_coef), noise(old_coef))
                shuffled = torch.isin(new_coef, old_coef).float().mean().item()
                expect(shuffled < 0.1, f"redraw: the old coefficients, in another order\nwith {here}")
                for head, draw in enumerate(new_coef):
                    draws[f"{layer}, {name}, head {head}"] = draw
        names = list(draws)
        for i, name in enumerate(names):
            for earlier in names[:i]:
                alike = torch.equal(draws[name], draws[earlier])
                message = (
                    f"redraw: every layer, head and table has a draw of its own\nwith {case}"
                    f"\n({earlier}) = ({name})"
                )
                expect(not alike, message)
        expect_a_change("redraw", case, model, old)
        again = deepcopy(old)
        torch.manual_seed(5)
        answer.redraw(again)
        coefs = [gpt.blocks[0].attn.pos.cos_coef for gpt in (model, again)]
        expect(
            not torch.equal(*coefs),
            f"redraw: two calls gave the same coefficients, as if reseeded\nwith {case}",
        )
    case = "fope_series False: there is nothing to draw"
    settings = {"fope_series": False}
    model = deepcopy(first_model(**settings))
    answer.redraw(model)
    for layer, pos, old_pos in encodings("redraw", model, first_model(**settings)):
        for name in COEFFICIENTS:
            what = f"redraw: not drawn as FoPE draws, {name}"
            expect_close(what, getattr(pos, name), getattr(old_pos, name), f"{case}; {layer}")


def pad_sine(answer) -> None:
    what = "pad_sine_with_ones"
    positions = torch.tensor([0, 1, 77, 5000])
    for case, model, old in pairs_of_models():
        answer.pad_sine_with_ones(model)
        expect_the_rest_stays(what, case, model, old)
        for layer, pos, old_pos in encodings(what, model, old):
            here = f"{case}; {layer}"
            outputs = old_pos.sin_coef.size(-1)
            for name in COEFFICIENTS:
                expect(
                    torch.equal(getattr(pos, name), getattr(old_pos, name)),
                    f"{what}: {name} should stay\nwith {here}",
                )
            old_cos, old_sin = old_pos.table(positions)
            cos, sin = pos.table(positions)
            expect_close(f"{what}: the cosine stays", cos, old_cos, here)
            expect_close(
                f"{what}: the kept pairs' sine stays", sin[..., :outputs], old_sin[..., :outputs], here
            )
            clipped = sin[..., outputs:]
            expect_close(
                f"{what}: the clipped pairs' sine", clipped, torch.ones_like(old_sin[..., outputs:]), here
            )
            alone = pos.table(torch.tensor([0]))[1][..., :outputs]
            message = f"{what}: the kept pairs' sine stays"
            expect_close(message, alone, torch.zeros_like(alone), f"{here}, position 0 alone")
        expect_a_change(what, case, model, old)


def floor_from(answer) -> None:
    for times in (2, 8):
        for case, model, old in pairs_of_models():
            case = f"{case}; length {times * N}"
            answer.floor_from(model, times * N)
            expect_the_rest_stays("floor_from", case, model, old)
            fresh = []
            for layer, pos, old_pos in encodings("floor_from", model, old):
                longer = FoPE(replace(old.config, block_size=times * N))
                here = f"{case}; {layer}"
                counts = f"expected {len(longer.frequencies)}, came {len(pos.frequencies)}"
                right = len(pos.frequencies) == len(longer.frequencies)
                expect(right, f"floor_from: wrong number of frequencies\nwith {here}\n{counts}")
                expect_close("floor_from: frequencies", pos.frequencies, longer.frequencies, here, atol=1e-9)
                for name in COEFFICIENTS:
                    new = getattr(pos, name)
                    old_coef = getattr(old_pos, name)
                    expected = getattr(longer, name)
                    shapes = f"expected {tuple(expected.shape)}, came {tuple(new.shape)}"
                    expect(
                        new.shape == expected.shape,
                        f"floor_from: {name} has a wrong shape\nwith {here}\n{shapes}",
                    )
                    _, sources, outputs = old_coef.shape
                    corner = new[:, :sources, :outputs]
                    stays = f"floor_from: the trained {name} keeps its corner"
                    expect_close(stays, corner, old_coef, f"{here}, corner {sources} x {outputs}", atol=1e-7)
                    added = torch.ones_like(new, dtype=torch.bool)
                    added[:, :sources, :outputs] = False
                    drawn = noise(new)[added]
                    zero = bool((drawn == 0).any())
                    expect(
                        not zero, f"floor_from: what is new in {name} is drawn, but it has zeros\nwith {here}"
                    )
                    expect_drawn(f"floor_from: what is new in {name}", here, drawn, noise(expected)[added])
                    fresh.append(drawn)
            for i, draw in enumerate(fresh):
                alike = any(torch.equal(draw, other) for other in fresh[:i])
                expect(
                    not alike,
                    f"floor_from: layers, cosine and sine each have a draw of their own\nwith {case}",
                )
            expect_a_change("floor_from", case, model, old)


def same_floor(answer) -> None:
    for case, model, old in pairs_of_models():
        answer.floor_from(model, N)
        expect_the_rest_stays("floor_from", case, model, old)
        same = torch.equal(logits(model), first_logits(old))
        expect(same, f"floor_from: at length = block_size nothing changes, but the logits do\nwith {case}")


PARTS = [
    Part("redraw", 4, redraw, seconds=20),
    Part("sine 1", 3, pad_sine, seconds=20),
    Part("floor", 4, floor_from, seconds=20),
    Part("the same floor", 1, same_floor, seconds=20),
]
