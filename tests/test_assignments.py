"""The exercises: solutions get all points, empty files none, wrong answers a hint that names the mistake."""

import importlib
import json
import re
import subprocess
import sys

import pytest
import torch
from runs import make_model, make_tokens, write_corpus, write_run

import model
from assignments import grade, harness

# Mistakes that students make: the solution's code, what stands in its place, words of the hint.
COS = "cos_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)"
SIN = "sin_coef = torch.eye(kept) + sigma * torch.randn(n_head, kept, kept)"
PAD_SINE = """        new = SinePaddedWithOnes(model.config)
        new.load_state_dict(block.attn.pos.state_dict())
        block.attn.pos = new.to(model.lm_head.weight.device)
"""
LATE_BINDING = """        old = block.attn.pos.table

        def table(positions):
            cos, sin = old(positions)
            sin[..., 13:] = 1
            return cos, sin

        block.attn.pos.table = table
"""
MASKS = "q_len, k_len, window in ((9, 9, 4), (2, 9, 4), (1, 9, 1), (3, 9, 20))"
PAIRED = "    error = statistics.stdev(differences) / math.sqrt(len(differences))\n"
MUTANTS = {
    "ex01_rope": [
        ("/ head_dim\n", "/ head_dim / 2\n", "exponent were m / head_dim"),
        ("arange(0, head_dim, 2,", "arange(0, head_dim,", "expected a tensor of shape (32,)"),
        ("angles.cos(), angles.sin()", "angles.sin(), angles.cos()", "exchanged"),
        (
            "return angles.cos(), angles.sin()",
            "return torch.stack((angles.cos(), angles.sin()))",
            "a tuple of 2",
        ),
        ("positions.float()[", "torch.arange(len(positions))[", "counted from 0"),
        ("a * cos - b * sin, a * sin + b * cos", "a * cos + b * sin, b * cos - a * sin", "clockwise"),
        ("a, b = x.chunk(2, dim=-1)", "a, b = x[..., ::2], x[..., 1::2]", "m goes with m + head_dim / 2"),
        ("turned.type_as(x)", "turned", "came a tensor of shape (2, 3, 5, 8) and torch.float32"),
    ],
    "ex02_fope": [
        ("TURNING = 13", "TURNING = 12", "how many pairs are that"),
        ("P = 13 / 32", "P = 19 / 32", "set to zero"),
        ("2 * math.pi / block_size", "1 / block_size", "a turn is 2 pi"),
        ("frequencies[frequencies >= floor]", "frequencies * (frequencies >= floor)", "leave out"),
        (COS, COS + "\n    cos_coef[:, range(kept), range(kept)] = 1", "does not replace it"),
        (COS, COS.replace("torch.eye(kept) + ", ""), "add 1 where"),
        (
            COS,
            "cos_coef = (torch.eye(kept) + sigma * torch.randn(kept, kept)).repeat(n_head, 1, 1)",
            "each head",
        ),
        (SIN, "sin_coef = cos_coef", "not cosine's"),
        (
            "    return cos_coef",
            "    for coef in (cos_coef, sin_coef):\n"
            "        coef.copy_(torch.nn.init.xavier_normal_(coef.clone(), sigma) + torch.eye(kept))\n"
            "    return cos_coef",
            "Xavier",
        ),
        ("return cos_coef, sin_coef", "return [cos_coef, sin_coef]", "a tuple of 2, came a list"),
        ("angles.cos() @ cos_coef", "torch.einsum('tm,hpm->htp', angles.cos(), cos_coef)", "transposed"),
        ("value=0.0", "value=1.0", "cosine 1 and sine 0"),
        ("with torch.autocast(positions.device.type, enabled=False):", "if True:", "switch it off"),
    ],
    "ex03_evaluation": [
        (
            "exp(sum(losses) / count)",
            "exp(sum(losses) / count) * 0 + sum(losses) / count",
            "exp were missing",
        ),
        ("chunk[None, 1:]", "chunk[None, :-1]", "targets were the inputs"),
        ("in range(count)", "in range(count - 1)", "perplexity: expected"),
        ("tokens[i * length :", "tokens[:", "perplexity: expected"),
        ("question + key_ids + dot", 'question + encoding.encode_ordinary(key + ".")', "encoded together"),
        ("- len(question) - len(key_ids)", "- len(question)", "expected a list of"),
        ("round(depth * room)", "room - round(depth * room)", "depth 0 were the end"),
        ("round(depth * room)", "int(depth * room)", "rounded down"),
        ("guesses.tolist() == key", "guesses.tolist()[-1] == key[-1]", "all have to be right"),
        ("model(ids[:, :-1], ids[:, 1:])", "model(ids, ids)", "off by one"),
    ],
    "ex04_alibi": [
        ("arange(1, n_head + 1)", "arange(n_head)", "h began at 0"),
        ("-8 * h / n_head", "-1.0 * h", "8 / n_head were missing"),
        ("-slopes(n_head)[", "slopes(n_head)[", "the sign"),
        ("arange(k_len - q_len, k_len)", "arange(q_len)", "the first positions"),
        ("* distance", "* -key", "m j alone"),
        (" or block.attn.window > window", "", "wrong values"),
        ("if block.attn.window == 0 or block.attn.window > window:", "if True:", "was smaller grew"),
        ("block.attn.window == 0 or block", "block", "window 0, still did"),
        ("block.attn.window = window", "model.config.local_window = window", "nothing changed"),
        ("reversed(shares)", "shares", "the far end"),
        ("break", "continue", "went on after a part"),
        ("parts * length / len(shares)", "sum(shares) / len(shares) * length", "accuracy times length"),
    ],
    "ex05_relative": [
        ("EXPONENT = 1.0", "EXPONENT = 0.95", "a whole number"),
        ("(change / size)", "change", "not divided"),
        ("@ encoded_k.mT", "@ pos.encode(q, k, 0)[1].mT", "queries alone"),
        (".sqrt().item()", ".item()", "the root were missing"),
        ("size = here", "size = there", "moved scores"),
        ("here, there = scores", "here, there = [s.tril() for s in scores]", "relative_error: expected"),
    ],
    "ex06_kerple": [
        ("self.log_rates.exp()", "self.log_rates + 1", "not positive"),
        ("self.log_rates.exp()", "self.log_rates.relu() + 1e-3", "dead"),
        (
            "nn.Parameter(torch.zeros(2, config.n_head))",
            "torch.zeros(2, config.n_head)",
            "expected 6 numbers",
        ),
        ("zeros(2, config.n_head)", "zeros(2, 1)", "expected 6 numbers"),
        ("return r1, r2", "return self.log_rates.exp()", "rates: expected a tuple of 2"),
        ("(i - j).abs()", "(i - j)", "and |i - j|?"),
        (
            "-r1[:, None, None] * torch.log1p(r2[:, None, None] * distance)",
            "(-r1[:, None, None] * torch.log1p(r2[:, None, None] * (i - j))).tril(k_len - q_len)",
            "the gradient of log_rates",
        ),
        (
            "self.rates()\n",
            "self.rates()\n        r1, r2 = r1.detach(), r2.detach()\n",
            "no gradient reaches",
        ),
        ("j[k_len - q_len :, None]", "j[:q_len, None]", "counted from 0"),
        ("-r1[:, None, None]", "r1[:, None, None]", "the sign"),
        (", device=self.log_rates.device", "", "line "),
    ],
    "ex07_break": [
        (
            "    for block in model.blocks:\n        new = FoPE(model.config)\n",
            "    new = FoPE(model.config)\n    for block in model.blocks:\n",
            "the same draw as one before",
        ),
        ("        pos.sin_coef.copy_(new.sin_coef)\n", "", "is as before"),
        ("pos.cos_coef.copy_(new.cos_coef)", "pos.cos_coef.normal_(0, 0.02)", "the 1 is missing"),
        (
            "pos.cos_coef.copy_(new.cos_coef)",
            "pos.cos_coef.normal_(0, 0.3).diagonal(dim1=1, dim2=2).add_(1)",
            "Xavier's gain",
        ),
        ("sin[..., kept:] = 1", "sin[:] = 1", "the sine of all pairs"),
        (PAD_SINE, LATE_BINDING, "late binding"),
        ("block_size=length", "block_size=model.config.block_size", "layer 0's frequencies"),
        ("        new.cos_coef[:, :kept, :kept] = old.cos_coef\n", "", "corner of cos_coef"),
        (
            "    config = replace(",
            "    model.config.block_size = length\n    config = replace(",
            "model.config",
        ),
    ],
    "ex08_trainer": [
        ("start + 1 : start + length + 1", "start : start + length", "get_batch: "),
        ("distance < window", "distance <= window", "window_mask: "),
        ("distance < window", "distance < window - 1", "one key too few"),
        ("arange(past, past + count)", "arange(count)", "positions: "),
        ("    model.eval()\n    logits", "    logits", "validate: "),
        ("    model.train()\n", "", "left in evaluation mode"),
        (
            'entry["loss_n"] < chosen["loss_n"]',
            'entry["loss_4n"] < chosen["loss_4n"]',
            "best: ",
        ),
        ("trainer.get_batch", "get_batch", "it has to use trainer.get_batch"),
        ("assert (y == x + 1).all()", "assert (y > x).all()", "two tokens ahead"),
        (MASKS, "q_len, k_len, window in ((9, 9, 4),)", "at the first positions"),
        ("split((9, 1, 10)", "split((20,)", "begin at 0"),
        ("    assert model.training\n", "", "training goes on without dropout"),
        ('["step"] == 3', '["loss_n"] < 4', "finds nothing where"),
    ],
    "ex09_interpolation": [
        ("/ self.scale", "/ 4", "self.scale"),
        ("/ self.scale", "* self.scale", "multiplied"),
        ("scale ** (head_dim / (head_dim - 2))", "scale", "the slowest m is head_dim / 2 - 1"),
        ("~made_a_turn & goes_on", "goes_on", "have seen all angles"),
        ("old * block_size >= 2", "old * length >= 2", "not in N"),
        ("goes_on = new", "goes_on = old", "not that of new"),
        ("~made_a_turn & goes_on", "~(~made_a_turn & goes_on)", "the other way round"),
    ],
    "ex10_ablation": [
        ('evaluation["set"] or ', "", "under set, were counted"),
        ("settings.items())", 'settings.items() if key == "pos")', "a setting were not looked at"),
        (
            'evaluation["lengths"].index(length)',
            'evaluations[0]["lengths"].index(length)',
            "the first one's order",
        ),
        (" / math.sqrt(len(differences))", "", "divide by sqrt(n)"),
        (
            "a[seed] - b[seed] for seed in a if seed in b",
            "x - y for x, y in zip(a.values(), b.values())",
            "as they are listed",
        ),
        ("stdev(differences)", "pstdev(differences)", "n in place of n - 1"),
        (
            PAIRED,
            "    both = [statistics.variance(values.values()) for values in (a, b)]\n"
            "    error = math.sqrt(sum(both) / len(differences))\n",
            "the two were not paired",
        ),
        ("< risk", "< risk / 2", "split between two sides"),
        ("range(hits, trials + 1)", "range(hits + 1, trials + 1)", "only more hits"),
        ("    return low\n", "    return 1 - 3 / trials\n", "rule of three"),
        ("    return low\n", "    return hits / trials\n", "the share itself"),
    ],
}
CASES = []
for exercise, mutants in MUTANTS.items():
    CASES += [(exercise, *mutant) for mutant in mutants]


