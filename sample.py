"""
Prints text from a trained model, as it is generated.

    python sample.py out/fope_tiny --prompt "def "

Reads the checkpoint that train.py saved; the generation itself is GPT.stream in model.py.
"""

import argparse
import codecs
import math
import sys
from collections.abc import Iterator

import torch

import data
from model import GPT, autocast, load_checkpoint, pick_device


def stream_text(
    model: GPT, encoding, prompt: str, max_new_tokens: int, temperature=1.0, top_k=None
) -> Iterator[str]:
    """Pieces of text that continue the prompt, to an end-of-text; an empty prompt starts a new document."""
    ids = encoding.encode_ordinary(prompt) or [encoding.eot_token]
    idx = torch.tensor([ids], device=model.lm_head.weight.device)
    # A character may be spread over several tokens.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in model.stream(idx, max_new_tokens, temperature, top_k):
        if token.item() == encoding.eot_token:
            break
        # The vocabulary is padded; ids past the encoding's have no text.
        if token.item() < encoding.eot_token:
            yield decoder.decode(encoding.decode_single_token_bytes(token.item()))
    yield decoder.decode(b"", final=True)


def main():
    parser = argparse.ArgumentParser(description="Prints text from a trained model.", usage=argparse.SUPPRESS)
    parser.add_argument("out_dir", help="directory of a run, such as out/fope_tiny")
    parser.add_argument("--prompt", default="", help="text to continue (default: a new document)")
    parser.add_argument("--num_samples", type=int, default=1, help="default: 1")
    parser.add_argument("--max_new_tokens", type=int, default=500, help="default: 500")
    parser.add_argument("--temperature", type=float, default=0.8, help="default: 0.8; 0: the most likely")
    parser.add_argument("--top_k", type=int, default=50, help="draw among the k most likely; default: 50")
    parser.add_argument("--seed", type=int, default=1337, help="default: 1337")
    parser.add_argument("--logn_scale", type=float, help="instead of the checkpoint's own")
    parser.add_argument("--device", type=pick_device, default="auto", help="cuda, mps, cpu; auto: the best")
    args = parser.parse_args()
    if min(args.num_samples, args.max_new_tokens, args.top_k) < 1:
        parser.error("--num_samples, --max_new_tokens and --top_k must be above 0")
    if not 0 <= args.seed < 2**32 or not 0 <= args.temperature < math.inf:
        # Of a larger seed torch's generator on the CPU takes the last 32 bits alone.
        parser.error("--seed must be from 0 to 2^32 - 1, --temperature finite and not below 0")

    model, checkpoint = load_checkpoint(args.out_dir, args.device, args.logn_scale)
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
    sys.stdout.reconfigure(errors="replace")  # a pipe on Windows may not know every character
    data.run_script(main)
