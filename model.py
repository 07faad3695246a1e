"""
A GPT whose position encoding is one small class: NoPE, ALiBi, RoPE, RoPE-A or FoPE (arXiv 2412.17739).

This file is the whole model and imports nothing of the repository. train.py trains it; sample.py, perplexity.py and
passkey.py load it with `load_checkpoint`. Read it from top to bottom with the paper at hand: configuration, position
encodings, attention, block, GPT, and at the end the few lines that every script needs to run it.

Names here and symbols in the paper:

    head_dim                             M     dimensions of q and k in a head; RoPE turns them in head_dim // 2 pairs
    frequencies                          ω     angle per position, in radians
    block_size                           N     the training length, in tokens
    2π / block_size                      ω_l   the floor: a slower frequency never completes a turn in training
    fope_dim                             D     RoPE's formula with this dimension makes the bank {ω} of fope_dim // 2
    cos_coef, sin_coef                   a_ω   the coefficients of the series (Eq. 11), plus 1 for the dominant ω_m
    fope_sigma                           σ     the scale of those coefficients
    rope_theta                           θ     RoPE's base
    B, T, C, H                                 batch, tokens, width (n_embd), heads
"""

import argparse
import contextlib
import math
import os
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn as nn
from torch.nn import functional as F


@dataclass
class GPTConfig:
    vocab_size: int = 50304  # GPT-2's 50257 rounded up to a multiple of 64, which is faster
    block_size: int = 512  # training length N in tokens; nothing limits the length at inference
    n_layer: int = 8  # blocks
    n_head: int = 8  # attention heads a block
    n_embd: int = 512  # width
    dropout: float = 0.0  # share of activations dropped in training
    pos: str = "fope"  # position encoding: a name in model.POSITIONS
    rope_theta: float = 10000.0  # base θ of RoPE's frequencies
    fope_sigma: float = 0.3  # σ, scale of the Fourier coefficients; 0 leaves only the clipping
    fope_dim: int = 0  # D, the dimension of the bank of frequencies, a multiple of head_dim; 0: head_dim
    fope_init: str = "xavier"  # "xavier": gain σ, as the released code; "normal": N(0, σ), as the text
    fope_series: bool = True  # FS: each dimension a Fourier series; False: one frequency each
    fope_clip: bool = True  # CF: frequencies under the floor 2π/N become zero
    pos_length: int = 0  # length that sets floor, RoPE-A's grid and YaRN's original; 0: block_size
    yarn_scale: float = 1.0  # YaRN: stretch the frequencies to this multiple of the length; 1: off
    qk_norm: bool = False  # q and k to mean 0 and variance 1 per head, before the rotation
    logn_scale: float = 0.0  # strength a: past N, queries times 1 + a (ln n / ln N - 1); 0: off

    def __post_init__(self) -> None:
        self.check(1, "vocab_size block_size n_layer n_head n_embd yarn_scale")
        self.check(0, "fope_sigma fope_dim pos_length logn_scale")
        self.check(0, "dropout", below=1)
        require(1 < self.rope_theta < math.inf, f"rope_theta must be above 1 and finite, not {self.rope_theta}")
        require(self.fope_init in ("xavier", "normal"), f"fope_init must be xavier or normal, not {self.fope_init}")
        require(self.pos in POSITIONS, f"pos must be one of {', '.join(POSITIONS)}, not {self.pos}")
        require(self.n_embd % self.n_head == 0, f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}")

    def check(self, least: float, names: str, below: float = 2**53) -> None:
        """ValueError if one of these settings is not in [least, below); below 2^53 an integer is exact as a float."""
        for name in names.split():
            value = getattr(self, name)
            require(least <= value < below, f"{name} must be at least {least} and below {below:g}, not {value}")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


# ----------------------------------------------------------------------------------------------------------------------
# Position encodings. Attention asks an encoding for two things: to turn q and k by their positions, and for a bias on
# the scores. A new encoding is a subclass that overrides one of them and a line in POSITIONS; the tests find it there.


class NoPE(nn.Module):
    """No position encoding: order enters through the causal mask alone."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config

    def rotate(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Encodes the positions start, start + 1, ... into queries or keys x (..., H, T, head_dim)."""
        return x

    def bias(self, q_len: int, k_len: int) -> torch.Tensor | None:
        """Float32, broadcastable to (H, q_len, k_len), added to the scores; the queries are the last q_len of k_len.

        A fixed bias of shape (H, 1, k_len), the same for every query, costs no q_len x k_len matrix.
        """
        return None

    def _apply(self, fn, recurse=True):
        # What an encoding holds follows the model to its device but stays float32: with frequencies in bfloat16,
        # `.to(torch.bfloat16)` would turn the positions 8190 and 8191 into the same one.
        return super()._apply(lambda x: x.to(fn(x).device), recurse)


