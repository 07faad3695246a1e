"""
Exercise 6: KERPLE, a learned encoding (arXiv 2205.09921). 40 minutes and a training, 10 points.

    python -m assignments.grade ex06

ALiBi fixes how fast attention fades with distance. KERPLE, in its logarithmic variant, learns it: it adds to
the score of query i and key j

    -r1 log(1 + r2 |i - j|)        with r1 > 0 and r2 > 0, learned in every head.

Write it as an encoding of this repository: a subclass of NoPE with two methods. `encode` stays NoPE's, so q
and k hold no positions; NoPE.bias and the beginning of `attention` in model.py say what a bias has to be.

Think about three things. Which positions have the queries when a cache holds the earlier keys? On which
device do the tensors live that you make? How does a number stay positive, and go on learning, while the
optimizer does with its parameter what it likes?

See. (a) ALiBi writes its bias into q and k as a few features more. Would that work for this formula? (b) Copy
the class into model.py and `"kerple": KERPLE` into POSITIONS. pytest then tests it, and training takes a
command. Compare it with the encodings that exercise 4 has trained. Print model.blocks[i].attn.pos.rates() of
the model that load_checkpoint gives: do heads and layers agree on them?

    python train.py config/plain_tiny.py --pos=kerple
    python perplexity.py out/kerple_plain out/alibi_plain out/fope_plain
"""

import torch

from model import GPTConfig, NoPE


class KERPLE(NoPE):
    def __init__(self, config: GPTConfig):
        super().__init__(config)
        raise NotImplementedError  # what is learned: two numbers for each of config.n_head heads

    def rates(self) -> tuple[torch.Tensor, torch.Tensor]:
        """r1 and r2, each (n_head,): positive, and still learning, for parameters from -10 to 10."""
        raise NotImplementedError

    def bias(self, q_len: int, k_len: int) -> torch.Tensor:
        """(n_head, q_len, k_len), float32: the queries are the last q_len of k_len positions.

        k_len may be far above block_size. What stands at later keys, j > i, is hidden by the causal mask, but
        has to be finite.
        """
        raise NotImplementedError
