"""Grader of exercise 3: models that write down what they are given, and an encoding in which re-encoding
goes wrong."""

import math

import tiktoken
import torch
from torch.nn import functional as F

from assignments.checks import Part, expect, expect_close, plain
from model import GPTConfig

MODEL_NAMES = set()


class StandIn:
    """What an answer may ask of a model, but for the call."""

    training = False
    config = GPTConfig(vocab_size=64, block_size=4)  # of its training, which bounds no evaluation

    def eval(self):
        self.training = False
        return self

    def train(self, mode: bool = True):
        self.training = mode
        return self

    def parameters(self):
        return iter([torch.zeros(1)])


def expect_evaluation_mode(what: str, model: StandIn, case: str) -> None:
    message = f"{what}: the model came in evaluation mode and was left in training mode"
    expect(not model.training, f"{message}\nwith {case}")


class Recorder(StandIn):
    """Called as a GPT is. Its logits depend on the token and on its place in the context."""

    def __init__(self, vocab_size: int, scale: float = 2.0) -> None:
        self.weights = scale * torch.randn(vocab_size, vocab_size)
        self.rows = []  # (inputs, targets) of every row that it was given

    def __call__(self, idx, targets=None):
        right = torch.is_tensor(idx) and idx.dim() == 2 and idx.dtype == torch.int64
        expect(right, f"the model takes idx (B, T) int64; it was given {describe(idx)}")
        if targets is not None:
            right = torch.is_tensor(targets) and targets.shape == idx.shape
            expect(
                right,
                f"the model takes targets of the shape of idx {tuple(idx.shape)}; came {describe(targets)}",
            )
        for i, row in enumerate(idx.tolist()):
            self.rows.append((row, None if targets is None else targets[i].tolist()))
        logits, losses = self.predict(idx, targets)
        if targets is None:
            return logits[:, -1:], None
        return logits, losses.mean()

    def predict(self, idx, targets):
        places = torch.arange(idx.size(1))[:, None]
        logits = self.weights[idx] / (
            1 + places
        )  # less sure with more context, so that places can be told apart
        losses = None
        if targets is not None:
            losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return logits, losses


def describe(value) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if torch.is_tensor(value) else type(value).__name__


