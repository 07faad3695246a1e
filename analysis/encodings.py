"""
Two pictures of the position encodings themselves; nothing in them is trained.

    python -m analysis.encodings --scores scores.png --arcs arcs.png          (needs matplotlib)

Scores: what a query gives each key before it if both are all ones, so that only the encoding tells keys
apart. Top, a row is a pair of dimensions, the fastest first, and its colour what the pair adds; for NoPE and
ALiBi a row is a head. Left of the dotted line keys are further away than in training: RoPE's slow pairs take
values that training never showed, FoPE's are clipped and give every key the same. Bottom, the whole score, a
line a head; softmax does not see a constant, so the query's own key gets 0.

Arcs: the points (cosine, sine) that three pairs of RoPE and FoPE visit in training and beyond. A fast pair
has been everywhere by N. RoPE's slow one has seen an arc and leaves it past N; FoPE's stands still.
"""

import argparse

import torch
from torch import Tensor

from analysis.plots import COLORS, NAMES, new_figure
from model import POSITIONS, GPTConfig, NoPE, RoPE

N = 256  # training length; else a layer is the paper's 60M's
QUERY = 2 * N  # position of the query: the nearer half of the keys lies as in training


def make_encoding(name: str) -> NoPE:
    torch.manual_seed(1337)  # FoPE's coefficients
    return POSITIONS[name](GPTConfig(block_size=N, pos=name))


def position_scores(pos: NoPE, query: int) -> tuple[Tensor, Tensor]:
    """Scores of the keys 0, 1, ..., query for a query at `query`, all vectors being ones: (H, keys).

    Minus that of the last. And, for RoPE and its kin, the part of each pair: (H, pairs, keys).
    """
    config = pos.config
    ones = torch.ones(1, config.n_head, query + 1, config.head_dim)
    q, k = pos.encode(ones, ones, start=0)
    products = q[0, :, query:] * k[0] / config.head_dim**0.5  # (H, keys, features)
    whole = products.sum(dim=-1)
    bias = pos.bias(query + 1, query + 1)
    if bias is not None:
        whole = whole + bias[:, query]
    first, second = products.chunk(2, dim=-1)  # dimension m is paired with m + head_dim / 2
    return whole - whole[:, -1:], (first + second).transpose(1, 2)


def draw_scores():
    figure = new_figure(14, 5.5)
    panels = figure.subplots(2, len(POSITIONS), height_ratios=(3, 2), sharex=True)
    for name, column in zip(POSITIONS, panels.T):
        top, bottom = column
        pos = make_encoding(name)
        whole, parts = position_scores(pos, QUERY)
        is_rope = isinstance(pos, RoPE)
        rows = parts[0] if is_rope else whole  # the first head's pairs, or all heads
        limit = 0.25 if is_rope else 8  # a pair's greatest part; a whole score's
        extent = (-0.5, QUERY + 0.5, len(rows), 0)
        top.imshow(rows.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", extent=extent)
        top.set(title=NAMES.get(name, name), ylabel="pair" if is_rope else "head")
        bottom.plot(whole.T.numpy(), color="grey", linewidth=0.7)
        bottom.set(xlabel="position of the key", ylabel="score", ylim=(-16, 1))
        bottom.set_xticks([0, QUERY - N, QUERY], ["0", "N before", "query"])
        for axes in column:
            axes.axvline(QUERY - N, color="black", linestyle=":")
    return figure


def draw_arcs(speeds: tuple = (40, 3, 1 / 3), end: int = 3 * N):
    """A row for RoPE and for FoPE, a column for each speed, in turns within N."""
    figure = new_figure(9, 6.6)
    panels = figure.subplots(2, len(speeds))
    turns = RoPE(GPTConfig(block_size=N)).frequencies * N / (2 * torch.pi)
    for row, name in zip(panels, ("rope", "fope")):
        table = torch.stack(make_encoding(name).table(torch.arange(end)))  # (2, end, pairs)
        if name == "fope":  # (2, H, end, pairs), of which this takes the first head
            table = table[:, 0]
        row[0].set_ylabel(NAMES[name])
        for axes, speed in zip(row, speeds):
            pair = (turns - speed).abs().argmin().item()  # the nearest
            cos, sin = table[:, :, pair].numpy()
            axes.plot(cos[N:], sin[N:], ".", color=COLORS[0], markersize=9, label=f"N to {end // N} N")
            axes.plot(cos[:N], sin[:N], ".", color=COLORS[1], markersize=4, label="in training, up to N")
            axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
            if name == "rope":
                axes.set_title(f"pair {pair}, of {turns[pair]:.2g} turns in N")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--scores", help="draw the scores in this PNG file")
    parser.add_argument("--arcs", help="draw the arcs in this PNG file")
    args = parser.parse_args()
    if args.scores:
        draw_scores().savefig(args.scores, dpi=150)
    if args.arcs:
        draw_arcs().savefig(args.arcs, dpi=150)


if __name__ == "__main__":
    main()
