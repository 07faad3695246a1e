"""passkey.py: prompts exact to the token, and accuracy against real greedy generation and against oracles."""

import json
import re
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import passkey
import perplexity
from data import get_encoding
from model import GPT, GPTConfig

FORM = (
    r"^Find the key\.(.*) The pass key is (\d{5})\. Remember it\. \2 is the pass key\.(.*)"
    r" What is the pass key\? The pass key is"
)


def read(text: str) -> tuple[str, str, str]:
    """The filler before the key, the key and the filler after it in a prompt of the right form."""
    match = re.match(FORM, text)
    assert match, text
    return match.groups()


@pytest.fixture(scope="module", params=["bytes", "gpt2"])
def encoding(request):
    try:
        return get_encoding(request.param)
    except SystemExit as error:
        pytest.skip(str(error))


# ----------------------------------------------------------------------------------------------------------------------
# Prompts


@pytest.mark.parametrize("depth", [0, 0.3, 0.5, 1])
@pytest.mark.parametrize("length", [0, 1, 2, 17, 200, 3000])  # tokens more than the shortest
def test_prompts_are_exact(encoding, length, depth):
    length += passkey.shortest(encoding)
    for seed in range(5):
        prompt, answer = passkey.make_prompt(encoding, length, depth, np.random.default_rng(seed))
        assert len(prompt) + len(answer) == length
        text, key = encoding.decode(prompt), encoding.decode(answer)
        before, found, after = read(text)
        assert text.endswith("? The pass key is")
        assert key == f" {found}" and text.count(key) == 2
        # The key cuts one stretch of filler in two, at the depth asked for.
        assert (passkey.FILLER * 200).startswith(before + after)
        before, after = (len(encoding.encode_ordinary(part)) for part in (before, after))
        assert before == pytest.approx(depth * (before + after), abs=0.5 + (encoding.name == "gpt2"))


def test_keys_are_the_same_tokens_wherever_they_stand(encoding):
    for seed in range(50):
        prompt, answer = passkey.make_prompt(encoding, 300, 0.5, np.random.default_rng(seed))
        runs = [prompt[i : i + len(answer)] for i in range(len(prompt))]
        assert runs.count(answer) == 2
        assert answer == encoding.encode_ordinary(encoding.decode(answer))


def test_keys_are_five_digits_from_the_generator(encoding):
    rng = np.random.default_rng(0)
    keys = [int(encoding.decode(passkey.make_prompt(encoding, 120, 0, rng)[1])) for _ in range(2000)]
    assert len(set(keys)) > 1900 and 10_000 <= min(keys) < 10_300 and 99_700 < max(keys) <= 99_999
    again = passkey.make_prompt(encoding, 120, 0, np.random.default_rng(0))
    assert int(encoding.decode(again[1])) == keys[0]


def test_deeper_keys_stand_later(encoding):
    at = []
    for depth in np.linspace(0, 1, 11):
        prompt, answer = passkey.make_prompt(encoding, 400, depth, np.random.default_rng(0))
        at.append(next(i for i in range(400) if prompt[i : i + len(answer)] == answer))
    steps = np.diff(at)
    assert steps.min() > 0 and steps.max() - steps.min() <= 1


def test_a_length_too_short_names_the_shortest(encoding):
    shortest = passkey.shortest(encoding)
    assert shortest <= 120
    with pytest.raises(SystemExit, match=rf"^error: .*{shortest}$"):
        passkey.make_prompt(encoding, shortest - 1, 0.5, np.random.default_rng(0))
    # With the longest keys, and no shorter ones, no token of filler is left.
    prompts = [passkey.make_prompt(encoding, shortest, 0.5, np.random.default_rng(seed)) for seed in range(30)]
    longest = max(len(answer) for _, answer in prompts)
    assert all(read(encoding.decode(p))[::2] == ("", "") for p, answer in prompts if len(answer) == longest)


# ----------------------------------------------------------------------------------------------------------------------
# Accuracy


FEW_KEYS = range(33_331, 33_335)