def perplexity(answer) -> None:
    # The last have 129, 257 and 1025 chunks: batches of 2, 4, 8, ... 1024 of them leave one alone, which must
    # not weigh more.
    sizes = [(97, 32), (96, 32), (120, 32), (129, 16), (41, 40), (12, 1), (517, 4), (515, 2), (1026, 1)]
    cases = [(*pair, 2.0) for pair in sizes]
    for size, length, scale in [*cases, (12, 1, 12.0)]:  # a bad model: its loss is above 20
        tokens = torch.randperm(1100 if size > 600 else 600)[:size]
        case = f"{size} tokens, length {length}"
        model = Recorder(1100 if size > 600 else 600, scale)
        came = answer.perplexity(model, tokens, length)
        expect_evaluation_mode("perplexity", model, case)

        count = (size - 1) // length
        starts = {token: i for i, token in enumerate(tokens.tolist())}
        seen = set()
        expect(bool(model.rows), f"perplexity: the model was not called\nwith {case}")
        for row, targets in model.rows:
            wide = f"expected {length} tokens in a row, came {len(row)}"
            expect(
                len(row) <= length,
                f"perplexity: the model saw more context than `length`\nwith {case}\n{wide}",
            )
            start = starts[row[0]]
            here = f"with {case}\nin the chunk that begins at token {start}"
            expect(len(row) == length, f"perplexity: a chunk of {len(row)} tokens, not whole\n{here}")
            whole = row == tokens[start : start + length].tolist()
            expect(whole, f"perplexity: a chunk is not a stretch of the text\n{here}")
            overlap = f"perplexity: chunks overlap, or one came twice\n{here}"
            expect(not seen & set(range(start, start + length)), overlap)
            expect(start % length == 0, f"perplexity: chunks stand side by side from token 0 on\n{here}")
            seen |= set(range(start, start + length))
            if targets is not None:
                follows = tokens[start + 1 : start + length + 1].tolist()
                wrong = [i for i in range(length) if targets[i] != follows[i]]
                first = wrong[0] if wrong else 0
                shifted = f"for its input {first}, token {row[first]}: expected {follows[first]}"
                shifted += f", came {targets[first]}"
                expect(
                    targets == follows,
                    f"perplexity: a target is the token after its input\n{here}\n{shifted}",
                )
        number = f"expected {count * length} inputs, came {len(seen)}"
        expect(len(seen) == count * length, f"perplexity: a chunk is missing\nwith {case}\n{number}")

        x = tokens[: count * length].view(count, length)
        y = tokens[1 : count * length + 1].view(count, length)
        _, losses = model.predict(x, y)
        known = {
            "perplexities were averaged, not losses": losses.mean(dim=1).exp().mean(),
            "every token's own perplexity were averaged": losses.exp().mean(),
            "exp were missing: this is the loss": losses.mean(),
            "the power were of 2; the loss is in nats": 2 ** losses.mean(),
            "the last position of each chunk alone counted": losses[:, -1].mean().exp(),
            "the first position of each chunk did not count": losses[:, 1:].mean().exp(),
            "losses were added up, not averaged": losses.mean(dim=1).sum().clamp(max=700).exp(),
        }
        if scale > 2:
            case += f", a mean loss of {losses.mean():.1f}"
            known = {"a loss were held below 20": math.exp(20)}
        means = losses.double().mean(dim=1)
        for batch in (2**i for i in range(1, 11)):
            if count > batch and count % batch:
                mistake = f"means of batches of {batch} chunks were averaged, though the last is smaller"
                known[mistake] = torch.stack([part.mean() for part in means.split(batch)]).mean().exp()
        expected = losses.double().mean().exp().item()
        expect_close("perplexity", came, expected, case, atol=1e-3 * expected, known=known)
    long_text(answer)


