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
from model import GPT, at_least, autocast, load_checkpoint, pick_device, user_error


def stream_text(model: GPT, encoding, prompt: str, max_new_tokens: int, temperature=1.0, top_k=None) -> Iterator[str]:
    """Pieces of text that continue the prompt, up to an end-of-text token; an empty prompt starts a new document."""
    ids = encoding.encode_ordinary(prompt) or [encoding.eot_token]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be spread over several tokens
    idx = torch.tensor([ids], device=model.lm_head.weight.device)
    for token in model.stream(idx, max_new_tokens, temperature, top_k, stop=encoding.eot_token):
        if token.item() < encoding.eot_token:  # the vocabulary is padded; ids past the encoding's have no text
            yield decoder.decode(encoding.decode_single_token_bytes(token.item()))
    yield decoder.decode(b"", final=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints text from a trained model.")
    parser.error = lambda message: sys.exit(f"error: {message}")
    parser.add_argument("out_dir", help="directory of a run, such as out/fope_tiny")
    parser.add_argument("--prompt", default="", help="text to continue (default: a new document)")
    parser.add_argument("--num_samples", type=at_least(1), default=1)
    parser.add_argument("--max_new_tokens", type=at_least(1), default=500)
    parser.add_argument("--temperature", type=at_least(0.0), default=0.8, help="0: always the most likely token")
    parser.add_argument("--top_k", type=at_least(1), default=50, help="draw among the k most likely tokens")
    parser.add_argument("--seed", type=at_least(0), default=1337)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--logn_scale", type=at_least(0.0), help="strength of the scaling past N (default: as trained)")
    args = parser.parse_args()
    device = pick_device(args.device)
    model, checkpoint = load_checkpoint(args.out_dir, device, args.logn_scale)
    encoding = data.get_encoding(checkpoint["meta"]["encoding"])
    torch.manual_seed(args.seed)
    for i in range(args.num_samples):
        print("-" * 80 + "\n" if i else "", args.prompt, sep="", end="", flush=True)
        with autocast(device), user_error("stopped by ", KeyboardInterrupt):
            for piece in stream_text(model, encoding, args.prompt, args.max_new_tokens, args.temperature, args.top_k):
                print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a pipe on Windows may not know every character
    main()