def solution(exercise: str) -> str:
    return (grade.FOLDER / "solutions" / f"{exercise}.py").read_text(encoding="utf-8")


def grade_text(tmp_path, exercise: str, text: str, seed: int = 0) -> list[dict]:
    path = tmp_path / f"{exercise}.py"
    path.write_text(text, encoding="utf-8")
    return list(harness.run(exercise, path, seed))


@pytest.mark.parametrize("exercise", grade.EXERCISES)
def test_a_solution_gets_all_points_whatever_is_drawn(exercise, tmp_path):
    for seed in range(3):
        assert [
            part for part in grade_text(tmp_path, exercise, solution(exercise), seed) if part["output"]
        ] == []


@pytest.mark.parametrize("exercise", grade.EXERCISES)
def test_an_empty_exercise_gets_none_and_says_why(exercise):
    parts = list(harness.run(exercise, grade.FOLDER / f"{exercise}.py"))
    if "NotImplementedError" in (grade.FOLDER / f"{exercise}.py").read_text(encoding="utf-8"):
        assert sum(part["score"] for part in parts) == 0
        assert any("not filled in yet" in part["output"] for part in parts)


@pytest.mark.parametrize("exercise, right, wrong, words", CASES)
def test_a_mistake_costs_points_and_the_hint_names_it(exercise, right, wrong, words, tmp_path):
    text = solution(exercise)
    assert right in text, "the solution has changed"
    parts = grade_text(tmp_path, exercise, text.replace(right, wrong, 1))
    hints = [part["output"] for part in parts if part["output"]]
    assert hints, "a wrong answer gets all points"
    assert words in hints[0] and hints[0].isascii() and hints[0].count("\n") < harness.HINT_LINES, hints[0]


