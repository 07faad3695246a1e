"""Solution of exercise 7: three broken FoPEs."""

from dataclasses import replace

from model import GPT, FoPE


def redraw(model: GPT):
    for block in model.blocks:
        new = FoPE(model.config)
        pos = block.attn.pos
        pos.cos_coef.copy_(new.cos_coef)
        pos.sin_coef.copy_(new.sin_coef)


class SinePaddedWithOnes(FoPE):
    def table(self, positions):
        cos, sin = super().table(positions)
        kept = len(self.frequencies)
        sin[..., kept:] = 1
        return cos, sin


def pad_sine_with_ones(model: GPT):
    for block in model.blocks:
        new = SinePaddedWithOnes(model.config)
        new.load_state_dict(block.attn.pos.state_dict())
        block.attn.pos = new.to(model.lm_head.weight.device)


def floor_from(model: GPT, length: int):
    config = replace(model.config, block_size=length)
    for block in model.blocks:
        old = block.attn.pos
        new = FoPE(config).to(old.cos_coef.device)
        kept = len(old.frequencies)
        new.cos_coef[:, :kept, :kept] = old.cos_coef
        new.sin_coef[:, :kept, :kept] = old.sin_coef
        block.attn.pos = new
