"""Wrong answers to exercise 3: what each does, the solution's code, the mistake in its place, a word of the
hint."""

CHUNKS = "tokens[i * length : (i + 1) * length + 1]"

MUTANTS = [
    (
        "chunks overlap",
        "for i in range(count):\n        chunk = " + CHUNKS,
        "for start in range(0, len(tokens) - length, max(length // 2, 1)):\n"
        "        chunk = tokens[start : start + length + 1]",
        "overlap",
    ),
    (
        "perplexities averaged",
        "losses.append(loss.item())\n    return math.exp(sum(losses) / count)",
        "losses.append(math.exp(loss.item()))\n    return sum(losses) / count",
        "perplexities were averaged",
    ),
    ("all the text as context", "chunk = " + CHUNKS, "chunk = tokens[: (i + 1) * length + 1]", "context"),
    ("targets are the inputs", "chunk[None, 1:]", "chunk[None, :-1]", "target"),
    ("the last chunk dropped", "for i in range(count)", "for i in range(max(count - 1, 1))", "missing"),
    (
        "a last chunk that is not whole",
        "(len(tokens) - 1) // length",
        "-(-(len(tokens) - 1) // length)",
        "not whole",
    ),
    ("no exp", "math.exp(sum(losses) / count)", "sum(losses) / count", "exp were missing"),
    ("powers of 2", "math.exp(sum(losses) / count)", "2 ** (sum(losses) / count)", "nats"),
    (
        "a tensor",
        "math.exp(sum(losses) / count)",
        "torch.tensor(sum(losses) / count).exp()",
        "a number was expected",
    ),
    (
        "key and dot encoded together",
        "needle = question + key_ids + dot",
        'needle = question + encoding.encode_ordinary(key + ".")',
        "encoded again",
    ),
    (
        "question and key encoded together",
        "needle = question + key_ids + dot",
        'needle = encoding.encode_ordinary(" The pass key is" + key) + dot',
        "key",
    ),
    ("the answer takes no room", "- len(question) - len(key_ids)", "- len(question)", "length"),
    ("depth from the end", "round(depth * room)", "room - round(depth * room)", "depth"),
    ("depth of the whole length", "round(depth * room)", "min(round(depth * length), room)", "depth"),
    ("filler too short", "(filler * repeats)[:room]", "filler[:room]", "length"),
    ("last token alone", "guesses.tolist() == key", "guesses.tolist()[-1] == key[-1]", "came True"),
    (
        "any token",
        "guesses.tolist() == key",
        "any(a == b for a, b in zip(guesses.tolist(), key))",
        "came True",
    ),
    ("in any order", "guesses.tolist() == key", "sorted(guesses.tolist()) == sorted(key)", "another order"),
    ("one position late", "model(ids[:, :-1], ids[:, 1:])", "model(ids, ids)", "came"),
    (
        "token by token",
        "logits, _ = model(ids[:, :-1], ids[:, 1:])",
        "model(ids[:, :-1])\n    logits, _ = model(ids[:, :-1], ids[:, 1:])",
        "once, with prompt and key together",
    ),
    (
        "the prompt alone",
        "ids = torch.tensor([prompt + key])",
        "ids = torch.tensor([prompt + [0] * len(key)])",
        "key",
    ),
    (
        "a target too far in the second half",
        "_, loss = model(chunk[None, :-1], chunk[None, 1:])",
        "targets = chunk[1:].clone()\n        targets[length // 2 :] = chunk[length // 2 : -1]\n"
        "        _, loss = model(chunk[None, :-1], targets[None])",
        "for its input 16, token",
    ),
    (
        "batches averaged, the last smaller",
        "return math.exp(sum(losses) / count)",
        "batches = [losses[i : i + 64] for i in range(0, count, 64)]\n"
        "    return math.exp(sum(sum(batch) / len(batch) for batch in batches) / len(batches))",
        "perplexity: wrong values",
    ),
    (
        "a dot of one token",
        "len(needle) - len(question)",
        "len(question) - len(key_ids) - 1 - len(question)",
        "not of that length",
    ),
    ("rounded down", "round(depth * room)", "int(depth * room)", "another depth"),
    (
        "batches of 256 averaged",
        "return math.exp(sum(losses) / count)",
        "means = [part.mean() for part in torch.tensor(losses).split(256)]\n"
        "    return math.exp(sum(means) / len(means))",
        "batches of 256 chunks were averaged",
    ),
    (
        "a loss of 20 at most",
        "math.exp(sum(losses) / count)",
        "math.exp(min(sum(losses) / count, 20))",
        "held below 20",
    ),
    (
        "filler a hundred times",
        "filler * repeats",
        "filler * 100",
        "(?s)not of that length.*len.filler. 1",
    ),
    (
        "the first five tokens of the key",
        "guesses.tolist() == key",
        "guesses.tolist()[:5] == key[:5]",
        "but for its token 5",
    ),
    (
        "the key appended to the prompt itself",
        "ids = torch.tensor([prompt + key])",
        "prompt += key\n    ids = torch.tensor([prompt])",
        "changed the lists",
    ),
    ("half up", "round(depth * room)", "int(depth * room + 0.5)", "another depth"),
    (
        "means of batches of 16,384 tokens",
        "return math.exp(sum(losses) / count)",
        "means = [part.mean() for part in torch.tensor(losses).split(max(2**14 // length, 1))]\n"
        "    return math.exp(sum(means) / len(means))",
        "means of batches of 1024 chunks",
    ),
    (
        "training mode afterwards",
        "    losses = []\n",
        "    losses = []\n    model.train()\n",
        "left in training mode",
    ),
    (
        "a space before every key",
        "key_ids = encoding.encode_ordinary(key)",
        'key_ids = encoding.encode_ordinary(" " + key.strip())',
        "the key's own tokens",
    ),
    (
        "cut to block_size",
        "ids = torch.tensor([prompt + key])",
        "ids = torch.tensor([prompt + key])[:, -model.config.block_size - 1 :]",
        "prompt and key together",
    ),
]
