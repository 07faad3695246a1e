"""
What the model promises: python -m pytest tests/test_model.py

Most tests walk model.POSITIONS, so an encoding registered there is tested without a line here. The others hold each
encoding to its paper, by formulas written out a second time in plain loops and complex numbers.
"""

import cmath
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import model as model_file
from model import GPT, POSITIONS, ALiBi, GPTConfig, NoPE, RoPE, attention, autocast, load_checkpoint, pick_device

N = 64  # training length of the models here
CPU = torch.device("cpu")
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
each_encoding = pytest.mark.parametrize("pos", POSITIONS)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
each_device = pytest.mark.parametrize("device", DEVICES)


def tiny(pos: str = "fope", n_layer: int = 2, n_head: int = 3, n_embd: int = 48, **settings) -> GPT:
    """A model whose attention is far from uniform: at the scale of fresh weights mistakes would hide in rounding."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(32, N, n_layer, n_head, n_embd, pos=pos, **settings)).eval()
    for parameter in model.parameters():
        parameter.data *= 5 if parameter.dim() == 2 else 1
    return model


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(32, (batch, length))


def logits(model: GPT, idx: torch.Tensor, cache: list[dict] | None = None) -> torch.Tensor:
    return model.lm_head(model.hidden(idx, cache))


def in_parts(model: GPT, idx: torch.Tensor) -> torch.Tensor:
    """The logits of N + 16 tokens with a cache: a prefill, a second chunk, then token by token."""
    cache = [{} for _ in model.blocks]
    return torch.cat([logits(model, part, cache) for part in idx.split([20, 35] + [1] * (N - 39), dim=1)], dim=1)


def encoding(pos: str, head_dim: int = 64, n_head: int = 8, **settings) -> NoPE:
    """By default that of the 60M model, N = 512."""
    return POSITIONS[pos](GPTConfig(pos=pos, n_head=n_head, n_embd=n_head * head_dim, **settings))


# Every encoding ------------------------------------------------------------------------------------------------------


@each_device
@each_dtype
@each_encoding
def test_causal_and_finite_far_beyond_training_length(pos, device, dtype):
    model, idx = tiny(pos).to(device, dtype), tokens(8 * N)
    changed = idx.clone()
    changed[:, 40] = (idx[:, 40] + 1) % 32
    a, b = logits(model, idx.to(device)), logits(model, changed.to(device))
    assert torch.equal(a[:, :40], b[:, :40]) and a.isfinite().all()
    assert not (a == b)[:, 40].all() and not (a == b)[:, -1].all()


@each_device
@each_dtype
@each_encoding
def test_order(pos, device, dtype):
    """One layer of NoPE sees the set of earlier tokens; every other encoding makes it see their order."""
    model, idx = tiny(pos, n_layer=1).to(device, dtype), tokens(60)
    idx[1] = idx[0, [*range(58, -1, -1), 59]]  # all but the last token, backwards
    a, b = model(idx.to(device))[0]
    assert torch.allclose(a, b, atol=0.05) == (POSITIONS[pos] is NoPE)


@pytest.mark.parametrize("settings", [{}, {"yarn_scale": 4.0}, {"qk_norm": True}, {"logn_scale": 1.0}], ids=str)
@each_encoding
def test_cached_is_uncached(pos, settings):
    """A prefill, a second chunk, then token by token, past the training length."""
    model, idx = tiny(pos, **settings), tokens(N + 16)
    assert_close(in_parts(model, idx), logits(model, idx), atol=1e-3, rtol=1e-3)


@each_device
@pytest.mark.parametrize("dtype", model_file.DTYPES)
@each_encoding
def test_every_dtype_is_causal_and_cached(pos, dtype, device):
    """Under autocast, as the scripts run a model, and cast. A cache changes no more than the number format costs."""
    model, idx = tiny(pos), tokens(N + 16)
    exact, changed = logits(model, idx), idx.clone()
    changed[:, 40] = (idx[:, 40] + 1) % 32
    idx, changed, model = idx.to(device), changed.to(device), model.to(device)
    for around in (dtype, "float32"):
        with autocast(torch.device(device), around):
            plain, cached, other = logits(model, idx), in_parts(model, idx), logits(model, changed)
        assert plain.dtype == model_file.DTYPES[dtype] and torch.equal(plain[:, :40], other[:, :40])
        plain, cached = plain.float().cpu(), cached.float().cpu()
        assert (cached - plain).norm() < 2 * (plain - exact).norm() + 1e-4 * exact.norm()
        assert (plain - exact).norm() < 0.05 * exact.norm()
        model.to(model_file.DTYPES[dtype])


@each_encoding
def test_greedy_is_argmax_without_cache(pos):
    model, made = tiny(pos), tokens(N - 4)
    greedy = model.generate(made, 8, temperature=0)
    for _ in range(8):
        made = torch.cat((made, model(made)[0].argmax(dim=-1)), dim=1)
    assert torch.equal(greedy, made)


@each_encoding
def test_checkpoint_gives_the_same_model(pos, tmp_path):
    model, idx = tiny(pos), tokens(N)
    save(model, tmp_path)
    torch.manual_seed(1)  # what the checkpoint lacks is drawn anew, and differs
    loaded, checkpoint = load_checkpoint(str(tmp_path), CPU)
    assert torch.equal(loaded(idx)[0], model(idx)[0])
    assert not loaded.training and loaded.config == model.config and checkpoint["iter"] == 7


@each_encoding
def test_half_precision_leaves_positions_alone(pos):
    """Neither autocast nor .to(bfloat16) touches a table or a bias; in it 8190 and 8191 would be the same position."""
    pos, x = encoding(pos), torch.randn(8, 5, 64)
    rotated, bias, before = pos.rotate(x, 8190), pos.bias(5, 99), dict(pos.named_buffers())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pos.rotate(x, 8190), rotated)
        assert bias is None or torch.equal(pos.bias(5, 99), bias)
    for name, buffer in pos.to(torch.bfloat16).named_buffers():
        assert buffer.dtype == torch.float32 and torch.equal(buffer, before[name])
    if isinstance(pos, RoPE):
        cos, sin = pos.table(torch.tensor([8190, 8191]))
        assert cos.dtype == sin.dtype == torch.float32 and (cos[..., 0, 0] - cos[..., 1, 0]).abs().min() > 0.1


@each_encoding
def test_other_weights_do_not_depend_on_the_encoding(pos):
    weights = dict(tiny(pos).named_parameters())
    for name, weight in tiny("nope").named_parameters():
        assert torch.equal(weights[name], weight), name


@each_encoding
def test_learns(pos):
    """Gradients reach every weight, q's, k's and v's each; a batch is learnt by heart."""
    model, idx = GPT(GPTConfig(32, N, 1, 3, 48, pos=pos)), tokens(33)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        qkv = model.blocks[0].attn.c_attn.weight.grad.chunk(3)
        assert all(grad.abs().amax() > 0 for grad in (*qkv, *(p.grad for p in model.parameters())))
    assert loss < 0.1


