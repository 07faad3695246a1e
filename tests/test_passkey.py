"""
passkey.py: prompts exact to the token, and accuracy against real generation and models that know the answer.

    pytest tests/test_passkey.py
"""

import re

import numpy as np
import pytest
import torch
from runs import call, fails, make_model, make_tokens, read_json, write_corpus, write_run
from torch.nn import functional as F

import passkey
from data import get_encoding

ENCODING = get_encoding("bytes")
NEEDLE = re.compile(r" The pass key( [A-Z])? is( \d{5})\. Remember it\.\2 is the pass key\1?\.")
QUESTION = re.compile(r" What is the pass key( [A-Z])?\? The pass key\1? is")


@pytest.fixture(scope="module", params=["bytes", "gpt2"])
def encoding(request):
    try:
        return get_encoding(request.param)
    except SystemExit as error:
        pytest.skip(str(error))  # GPT-2's vocabulary is fetched once


# ---------------------------------------------------------------------------------------------------------
# Prompts


@pytest.mark.parametrize("keys", [1, 12])
@pytest.mark.parametrize("depth", [0, 0.3, 1])
@pytest.mark.parametrize("spare", [0, 1, 200, 3000])  # tokens more than the shortest
def test_prompts_are_exact(encoding, spare, depth, keys):
    length = passkey.shortest(encoding, keys) + spare
    for seed in range(3):
        prompt, answer = passkey.make_prompt(encoding, length, depth, np.random.default_rng(seed), keys)
        assert len(prompt) + len(answer) == length
        text = encoding.decode(prompt)
        question = QUESTION.search(text)
        assert text.startswith("Find the key.") and question.end() == len(text)
        needles = {needle[1]: needle for needle in NEEDLE.finditer(text)}
        assert len(needles) == keys
        asked = needles[question[1]]
        assert asked[2] == encoding.decode(answer)
        # The needles cut one stretch of filler, the one asked for at its depth.
        filler = NEEDLE.sub("", text[: question.start()]).removeprefix("Find the key.")
        assert (passkey.FILLER * 200).startswith(filler)
        before = NEEDLE.sub("", text[: asked.start()]).removeprefix("Find the key.")
        tokens_before = len(encoding.encode_ordinary(before))
        tokens = len(encoding.encode_ordinary(filler))
        cut_words = 1 if encoding.name == "gpt2" else 0  # half a word is other tokens
        assert tokens_before == pytest.approx(depth * tokens, abs=0.5 + cut_words)


def test_filler_text_is_a_random_part_of_the_corpus():
    places = np.arange(1000, 6000)  # a corpus in which a token says where it stands
    starts = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        prompt, _ = passkey.make_prompt(ENCODING, 500, 0.5, rng, text=places)
        filler = [token for token in prompt if token >= 1000]
        assert filler == list(range(filler[0], filler[0] + 500 - 116))
        starts.append(filler[0])
    assert min(starts) < 1500 and max(starts) > 5000


# ---------------------------------------------------------------------------------------------------------
# Accuracy


def test_one_pass_is_greedy_generation(monkeypatch):
    """Every other answer is what the model generates; in the others one token of it is changed."""
    model = make_model(block_size=64, n_embd=32)
    whole = passkey.make_prompt
    expected = []
    varied = []

    def make_prompt(*args):
        prompt, answer = whole(*args)
        answer = model.generate(torch.tensor([prompt]), len(answer), temperature=0)[0, len(prompt) :].tolist()
        varied.append(len(set(answer)) > 1)
        trial = len(expected)
        expected.append(trial % 2 == 0)
        if trial % 2 == 1:
            wrong = trial // 2 % len(answer)
            answer[wrong] = (answer[wrong] + 1) % 256
        return prompt, answer

    monkeypatch.setattr(passkey, "make_prompt", make_prompt)
    monkeypatch.setattr(passkey, "BATCH_TOKENS", 800)  # batches of five and one of four
    assert passkey.evaluate(model, ENCODING, 150, trials=24).tolist() == expected
    assert sum(varied) > 12  # in one token again and again, predictions one late would not be seen


def test_prompts_differ_by_seed_and_length_and_not_by_model(monkeypatch):
    make_prompt = passkey.make_prompt

    def answers(seed: int, length: int) -> list:
        made = []

        def note_prompt(*args):
            made.append(make_prompt(*args))
            return made[-1]

        monkeypatch.setattr(passkey, "make_prompt", note_prompt)
        passkey.evaluate(make_model(), ENCODING, length, 12, seed)
        assert {len(prompt + answer) for prompt, answer in made} == {length}
        return [answer for _, answer in made]

    assert answers(0, 150) == answers(0, 150)
    assert answers(0, 150) != answers(1, 150)
    assert answers(0, 150) != answers(0, 160)


