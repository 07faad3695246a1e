"""
Exercise 3: evaluation: perplexity by length, and the passkey in one pass. 75 minutes, 12 points.

    python -m assignments.grade ex03

Goal. Measure what Figure 1 of the paper measures, without the mistakes that make every model look better, or
worse.

Before you start. Cross-entropy; what a tokenizer does. perplexity.py and passkey.py hold the same for many
models: look when you are done. You call a model as train.py does: model(idx, targets), idx and targets (B,
T) int64, gives the logits (B, T, vocab_size) at every position and the loss, the mean cross-entropy in nats.
Without targets it gives the logits of the last position alone, and None. The model is on the CPU, was put
into evaluation mode and takes texts of any length; `tokens` holds a chunk or more with its targets, and
`length` has room for what a prompt must hold.

Fill in the three functions.

See. (a) If chunks overlap and all their tokens count, which tokens count twice, and which way does the
perplexity go? A sliding window whose last token alone counts: what does it measure, and what does it cost?
(b) Why is the mean taken of losses and not of perplexities? (c) Text is tokenized again after the key was
put into it: name two things that can go wrong with " 12345" followed by a dot, and what a passkey accuracy
then measures. (d) Why does one forward pass over prompt and key tell what greedy generation would have
written?
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
    is the key. Each piece is encoded by itself and may be many tokens, "." too. `filler`, which is not
    empty, is repeated and cut to fill what room there is; the first round(depth * room) of its tokens come
    first, the others after. The key, such as " 12345" or "7", must be the same tokens in prompt and answer:
    those that encoding.encode_ordinary(key) gives. encode_ordinary takes a text and gives a list of ids.
    """
    raise NotImplementedError


def finds_key(model, prompt: list[int], key: list[int]) -> bool:
    """Whether greedy generation after the prompt would write the key: in one call of the model."""
    raise NotImplementedError
