"""Solution of exercise 8: three broken FoPEs."""

from dataclasses import replace

import torch

from assignments import experiments
from model import GPT, FoPE


def redraw(model: GPT) -> None:
    for block in model.blocks:
        new = FoPE(model.config)
        block.attn.pos.load_state_dict(new.state_dict())


class SinePaddedWithOnes(FoPE):
    def table(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = super().table(positions)
        outputs = self.sin_coef.size(-1)
        sin[..., outputs:] = 1
        return cos, sin


def pad_sine_with_ones(model: GPT) -> None:
    for block in model.blocks:
        block.attn.pos.__class__ = SinePaddedWithOnes


def floor_from(model: GPT, length: int) -> None:
    config = replace(model.config, block_size=length)
    for block in model.blocks:
        old = block.attn.pos
        new = FoPE(config).to(old.cos_coef.device)
        for new_coef, old_coef in ((new.cos_coef, old.cos_coef), (new.sin_coef, old.sin_coef)):
            _, sources, outputs = old_coef.shape
            new_coef[:, :sources, :outputs] = old_coef
        block.attn.pos = new


if __name__ == "__main__":
    experiments.damages(redraw, pad_sine_with_ones, floor_from)
