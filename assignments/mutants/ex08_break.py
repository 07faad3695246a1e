"""Wrong answers to exercise 8: what each does, the solution's code, the mistake in its place, a word of the
hint."""

REDRAW = "block.attn.pos.load_state_dict(new.state_dict())"
PAD = "    for block in model.blocks:\n        block.attn.pos.__class__ = SinePaddedWithOnes"
PADDED = (
    "    old_table = FoPE.table\n\n"
    "    def padded(self, positions):\n"
    "        cos, sin = old_table(self, positions)\n"
    "        sin[..., self.sin_coef.size(-1) :] = 1\n"
    "        return cos, sin\n\n"
)

MUTANTS = [
    (
        "one draw for all layers",
        "for block in model.blocks:\n        new = FoPE(model.config)\n",
        "new = FoPE(model.config)\n    for block in model.blocks:\n",
        "draw of its own",
    ),
    (
        "old ones and half the noise",
        REDRAW,
        "block.attn.pos.cos_coef += 0.5 * (new.cos_coef - new.cos_coef.mean(0))\n"
        "        block.attn.pos.sin_coef += 0.5 * (new.sin_coef - new.sin_coef.mean(0))",
        "still in the new",
    ),
    (
        "heads in another order",
        REDRAW,
        "pos = block.attn.pos\n        pos.cos_coef[:] = pos.cos_coef.roll(1, 0)\n"
        "        pos.sin_coef[:] = pos.sin_coef.roll(1, 0)",
        "another order",
    ),
    ("cosine alone", REDRAW, "block.attn.pos.cos_coef[:] = new.cos_coef", "as before"),
    (
        "first layer alone",
        "for block in model.blocks:\n        new = FoPE(model.config)",
        "for block in model.blocks[:1]:\n        new = FoPE(model.config)",
        "as before",
    ),
    (
        "no dominant frequency",
        REDRAW,
        "block.attn.pos.cos_coef.normal_(0, 0.05)\n        block.attn.pos.sin_coef.normal_(0, 0.05)",
        "dominant",
    ),
    (
        "N(0, 0.3), which is not its scale",
        REDRAW,
        "eye = torch.eye(new.cos_coef.size(1))[:, :: new.dim // 64]\n"
        "        block.attn.pos.cos_coef[:] = eye + 0.3 * torch.randn_like(new.cos_coef)\n"
        "        block.attn.pos.sin_coef[:] = eye + 0.3 * torch.randn_like(new.cos_coef)",
        "standard deviation",
    ),
    (
        "always the same draw",
        "for block in model.blocks:\n        new =",
        "torch.manual_seed(3)\n    for block in model.blocks:\n        new =",
        "same coefficients",
    ),
    (
        "a whole new model",
        "def redraw(model: GPT) -> None:\n",
        "def redraw(model: GPT) -> None:\n    model.load_state_dict(GPT(model.config).state_dict())\n",
        "should stay",
    ),
    ("all sines 1", "sin[..., outputs:] = 1", "sin[:] = 1", "kept pairs"),
    (
        "cosine 0",
        "sin[..., outputs:] = 1",
        "sin[..., outputs:] = 1\n        cos[..., outputs:] = 0",
        "cosine stays",
    ),
    (
        "counted by frequencies",
        "outputs = self.sin_coef.size(-1)",
        "outputs = len(self.frequencies)",
        "clipped pairs",
    ),
    (
        "first layer alone, sine",
        "for block in model.blocks:\n        block.attn.pos.__class__",
        "for block in model.blocks[:1]:\n        block.attn.pos.__class__",
        "layer 1",
    ),
    (
        "corner by frequencies",
        "_, sources, outputs = old_coef.shape",
        "sources = outputs = len(old.frequencies)",
        "it ended with RuntimeError",
    ),
    (
        "corner by frequencies, cut",
        "new_coef[:, :sources, :outputs] = old_coef",
        "n = min(sources, outputs)\n            new_coef[:, :n, :n] = old_coef[:, :n, :n]",
        "corner",
    ),
    ("nothing of the old", "new_coef[:, :sources, :outputs] = old_coef", "pass", "corner"),
    (
        "new ones are zero",
        "new_coef[:, :sources, :outputs] = old_coef",
        "new_coef[:, sources:] = 0\n            new_coef[:, :sources, :outputs] = old_coef",
        "zeros|drawn",
    ),
    (
        "the configuration, too",
        "config = replace(model.config, block_size=length)",
        "model.config.block_size = length\n    config = model.config",
        "model.config",
    ),
    (
        "layers share a draw",
        "new = FoPE(config)",
        "torch.manual_seed(1)\n        new = FoPE(config)",
        "draw of their own",
    ),
    ("floor of twice the length", "block_size=length", "block_size=2 * length", "number of frequencies"),
    (
        "training goes on",
        "def redraw(model: GPT) -> None:\n",
        "def redraw(model: GPT) -> None:\n    model.train()\n",
        "evaluation mode",
    ),
    (
        "the class is changed",
        PAD,
        PADDED + "    FoPE.table = padded",
        "class was changed: FoPE.table",
    ),
    (
        "the class is changed, by setattr",
        PAD,
        PADDED + '    setattr(FoPE, "table", padded)',
        "class was changed: FoPE.table",
    ),
    (
        "its own formula of Xavier, without fope_init",
        REDRAW,
        "config = model.config\n"
        "        _, sources, outputs = new.cos_coef.shape\n"
        "        std = (2 / (sources * outputs + config.n_head * outputs)) ** 0.5 * config.fope_sigma\n"
        "        std = std * config.fope_series\n"
        "        eye = torch.eye(sources)[:, :: new.dim // 64]\n"
        "        block.attn.pos.cos_coef[:] = eye + std * torch.randn_like(new.cos_coef)\n"
        "        block.attn.pos.sin_coef[:] = eye + std * torch.randn_like(new.cos_coef)",
        "standard deviation",
    ),
    (
        "drawn without a series, too",
        "new = FoPE(model.config)\n",
        "new = FoPE(replace(model.config, fope_series=True))\n",
        "not drawn as FoPE draws",
    ),
    (
        "the clipped are those whose sine is 0 in this call",
        "outputs = self.sin_coef.size(-1)\n        sin[..., outputs:] = 1",
        "sin[(sin == 0).all(dim=1, keepdim=True).expand_as(sin)] = 1",
        "position 0 alone",
    ),
    (
        "the attention's config replaced, too",
        "        block.attn.pos = new",
        "        block.attn.pos = new\n        block.attn.config = config",
        "layer 0's attention",
    ),
]
