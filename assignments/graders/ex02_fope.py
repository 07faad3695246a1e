"""Grader of exercise 2: against FoPE of model.py with random coefficients, and FoPE's properties."""

import contextlib
import math
from unittest import mock

import torch
from torch.nn import functional as F

from assignments.checks import Part, Wrong, expect, expect_close
from model import FoPE, GPTConfig, RoPE

MODEL_NAMES = set()
REAL_AUTOCAST = torch.autocast


def keep(answer) -> None:
    # In N = 83 and 353 a frequency lacks less than one position for a whole turn, in 84 it has it.
    for head_dim, block_size in ((64, 512), (64, 4), (64, 100_000), (24, 100), (64, 83), (64, 84), (64, 353)):
        rope = RoPE(GPTConfig(n_head=1, n_embd=head_dim, pos="rope")).frequencies
        floor = 2 * math.pi / block_size
        count = int((rope >= floor).sum())
        case = f"RoPE's frequencies of head_dim {head_dim}, N {block_size}"
        came = answer.keep(rope.clone(), block_size)
        expect(
            torch.is_tensor(came), f"keep: a tensor was expected, a {type(came).__name__} came\nwith {case}"
        )
        zeros = came.shape == rope.shape and bool((came[count:] == 0).all()) and count < len(rope)
        expect(not zeros, f"keep: what is below the floor is to be left out, not set to zero\nwith {case}")
        numbers = f"expected {(count,)}, came {tuple(came.shape)}; the floor is {floor:.4g}, in radians"
        why = "is the floor the right one?"
        if count == len(rope) and came.shape == (0,):
            why = "none was kept where all complete a turn:"
        elif count == 0:
            why = "none completes a turn, and none is kept:"
        message = f"keep: wrong number of frequencies, {why}\nwith {case}\n{numbers}"
        expect(came.shape == (count,), message)
        expect_close("keep", came, rope[:count], case, atol=1e-9)
    lists = {
        "RoPE's frequencies of head_dim 64 and θ = 500": 500.0 ** (-torch.arange(32) / 32),
        "the frequencies [2, 1.5, 0.3, 0.02, 0.001]": torch.tensor([2.0, 1.5, 0.3, 0.02, 0.001]),
    }
    for name, given in lists.items():
        case = f"{name}, N 512"
        expected = given[given >= 2 * math.pi / 512]
        came = answer.keep(given.clone(), 512)
        numbers = f"expected {len(expected)}, came {tuple(came.shape)}"
        message = (
            f"keep: wrong number of frequencies, do you use the ones that are given?\nwith {case}\n{numbers}"
        )
        expect(came.shape == expected.shape, message)
        expect_close("keep", came, expected, case, atol=1e-9)
    exact = torch.tensor([1.0, 2 * math.pi / 64, 0.01])
    case = "a frequency equal to the floor of N = 64"
    expect(
        len(answer.keep(exact, 64)) == 2,
        f"keep: a frequency equal to the floor completes a turn\nwith {case}",
    )


def coefficients(answer) -> None:
    for sigma in (0.3, 2.0):
        check_coefficients(answer, 8, 40, sigma)
    for coef in answer.coefficients(2, 5, 0.0):
        expect_close("coefficients", coef, torch.eye(5).expand(2, 5, 5), "n_head 2, kept 5, σ 0")
    case = "n_head 2, kept 0, σ 0.3: every frequency is below the floor"
    try:
        none = answer.coefficients(2, 0, 0.3)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise Wrong(
            f"coefficients: kept may be 0, the tables are empty then\nwith {case}\n{reason}"
        ) from None
    for coef in none:
        expect_close("coefficients", coef, torch.empty(2, 0, 0), case)


