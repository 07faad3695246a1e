"""Solution of exercise 3: evaluation."""

import math

import torch


def perplexity(model, tokens: torch.Tensor, length: int) -> float:
    count = (len(tokens) - 1) // length
    losses = []
    for i in range(count):
        chunk = tokens[i * length : (i + 1) * length + 1]
        _, loss = model(chunk[None, :-1], chunk[None, 1:])
        losses.append(loss.item())
    return math.exp(sum(losses) / count)


def make_prompt(
    encoding, filler: list[int], key: str, depth: float, length: int
) -> tuple[list[int], list[int]]:
    key_ids = encoding.encode_ordinary(key)
    question = encoding.encode_ordinary(" The pass key is")
    dot = encoding.encode_ordinary(".")
    needle = question + key_ids + dot
    room = length - len(needle) - len(question) - len(key_ids)
    repeats = room // len(filler) + 1
    text = (filler * repeats)[:room]
    cut = round(depth * room)
    prompt = text[:cut] + needle + text[cut:] + question
    return prompt, key_ids


def finds_key(model, prompt: list[int], key: list[int]) -> bool:
    ids = torch.tensor([prompt + key])
    logits, _ = model(ids[:, :-1], ids[:, 1:])
    guesses = logits[0, -len(key) :].argmax(dim=-1)
    return guesses.tolist() == key
