"""The exercises in assignments/: solutions get full points, skeletons none, every wrong answer fails with a
fitting hint.

Most answers are graded in this process. What can only be seen from outside, a hanging answer, the command
line, the students' copy and the notebook, takes a process each.
"""

import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import model
import train
from assignments import checks, experiments, grade, handout, make_tour

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "assignments"
MUTANTS = {
    exercise: importlib.import_module(f"assignments.mutants.{exercise}").MUTANTS
    for exercise in checks.EXERCISES
}
CASES = [
    pytest.param(exercise, mutant, id=f"{exercise}: {mutant[0]}")
    for exercise in MUTANTS
    for mutant in MUTANTS[exercise]
]
# Right answers that look unusual: the exercise, the solution's code, what stands in its place.
FIRST = "import torch\n"
RETURN_KEPT = "return min(max(count, 0), head_dim // 2)"
RIGHT = [
    (
        "ex05_p_rope",
        "frequencies = super().make_frequencies()",
        "exponents = torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim\n"
        "        frequencies = (self.config.rope_theta**-exponents).float()",
    ),
    (
        "ex08_break",
        "    for block in model.blocks:\n        new",
        "    model.eval()\n    for block in model.blocks:\n        new",
    ),
    ("ex01_rope", "a, b = x.chunk(2, dim=-1)", "input = x\n    a, b = input.chunk(2, dim=-1)"),
    (
        "ex08_break",
        "for new_coef, old_coef in ((new.cos_coef, old.cos_coef), (new.sin_coef, old.sin_coef)):",
        'for name in ("cos_coef", "sin_coef"):\n            new_coef = getattr(new, name)\n'
        "            old_coef = getattr(old, name)",
    ),
    ("ex08_break", "block.attn.pos = new", 'setattr(block.attn, "pos", new)'),
    (
        "ex08_break",
        "block.attn.pos.__class__ = SinePaddedWithOnes",
        "import types\n\n"
        "        def padded(self, positions):\n"
        "            cos, sin = FoPE.table(self, positions)\n"
        "            sin[..., self.sin_coef.size(-1) :] = 1\n"
        "            return cos, sin\n\n"
        "        block.attn.pos.table = types.MethodType(padded, block.attn.pos)",
    ),
    (
        "ex01_rope",
        FIRST,
        "from __future__ import annotations\n\nimport operator\nimport fractions\n\n" + FIRST,
    ),
    ("ex01_rope", FIRST, FIRST + '\nNOTE = "one of several solutions, as in model.eval()"\n'),
    (
        "ex03_evaluation",
        "return math.exp(sum(losses) / count)",
        "import numpy\n\n    return numpy.exp(numpy.float32(sum(losses) / count))",
    ),
    (
        "ex03_evaluation",
        "return guesses.tolist() == key",
        "import numpy\n\n    return numpy.all(guesses.numpy() == numpy.array(key))",
    ),
    (
        "ex03_evaluation",
        "    losses = []\n",
        "    losses = []\n    before = model.training\n    model.eval()\n"
        "    tokens = tokens.to(next(model.parameters()).device)\n    model.train(before)\n",
    ),
    ("ex04_floor", RETURN_KEPT, "import numpy\n\n    return numpy.int64(min(max(count, 0), head_dim // 2))"),
    (
        "ex04_floor",
        "return math.ceil(2 * math.pi / slowest)",
        "import numpy\n\n    return numpy.int64(math.ceil(2 * math.pi / slowest))",
    ),
    ("ex06_relative", ".sqrt().item()", ".sqrt().numpy()[()]"),
    ("ex06_relative", "EXPONENT: float | None = 1.0", "import numpy\n\nEXPONENT = numpy.float32(1.0)"),
    (
        "ex02_fope",
        "with torch.autocast(positions.device.type, enabled=False):",
        'kind = "cuda" if positions.is_cuda else "cpu"\n'
        "    with torch.autocast(device_type=kind, enabled=False):",
    ),
    (
        "ex02_fope",
        "    with torch.autocast(positions.device.type, enabled=False):",
        "    from torch import autocast\n\n    with autocast(cos_coef.device.type, enabled=False):",
    ),
    ("ex02_fope", "frequencies[frequencies >= floor]", "frequencies[: int((frequencies >= floor).sum())]"),
]


def solution(exercise: str) -> Path:
    return FOLDER / "solutions" / f"{exercise}.py"


def hints(exercise: str, path: Path) -> list[str]:
    return [result.output for result in checks.grade(exercise, path) if result.output]


def write(folder: Path, exercise: str, text: str) -> Path:
    path = folder / f"{exercise}.py"
    path.write_text(text, encoding="utf-8")
    return path