def test_honest_ornaments_cost_nothing(tmp_path):
    ornaments = """
import random
import time
import torch

__all__ = ["keep"]
vars = random.Random(0)
version = torch.__version__
started = time.time()
random.seed(1)
fast = torch.compile if torch.cuda.is_available() else None
print("loaded")

if __name__ == "__main__":
    from matplotlib import pyplot
    from model import FoPE
"""
    assert [
        part
        for part in grade_text(tmp_path, "ex02_fope", solution("ex02_fope") + ornaments)
        if part["output"]
    ] == []


@pytest.mark.parametrize(
    "text, words",
    [
        ("def frequencies(:\n", "SyntaxError"),
        ("x = 1\n", "no attribute 'frequencies'"),
        ("def frequencies(d, theta):\n    return 'many' + 1\n", "your file, line 2: return 'many' + 1"),
        ("def frequencies(d, theta):\n    return None\n", "expected a tensor of shape (32,)"),
        ("def frequencies(d, theta):\n    raise SystemExit\n", "SystemExit"),
    ],
)
def test_an_answer_that_ends_in_an_error_says_where(text, words, tmp_path):
    assert words in grade_text(tmp_path, "ex01_rope", text)[0]["output"]


def test_the_command_prints_points_and_writes_what_gradescope_reads(tmp_path):
    text = solution("ex01_rope").replace("a * cos - b * sin", "a * cos + b * sin")
    (tmp_path / "ex01_rope.py").write_text(text + '\nprint("noise")\n', encoding="utf-8")
    (tmp_path / "ex05_relative.py").write_text("import os\n\nos._exit(1)\n", encoding="utf-8")
    command = [sys.executable, "-m", "assignments.grade", "ex01", "ex05", "--folder", tmp_path]
    command += ["--json", tmp_path / "results.json"]
    ran = subprocess.run(command, cwd=grade.FOLDER.parent, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"ex01_rope +6 of 10\n", ran.stdout) and "noise" not in ran.stdout
    assert re.search(r"relative encodings +0 of 2 +the process ended here", ran.stdout)
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    assert sum(test["score"] for test in tests) == 6 and sum(test["max_score"] for test in tests) == 18
    assert tests[0] == {"name": "ex01_rope: frequencies", "score": 3, "max_score": 3, "output": ""}


