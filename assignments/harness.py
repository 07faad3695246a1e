"""
What graders are made of. A grader, assignments/graders/ex02_fope.py, holds the checks of an exercise:

    @part("floor", 2)
    def floor(answer):
        same("keep", answer.keep(given, 64), expected, "N = 64", known={"it forgot 2π": other})

`answer` is the student's module. A check ends without a word, or in Wrong with a hint. Grading runs ordinary
code of a student and defends against nothing: do it where you would run that code anyway.
"""

import importlib
import importlib.util
import math
import traceback
from pathlib import Path

import torch

PARTS = {}  # exercise: a list of (name, points, check), in the order of its grader
HINT_LINES = 10


class Wrong(Exception):
    """The answer is wrong; the message is the hint."""


def part(name: str, points: int):
    """Registers a check under this name and for so many points."""

    def register(check):
        exercise = check.__module__.split(".")[-1]
        PARTS.setdefault(exercise, []).append((name, points, check))
        return check

    return register


def true(condition, hint: str):
    """Wrong, with the hint, unless the condition holds."""
    if not condition:
        raise Wrong(hint)


def same(what: str, came, expected, case: str, known=None, atol: float = 1e-4):
    """Wrong unless what came is what was expected: a tensor, a number, a text, or a tuple or list of these.

    Tensors have shape and dtype in common, too; with atol=math.inf these alone are compared. `case` is the
    input. `known` has for each mistake, in words, what would come of it: the hint names those that fit.
    """
    problem = difference(came, expected, atol)
    if not problem:
        return
    hint = f"{what}: {problem}\nwith {case}"
    for mistake, value in (known or {}).items():
        if not difference(came, value, atol):
            hint += f"\nit looks as if {mistake}"
    raise Wrong(hint)


def difference(came, expected, atol: float) -> str:
    """The first difference in words, or "" if there is none."""
    if isinstance(expected, (tuple, list)):
        kind = type(expected).__name__
        if not isinstance(came, type(expected)) or len(came) != len(expected):
            return f"expected a {kind} of {len(expected)}, came {describe(came)}"
        for index, values in enumerate(zip(came, expected)):
            problem = difference(*values, atol)
            if problem:
                return f"number {index} of the {kind}: {problem}"
        return ""
    if torch.is_tensor(expected):
        if describe(came) != describe(expected):
            return f"expected {describe(expected)}, came {describe(came)}"
        if atol == math.inf:
            return ""
        wide = torch.complex128 if expected.is_complex() else torch.float64
        wrong = ~torch.isclose(came.to(wide), expected.to(wide), rtol=1e-4, atol=atol)
        if not wrong.any():
            return ""
        index = tuple(wrong.nonzero()[0].tolist())
        place = f"at {list(index)}, the first of {wrong.sum()} wrong values: "
        return f"{place}expected {expected[index].item():.6g}, came {came[index].item():.6g}"
    if getattr(came, "ndim", None) == 0:  # a number in a tensor, or NumPy's
        came = came.item()
    if isinstance(expected, float) and isinstance(came, (int, float)):
        equal = abs(came - expected) <= atol + 1e-4 * abs(expected)
    else:
        equal = not torch.is_tensor(came) and came == expected
    return "" if equal else f"expected {expected!r}, came {describe(came)}"


def describe(value) -> str:
    """A tensor by its shape and dtype, a list or tuple by its kinds, all else by its value."""
    if torch.is_tensor(value):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    if isinstance(value, (tuple, list)):
        kinds = {type(item).__name__ for item in value}
        return f"a {type(value).__name__} of {len(value)} ({', '.join(sorted(kinds))})"
    return f"{value!r:.200}"


def run(exercise: str, path: Path, seed: int = 12417):
    """Grades a student's file: yields for each part what Gradescope wants to know of it."""
    importlib.import_module(f"assignments.graders.{exercise}")
    answer = None
    for name, points, check in PARTS[exercise]:
        torch.manual_seed(seed)
        try:
            if answer is None:
                answer = load(path)
            check(answer)
            hint = ""
        except Wrong as wrong:
            hint = str(wrong)
        except (Exception, SystemExit) as error:  # whatever a student's code may do
            hint = explain(error, path)
        hint = "\n".join(hint.splitlines()[:HINT_LINES])
        score = 0 if hint else points
        yield {"name": f"{exercise}: {name}", "score": score, "max_score": points, "output": hint}


def load(path: Path):
    """The student's file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def explain(error: BaseException, path: Path) -> str:
    """A hint from an exception: the message, and the last line of the student's, or else of the grader's."""
    if isinstance(error, NotImplementedError) and not str(error):
        return "not filled in yet"
    message = f"{type(error).__name__}: {error!s:.300}"
    frames = traceback.extract_tb(error.__traceback__)
    for place, file in (("your file", path), ("the grader", Path("graders", path.name))):
        found = [frame for frame in frames if frame.filename.endswith(str(file))]
        if found:
            return f"{message}\nin {place}, line {found[-1].lineno}: {found[-1].line}"
    return message