class OneHot(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = torch.zeros(size)

    def forward(self, tokens):
        return F.one_hot(tokens, len(self.weight))


class Oracle(torch.nn.Module):
    """Gives the key after the question, if the key stands in the first `sight` of the prompt.

    `wrong`: the token of the key, counted from its end, that it does not give.
    """

    def __init__(self, encoding, sight: float = 1.0, wrong: int = 0):
        super().__init__()
        self.encoding = encoding
        self.sight = sight
        self.wrong = wrong
        self.config = make_model().config
        self.lm_head = OneHot(encoding.n_vocab)

    def hidden(self, idx):
        out = torch.zeros_like(idx)
        for i, row in enumerate(idx.tolist()):
            text = self.encoding.decode(row)
            question = QUESTION.search(text)
            needles = {needle[1]: needle for needle in NEEDLE.finditer(text)}
            needle = needles[question[1]]
            key = torch.tensor(self.encoding.encode_ordinary(needle[2]))
            given = len(self.encoding.encode_ordinary(text[question.end() :]))  # tokens of the answer
            first = len(row) - 1 - given  # the question's last token, after which the key is predicted
            if needle.start() < self.sight * question.start():
                out[i, first : first + len(key)] = key
        if self.wrong > 0:
            out[:, -self.wrong] = 0
        return out


@pytest.mark.parametrize("keys", [1, 3])
def test_oracles(encoding, keys):
    """All of the key counts and nothing before it; GPT-2's keys have two tokens or three."""

    def accuracy(**settings) -> float:
        return passkey.evaluate(Oracle(encoding, **settings), encoding, 300, 40, keys=keys).mean()

    assert accuracy() == 1
    assert accuracy(sight=0) == 0
    longest = 6 if encoding.name == "bytes" else 3
    assert accuracy(wrong=1) == 0 and accuracy(wrong=2) == 0
    assert accuracy(wrong=longest) < 1 and accuracy(wrong=longest + 1) == 1


def test_trials_and_their_parts_go_from_far_to_near():
    right = passkey.evaluate(Oracle(ENCODING, sight=0.5), ENCODING, 1000, trials=20)
    assert right.tolist() == sorted(right, reverse=True) and 8 <= right.sum() <= 12
    right = np.array([[1, 1, 1, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0]])
    np.testing.assert_allclose(passkey.by_parts(right, 3), [[1, 2 / 3, 0], [0, 0, 1 / 3]])


# ---------------------------------------------------------------------------------------------------------
# Command line


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus", make_tokens())


@pytest.fixture
def run(corpus, tmp_path):
    return write_run(tmp_path / "tiny", make_model(), corpus)


def test_table_and_file_hold_what_evaluate_gives(run, tmp_path, monkeypatch, capsys):
    oracle = Oracle(ENCODING, sight=0.5)
    load_checkpoint = passkey.load_checkpoint

    def load_oracle(*args):
        return oracle, load_checkpoint(*args)[1]

    monkeypatch.setattr(passkey, "load_checkpoint", load_oracle)
    options = ("--lengths", 1500, 900, "--trials", 30, "--seed", 2, "--keys", 2)
    call(monkeypatch, passkey, run, *options, "--json", tmp_path / "out.json")
    result = read_json(tmp_path / "out.json")
    assert (result["lengths"], result["trials"], result["seed"], result["keys"]) == ([900, 1500], 30, 2, 2)
    (numbers,) = result["results"]
    right = [passkey.evaluate(oracle, ENCODING, length, 30, 2, keys=2) for length in (900, 1500)]
    right = np.array(right)
    assert numbers["accuracy"] == right.mean(axis=1).tolist()
    assert numbers["thirds"] == right.reshape(2, 3, 10).mean(axis=2).tolist()
    assert numbers["by_depth"] == right.reshape(2, 10, 3).mean(axis=2).tolist()
    header, accuracy, thirds = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["900", "1500"]
    assert accuracy.split()[1:] == [f"{100 * share:.1f}" for share in numbers["accuracy"]]
    assert re.search(r" 100/\d+/0 +100/\d+/0$", thirds)


def test_keys_and_filler_reach_the_prompts(run, monkeypatch):
    seen = []

    def evaluate(model, encoding, length, trials, seed, keys, text):
        seen.append((length, trials, keys, np.array(text).tolist()))
        return np.ones(trials, dtype=bool)

    monkeypatch.setattr(passkey, "evaluate", evaluate)
    call(monkeypatch, passkey, run, "--keys", 3, "--filler", "text", "--trials", 20, "--lengths", 300)
    assert seen == [(300, 20, 3, make_tokens().tolist())]


def test_default_lengths_hold_a_prompt(run, corpus, tmp_path, monkeypatch, capsys):
    """N is 16 bytes here: of N/2 to 16 N, only 8 N and 16 N hold a prompt. For N = 7 none does."""
    call(monkeypatch, passkey, run, "--trials", 10)
    assert capsys.readouterr().out.splitlines()[0].split()[2:] == ["128", "256"]
    small = write_run(tmp_path / "small", make_model(block_size=7), corpus)

    def evaluate_small():
        call(monkeypatch, passkey, small)

    assert "116" in fails(capsys, evaluate_small)