def check_coefficients(answer, n_head: int, kept: int, sigma: float) -> None:
    case = f"n_head {n_head}, kept {kept}, σ {sigma}"
    one = answer.coefficients(n_head, kept, sigma)
    two = answer.coefficients(n_head, kept, sigma)
    expect(
        isinstance(one, tuple) and len(one) == 2, f"coefficients gives two tensors, cos and sin\nwith {case}"
    )
    for name, coef in zip(("cosine", "sine"), one):
        shape = f"expected {(n_head, kept, kept)} float32, came {getattr(coef, 'shape', type(coef))}"
        right = torch.is_tensor(coef) and coef.shape == (n_head, kept, kept) and coef.dtype == torch.float32
        expect(right, f"coefficients, {name}: wrong shape or type\nwith {case}\n{shape}")
        expect(not coef.requires_grad, f"coefficients, {name}: they are never trained, but want a gradient")
        diagonal = coef.diagonal(dim1=-2, dim2=-1)
        others = coef[:, ~torch.eye(kept, dtype=torch.bool)]
        means = f"mean on the diagonal: expected about 1, came {diagonal.mean():.3f}"
        expect(
            abs(diagonal.mean() - 1) < 0.27 * sigma,
            f"coefficients, {name}: the own frequency has weight 1\nwith {case}\n{means}",
        )
        means = f"mean off the diagonal: expected about 0, came {others.mean():.3f}"
        message = f"coefficients, {name}: N(0, σ) has mean 0\nwith {case}\n{means}"
        expect(abs(others.mean()) < 0.07 * sigma, message)
        for place, values in (("off", others), ("on", diagonal)):
            spread = values.std().item()
            message = f"standard deviation {place} the diagonal: expected about {sigma}, came {spread:.3f}"
            if place == "on" and spread < 1e-6:
                message += "\n1 is added to the draw, it does not replace it"
            expect(
                abs(spread - sigma) < 0.2 * sigma,
                f"coefficients, {name}: wrong scale\nwith {case}\n{message}",
            )
        drawn = coef - torch.eye(kept)
        shared = bool((drawn[:, :, 0] == drawn[:, :, 1]).any())
        message = f"coefficients, {name}: every output, a column, has draws of its own"
        expect(not shared, f"{message}\nwith {case}\nin columns 0 and 1 a frequency has the same coefficient")
        far = (others.abs() > 2 * sigma).float().mean().item()
        message = f"share beyond 2σ: about 4.6 % of a normal draw, came {100 * far:.1f} %"
        expect(0.03 < far < 0.065, f"coefficients, {name}: not a normal draw\nwith {case}\n{message}")
        farthest = others.abs().max().item() / sigma
        message = f"the largest of {others.numel()} is {farthest:.2f} σ; about 12 should be beyond 3.3 σ"
        expect(farthest > 3.3, f"coefficients, {name}: a normal draw is not cut off\nwith {case}\n{message}")
        distinct = min(len(head.abs().unique()) for head in coef - torch.eye(kept)) / kept**2
        message = f"of the sizes of a head's {kept**2} draws, {100 * distinct:.0f} % are different numbers"
        alone = f"coefficients, {name}: every number of a head is drawn by itself, is it symmetric?"
        expect(distinct > 0.9, f"{alone}\nwith {case}\n{message}")
        different = all(not torch.equal(coef[0], coef[head]) for head in range(1, n_head))
        expect(
            different,
            f"coefficients, {name}: each head draws its own, but two heads are the same\nwith {case}",
        )
    expect(not torch.equal(*one), f"coefficients: sine has a draw of its own, but equals cosine\nwith {case}")
    expect(
        not torch.equal(one[0], two[0]),
        f"coefficients: two calls gave the same draw, as if reseeded\nwith {case}",
    )
    expect_draws_apart(torch.cat(one) - torch.eye(kept), n_head, case)


