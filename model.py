"""
A GPT whose position encoding is one small class: none (NoPE), ALiBi, RoPE, RoPE-A or FoPE (arXiv 2412.17739).

    from model import GPT, GPTConfig
    logits, loss = GPT(GPTConfig(pos="fope"))(idx, targets)

This file is the whole model and imports nothing of the repository. train.py trains it; sample.py,
perplexity.py and passkey.py load it with `load_checkpoint`. Read it from top to bottom with the paper at
hand: configuration, position encodings, attention, block, GPT, and at the end what every script needs to
run it. Where the paper's text and its released code differ, docs/paper.md says which one this follows.

Names here and symbols in the paper:

    block_size               N     the training length, in tokens
    head_dim                 M     dimensions of q and k in one head; RoPE turns them in M / 2 pairs
    frequencies              ω     the angle, in radians, that one position adds; pair m has its own, ω_m
    2π / block_size          ω_l   the floor: a frequency below it makes less than one turn in N tokens
    fope_dim                 D     the bank {ω} is RoPE's formula with D in place of M: D / 2 frequencies
    cos_coef, sin_coef       a_ω   the coefficients of the series (Eq. 11), with the 1 that stands at ω_m
    fope_sigma               σ     their scale
    rope_theta               θ     RoPE's base
    B, T, C, H                     batch, tokens, width (n_embd), heads (n_head)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def require(condition: bool, message: str):
    """ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


@dataclass
class GPTConfig:
    vocab_size: int = 50304  # GPT-2's 50257 rounded up to a multiple of 64, which is faster
    block_size: int = 512  # training length N in tokens; nothing limits the length at inference
    n_layer: int = 8  # blocks
    n_head: int = 8  # attention heads in a block
    n_embd: int = 512  # width
    dropout: float = 0.0  # share of activations dropped in training
    pos: str = "fope"  # position encoding: a name in model.POSITIONS
    rope_theta: float = 10000.0  # base θ of RoPE's frequencies
    fope_sigma: float = 0.3  # scale σ of the Fourier coefficients; 0: none, as with fope_series False
    fope_dim: int = 0  # D, the dimension of the bank of frequencies, a multiple of head_dim; 0: head_dim
    fope_init: str = "xavier"  # "xavier": gain σ, as in the paper's code; "normal": N(0, σ), as in its text
    fope_series: bool = True  # FS: each dimension a Fourier series; False: one frequency each
    fope_clip: bool = True  # CF: frequencies under the floor 2π/N become zero
    yarn_scale: float = 1.0  # YaRN: for a context this many times longer; divides low frequencies; 1: off
    yarn_length: int = 0  # the context length before YaRN; 0: block_size
    qk_norm: bool = False  # q and k to mean 0 and variance 1 in each head, before the position encoding
    logn_scale: float = 0.0  # a: multiplies a query that sees n > N keys by 1 + a (ln n / ln N - 1); 0: off
    logn_train: bool = False  # multiplies a query that sees n keys by ln n / ln N, in training too
    local_window: int = 0  # in layers 0, 2, 4, ... a query sees only so many keys, up to its own; 0: all keys

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            # type(), since isinstance(True, int) is true. A setting that is a float may be given as an int.
            fits = type(value) is field.type or (field.type is float and type(value) is int)
            require(fits, f"{field.name} must be of type {field.type.__name__}, not {value!r}")
        self.check_range("vocab_size n_head n_embd yarn_scale", least=1)
        self.check_range("n_layer", least=1, below=10_000)
        self.check_range("block_size rope_theta", least=2)
        self.check_range("fope_sigma fope_dim yarn_length logn_scale local_window", least=0)
        self.check_range("dropout", least=0, below=1)
        self.check_choice("fope_init", ["xavier", "normal"])
        self.check_choice("pos", POSITIONS)
        require(self.n_embd % self.n_head == 0, f"n_embd {self.n_embd} must be a multiple of n_head")

    def check_range(self, names: str, least: float, below: float = 1e18):
        """ValueError unless each of these settings is in [least, below)."""
        for name in names.split():
            value = getattr(self, name)
            fits = least <= value < below  # nan fails every comparison
            require(fits, f"{name} must be at least {least} and below {below:g}, not {value}")

    def check_choice(self, name: str, choices):
        value = getattr(self, name)
        require(value in choices, f"{name} must be one of {', '.join(choices)}, not {value}")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head