def run(*arguments, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


# The graders ------------------------------------------------------------------------------------------------


def test_there_are_nine_exercises_in_order():
    assert [exercise[:4] for exercise in checks.EXERCISES] == [f"ex{i:02}" for i in range(1, 10)]


@pytest.mark.parametrize("exercise", checks.EXERCISES)
def test_a_solution_gets_full_points(exercise):
    results = list(checks.grade(exercise, solution(exercise)))
    assert [result for result in results if result.output or result.score != result.max_score] == []


@pytest.mark.parametrize("exercise", checks.EXERCISES)
def test_a_skeleton_gets_none_and_says_why(exercise):
    skeleton = FOLDER / f"{exercise}.py"
    if "NotImplementedError" not in skeleton.read_text(encoding="utf-8"):
        pytest.skip("solved here")
    for result in checks.grade(exercise, skeleton):
        assert result.score == 0 and "not filled in yet" in result.output


@pytest.mark.parametrize("exercise", checks.EXERCISES)
def test_there_are_enough_wrong_answers(exercise):
    names = [mutant[0] for mutant in MUTANTS[exercise]]
    assert len(set(names)) == len(names) >= 4


@pytest.mark.parametrize("exercise, mutant", CASES)
def test_a_wrong_answer_fails_with_a_hint_that_names_the_mistake(exercise, mutant, tmp_path):
    _, right, wrong, word = mutant
    source = solution(exercise).read_text(encoding="utf-8")
    assert source.count(right) >= 1, "the solution has changed"
    path = write(tmp_path, exercise, source.replace(right, wrong, 1))
    first = next((result for result in checks.grade(exercise, path) if result.output), None)
    assert first is not None, "a wrong answer gets full points"
    assert first.score == 0
    assert re.search(word, first.output), first.output
    lines = first.output.splitlines()
    assert len(lines) <= checks.MAX_LINES and max(map(len, lines)) <= checks.WIDTH


@pytest.mark.parametrize("exercise, usual, unusual", RIGHT)
def test_an_unusual_right_answer_gets_full_points(exercise, usual, unusual, tmp_path):
    source = solution(exercise).read_text(encoding="utf-8")
    assert usual in source, "the solution has changed"
    assert hints(exercise, write(tmp_path, exercise, source.replace(usual, unusual, 1))) == []


@pytest.mark.parametrize(
    "line",
    [
        "from assignments.solutions.ex04_floor import kept, undertrained, shortest_unclipped",
        "from assignments.solutions import ex04_floor",
        "import assignments.solutions.ex04_floor as s",
        "from .solutions.ex04_floor import kept",
        "import importlib; importlib.import_module('assignments.' + 'solu' + 'tions.ex04_floor')",
        "__import__('assignments.graders.ex04_floor')",
        "exec(open('assignments/solutions/ex04_floor.py').read())",
        "import model; kept = model.FoPE",
        "from model import FoPE",
        "import torch; torch.os",
        "import numpy; numpy.fromfile('x')",
        "from assignments import grade",
        "from data import load_tokens",
        "().__class__.__base__.__subclasses__()",
        "from assignments import experiments",
        "import collections; collections._sys.modules",
        "import operator; operator.attrgetter('__class__')",
        "import torch; torch.allclose = lambda *a, **k: True",
        "import torch; torch.Tensor.sum = None",
        "e = eval",
        "input()",
        "getattr(kept, '__glo' + 'bals__')",
        "getattr(kept, '__globals__')",
        "import collections; getattr(collections, '_s' + 'ys')",
        "import torch; setattr(torch, 'allclose', None)",
    ],
)
def test_other_files_are_refused(line, tmp_path):
    source = solution("ex04_floor").read_text(encoding="utf-8")
    assert hints("ex04_floor", write(tmp_path, "ex04_floor", source)) == []
    found = hints("ex04_floor", write(tmp_path, "ex04_floor", f"{source}\n\n{line}\n"))
    assert len(found) == 4 and all("refused" in hint for hint in found)


@pytest.mark.parametrize(
    "text, word",
    [
        ("def kept(:\n", "^the file does not parse, line 1: "),
        ("x = 1\nreturn x\n", "^the file does not parse, line 2: "),
        ("def kept(a, b, c):\n    return kept(a, b, c)\n", "RecursionError"),
        ("1 / 0\n", "line 1: 1 / 0"),
        ("x = 1\n", "AttributeError"),
        ("raise SystemExit\n", "SystemExit"),
        ("def kept(a, b, c):\n    return 'many'\n", "an int was expected, a str came"),
        ("def kept(a, b, c):\n    return 'many' + 1\n", "line 2: return 'many' [+] 1"),
    ],
)
def test_an_answer_that_ends_in_an_error_says_where(text, word, tmp_path):
    assert re.search(word, hints("ex04_floor", write(tmp_path, "ex04_floor", text))[0])


# From outside -----------------------------------------------------------------------------------------------


def test_an_answer_that_catches_everything_costs_its_part_alone(tmp_path):
    hang = """
    while head_dim > 2**30:
        try:
            numbers = sorted(range(1000))
        except BaseException:
            pass
"""
    source = solution("ex04_floor").read_text(encoding="utf-8")
    start = "def kept(block_size: int, rope_theta: float, head_dim: int) -> int:\n"
    assert start in source
    results = grade.grade("ex04_floor", write(tmp_path, "ex04_floor", source.replace(start, start + hang)))
    assert [result.score for result in results] == [3, 0, 3, 2]
    assert "closed form required" in results[1].output


def test_the_command_writes_a_table_and_what_gradescope_reads(tmp_path):
    source = solution("ex01_rope").read_text(encoding="utf-8")
    write(tmp_path, "ex01_rope", source.replace("a * cos - b * sin", "a * cos + b * sin"))
    write(tmp_path, "ex04_floor", (FOLDER / "ex04_floor.py").read_text(encoding="utf-8"))
    file = tmp_path / "results.json"
    done = run("-m", "assignments.grade", "ex01", "ex04", "--folder", tmp_path, "--json", file)
    assert done.returncode == 0, done.stderr
    assert re.search(r"ex01_rope +5 of 10 +rotate: wrong values", done.stdout)
    assert "one minus sign" in done.stdout
    assert "by part: frequencies 3/3, table 2/2, rotate 0/3, together 0/2" in done.stdout
    tests = json.loads(file.read_text())["tests"]
    assert sum(test["score"] for test in tests) == 5 and sum(test["max_score"] for test in tests) == 20
    assert all(set(test) == {"name", "score", "max_score", "output"} for test in tests)
    assert tests[0] == {"name": "ex01_rope: frequencies", "score": 3, "max_score": 3, "output": ""}


def test_an_answer_is_graded_with_one_thread(tmp_path):
    threads = torch.get_num_threads()
    source = solution("ex01_rope").read_text(encoding="utf-8")
    source = source.replace(
        "    a, b = x", "    if torch.get_num_threads() > 1:\n        raise ValueError\n    a, b = x"
    )
    torch.set_num_threads(2)
    assert hints("ex01_rope", write(tmp_path, "ex01_rope", source)) == []
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def test_the_points_of_the_readme_are_those_of_the_graders():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    together = 0
    for exercise in checks.EXERCISES:
        points = sum(part.points for part in checks.load_grader(exercise).PARTS)
        together += points
        assert re.search(rf"\({exercise}\.py\).*\| {points} \|$", readme, re.MULTILINE), exercise
        assert f"{points} points" in (FOLDER / f"{exercise}.py").read_text(encoding="utf-8")
    assert f"{together} points in all" in readme


def test_what_an_answer_prints_stays_out_of_the_table(tmp_path):
    source = solution("ex04_floor").read_text(encoding="utf-8")
    write(tmp_path, "ex04_floor", f"{source}\n\nprint('flood')\n")
    done = run("-m", "assignments.grade", "ex04", "--folder", tmp_path)
    assert re.search(r"ex04_floor +10 of 10 +all right", done.stdout), done.stdout
    assert "flood" not in done.stdout + done.stderr


def test_the_readme_lists_what_is_allowed_and_what_is_refused():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in checks.MODULES - {"torch", "numpy"} | checks.FORBIDDEN | checks.FORBIDDEN_ALONE:
        assert f"`{name}`" in readme, name


def test_the_classes_of_the_model_stay_what_they_are(tmp_path):
    table = model.FoPE.table
    text = "from model import FoPE, GPT\n\nFoPE.table = None\nFoPE.more = 1\ndel FoPE.make_frequencies\n"
    results = list(checks.grade("ex08_break", write(tmp_path, "ex08_break", text)))
    assert "FoPE.table" in results[0].output and "FoPE.more" in results[0].output
    assert model.FoPE.table is table and not hasattr(model.FoPE, "more")
    assert "make_frequencies" in vars(model.FoPE)


def test_the_handout_has_no_answers_and_runs(tmp_path):
    target = tmp_path / "class"
    count = handout.make_handout(target)
    names = [str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()]
    assert count == len(names) and "model.py" in names and "assignments/ex09_yarn.py" in names
    assert not any("solutions" in name or "mutants" in name or "test_assignments" in name for name in names)
    for name in names:
        if name.startswith("assignments/") and name.endswith(".py"):
            text = (target / name).read_text(encoding="utf-8")
            assert "assignments.mutants." not in text and "solutions." not in text, name
    readme = (target / "assignments" / "README.md").read_text(encoding="utf-8")
    assert not any(word in readme for word in ("eachers", "handout", "--solutions", "mutants"))
    assert "How to work" in readme and "2π/N the right floor" in readme
    done = run("-m", "assignments.grade", "ex04", cwd=target)
    assert done.returncode == 0, done.stderr
    assert re.search(r"ex04_floor +0 of 10 +kept: not filled in yet", done.stdout)
    with pytest.raises(SystemExit, match="there already"):
        handout.make_handout(target)


# The notebook -----------------------------------------------------------------------------------------------


def write_corpus(tmp_path) -> None:
    rng = np.random.default_rng(0)
    sizes = {"train": 20_000, "val": 5_000}
    for split, size in sizes.items():
        rng.integers(97, 123, size=size, dtype=np.uint16).tofile(tmp_path / f"{split}.bin")
    meta = {"name": "corpus", "encoding": "bytes", "vocab_size": 257, "sha256": "0"}
    for split, size in sizes.items():
        meta |= {f"{split}_tokens": size, f"{split}_documents": 1}
    (tmp_path / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize("exercise, run_name", [("ex08_break", "fope"), ("ex09_yarn", "rope")])
def test_an_experiment_prints_curves(exercise, run_name, tmp_path, monkeypatch, capsys):
    write_corpus(tmp_path)
    size = {"block_size": 128, "n_layer": 1, "n_head": 2, "n_embd": 32, "batch_size": 2}
    config = train.TrainConfig(
        out_dir=str(tmp_path / "run"),
        dataset=str(tmp_path),
        pos=run_name,
        max_iters=2,
        eval_tokens=512,
        dtype="float32",
        device="cpu",
        **size,
    )
    train.train(config)
    capsys.readouterr()
    monkeypatch.setattr(experiments, "TOKENS", 1024)
    monkeypatch.setattr(experiments, "TRIALS", 4)
    monkeypatch.setattr(sys, "argv", [exercise, str(tmp_path / "run")])
    runpy.run_path(str(solution(exercise)), run_name="__main__")
    model.POSITIONS.pop("interpolated", None)
    printed = capsys.readouterr().out.splitlines()
    rows = {"ex08_break": 5, "ex09_yarn": 3}[exercise]
    assert len(printed) == 2 * (rows + 1)
    assert all(len(re.findall(r"\d+(?:\.\d+)?$|\d+(?:\.\d+)? ", line)) >= 4 for line in printed)
    monkeypatch.setattr(sys, "argv", [exercise])
    with pytest.raises(SystemExit, match="name one run"):
        runpy.run_path(str(solution(exercise)), run_name="__main__")
    model.POSITIONS.pop("interpolated", None)


def test_the_errors_of_exercise_6_are_zero_for_relative_encodings_and_grow_with_sigma(capsys):
    runpy.run_path(str(solution("ex06_relative")), run_name="__main__")
    errors = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    relative = len(model.POSITIONS)
    assert max(errors[:relative]) < 1e-3
    for curve in (errors[relative : relative + 5], errors[relative + 7 : relative + 12]):
        assert curve == sorted(curve) and curve[0] < curve[-1]


def test_the_tour_runs_and_keeps_its_outputs(tmp_path, monkeypatch):
    write_corpus(tmp_path)
    monkeypatch.setenv("TOUR_STEPS", "20")
    monkeypatch.setenv("TOUR_DATASET", str(tmp_path))
    kept = nbformat.read(make_tour.TOUR, as_version=4)
    assert make_tour.TOUR.stat().st_size < 400 * 1024
    for notebook in (kept, make_tour.execute()):
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        pictures = ["image/png" in str(cell.outputs) for cell in code]
        assert sum(pictures) >= 6 and all(cell.outputs for cell in code[1:])


def test_the_tour_draws_what_results_there_are(tmp_path):
    cell = nbformat.read(make_tour.TOUR, as_version=4).cells[-1]
    curves = {"perplexity": [[4.0, 3.9], [4.2, 4.0]], "passkey": [[1.0, 0.5], [0.9, 0.4]]}
    summary = {"lengths": [256, 512], "encodings": {"fope": curves, "nope": {"perplexity": [[5.0, 6.0]]}}}
    folder = tmp_path / "results" / "tiny"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    names = {"ROOT": tmp_path, "json": json, "plt": pyplot, "torch": torch}
    exec(cell.source, names)
    left, right = names["panels"]
    assert len(left.lines) == 5 and len(right.lines) == 3  # a line a seed, and one for the mean
    assert list(left.lines[2].get_ydata()) == pytest.approx([4.1, 3.95])
    pyplot.close("all")
