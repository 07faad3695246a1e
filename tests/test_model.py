"""
What the model promises: python -m pytest tests/test_model.py

Most tests walk model.POSITIONS, so an encoding registered there is tested without a line here; two learned
ones, added below as a reader would add them, walk along. The others hold each encoding to its paper, by
formulas written out a second time in plain loops and complex numbers.
"""

import cmath
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn as nn
from torch.testing import assert_close

import model as model_file
from model import (
    GPT,
    POSITIONS,
    ALiBi,
    GPTConfig,
    NoPE,
    RoPE,
    attention,
    autocast,
    load_checkpoint,
    pick_device,
)

N = 64  # training length of the models here
CPU = torch.device("cpu")
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()


class T5(NoPE):
    """T5's relative bias (arXiv 1910.10683): each head learns one number for each bucket of distances."""

    def __init__(self, config):
        super().__init__(config)
        self.biases = nn.Embedding(32, config.n_head)

    def bias(self, q_len, k_len):
        device = self.biases.weight.device
        i = torch.arange(k_len - q_len, k_len, device=device)[:, None]  # queries
        j = torch.arange(k_len, device=device)  # keys
        distance = (i - j).clamp(min=0)  # later keys are masked, whatever their bias
        # Each distance under 16 has its own bucket; sixteen more widen by a constant factor, up to 128.
        # The last one also holds whatever is further away.
        octaves = (distance.clamp(min=16) / 16).log2()  # 0 at distance 16, 3 at 128
        wide = 16 + (octaves / 3 * 16).long().clamp(max=15)
        bucket = torch.where(distance < 16, distance, wide)
        return self.biases(bucket).permute(2, 0, 1)  # (H, q_len, k_len)


class ZeroSlopes(NoPE):
    """ALiBi with learned slopes that start at zero, where it is NoPE."""

    def __init__(self, config):
        super().__init__(config)
        self.slopes = nn.Parameter(torch.zeros(config.n_head, 1, 1))

    def bias(self, q_len, k_len):
        i = torch.arange(k_len - q_len, k_len, device=self.slopes.device)[:, None]
        j = torch.arange(k_len, device=self.slopes.device)
        return self.slopes * (j - i)


# Under names that a reader's own encodings hardly have: those are tested beside them.
LEARNED = {"learned_bias": T5, "learned_slopes": ZeroSlopes}
each_encoding = pytest.mark.parametrize("pos", [*POSITIONS, *LEARNED])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
each_device = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture(autouse=True)
def register(monkeypatch) -> None:
    for name, encoding_class in LEARNED.items():
        monkeypatch.setitem(POSITIONS, name, encoding_class)


def tiny(pos: str = "fope", n_layer: int = 2, n_head: int = 3, n_embd: int = 48, **settings) -> GPT:
    """A model whose attention is far from uniform: at the scale of fresh weights mistakes hide in rounding.

    Parameters of an encoding move away from where they start, as if trained: a zero would do nothing.
    """
    torch.manual_seed(0)
    model = GPT(GPTConfig(32, N, n_layer, n_head, n_embd, pos=pos, **settings)).eval()
    for name, parameter in model.named_parameters():
        if ".pos." in name:
            parameter.data += torch.randn_like(parameter)
        elif parameter.dim() == 2:
            parameter.data *= 5
    return model


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(32, (batch, length))


def change(idx: torch.Tensor, position: int) -> torch.Tensor:
    """The same tokens but for one position, where every row has another one."""
    changed = idx.clone()
    changed[:, position] = (idx[:, position] + 1) % 32
    return changed


def logits(model: GPT, idx: torch.Tensor, cache: list[dict] | None = None) -> torch.Tensor:
    return model.lm_head(model.hidden(idx, cache))


def in_parts(model: GPT, idx: torch.Tensor) -> torch.Tensor:
    """The logits of N + 16 tokens with a cache: a prefill, a second chunk, then token by token."""
    cache = [{} for _ in model.blocks]
    parts = idx.split([20, 35] + [1] * (N - 39), dim=1)
    return torch.cat([logits(model, part, cache) for part in parts], dim=1)


def encoding(pos: str, head_dim: int = 64, n_head: int = 8, **settings) -> NoPE:
    """By default that of the 60M model, N = 512."""
    return POSITIONS[pos](GPTConfig(pos=pos, n_head=n_head, n_embd=n_head * head_dim, **settings))


def encode(pos: NoPE, x: torch.Tensor, start: int) -> torch.Tensor:
    """x (H, T, head_dim) as a query at the positions start, start + 1, ..."""
    return pos.encode(x[None], x[None], start)[0][0]


# Every encoding ----------------------------------------------------------------------------------------


@each_device
@each_dtype
@each_encoding
def test_causal_and_finite_far_beyond_training_length(pos, dtype, device):
    model = tiny(pos).to(device)
    idx = tokens(8 * N)
    with autocast(torch.device(device), dtype):
        before = logits(model, idx.to(device))
        after = logits(model, change(idx, 40).to(device))
    assert before.dtype == getattr(torch, dtype)
    assert before.isfinite().all()
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40], after[:, 40])
    assert not torch.equal(before[:, 41:], after[:, 41:])