# ---------------------------------------------------------------------------------------------------------
# Position encodings. Attention calls two methods of an encoding: encode() writes positions into q and k, and
# bias() is added to the scores. The five here need encode() alone; the README adds T5's encoding by bias().
# A new encoding is a subclass of the nearest one, and a line in POSITIONS.


class NoPE(nn.Module):
    """No position encoding: order enters through the causal mask alone."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config

    def encode(self, q: Tensor, k: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """For subclasses: writes the positions start, start + 1, ... into q and k, each (B, H, T, head_dim).

        They may come back with more features than head_dim (ALiBi's do), as many in one as in the other.
        """
        return q, k

    def bias(self, q_len: int, k_len: int) -> Tensor | None:
        """Added to q · k / √head_dim: float32, (H, q_len, k_len); the queries are the last q_len of k_len.

        Only for what encode() cannot express, such as a learned bias: it costs a q_len x k_len matrix.
        """
        return None


class ALiBi(NoPE):
    """Attention with linear biases (arXiv 2108.12409): score += -m_h (i - j) for query i and key j.

    -m (i - j) is the dot product [m, i] · [j, -m]. So with [m, i] written in front of q and [j, -m] in front
    of k, the product q · k that attention computes anyway holds the bias, and no matrix of biases is needed.
    bfloat16 has 8 significant bits, so each number is written as a sum of two: i = high + low, where high is
    a multiple of 256 (both are exact up to i = 65,535), and m = coarse + rest, which together have 16 bits.
    So m j is (coarse + rest) (high_j + low_j), four products, and m i is four more: eight features.

        q: [coarse, coarse, rest, rest, high_i, low_i, high_i, low_i]
        k: [high_j, low_j, high_j, low_j, -coarse, -coarse, -rest, -rest]

    How far attention's output is from that of the formula, computed in float64: in half precision no further
    than rounding, in float32 1e-4 at 4,096 keys and 2e-3 at 65,536. From there on float16 overflows.
    """

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        m = self.make_slopes(config.n_head) * math.sqrt(config.head_dim)  # attention divides by √head_dim
        coarse = m.bfloat16().float()
        rest = m - coarse
        slopes = torch.stack((coarse, coarse, rest, rest), dim=-1)
        self.register_buffer("slopes", slopes[:, None, :], persistent=False)  # (H, 1, 4)

    @staticmethod
    def make_slopes(n_head: int) -> Tensor:
        """m_h = 2^(-8h/P) for h = 1..P, then 1/2, 3/2, ..., H in all; P: the largest power of two up to H."""
        power = 2 ** int(math.log2(n_head))
        h = torch.cat((torch.arange(1, power + 1), torch.arange(0.5, power)))
        return 2 ** (-8 * h[:n_head] / power)

    def encode(self, q, k, start):
        B, H, T, _ = q.shape
        position = torch.arange(start, start + T, device=q.device)
        low = position % 256
        high = position - low
        numbers = torch.stack((high, low, high, low), dim=-1)  # (T, 4)
        numbers = numbers.expand(B, H, T, 4).type_as(q)
        slopes = self.slopes.expand(B, H, T, 4).type_as(q)
        # In front, since kernels sum in this order: these large terms cancel before small ones are added.
        q = torch.cat((slopes, numbers, q), dim=-1)
        k = torch.cat((numbers, -slopes, k), dim=-1)
        return q, k


class RoPE(NoPE):
    """Rotary position embedding (arXiv 2104.09864): pair m turns by ω_m = θ^(-2m/M) per position (Eq. 2)."""

    def __init__(self, config: GPTConfig, dim: int = 0):
        super().__init__(config)
        require(config.head_dim % 2 == 0, f"head_dim, n_embd / n_head, must be even, not {config.head_dim}")
        self.dim = dim or config.head_dim  # M in θ^(-2m/M); FoPE gives its D
        frequencies = self.make_frequencies()  # which subclasses override
        if config.yarn_scale > 1:
            frequencies = yarn(frequencies, self.dim, config)
        # YaRN also sharpens attention: cosine and sine, and so q and k, are scaled by this factor.
        self.yarn_factor = 0.1 * math.log(config.yarn_scale) + 1
        self.register_buffer("frequencies", frequencies, persistent=False)

    def make_frequencies(self) -> Tensor:
        """The angle per position of every frequency, in radians, descending, float32: (dim / 2,)."""
        exponents = torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim
        return self.config.rope_theta**-exponents

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every frequency's angle at positions (T,): float32, each (T, frequencies)."""
        angles = positions.float()[:, None] * self.frequencies
        return angles.cos() * self.yarn_factor, angles.sin() * self.yarn_factor

    def encode(self, q, k, start):
        positions = torch.arange(start, start + q.size(-2), device=q.device)
        cos, sin = self.table(positions)
        return rotate(q, cos, sin), rotate(k, cos, sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns every pair (a, b) of dimensions of x (B, H, T, head_dim) to (a cos - b sin, b cos + a sin).

    With FoPE's series in place of cosine and sine, it also stretches them a little.
    """
    a, b = x.chunk(2, dim=-1)  # dimension m is paired with m + head_dim / 2
    turned_a = (a * cos - b * sin).type_as(x)  # computed in float32, the table's type; then back to x's
    turned_b = (b * cos + a * sin).type_as(x)
    return torch.cat((turned_a, turned_b), dim=-1)


class RoPEA(RoPE):
    """RoPE-A (Table 1): each frequency becomes the nearest 2πk/N, k >= 1, and makes whole turns in N."""

    def make_frequencies(self) -> Tensor:
        grid = 2 * math.pi / self.config.block_size
        cycles = (super().make_frequencies() / grid).round().clamp(min=1)
        return cycles * grid


class FoPE(RoPE):
    """Fourier position embedding: each pair a Fourier series (Eq. 11), and a floor (Eq. 13).

    Eq. 11 and 13 give the score as a function of the distance between query and key. As in the paper's code,
    q and k each get the series of their own position, so a score depends a little on more than the distance.

    The paper's text draws the coefficients from N(0, σ); its code, and the default here, is Xavier-normal
    with gain σ, which is much smaller (0.02 for the paper's 60M). Every layer and every head has its own, and
    cosine and sine have separate ones. They are not trained; a checkpoint keeps them, since other
    coefficients would be another model.
    """

    def __init__(self, config: GPTConfig):
        super().__init__(config, config.fope_dim)
        require(self.dim % config.head_dim == 0, f"fope_dim {self.dim} must be a multiple of head_dim")
        stride = self.dim // config.head_dim
        # Rows are the bank's frequencies ω from the floor up, which are all that the sum has; columns are the
        # pairs m that turn. The 1 of Eq. 11 stands where ω is the pair's own ω_m. With four frequencies:
        #     D = M            D = 2M, where only every second ω is an ω_m
        #     1 0 0 0          1 0
        #     0 1 0 0          0 0
        #     0 0 1 0          0 1
        #     0 0 0 1          0 0
        dominant = torch.eye(len(self.frequencies))[:, ::stride]
        sources, outputs = dominant.shape
        std = config.fope_sigma if config.fope_series else 0.0
        if config.fope_init == "xavier":
            # √(2 / (fan_in + fan_out)), as PyTorch counts them for a tensor (n_head, sources, outputs)
            fan_in = sources * outputs
            fan_out = config.n_head * outputs
            std = std * math.sqrt(2 / max(fan_in + fan_out, 1))  # not 2 / 0, where no frequency is kept
        noise = std * torch.randn(2, config.n_head, sources, outputs)
        self.register_buffer("cos_coef", dominant + noise[0])
        self.register_buffer("sin_coef", dominant + noise[1])

    def make_frequencies(self) -> Tensor:
        """RoPE's; with fope_clip only those from the floor 2π/N up: `table` pads with frequency zero."""
        frequencies = super().make_frequencies()
        if self.config.fope_clip:
            frequencies = frequencies[frequencies >= 2 * math.pi / self.config.block_size]
        return frequencies

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Σ a_ω cos ωn and Σ a_ω sin ωn at positions n (T,): float32, each (H, T, head_dim / 2).

        The a_ω of the cosines are a column of cos_coef, those of the sines one of sin_coef.
        """
        cos, sin = super().table(positions)  # (T, frequencies)
        with torch.autocast(positions.device.type, enabled=False):  # keeps these products in float32
            cos = cos @ self.cos_coef  # (H, T, pairs that turn)
            sin = sin @ self.sin_coef
        # The deleted frequencies are zero: cosine 1 (times YaRN's factor) and sine 0, as in Eq. 13. (The
        # paper's code pads both with 1.)
        clipped = self.config.head_dim // 2 - cos.size(-1)
        return F.pad(cos, (0, clipped), value=self.yarn_factor), F.pad(sin, (0, clipped))


POSITIONS = {"nope": NoPE, "alibi": ALiBi, "rope": RoPE, "rope_a": RoPEA, "fope": FoPE}


def yarn(frequencies: Tensor, dim: int, config: GPTConfig) -> Tensor:
    """YaRN (arXiv 2309.00071, section 3.2): lowers the frequencies that are low already.

    Those with over 32 turns in the original length stay, those with under 1 are divided by yarn_scale, and
    between them lies a ramp over the index m, as in YaRN's code. dim is M, or FoPE's D, in θ^(-2m/dim). FoPE
    clips before, so what this lowers under the floor is kept.
    """
    length = config.yarn_length or config.block_size

    def index(turns: int) -> float:
        """The m whose frequency θ^(-2m/dim) makes this many turns in the original length."""
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    ramp_start = max(math.floor(index(32)), 0)
    ramp_end = min(math.ceil(index(1)), dim - 1)  # dim - 1 as in YaRN's code, though m ends at dim / 2
    ramp = (torch.arange(len(frequencies)) - ramp_start) / max(ramp_end - ramp_start, 0.001)  # not 0 / 0
    ramp = ramp.clamp(0, 1)
    return frequencies * (1 - ramp) + frequencies / config.yarn_scale * ramp


# ---------------------------------------------------------------------------------------------------------
# The transformer


def attention(q, k, v, bias=None, dropout=0.0, window=0):
    """Causal attention of queries, the last q_len of k_len positions, to keys and values.

    `bias` is what an encoding's bias() gives. q and k have more features than v if positions stand in them.
    With a window, a query sees only so many keys, the last ones up to its own.
    """
    q_len, k_len = q.size(-2), k.size(-2)
    head_dim = v.size(-1)
    # A single query sees all keys and needs no mask; several without a cache need PyTorch's is_causal. But
    # the mask is a matrix if there is a bias, if a window hides keys, and for several queries after a cache,
    # of which is_causal would align the first with the first key.
    mask = None
    is_causal = False
    hides = 0 < window < k_len
    if bias is not None or hides or 1 < q_len < k_len:
        own_key = k_len - q_len  # of the first query
        mask = torch.ones(q_len, k_len, dtype=torch.bool, device=q.device).tril(own_key)
        if hides:
            mask = mask.triu(own_key - window + 1)
    elif q_len > 1:  # a branch, since torch.compile may make of `q_len > 1` a symbol, which is no bool
        is_causal = True
    if bias is not None:
        mask = torch.where(mask, bias, -math.inf).to(q.dtype)[None]  # 4-D: fast on CPUs
    extra = q.size(-1) - head_dim
    if extra > 0:
        v = F.pad(v, (0, extra))  # the fast kernels want q, k and v equally wide
    y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale=head_dim**-0.5)
    return y[..., :head_dim]


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Without bias; the weights are normal, cut at three standard deviations, with no scaling by depth."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.06, b=0.06)
    return layer


class CausalSelfAttention(nn.Module):
    def __init__(self, config: GPTConfig, window: int):
        super().__init__()
        self.config = config
        self.window = window  # how many keys a query sees; 0: all
        self.c_attn = linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = linear(config.n_embd, config.n_embd)
        with torch.random.fork_rng(devices=[]):  # so that all other weights are the same with every encoding
            self.pos = POSITIONS[config.pos](config)

    def forward(self, x: Tensor, cache: dict | None = None) -> Tensor:
        config = self.config
        B, T, C = x.shape
        shape = (B, T, config.n_head, config.head_dim)
        q, k, v = self.c_attn(x).split(C, dim=2)
        q = q.view(shape).transpose(1, 2)  # (B, H, T, head_dim)
        k = k.view(shape).transpose(1, 2)  # (B, H, T, head_dim)
        v = v.view(shape).transpose(1, 2)  # (B, H, T, head_dim)
        past = cache["k"].size(2) if cache else 0  # tokens before these; a new cache is an empty dict
        if config.qk_norm:
            q = F.layer_norm(q, (config.head_dim,))
            k = F.layer_norm(k, (config.head_dim,))
        if config.logn_train or config.logn_scale > 0:
            q = self.scale_queries(q, past)
        q, k = self.pos.encode(q, k, past)

        if cache:
            k = torch.cat((cache["k"], k), dim=2)
            v = torch.cat((cache["v"], v), dim=2)
        if cache is not None:
            cache.update(k=k, v=v)
        bias = self.pos.bias(T, k.size(2))
        dropout = config.dropout if self.training else 0.0
        y = attention(q, k, v, bias, dropout, self.window)  # (B, H, T, head_dim)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))

    def scale_queries(self, q: Tensor, past: int) -> Tensor:
        """Multiplies each query by a factor that grows with ln n, where n is how many keys it sees.

        With logn_scale alone it is 1 up to N. A softmax over n keys gives one of them about 1/n; scores that
        grow as ln n make up for it (arXiv 2202.12172, 2501.19399).
        """
        n = torch.arange(past + 1, past + q.size(2) + 1, device=q.device)[:, None]  # (T, 1)
        if self.window > 0:
            n = n.clamp(max=self.window)
        ratio = n.log() / math.log(self.config.block_size)  # ln n / ln N: 1 at the training length
        factor = 1 + self.config.logn_scale * (ratio - 1).clamp(min=0)
        if self.config.logn_train:
            factor = factor * ratio
        return (q * factor).type_as(q)


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202). The "MLP ratio 8" of Table 2 is c_fc's: 4 for the values, 4 for the gate."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = linear(config.n_embd, 8 * config.n_embd)
        self.c_proj = linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = self.c_fc(x).chunk(2, dim=-1)
        return self.c_proj(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, config: GPTConfig, window: int):
        super().__init__()
        self.norm_1 = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.attn = CausalSelfAttention(config, window)
        self.norm_2 = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: dict | None = None) -> Tensor:
        x = x + self.dropout(self.attn(self.norm_1(x), cache))
        x = x + self.dropout(self.mlp(self.norm_2(x)))
        return x


class GPT(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        nn.init.trunc_normal_(self.wte.weight, std=0.02, a=-0.06, b=0.06)
        # Local and global layers take turns, as in Gemma 2 (arXiv 2408.00118).
        windows = [config.local_window if layer % 2 == 0 else 0 for layer in range(config.n_layer)]
        self.blocks = nn.ModuleList(Block(config, window) for window in windows)
        self.norm = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.lm_head = linear(config.n_embd, config.vocab_size)  # not tied to wte

    def num_params(self) -> int:
        """Trained parameters without the output embedding; so counted, the paper's 60M has 60M."""
        return sum(p.numel() for p in self.parameters()) - self.lm_head.weight.numel()

    def hidden(self, idx: Tensor, cache: list[dict] | None = None) -> Tensor:
        """What lm_head turns into logits: (B, T, n_embd) for tokens idx (B, T).

        With a cache (one dict a layer, empty at first), idx holds only the tokens that follow the cached
        ones. ValueError for a model cast to half precision, whose frequencies would misplace far tokens.
        """
        half = self.wte.weight.dtype in (torch.bfloat16, torch.float16)
        require(not half, "positions need float32: leave the model as it is and run it under model.autocast")
        x = F.dropout(self.wte(idx), self.config.dropout, self.training)
        for block, layer_cache in zip(self.blocks, cache or [None] * len(self.blocks)):
            x = block(x, layer_cache)
        return self.norm(x)

    def forward(self, idx: Tensor, targets: Tensor | None = None):
        """Logits (B, T, vocab_size) and loss for tokens idx (B, T) and targets (B, T), what follows each.

        Without targets: the last position's logits, (B, 1, vocab_size), and None.
        Targets of -1 do not count. The loss is the mean over rows of the mean over a row's counted targets,
        so that the five digits of a passkey weigh as much as a row of text; each row needs one that counts.
        """
        x = self.hidden(idx)
        if targets is None:
            return self.lm_head(x[:, -1:]), None
        logits = self.lm_head(x)  # (B, T, vocab_size)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
        counted = (targets >= 0).sum(dim=1)  # (B,)
        row_losses = losses.view_as(targets).sum(dim=1) / counted
        return logits, row_losses.mean()

    @torch.no_grad()
    def stream(self, idx: Tensor, max_new_tokens: int, temperature=1.0, top_k=None) -> Iterator[Tensor]:
        """Yields the tokens that follow idx (B, T), one at a time, each (B, 1).

        temperature 0 takes the most likely token; top_k draws among the k most likely.
        """
        cache = [{} for _ in self.blocks]
        new = idx  # what the cache does not hold yet: the prompt, then one token at a time
        for _ in range(max_new_tokens):
            x = self.hidden(new, cache)
            logits = self.lm_head(x[:, -1]).float()  # (B, vocab_size)
            if top_k is not None:
                k_best = logits.topk(min(top_k, logits.size(-1))).values
                logits[logits < k_best[:, -1:]] = -math.inf
            if temperature == 0:
                new = logits.argmax(dim=-1, keepdim=True)
            else:
                probabilities = (logits / max(temperature, 1e-6)).softmax(dim=-1)  # a tinier one overflows
                new = torch.multinomial(probabilities, num_samples=1)
            yield new

    def generate(self, idx: Tensor, max_new_tokens: int, temperature=1.0, top_k=None) -> Tensor:
        """idx (B, T) followed by max_new_tokens more, as `stream` draws them."""
        return torch.cat((idx, *self.stream(idx, max_new_tokens, temperature, top_k)), dim=1)


# ---------------------------------------------------------------------------------------------------------
# Running it: device, number format, checkpoints


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name, or SystemExit; "auto" is the accelerator if there is one, else the CPU."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError):
        raise SystemExit(f"error: torch finds no device {name} here") from None
    return torch.device(name)


def autocast(device: torch.device, dtype: str = "auto") -> torch.autocast:
    """The context in which the model runs: weights stay float32, matrix products are in bfloat16 or float16.

    "auto" is bfloat16 where the hardware multiplies it, float16 on older CUDA cards (compute capability
    before 8; training then needs a gradient scaler), else float32.
    """
    if dtype == "auto":
        dtype = "float32"
        if device.type == "cuda":
            dtype = "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
        elif device.type == "cpu":
            features = torch.cpu.get_capabilities()
            if features.get("amx_bf16") or features.get("avx512_bf16"):
                dtype = "bfloat16"
    return torch.autocast(device.type, dtype=getattr(torch, dtype), enabled=dtype != "float32")


def load_checkpoint(out_dir: str, device: torch.device, logn_scale: float | None = None) -> tuple[GPT, dict]:
    """The model of a run's directory, ready for evaluation on the device, and its checkpoint, on the CPU.

    logn_scale, if given, replaces the checkpoint's. SystemExit for what cannot be loaded; weights_only runs
    no code that a file may hold.
    """
    path = Path(out_dir) / "ckpt.pt"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        config, meta = checkpoint["config"], checkpoint["meta"]
        if logn_scale is not None:
            config["logn_scale"] = logn_scale
        config.setdefault("local_window", 0)  # older checkpoints do not name it
        settings = {field.name: config[field.name] for field in fields(GPTConfig)}
        model = GPT(GPTConfig(**settings))
        model.load_state_dict(checkpoint["model"])
        finite = all(weight.isfinite().all() for weight in checkpoint["model"].values())
        require(finite, "its weights are not finite")
        require(type(checkpoint["iter"]) is int and checkpoint["iter"] >= 0, "it does not say its step")
        texts = (config["dataset"], meta["encoding"], meta["sha256"])
        require(all(type(text) is str for text in texts), "it does not say its corpus")
    except Exception as error:  # damaged files fail in a dozen ways
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise SystemExit(f"error: cannot load {path}: {reason[:200]}") from None
    model.eval()
    with torch.no_grad():
        logits, _ = model(torch.zeros(1, 1, dtype=torch.int64))
    if not logits.isfinite().all():  # finite weights may be too large
        raise SystemExit(f"error: {path} is of no use: its logits are not finite")
    return model.to(device), checkpoint
