"""Wrong answers to exercise 7: what each does, the solution's code, the mistake in its place, a word of the
hint."""

MUTANTS = [
    ("relu + 1e-3", "self.log_rates.exp()", "torch.relu(self.log_rates) + 1e-3", "dead"),
    ("clamped far off", "self.log_rates.exp()", "self.log_rates.clamp(-20, 20).exp()", "dead"),
    ("clamp", "self.log_rates.exp()", "self.log_rates.clamp(min=1e-4)", "dead"),
    ("square", "self.log_rates.exp()", "self.log_rates**2", "not positive"),
    ("abs", "self.log_rates.exp()", "self.log_rates.abs()", "not positive"),
    ("square + 1e-3", "self.log_rates.exp()", "self.log_rates**2 + 1e-3", "dead"),
    ("sigmoid", "self.log_rates.exp()", "self.log_rates.sigmoid()", "dead"),
    ("as they are", "self.log_rates.exp()", "self.log_rates + 1", "not positive"),
    (
        "not learned",
        "nn.Parameter(torch.zeros(2, config.n_head))",
        "torch.zeros(2, config.n_head)",
        "are learned",
    ),
    (
        "one rate for all heads",
        "nn.Parameter(torch.zeros(2, config.n_head))",
        "nn.Parameter(torch.zeros(2, 1))",
        "expected 10",
    ),
    ("detached", "self.log_rates.exp()", "self.log_rates.detach().exp()", "gradient"),
    ("no abs: NaN", "(i - j).abs()", "(i - j)", "NaN"),
    ("arange without a device", ", device=self.log_rates.device", "", "device"),
    ("queries from 0", "j[k_len - q_len :, None]", "j[:q_len, None]", "counted from 0"),
    ("the sign", "-r1[:, None, None]", "r1[:, None, None]", "sign"),
    ("rates swapped", "r1, r2 = self.rates()", "r2, r1 = self.rates()", "changed places"),
    (
        "r2 outside",
        "torch.log1p(r2[:, None, None] * distance)",
        "r2[:, None, None] * torch.log1p(distance)",
        "outside",
    ),
    (
        "no logarithm",
        "torch.log1p(r2[:, None, None] * distance)",
        "(r2[:, None, None] * distance)",
        "logarithm",
    ),
    ("float64", "distance = (i - j).abs()", "distance = (i - j).abs().double()", "dtype"),
    (
        "one head's rates",
        "-r1[:, None, None] * torch.log1p(r2[:, None, None] * distance)",
        "(-r1[0] * torch.log1p(r2[0] * distance)).expand(len(r1), -1, -1)",
        "head 0",
    ),
    (
        "a bias that is kept",
        "    def bias(",
        "    from functools import lru_cache\n\n    @lru_cache  # noqa: B019\n    def bias(",
        "after another step",
    ),
    (
        "1024 distances",
        "j = torch.arange(k_len, device=self.log_rates.device)",
        "j = torch.arange(1024, device=self.log_rates.device)[:k_len]",
        "5000",
    ),
    ("three heads", "torch.zeros(2, config.n_head)", "torch.zeros(2, 3)", "in 5 heads"),
    (
        "heads by another quotient",
        "torch.zeros(2, config.n_head)",
        "torch.zeros(2, config.n_embd // config.block_size)",
        "in 5 heads",
    ),
    (
        "queries doubled",
        "    def rates(",
        "    def encode(self, q, k, start):\n        return 2 * q, k\n\n    def rates(",
        "encode stays",
    ),
    (
        "positions in the keys, too",
        "    def rates(",
        "    def encode(self, q, k, start):\n"
        "        n = torch.arange(start, start + q.size(-2), device=q.device)\n"
        "        return q, k + 0.01 * n[:, None]\n\n    def rates(",
        "encode stays",
    ),
    (
        "parameters not loaded",
        "    def rates(",
        "    def load_state_dict(self, *arguments, **options):\n        pass\n\n"
        "    def _load_from_state_dict(self, *arguments):\n        pass\n\n    def rates(",
        "saving and loading",
    ),
    ("10 sigmoid", "self.log_rates.exp()", "10 * self.log_rates.sigmoid()", "dead"),
    (
        "a matrix product",
        "r2[:, None, None] * distance",
        "(r2[:, None] @ distance.view(1, -1).float()).view(-1, q_len, k_len)",
        "under bfloat16 autocast",
    ),
    (
        "kept in evaluation",
        "        return -r1[:, None, None] * torch.log1p(r2[:, None, None] * distance)",
        "        kept = getattr(self, 'kept', None)\n"
        "        if self.training or kept is None or kept.shape[1:] != distance.shape:\n"
        "            kept = -r1[:, None, None] * torch.log1p(r2[:, None, None] * distance)\n"
        "            self.kept = kept\n"
        "        return kept",
        "in evaluation again",
    ),
    (
        "distances kept for the longest so far",
        "        distance = (i - j).abs()  # (q_len, k_len)",
        "        kept = getattr(self, 'kept', torch.zeros(0, 0))\n"
        "        if k_len > max(len(kept), q_len):\n"
        "            distance = (i - j).abs()\n"
        "        else:\n"
        "            if k_len > len(kept):\n"
        "                kept = self.kept = (j[:, None] - j).abs()\n"
        "            distance = kept[k_len - q_len : k_len, :k_len]",
        "after a call",
    ),
    (
        "positions of a fixed number",
        "j = torch.arange(k_len, device=self.log_rates.device)",
        "j = torch.arange(65536, device=self.log_rates.device)[:k_len]",
        "k_len 1000000",
    ),
    (
        "distances kept from a call in inference mode",
        "        distance = (i - j).abs()  # (q_len, k_len)",
        "        kept = self.__class__.kept = getattr(self, 'kept', {})\n"
        "        key = (q_len, k_len, str(j.device))\n"
        "        if key not in kept:\n"
        "            kept[key] = (i - j).abs().float()\n"
        "        distance = kept[key]",
        "in inference mode",
    ),
]