@each_device
@each_dtype
@each_encoding
def test_order(pos, dtype, device):
    """One layer of NoPE sees the set of earlier tokens; every other encoding makes it see their order."""
    model = tiny(pos, n_layer=1).to(device)
    idx = tokens(60)
    idx[1] = idx[0, [*range(58, -1, -1), 59]]  # all but the last token, backwards
    with autocast(torch.device(device), dtype):
        forwards, backwards = model(idx.to(device))[0]
    assert torch.allclose(forwards, backwards, atol=0.05) == (POSITIONS[pos] is NoPE)


SETTINGS = [
    {},
    {"yarn_scale": 4.0},
    {"qk_norm": True},
    {"logn_scale": 1.0},
    {"logn_train": True},
    {"logn_train": True, "logn_scale": 0.5, "qk_norm": True},
    {"local_window": 5, "logn_train": True, "logn_scale": 0.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@each_encoding
def test_cached_is_uncached(pos, settings):
    """A prefill, a second chunk, then token by token, past the training length."""
    model = tiny(pos, **settings)
    idx = tokens(N + 16)
    assert_close(in_parts(model, idx), logits(model, idx), atol=1e-3, rtol=1e-3)


@each_device
@each_dtype
@each_encoding
def test_a_cache_costs_no_more_than_the_number_format(pos, dtype, device):
    model = tiny(pos)
    idx = tokens(N + 16)
    exact = logits(model, idx)
    model.to(device)
    with autocast(torch.device(device), dtype):
        plain = logits(model, idx.to(device)).float().cpu()
        cached = in_parts(model, idx.to(device)).float().cpu()
    format_error = (plain - exact).norm()
    assert format_error < 0.05 * exact.norm()
    assert (cached - plain).norm() < 2 * format_error + 1e-4 * exact.norm()


@each_encoding
def test_greedy_is_argmax_without_cache(pos):
    model = tiny(pos)
    idx = tokens(N - 4)
    greedy = model.generate(idx, 8, temperature=0)
    for _ in range(8):
        last_logits, _ = model(idx)
        idx = torch.cat((idx, last_logits.argmax(dim=-1)), dim=1)
    assert torch.equal(greedy, idx)


@each_encoding
def test_checkpoint_gives_the_same_model(pos, tmp_path):
    model = tiny(pos)
    idx = tokens(N)
    save(model, tmp_path)
    torch.manual_seed(1)  # what the checkpoint lacks is drawn anew, and differs
    loaded, checkpoint = load_checkpoint(str(tmp_path), CPU)
    assert torch.equal(loaded(idx)[0], model(idx)[0])
    assert not loaded.training
    assert loaded.config == model.config
    assert checkpoint["iter"] == 7
    stretched, _ = load_checkpoint(str(tmp_path), CPU, logn_scale=0.5)
    assert asdict(stretched.config) == asdict(model.config) | {"logn_scale": 0.5}
    assert not torch.equal(stretched(tokens(2 * N))[0], loaded(tokens(2 * N))[0])


def test_an_older_checkpoint_without_local_window_loads(tmp_path):
    model = tiny("fope")
    save(model, tmp_path)
    checkpoint = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    del checkpoint["config"]["local_window"]
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    loaded, _ = load_checkpoint(str(tmp_path), CPU)
    assert loaded.config == model.config


@each_encoding
def test_autocast_leaves_positions_alone(pos):
    """Tables and biases stay float32 in it: in bfloat16 8190 and 8191 would be one position."""
    pos = encoding(pos)
    q, k = torch.randn(2, 1, 8, 5, 64)
    encoded = pos.encode(q, k, 8190)
    bias = pos.bias(5, 8195)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pos.encode(q, k, 8190)[0], encoded[0])
        assert torch.equal(pos.encode(q, k, 8190)[1], encoded[1])
        if bias is not None:
            assert bias.dtype == pos.bias(5, 8195).dtype == torch.float32
            assert torch.equal(pos.bias(5, 8195), bias)
        if isinstance(pos, RoPE):
            cos, sin = pos.table(torch.tensor([8190, 8191]))
            assert cos.dtype == sin.dtype == torch.float32
            assert (cos[..., 0, 0] - cos[..., 1, 0]).abs().min() > 0.005  # 0 in bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@each_encoding
def test_a_model_in_half_precision_is_refused(pos, dtype):
    model = tiny(pos).to(dtype)
    idx = tokens(5)
    for use in (model, model.hidden, lambda idx: model.generate(idx, 1)):
        with pytest.raises(ValueError, match=r"\A[^\n]*float32[^\n]*autocast\Z"):
            use(idx)
    assert model.float()(idx)[0].dtype == torch.float32


@each_encoding
def test_other_weights_do_not_depend_on_the_encoding(pos):
    weights = dict(tiny(pos).named_parameters())
    for name, weight in tiny("nope").named_parameters():
        assert torch.equal(weights[name], weight), name


@each_encoding
def test_learns(pos):
    """Gradients reach every weight, q's, k's and v's each; a batch is learnt by heart."""
    model = GPT(GPTConfig(32, N, 1, 3, 48, pos=pos))
    idx = tokens(33)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        grads = [parameter.grad for parameter in model.parameters()]
        grads += model.blocks[0].attn.c_attn.weight.grad.chunk(3)
        assert all(grad.abs().amax() > 0 for grad in grads)
    assert loss < 0.1


@each_encoding
def test_compiles_whole_and_not_for_each_length(pos):
    """No graph break; the second length makes the graph dynamic, and it then holds for every other one."""
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    model = tiny(pos)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for length in (16, 24, 40, 2 * N):
        idx = tokens(length)
        loss = compiled(idx, idx)[1]
        assert_close(loss, model(idx, idx)[1])
    assert graphs["unique_graphs"] <= 2
    loss.backward()


def test_a_learned_encoding_keeps_its_own_initialisation():
    model = GPT(GPTConfig(32, N, n_layer=4, n_head=12, n_embd=48, pos="learned_bias"))
    biases = torch.stack([block.attn.pos.biases.weight for block in model.blocks])
    assert biases.shape == (4, 32, 12)
    assert abs(biases.std() - 1) < 0.1  # N(0, 1), as nn.Embedding draws: not 0.02, and not cut
    assert biases.abs().amax() > 2.5
    assert not torch.equal(biases[0], biases[1])


@pytest.mark.parametrize("length", [10, 200])
def test_a_bias_of_zero_is_no_bias(length):
    """ZeroSlopes starts as NoPE, to the rounding of another kernel."""
    idx = tokens(length)
    results = []
    for pos in ("learned_slopes", "nope"):
        torch.manual_seed(0)
        model = GPT(GPTConfig(32, N, 2, 3, 48, pos=pos))
        results.append(logits(model, idx))
    assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_buckets_of_t5():
    """As in its released code: max_exact 16 of 32 buckets, max_distance 128."""
    t5 = T5(GPTConfig(n_head=1, n_embd=16, pos="learned_bias"))
    t5.biases.weight.data[:, 0] = torch.arange(32)
    for distance, bucket in enumerate(t5.bias(1, 300)[0, 0].flip(0).tolist()):
        expected = distance
        if distance >= 16:
            expected = min(16 + int(math.log(distance / 16) / math.log(128 / 16) * 16), 31)
        assert bucket == expected, distance


# The bias on the scores, and ALiBi ---------------------------------------------------------------------


def plain_attention(q, k, v, bias, rows):
    """In float64, of the queries q at the positions `rows` (q_len,); bias (H, q_len, k_len)."""
    q, k, v = q.double(), k.double(), v.double()
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)) + bias
    later = torch.arange(k.size(-2)) > rows[:, None]
    return scores.masked_fill(later, -math.inf).softmax(dim=-1) @ v


