"""
Exercise 2: FoPE (section 4 of the paper, Eq. 11 to 13). 50 minutes, 12 points. Needs exercise 1.

    python -m assignments.grade ex02

Write Fourier position embedding: the floor under the frequencies, the coefficients, the table. RoPE's
rotation stays as it is. model.py holds the same in a class; look there when you are done.

A frequency below the floor ω_l = 2π/N makes less than one turn in the N positions of training. FoPE sets it
to zero, so that f = 1 at every position in its dimensions (Eq. 13). Every other pair m gets a sum of waves in
place of one (Eq. 11): its own frequency ω_m with weight 1, and all the kept frequencies with small random
coefficients a_ω, which are never trained. Each head draws its own, for cosine and sine apart.

Begin with pencil and paper: the three numbers below. The rest is three functions.

See. (a) f is a complex number. Which cosine and which sine are f = 1? The paper's pseudo-code pads both with
1: what does the rotation then do to such a pair, and what to the score? (b) How many more pairs make a turn
when N doubles, and what does a larger θ change? (c) p-RoPE (arXiv 2410.06205) sets the slowest frequencies to
zero as well. Its authors and FoPE's give different reasons: which, and at which N would p = 0.75 be FoPE's
clip? (d) Why must a checkpoint keep the coefficients? (e) Is the score of two positions still a function of
their distance? Exercise 5 measures it.
"""

import torch

# For head_dim 64 and θ = 10,000, as in config/fope_tiny.py. Solve θ^(-2m / head_dim) >= 2π/N for m.
TURNING: int | None = None  # how many of the 32 pairs make at least one turn in N = 256 positions?
SHORTEST: int | None = None  # the smallest N in which all 32 do
P: float | None = None  # p-RoPE keeps the share p of the 32: which p, as a fraction, keeps those of N = 256?


def keep(frequencies: torch.Tensor, block_size: int) -> torch.Tensor:
    """Those of the frequencies (pairs,), fastest first, that are not below the floor of N = block_size."""
    raise NotImplementedError


def coefficients(n_head: int, kept: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients of the cosines and of the sines, each (n_head, kept, kept): a random draw at every call.

    Row: a kept frequency ω. Column: the output m, which has its own a_ω. Each is drawn from N(0, σ) as the
    paper's text says, with σ the standard deviation; where ω is the output's own frequency, 1 is added.
    """
    raise NotImplementedError


def table(positions, frequencies, cos_coef, sin_coef, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums of Eq. 11 at positions (T,), for cosine and sine: float32, each (n_head, T, pairs).

    cos_coef and sin_coef are (n_head, kept, kept), as `coefficients` makes them, the 1 of the own frequency
    included. `frequencies` are the kept ones (kept,), which turn the first `kept` pairs; the pairs after them
    are the clipped ones. The sums are float32 even inside of a caller's bfloat16 autocast, which casts the
    inputs of a matrix product: `.float()` on the result comes too late.
    """
    raise NotImplementedError