class ALiBi(NoPE):
    """Attention with linear biases (arXiv 2108.12409): score += -m_h (i - j) for query i and key j."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.register_buffer("slopes", self.make_slopes(config.n_head), persistent=False)

    @staticmethod
    def make_slopes(n_head: int) -> torch.Tensor:
        """m_h = 2^(-8h/H), h = 1..H; between powers of two, every other slope of twice the power fills the rest."""
        power = 2 ** int(math.log2(n_head))
        slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
        slopes += [2 ** (-8 * h / (2 * power)) for h in range(1, 2 * power, 2)]
        return torch.tensor(slopes[:n_head])

    def bias(self, q_len: int, k_len: int) -> torch.Tensor:
        # Softmax ignores what is constant along a row, so the last query's row does the work of every row. Counted from
        # there, the keys near it have a small bias, which bfloat16 holds; m_h j would be large, and coarse, everywhere.
        return self.slopes[:, None, None] * torch.arange(1 - k_len, 1, device=self.slopes.device)


class RoPE(NoPE):
    """Rotary position embedding (arXiv 2104.09864): pair m of dimensions turns by θ^(-2m/M) a position (Eq. 2)."""

    def __init__(self, config: GPTConfig, dim: int = 0) -> None:
        super().__init__(config)
        require(config.head_dim % 2 == 0, f"head_dim (n_embd / n_head) {config.head_dim} is odd, not for {config.pos}")
        self.dim = dim or config.head_dim  # of the formula that makes the frequencies
        self.length = config.pos_length or config.block_size
        # YaRN's temperature sharpens attention, which a longer context dilutes, by one factor at every position.
        self.temperature = 0.1 * math.log(config.yarn_scale) + 1
        self.register_buffer("frequencies", self._yarn(self.make_frequencies()), persistent=False)

    def make_frequencies(self) -> torch.Tensor:
        """The angle per position of every frequency, in radians, descending, float32."""
        return self.config.rope_theta ** (-torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim)

    def _yarn(self, frequencies: torch.Tensor) -> torch.Tensor:
        """YaRN (arXiv 2309.00071, section 3.2): frequencies with under 1 turn in N slow down by s, over 32 stay."""

        def index(turns: int) -> float:  # where in the list a frequency makes so many turns in N
            return self.dim * math.log(self.length / (turns * 2 * math.pi)) / (2 * math.log(self.config.rope_theta))

        low, high = max(math.floor(index(32)), 0), min(math.ceil(index(1)), self.dim - 1)
        ramp = ((torch.arange(len(frequencies)) - low) / max(high - low, 0.001)).clamp(0, 1)
        return frequencies * (1 - ramp * (1 - 1 / self.config.yarn_scale))

    def table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine of every pair's angle at positions (T,): float32, each (T, head_dim / 2)."""
        with torch.autocast(positions.device.type, enabled=False):
            angles = positions.float()[:, None] * self.frequencies
            return angles.cos() * self.temperature, angles.sin() * self.temperature

    def rotate(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        cos, sin = self.table(torch.arange(start, start + x.size(-2), device=x.device))
        a, b = x.float().chunk(2, dim=-1)  # dimension m is paired with m + head_dim / 2
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).type_as(x)


class RoPEA(RoPE):
    """RoPE-A (Table 1): every frequency moves to the nearest 2πk/N, k >= 1, which makes whole turns in training."""

    def make_frequencies(self) -> torch.Tensor:
        grid = 2 * math.pi / self.length
        return (super().make_frequencies() / grid).round().clamp(min=1) * grid


