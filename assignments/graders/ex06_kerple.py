"""Checks of exercise 6: the rates under any optimizer, the formula, and the encoding inside of a GPT."""

import math

import torch

from assignments.harness import part, same, true
from model import GPT, POSITIONS, GPTConfig

SMALL = {"vocab_size": 64, "block_size": 16, "n_layer": 2, "n_head": 3, "n_embd": 48}


def change_parameters(module):
    """As an optimizer's steps may: another number in every place."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


@part("rates", 3)
def rates(answer):
    pos = answer.KERPLE(GPTConfig(**SMALL))
    learned = sum(parameter.numel() for parameter in pos.parameters())
    true(learned == 6, f"2 rates in 3 heads are learned: expected 6 numbers in nn.Parameters, came {learned}")
    for value in (0.0, 1.0, -1.0, 10.0, -10.0):
        case = f"every parameter at {value:g}, where an optimizer may bring it"
        with torch.no_grad():
            for parameter in pos.parameters():
                parameter.fill_(value)
        pos.zero_grad()
        came = pos.rates()
        same("rates", came, (torch.ones(3), torch.ones(3)), case, atol=math.inf)
        for name, rate in zip(("r1", "r2"), came):
            true((rate > 0).all(), f"rates: {name} is not positive, it is {rate.tolist()}\nwith {case}")
            true(rate.requires_grad, f"rates: no gradient goes from {name} to the parameters")
        (came[0].sum() + came[1].sum()).backward()
        for parameter in pos.parameters():
            alive = parameter.grad is not None and (parameter.grad != 0).all()
            true(alive, f"rates: a rate is dead, its gradient is 0 and it never learns again\nwith {case}")


@part("bias", 4)
def bias(answer):
    pos = answer.KERPLE(GPTConfig(**SMALL))
    for q_len, k_len in ((7, 7), (1, 7), (3, 7), (1, 5000)):
        change_parameters(pos)
        came = pos.bias(q_len, k_len)
        case = f"q_len {q_len}, k_len {k_len}"
        same("bias", came, torch.zeros(3, q_len, k_len), case, atol=math.inf)
        r1, r2 = pos.rates()
        positive = (r1 > 0).all() and (r2 > 0).all()
        true(positive, f"bias: r1 or r2 is not positive, see the part `rates`\nwith {case}")
        hint = "a later key is masked afterwards, but NaN and infinity come back in the gradient"
        finite = came.isfinite().all()
        true(finite, f"bias: not finite everywhere; is it log(1 + ...), and |i - j|?\nwith {case}\n{hint}")
        r1 = r1.detach()[:, None, None]
        r2 = r2.detach()[:, None, None]
        j = torch.arange(k_len)
        i = torch.arange(k_len - q_len, k_len)[:, None]
        past = j <= i
        distance = (i - j).abs()
        expected = -r1 * torch.log(1 + r2 * distance)
        from_zero = (torch.arange(q_len)[:, None] - j).abs()
        known = {
            "the sign were wrong: attention fades with distance": -expected,
            "queries were counted from 0, not from k_len - q_len": -r1 * torch.log(1 + r2 * from_zero),
            "r1 and r2 had changed places": -r2 * torch.log(1 + r1 * distance),
            "r2 stood outside of the logarithm": -r1 * r2 * torch.log(1 + distance),
            "the logarithm were missing": -r1 * r2 * distance,
            "all heads had the rates of head 0": expected[:1].expand(3, -1, -1),
        }
        known = {mistake: value * past for mistake, value in known.items()}
        same("bias", came.detach() * past, expected * past, case, known)


@part("device", 1)
def device(answer):
    pos = answer.KERPLE(GPTConfig(**SMALL)).to("meta")  # a device without numbers, which mixes with none
    pos.bias(3, 7)


@part("in a GPT", 2)
def in_a_gpt(answer):
    POSITIONS["kerple"] = answer.KERPLE
    try:
        model = GPT(GPTConfig(pos="kerple", **SMALL))
    finally:
        del POSITIONS["kerple"]
    change_parameters(model)
    idx = torch.randint(64, (1, 24))
    cache = [{} for _ in model.blocks]
    with torch.no_grad():
        whole = model.hidden(idx)
        pieces = torch.cat([model.hidden(idx[:, :20], cache), model.hidden(idx[:, 20:], cache)], dim=1)
    true(whole.isfinite().all(), "a GPT with it: the output is not finite")
    case = "24 tokens, the last 4 after a cache of 20"
    same("a GPT with it, read in two pieces", pieces, whole, case, atol=1e-2)
    model(idx, idx)[1].backward()
    for name, parameter in model.blocks[0].attn.pos.named_parameters():
        true(parameter.grad is not None, f"a GPT with it: no gradient reaches {name}, is the bias detached?")
        hint = "a log of what is not positive is NaN there, even where the bias is masked or replaced later"
        true(parameter.grad.isfinite().all(), f"a GPT with it: the gradient of {name} is not finite\n{hint}")