# The bias on the scores, and ALiBi -----------------------------------------------------------------------------------


def plain_attention(q, k, v, bias, rows):
    """In float64, of the queries q at the positions `rows` (q_len,); bias (H, q_len, k_len)."""
    q, k, v = q.double(), k.double(), v.double()
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)) + bias
    return scores.masked_fill(torch.arange(k.size(-2)) > rows[:, None], -math.inf).softmax(dim=-1) @ v


@each_device
@each_dtype
@pytest.mark.parametrize("q_len, k_len", [(512, 512), (4096, 4096), (100, 4096), (1, 4096)])
def test_alibi_is_its_dense_formula(q_len, k_len, dtype, device):
    """In training, and in a chunk or a single token after a cache: compared in the first rows and the last."""
    q, k, v = torch.randn(3, 1, 8, k_len, 16).to(dtype)
    alibi, rows = encoding("alibi"), torch.arange(k_len - q_len, k_len)
    bias = alibi.to(device).bias(q_len, k_len)
    y = attention(q[:, :, rows].to(device), k.to(device), v.to(device), bias).cpu().double()
    some = [*range(min(q_len, 20)), *range(-min(q_len, 20), 0)]
    q, y, rows = q[:, :, rows][:, :, some], y[:, :, some], rows[some]
    dense = -alibi.slopes.cpu().double()[:, None, None] * (rows[:, None] - torch.arange(k_len))
    atol = 0.02 if dtype == torch.bfloat16 else 1e-7 * k_len
    assert_close(y, plain_attention(q, k, v, dense, rows), atol=atol, rtol=0)


