"""Grader of exercise 7: the rates under any optimizer, the formula, and what every encoding here has to
do."""

import torch

from assignments.checks import Part, Wrong, expect, expect_close, registered
from model import GPT, GPTConfig

MODEL_NAMES = {"GPTConfig", "NoPE"}
SMALL = {"vocab_size": 64, "block_size": 16, "n_layer": 2, "n_head": 3, "n_embd": 48}
FIVE_HEADS = SMALL | {"n_head": 5, "n_embd": 40}


def change_parameters(pos) -> None:
    """As an optimizer's step may: another number in every head."""
    with torch.no_grad():
        for parameter in pos.parameters():
            parameter.add_(torch.randn_like(parameter))


def rates_of(pos, n_head: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rates = pos.rates()
    expect(len(rates) == 2, f"rates gives two tensors, r1 and r2; {len(rates)} came")
    for name, rate in zip(("r1", "r2"), rates):
        right = torch.is_tensor(rate) and rate.shape == (n_head,)
        shape = getattr(rate, "shape", type(rate).__name__)
        numbers = f"with n_head {n_head}: expected {(n_head,)}, came {shape}"
        expect(right, f"rates: {name} is a number a head\n{numbers}")
    return rates


def rates(answer) -> None:
    for settings in (FIVE_HEADS, SMALL):
        n_head = settings["n_head"]
        pos = answer.KERPLE(GPTConfig(**settings))
        learned = sum(parameter.numel() for parameter in pos.parameters())
        message = f"r1 and r2 in {n_head} heads are learned: expected {2 * n_head} numbers in nn.Parameters"
        expect(learned == 2 * n_head, f"{message}, came {learned}")
        rates_of(pos, n_head)
    smallest = [float("inf")] * 2
    largest = [0.0] * 2
    for value in (0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 10.0, -10.0, 30.0, -30.0):
        case = f"with every parameter at {value}, where an optimizer may bring it"
        with torch.no_grad():
            for parameter in pos.parameters():
                parameter.fill_(value)
        pos.zero_grad()
        both = rates_of(pos)
        for i, name in enumerate(("r1", "r2")):
            rate = both[i].min().item()
            expect(rate > 0, f"rates: {name} is not positive, it can be {rate:.3g}\n{case}")
            expect(both[i].max().item() < float("inf"), f"rates: {name} is not finite\n{case}")
            smallest[i] = min(smallest[i], rate)
            largest[i] = max(largest[i], rate)
        expect(
            both[0].requires_grad and both[1].requires_grad,
            f"rates: no gradient reaches the parameters\n{case}",
        )
        (both[0].sum() + both[1].sum()).backward()
        for parameter in pos.parameters():
            dead = parameter.grad is None or bool((parameter.grad == 0).any())
            message = f"rates: a rate is dead: its gradient is 0, so it never learns again\n{case}"
            expect(not dead, message)
    for i, name in enumerate(("r1", "r2")):
        reach = f"for parameters from -30 to 30, from {smallest[i]:.3g} to {largest[i]:.3g}"
        wide = smallest[i] < 0.01 and largest[i] >= 10
        expect(wide, f"rates: {name} cannot become as small as 0.01 or as large as 10\n{reach}")


def formula(answer) -> None:
    torch.manual_seed(0)
    pos = answer.KERPLE(GPTConfig(**SMALL))
    change_parameters(pos)
    expect_bias(pos, (7, 7), (1, 7), (3, 7), (40, 40), (1, 1), (1, 5000), (1, 1_000_000))
    change_parameters(pos)
    expect_bias(pos, (7, 7), after="after another step of the optimizer, ")
    pos.eval()
    expect_bias(pos, (7, 7), after="in evaluation, ")
    change_parameters(pos)
    expect_bias(pos, (7, 7), after="in evaluation again, after another step of the optimizer, ")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expect_bias(pos, (2, 1000), (1000, 1000), after="under bfloat16 autocast, ")
    fresh = answer.KERPLE(GPTConfig(**SMALL))
    with torch.inference_mode():
        fresh.bias(8, 8)
    try:
        fresh.bias(8, 8).sum().backward()
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        raise Wrong(
            f"bias: no training after a call in inference mode: is a tensor kept?\n{reason}"
        ) from None
    five = answer.KERPLE(GPTConfig(**FIVE_HEADS))
    change_parameters(five)
    expect_bias(five, (3, 7), n_head=5, after="5 heads, ")

    q, k = torch.randn(2, 1, 3, 4, 16)
    came = pos.encode(q, k, 3)
    same = len(came) == 2 and torch.equal(came[0], q) and torch.equal(came[1], k)
    expect(same, "encode stays NoPE's and gives q and k back as they are: positions are in the bias alone")


def expect_bias(pos, *lengths: tuple[int, int], n_head: int = 3, after: str = "") -> None:
    r1, r2 = (rate.detach().double()[:, None, None] for rate in rates_of(pos, n_head))
    called = ""
    for q_len, k_len in lengths:
        case = f"{after}q_len {q_len}, k_len {k_len}: the queries are the last {q_len} positions of {k_len}"
        case += called
        called = f"; the call before had q_len {q_len}, k_len {k_len}"
        came = pos.bias(q_len, k_len)
        expect(
            torch.is_tensor(came), f"bias: a tensor was expected, a {type(came).__name__} came\nwith {case}"
        )
        shape = f"expected {(n_head, q_len, k_len)} float32, came {tuple(came.shape)} {came.dtype}"
        right = came.shape == (n_head, q_len, k_len) and came.dtype == torch.float32
        expect(right, f"bias: wrong shape or dtype\nwith {case}\n{shape}")
        wrong = (~came.isfinite()).nonzero().tolist()
        if wrong:
            head, row, column = wrong[0]
            where = f"came {came[head, row, column].item()} for query {k_len - q_len + row} and key {column}"
            why = "a later key is masked afterwards, but NaN and infinity come back in its gradient"
            expect(False, f"bias: not finite everywhere\nwith {case}\n{where}\n{why}")
        j = torch.arange(k_len)
        i = torch.arange(k_len - q_len, k_len)[:, None]
        past = j <= i
        distance = (i - j).abs().double()
        from_zero = (torch.arange(q_len)[:, None] - j).abs().double()
        right_bias = -r1 * torch.log(1 + r2 * distance)
        known = {
            "the sign were wrong: attention fades with distance": -right_bias,
            "queries were counted from 0, not from k_len - q_len": -r1 * torch.log(1 + r2 * from_zero),
            "r1 and r2 had changed places": -r2 * torch.log(1 + r1 * distance),
            "r2 stood outside of the logarithm": -r1 * r2 * torch.log(1 + distance),
            "the 1 in the logarithm were multiplied by r2, too": -r1 * torch.log(r2 + r2 * distance),
            "the logarithm were missing": -r1 * r2 * distance,
            "r1 and r2 of head 0 were used in every head": right_bias[:1].expand(n_head, -1, -1),
        }
        known = {mistake: torch.where(past, value, 0.0) for mistake, value in known.items()}
        came = torch.where(past, came.detach(), 0.0)
        expected = torch.where(past, right_bias, 0.0).float()
        expect_close("bias", came, expected, case, atol=1e-4, known=known)


def device(answer) -> None:
    """As on a GPU: "meta" is a device without numbers that every machine has and that mixes with none."""
    pos = answer.KERPLE(GPTConfig(**SMALL))
    pos.bias(8, 8)
    pos.to("meta")
    try:
        came = pos.bias(3, 7)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        what = "a tensor that you make does not live on the device of the parameters"
        expect(
            False,
            f"bias: {what}: on a GPU this fails\nwith the encoding moved elsewhere after a call\n{reason}",
        )
    where = f"expected meta, came {came.device}"
    expect(came.device.type == "meta", f"bias: not on the device of the parameters\n{where}")


def in_a_model(answer) -> None:
    with registered("kerple", answer.KERPLE):
        torch.manual_seed(0)
        model = GPT(GPTConfig(pos="kerple", **SMALL))
        idx = torch.randint(64, (4, 41))
        model(idx[:, :-1], idx[:, 1:])[1].backward()
        for block in model.blocks:
            for parameter in block.attn.pos.parameters():
                gradient = parameter.grad
                what = "a rate gets no gradient in a training step"
                expect(
                    gradient is not None and bool((gradient != 0).all()), f"in a model of two layers: {what}"
                )
        for name, parameter in model.named_parameters():
            expect(
                bool(parameter.grad.isfinite().all()),
                f"in a model of two layers: the gradient of {name} is not finite\n"
                "a NaN that torch.where leaves out of the bias comes back as 0 times NaN",
            )
        for block in model.blocks:
            change_parameters(block.attn.pos)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data *= 5 if parameter.dim() == 2 and parameter.size(0) > 3 else 1
            whole = model.lm_head(model.hidden(idx))
            cache = [{}, {}]
            parts = [model.lm_head(model.hidden(part, cache)) for part in idx.split([20, 1, 20], dim=1)]
        case = "41 tokens at once, and in parts of 20, 1 and 20 with a cache"
        expect_close(
            "a model's logits with a cache, against without", torch.cat(parts, dim=1), whole, case, atol=1e-3
        )
        state = {name: value.clone() for name, value in model.state_dict().items()}
        torch.manual_seed(1)
        other = GPT(GPTConfig(pos="kerple", **SMALL))
        other.load_state_dict(state)
        again = other.lm_head(other.hidden(idx))
        expect_close(
            "logits after saving and loading, against before", again.detach(), whole, "41 tokens", atol=1e-4
        )


PARTS = [
    Part("rates", 4, rates),
    Part("formula", 4, formula),
    Part("device", 1, device),
    Part("in a model", 3, in_a_model),
]