# Of y where |y| < 8. The scores have an error of their own, which grows with the position.
ROUNDING = {"float32": 5e-7, "bfloat16": 2**-6, "float16": 2**-9}


@each_device
@each_dtype
@pytest.mark.parametrize(
    "q_len, k_len, n_head, head_dim",
    [
        (512, 512, 8, 16),
        (512, 512, 12, 32),
        (4096, 4096, 3, 24),
        (100, 4096, 12, 24),  # a chunk after a cache
        (1, 4096, 6, 32),  # a single token
        (16, 65_536, 3, 24),  # as far as positions fit into two bfloat16 numbers
        (16, 65_536, 6, 64),
        (1, 65_536, 3, 64),
    ],
)
def test_alibi_is_its_dense_formula(q_len, k_len, n_head, head_dim, dtype, device):
    """In the first rows and the last. With √24 or 12 heads, slopes need more bits than bfloat16 has."""
    q, k, v = torch.randn(3, 1, n_head, k_len, head_dim).to(getattr(torch, dtype))
    alibi = encoding("alibi", head_dim, n_head).to(device)
    past = k_len - q_len
    encoded, new = alibi.encode(q[:, :, past:].to(device), k[:, :, past:].to(device), past)
    _, old = alibi.encode(q[:, :, :past].to(device), k[:, :, :past].to(device), 0)
    y = attention(encoded, torch.cat((old, new), dim=2), v.to(device)).cpu().double()
    some = [*range(min(q_len, 20)), *range(-min(q_len, 20), 0)]
    rows = torch.arange(past, k_len)[some]
    distances = rows[:, None] - torch.arange(k_len)
    dense = -ALiBi.make_slopes(n_head).double()[:, None, None] * distances
    expected = plain_attention(q[:, :, rows], k, v, dense, rows)
    assert_close(y[:, :, some], expected, atol=ROUNDING[dtype] + 4e-8 * k_len, rtol=0)


def test_a_bias_past_the_range_of_float16():
    """The first rows see only keys with a bias of about -51,000, which float16 just holds."""
    q, k, v = torch.randn(3, 1, 1, 512, 16)
    bias = -100.0 * torch.arange(511, -1, -1)[None, None]
    y = attention(q.half(), k.half(), v.half(), bias)[:, :, :20]
    assert_close(y.double(), plain_attention(q[:, :, :20], k, v, bias, torch.arange(20)), atol=0.01, rtol=0)


# Exponents of 2 in the slopes: a geometric series, between powers of two filled up from the next finer one.
SLOPES = {
    1: [-8],
    2: [-4, -8],
    3: [-4, -8, -2],
    6: [-2, -4, -6, -8, -1, -3],
    8: [-1, -2, -3, -4, -5, -6, -7, -8],
}
SLOPES[12] = [*SLOPES[8], -0.5, -1.5, -2.5, -3.5]


def test_alibi_slopes():
    for n_head, exponents in SLOPES.items():
        assert_close(ALiBi.make_slopes(n_head), 2 ** torch.tensor(exponents, dtype=torch.float32))


