"""
Exercise 7: a new encoding, KERPLE (arXiv 2205.09921). 45 minutes, 12 points.

    python -m assignments.grade ex07

Goal. Add a learned encoding to this repository, and see how much of it has to know. ALiBi fixes how fast
attention fades with distance; KERPLE (logarithmic variant) learns it. It adds to the score of query i and
key j

    -r1 log(1 + r2 |i - j|)        with r1 > 0 and r2 > 0 learned in every head.

Before you start. ALiBi, NoPE.bias and the first lines of `attention` in model.py; nn.Parameter.

Fill in the three methods. `encode` stays NoPE's: q and k hold no positions. Nothing limits k_len: it may be
far above block_size. Think about three things: which positions the queries have when a cache holds the
earlier keys; where the tensors that you make live; and how a number stays positive, and goes on learning,
while an optimizer does with its parameter what it likes, from -30 to 30. A rate may have to become as small
as 0.01 or as large as 10; let it start near 1, or below. `bias` is called again and again, with other
lengths and other rates.

See. (a) Would ALiBi's trick of features in q and k in place of a bias have worked for this formula? (b) The
class moves in: into model.py, and "kerple": KERPLE into POSITIONS. pytest then tests it, and training takes
a command (assignments/README.md says how long). Compare it with other encodings; look at
model.blocks[i].attn.pos.rates(): do heads and layers agree on them?

    python train.py --pos=kerple
    python perplexity.py out/kerple_tiny out/alibi_tiny out/fope_tiny
"""

import torch

from model import GPTConfig, NoPE


class KERPLE(NoPE):
    """Kernelized relative position embedding, logarithmic variant (arXiv 2205.09921)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        raise NotImplementedError  # what is learned: two numbers a head, and nothing else

    def rates(self) -> tuple[torch.Tensor, torch.Tensor]:
        """r1 and r2, each (n_head,): positive for parameters from -30 to 30."""
        raise NotImplementedError

    def bias(self, q_len: int, k_len: int) -> torch.Tensor:
        """(n_head, q_len, k_len), finite, float32, under bfloat16 autocast, too.

        The queries are the last q_len of k_len positions.

        What stands at later keys, j > i, is finite and does not matter: the causal mask hides them.
        """
        raise NotImplementedError
