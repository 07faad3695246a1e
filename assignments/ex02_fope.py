"""
Exercise 2: FoPE (Eq. 11 to 13). 60 minutes, 12 points.

    python -m assignments.grade ex02

Goal. Write Fourier position embedding: the floor, the coefficients, the table. RoPE's rotation then stays as
it is.

Before you start. Exercise 1; sections 3 and 4 of the paper. model.py holds the same in a class: look when
you are done.

Fill in the three functions. Of RoPE's frequencies, those below the floor ω_l = 2π/N, which complete no turn
in N positions of training, become zero: their dimensions are f = 1 at every position (Eq. 13). Every other
dimension m is, in place of one wave, a sum of waves (Eq. 11): its own frequency ω_m with weight 1, and all
the kept frequencies with small random coefficients a_ω, which are never trained. Each head draws its own,
for cosine and sine apart.

See. (a) f is a complex number; which cosine and which sine does f = 1 ask for? The paper's pseudo-code pads
both with 1: what does the rotation then do to such a pair, and to the score? (b) Why must a checkpoint keep
the coefficients? (c) Is the score of two FoPE positions a function of their distance? Exercise 6 measures it.
"""

import torch


def keep(frequencies: torch.Tensor, block_size: int) -> torch.Tensor:
    """Those of the frequencies (pairs,), fastest first, that are not below the floor of N = block_size."""
    raise NotImplementedError


def coefficients(n_head: int, kept: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients of the cosines and of the sines, each (n_head, kept, kept): a random draw at every call.

    Row: a kept frequency ω. Column: the output m, which has its own a_ω. Each is drawn from N(0, σ) as the
    paper's text says, with σ the standard deviation; where ω is the output's own frequency, 1 is added.
    """
    raise NotImplementedError


def table(
    positions: torch.Tensor,
    frequencies: torch.Tensor,
    cos_coef: torch.Tensor,
    sin_coef: torch.Tensor,
    pairs: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums of Eq. 11 at positions (T,), for cosine and sine: float32, each (n_head, T, pairs).

    cos_coef and sin_coef are (n_head, len(frequencies), outputs), with outputs <= pairs: for the first
    `outputs` pairs; the pairs that are left are the clipped ones. On the device of what is given. Float32
    even where a caller's autocast would take bfloat16: `.float()` on a product comes too late, it was in
    bfloat16 by then; switch autocast off around it.
    """
    raise NotImplementedError