@pytest.mark.parametrize("first", [0, 20, N - 1])
@pytest.mark.parametrize("heads, rows", [(8, N), (1, N), (8, 1), (1, 1)])
def test_any_bias(heads, rows, first):
    """For all heads or each, for all queries or each, at the start or after a cache; it can be learned."""
    q, k, v = torch.randn(3, 2, 8, N, 16)
    q = q[:, :, first:]
    bias = 3 * torch.randn(heads, rows, N)
    bias = bias[:, first - N :].requires_grad_()
    y = attention(q, k, v, bias)
    expected = plain_attention(q, k, v, bias, torch.arange(first, N))
    assert_close(y.double(), expected, atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(y.square().sum(), bias)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), bias)
    assert_close(gradient, expected_gradient, atol=1e-3, rtol=1e-3)


# RoPE and RoPE-A ---------------------------------------------------------------------------------------


def pairs(x: torch.Tensor) -> torch.Tensor:
    """Dimension m and m + head_dim / 2 as one complex number: (H, T, head_dim / 2)."""
    real, imaginary = x.chunk(2, dim=-1)
    return torch.complex(real.double(), imaginary.double())


def test_rope_turns_complex_numbers():
    x = torch.randn(2, 5, 16)
    y = encode(encoding("rope", head_dim=16, n_head=2), x, start=1000)
    for t in range(5):
        for m in range(8):
            turn = cmath.exp(1j * (1000 + t) * 10000 ** (-2 * m / 16))
            assert_close(pairs(y)[:, t, m], pairs(x)[:, t, m] * turn, atol=1e-3, rtol=0)


def test_rotation_keeps_the_number_format():
    """The table is float32 whatever q and k are, and only what it gives is rounded."""
    rope = encoding("rope")
    x = torch.randn(8, 50, 64).bfloat16()
    y = encode(rope, x, 8000)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, encode(rope, x.float(), 8000).bfloat16())


def test_rope_a_completes_whole_turns():
    rope = encoding("rope").frequencies.double()
    grid = math.tau / 512 * torch.arange(1, 513).double()  # k >= 1
    nearest = (rope[:, None] - grid).abs().argmin(dim=1)
    assert_close(encoding("rope_a").frequencies.double(), grid[nearest], atol=0, rtol=1e-6)
    assert_close(encoding("rope_a", block_size=256).frequencies[-1].item(), math.tau / 256)


def weights(pos: NoPE, q: torch.Tensor, k: torch.Tensor, start: int) -> torch.Tensor:
    """Attention weights of q and k (H, T, head_dim) among each other, at positions start, start + 1, ..."""
    T = q.size(-2)
    head_dim = q.size(-1)
    q, k = pos.encode(q[None], k[None], start)
    scores = (q @ k.transpose(-2, -1))[0] / math.sqrt(head_dim)
    bias = pos.bias(T, start + T)
    if bias is not None:
        scores = scores + bias[..., start:]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf).softmax(dim=-1)


@pytest.mark.parametrize("pos", ["nope", "alibi", "rope", "rope_a", "fope", "learned_bias"])
def test_weights_depend_on_distance_alone(pos):
    """But for FoPE's: the product of two Fourier series has terms that do not."""
    q, k = torch.randn(2, 8, 20, 64)
    for settings in ({"fope_sigma": 0.0}, {"fope_series": False}, {}):
        layer = encoding(pos, **settings)
        difference = (weights(layer, q, k, 0) - weights(layer, q, k, 1000)).abs().amax()
        if pos == "fope" and settings == {}:
            assert difference > 0.01
        else:
            assert difference < 1e-3


# FoPE --------------------------------------------------------------------------------------------------


def test_fope_without_series_and_clip_is_rope():
    fope = encoding("fope", fope_series=False, fope_clip=False)
    x = torch.randn(8, 20, 64)
    assert torch.equal(encode(fope, x, 500), encode(encoding("rope"), x, 500))


@pytest.mark.parametrize("block_size, kept", [(512, 16), (1024, 18), (6, 0)])
def test_fope_floor(block_size, kept):
    """Only frequencies of at least 2π/N are left; the other dimensions pass unchanged, at every position."""
    fope = encoding("fope", block_size=block_size)
    assert len(fope.frequencies) == kept
    assert (fope.frequencies >= math.tau / block_size).all()
    x = torch.randn(8, 9, 64)
    y = encode(fope, x, 100_000)
    zero = torch.arange(64) % 32 >= kept
    assert torch.equal(y[..., zero], x[..., zero])
    assert not torch.isclose(y[..., ~zero], x[..., ~zero]).all(dim=-2).any()


