"""passkey.py: prompts exact to the token, and accuracy against real greedy generation and against oracles."""

import re

import numpy as np
import pytest
import torch
from runs import call, fails, read_json, write_corpus, write_run
from torch.nn import functional as F

import passkey
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


# ---------------------------------------------------------------------------------------------------------
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
    # It holds every key; with the bytes' keys, all equally long, no token of filler is left.
    for seed in range(30):
        prompt, answer = passkey.make_prompt(encoding, shortest, 0.5, np.random.default_rng(seed))
        assert len(prompt + answer) == shortest
        if encoding.name == "bytes":
            assert read(encoding.decode(prompt))[::2] == ("", "")


# ---------------------------------------------------------------------------------------------------------
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
    prompts = []
    make_prompt = passkey.make_prompt
    monkeypatch.setattr(
        passkey, "make_prompt", lambda *args: prompts.append(make_prompt(*args)) or prompts[-1]
    )
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
    prompts = record_prompts(monkeypatch)
    keys = []
    for seed, length in ((0, 150), (0, 150), (1, 150), (0, 160)):
        passkey.evaluate(model, encoding, length, trials=10, seed=seed)
        keys.append([answer for _, answer in prompts[-10:]])
    assert keys[0] == keys[1] and keys[0] != keys[2] and keys[0] != keys[3]
    passkey.evaluate(model, encoding, 150, trials=10, seed=2**32)  # more than NumPy takes at once
    assert [answer for _, answer in prompts[-10:]] != keys[0]


@pytest.mark.parametrize("length", [120, 333])
def test_evaluated_prompts_are_as_long_as_asked(trained, length, monkeypatch):
    model, encoding = trained
    prompts = record_prompts(monkeypatch)
    read_by_model = []
    hook = model.wte.register_forward_hook(lambda module, args, x: read_by_model.append(x.size(1)))
    passkey.evaluate(model, encoding, length, trials=20)
    hook.remove()
    assert {len(prompt) + len(answer) for prompt, answer in prompts} == {length}
    assert set(read_by_model) == {length - 1}  # the last token is only to be predicted