def test_a_bias_past_the_range_of_float16():
    """The first rows see only keys with a bias of -51,000 from the last row's zero, which float16 just holds."""
    q, k, v = torch.randn(3, 1, 1, 512, 16)
    bias = -100.0 * torch.arange(511, -1, -1)[None, None]
    y = attention(q.half(), k.half(), v.half(), bias)[:, :, :20]
    assert_close(y.double(), plain_attention(q[:, :, :20], k, v, bias, torch.arange(20)), atol=0.01, rtol=0)


# The exponents of 2 in the slopes: a geometric series; between powers of two, filled up from the next finer one.
SLOPES = {1: [-8], 2: [-4, -8], 3: [-4, -8, -2], 6: [-2, -4, -6, -8, -1, -3], 8: [-1, -2, -3, -4, -5, -6, -7, -8]}
SLOPES[12] = [*SLOPES[8], -0.5, -1.5, -2.5, -3.5]


def test_alibi_slopes():
    for n_head, exponents in SLOPES.items():
        assert_close(ALiBi.make_slopes(n_head), 2 ** torch.tensor(exponents, dtype=torch.float32))


@pytest.mark.parametrize("heads, rows", [(8, N), (1, N), (8, 1), (1, 1)])
def test_any_bias(heads, rows):
    """One for all heads or each, for all queries or each; at the start or after a cache; and it can be learned."""
    (q, k, v), bias = torch.randn(3, 2, 8, N, 16), (3 * torch.randn(heads, rows, N)).requires_grad_()
    for first in (0, 20, N - 1):
        y = attention(q[:, :, first:], k, v, bias[:, first - N :])
        expected = plain_attention(q[:, :, first:], k, v, bias[:, first - N :], torch.arange(first, N))
        assert_close(y.double(), expected, atol=1e-5, rtol=0)
        gradient, right = (torch.autograd.grad(out.square().sum(), bias)[0] for out in (y, expected))
        assert_close(gradient, right, atol=1e-3, rtol=1e-3)


class DenseBias(NoPE):
    """An encoding as a reader may add it: a bias of its own for each query and key."""

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("dense", 3 * torch.randn(config.n_head, 2 * N, 2 * N))

    def bias(self, q_len, k_len):
        return self.dense[:, k_len - q_len : k_len, :k_len]


def test_dense_bias(monkeypatch):
    monkeypatch.setitem(POSITIONS, "dense", DenseBias)
    test_cached_is_uncached("dense", {})


# RoPE and RoPE-A -----------------------------------------------------------------------------------------------------


def test_rope_turns_complex_numbers():
    x = torch.randn(2, 5, 16)
    y = encoding("rope", head_dim=16, n_head=2).rotate(x, start=1000)
    for h, t, m in torch.cartesian_prod(*map(torch.arange, (2, 5, 8))).tolist():
        expected = complex(x[h, t, m], x[h, t, m + 8]) * cmath.exp(1j * (1000 + t) * 10000 ** (-2 * m / 16))
        assert abs(expected - complex(y[h, t, m], y[h, t, m + 8])) < 1e-3