def test_an_answer_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr(grade, "SECONDS", 0.1)  # less than a process needs to start
    results = grade.grade("ex01_rope", grade.FOLDER / "solutions" / "ex01_rope.py")
    assert "endless loop" in results[0]["output"] and results[1]["output"] == "not reached"


def test_the_readme_and_the_exercises_say_their_points():
    readme = (grade.FOLDER / "README.md").read_text(encoding="utf-8")
    together = 0
    for exercise in grade.EXERCISES:
        importlib.import_module(f"assignments.graders.{exercise}")
        points = sum(part[1] for part in harness.PARTS[exercise])
        together += points
        assert re.search(rf"\({exercise}\.py\).*\| {points} \|$", readme, re.MULTILINE), exercise
        assert f"{points} points" in (grade.FOLDER / f"{exercise}.py").read_text(encoding="utf-8")
    assert f"{together} points" in readme


def fill_in(monkeypatch, exercise: str):
    """The exercise's module with the functions of its solution."""
    module = importlib.import_module(f"assignments.{exercise}")
    solved = importlib.import_module(f"assignments.solutions.{exercise}")
    for name, value in vars(solved).items():
        if not name.startswith("__"):
            monkeypatch.setattr(module, name, value, raising=False)
    return module


def test_the_errors_of_exercise_5_are_zero_for_relative_encodings_and_grow_with_sigma(monkeypatch, capsys):
    fill_in(monkeypatch, "ex05_relative").print_errors()
    values = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    relative = len(model.POSITIONS)
    assert [value < 1e-3 for value in values[:relative]] == [name != "alibi" for name in model.POSITIONS]
    normal = values[relative : relative + 5]
    assert normal == sorted(normal) and normal[0] < normal[-1]


