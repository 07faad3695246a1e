"""
A GPT whose position encoding is one small class: none (NoPE), RoPE, RoPE-A, FoPE (arXiv 2412.17739) or ALiBi.

    from model import GPT, GPTConfig
    logits, loss = GPT(GPTConfig(pos="fope"))(idx, targets)

This file is the whole model and imports nothing of the repository. Read it from top to bottom with the paper
at hand: configuration, position encodings, attention, block, GPT, and at the end what every script needs to
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
    """Ends the program in one line: for a mistake in what a user gave. All else may crash."""
    if not condition:
        raise SystemExit(f"error: {message}")


@dataclass
class GPTConfig:
    vocab_size: int = 50304  # GPT-2's 50257 rounded up to a multiple of 64, which is faster; train.py sets it
    block_size: int = 512  # training length N in tokens; nothing limits the length at inference
    n_layer: int = 8  # blocks
    n_head: int = 8  # attention heads in a block; heads of 64 or 128 dimensions are usual
    n_embd: int = 512  # width
    pos: str = "fope"  # position encoding: a name in model.POSITIONS
    pos_global: str = ""  # that of the layers without a window; "": pos. Try rope in local layers, nope here
    rope_theta: float = 10000.0  # base θ of RoPE's frequencies
    fope_sigma: float = 0.3  # scale σ of the Fourier coefficients; the paper takes 0.4 at 180M, 0.6 at 1.2B
    fope_dim: int = 0  # D, the dimension of the bank of frequencies, a multiple of head_dim; 0: head_dim
    fope_init: str = "xavier"  # "xavier": gain σ, as in the paper's code; "normal": N(0, σ), as in its text
    fope_series: bool = True  # FS: each dimension a Fourier series; False: one frequency each
    fope_clip: bool = True  # CF: frequencies under the floor 2π/N become zero
    yarn_scale: float = 1.0  # YaRN: for a context this many times longer; divides low frequencies; 1: off
    yarn_length: int = 0  # the context length before YaRN; 0: block_size
    qk_norm: bool = False  # q and k to mean 0 and variance 1 in each head, before the position encoding
    logn: bool = False  # multiplies a query that sees n keys by ln n / ln N, against dilution at great length
    local_window: int = 0  # in layers 0, 2, 4, ... a query sees only so many keys, up to its own; 0: all keys

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            fits = isinstance(value, field.type) or (field.type is float and isinstance(value, int))
            require(fits, f"{field.name} must be of type {field.type.__name__}, not {value!r}")
        require(self.n_embd % self.n_head == 0, "n_embd must be a multiple of n_head")
        for name in (self.pos, self.pos_global or self.pos):
            require(name in POSITIONS, f"no position encoding {name}; there are {', '.join(POSITIONS)}")
        has_both = self.local_window > 0 or not self.pos_global
        require(has_both, "pos_global is for the layers without a window: it needs a local_window")
        require(self.fope_init in ("xavier", "normal"), "fope_init is xavier or normal")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head


# ---------------------------------------------------------------------------------------------------------
# Position encodings. Attention calls two methods of an encoding: encode() writes positions into q and k, and
# bias() is added to the scores. The five here need encode() alone; the README adds one by bias().
# A new encoding is a subclass of the nearest one, and a line in POSITIONS.


class NoPE(nn.Module):
    """No position encoding: order enters through the causal mask alone. The base of all others."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config

    def encode(self, q: Tensor, k: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """A subclass writes the positions start, start + 1, ... into q and k, each (B, H, T, head_dim).

        Positions go on past block_size. q and k may come back with more features than head_dim, as many in
        one as in the other, and may be changed in any way: what scales queries (logn) has been done before.
        """
        return q, k

    def bias(self, q_len: int, k_len: int) -> Tensor | None:
        """Added to q · k / √head_dim: float32, (H, q_len, k_len); the queries are the last q_len of k_len.

        Only for what encode() cannot express, such as a learned bias: it costs a q_len x k_len matrix.
        """
        return None


class RoPE(NoPE):
    """Rotary position embedding (arXiv 2104.09864): pair m turns by ω_m = θ^(-2m/M) per position (Eq. 2)."""

    def __init__(self, config: GPTConfig, dim: int = 0):
        super().__init__(config)
        require(config.head_dim % 2 == 0, "head_dim, n_embd / n_head, must be even")
        self.dim = dim or config.head_dim  # M in θ^(-2m/M); FoPE gives its D
        frequencies = self.make_frequencies()  # which subclasses override
        self.yarn_factor = 1.0
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
        turns = (super().make_frequencies() / grid).round().clamp(min=1)  # in N tokens
        return turns * grid


class FoPE(RoPE):
    """Fourier position embedding: a floor under the frequencies (CF), and each pair a Fourier series (FS).

    RoPE's pair m has the cosine cos ω_m n at position n. FoPE's has cos ω_m n + Σ a_ω cos ω n (Eq. 11), and
    the sine likewise, with coefficients of its own. They are small, random and not trained; every head of
    every layer draws its own, and a checkpoint keeps them, since other coefficients would be another model.
    Pairs whose ω_m is below 2π/N get frequency zero: cosine 1 and sine 0 (Eq. 13).

    The paper's text draws the coefficients from N(0, σ); its code, and the default here, is Xavier-normal
    with gain σ, which is much smaller (0.02 for the paper's 60M). docs/paper.md has the other places where
    its code differs from its text.

    Eq. 11 and 13 give a score by the distance of query and key. As in the paper's code, q and k each get the
    series of their own position, so a score depends a little on more than the distance.
    """

    def __init__(self, config: GPTConfig):
        super().__init__(config, config.fope_dim)
        require(self.dim % config.head_dim == 0, "fope_dim must be a multiple of head_dim")
        # Rows are the frequencies of the sum, columns the pairs that turn. The 1 of Eq. 11 stands where ω is
        # the pair's own ω_m. So with the default, D = M, `dominant` is the identity; with a larger fope_dim
        # only every second, third ... row is an ω_m.
        stride = self.dim // config.head_dim
        dominant = torch.eye(len(self.frequencies))[:, ::stride]
        noise = torch.zeros(2, config.n_head, *dominant.shape)  # for cosines, for sines
        if config.fope_series and config.fope_init == "xavier":
            # With std σ √(2 / (rows · columns + heads · columns)), as in the paper's code
            for coefficients in noise:
                nn.init.xavier_normal_(coefficients, gain=config.fope_sigma)
        elif config.fope_series:
            noise.normal_(std=config.fope_sigma)
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

        The a_ω of the cosines are a column of cos_coef, those of the sines one of sin_coef. Products in TF32,
        which torch.compile recommends, would be wrong by 1e-3: leave float32's matmul precision at "highest".
        """
        cos, sin = super().table(positions)  # (T, frequencies)
        with torch.autocast(positions.device.type, enabled=False):  # keeps these products in float32
            cos = cos @ self.cos_coef  # (H, T, pairs that turn)
            sin = sin @ self.sin_coef
        clipped = self.config.head_dim // 2 - cos.size(-1)
        return F.pad(cos, (0, clipped), value=self.yarn_factor), F.pad(sin, (0, clipped))


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


class ALiBi(NoPE):
    """Attention with linear biases (arXiv 2108.12409): score += -m (i - j) for query i and key j.

    The m, one a head, is its slope. -m i is the same for all keys of a query, so softmax does not see it, and
    m j is left: a number of the query's head times a number of the key. So with q = [m, q] and k = [j, k] the
    product q · k that attention computes anyway holds the bias, and no T x T matrix is needed.

    One feature would do in float32. bfloat16 has 8 significant bits, too few for positions above 256, so
    each number is written as a sum of two: j = high + low, high a multiple of 256 (exact up to 65,535), and
    m = coarse + rest. Their product is four products, and so four features; four zeros make them eight,
    since CUDA's kernels want widths in multiples of 8. Large terms meet small ones in that sum: attention's
    output is up to 8e-4 from the formula's at 4,096 keys, 5e-3 at 16,384, below bfloat16's own rounding.
    """

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        m = self.make_slopes(config.n_head) * math.sqrt(config.head_dim)  # attention divides by √head_dim
        coarse = m.bfloat16().float()
        rest = m - coarse
        slopes = F.pad(torch.stack((coarse, coarse, rest, rest), dim=-1), (0, 4))
        self.register_buffer("slopes", slopes[:, None, :], persistent=False)  # (H, 1, 8)

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
        numbers = F.pad(torch.stack((high, low, high, low), dim=-1), (0, 4))  # (T, 8)
        q = torch.cat((self.slopes.expand(B, H, T, 8).type_as(q), q), dim=-1)
        k = torch.cat((numbers.expand(B, H, T, 8).type_as(k), k), dim=-1)
        return q, k


POSITIONS = {"nope": NoPE, "alibi": ALiBi, "rope": RoPE, "rope_a": RoPEA, "fope": FoPE}


# ---------------------------------------------------------------------------------------------------------
# The transformer


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, window: int = 0) -> Tensor:
    """Causal attention of queries, the last q_len of k_len positions, to keys and values: (B, H, q_len, M).

    `bias` is what an encoding's bias() gives. q and k may have more features than v, whose M is head_dim.
    With a window, a query sees only so many keys, the last ones up to its own.
    """
    q_len, k_len = q.size(-2), k.size(-2)
    head_dim = v.size(-1)
    past = k_len - q_len  # keys before the first query's own
    piece = 4 * window
    if bias is None and 0 < 2 * piece <= q_len:
        # To save time and memory: a long text in pieces, each with the keys that it can see, as below.
        pieces = []
        for start in range(0, q_len, piece):
            end = min(start + piece, q_len)
            seen = slice(max(past + start - window + 1, 0), past + end)
            pieces.append(attention(q[:, :, start:end], k[:, :, seen], v[:, :, seen], None, window))
        return torch.cat(pieces, dim=2)

    # A matrix is needed if there is a bias, if a window hides keys, and for several queries after a cache, of
    # which is_causal would align the first with the first key. Else several queries need PyTorch's is_causal,
    # and a single one, which sees all keys, no mask.
    mask = None
    is_causal = False
    hides = 0 < window < k_len
    if bias is not None or hides or 1 < q_len < k_len:
        mask = torch.ones(q_len, k_len, dtype=torch.bool, device=q.device).tril(past)
        if hides:
            mask = mask.triu(past - window + 1)
    elif q_len > 1:  # a branch, since torch.compile may make of `q_len > 1` a symbol, which is no bool
        is_causal = True
    if bias is not None:
        lowest = torch.finfo(q.dtype).min  # not -inf, of which some CUDA kernels may make NaN
        mask = torch.where(mask, bias, lowest).to(q.dtype)[None]  # (1, H, q_len, k_len)
    extra = q.size(-1) - head_dim
    if extra > 0:
        v = F.pad(v, (0, extra))  # the fast kernels want q, k and v equally wide
    y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, scale=head_dim**-0.5)
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
        is_global = window == 0
        name = config.pos_global if is_global and config.pos_global else config.pos
        with torch.random.fork_rng(devices=[]):  # so that all other weights are the same with every encoding
            self.pos = POSITIONS[name](config)

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
        if config.logn:
            q = self.scale_queries(q, past)
        q, k = self.pos.encode(q, k, past)

        if past > 0:
            k = torch.cat((cache["k"], k), dim=2)
            v = torch.cat((cache["v"], v), dim=2)
        if cache is not None:
            cache.update(k=k, v=v)
        bias = self.pos.bias(T, k.size(2))
        y = attention(q, k, v, bias, self.window)  # (B, H, T, head_dim)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))

    def scale_queries(self, q: Tensor, past: int) -> Tensor:
        """Multiplies each query by ln n / ln N, where n is how many keys it sees.

        A softmax over n keys gives one of them about 1/n of the attention; scores that grow as ln n make up
        for it (arXiv 2202.12172, 2501.19399).
        """
        n = torch.arange(past + 1, past + q.size(2) + 1, device=q.device)  # (T,)
        if self.window > 0:
            n = n.clamp(max=self.window)
        factor = n.log() / math.log(self.config.block_size)  # 1 at the training length
        return (q * factor[:, None]).type_as(q)


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

    def forward(self, x: Tensor, cache: dict | None = None) -> Tensor:
        x = x + self.attn(self.norm_1(x), cache)
        x = x + self.mlp(self.norm_2(x))
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

        With a cache (one dict a layer, empty at first), idx holds only the tokens that follow the cached.
        """
        x = self.wte(idx)  # (B, T, n_embd)
        for block, layer_cache in zip(self.blocks, cache or [None] * len(self.blocks)):
            x = block(x, layer_cache)
        return self.norm(x)

    def forward(self, idx: Tensor, targets: Tensor | None = None):
        """Logits (B, T, vocab_size) and loss for tokens idx (B, T) and targets (B, T), what follows each.

        These logits are to look at: gradients flow through the loss alone. Without targets: the last
        position's logits, (B, 1, vocab_size), and None.
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
        # Detached, or a compiled backward would make a gradient of zeros as large as the logits.
        return logits.detach(), row_losses.mean()

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
                probabilities = (logits / temperature).softmax(dim=-1)
                new = torch.multinomial(probabilities, num_samples=1)
            yield new

    def generate(self, idx: Tensor, max_new_tokens: int, temperature=1.0, top_k=None) -> Tensor:
        """idx (B, T) followed by max_new_tokens more, as `stream` draws them."""
        return torch.cat((idx, *self.stream(idx, max_new_tokens, temperature, top_k)), dim=1)


# ---------------------------------------------------------------------------------------------------------
# Running it: device, number format, settings, checkpoints


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the accelerator if there is one, else the CPU."""
    best = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if name == "auto":
        return best
    require(name.split(":")[0] in ("cpu", best.type), f"torch finds no device {name} here")
    return torch.device(name)


def autocast(device: torch.device, dtype: str = "auto") -> torch.autocast:
    """The context in which the model runs: weights stay float32, matrix products are in bfloat16 or float16.

    "auto" is bfloat16 where the hardware multiplies it, float16 on older CUDA cards (compute capability
    before 8; training then needs a gradient scaler), else float32. Run the model in this rather than cast it:
    in a model cast to bfloat16, positions 8190 and 8191 would be one.
    """
    known = ("auto", "float32", "bfloat16", "float16")
    require(dtype in known, f"dtype is one of {', '.join(known)}, not {dtype}")
    if dtype == "auto":
        dtype = "float32"
        if device.type == "cuda":
            dtype = "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
        elif device.type == "cpu":
            features = torch.cpu.get_capabilities()
            if features.get("amx_bf16") or features.get("avx512_bf16"):
                dtype = "bfloat16"
    return torch.autocast(device.type, dtype=getattr(torch, dtype), enabled=dtype != "float32")


def parse_setting(text: str, config_class=GPTConfig) -> tuple:
    """The key and the value of a text "key=value", the value in the type that config_class gives it."""
    key, _, value = text.partition("=")
    kinds = {field.name: field.type for field in fields(config_class)}
    require(key in kinds, f"{config_class.__name__} has no {key}; python train.py --help shows it")
    if kinds[key] is bool:
        require(value in ("", "True", "False"), f"{key} is True or False, not {value}")
        return key, value != "False"  # a bare --key is True
    try:
        return key, kinds[key](value)
    except ValueError:
        raise SystemExit(f"error: {key} must be of type {kinds[key].__name__}, not {value!r}") from None


def load_checkpoint(out_dir: str, device: torch.device, **settings) -> tuple[GPT, dict]:
    """The model of a run's directory, ready for evaluation on the device, and its checkpoint, on the CPU.

    `settings` replace those of its GPTConfig, as --set asks; the weights must fit them. weights_only=True
    means that no code in the file is run.
    """
    path = Path(out_dir) / "ckpt.pt"
    require(path.exists(), f"there is no {path}; train.py makes it")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    saved = checkpoint["config"]
    known = [field.name for field in fields(GPTConfig) if field.name in saved]  # a new field has its default
    config = {name: saved[name] for name in known} | settings
    # Where --set asks for another encoding, FoPE's coefficients are left out or stay as drawn here. The seed
    # makes them the same in every call.
    torch.manual_seed(saved["seed"])
    model = GPT(GPTConfig(**config))
    fit = model.load_state_dict(checkpoint["model"], strict=not settings)
    learned = {name for name, _ in model.named_parameters()}
    lacking = learned.intersection(fit.missing_keys)
    left_out = [name for name in fit.unexpected_keys if ".pos." not in name]
    require(not lacking and not left_out, f"the weights of {path} do not fit {settings}")
    return model.eval().to(device), checkpoint