def expect_draws_apart(draws: torch.Tensor, n_head: int, case: str) -> None:
    """Wrong if two of the draws (2 n_head, kept, kept), cosine's heads and then sine's, are made of one."""
    names = [f"{table}, head {head}" for table in ("cosine", "sine") for head in range(n_head)]
    alike = torch.corrcoef(draws.flatten(1)).fill_diagonal_(0).abs()
    # In another order, or with other signs, the sizes of one draw are still the same numbers.
    sizes = draws.flatten(1).abs().sort().values
    for i, name in enumerate(names):
        for j, earlier in enumerate(names[:i]):
            both = f"with {case}\n({earlier}) and ({name})"
            message = f"coefficients: two heads or tables are not drawn apart\n{both}"
            expect(alike[i, j] < 0.2, f"{message}: their correlation is {alike[i, j]:.2f}")
            same = (sizes[i] - sizes[j]).abs().max() < 1e-4
            expect(not same, f"{message}: they hold the same numbers, in another order or with other signs")


def table(answer) -> None:
    positions = torch.tensor([7, 0, 1, 63, 64, 8190, 8191])
    for settings in ({}, {"block_size": 4}, {"block_size": 10**6}, {"fope_dim": 64}):
        torch.manual_seed(0)
        options = {"n_head": 3, "n_embd": 96, "block_size": 64, "fope_init": "normal"} | settings
        pos = FoPE(GPTConfig(**options))
        coefs = (pos.cos_coef, pos.sin_coef)
        angles = positions.float()[:, None] * pos.frequencies
        waves = (angles.cos(), angles.sin())
        expected = pos.table(positions)
        outputs = pos.cos_coef.size(-1)
        case = (
            f"7 positions up to 8191, {len(pos.frequencies)} frequencies, coefficients "
            f"{tuple(coefs[0].shape)}, 16 pairs"
        )
        for around, enabled in (("", False), (", under bfloat16 autocast", True)):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                came = answer.table(positions, pos.frequencies, *coefs, 16)
            expect(
                isinstance(came, tuple) and len(came) == 2,
                f"table gives two tensors, cos and sin\nwith {case}",
            )
            for i, name in enumerate(("cos", "sin")):
                clipped = (0, 16 - outputs)
                pad = (1.0, 0.0)[i]
                column_sum = coefs[i].sum(dim=-2, keepdim=True)
                known = {
                    "the clipped pairs had sine 1: f = 1 is a complex number": F.pad(
                        waves[i] @ coefs[i], clipped, value=1.0
                    ),
                    "the clipped pairs had cosine 0": F.pad(waves[i] @ coefs[i], clipped, value=0.0),
                    "sine used the coefficients of cosine, or cosine those of sine": F.pad(
                        waves[i] @ coefs[1 - i], clipped, value=pad
                    ),
                    "the sums were divided by the sum of coefficients": F.pad(
                        waves[i] @ (coefs[i] / column_sum), clipped, value=pad
                    ),
                }
                if len(pos.frequencies) == outputs:
                    own = waves[i] * coefs[i].diagonal(dim1=-2, dim2=-1)[:, None]
                    known["each output had its own frequency alone, no sum"] = F.pad(own, clipped, value=pad)
                    transposed = F.pad(waves[i] @ coefs[i].transpose(1, 2), clipped, value=pad)
                    known["the coefficients were transposed: a row is a frequency, a column an output"] = (
                        transposed
                    )
                    mixed = angles @ coefs[i]
                    wrong = F.pad((mixed.cos(), mixed.sin())[i], clipped, value=pad)
                    known["the angles were summed, not the waves"] = wrong
                if enabled:
                    what = f"table, {name}{around} (float32 is needed: positions and sums, too)"
                else:
                    what = f"table, {name}"
                expect_close(what, came[i], expected[i], case, atol=5e-3, known=known)
    tables = (torch.arange(5), torch.rand(4), torch.randn(3, 4, 4), torch.randn(3, 4, 4))
    expect_no_old_table(answer, *tables)
    expect_its_device(answer, tables)
    expect_its_autocast(answer, tables)


