"""
Solution of exercise 5: three broken FoPEs. Graded with --solutions.

A FoPE leaves torch's random generator as it found it, so FoPE(config) twice in a row gives the same coefficients. In a
whole new GPT they are all different, because its other weights move the generator on between them.

redraw: the silent one. At σ = 0.3 of the Xavier gain the harmonics are so small (standard deviation 0.03 in the tiny
model) that perplexity hardly tells one set from another; with N(0, 0.3) it does, at N already. Only a test that a
loaded model gives the same logits finds it for sure. The repository keeps the coefficients in buffers that the
checkpoint holds, and loads strictly.

pad_sine_with_ones: (x, y) becomes (x - y, y + x), in q and in k: a turn by 45 degrees, which cancels in their product,
and a stretch by √2, so the scores of the clipped dimensions double. No position enters: a model trained this way loses
nothing, for W_q and W_k can halve the scores. One that was trained otherwise is harmed at N already, and more beyond
it, where attention that is too sharp has more keys to be wrong about. F.pad in FoPE.table has the zeros.

floor_from: pairs that never turned in training turn now, slowly, as RoPE's do. At N little is seen, as the angles are
still small; the longer the text, the worse, and the more pairs are set free, the worse. The repository keeps N in the
checkpoint's configuration, and coefficients of another shape do not load.
"""

from dataclasses import replace

import torch

from assignments import experiments
from model import GPT, FoPE


def redraw(model: GPT) -> None:
    """Draws all Fourier coefficients again, as if the checkpoint had not kept them."""
    for block, other in zip(model.blocks, GPT(model.config).blocks):
        block.attn.pos.load_state_dict(other.attn.pos.state_dict())


class SinePaddedWithOnes(FoPE):
    def table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = super().table(positions)
        sin[..., self.sin_coef.size(-1) :] = 1
        return cos, sin


def pad_sine_with_ones(model: GPT) -> None:
    """Gives the clipped dimensions sine 1 in place of 0; their cosine stays 1 (released code, against Eq. 13)."""
    for block in model.blocks:
        block.attn.pos.__class__ = SinePaddedWithOnes


def floor_from(model: GPT, length: int) -> None:
    """Takes the floor 2π/N from N = length, of at least block_size, as if evaluating had set the training length."""
    longer = GPT(replace(model.config, pos_length=length)).to(model.lm_head.weight.device)
    for block, other in zip(model.blocks, longer.blocks):
        new = other.attn.pos.state_dict()
        for name, old in block.attn.pos.state_dict().items():
            new[name][:, : old.size(1), : old.size(2)] = old
        block.attn.pos = other.attn.pos


if __name__ == "__main__":
    experiments.damages(redraw, pad_sine_with_ones, floor_from)
