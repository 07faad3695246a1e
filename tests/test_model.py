"""
What the model promises: python -m pytest tests/test_model.py

Tests with `pos` among their arguments walk model.POSITIONS, so an encoding registered there is tested without
a line here. Two learned ones, added below as a reader would add them, walk along. The other tests hold each
part to its paper, by formulas written out a second time in plain loops and complex numbers.
"""

import cmath
import math
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from model import (
    GPT,
    POSITIONS,
    ALiBi,
    CausalSelfAttention,
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


class LearnedBias(NoPE):
    """T5's relative bias in short: each head learns a number for each distance, one for all from 31 on."""

    def __init__(self, config):
        super().__init__(config)
        self.biases = nn.Embedding(32, config.n_head)

    def bias(self, q_len, k_len):
        device = self.biases.weight.device
        i = torch.arange(k_len - q_len, k_len, device=device)[:, None]  # queries
        j = torch.arange(k_len, device=device)  # keys
        distance = (i - j).clamp(min=0, max=31)
        return self.biases(distance).permute(2, 0, 1)  # (H, q_len, k_len)


class LearnedVectors(NoPE):
    """Learned vectors, one a position, that are added to q and to k; the last one serves all from N on."""

    def __init__(self, config):
        super().__init__(config)
        self.vectors = nn.Embedding(config.block_size, config.head_dim)

    def encode(self, q, k, start):
        positions = torch.arange(start, start + q.size(-2), device=q.device)
        added = self.vectors(positions.clamp(max=self.config.block_size - 1))  # (T, head_dim)
        return q + added, k + added


# Under names that a reader's own encodings hardly have: those are tested beside them.
LEARNED = {"test_bias": LearnedBias, "test_vectors": LearnedVectors}
each_encoding = pytest.mark.parametrize("pos", [*POSITIONS, *LEARNED])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
each_device = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture(autouse=True)
def register(monkeypatch):
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


def logits(model: GPT, idx: torch.Tensor, cache: list[dict] | None = None) -> torch.Tensor:
    return model.lm_head(model.hidden(idx, cache))


def encoding(pos: str, head_dim: int = 64, n_head: int = 8, **settings) -> NoPE:
    """By default that of the paper's 60M model, with N = 512."""
    return POSITIONS[pos](GPTConfig(pos=pos, n_head=n_head, n_embd=n_head * head_dim, **settings))


def encode(pos: NoPE, x: torch.Tensor, start: int) -> torch.Tensor:
    """x (H, T, head_dim) as a query at the positions start, start + 1, ..."""
    return pos.encode(x[None], x[None], start)[0][0]


def plain_attention(q, k, v, bias, positions, window=0):
    """In float64 and with a dense bias (H, q_len, k_len), for queries at `positions` (q_len,)."""
    scores = q.double() @ k.double().transpose(-2, -1) / math.sqrt(v.size(-1)) + bias
    distance = positions[:, None] - torch.arange(k.size(-2))
    hidden = distance < 0
    if window > 0:
        hidden = hidden | (distance >= window)
    return scores.masked_fill(hidden, -math.inf).softmax(dim=-1) @ v.double()


# Every encoding ----------------------------------------------------------------------------------------


@each_device
@each_dtype
@each_encoding
def test_causal_and_finite_far_beyond_the_training_length(pos, dtype, device):
    """At 8N a changed token changes what follows it and not a bit of what stands before it."""
    model = tiny(pos).to(device)
    idx = tokens(8 * N).to(device)
    changed = idx.clone()
    changed[:, 40] = (idx[:, 40] + 1) % 32
    with autocast(torch.device(device), dtype):
        before = logits(model, idx)
        after = logits(model, changed)
    assert before.dtype == getattr(torch, dtype)
    assert before.isfinite().all()
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40], after[:, 40])
    assert not torch.equal(before[:, 41:], after[:, 41:])


@each_encoding
def test_order(pos):
    """One layer of NoPE sees the set of earlier tokens; every other encoding makes it see their order."""
    model = tiny(pos, n_layer=1)
    idx = tokens(60)
    idx[1] = idx[0, [*range(58, -1, -1), 59]]  # all but the last token, backwards
    forwards, backwards = model(idx)[0]
    assert torch.allclose(forwards, backwards, atol=1e-3) == (POSITIONS[pos] is NoPE)