def expect_no_old_table(answer, positions, frequencies, cos_coef, sin_coef) -> None:
    """All is changed in place between two calls, as load_state_dict changes the coefficients."""
    given = [tensor.clone() for tensor in (positions, frequencies, cos_coef, sin_coef)]
    old = answer.table(*given, 16)
    for tensor in given:
        tensor += 1
    came = answer.table(*given, 16)
    angles = given[0].float()[:, None] * given[1]
    waves = (angles.cos() @ given[2], angles.sin() @ given[3])
    case = "tensors that held other numbers in an earlier call"
    for name, values, expected, pad, before in zip(("cos", "sin"), came, waves, (1.0, 0.0), old):
        known = {"the table were that of the earlier call: is it kept?": before}
        expected = F.pad(expected, (0, 12), value=pad)
        expect_close(f"table, {name}", values, expected, case, atol=1e-3, known=known)


@contextlib.contextmanager
def recorded_autocast(answer):
    """torch.autocast does nothing but write down its devices."""
    devices = []

    def record(device_type, *args, **kwargs):
        devices.append(str(device_type))
        return contextlib.nullcontext()

    with contextlib.ExitStack() as stack:
        for module in (torch, torch.amp, answer):
            for name in [name for name, value in vars(module).items() if value is REAL_AUTOCAST]:
                stack.enter_context(mock.patch.object(module, name, record))
        yield devices


def expect_its_device(answer, tables) -> None:
    """As on a GPU: "meta" is a device without numbers that every machine has and that mixes with none."""
    message = (
        "table: a tensor that you make, the padding perhaps, does not live on the device of what is given: "
        "on a GPU this fails\nwith 4 of 16 pairs that are turned, all on the device meta"
    )
    try:
        with recorded_autocast(answer):  # which does not know meta
            came = answer.table(*(given.to("meta") for given in tables), 16)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise Wrong(f"{message}\n{reason}") from None
    for values in came:
        expect(values.device.type == "meta", f"{message}\nexpected meta, came {values.device}")


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU."""

    device = torch.device("cuda")
    is_cuda = True
    is_cpu = False


def expect_its_autocast(answer, tables) -> None:
    """Wrong if autocast is switched off for another device than that of the tensors."""
    # What is asked of the GPU that is not there ends in an error: it is the devices that count.
    errors = (RuntimeError, AssertionError, NotImplementedError, TypeError)
    with recorded_autocast(answer) as devices, contextlib.suppress(*errors):
        answer.table(*(given.as_subclass(Elsewhere) for given in tables), 16)
    message = (
        "table: autocast is switched off for another device than that of the tensors: on a GPU it stays on"
    )
    expect(not devices or "cuda" in devices, f"{message}\nexpected cuda, came {', '.join(devices)}")


def properties(answer) -> None:
    rope = RoPE(GPTConfig(n_head=2, n_embd=64, pos="rope"))
    positions = torch.tensor([0, 5, 3000])
    eye = torch.eye(16).expand(2, 16, 16)
    case = "all 16 frequencies of RoPE, identity coefficients: FoPE without floor and series"
    for name, came, expected in zip(
        ("cos", "sin"), answer.table(positions, rope.frequencies, eye, eye, 16), rope.table(positions)
    ):
        expect_close(f"{name} is RoPE's", came, expected.expand(2, 3, 16), case, atol=2e-3)
    kept = answer.keep(rope.frequencies, 64)
    cos_coef, sin_coef = answer.coefficients(2, len(kept), 0.3)
    cos, sin = answer.table(positions, kept, cos_coef, sin_coef, 16)
    clipped = (cos[..., len(kept) :] == 1).all() and (sin[..., len(kept) :] == 0).all()
    expect(bool(clipped), "your three functions: a clipped pair is turned\nwith N 64, head_dim 32, σ 0.3")
    expected = cos_coef.sum(dim=1)
    case = "position 0, N 64, head_dim 32, σ 0.3: every wave is 1 there"
    expect_close("your three functions: cos", cos[:, 0, : len(kept)], expected, case)


PARTS = [
    Part("floor", 2, keep),
    Part("coefficients", 4, coefficients),
    Part("table", 4, table),
    Part("properties", 2, properties),
]