@pytest.mark.parametrize("fope_dim", [0, 64])
def test_fope_is_equation_13(fope_dim):
    fope = encoding("fope", head_dim=16, n_head=2, block_size=N, fope_dim=fope_dim, fope_sigma=1.0)
    x = torch.randn(2, 4, 16)
    y = encode(fope, x, start=30)
    dim = fope_dim or 16
    floor = math.tau / N
    bank = [10000 ** (-2 * i / dim) for i in range(dim // 2)]
    bank = [w for w in bank if w >= floor]
    for h in range(2):
        for n in range(30, 34):
            for m in range(8):
                dominant = 10000 ** (-2 * m / 16)
                factor = 1  # of frequency zero
                if dominant >= floor:
                    factor = cmath.exp(1j * dominant * n)
                    for i, w in enumerate(bank):
                        one = math.isclose(
                            w, dominant
                        )  # the coefficients hold the 1 of the dominant frequency
                        a_cos = fope.cos_coef[h, i, m].item() - one
                        a_sin = fope.sin_coef[h, i, m].item() - one
                        factor += complex(a_cos * math.cos(w * n), a_sin * math.sin(w * n))
                expected = pairs(x)[h, n - 30, m] * factor
                assert_close(pairs(y)[h, n - 30, m], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("fope_dim", [64, 128, 256])
def test_fope_holds_the_frequencies_of_rope(fope_dim):
    """Each dominates its own dimension, with coefficient 1."""
    fope = encoding("fope", fope_dim=fope_dim, fope_sigma=0.0)
    rope = encoding("rope").frequencies[:16]
    assert (fope.frequencies.diff() < 0).all()
    for coef in (fope.cos_coef, fope.sin_coef):
        assert coef.shape == (8, len(fope.frequencies), 16)
        assert ((coef == 0) | (coef == 1)).all()
        assert (coef.sum(dim=1) == 1).all()
        assert_close(fope.frequencies @ coef, rope.expand(8, 16))


@pytest.mark.parametrize("fope_init", ["xavier", "normal"])
def test_fope_coefficients_are_drawn_by_the_formula(fope_init):
    fope = encoding("fope", fope_init=fope_init)
    std = 0.3
    if fope_init == "xavier":
        std *= math.sqrt(2 / (16 * 16 + 8 * 16))  # fan-in and fan-out of a tensor (8 heads, 16, 16)
    noise = torch.stack((fope.cos_coef, fope.sin_coef)) - torch.eye(16)
    assert abs(noise.std() / std - 1) < 0.06
    assert abs(noise.mean() / std) < 0.06
    assert abs(noise.diagonal(dim1=2, dim2=3).std() / std - 1) < 0.2  # a dominant frequency has its a_ω too


def test_fope_coefficients_are_saved_fixed_and_all_different():
    model = tiny("fope", fope_sigma=0.5)
    saved = {name: tensor for name, tensor in model.state_dict().items() if "coef" in name}
    assert len(saved) == 4  # cosine and sine of two layers
    assert not saved.keys() & dict(model.named_parameters()).keys()
    matrices = torch.cat([*saved.values()])  # of every layer and head
    assert len(matrices) == 12
    for i, matrix in enumerate(matrices):
        for earlier in matrices[:i]:
            assert (matrix - earlier).abs().amax() > 0.01


# YaRN, QK-norm, log-length scaling ---------------------------------------------------------------------


def yarn_by_hand(scale: float) -> torch.Tensor:
    """At N = 512, θ = 10000 and 64 dimensions the ramp runs from index 3 to 16 of 32."""
    frequencies = []
    for i in range(32):
        plain = 10000 ** (-i / 32)
        ramp = min(max((i - 3) / 13, 0), 1)
        frequencies.append((1 - ramp) * plain + ramp * plain / scale)
    return torch.tensor(frequencies)


def test_yarn_formula():
    expected = yarn_by_hand(8)
    assert_close(encoding("rope", yarn_scale=8.0).frequencies, expected)
    assert_close(encoding("rope", yarn_scale=8.0, fope_dim=256).frequencies, expected)  # RoPE has no bank
    assert_close(encoding("rope", yarn_scale=8.0, block_size=1024, yarn_length=512).frequencies, expected)
    assert_close(encoding("fope", yarn_scale=8.0).frequencies, expected[:16])


def test_yarn_has_a_length_of_its_own():
    """As in the released fine-tuning at 1024: FoPE's floor is that of 1024, YaRN still stretches 512."""
    settings = {"block_size": 1024, "yarn_scale": 16.0}
    assert_close(encoding("fope", yarn_length=512, **settings).frequencies, yarn_by_hand(16)[:18])
    of_1024 = encoding("fope", **settings).frequencies
    assert len(of_1024) == 18
    assert not torch.isclose(of_1024, yarn_by_hand(16)[:18]).all()
    rope_a = encoding("rope_a", yarn_length=512, **settings)  # its grid, too, is the new length's
    assert_close(rope_a.make_frequencies(), encoding("rope_a", block_size=1024).frequencies)


@pytest.mark.parametrize("pos, dim", [("rope", 64), ("rope_a", 64), ("fope", 64), ("fope", 256)])
def test_yarn_by_turns(pos, dim):
    """Over 32 turns in N a frequency stays, under 1 it slows down by s, never back between; s = 1 is off."""
    plain = encoding(pos, fope_dim=dim, fope_clip=False)
    scaled = encoding(pos, fope_dim=dim, fope_clip=False, yarn_scale=8.0)
    assert torch.equal(plain.frequencies, plain.make_frequencies())
    turns = torch.logspace(0, -4, dim // 2 + 1)[:-1] * 512 / math.tau
    ratio = scaled.frequencies / plain.frequencies
    assert (ratio[turns > 32] == 1).all()
    assert_close(ratio[turns < 1], torch.full_like(ratio[turns < 1], 1 / 8))
    assert (ratio.diff() < 1e-6).all()
    assert ((ratio > 0.2) & (ratio < 0.9)).any()


@pytest.mark.parametrize("pos, kept", [("rope", 32), ("rope_a", 32), ("fope", 16)])
def test_yarn_temperature(pos, kept):
    """cos² + sin² is the square of 0.1 ln s + 1; a zero frequency stays zero."""
    cos, sin = encoding(pos, yarn_scale=8.0, fope_sigma=0.0).table(torch.arange(1, 4096, 97))
    assert_close(cos**2 + sin**2, torch.full_like(cos, (0.1 * math.log(8) + 1) ** 2))
    assert (sin[..., :kept] != 0).all()
    assert (sin[..., kept:] == 0).all()


def attended(monkeypatch, model: GPT, idx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k of the first layer, as attention gets them."""
    seen = []

    def watched(q, k, v, bias=None, dropout=0.0, window=0):
        seen.append((q, k))
        return attention(q, k, v, bias, dropout, window)

    monkeypatch.setattr(model_file, "attention", watched)
    model(idx)
    return seen[0]


def test_qk_norm(monkeypatch):
    """Mean 0 and variance 1 per head and token; rotation then keeps the length, not the mean."""
    for x in attended(monkeypatch, tiny("nope", qk_norm=True), tokens(N)):
        assert_close(x.mean(dim=-1), torch.zeros(2, 3, N), atol=1e-5, rtol=0)
        assert_close(x.var(dim=-1, unbiased=False), torch.ones(2, 3, N), atol=1e-3, rtol=0)
    for x in attended(monkeypatch, tiny("rope", qk_norm=True), tokens(N)):
        assert_close(x.square().mean(dim=-1), torch.ones(2, 3, N), atol=1e-3, rtol=0)
        assert (x[:, :, 1:].mean(dim=-1).abs() > 1e-3).float().mean() > 0.9


@pytest.mark.parametrize("logn_train", [False, True])
@pytest.mark.parametrize("logn_scale", [0.0, 0.7])
@each_encoding
def test_scaled_queries(pos, logn_scale, logn_train, monkeypatch):
    """Times 1 + a (ln n / ln N - 1) past N, times ln n / ln N everywhere, or both; nothing else changes."""
    idx = tokens(3 * N)
    factors = []
    for n in range(1, 3 * N + 1):  # what a query sees: itself, too
        ratio = math.log(n) / math.log(N)
        factor = 1 + logn_scale * max(ratio - 1, 0)
        if logn_train:
            factor *= ratio
        factors.append(factor)
    q, k = attended(monkeypatch, tiny(pos), idx)
    q_scaled, k_scaled = attended(monkeypatch, tiny(pos, logn_scale=logn_scale, logn_train=logn_train), idx)
    added = q.size(-1) - 16  # features of ALiBi, put before those of the content
    assert_close(q_scaled[..., added:], q[..., added:] * torch.tensor(factors)[:, None])
    assert torch.equal(q_scaled[..., :added], q[..., :added])
    assert torch.equal(k_scaled, k)


@each_encoding
def test_logn_scale_changes_nothing_within_the_training_length(pos):
    idx = tokens(N)
    assert torch.equal(logits(tiny(pos), idx), logits(tiny(pos, logn_scale=0.7), idx))


@each_encoding
def test_every_other_layer_sees_only_its_window(pos):
    """There a token reaches as many positions as the window has keys; in the layers between, all after it."""
    window = 5
    model = tiny(pos, n_layer=4, local_window=window)
    x = torch.randn(1, 2 * N, model.config.n_embd)
    other = x.clone()
    other[:, 7] += 1
    for block, reach in zip(model.blocks, (window, 2 * N - 7, window, 2 * N - 7)):
        with torch.no_grad():
            changed = (block(x) != block(other)).any(dim=-1)[0]
        assert changed.nonzero().flatten().tolist() == list(range(7, 7 + reach))


@each_encoding
def test_a_window_of_n_changes_nothing_within_the_training_length(pos):
    idx = tokens(N)
    assert torch.equal(logits(tiny(pos), idx), logits(tiny(pos, local_window=N, logn_train=False), idx))
    plain = tiny(pos, logn_train=True)
    windowed = tiny(pos, logn_train=True, local_window=N)
    assert torch.equal(logits(plain, idx), logits(windowed, idx))
    longer = tokens(2 * N)
    assert not torch.equal(logits(plain, longer), logits(windowed, longer))


def test_a_window_bounds_how_many_keys_a_scaled_query_counts(monkeypatch):
    """In a layer with a window ln n stops there."""
    idx = tokens(3 * N)
    q, _ = attended(monkeypatch, tiny("rope"), idx)
    scaled, _ = attended(monkeypatch, tiny("rope", local_window=5, logn_train=True), idx)
    n = torch.arange(1, 3 * N + 1).clamp(max=5)
    assert_close(scaled, q * (n.log() / math.log(N))[:, None])


# The transformer, its configuration, sampling ----------------------------------------------------------


def test_weights_of_the_60m_model():
    model = GPT(GPTConfig(n_layer=1))
    block = model.blocks[0]
    in_block = sum(parameter.numel() for parameter in block.parameters())
    assert 8 * in_block == 8 * (16 * 512**2 + 2 * 512)  # 33.6M
    assert model.wte.weight.numel() == model.lm_head.weight.numel() == 50304 * 512  # 25.8M, not tied
    assert model.num_params() == in_block + 50304 * 512 + 512
    for weight in (block.attn.c_attn.weight, block.mlp.c_proj.weight, model.wte.weight, model.lm_head.weight):
        assert 0.059 < weight.abs().amax() <= 0.06001  # normal with std 0.02, cut at three of them
        assert abs(weight.std() - 0.0197) < 2e-4
    assert all(name.endswith("weight") for name, _ in model.named_parameters())  # no biases


def test_swiglu_and_rmsnorm():
    block = tiny().blocks[0]
    x = torch.randn(5, 48)
    up, gate = (block.mlp.c_fc.weight @ x.T).split(4 * 48)
    assert_close(block.mlp(x), (block.mlp.c_proj.weight @ (gate * gate.sigmoid() * up)).T)
    assert_close(block.norm_1(x), x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt())


def test_pre_norm_and_residuals():
    """Both halves of a block read the normed stream and add to it; lm_head reads it normed, too."""
    model = tiny()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = torch.rand_like(parameter) + 0.5
    idx = tokens(N)
    x = model.wte(idx)
    for block in model.blocks:
        assert block.norm_1.eps == block.norm_2.eps == model.norm.eps == 1e-6
        x = x + block.attn(block.norm_1(x))
        x = x + block.mlp(block.norm_2(x))
    assert_close(logits(model, idx), model.lm_head(model.norm(x)))


def test_dropout():
    """In training, of the embedding and of what attention and MLP add; never afterwards."""
    model = tiny(dropout=0.5)
    block = model.blocks[0]
    seen = []
    block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block.dropout.register_forward_hook(lambda _, inputs, output: seen.append(output))
    idx = tokens(N)
    for training, share in ((True, 0.5), (False, 0.0)):
        seen.clear()
        model.train(training)
        model(idx)
        assert len(seen) == 3  # the embedding, what attention adds, what the MLP adds
        for x in seen:
            assert abs((x == 0).float().mean() - share) < 0.03
    assert torch.equal(model(idx)[0], model(idx)[0])


def test_dropout_of_attention_weights(monkeypatch):
    """The mean of ones is one, but not of those that are left. The model asks for it in training alone."""
    q = k = torch.zeros(1, 3, N, 16)
    y = attention(q, k, torch.ones(1, 3, N, 16), dropout=0.5)
    assert abs(y.mean() - 1) < 0.2
    assert ((y - 1).abs() > 0.01).float().mean() > 0.8
    shares = []

    def watched(q, k, v, bias=None, dropout=0.0, window=0):
        shares.append(dropout)
        return attention(q, k, v, bias, dropout, window)

    monkeypatch.setattr(model_file, "attention", watched)
    model = tiny(dropout=0.5)
    model.train()(tokens(N))
    model.eval()(tokens(N))
    assert shares == [0.5, 0.5, 0.0, 0.0]


def test_logits_and_loss():
    model, idx, targets = tiny(), tokens(N), tokens(N)
    (every, loss), (last, none) = model(idx, targets), model(idx)
    assert every.shape == (2, N, 32) and last.shape == (2, 1, 32) and none is None
    assert_close(last, every[:, -1:])
    losses = -every.log_softmax(dim=-1).gather(-1, targets[:, :, None])[:, :, 0]
    assert_close(loss, losses.mean())
    targets[0, 5:] = -1  # these do not count; the 5 of this row weigh as much as the N of the other
    assert_close(model(idx, targets)[1], (losses[0, :5].mean() + losses[1].mean()) / 2)


IMPOSSIBLE = [
    ("pos", {"pos": "rotary"}),
    ("pos", {"pos": None}),
    ("head_dim", {"n_embd": 45}),
    ("n_head", {"n_head": 7}),  # 48 is not divisible by it
    ("n_head", {"n_head": None}),
    ("n_layer", {"n_layer": 0}),
    ("n_layer", {"n_layer": "3"}),
    ("n_layer", {"n_layer": True}),
    ("n_layer", {"n_layer": 2.0}),
    ("n_embd", {"n_embd": [48]}),
    ("vocab_size", {"vocab_size": 0}),
    ("block_size", {"block_size": 1}),  # ln N would be zero
    ("block_size", {"block_size": "64"}),
    ("dropout", {"dropout": 1.0}),
    ("dropout", {"dropout": -0.1}),
    ("dropout", {"dropout": math.nan}),
    ("rope_theta", {"rope_theta": 1.0}),
    ("rope_theta", {"rope_theta": math.inf}),
    ("rope_theta", {"rope_theta": math.nan}),
    ("fope_sigma", {"fope_sigma": -0.1}),
    ("fope_sigma", {"fope_sigma": math.inf}),
    ("fope_dim", {"fope_dim": 24}),
    ("fope_dim", {"fope_dim": -16}),
    ("fope_init", {"fope_init": "x"}),
    ("fope_series", {"fope_series": 1}),
    ("fope_clip", {"fope_clip": "False"}),
    ("yarn_scale", {"yarn_scale": 0.5}),
    ("yarn_scale", {"yarn_scale": False}),
    ("yarn_length", {"yarn_length": -1}),
    ("yarn_length", {"yarn_length": None}),
    ("qk_norm", {"qk_norm": 0}),
    ("logn_scale", {"logn_scale": -0.5}),
    ("logn_scale", {"logn_scale": math.nan}),
    ("logn_scale", {"logn_scale": "1"}),
    ("logn_train", {"logn_train": 1.0}),
    ("local_window", {"local_window": -1}),
    ("local_window", {"local_window": 1.5}),
]


@pytest.mark.parametrize("name, settings", IMPOSSIBLE, ids=str)
def test_impossible_configurations(name, settings):
    """One line that names the setting."""
    sizes = {"vocab_size": 32, "block_size": N, "n_layer": 2, "n_head": 3, "n_embd": 48}
    with pytest.raises(ValueError, match=rf"\A[^\n]*\b{name}\b[^\n]*\Z"):
        GPT(GPTConfig(**sizes | settings))


def test_possible_configurations():
    """At the edges of what is allowed; an int does for a float, and NoPE and ALiBi take an odd head_dim."""
    assert tiny(yarn_scale=2, fope_sigma=0, logn_scale=1, dropout=0).config.yarn_scale == 2
    assert len(encoding("fope", head_dim=2, block_size=2).frequencies) == 0
    for pos in ("nope", "alibi", "learned_bias"):
        assert tiny(pos, n_embd=45)(tokens(N))[0].isfinite().all()
    with pytest.raises(
        ValueError, match=", ".join(POSITIONS)
    ):  # an unknown name is answered with all known ones
        tiny("rotary")


def test_temperature_and_top_k():
    model, idx = tiny(), tokens(1, batch=1).expand(5000, -1)
    doubled = 2 * model(idx[:1])[0][0, 0].detach()
    drawn = next(model.stream(idx, 1, temperature=0.5)).flatten()
    assert_close(drawn.bincount(minlength=32) / 5000, doubled.softmax(dim=0), atol=0.03, rtol=0)
    drawn = next(model.stream(idx, 1, temperature=5.0, top_k=3)).unique()
    assert drawn.tolist() == sorted(doubled.topk(3).indices.tolist())
    greedy = model.generate(idx[:2], 8, temperature=0)
    assert torch.equal(model.generate(idx[:2], 8, top_k=1), greedy)
    assert torch.equal(model.generate(idx[:2], 8, temperature=1e-40), greedy)
    assert torch.equal(model.generate(idx[:2], 8, temperature=0, top_k=5), greedy)
    assert model.generate(idx[:2], 3, top_k=1000).shape == (2, 4)


# Device, number format, checkpoints --------------------------------------------------------------------


META = {"encoding": "bytes", "sha256": "0" * 64}


def save(network: GPT, out_dir: Path, **changes) -> None:
    config = asdict(network.config) | {"dataset": "python"}
    checkpoint = {"model": network.state_dict(), "config": config, "iter": 7, "meta": META}
    torch.save(checkpoint | changes, out_dir / "ckpt.pt")


def refused(out_dir: Path, says: str) -> None:
    with pytest.raises(SystemExit, match=rf"\Aerror: [^\n]*{says}[^\n]*\Z"):
        load_checkpoint(str(out_dir), CPU)


class Code:
    def __reduce__(self):  # unpickling makes a file
        return Path.touch, (Path("code_ran"),)


def test_files_that_are_no_checkpoint_end_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, "No such file")
    save(tiny(), tmp_path, model=Code())
    refused(tmp_path, "cannot load")
    assert not Path("code_ran").exists()
    save(tiny(), tmp_path)
    whole = Path("ckpt.pt").read_bytes()
    Path("ckpt.pt").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, "cannot load")
    for content in ({"weights": 1}, [1], None):
        torch.save(content, "ckpt.pt")
        refused(tmp_path, "cannot load")


CONFIG = asdict(GPTConfig(32, N, 2, 3, 48)) | {"dataset": "python"}
DAMAGED = [
    ("size mismatch", {"config": CONFIG | {"n_embd": 96}}),
    ("fope_dim 20", {"config": CONFIG | {"fope_dim": 20}}),
    ("block_size", {"config": CONFIG | {"block_size": "64"}}),
    ("n_layer", {"config": CONFIG | {"n_layer": None}}),
    ("cannot load", {"config": {"n_layer": 2}}),
    ("cannot load", {"config": None}),
    ("cannot load", {"model": {}}),
    ("cannot load", {"model": None}),
    ("step", {"iter": -1}),
    ("step", {"iter": None}),
    ("step", {"iter": "7"}),
    ("step", {"iter": True}),
    ("step", {"iter": 7.0}),
    ("cannot load", {"meta": None}),
    ("cannot load", {"meta": {}}),
    ("corpus", {"meta": META | {"encoding": None}}),
    ("corpus", {"meta": META | {"sha256": 0}}),
    ("corpus", {"config": CONFIG | {"dataset": None}}),
]


@pytest.mark.parametrize("says, changes", DAMAGED, ids=str)
def test_damaged_checkpoints_end_in_one_line(says, changes, tmp_path):
    save(tiny(), tmp_path, **changes)
    refused(tmp_path, says)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["blocks.1.mlp.c_fc.weight", "norm.weight", "blocks.0.attn.pos.sin_coef"])
def test_numbers_that_are_not_finite_end_in_one_line(name, value, tmp_path):
    """A run that has diverged is no model, whose accuracy would be 0 %."""
    model = tiny()
    model.state_dict()[name].flatten()[5] = value
    save(model, tmp_path)
    refused(tmp_path, "not finite")


def test_finite_weights_that_give_infinite_logits_end_in_one_line(tmp_path):
    """An arg-max would still find a token in them, and sampling would end in a traceback."""
    model = tiny()
    model.norm.weight.data.fill_(3e38)
    model.lm_head.weight.data.fill_(3e38)
    save(model, tmp_path)
    refused(tmp_path, "logits are not finite")


@pytest.mark.filterwarnings("error")  # as PyTorch gives for an autocast to float32
def test_device_and_number_format():
    with pytest.raises(SystemExit, match=r"\Aerror: [^\n]*nonsense[^\n]*\Z"):
        pick_device("nonsense")
    assert pick_device("cpu") == CPU
    assert pick_device().type in DEVICES
    for name in ("float32", "bfloat16", "float16"):
        with autocast(CPU, name):
            every, loss = tiny()(tokens(N), tokens(N))
        assert every.dtype == getattr(torch, name)
        assert loss.dtype == torch.float32
