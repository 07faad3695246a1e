"""Grader of exercise 1: formulas with complex numbers in float64, and RoPE's properties."""

import math

import torch

import model
from assignments.checks import Part, Wrong, expect, expect_close

MODEL_NAMES = set()


def frequencies(answer) -> None:
    for head_dim, theta in ((64, 10_000.0), (2, 10_000.0), (24, 500.0), (128, 5e6)):
        case = f"head_dim {head_dim}, θ {theta:g}"
        pairs = torch.arange(head_dim // 2, dtype=torch.float64)
        expected = (theta ** (-2 * pairs / head_dim)).float()
        came = answer.frequencies(head_dim, theta)
        if torch.is_tensor(came) and came.dim() == 1:
            expect(
                len(came) == head_dim // 2, f"there is one frequency a pair\nwith {case}: {len(came)} came"
            )
        known = {
            "the exponent were half as large: each is the square root of what it should be": expected.sqrt(),
            "the exponent were twice as large: each is the square of what it should be": expected.square(),
            "they ascend: the fastest comes first": expected.flip(0),
            "they were periods, not angles a position": 1 / expected,
            "they were turns a position, not radians": expected / math.tau,
            "the last pair had θ^-1 itself: the exponents go too far": theta
            ** -torch.linspace(0, 1, head_dim // 2),
        }
        expect_close("frequencies", came, expected, case, atol=1e-9, known=known)


def table(answer) -> None:
    near = [3, 0, 1, 100, 8190, 8191]
    # Far out, float32 rounds angles, but not those of powers of 2.
    cases = [(near, [0.9, 0.31, 0.02]), (near, [0.5, 0.25, 0.0625]), ([9, 100_000], [0.5, 0.25, 0.0625])]
    cases.append(([0, 2**40], [0.5, 0.25, 0.0625]))  # a table of all positions up to there fits nowhere
    for i, (positions, speeds) in enumerate(cases):
        earlier = torch.tensor(cases[i - 1][1]) if i else None
        try:
            check_table(answer, torch.tensor(positions), torch.tensor(speeds), earlier)
        except (IndexError, RuntimeError, MemoryError) as error:
            reason = (str(error).splitlines() or [""])[0]
            if "out of bounds" not in reason and "memory" not in reason:
                raise
            case = f"with positions {positions}, frequencies {speeds}"
            hint = "positions have no end, but a table of all up to the last has"
            raise Wrong(f"table: {hint}\n{case}\n{reason}") from None
    expect_no_old_table(answer)
    expect_the_tables_device(answer)


def expect_the_tables_device(answer) -> None:
    """As on a GPU: "meta" is a device without numbers that every machine has and that mixes with none."""
    message = "table: a tensor that you make does not live on the device of positions: on a GPU this fails"
    try:
        came = answer.table(torch.arange(3, device="meta"), torch.ones(4, device="meta"))
    except (RuntimeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise Wrong(f"{message}\n{reason}") from None
    for values in came:
        expect(values.device.type == "meta", f"{message}\nexpected meta, came {values.device}")


def expect_no_old_table(answer) -> None:
    """Positions and frequencies are changed in place between two calls, as a loop that decodes may do."""
    positions = torch.tensor([0, 3])
    speeds = torch.tensor([0.5, 0.25])
    answer.table(positions, speeds)
    positions += 1
    speeds *= 3
    came = answer.table(positions, speeds)
    angles = positions.double()[:, None] * speeds.double()
    old = (positions - 1).double()[:, None] * speeds.double() / 3
    case = "positions [1, 4] and frequencies [1.5, 0.75], in tensors that held others in an earlier call"
    for name, values in zip(("cos", "sin"), came):
        function = getattr(torch, name)
        known = {"the table were that of the earlier call: is it kept?": function(old)}
        expect_close(f"table, {name}", values, function(angles).float(), case, known=known)


def check_table(answer, positions, speeds, earlier) -> None:
    case = f"positions {positions.tolist()}, frequencies {[round(s, 4) for s in speeds.tolist()]}"
    angles = positions.double()[:, None] * speeds.double()
    counted = torch.arange(len(positions)).double()[:, None] * speeds.double()
    rounded = positions.bfloat16().double()[:, None] * speeds.double()
    for around, enabled in (("", False), (", under bfloat16 autocast", True)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            came = answer.table(positions, speeds)
        both = isinstance(came, tuple) and len(came) == 2
        expect(both, f"table gives two tensors, cos and sin\nwith {case}")
        functions = {"cos": torch.cos, "sin": torch.sin}
        for name, values in zip(functions, came):
            function = functions[name]
            other = functions["sin" if name == "cos" else "cos"]
            known = {
                "cos and sin had changed places": other(angles),
                "the sine had the wrong sign": -function(angles),
                "positions were ignored, and counted from 0": function(counted),
                "positions were rounded to bfloat16, which holds 8 bits": function(rounded),
            }
            if earlier is not None:
                before = function(positions.double()[:, None] * earlier.double())
                known["the frequencies were those of an earlier call: is a table kept?"] = before
            expected = function(angles).float()
            expect_close(f"table, {name}{around}", values, expected, case, atol=2e-3, known=known)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.size(-1) // 2
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.complex(cos, sin)
    return torch.cat((turned.real, turned.imag), dim=-1)


def rotate(answer) -> None:
    x = torch.randn(2, 3, 4, 8)
    for heads in ((), (3,)):
        angles = 3 * torch.randn(*heads, 4, 4)
        cos, sin = angles.cos(), angles.sin()
        case = f"x (2, 3, 4, 8), cos and sin {tuple(cos.shape)}, all random"
        a, b = x.chunk(2, dim=-1)
        even, odd = x[..., ::2], x[..., 1::2]
        between = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
        known = {
            "it turned clockwise": turn(x, cos, -sin),
            "cos and sin had changed places": turn(x, sin, cos),
            "dimension m were paired with its neighbour": between.flatten(-2),
            "neighbours were paired, and written to the two halves": between.transpose(-1, -2).flatten(-2),
            "nothing were subtracted: a rotation has one minus sign": torch.cat(
                (a * cos + b * sin, b * cos + a * sin), -1
            ),
            "only the first half were turned": torch.cat((a * cos - b * sin, b), dim=-1),
            "the second half used the first half's new values": torch.cat(
                (a * cos - b * sin, b * cos + (a * cos - b * sin) * sin), dim=-1
            ),
            "the second half of the turned dimensions had the halves' parts mixed up": torch.cat(
                (a * cos - b * sin, a * cos + b * sin), dim=-1
            ),
        }
        copy = x.clone()
        came = answer.rotate(copy, cos, sin)
        expect(torch.equal(copy, x), f"rotate changed its input x: it must work on a copy\nwith {case}")
        expect_close("rotate", came, turn(x, cos, sin), case, known=known)
    for dtype, atol in ((torch.bfloat16, 0.06), (torch.float16, 0.01), (torch.float64, 1e-4)):
        copy = x.to(dtype)
        typed = f"{case}; x in {str(dtype).removeprefix('torch.')}"
        came = answer.rotate(copy, cos, sin)
        message = f"rotate changed its input x: it must work on a copy\nwith {typed}"
        expect(torch.equal(copy, x.to(dtype)), message)
        expected = turn(x.to(dtype).float(), cos, sin).to(dtype)
        expect_close("rotate", came, expected, typed, atol=atol)
    # B, H, T and head_dim may be alike, or 1, which must not tell what a table is.
    for shape, heads in (((1, 3, 3, 8), ()), ((2, 3, 1, 8), (3,)), ((2, 1, 4, 2), ()), ((1, 1, 1, 2), (1,))):
        x_small = torch.randn(shape)
        angles = 3 * torch.randn(*heads, shape[2], shape[3] // 2)
        case_small = f"x {shape}, cos and sin {tuple(angles.shape)}, all random"
        came = answer.rotate(x_small, angles.cos(), angles.sin())
        expect_close("rotate", came, turn(x_small, angles.cos(), angles.sin()), case_small)
    expect_any_strides(answer, cos, sin)
    expect_a_gradient(answer, x, cos, sin, case)
    expect_its_device(answer, x, cos, sin, case)


def expect_any_strides(answer, cos, sin) -> None:
    x = torch.randn(2, 4, 3, 8).transpose(1, 2)
    case = "x (2, 3, 4, 8) out of a transpose, as attention makes it"
    try:
        came = answer.rotate(x, cos, sin)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        hint = "its numbers do not lie in memory in the order of its dimensions, which view() needs"
        raise Wrong(f"rotate: {hint}\nwith {case}\n{reason}") from None
    expect_close("rotate", came, turn(x, cos, sin), case)


def expect_a_gradient(answer, x, cos, sin, case: str) -> None:
    trained = x.clone().requires_grad_()
    came = answer.rotate(trained, cos, sin)
    message = "rotate: no gradient reaches x, so that queries and keys would never learn"
    expect(came.requires_grad, f"{message}\nwith {case}")
    came.square().sum().backward()
    # A rotation keeps lengths: the sum of squares is that of x, and its gradient 2 x.
    expect_close("rotate: the gradient of the sum of squares", trained.grad, 2 * x, case, atol=1e-3)


def expect_its_device(answer, x, cos, sin, case: str) -> None:
    """As on a GPU: "meta" is a device without numbers that every machine has and that mixes with none."""
    message = (
        f"rotate: a tensor that you make does not live on the device of x: on a GPU this fails\nwith {case}"
    )
    try:
        came = answer.rotate(x.to("meta"), cos.to("meta"), sin.to("meta"))
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise Wrong(f"{message}\n{reason}") from None
    expect(came.device.type == "meta", f"{message}\nexpected meta, came {came.device}")


def together(answer) -> None:
    q, k = torch.randn(2, 1, 2, 1, 64)
    speeds = answer.frequencies(64, 10_000.0)

    def score(a: int, b: int) -> torch.Tensor:
        turned_q = answer.rotate(q, *answer.table(torch.tensor([a]), speeds))
        turned_k = answer.rotate(k, *answer.table(torch.tensor([b]), speeds))
        return (turned_q * turned_k).sum(dim=-1)

    expected = score(10, 3)
    for shift in (1, 500, 4000):
        case = f"a query at {10 + shift} and a key at {3 + shift}, against the same at 10 and 3"
        expect_close(
            "the score of a pair at one distance", score(10 + shift, 3 + shift), expected, case, atol=0.02
        )
    pos = model.RoPE(model.GPTConfig(n_head=2, n_embd=128, pos="rope"))
    expected, _ = pos.encode(q, k, 777)
    came = answer.rotate(q, *answer.table(torch.tensor([777]), speeds))
    expect_close("your three functions, and RoPE of model.py", came, expected, "a query at 777", atol=2e-3)


PARTS = [
    Part("frequencies", 3, frequencies),
    Part("table", 2, table),
    Part("rotate", 3, rotate),
    Part("together", 2, together),
]