def test_rope_a_completes_whole_turns():
    rope, rope_a = (encoding(pos).frequencies.double() for pos in ("rope", "rope_a"))
    grid = math.tau / 512 * torch.arange(1, 513).double()  # k >= 1
    assert_close(rope_a, grid[(rope[:, None] - grid).abs().argmin(dim=1)], atol=0, rtol=1e-6)
    assert_close(encoding("rope_a", pos_length=256).frequencies[-1].item(), math.tau / 256)


def weights(pos: NoPE, q: torch.Tensor, k: torch.Tensor, start: int) -> torch.Tensor:
    """Attention weights of q and k (H, T, head_dim) among each other, at the positions start, start + 1, ..."""
    scores, T = pos.rotate(q, start) @ pos.rotate(k, start).transpose(-2, -1) / math.sqrt(q.size(-1)), q.size(-2)
    bias = pos.bias(T, start + T)
    scores = scores if bias is None else scores + bias[..., start:]
    return scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf).softmax(dim=-1)


@pytest.mark.parametrize("pos", ["nope", "alibi", "rope", "rope_a", "fope"])
def test_weights_depend_on_distance_alone(pos):
    """But for FoPE's: the product of two Fourier series has terms that do not."""
    q, k = torch.randn(2, 8, 20, 64)
    for settings, moves in (({"fope_sigma": 0.0}, False), ({"fope_series": False}, False), ({}, pos == "fope")):
        here, there = (weights(encoding(pos, **settings), q, k, start) for start in (0, 1000))
        change = (here - there).abs().amax()
        assert change > 0.01 if moves else change < 1e-3


# FoPE ----------------------------------------------------------------------------------------------------------------


def test_fope_without_series_and_clip_is_rope():
    fope, x = encoding("fope", fope_series=False, fope_clip=False), torch.randn(8, 20, 64)
    assert torch.equal(fope.rotate(x, 500), encoding("rope").rotate(x, 500))


@pytest.mark.parametrize("block_size, pos_length, kept", [(512, 0, 16), (1024, 0, 18), (1024, 512, 16), (6, 0, 0)])
def test_fope_floor(block_size, pos_length, kept):
    """Only frequencies of at least 2π/N are left; the other dimensions pass as they are, at every position."""
    fope, x = encoding("fope", block_size=block_size, pos_length=pos_length), torch.randn(8, 9, 64)
    assert len(fope.frequencies) == kept and (fope.frequencies >= math.tau / (pos_length or block_size)).all()
    y, zero = fope.rotate(x, 100_000), torch.arange(64) % 32 >= kept
    assert torch.equal(y[..., zero], x[..., zero])
    assert not torch.isclose(y[..., ~zero], x[..., ~zero]).all(dim=-2).any()