class FoPE(RoPE):
    """Fourier position embedding: each dimension a Fourier series, each frequency under the floor zero (Eq. 13).

    The text draws the coefficients from N(0, σ); the released code uses Xavier-normal with gain σ, many times smaller,
    and so does the default here. Each layer and head draws its own, for cosine and sine apart. They are not trained; a
    checkpoint keeps them, since other coefficients would be another model.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config, config.fope_dim)
        ratio, rest = divmod(self.dim, config.head_dim)
        require(rest == 0, f"fope_dim {self.dim} is not a multiple of head_dim {config.head_dim}")
        # RoPE's frequencies ω_m are every ratio-th of the bank {ω}: there the identity puts the 1 of e^{iω_m n} in
        # Eq. 11; all the others are the harmonics.
        dominant = torch.eye(len(self.frequencies))[:, ::ratio]
        sources, outputs = dominant.shape
        std = config.fope_sigma if config.fope_series else 0.0
        if config.fope_init == "xavier":  # fan-in and fan-out as PyTorch counts them for (n_head, sources, outputs)
            std *= math.sqrt(2 / max(sources * outputs + config.n_head * outputs, 1))
        with torch.random.fork_rng(devices=[]):  # so that all other weights are those of RoPE with the same seed
            for name in ("cos_coef", "sin_coef"):
                self.register_buffer(name, dominant + std * torch.randn(config.n_head, sources, outputs))

    def make_frequencies(self) -> torch.Tensor:
        frequencies = super().make_frequencies()
        return frequencies[frequencies >= 2 * math.pi / self.length] if self.config.fope_clip else frequencies

    def table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Σ a_ω cos ωn and Σ a_ω sin ωn at positions (T,): float32, each (H, T, head_dim / 2)."""
        cos, sin = super().table(positions)
        with torch.autocast(positions.device.type, enabled=False):
            cos, sin = cos @ self.cos_coef, sin @ self.sin_coef  # (T, sources) @ (H, sources, outputs)
        # What is left turns with frequency zero: cosine 1 and sine 0 (Eq. 13; the released code pads both with 1).
        rest = (0, self.config.head_dim // 2 - cos.size(-1))
        return F.pad(cos, rest, value=self.temperature), F.pad(sin, rest)


POSITIONS = {"nope": NoPE, "alibi": ALiBi, "rope": RoPE, "rope_a": RoPEA, "fope": FoPE}


# ----------------------------------------------------------------------------------------------------------------------
# The transformer


def attention(q, k, v, bias=None, dropout=0.0):
    """Causal attention of queries, the last q_len of k_len positions, to keys and values: all (B, H, length, head_dim).

    `bias` is what an encoding's bias() gives. Only a bias with rows of its own, or several new queries after a cache,
    need a q_len x k_len matrix: there PyTorch's is_causal would align the mask to the wrong corner.
    """
    q_len, k_len, scale, width = q.size(-2), k.size(-2), q.size(-1) ** -0.5, v.size(-1)
    if bias is not None and bias.size(-2) == 1 and q_len > 1:
        (q, k, v), bias = _fold(q, k, v, bias / scale / 64), None  # 64: bias / scale would overflow float16
    mask, is_causal = None, False
    if bias is not None or 1 < q_len < k_len:
        mask = torch.ones(q_len, k_len, dtype=torch.bool, device=q.device).tril(k_len - q_len)
        if bias is not None:
            mask = torch.where(mask, bias, -math.inf).to(q.dtype)[None]  # 3-D, it would take a slow path on CPUs
    elif q_len > 1:  # an `if`, since torch.compile, with lengths that vary, would make q_len > 1 a symbol and no bool
        is_causal = True
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scale)
    return y[..., :width]


def _fold(q, k, v, bias):
    """Writes a bias b (H, 1, k_len) into 8 more features of q and k: [q, 64]·[k_j, b_j] = q·k_j + 64 b_j. v gets zeros.

    So no mask of q_len x k_len is made, and the fast kernels, which take none, can be used.
    In bfloat16 one feature holds 8 bits of it, hence three: the bias rounded to a step, what is left rounded to a 256th
    of that step, and the rest, through which a learned bias gets its gradient. Rounding is arithmetic because a
    compiler may drop a cast to bfloat16 and back.
    """
    step = torch.exp2(bias.abs().amax().clamp(min=1).log2().ceil() - 8)
    parts, rest = [], bias.transpose(-2, -1)
    for _ in range(2):
        parts.append((rest / step).round() * step)
        rest, step = rest - parts[-1], step / 256
    features = F.pad(torch.cat((*parts, rest), dim=-1), (0, 5))  # 8, because flash kernels want a multiple of 8
    k = torch.cat((k, features.to(k.dtype).expand(*k.shape[:-1], -1)), dim=-1)
    return F.pad(F.pad(q, (0, 3), value=64.0), (0, 5)), k, F.pad(v, (0, 8))