def test_the_counts_of_exercise_9_end_where_each_way_ends(monkeypatch, capsys):
    fill_in(monkeypatch, "ex09_interpolation").print_counts()
    rows = [line.split()[-5:] for line in capsys.readouterr().out.splitlines()]
    assert rows[1] == ["0", "19", "19", "19", "19"]  # RoPE
    assert rows[2] == rows[4] == ["0", "0", "0", "19", "19"]  # interpolation and YaRN, to 4 N
    assert rows[5] == ["0"] * 5  # FoPE


def test_the_curves_of_exercise_7_have_a_row_for_each_mistake(monkeypatch, capsys, tmp_path):
    module = fill_in(monkeypatch, "ex07_break")
    evaluate = module.passkey.evaluate

    def cpu():
        return torch.device("cpu")

    def two_trials(model, encoding, length, trials):
        return evaluate(model, encoding, length, trials=2)

    monkeypatch.setattr(module, "pick_device", cpu)
    monkeypatch.setattr(module.passkey, "evaluate", two_trials)
    corpus = write_corpus(tmp_path / "corpus", make_tokens())
    sizes = {"vocab_size": 257, "block_size": 256, "n_layer": 1, "n_head": 1, "n_embd": 16}
    run = write_run(tmp_path / "run", model.GPT(model.GPTConfig(**sizes)), corpus)
    module.print_curves(str(run))
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 5 and all(row.count("%") == 4 for row in rows[1:])


def test_a_run_of_exercise_4_is_read_twice(monkeypatch, capsys, tmp_path):
    module = fill_in(monkeypatch, "ex04_alibi")
    monkeypatch.setattr(module, "pick_device", lambda: torch.device("cpu"))
    corpus = write_corpus(tmp_path / "corpus", make_tokens())
    run = write_run(tmp_path / "run", make_model(block_size=128), corpus)
    module.print_held(str(run))
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "as trained" and rows[4] == "held to 128 keys"
    assert rows[1] == rows[5] and rows[3] != rows[7]  # at N nothing is held back, at 4 N much is


def test_exercise_10_compares_the_seeds_that_both_have(monkeypatch, capsys, tmp_path):
    module = fill_in(monkeypatch, "ex10_ablation")
    lines = []
    for seed, series, perplexity in ((1, True, 5.0), (2, True, 6.0), (1, False, 4.5), (2, False, 5.7)):
        config = module.FOPE | {"seed": seed, "fope_series": series, "qk_norm": True}
        results = [{"config": config, "perplexity": [perplexity]}]
        lines.append(json.dumps({"lengths": [256], "set": [], "results": results}))
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    module.print_comparison(str(tmp_path / "runs.jsonl"), ["qk_norm=True"])
    out = capsys.readouterr().out
    assert "sd 0.141, lower in 0 of 2" in out and "+0.400 +- 0.100" in out and "0.887" in out
    module.print_comparison(str(tmp_path / "runs.jsonl"), ["qk_norm=False"])
    assert "too few seeds in common, 0" in capsys.readouterr().out