@pytest.mark.parametrize("fope_dim", [0, 64])
def test_fope_is_equation_13(fope_dim):
    fope = encoding("fope", head_dim=16, n_head=2, block_size=N, fope_dim=fope_dim, fope_sigma=1.0)
    x, dim, floor = torch.randn(2, 4, 16), fope_dim or 16, math.tau / N
    y, bank = fope.rotate(x, start=30), [w for w in (10000 ** (-2 * i / dim) for i in range(dim // 2)) if w >= floor]
    for h, t, m in torch.cartesian_prod(*map(torch.arange, (2, 4, 8))).tolist():
        n, dominant, f = 30 + t, 10000 ** (-2 * m / 16), 1
        if dominant >= floor:
            f = cmath.exp(1j * dominant * n)
            for w, a_cos, a_sin in zip(bank, fope.cos_coef[h, :, m].tolist(), fope.sin_coef[h, :, m].tolist()):
                one = math.isclose(w, dominant)  # the coefficients hold the 1 of the dominant frequency
                f += complex((a_cos - one) * math.cos(w * n), (a_sin - one) * math.sin(w * n))
        assert abs(complex(x[h, t, m], x[h, t, m + 8]) * f - complex(y[h, t, m], y[h, t, m + 8])) < 1e-3


@pytest.mark.parametrize("fope_dim", [64, 128, 256])
def test_fope_holds_the_frequencies_of_rope(fope_dim):
    """Each dominates its own dimension, with coefficient 1."""
    fope, rope = encoding("fope", fope_dim=fope_dim, fope_sigma=0.0), encoding("rope").frequencies[:16]
    for coef in (fope.cos_coef, fope.sin_coef):
        assert coef.shape == (8, len(fope.frequencies), 16) and ((coef == 0) | (coef == 1)).all()
        assert (coef.sum(dim=1) == 1).all()
        assert_close(fope.frequencies @ coef, rope.expand(8, 16))
    assert (fope.frequencies.diff() < 0).all()


@pytest.mark.parametrize("fope_init, std", [("xavier", 0.3 * math.sqrt(2 / (16 * 16 + 8 * 16))), ("normal", 0.3)])
def test_fope_coefficients_are_drawn_by_the_formula(fope_init, std):
    fope = encoding("fope", fope_init=fope_init)
    noise = torch.stack((fope.cos_coef, fope.sin_coef)) - torch.eye(16)
    assert abs(noise.std() / std - 1) < 0.06 and abs(noise.mean() / std) < 0.06
    assert abs(noise.diagonal(dim1=2, dim2=3).std() / std - 1) < 0.2  # a dominant frequency has its a_ω too


def test_fope_coefficients_are_saved_fixed_and_all_different():
    model = tiny("fope", fope_sigma=0.5)
    saved = {name: tensor for name, tensor in model.state_dict().items() if "coef" in name}
    assert len(saved) == 4 and not saved.keys() & dict(model.named_parameters()).keys()
    matrices = [matrix for coef in saved.values() for matrix in coef]  # layers, heads, cosine and sine
    assert len(matrices) == 12
    assert all((a - b).abs().amax() > 0.01 for i, a in enumerate(matrices) for b in matrices[:i])


# YaRN, QK-norm, log-length scaling -----------------------------------------------------------------------------------


def test_yarn_formula():
    """At N = 512, θ = 10000 and 64 dimensions the ramp runs from index 3 to 16 of 32."""
    plain, ramp = [10000 ** (-i / 32) for i in range(32)], [min(max((i - 3) / 13, 0), 1) for i in range(32)]
    expected = torch.tensor([(1 - r) * w + r * w / 8 for w, r in zip(plain, ramp)])
    for settings in ({}, {"block_size": 1024, "pos_length": 512}, {"fope_dim": 256}):  # RoPE has no bank
        assert_close(encoding("rope", yarn_scale=8.0, **settings).frequencies, expected)
    assert_close(encoding("fope", yarn_scale=8.0).frequencies, expected[:16])


@pytest.mark.parametrize("pos, dim", [("rope", 64), ("rope_a", 64), ("fope", 64), ("fope", 256)])
def test_yarn_by_turns(pos, dim):
    """Over 32 turns in N a frequency stays, under 1 it slows down by s, with no step back between; s = 1 is exact."""
    plain, scaled = (encoding(pos, yarn_scale=s, fope_dim=dim, fope_clip=False) for s in (1.0, 8.0))
    turns, ratio = torch.logspace(0, -4, dim // 2 + 1)[:-1] * 512 / math.tau, scaled.frequencies / plain.frequencies
    assert (ratio[turns > 32] == 1).all() and (8 * ratio[turns < 1] - 1).abs().amax() < 1e-6
    assert (ratio.diff() < 1e-6).all() and ((ratio > 0.2) & (ratio < 0.9)).any()
    assert torch.equal(plain.frequencies, plain.make_frequencies())


@pytest.mark.parametrize("pos, kept", [("rope", 32), ("rope_a", 32), ("fope", 16)])
def test_yarn_temperature(pos, kept):
    """cos² + sin² is the square of 0.1 ln s + 1; a zero frequency stays zero."""
    cos, sin = encoding(pos, yarn_scale=8.0, fope_sigma=0.0).table(torch.arange(1, 4096, 97))
    assert_close(cos**2 + sin**2, torch.full_like(cos, (0.1 * math.log(8) + 1) ** 2))
    assert (sin[..., :kept] != 0).all() and (sin[..., kept:] == 0).all()


def attended(monkeypatch, model: GPT, idx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k of the first layer, as attention gets them."""
    seen = []
    monkeypatch.setattr(model_file, "attention", lambda *args: seen.append(args) or attention(*args))
    model(idx)
    return seen[0][:2]


def test_qk_norm(monkeypatch):
    """Mean 0 and variance 1 per head and token; rotation then keeps the length, not the mean."""
    for x in attended(monkeypatch, tiny("nope", qk_norm=True), tokens(N)):
        assert_close(x.mean(dim=-1), torch.zeros(2, 3, N), atol=1e-5, rtol=0)
        assert_close(x.var(dim=-1, unbiased=False), torch.ones(2, 3, N), atol=1e-3, rtol=0)
    for x in attended(monkeypatch, tiny("rope", qk_norm=True), tokens(N)):
        assert_close(x.square().mean(dim=-1), torch.ones(2, 3, N), atol=1e-3, rtol=0)
        assert (x[:, :, 1:].mean(dim=-1).abs() > 1e-3).float().mean() > 0.9


@each_encoding
def test_logn_scale(pos, monkeypatch):
    """Up to N tokens not a bit changes; a query that sees n > N keys is multiplied by 1 + a (ln n / ln N - 1)."""
    plain, scaled, idx = tiny(pos), tiny(pos, logn_scale=0.7), tokens(3 * N)
    assert torch.equal(logits(plain, idx[:, :N]), logits(scaled, idx[:, :N]))
    (q, k), (q_scaled, k_scaled) = (attended(monkeypatch, model, idx) for model in (plain, scaled))
    factor = [1 + 0.7 * max(math.log(n) / math.log(N) - 1, 0) for n in range(1, 3 * N + 1)]
    assert_close(q_scaled, q * torch.tensor(factor)[:, None])
    assert torch.equal(k, k_scaled)


# The transformer, its configuration, sampling ------------------------------------------------------------------------


def test_weights_of_the_60m_model():
    model = GPT(GPTConfig(n_layer=1))
    in_blocks = 8 * sum(parameter.numel() for parameter in model.blocks.parameters())
    assert in_blocks == 8 * (16 * 512**2 + 2 * 512)  # 33.6M
    assert model.wte.weight.numel() == model.lm_head.weight.numel() == 50304 * 512  # 25.8M, not tied
    assert model.num_params() == in_blocks // 8 + 50304 * 512 + 512
    for weight in (model.blocks[0].attn.c_attn.weight, model.blocks[0].mlp.c_proj.weight, model.wte.weight):
        assert 0.059 < weight.abs().amax() <= 0.06001 and abs(weight.std() - 0.0197) < 2e-4  # cut at 3 std
    assert all(name.endswith("weight") for name, _ in model.named_parameters())  # no biases


def test_swiglu_and_rmsnorm():
    block, x = tiny().blocks[0], torch.randn(5, 48)
    up, gate = (block.mlp.c_fc.weight @ x.T).split(4 * 48)
    assert_close(block.mlp(x), (block.mlp.c_proj.weight @ (gate * gate.sigmoid() * up)).T)
    assert_close(block.norm_1(x), x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt())


def test_logits_and_loss():
    model, idx, targets = tiny(), tokens(N), tokens(N)
    (every, loss), (last, none) = model(idx, targets), model(idx)
    assert every.shape == (2, N, 32) and last.shape == (2, 1, 32) and none is None
    assert_close(last, every[:, -1:])
    losses = -every.log_softmax(dim=-1).gather(-1, targets[:, :, None])[:, :, 0]
    assert_close(loss, losses.mean())
    targets[0, 5:] = -1  # these do not count; the 5 of this row weigh as much as the N of the other
    assert_close(model(idx, targets)[1], (losses[0, :5].mean() + losses[1].mean()) / 2)


BAD = dict(n_head=5, n_layer=0, fope_dim=24, fope_sigma=-0.1, pos_length=-1, yarn_scale=0.5, dropout=1.0, fope_init="x")


def test_impossible_configurations():
    odd = [(pos, "head_dim", {"n_embd": 45}) for pos in POSITIONS if issubclass(POSITIONS[pos], RoPE)]
    unknown = ("rotary", ", ".join(POSITIONS), {})
    for pos, says, settings in [unknown, *odd, *(("fope", field, {field: BAD[field]}) for field in BAD)]:
        with pytest.raises(ValueError, match=says):
            tiny(pos, **settings)


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
    assert model.generate(idx[:2], 3, top_k=1000).shape == (2, 4)


def test_stop():
    """A row that has given the stop token repeats it; the stream ends when every row has."""
    model, idx = tiny(), tokens(20)
    expected = model.generate(idx, 30, temperature=0)[:, 20:]
    stop = expected[0, 4].item()
    ends = [row.index(stop) if stop in row else 29 for row in expected.tolist()]
    made = model.generate(idx, 30, temperature=0, stop=stop)[:, 20:]
    assert made.size(1) == max(ends) + 1
    for row, free, end in zip(made, expected, ends):
        assert torch.equal(row[: end + 1], free[: end + 1]) and (row[end + 1 :] == stop).all()
    assert model.generate(idx[:1], 30, temperature=0, stop=stop).size(1) == 20 + ends[0] + 1 < 50


# Device, number format, checkpoints ----------------------------------------------------------------------------------


def save(network: GPT, out_dir: Path, **changes) -> None:
    checkpoint = {"model": network.state_dict(), "config": asdict(network.config), "iter": 7}
    torch.save({**checkpoint, "meta": {"encoding": "bytes"}, **changes}, out_dir / "ckpt.pt")


class Code:
    def __reduce__(self):  # unpickling makes a file
        return Path.touch, (Path("code_ran"),)


def test_bad_checkpoints_end_in_one_line(tmp_path, monkeypatch):
    def refused(says):
        with pytest.raises(SystemExit, match=rf"^error: [^\n]*{says}[^\n]*\Z"):
            load_checkpoint(str(tmp_path), CPU)

    monkeypatch.chdir(tmp_path)
    refused("no checkpoint at")
    save(tiny(), tmp_path, model=Code())
    refused("damaged")
    assert not Path("code_ran").exists()
    save(tiny(), tmp_path)
    whole = Path("ckpt.pt").read_bytes()
    Path("ckpt.pt").write_bytes(whole[: len(whole) // 2])
    refused("damaged")
    torch.save({"weights": 1}, "ckpt.pt")
    refused("config, iter, meta, model")
    save(tiny(), tmp_path, config=asdict(tiny(n_embd=96).config))
    refused("size mismatch")
    save(tiny(), tmp_path, config=asdict(tiny().config) | {"fope_dim": 20})
    refused("fope_dim 20")


def test_device_and_number_format():
    with pytest.raises(SystemExit, match=r"^error: [^\n]*nonsense[^\n]*\Z"):
        pick_device("nonsense")
    assert pick_device("cpu") == CPU and pick_device().type in DEVICES
    for name in ("float32", "bfloat16"):
        with autocast(CPU, name):
            every, loss = tiny()(tokens(N), tokens(N))
        assert every.dtype == getattr(torch, name) and loss.dtype == torch.float32