SETTINGS = [
    {},
    {"yarn_scale": 4.0},
    {"qk_norm": True},
    {"logn": True},
    {"local_window": 5, "logn": True, "qk_norm": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@each_encoding
def test_cached_is_uncached(pos, settings):
    """A prefill, a second chunk, then token by token, past the training length, give the same logits."""
    model = tiny(pos, **settings)
    idx = tokens(N + 16)
    cache = [{} for _ in model.blocks]
    parts = idx.split([12, 54] + [1] * 14, dim=1)
    cached = [logits(model, part, cache) for part in parts]
    assert_close(torch.cat(cached, dim=1), logits(model, idx), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"local_window": 5, "qk_norm": True, "logn": True}], ids=str)
@each_encoding
def test_a_layer_is_attention_over_what_its_encoding_gives(pos, settings):
    """q and k are normed, q is scaled, both are encoded; then softmax(q · k / √head_dim + bias) v."""
    layer = tiny(pos, **settings).blocks[0].attn
    x = torch.randn(2, 2 * N, 48)
    heads = []
    for weight in layer.c_attn.weight.split(48):
        heads.append((x @ weight.T).view(2, 2 * N, 3, 16).transpose(1, 2))
    q, k, v = heads
    if settings:
        n = torch.arange(1, 2 * N + 1).clamp(max=5)  # how many keys a query sees
        q = F.layer_norm(q, (16,)) * (n.log() / math.log(N))[:, None]
        k = F.layer_norm(k, (16,))
    q, k = layer.pos.encode(q, k, 0)
    bias = layer.pos.bias(2 * N, 2 * N)
    bias = 0 if bias is None else bias
    y = plain_attention(q, k, v, bias, torch.arange(2 * N), layer.window)
    expected = y.transpose(1, 2).reshape(2, 2 * N, 48).float() @ layer.c_proj.weight.T
    assert_close(layer(x), expected, atol=1e-4, rtol=1e-3)