class CausalSelfAttention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.pos = POSITIONS[config.pos](config)

    def forward(self, x: torch.Tensor, cache: dict | None = None) -> torch.Tensor:
        config, (B, T, C) = self.config, x.shape
        start = cache["k"].size(-2) if cache else 0  # position of the first of these T tokens
        # qk (2, B, H, T, head_dim), since q and k turn by the same angles, and v (1, B, H, T, head_dim)
        qk, v = self.c_attn(x).view(B, T, 3, config.n_head, config.head_dim).permute(2, 0, 3, 1, 4).split((2, 1))
        if config.qk_norm:
            qk = F.layer_norm(qk, (config.head_dim,))
        (q, k), v = self.pos.rotate(qk, start), v[0]  # each (B, H, T, head_dim)
        if config.logn_scale:
            # Softmax over n keys dilutes what one of them gets: a query that sees more than N of them is scaled up.
            # (YaRN's temperature is the same remedy, with a constant in place of ln n.)
            # N is the length trained at last.
            n = torch.arange(start + 1, start + T + 1, device=x.device)[:, None]
            q = (q * (1 + config.logn_scale * (n.log() / math.log(config.block_size) - 1).clamp(min=0))).type_as(v)
        if cache is not None:
            k, v = (torch.cat((cache[name], new), dim=-2) if cache else new for name, new in (("k", k), ("v", v)))
            cache.update(k=k, v=v)
        y = attention(q, k, v, self.pos.bias(T, k.size(-2)), config.dropout if self.training else 0.0)
        return F.dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C)), config.dropout, self.training)


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202): the "MLP ratio 8" of Table 2 counts both halves of the up-projection."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.c_fc = nn.Linear(config.n_embd, 8 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, gate = self.c_fc(x).chunk(2, dim=-1)
        return F.dropout(self.c_proj(F.silu(gate) * x), self.config.dropout, self.training)


class Block(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm_1 = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.attn = CausalSelfAttention(config)
        self.norm_2 = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, cache: dict | None = None) -> torch.Tensor:
        x = x + self.attn(self.norm_1(x), cache)
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)  # not tied to wte
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.06, b=0.06)

    def num_params(self) -> int:
        """Trained parameters without the output embedding, as the paper counts its "60M"."""
        return sum(p.numel() for p in self.parameters()) - self.lm_head.weight.numel()

    def hidden(self, idx: torch.Tensor, cache: list[dict] | None = None) -> torch.Tensor:
        """What lm_head turns into logits: (B, T, n_embd) for tokens idx (B, T).

        With a cache (one dict a layer, empty at first), idx holds only the tokens that follow the cached ones.
        """
        x = F.dropout(self.wte(idx), self.config.dropout, self.training)
        for i, block in enumerate(self.blocks):
            x = block(x, cache[i] if cache is not None else None)
        return self.norm(x)

    def forward(self, idx: torch.Tensor, targets: torch.Tensor | None = None):
        """Tokens idx (B, T) and, to train, targets (B, T), the tokens that follow, to logits and the cross-entropy.

        A target -1 does not count; each row needs one that does. Every row weighs the same, however many of its targets
        count: the loss is the mean over rows of the mean over each row's targets. Without targets only the last
        position's logits are computed: (B, 1, vocab_size), None.
        """
        if targets is None:
            return self.lm_head(self.hidden(idx)[:, -1:]), None
        logits = self.lm_head(self.hidden(idx))
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
        return logits, (losses.view_as(targets).sum(dim=1) / (targets >= 0).sum(dim=1)).mean()

    @torch.no_grad()
    def stream(self, idx: torch.Tensor, max_new_tokens: int, temperature=1.0, top_k=None, stop=-1) -> Iterator:
        """Yields the next token of each row, (B, 1), one after the other; a cache keeps the work per token small.

        temperature 0 takes the most likely token, top_k draws among the k most likely. A row that has given the token
        `stop` repeats it; when all rows have, the stream ends.
        """
        cache = [{} for _ in self.blocks]
        token, ended = idx, torch.zeros_like(idx[:, :1], dtype=torch.bool)
        for _ in range(max_new_tokens):
            logits = self.lm_head(self.hidden(token, cache)[:, -1]).float()
            if temperature == 0:
                token = logits.argmax(dim=-1, keepdim=True)
            else:
                logits = logits / max(temperature, 1e-6)
                if top_k is not None:
                    least = logits.topk(min(top_k, logits.size(-1))).values[:, -1:]
                    logits = logits.masked_fill(logits < least, -math.inf)
                token = torch.multinomial(logits.softmax(dim=-1), num_samples=1)
            token = token.masked_fill(ended, stop)
            yield token
            ended = ended | (token == stop)
            if stop >= 0 and ended.all():
                return

    def generate(self, idx: torch.Tensor, max_new_tokens: int, temperature=1.0, top_k=None, stop=-1) -> torch.Tensor:
        """idx (B, T) followed by up to max_new_tokens more, as `stream` draws them."""
        return torch.cat((idx, *self.stream(idx, max_new_tokens, temperature, top_k, stop)), dim=1)


