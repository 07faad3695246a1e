"""
Prints text from a trained model, as it is generated.

    python sample.py out/fope_tiny --prompt "def "

Reads the checkpoint that train.py saved; the generation itself is GPT.stream in model.py.
"""

import argparse
import codecs
import sys
from collections.abc import Iterator

import torch

import data
from model import GPT, autocast, load_checkpoint, parse_setting, pick_device


def stream_text(
    model: GPT, encoding, prompt: str, max_new_tokens: int, temperature=1.0, top_k=None
) -> Iterator[str]:
    """Pieces of text that continue the prompt, to an end-of-text; an empty prompt starts a new document."""
    ids = encoding.encode_ordinary(prompt) or [encoding.eot_token]
    idx = torch.tensor([ids], device=model.lm_head.weight.device)  # (1, T)
    # A character may be spread over several tokens.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in model.stream(idx, max_new_tokens, temperature, top_k):
        if token.item() >= encoding.eot_token:  # ids past it have no text: the vocabulary is padded
            break
        yield decoder.decode(encoding.decode_single_token_bytes(token.item()))
    yield decoder.decode(b"", final=True)


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("out_dir", help="directory of a run, such as out/fope_tiny")
    parser.add_argument("--prompt", default="", help="text to continue (default: a new document)")
    parser.add_argument("--num_samples", type=int, default=1, help="default: 1")
    parser.add_argument("--max_new_tokens", type=int, default=500, help="default: 500")
    parser.add_argument("--temperature", type=float, default=0.8, help="default: 0.8; 0: the most likely")
    parser.add_argument("--top_k", type=int, default=50, help="draw among the k most likely; default: 50")
    parser.add_argument("--seed", type=int, default=1337, help="default: 1337")
    parser.add_argument("--set", nargs="+", type=parse_setting, default=[], help="settings, as logn=True")
    parser.add_argument("--device", type=pick_device, default="auto", help="cuda, mps, cpu; auto: the best")
    args = parser.parse_args()

    model, checkpoint = load_checkpoint(args.out_dir, args.device, **dict(args.set))
    encoding = data.get_encoding(checkpoint["meta"]["encoding"])
    torch.manual_seed(args.seed)
    for i in range(args.num_samples):
        print(f"--- sample {i + 1}", args.prompt, sep="\n", end="", flush=True)
        with autocast(args.device):
            for piece in stream_text(
                model, encoding, args.prompt, args.max_new_tokens, args.temperature, args.top_k
            ):
                print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a pipe or terminal may not know every character
    main()