@each_encoding
def test_autocast_leaves_positions_alone(pos):
    """In it, too, encodings tell 8190 from 8191, which in bfloat16 are one position."""
    pos = encoding(pos, block_size=16_384)
    q, k = torch.randn(2, 1, 8, 5, 64).bfloat16()  # as attention gives them in it
    exact = [*pos.encode(q.float(), k.float(), 8190), pos.bias(5, 8195)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = [*pos.encode(q, k, 8190), pos.bias(5, 8195)]
    for before, after in zip(exact, cast):
        if before is not None:
            assert_close(after.float(), before, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("pos", ["rope", "rope_a", "fope"])
def test_tables_stay_float32(pos):
    """Autocast does not touch cosine and sine, FoPE's sums included."""
    table = encoding(pos).table
    positions = torch.arange(8190, 8200)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = table(positions)
    for before, after in zip(table(positions), cast):
        assert after.dtype == torch.float32 and torch.equal(before, after)


@each_encoding
def test_other_weights_do_not_depend_on_the_encoding(pos):
    """A seed gives the same embeddings, attention and MLP, so that runs differ in their positions alone."""
    weights = dict(tiny(pos).named_parameters())
    for name, weight in tiny("nope").named_parameters():
        assert torch.equal(weights[name], weight), name


@each_encoding
def test_learns(pos):
    """Gradients reach every weight, q's, k's and v's each; a batch is learnt by heart."""
    model = GPT(GPTConfig(32, N, 1, 3, 48, pos=pos))
    idx = tokens(33)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    for _ in range(60):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gradients = [parameter.grad for parameter in model.parameters()]
    gradients += model.blocks[0].attn.c_attn.weight.grad.chunk(3)
    assert all(gradient.abs().amax() > 0 for gradient in gradients)
    assert loss < 0.3


@each_encoding
def test_attention_compiles_to_one_graph(pos):
    """No break in it; the second length makes its lengths symbols, and then it holds for every other one."""
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    layer = tiny(pos, n_layer=1, logn=True, qk_norm=True).blocks[0].attn
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for length in (16, 24, 2 * N):
        x = torch.randn(2, length, 48)
        assert_close(compiled(x), layer(x))
    assert graphs["unique_graphs"] <= 2


def test_the_model_compiles_to_one_graph():
    """With its loss, and with local layers, as train.py compiles it."""
    model = tiny(local_window=5)
    idx = tokens(24)
    loss = torch.compile(model, backend="eager", fullgraph=True)(idx, idx)[1]
    assert_close(loss, model(idx, idx)[1])
    loss.backward()


# The scores: bias, ALiBi, QK-norm, log-n, windows ------------------------------------------------------


@pytest.mark.parametrize("window", [0, 7])
@pytest.mark.parametrize("first", [0, 20, N - 1])
@pytest.mark.parametrize("heads, rows", [(8, N), (1, N), (8, 1), (1, 1)])
def test_any_bias(heads, rows, first, window):
    """For all heads or each, for all queries or each, at the start or after a cache; it can be learned."""
    q, k, v = torch.randn(3, 2, 8, N, 16)
    q = q[:, :, first:]
    bias = 3 * torch.randn(heads, rows, N)
    bias = bias[:, first - N :].requires_grad_()
    y = attention(q, k, v, bias, window)
    expected = plain_attention(q, k, v, bias, torch.arange(first, N), window)
    assert_close(y.double(), expected, atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(y.square().sum(), bias)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), bias)
    assert_close(gradient, expected_gradient, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("window", [1, 5, 30])
@pytest.mark.parametrize("first", [0, 50, 2 * N - 1])
def test_any_window(first, window):
    """A query sees its own key and those before it, as many as the window says; after a cache, too."""
    q, k, v = torch.randn(3, 2, 8, 2 * N, 16)
    q = q[:, :, first:]
    expected = plain_attention(q, k, v, 0, torch.arange(first, 2 * N), window)
    assert_close(attention(q, k, v, window=window).double(), expected, atol=1e-5, rtol=0)


def test_a_bias_may_be_large():
    """Later keys stay hidden where all that a query sees has a bias of -50,000."""
    q, k, v = torch.randn(3, 2, 8, N, 16)
    bias = torch.randn(8, N, N)
    assert_close(attention(q, k, v, bias - 50_000), attention(q, k, v, bias), atol=0.05, rtol=0)


# Rounding of y where |y| < 8.
ROUNDING = {"float32": 5e-7, "bfloat16": 2**-6, "float16": 2**-9}


@each_device
@each_dtype
@pytest.mark.parametrize(
    "q_len, k_len, n_head, head_dim",
    [
        (512, 512, 8, 16),
        (50, 4096, 12, 24),  # after a cache; with √24 or 12 heads, slopes need more bits than bfloat16 has
        (1, 4096, 6, 32),
    ],
)
def test_alibi_is_its_dense_formula(q_len, k_len, n_head, head_dim, dtype, device):
    """-m (i - j) on the scores, to the rounding of the number format.

    To it comes an error that grows with the position, since the bias is computed as m j, in float32.
    """
    q, k, v = torch.randn(3, 1, n_head, k_len, head_dim).to(getattr(torch, dtype))
    past = k_len - q_len
    q = q[:, :, past:]
    alibi = encoding("alibi", head_dim, n_head).to(device)
    encoded_q, _ = alibi.encode(q.to(device), q.to(device), past)
    _, encoded_k = alibi.encode(k.to(device), k.to(device), 0)
    y = attention(encoded_q, encoded_k, v.to(device)).cpu().double()
    positions = torch.arange(past, k_len)
    distance = positions[:, None] - torch.arange(k_len)
    dense = -ALiBi.make_slopes(n_head).double()[:, None, None] * distance
    expected = plain_attention(q, k, v, dense, positions)
    assert_close(y, expected, atol=ROUNDING[dtype] + 3e-7 * k_len, rtol=0)


@each_dtype
def test_alibi_is_finer_than_the_number_format(dtype):
    """q · k holds m j to 1 in 10,000 up to position 65,535; bfloat16 alone has 1 in 256."""
    nothing = torch.zeros(1, 12, 100, 24, dtype=getattr(torch, dtype))
    q, k = encoding("alibi", 24, 12).encode(nothing, nothing, 65_436)
    scores = q.double() @ k.double().mT / math.sqrt(24)
    slopes = ALiBi.make_slopes(12).double()[:, None, None]
    expected = slopes * torch.arange(65_436, 65_536)
    assert_close(scores[0], expected.expand(12, 100, 100), rtol=1e-4, atol=0)


def test_alibi_slopes():
    """Powers of two in a geometric series; between powers of two heads, filled up from the next finer one."""
    exponents = {
        1: [-8],
        2: [-4, -8],
        3: [-4, -8, -2],
        6: [-2, -4, -6, -8, -1, -3],
        12: [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5],
    }
    for n_head, powers in exponents.items():
        assert_close(ALiBi.make_slopes(n_head), 2 ** torch.tensor(powers, dtype=torch.float32))


def entering(layer: CausalSelfAttention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k (B, H, T, head_dim) as the layer's encoding gets them."""
    encode = layer.pos.encode
    seen = []

    def watched(q, k, start):
        seen.extend((q, k))
        return encode(q, k, start)

    layer.pos.encode = watched
    layer(x)
    return tuple(seen)


def test_qk_norm():
    """q and k have mean 0 and variance 1 in each head, before positions are written into them."""
    for x in entering(tiny(qk_norm=True).blocks[0].attn, torch.randn(2, N, 48)):
        assert_close(x.mean(dim=-1), torch.zeros(2, 3, N), atol=1e-5, rtol=0)
        assert_close(x.var(dim=-1, unbiased=False), torch.ones(2, 3, N), atol=1e-3, rtol=0)


@pytest.mark.parametrize("layer, window", [(0, 0), (0, 5), (1, 5)])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_scaled_queries(qk_norm, layer, window):
    """A query that sees n keys is multiplied by ln n / ln N before it is encoded, a key by nothing."""
    x = torch.randn(2, 3 * N, 48)
    plain = tiny(qk_norm=qk_norm, local_window=window).blocks[layer].attn
    scaling = tiny(qk_norm=qk_norm, local_window=window, logn=True).blocks[layer].attn
    q, k = entering(plain, x)
    q_scaled, k_scaled = entering(scaling, x)
    for i in range(3 * N):
        n = i + 1  # itself, too
        if layer == 0 and window > 0:
            n = min(n, window)
        assert_close(q_scaled[:, :, i], q[:, :, i] * math.log(n) / math.log(N))
    assert torch.equal(k_scaled, k)


def test_local_and_global_layers():
    """Layers 0, 2, 4 ... have the window; pos_global is the encoding of the others."""
    model = tiny("rope", n_layer=4, local_window=5)
    assert [block.attn.window for block in model.blocks] == [5, 0, 5, 0]
    assert [type(block.attn.pos) for block in model.blocks] == [RoPE, RoPE, RoPE, RoPE]
    model = tiny("rope", n_layer=4, local_window=5, pos_global="nope")
    assert [type(block.attn.pos) for block in model.blocks] == [RoPE, NoPE, RoPE, NoPE]
    with pytest.raises(SystemExit, match="local_window"):
        tiny("rope", pos_global="nope")


@pytest.mark.parametrize("pos", ["nope", "alibi", "rope", "rope_a", "fope", "test_bias"])
def test_attention_depends_on_distance_alone(pos):
    """But for FoPE's: the product of two Fourier series has terms that do not."""
    q, k, v = torch.randn(3, 1, 8, 20, 64)
    for settings in ({"fope_sigma": 0.0}, {"fope_series": False}, {}):
        layer = encoding(pos, **settings)
        attended = []
        for start in (0, 1000):
            bias = layer.bias(20, start + 20)
            if bias is not None:
                bias = bias[..., start:]
            attended.append(attention(*layer.encode(q, k, start), v, bias))
        difference = (attended[0] - attended[1]).abs().amax()
        has_series = pos == "fope" and settings == {}
        assert difference > 0.01 if has_series else difference < 1e-3


# RoPE and RoPE-A ---------------------------------------------------------------------------------------


def pairs(x: torch.Tensor) -> torch.Tensor:
    """Dimension m and m + head_dim / 2 as one complex number: (H, T, head_dim / 2)."""
    real, imaginary = x.chunk(2, dim=-1)
    return torch.complex(real.double(), imaginary.double())


def test_rope_turns_complex_numbers():
    """By e^(i ω_m n) at position n, with ω_m = θ^(-2m/M); in bfloat16, only the result is rounded."""
    rope = encoding("rope", head_dim=16, n_head=2, rope_theta=500.0)
    x = torch.randn(2, 5, 16).bfloat16()
    y = encode(rope, x.float(), start=1000)
    for t in range(5):
        for m in range(8):
            turn = cmath.exp(1j * (1000 + t) * 500 ** (-2 * m / 16))
            assert_close(pairs(y)[:, t, m], pairs(x)[:, t, m] * turn, atol=1e-3, rtol=0)
    assert torch.equal(encode(rope, x, start=1000), y.bfloat16())


def test_rope_a_completes_whole_turns():
    """Each of RoPE's frequencies becomes the nearest 2πk/N with k >= 1."""
    rope = encoding("rope").frequencies.double()
    grid = math.tau / 512 * torch.arange(1, 513).double()
    nearest = (rope[:, None] - grid).abs().argmin(dim=1)
    assert_close(encoding("rope_a").frequencies.double(), grid[nearest], atol=0, rtol=1e-6)


# FoPE --------------------------------------------------------------------------------------------------


def test_fope_without_series_and_clip_is_rope():
    """To the bit: FoPE is RoPE and these two changes."""
    fope = encoding("fope", fope_series=False, fope_clip=False)
    x = torch.randn(8, 20, 64)
    assert torch.equal(encode(fope, x, 500), encode(encoding("rope"), x, 500))


@pytest.mark.parametrize("block_size, kept", [(512, 16), (1024, 18), (7, 1)])
def test_fope_floor(block_size, kept):
    """Frequencies below 2π/N are zero: their dimensions pass unchanged, at every position."""
    fope = encoding("fope", block_size=block_size)
    assert len(fope.frequencies) == kept
    x = torch.randn(8, 9, 64)
    y = encode(fope, x, 100_000)
    zero = torch.arange(64) % 32 >= kept
    assert torch.equal(y[..., zero], x[..., zero])
    assert not torch.isclose(y[..., ~zero], x[..., ~zero]).all(dim=-2).any()


def test_fope_keeps_a_frequency_at_the_floor(monkeypatch):
    """2π/N itself is not below it: it makes one whole turn in the training length."""
    floor = torch.tensor(math.tau / 512)
    bank = torch.stack((2 * floor, floor, 0.99 * floor))

    def at_the_floor(rope):
        return bank

    monkeypatch.setattr(RoPE, "make_frequencies", at_the_floor)
    assert torch.equal(encoding("fope", head_dim=6).frequencies, bank[:2])


@pytest.mark.parametrize("fope_dim", [0, 32, 64])
def test_fope_is_equation_13(fope_dim):
    """Pair m is multiplied by e^(i ω_m n) + Σ a_ω (cos ω n, sin ω n) over the bank, with D = M, 2M and 4M."""
    fope = encoding("fope", head_dim=16, n_head=2, block_size=N, fope_dim=fope_dim)
    x = torch.randn(2, 4, 16)
    y = encode(fope, x, start=30)
    D = fope_dim or 16
    floor = math.tau / N
    bank = [10000 ** (-2 * i / D) for i in range(D // 2)]
    bank = [w for w in bank if w >= floor]
    for h in range(2):
        for n in range(30, 34):
            for m in range(8):
                dominant = 10000 ** (-2 * m / 16)
                factor = 1  # of frequency zero
                if dominant >= floor:
                    factor = cmath.exp(1j * dominant * n)
                    for i, w in enumerate(bank):
                        one = math.isclose(w, dominant)  # which the coefficients hold for ω_m
                        a_cos = fope.cos_coef[h, i, m].item() - one
                        a_sin = fope.sin_coef[h, i, m].item() - one
                        assert abs(a_cos) < 0.5 and abs(a_sin) < 0.5
                        factor += complex(a_cos * math.cos(w * n), a_sin * math.sin(w * n))
                expected = pairs(x)[h, n - 30, m] * factor
                assert_close(pairs(y)[h, n - 30, m], expected, atol=1e-3, rtol=0)


# Xavier: gain 0.3, and the fan-in and fan-out that PyTorch gives a tensor of (8 heads, 16, 16)
@pytest.mark.parametrize(
    "fope_init, std", [("normal", 0.3), ("xavier", 0.3 * (2 / (16 * 16 + 8 * 16)) ** 0.5)]
)
def test_scale_of_fope_coefficients(fope_init, std):
    """N(0, σ) as in the paper's text, or Xavier-normal as in its code: 0.022 for the 60M model."""
    if fope_init == "xavier":
        assert round(std, 3) == 0.022
    fope = encoding("fope", fope_init=fope_init)
    for coef in (fope.cos_coef, fope.sin_coef):
        noise = coef - torch.eye(16)
        assert abs(noise.std() / std - 1) < 0.08
        assert abs(noise.mean() / std) < 0.08
        assert abs(noise.diagonal(dim1=1, dim2=2).std() / std - 1) < 0.3  # ω_m has its own, too


def test_fope_coefficients_are_saved_fixed_and_all_different():
    """A checkpoint keeps them, no optimizer moves them; cosine, sine, each head and layer draw their own."""
    model = tiny("fope", fope_sigma=0.5)
    saved = {name: tensor for name, tensor in model.state_dict().items() if "coef" in name}
    assert len(saved) == 4  # cosine and sine of two layers
    assert not saved.keys() & dict(model.named_parameters()).keys()
    matrices = torch.cat([*saved.values()])
    assert len(matrices) == 4 * 3
    for i, matrix in enumerate(matrices):
        for earlier in matrices[:i]:
            assert (matrix - earlier).abs().amax() > 0.01


# YaRN --------------------------------------------------------------------------------------------------


def yarn_by_hand(plain: torch.Tensor, dim: int, length: int, theta: float, scale: float) -> torch.Tensor:
    """Frequencies mixed with their share divided by the scale: a ramp from 32 turns in the length to 1."""
    start = dim * math.log(length / (32 * math.tau)) / (2 * math.log(theta))
    end = dim * math.log(length / math.tau) / (2 * math.log(theta))
    start = max(math.floor(start), 0)
    end = min(math.ceil(end), dim - 1)
    mixed = []
    for m, frequency in enumerate(plain.tolist()):
        share = (m - start) / (end - start) if start < end else float(m > start)
        share = min(max(share, 0), 1)
        mixed.append((1 - share) * frequency + share * frequency / scale)
    return torch.tensor(mixed)


@pytest.mark.parametrize(
    "pos, dim, settings",
    [
        ("rope", 64, {}),
        ("rope", 64, {"fope_dim": 256}),  # RoPE has no bank
        ("rope", 64, {"block_size": 100}),  # no frequency makes 32 turns
        ("rope", 64, {"block_size": 6}),  # none makes one
        ("rope", 64, {"rope_theta": 8.0}),  # all make more
        ("rope", 64, {"block_size": 1024, "yarn_length": 512}),
        ("rope_a", 64, {}),
        ("fope", 64, {}),
        ("fope", 64, {"block_size": 1024, "yarn_length": 512}),  # the floor stays that of 1024
        ("fope", 256, {"fope_dim": 256}),
    ],
)
def test_yarn_is_its_formula(pos, dim, settings):
    """For RoPE, RoPE-A and FoPE, which clips before; at N = 512 the ramp runs from index 3 to 16 of 32."""
    pos = encoding(pos, yarn_scale=8.0, **settings)
    length = pos.config.yarn_length or pos.config.block_size
    expected = yarn_by_hand(pos.make_frequencies(), dim, length, pos.config.rope_theta, 8.0)
    assert_close(pos.frequencies, expected)


@pytest.mark.parametrize("pos, kept", [("rope", 32), ("rope_a", 32), ("fope", 16)])
def test_yarn_sharpens_attention(pos, kept):
    """cos² + sin² is the square of 0.1 ln s + 1, of FoPE's zero frequencies, too."""
    cos, sin = encoding(pos, yarn_scale=8.0, fope_sigma=0.0).table(torch.arange(1, 4096, 97))
    assert_close(cos**2 + sin**2, torch.full_like(cos, (0.1 * math.log(8) + 1) ** 2))
    assert (sin[..., :kept] != 0).all()
    assert (sin[..., kept:] == 0).all()


# The transformer, its loss, sampling -------------------------------------------------------------------


def test_weights_at_the_start():
    """Normal with std 0.02, cut at three of them, without biases and without ties; norms are one."""
    model = GPT(GPTConfig(1000, n_layer=1))
    block = model.blocks[0]
    in_block = sum(parameter.numel() for parameter in block.parameters())
    assert in_block == 16 * 512**2 + 2 * 512  # times 8 layers, the 33.6M of the paper's 60M
    assert model.num_params() == in_block + 1000 * 512 + 512  # of wte and lm_head, one counts
    assert all(name.endswith("weight") for name, _ in model.named_parameters())
    for parameter in model.parameters():
        if parameter.dim() == 1:
            assert (parameter == 1).all()
        else:
            assert 0.059 < parameter.abs().amax() <= 0.06001
            assert abs(parameter.std() - 0.0197) < 2e-4


def test_blocks_are_those_of_a_plain_transformer():
    """RMSNorm before each half, both added to the stream; SwiGLU; a last norm before lm_head."""
    model = tiny()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = torch.rand_like(parameter) + 0.5

    def rms_norm(x, norm):
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * norm.weight

    idx = tokens(N)
    model.wte.weight.data *= 1e-3  # so that the 1e-6 counts
    x = model.wte(idx)
    for block in model.blocks:
        x = x + block.attn(rms_norm(x, block.norm_1))
        up, gate = (rms_norm(x, block.norm_2) @ block.mlp.c_fc.weight.T).split(4 * 48, dim=-1)
        x = x + (gate * gate.sigmoid() * up) @ block.mlp.c_proj.weight.T
    assert_close(logits(model, idx), rms_norm(x, model.norm) @ model.lm_head.weight.T, atol=1e-4, rtol=1e-3)


def test_logits_and_loss():
    """The loss is the mean over rows of the mean over a row's targets; -1 does not count.

    Without targets, the logits are those of the last position.
    """
    model = tiny()
    idx = tokens(N)
    targets = tokens(N)
    every, loss = model(idx, targets)
    last, none = model(idx)
    assert every.shape == (2, N, 32) and last.shape == (2, 1, 32) and none is None
    assert_close(every, logits(model, idx))
    assert_close(last, every[:, -1:])
    losses = -every.log_softmax(dim=-1).gather(-1, targets[:, :, None])[:, :, 0]
    assert_close(loss, losses.mean())
    targets[0, 5:] = -1  # the 5 that are left of this row weigh as much as the N of the other
    assert_close(model(idx, targets)[1], (losses[0, :5].mean() + losses[1].mean()) / 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_keeps_one_tensor_as_large_as_the_logits(dtype):
    """What the loss's gradient needs; the logits themselves carry none. At 60M each takes gigabytes."""
    model = GPT(GPTConfig(1000, N, 1, 3, 48))
    idx = tokens(N)
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    def unpack(tensor):
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack), autocast(CPU, dtype):
        every, loss = model(idx, idx)
    large = {tensor.data_ptr() for tensor in saved if tensor.numel() >= every.numel()}
    assert len(large) == 1
    assert every.grad_fn is None and loss.grad_fn is not None and loss.dtype == torch.float32


def test_temperature_and_top_k():
    """Tokens are drawn from softmax(logits / temperature), of the k most likely alone with top_k."""
    model = tiny()
    idx = tokens(1, batch=1).expand(5000, -1)
    doubled = 2 * model(idx[:1])[0][0, 0].detach()
    drawn = next(model.stream(idx, 1, temperature=0.5)).flatten()
    assert_close(drawn.bincount(minlength=32) / 5000, doubled.softmax(dim=0), atol=0.03, rtol=0)
    drawn = next(model.stream(idx, 1, temperature=5.0, top_k=3)).unique()
    assert drawn.tolist() == sorted(doubled.topk(3).indices.tolist())
    assert next(model.stream(idx, 1, top_k=1000)).shape == (5000, 1)


def test_greedy_is_argmax_without_cache():
    """Generation at temperature 0 takes the most likely token each time, past the training length, too."""
    model = tiny()
    start = tokens(N - 4)
    idx = start
    for _ in range(8):
        last_logits, _ = model(idx)
        idx = torch.cat((idx, last_logits.argmax(dim=-1)), dim=1)
    assert torch.equal(model.generate(start, 8, temperature=0), idx)
    assert torch.equal(model.generate(start, 8, top_k=1), idx)


# Checkpoints, device, number format --------------------------------------------------------------------


def save(model: GPT, out_dir: Path):
    config = asdict(model.config) | {"seed": 3}
    checkpoint = {"model": model.state_dict(), "config": config, "iter": 7}
    torch.save(checkpoint, out_dir / "ckpt.pt")


@each_encoding
def test_a_checkpoint_gives_the_same_model(pos, tmp_path):
    """The same logits to the bit, FoPE's drawn coefficients included."""
    model = tiny(pos)
    idx = tokens(2 * N)
    save(model, tmp_path)
    loaded, checkpoint = load_checkpoint(str(tmp_path), CPU)
    assert torch.equal(logits(loaded, idx), logits(model, idx))
    assert loaded.config == model.config and not loaded.training
    assert checkpoint["iter"] == 7


@pytest.mark.parametrize(
    "pos, settings",
    [
        ("rope", {"yarn_scale": 4.0}),
        ("rope", {"rope_theta": 80_000.0}),
        ("fope", {"logn": True}),
        ("fope", {"local_window": 5}),
        ("rope", {"pos": "fope", "fope_series": False}),  # has buffers that the checkpoint lacks
        ("fope", {"pos": "rope"}),  # lacks buffers that the checkpoint has
        ("test_vectors", {"pos": "nope"}),
        ("rope", {"pos_global": "nope", "local_window": 5}),
    ],
    ids=str,
)
def test_settings_replace_those_of_a_checkpoint(pos, settings, tmp_path):
    """As --set asks: the trained weights in the model that was trained with these settings."""
    model = tiny(pos)
    save(model, tmp_path)
    loaded, _ = load_checkpoint(str(tmp_path), CPU, **settings)
    expected = tiny(**({"pos": pos} | settings))  # the same weights, by the same seed
    idx = tokens(2 * N)
    assert asdict(loaded.config) == asdict(model.config) | settings
    assert torch.equal(logits(loaded, idx), logits(expected, idx))
    assert not torch.equal(logits(loaded, idx), logits(model, idx))


def test_coefficients_that_a_checkpoint_lacks_are_drawn_by_its_seed(tmp_path):
    """Two evaluations of a trained RoPE as FoPE are of one model."""
    save(tiny("rope"), tmp_path)
    first, _ = load_checkpoint(str(tmp_path), CPU, pos="fope")
    second, _ = load_checkpoint(str(tmp_path), CPU, pos="fope")
    assert torch.equal(first.blocks[0].attn.pos.cos_coef, second.blocks[0].attn.pos.cos_coef)


@pytest.mark.parametrize("settings", [{"n_layer": 1}, {"n_layer": 3}, {"pos": "test_bias"}], ids=str)
def test_weights_must_all_fit(settings, tmp_path):
    """None that is learned, an encoding's included, is left out or stays as just drawn: one line says so."""
    save(tiny("rope"), tmp_path)
    with pytest.raises(SystemExit, match=r"\Aerror: [^\n]*do not fit[^\n]*\Z"):
        load_checkpoint(str(tmp_path), CPU, **settings)


def test_coefficients_must_be_in_the_checkpoint(tmp_path):
    """FoPE with others would be another model."""
    model = tiny("fope")
    del model.blocks[1].attn.pos.sin_coef
    save(model, tmp_path)
    with pytest.raises(RuntimeError, match="sin_coef"):
        load_checkpoint(str(tmp_path), CPU)


def test_a_checkpoint_from_before_a_setting(tmp_path):
    """A field that a reader adds to GPTConfig has its default in the runs that are there."""
    model = tiny()
    save(model, tmp_path)
    checkpoint = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    del checkpoint["config"]["logn"]
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    loaded, _ = load_checkpoint(str(tmp_path), CPU)
    assert loaded.config == model.config


def test_a_checkpoint_runs_no_code(tmp_path):
    """Other objects than tensors and plain values are refused."""
    torch.save({"model": tmp_path}, tmp_path / "ckpt.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(str(tmp_path), CPU)


@pytest.mark.filterwarnings("error")  # as PyTorch gives for an autocast to float32
def test_device_and_number_format(monkeypatch):
    """Products in the format that is asked for, or by itself the fastest of the CPU; the loss in float32."""
    assert pick_device("cpu") == CPU
    assert pick_device().type in DEVICES
    with pytest.raises(SystemExit, match="nonsense"):
        pick_device("nonsense")
    for name in ("float32", "bfloat16", "float16"):
        with autocast(CPU, name):
            every, loss = tiny()(tokens(N), tokens(N))
        assert every.dtype == getattr(torch, name)
        assert loss.dtype == torch.float32
    for features, dtype in (({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", features.copy)
        with autocast(CPU):
            assert tiny()(tokens(N))[0].dtype == dtype