class Oracle(torch.nn.Module):
    """Has the key read from the prompt, and nothing but wrong tokens before the question ends.

    `shift` takes it from another row; `wrong` is the token of the key, counted from its end, that is not
    given; `sight` is the share of a prompt, from its start, in which it finds a key.
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
    far, middle, near = passkey.by_parts(np.array([right]), 3)[0]
    assert far == 1 and 0 < middle < 1 and near == 0


def test_parts_of_the_depths_are_equal_and_go_from_far_to_near():
    right = np.array([[1, 1, 1, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0]])
    expected = np.array([[1, 2 / 3, 0], [0, 0, 1 / 3]])
    np.testing.assert_allclose(passkey.by_parts(right, 3), expected)
    tenths = passkey.by_parts(np.arange(1003)[None] < 502, 10)  # trials that ten does not divide
    assert tenths.shape == (1, 10)
    assert tenths[0].tolist() == sorted(tenths[0], reverse=True)
    assert tenths[0].mean() == pytest.approx(502 / 1003, abs=0.01)


@pytest.mark.parametrize(
    "right, trials, low, high",
    [(0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1), (990, 1000, 0.9817, 0.9946)],
)
def test_wilson(right, trials, low, high):
    (interval,) = passkey.wilson(np.array([right / trials]), trials)
    assert interval == pytest.approx([low, high], abs=1e-4)


def test_intervals_lie_between_0_and_1():
    for trials in range(10, 2000, 7):
        low, high = passkey.wilson(np.array([0.0, 1.0]), trials).T
        assert low[0] < 1e-9 and high[1] > 1 - 1e-9
        assert f"{low[0]:.1f}" == "0.0"  # no "-0.0"
        assert 0 < high[0] < 0.3 and 0.7 < low[1] < 1


# ---------------------------------------------------------------------------------------------------------
# Command line


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus", np.zeros(1, dtype=np.uint16))  # passkey.py does not read it


@pytest.fixture
def run(trained, corpus, tmp_path):
    return write_run(tmp_path / "tiny", trained[0], corpus)


def test_table_and_file(trained, few_keys, run, corpus, tmp_path, monkeypatch, capsys):
    options = ("--trials", 20, "--lengths", 150, 120, "--seed", 1, "--json", tmp_path / "out.json")
    call(monkeypatch, passkey, run, run, *options)
    result = read_json(tmp_path / "out.json")
    numbers = result["results"][1]
    right = [passkey.evaluate(*trained, length, trials=20, seed=1) for length in (120, 150)]
    assert 0 < sum(map(sum, right)) < 40
    assert result["trials"] == 20 and result["seed"] == 1 and result["lengths"] == [120, 150]
    assert numbers["trained_on"]  # the hash of the corpus
    assert numbers["checkpoint"] == str(run) and numbers["iter"] == 7
    assert numbers["config"]["dataset"] == str(corpus)
    assert numbers["accuracy"] == [sum(part) / 20 for part in right]
    assert numbers["reach"] == pytest.approx(
        [sum(part) / 20 * length for part, length in zip(right, (120, 150))]
    )
    for part, (low, high) in zip(right, numbers["interval"]):
        assert [low, high] == pytest.approx(passkey.wilson(np.array([sum(part) / 20]), 20)[0])
    assert numbers["by_depth"] == [[(part[i] + part[i + 1]) / 2 for i in range(0, 20, 2)] for part in right]
    thirds = [[sum(part[:7]) / 7, sum(part[7:14]) / 7, sum(part[14:]) / 6] for part in right]
    assert np.array(numbers["thirds"]) == pytest.approx(np.array(thirds))

    header, row, interval, depths, reach, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["120", "150"]
    assert len({len(header), len(row), len(interval), len(depths), len(reach)}) == 1  # columns stand in line
    assert [float(cell) / 100 for cell in row.split()[1:]] == numbers["accuracy"]
    low, high = interval.split()[-2].split("-")
    assert [float(low), float(high)] == pytest.approx([100 * end for end in numbers["interval"][0]], abs=0.05)
    far_to_near = [float(share) for share in depths.split()[-1].split("/")]
    assert far_to_near == pytest.approx([100 * share for share in thirds[1]], abs=0.5)
    assert [float(cell) for cell in reach.split()[-2:]] == pytest.approx(numbers["reach"], abs=0.5)


def test_the_columns_of_a_sighted_model(run, monkeypatch, tmp_path, capsys):
    """Far keys alone are found: they stand first, in the table and in the file."""
    encoding = get_encoding("bytes")
    load_checkpoint = passkey.load_checkpoint

    def load_oracle(*args):
        model, checkpoint = load_checkpoint(*args)
        oracle = Oracle(encoding, sight=0.5)
        oracle.config = model.config
        return oracle, checkpoint

    monkeypatch.setattr(passkey, "load_checkpoint", load_oracle)
    call(monkeypatch, passkey, run, "--trials", 30, "--lengths", 400, "--json", tmp_path / "out.json")
    (numbers,) = read_json(tmp_path / "out.json")["results"]
    assert numbers["thirds"][0][0] == 1 and numbers["thirds"][0][2] == 0
    assert numbers["by_depth"][0][:3] == [1, 1, 1] and numbers["by_depth"][0][-3:] == [0, 0, 0]
    assert re.search(r" 100/\d\d/0$", capsys.readouterr().out, re.MULTILINE)


def test_default_lengths_hold_a_prompt(run, monkeypatch, capsys):
    call(monkeypatch, passkey, run, "--trials", 10)
    header = capsys.readouterr().out.splitlines()[0].split()
    lengths = [int(cell) for cell in header if cell.isdigit()]
    assert lengths[-5:] == [128, 256, 512, 1024, 2048]
    assert min(lengths) >= passkey.shortest(get_encoding("bytes"))  # half of 128 holds none


def test_a_failing_run_leaves_the_numbers_before_it(run, trained, corpus, tmp_path, monkeypatch, capsys):
    broken = write_run(tmp_path / "broken", trained[0], corpus, iter="many")
    options = ("--trials", 10, "--lengths", 120, "--json", tmp_path / "out.json")
    assert str(broken) in fails(capsys, lambda: call(monkeypatch, passkey, run, broken, *options))
    (numbers,) = read_json(tmp_path / "out.json")["results"]
    assert numbers["checkpoint"] == str(run)


def test_logn_scale_reaches_the_model(run, monkeypatch, tmp_path):
    strengths = []
    evaluate = passkey.evaluate

    def record(model, *args):
        strengths.append([block.attn.config.logn_scale for block in model.blocks])
        return evaluate(model, *args)

    monkeypatch.setattr(passkey, "evaluate", record)
    options = ("--trials", 10, "--lengths", 120, "--json", tmp_path / "out.json")
    call(monkeypatch, passkey, run, "--logn_scale", 0.5, *options)
    assert strengths == [[0.5]]
    config = read_json(tmp_path / "out.json")["results"][0]["config"]
    assert config["logn_scale"] == 0.5


def test_a_length_too_short_is_one_line(run, monkeypatch, capsys):
    assert "116" in fails(capsys, lambda: call(monkeypatch, passkey, run, "--lengths", 100))


def test_the_picture_shows_far_keys_on_top():
    pytest.importorskip("matplotlib")
    by_depth = np.linspace(0, 1, 20).reshape(2, 10).tolist()
    runs = [{"checkpoint": f"out/{name}", "by_depth": by_depth} for name in "ab"]
    *panels, _ = passkey.draw([120, 240], runs).axes  # the last is the colour bar
    assert [axes.get_title() for axes in panels] == ["a", "b"]
    for axes in panels:
        (image,) = axes.images
        assert np.array_equal(image.get_array(), np.transpose(by_depth))  # a row a depth, a column a length
        assert image.get_clim() == (0, 1) and image.origin == "upper"
        bottom, top = axes.get_ylim()
        assert bottom > top
        assert [label.get_text() for label in axes.get_xticklabels()] == ["120", "240"]