# ----------------------------------------------------------------------------------------------------------------------
# Running it: device, number format, checkpoints


@contextlib.contextmanager
def user_error(message: str, *kinds: type[Exception]) -> Iterator[None]:
    """Inside, exceptions of these kinds become SystemExit: one line, the message and why."""
    try:
        yield
    except kinds as error:
        kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "  # these say it all
        raise SystemExit(f"error: {message}{kind}{textwrap.shorten(str(error), 200)}".rstrip(": ")) from None


def at_least(least: float) -> Callable[[str], float]:
    """For argparse: a number of the type of `least`, not below it, and below 2^53."""

    def number(text: str) -> float:
        if not least <= (value := type(least)(text)) < 2**53:
            raise argparse.ArgumentTypeError(f"must be at least {least} and below 2^53, not {text}")
        return value

    return number


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is cuda, else mps, else cpu. SystemExit if the machine has none of it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    with user_error(f"device {name} is not to be had here: ", RuntimeError, AssertionError, ValueError):
        if name.split(":")[0] not in ("cuda", "mps", "cpu"):
            raise ValueError("cuda, mps and cpu are the kinds that there are")
        torch.empty(1, device=name)
    return torch.device(name)


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """The number format of matrix products; "auto" is bfloat16 where the hardware multiplies it, else float32.

    CUDA cards before compute capability 8 get float16, which needs a gradient scaler in training.
    """
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    features = getattr(torch.cpu, "get_capabilities", dict)()
    has_bfloat16 = device.type == "cpu" and (features.get("amx_bf16") or features.get("avx512_bf16"))
    return torch.bfloat16 if has_bfloat16 else torch.float32


def autocast(device: torch.device, dtype: str = "auto") -> torch.autocast:
    """The context in which the model runs: weights stay float32, matrix products use `pick_dtype`'s format."""
    picked = pick_dtype(device, dtype)
    return torch.autocast(device.type, dtype=picked, enabled=picked != torch.float32)


def write_whole(path: Path, write: Callable) -> None:
    """write(file) to a file beside path, then moved there: path is never half a file, however the process ends."""
    beside = path.with_name(path.name + ".tmp")
    with user_error(f"cannot write {path}, what was there stays: ", OSError):
        try:
            with open(beside, "wb") as file:
                write(file)
            os.replace(beside, path)
        except BaseException as error:
            beside.unlink(missing_ok=True)
            while error.__context__:  # torch.save hides a full disk, and Ctrl-C, behind an error of its own
                error = error.__context__
            raise error from None


def read_checkpoint(out_dir: str) -> dict:
    """The checkpoint in a run's directory, on the CPU. No code in it ever runs: weights_only loads no objects."""
    path = Path(out_dir) / "ckpt.pt"
    if not path.is_file():
        raise SystemExit(f"error: no checkpoint at {path}; train one, or give the directory of a run")
    with user_error(f"{path} is damaged or no checkpoint of this repository: ", Exception):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)  # which fails in many ways
        kinds = {"config": dict, "iter": int, "meta": dict, "model": dict}
        lack = [key for key, kind in kinds.items() if not isinstance(checkpoint.get(key), kind)]
        lack = lack or sorted({f.name for f in fields(GPTConfig)} - checkpoint["config"].keys())
        require(not lack and "encoding" in checkpoint["meta"], f"it has no {', '.join(lack or ['encoding'])}")
    return checkpoint


def load_checkpoint(out_dir: str, device: torch.device, logn_scale: float | None = None) -> tuple[GPT, dict]:
    """The model of a run's directory, ready for evaluation on the device, and its checkpoint.

    logn_scale takes the place of the checkpoint's own, which is not changed. SystemExit for what is no checkpoint.
    """
    checkpoint = read_checkpoint(out_dir)
    with user_error(f"the checkpoint in {out_dir} does not fit this model.py: ", Exception):
        model = GPT(GPTConfig(**{f.name: checkpoint["config"][f.name] for f in fields(GPTConfig)}))
        model.load_state_dict(checkpoint["model"])
    if logn_scale is not None:
        model.config.logn_scale = logn_scale
    return model.to(device).eval(), checkpoint
