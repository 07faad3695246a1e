"""
Exercise 3: evaluation, perplexity by length and the passkey in one pass. 40 minutes, 12 points.

    python -m assignments.grade ex03

Measure what Figure 1 of the paper measures, without the mistakes that make every model look better, or worse.
perplexity.py and passkey.py hold the same for many models; look there when you are done.

A model is called as train.py does it: model(idx, targets), with idx and targets (B, T) int64, gives the
logits (B, T, vocab_size) at every position and the loss, the mean cross-entropy in nats. T may be any length.

See. (a) If chunks overlap by half and only the second half of each counts, which way does the perplexity go,
and what does it say of reading `length` tokens at once? (b) Why is the mean taken of losses and not of
perplexities? (c) Suppose that the text is tokenized again after the key was put into it. Name two things that
can go wrong with " 12345" followed by a dot. What does the accuracy then measure? (d) Why does one forward
pass over prompt and key tell what greedy generation would have written?
"""

import torch


def perplexity(model, tokens: torch.Tensor, length: int) -> float:
    """exp of the mean loss over all chunks of tokens (n,), int64.

    The inputs of the chunks are `length` tokens each, side by side from the first token on; every input
    token's target is the token after it. What is left at the end and fills no chunk is not scored.
    """
    raise NotImplementedError


def make_prompt(
    encoding, filler: list[int], key: str, depth: float, length: int
) -> tuple[list[int], list[int]]:
    """The token ids of a prompt and of its answer, together exactly `length` tokens.

    In this order: some filler, " The pass key is", the key, ".", some filler, " The pass key is"; the answer
    is the key. Each piece is encoded by itself, with encoding.encode_ordinary(text), which gives a list of
    ids, so that the key, such as " 12345", is the same tokens in prompt and answer. `filler` is repeated and
    cut to fill the room that is left; the first round(depth * room) of its tokens come first, the others
    after the key.
    """
    raise NotImplementedError


def finds_key(model, prompt: list[int], key: list[int]) -> bool:
    """Whether greedy generation after the prompt would write the key: in one call of the model."""
    raise NotImplementedError
