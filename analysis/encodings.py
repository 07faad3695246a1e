"""
A picture of the position encodings themselves: what a query gives each key before it, by position alone.

    python -m analysis.encodings --plot results/encodings.png

Query and key are the same vector at every position, all ones: what tells one key from another is only what
the encoding writes. It is a layer of the paper's 60M model, but for N = 256, and nothing in it is trained.

Top, the score in parts. For RoPE, RoPE-A and FoPE a row is a pair of dimensions, the fastest first, and its
colour what that pair adds for each key; a stripe is a turn. Keys right of the dotted line are at most N away,
as in training. Left of it RoPE's slow pairs take values that training never showed, RoPE-A's begin again, and
FoPE's are clipped: they give every key the same. For ALiBi and NoPE a row is a head, its colour the score.
Bottom, the score as attention takes it. Each head is a thin line; a thick one is their mean.
"""

import argparse

import numpy as np
import torch

import data
from analysis.plots import NAMES, OTHER_STYLE, STYLES, new_figure, save
from model import POSITIONS, GPTConfig, NoPE, RoPE

N = 256
QUERY = 2 * N  # its position: the nearer half of the keys lies as training has seen it, the farther does not


def position_scores(pos: NoPE, query: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the keys at 0, 1, ..., query for a query that stands at `query`, all vectors being ones.

    As parts, one for each pair of dimensions (H, pairs, keys), and as whole scores (H, keys). Features that
    an encoding has added, and a bias, are in the whole alone.
    """
    config = pos.config
    ones = torch.ones(1, config.n_head, query + 1, config.head_dim)
    q, k = pos.encode(ones, ones, start=0)
    products = q[0, :, query:] * k[0] / config.head_dim**0.5  # (H, keys, features)
    whole = products.sum(dim=-1)
    bias = pos.bias(query + 1, query + 1)
    if bias is not None:
        whole = whole + bias[:, query]
    own = products[..., -config.head_dim :]  # an encoding's own features come first
    first, second = own.chunk(2, dim=-1)  # dimension m is paired with m + head_dim / 2
    return (first + second).transpose(1, 2), whole


def draw():
    figure = new_figure(15, 6)
    panels = figure.subplots(2, len(POSITIONS), height_ratios=(3, 2), sharex=True)
    keys = np.arange(QUERY + 1)
    for i, name in enumerate(POSITIONS):
        top = panels[0, i]
        bottom = panels[1, i]
        title = NAMES.get(name, name)
        color, _ = STYLES.get(title, OTHER_STYLE)
        torch.manual_seed(1337)  # FoPE's coefficients
        pos = POSITIONS[name](GPTConfig(block_size=N, pos=name))
        parts, whole = position_scores(pos, QUERY)
        if isinstance(pos, RoPE):
            rows = parts[0]
            limit = 2 / pos.config.head_dim**0.5  # what a pair of ones gives itself, if nothing turns it
            top.set_ylabel("pair of dimensions")
        else:
            rows = whole
            limit = pos.config.head_dim**0.5
            top.set_ylabel("head")
        extent = (-0.5, QUERY + 0.5, len(rows), 0)
        style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
        top.imshow(rows.numpy(), aspect="auto", extent=extent, **style)
        bottom.plot(keys, whole.T.numpy(), color=color, linewidth=0.8)
        if name != "alibi":
            bottom.plot(keys, whole.mean(dim=0).numpy(), color=color, linewidth=2)
        for axes in (top, bottom):
            axes.axvline(QUERY - N, color="black", linestyle=":")
        top.set_title(title)
        bottom.set(xlabel="position of the key", ylim=(-7, 8.5), xlim=(0, QUERY))
        bottom.set_xticks([0, QUERY - N, QUERY], ["0", f"{QUERY - N}\nN before", f"{QUERY}\nquery"])
        bottom.grid(alpha=0.3)
    panels[1, 0].set_ylabel("score")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--plot", type=data.output, required=True, help="draw them in this PNG file")
    args = parser.parse_args()
    save(draw(), args.plot)


if __name__ == "__main__":
    main()