@pytest.fixture(scope="module")
def trained():
    """A model that has learnt that a key is one of four, but not to find which: it is right by chance."""
    torch.manual_seed(0)
    encoding, rng = get_encoding("bytes"), np.random.default_rng(0)
    model = GPT(GPTConfig(vocab_size=257, block_size=128, n_layer=1, n_head=2, n_embd=32, pos="rope"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passkey, "KEYS", FEW_KEYS)
        for step in range(80):
            length = (120, 150, 160)[step % 3]
            prompts = [passkey.make_prompt(encoding, length, rng.random(), rng) for _ in range(4)]
            batch = torch.tensor([prompt + answer for prompt, answer in prompts])
            loss = model(batch[:, :-1], batch[:, 1:])[1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), encoding


@pytest.fixture
def few_keys(monkeypatch):
    monkeypatch.setattr(passkey, "KEYS", FEW_KEYS)


def record_prompts(monkeypatch) -> list[tuple[list[int], list[int]]]:
    """A list that every prompt made from now on is added to."""
    prompts, make_prompt = [], passkey.make_prompt
    monkeypatch.setattr(passkey, "make_prompt", lambda *args: prompts.append(make_prompt(*args)) or prompts[-1])
    return prompts


@pytest.mark.parametrize("length", [120, 160])
def test_a_trial_is_right_when_greedy_generation_is(trained, few_keys, length, monkeypatch):
    model, encoding = trained
    prompts = record_prompts(monkeypatch)
    right = passkey.evaluate(model, encoding, length, trials=40, seed=1)
    ids = torch.tensor([prompt for prompt, _ in prompts])
    generated = model.generate(ids, 6, temperature=0)[:, -6:].tolist()
    assert right == [tokens == answer for tokens, (_, answer) in zip(generated, prompts)]
    assert 0 < sum(right) < 40


def test_trials_do_not_depend_on_how_they_are_batched(trained, few_keys, monkeypatch):
    model, encoding = trained
    whole = passkey.evaluate(model, encoding, 130, trials=30, seed=2)
    rows = []
    hook = model.wte.register_forward_hook(lambda module, args, x: rows.append(len(x)))
    monkeypatch.setattr(passkey, "BATCH_TOKENS", 130 * 4 + 50)
    assert passkey.evaluate(model, encoding, 130, trials=30, seed=2) == whole
    hook.remove()
    assert rows == [4] * 7 + [2]


def test_prompts_differ_by_seed_and_length_and_not_by_model(trained, monkeypatch):
    model, encoding = trained
    prompts, keys = record_prompts(monkeypatch), []
    for seed, length in ((0, 150), (0, 150), (1, 150), (0, 160)):
        passkey.evaluate(model, encoding, length, trials=10, seed=seed)
        keys.append([answer for _, answer in prompts[-10:]])
    assert keys[0] == keys[1] and keys[0] != keys[2] and keys[0] != keys[3]


class Oracle(torch.nn.Module):
    """Has the key read from the prompt, and nothing but wrong tokens before the question ends.

    `shift` takes it from another row; `wrong` is the token of the key, counted from its end, that is not given;
    `sight` is the share of a prompt, from its start, in which it finds a key.
    """

    def __init__(self, encoding, shift=0, wrong=None, sight=2.0):
        super().__init__()
        self.encoding, self.shift, self.wrong, self.sight = encoding, shift, wrong, sight
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def hidden(self, idx):
        question, keys, starts = self.encoding.encode_ordinary(passkey.QUESTION), [], []
        for row in idx.tolist():
            before, key, after = read(self.encoding.decode(row))
            key = self.encoding.encode_ordinary(f" {key}")
            keys.append(key if len(before) < self.sight * len(before + after) else [0] * len(key))
            starts.append(next(i for i in range(len(row)) if row[i - len(question) : i] == question) - 1)
        out = torch.zeros(*idx.shape, 1)
        for i, start in enumerate(starts):
            key = keys[i - self.shift]
            out[i, start:, 0] = torch.tensor((key + [0] * 9)[: idx.size(1) - start])
        if self.wrong is not None:
            out[:, -self.wrong] = 0
        return out

    def lm_head(self, hidden):
        return F.one_hot(hidden.squeeze(-1).long(), self.encoding.n_vocab)


@pytest.mark.parametrize("length", [120, 333])
def test_oracles(encoding, length):
    lengths = {len(encoding.encode_ordinary(f" {key}")) for key in range(10_001, 100_000, 101)}
    assert encoding.name == "bytes" or len(lengths) > 1  # keys of 2 and of 3 tokens stand in one batch

    def evaluate(**oracle):
        return passkey.evaluate(Oracle(encoding, **oracle), encoding, length, trials=40)

    assert evaluate() == [True] * 40
    assert sum(evaluate(shift=1)) == 0
    assert not any(any(evaluate(wrong=i)) for i in range(1, min(lengths) + 1))
    assert all(evaluate(wrong=max(lengths) + 1))  # before the key: the prompt itself is not asked for


def test_trials_go_from_shallow_to_deep(encoding):
    right = passkey.evaluate(Oracle(encoding, sight=0.5), encoding, 1000, trials=20)
    assert right == sorted(right, reverse=True) and 8 <= sum(right) <= 12


@pytest.mark.parametrize(
    "right, trials, low, high",
    [(0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1), (990, 1000, 0.9817, 0.9946)],
)
def test_wilson(right, trials, low, high):
    assert passkey.wilson(right, trials) == pytest.approx((low, high), abs=1e-4)


# ----------------------------------------------------------------------------------------------------------------------
# Command line


@pytest.fixture
def run(trained, tmp_path):
    path = tmp_path / "tiny"
    path.mkdir()
    config = asdict(trained[0].config) | {"dataset": "corpus", "seed": 3}
    checkpoint = {"model": trained[0].state_dict(), "config": config, "meta": {"encoding": "bytes"}, "iter": 7}
    torch.save(checkpoint, path / "ckpt.pt")
    return path


def call(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(perplexity, "autocast", lambda device: torch.autocast("cpu", enabled=False))
    monkeypatch.setattr(sys, "argv", ["passkey.py", *map(str, arguments), "--device", "cpu"])
    passkey.main()


def test_table_and_json(trained, few_keys, run, tmp_path, monkeypatch, capsys):
    call(monkeypatch, run, run, "--trials", 20, "--lengths", 150, 120, "--seed", 1, "--json", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    numbers = result["results"][1]
    right = [passkey.evaluate(*trained, length, trials=20, seed=1) for length in (120, 150)]
    assert 0 < sum(map(sum, right)) < 40
    assert result["trials"] == 20 and result["seed"] == 1 and result["lengths"] == [120, 150]
    assert numbers["checkpoint"] == str(run) and numbers["iter"] == 7 and numbers["config"]["dataset"] == "corpus"
    assert numbers["accuracy"] == [sum(part) / 20 for part in right]
    assert numbers["interval"] == [list(passkey.wilson(sum(part), 20)) for part in right]
    assert numbers["by_depth"] == [[(part[i] + part[i + 1]) / 2 for i in range(0, 20, 2)] for part in right]
    header, row, interval, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["passkey", "120", "150"] and len(header) == len(row) == len(interval)
    assert [float(cell) / 100 for cell in row.split()[1:]] == numbers["accuracy"]
    low, high = interval.split()[2].split("-")
    assert [float(low), float(high)] == pytest.approx([100 * end for end in numbers["interval"][0]], abs=0.05)
    assert not list(tmp_path.rglob("*.part")) and [path.name for path in run.iterdir()] == ["ckpt.pt"]


def test_default_lengths_hold_a_prompt_and_fit_the_terminal(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    call(monkeypatch, run, "--trials", 3, "--plot", tmp_path / "out.png")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["passkey", "128", "256", "512", "1024", "2048"]  # half of 128 holds none
    assert max(map(len, lines)) <= 80
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--lengths", "100"], "116"),
        (["--trials", "0"], "--trials"),
        (["--seed", "-1"], "--seed"),
        (["nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line(run, monkeypatch, arguments, says):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, run, *arguments)
    assert str(stop.value).startswith("error: ") and says in str(stop.value) and "\n" not in str(stop.value)
