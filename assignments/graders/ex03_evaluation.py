"""Checks of exercise 3, with a small GPT and an encoding in which encoding again goes wrong."""

import tiktoken
import torch
from torch.nn import functional as F

from assignments.harness import part, same, true
from model import GPT, GPTConfig

SMALL = {"vocab_size": 64, "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 32}


def small_gpt() -> GPT:
    """With weights so large that its guesses depend on what it reads."""
    model = GPT(GPTConfig(**SMALL)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(4)
    return model


def losses(model: GPT, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of each position of inputs (chunks, length): (chunks, length)."""
    logits, _ = model(inputs, targets)
    return F.cross_entropy(logits.mT, targets, reduction="none")


@part("perplexity", 4)
def perplexity(answer):
    model = small_gpt()
    for size, length in ((97, 32), (96, 16), (110, 32)):
        tokens = torch.randint(64, (size,))
        count = (size - 1) // length
        x = tokens[: count * length].view(count, length)
        y = tokens[1 : count * length + 1].view(count, length)
        right = losses(model, x, y)
        expected = right.mean().exp().item()
        known = {
            "perplexities were averaged, not losses": right.mean(dim=1).exp().mean().item(),
            "exp were missing: this is the loss": right.mean().item(),
            "the power were of 2: the loss is in nats": 2 ** right.mean().item(),
            "the targets were the inputs": losses(model, x, x).mean().exp().item(),
            "the last whole chunk were left out": right[:-1].mean().exp().item(),
            "the text were one chunk: more context than `length`": (
                losses(model, x.view(1, -1), y.view(1, -1)).mean().exp().item()
            ),
        }
        case = f"{size} tokens and length {length}: {count} chunks and a rest of {size - 1 - count * length}"
        same("perplexity", answer.perplexity(model, tokens, length), expected, case, known, atol=0)


def toy_encoding() -> tiktoken.Encoding:
    """Bytes and some pairs of them: "5." is one token, so a dot changes the tokens of the key before it."""
    ranks = {bytes([i]): i for i in range(256)}
    for pair in (b"5.", b" 1", b"s ", b"is", b" 12", b"34"):
        ranks[pair] = len(ranks)
    return tiktoken.Encoding("toy", pat_str=r"(?s).+", mergeable_ranks=ranks, special_tokens={})


encode = toy_encoding().encode_ordinary
QUESTION = encode(" The pass key is")


def assemble(filler: list[int], size: int, cut: int, needle: list[int]) -> list[int]:
    """A prompt of `size` tokens, with the needle after `cut` tokens of filler."""
    text = (filler * size)[: size - len(needle) - len(QUESTION)]
    return text[:cut] + needle + text[cut:] + QUESTION


@part("make_prompt", 4)
def make_prompt(answer):
    cases = ((11, " 12345", 0.0, 50), (11, " 98765", 0.77, 66), (1, " 12345", 0.3, 9), (11, "7", 1.0, 7))
    for count, key, depth, room in cases:
        filler = list(range(300, 300 + count))  # ids that stand for nothing else
        needle = QUESTION + encode(key) + encode(".")
        length = room + len(needle) + len(QUESTION) + len(encode(key))

        size = length - len(encode(key))  # of the prompt

        cut = round(depth * room)
        with_dot = QUESTION + encode(key + ".")
        known = {
            "key and dot were encoded together": assemble(filler, size, cut, with_dot),
            "depth 0 were the end": assemble(filler, size, room - cut, needle),
            "the depth were a share of `length`, not of the room": assemble(
                filler, size, round(depth * length), needle
            ),
            "depth * room were rounded down": assemble(filler, size, int(depth * room), needle),
        }
        case = f"key {key!r}, depth {depth}, length {length}, {count} ids of filler for a room of {room}"
        came = answer.make_prompt(toy_encoding(), list(filler), key, depth, length)
        true(isinstance(came, tuple) and len(came) == 2, "make_prompt: expected a tuple of prompt and answer")
        same("make_prompt, the answer", came[1], encode(key), case)
        same("make_prompt, the prompt", came[0], assemble(filler, size, cut, needle), case, known)


@part("finds_key", 4)
def finds_key(answer):
    model = small_gpt()
    calls = []

    def count(module, given):
        calls.append(given)

    prompt = torch.randint(64, (30,)).tolist()
    written = model.generate(torch.tensor([prompt]), 5, temperature=0)[0, 30:].tolist()
    model.wte.register_forward_pre_hook(count)  # a pass reads its tokens once, by model() or model.hidden()
    given = f"prompt {prompt[:3]} ..., greedy generation writes {written}"
    for size in (5, 1):
        key = written[:size]
        came = answer.finds_key(model, list(prompt), list(key))
        hint = "logits are for the next token: off by one? And model(idx) gives those of the last place alone"
        true(came, f"finds_key: expected True, came {came}\nwith {given}, key {key}\n{hint}")
        true(
            len(calls) == 1,
            f"finds_key: the model is called once, with prompt and key; came {len(calls)} calls",
        )
        calls.clear()
    for wrong in range(5):
        key = list(written)
        key[wrong] = (key[wrong] + 1) % 64
        came = answer.finds_key(model, list(prompt), list(key))
        hint = f"its token {wrong} is wrong, and all have to be right"
        true(not came, f"finds_key: expected False, came {came}\nwith {given}, key {key}\n{hint}")