class TwoTokens(StandIn):
    """A model that is sure that a token comes again. It is called as a GPT is, and quick."""

    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]])

    def __call__(self, idx, targets=None):
        logits = self.logits[idx]
        if targets is None:
            return logits[:, -1:], None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def long_text(answer) -> None:
    """A long text whose last chunks are bad: if batches of chunks leave some over, these weigh more."""
    length = 16
    count = 8209  # a prime
    tokens = torch.zeros(count * length + 1, dtype=torch.int64)
    bad = 16  # chunks
    tokens[-bad * length :: 2] = 1
    losses = (
        TwoTokens.logits.log_softmax(dim=-1)[tokens[:-1], tokens[1:]].neg().view(count, length).mean(dim=1)
    )
    case = f"{len(tokens)} tokens, length {length}, and a high loss in the last {bad} of {count} chunks"
    known = {}
    for batch in {2**i for i in range(1, 13)} | {2**i // length for i in range(10, 18)}:
        mistake = f"means of batches of {batch} chunks were averaged, though the last is smaller"
        known[mistake] = torch.stack([part.mean() for part in losses.split(batch)]).mean().exp()
    expected = losses.double().mean().exp().item()
    came = answer.perplexity(TwoTokens(), tokens, length)
    expect_close("perplexity", came, expected, case, atol=3e-4, known=known)


def toy_encoding() -> tiktoken.Encoding:
    """Bytes, and some pairs of them: "5." is one token, so a dot changes the tokens of the key before it."""
    ranks = {bytes([i]): i for i in range(256)}
    for pair in (b"5.", b" 1", b"s ", b"is", b" 12", b"34", b"7.", b"e "):
        ranks[pair] = len(ranks)
    return tiktoken.Encoding("toy", pat_str=r"(?s).+", mergeable_ranks=ranks, special_tokens={})


class HalfBytes:
    """An encoding in which every byte is two tokens: a dot, too."""

    def encode_ordinary(self, text: str) -> list[int]:
        return [half for byte in text.encode() for half in (byte // 16, 16 + byte % 16)]


def make_prompt(answer) -> None:
    for encoding in (toy_encoding(), HalfBytes()):
        check_prompts(answer, encoding)


def check_prompts(answer, encoding) -> None:
    many = list(range(300, 311))  # ids that stand for nothing else
    question = encoding.encode_ordinary(" The pass key is")
    dot = encoding.encode_ordinary(".")
    for filler, key, depth, room in (
        (many, " 12345", 0.0, 50),
        (many, " 12345", 0.3, 60),
        (many, " 12345", 0.3, 12),
        (many, " 98767", 0.5, 21),
        (many, " 12345", 1.0, 60),
        (many, " 55555", 0.77, 360),
        (many, "12345", 0.5, 40),
        (many, " 12345", 0.5, 1),
        (many, " 12345", 0.5, 5),
        ([300], " 12345", 0.5, 2000),
    ):
        length = 2 * len(question) + 2 * len(encoding.encode_ordinary(key)) + len(dot) + room
        case = f"key {key!r}, depth {depth}, length {length}, len(filler) {len(filler)}"
        key_ids = encoding.encode_ordinary(key)
        copy = list(filler)
        came = answer.make_prompt(encoding, copy, key, depth, length)
        expect(
            isinstance(came, tuple) and len(came) == 2,
            f"make_prompt gives two lists, prompt and answer\nwith {case}",
        )
        prompt, ids = came
        expect(
            isinstance(prompt, list) and isinstance(ids, list), f"make_prompt gives lists of ids\nwith {case}"
        )
        expect(copy == filler, f"make_prompt changed the filler that it was given\nwith {case}")
        key_came = f"expected {key_ids}, came {ids}"
        expect(
            ids == key_ids, f"make_prompt: the answer is not the key's own tokens\nwith {case}\n{key_came}"
        )
        total = f"expected {length} tokens, came {len(prompt)} + {len(ids)}"
        if len(dot) > 1:
            total += f'; "." is {len(dot)} tokens in this encoding'
        exact = len(prompt) + len(ids) == length
        expect(exact, f"make_prompt: prompt and answer together are not of that length\nwith {case}\n{total}")
        expect(
            prompt[-len(question) :] == question,
            f"make_prompt: the prompt does not end with the question\nwith {case}",
        )
        places = [i for i in range(len(prompt)) if prompt[i : i + len(key_ids)] == key_ids]
        again = "were they encoded again, together with what stands beside them?"
        expect(
            bool(places),
            f"make_prompt: the key's tokens are not in the prompt\nwith {case}: {key_ids}\n{again}",
        )
        expect(
            len(places) == 1, f"make_prompt: the key stands {len(places)} times in the prompt\nwith {case}"
        )
        needle = question + key_ids + dot
        around = prompt[places[0] - len(question) : places[0] + len(key_ids) + len(dot)]
        what = f"expected {needle[-10:]}, came {around[-10:]}, the ends of both"
        expect(around == needle, f"make_prompt: wrong tokens around the key\nwith {case}\n{what}")
        cut = places[0] - len(question)
        before = round(depth * room)
        depths = f"expected round({depth} * {room}) = {before} filler tokens before it, came {cut}"
        if depth * room % 1 == 0.5:
            depths += "; round() takes a half to the even number"
        expect(
            cut == round(depth * room), f"make_prompt: the key stands at another depth\nwith {case}\n{depths}"
        )
        rest = prompt[:cut] + prompt[cut + len(needle) : -len(question)]
        right = rest == (filler * length)[:room]
        expect(
            right,
            f"make_prompt: the filler is not `filler`, repeated, cut, and going on after the key"
            f"\nwith {case}",
        )


class Script(StandIn):
    """A model whose arg-max at each position is given; it counts its calls."""

    def __init__(self, ids: list[int], guesses: list[int], case: str) -> None:
        self.ids = ids
        self.guesses = guesses
        self.case = case
        self.calls = 0

    def __call__(self, idx, targets=None):
        self.calls += 1
        given = idx.tolist()
        right = self.calls == 1 and len(given) == 1 and given[0] in (self.ids, self.ids[:-1])
        what = "the model is called once, with prompt and key together"
        expect(right, f"finds_key: {what}\nwith {self.case}\nin call {self.calls} came {given}")
        logits = -torch.rand(1, idx.size(1), 50)
        for place in range(idx.size(1)):
            logits[0, place, self.guesses[place]] = 1.0 + torch.rand(())
        if targets is None:
            return logits[:, -1:], None
        return logits, logits.sum()


def finds_key(answer) -> None:
    prompt = [1, 2, 3, 7, 8, 9, 4, 5]
    for key in ([7, 8, 9], [7], [6, 6, 7, 6, 6], [7, 8, 9, 10, 11, 12, 13]):
        ids = prompt + key
        first = len(prompt) - 1  # the position that guesses the key's first token
        right = [0] * first + key + [0]
        late = [0] * (first + 1) + key
        early = [0] * (first - 1) + key + [0, 0]
        stories = {
            "every token of the key is the arg-max in its turn, those of the prompt are not": (right, True)
        }
        stories["all arg-max are right, in the prompt, too"] = (ids[1:] + [0], True)
        for wrong in range(len(key)):
            guesses = list(right)
            guesses[first + wrong] = 30
            stories[f"the arg-max is the key's, but for its token {wrong}"] = (guesses, False)
        stories["the arg-max is the key one position late, at the key's own places"] = (late, False)
        stories["the arg-max is the key one position early"] = (early, False)
        if len(key) > 1 and len(set(key)) > 1:
            swapped = list(right)
            swapped[first : first + len(key)] = key[1:] + key[:1]
            stories["the arg-max are the key's tokens in another order"] = (swapped, False)
        for story, (guesses, expected) in stories.items():
            case = f"prompt {prompt}, key {key}: {story}"
            model = Script(ids, guesses, case)
            given = (list(prompt), list(key))
            came = plain(answer.finds_key(model, *given))
            expect(model.calls == 1, f"finds_key: the model was not called\nwith {case}")
            expect_evaluation_mode("finds_key", model, case)
            expect(
                isinstance(came, bool),
                f"finds_key: a bool was expected, a {type(came).__name__} came\nwith {case}",
            )
            message = f"finds_key changed the lists that it was given\nwith {case}"
            expect(given == (prompt, key), message)
            expect(came == expected, f"finds_key: expected {expected}, came {came}\nwith {case}")


def real_model(answer) -> None:
    """A stand-in is easily satisfied: the same with a GPT, against greedy generation and its own loss."""
    from model import GPT, GPTConfig

    model = GPT(GPTConfig(64, 16, n_layer=1, n_head=2, n_embd=32)).eval()
    for parameter in model.parameters():
        parameter.data *= 8
    tokens = torch.randint(64, (70,))
    with torch.no_grad():
        came = answer.perplexity(model, tokens, 16)
        chunks = tokens[:64].view(4, 16), tokens[1:65].view(4, 16)
        expected = math.exp(model(*chunks)[1].item())
        expect_close(
            "perplexity of a small GPT", came, expected, "70 tokens, length 16", atol=1e-3 * expected
        )
        prompt = tokens[:30].tolist()
        written = model.generate(tokens[None, :30], 4, temperature=0)[0, 30:].tolist()
        found = plain(answer.finds_key(model, prompt, written))
        expect(found is True, "finds_key: a small GPT's own greedy answer is to count as found")
        wrong = [*written[:-1], (written[-1] + 1) % 64]
        expect(
            plain(answer.finds_key(model, prompt, wrong)) is False,
            "finds_key: another last token is not to count as found",
        )


PARTS = [
    Part("perplexity", 4, perplexity),
    Part("prompt", 3, make_prompt),
    Part("one pass", 3, finds_key),
    Part("a small GPT", 2, real_model),
]
