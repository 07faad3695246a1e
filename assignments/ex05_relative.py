"""
Exercise 5: how far from relative is FoPE, as a function of σ? 30 minutes, 8 points. Needs exercise 2.

    python -m assignments.grade ex05
    python -m assignments.ex05_relative         the experiment's table, once the function is written

RoPE's score depends on the distance of query and key alone (Eq. 3). Eq. 11 writes FoPE's as a function of the
distance as well, but the model multiplies q by a Fourier series at the query's position, and k by the same
series at the key's. Measure what comes of it: if a score is relative, nothing changes when all positions move
by the same amount.

Begin with pencil and paper: multiply out the two series, and fill in EXPONENT before you run anything.

See. (a) Which encodings are at zero? ALiBi's bias depends on the distance alone, but model.py writes it in
another way, and the error is not zero: why does attention not mind? (b) Where does your power law end, and
why there? (c) Which σ of N(0, σ) is like σ = 0.3 of the Xavier gain, which the released code uses? (d) Is a
model with position-dependent scores broken, or has it only more to learn?
"""

import torch

from model import POSITIONS, FoPE, GPTConfig, NoPE

EXPONENT: float | None = None  # for small σ, the error grows like σ to the power of this


def relative_error(pos: NoPE, q: torch.Tensor, k: torch.Tensor, shift: int) -> float:
    """How much the scores change when every position moves by `shift`, as a share of their size.

    With S(t) the scores (B, H, T, T), the dot products of all the queries and keys q, k (B, H, T, head_dim)
    encoded at the positions t, t + 1, ...: the root mean square of S(shift) - S(0), divided by the root mean
    square of S(0). All pairs count, those that the causal mask would hide, too. pos.encode does the encoding.
    """
    raise NotImplementedError


def print_errors():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 8, 64, 64)
    for name, encoding in POSITIONS.items():
        pos = encoding(GPTConfig(pos=name, fope_sigma=0.0))
        print(f"{name:8} sigma 0       error {relative_error(pos, q, k, 512):.4f}")
    for init in ("normal", "xavier"):
        for sigma in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
            torch.manual_seed(0)  # the same draw for every sigma, scaled
            pos = FoPE(GPTConfig(fope_sigma=sigma, fope_init=init))
            print(f"{init:8} sigma {sigma:<7} error {relative_error(pos, q, k, 512):.4f}")


if __name__ == "__main__":
    print_errors()
