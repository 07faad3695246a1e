"""What graders are made of: parts with points, expectations with short messages, and the run of one exercise.

A grader is a module in assignments/graders with two names: MODEL_NAMES, what the exercise may import from
model.py, and PARTS, a list of Part. A part is a function that takes the student's module and raises Wrong at
the first case that fails. `grade` runs the parts of one exercise in this process; grade.py starts a process
for it.
"""

import ast
import contextlib
import importlib
import importlib.util
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

import model

FOLDER = Path(__file__).parent
EXERCISES = sorted(path.stem for path in FOLDER.glob("ex[0-9]*_*.py"))
MAX_LINES = 10  # of a hint
WIDTH = 160  # characters of a line in a hint

MODULES = {
    "math",
    "cmath",
    "torch",
    "numpy",
    "dataclasses",
    "typing",
    "collections",
    "itertools",
    "functools",
    "copy",
}
# Ways to other files, other modules and what the graders hold. An exercise needs none of them.
FORBIDDEN = {
    "open",
    "exec",
    "eval",
    "compile",
    "globals",
    "vars",
    "getattr",
    "setattr",
    "input",
    "breakpoint",
}
FORBIDDEN |= {"os", "sys", "importlib", "inspect", "builtins", "pathlib", "subprocess", "runpy", "pickle"}
FORBIDDEN |= {"load", "fromfile", "loadtxt", "genfromtxt", "memmap"}
SPECIAL_NAMES = {"__init__", "__name__", "__class__", "__future__"}


class Wrong(Exception):
    """The student's answer is wrong; the message is the hint."""


class TimeUp(BaseException):
    """Not an Exception, so that `except Exception` in an answer does not catch it."""


@dataclass
class Part:
    name: str
    points: int
    check: Callable[[ModuleType], None]
    seconds: float = 10.0  # time limit; right answers take a hundredth of it
    too_slow: str = "an endless loop?"


@dataclass
class Result:
    name: str
    score: int
    max_score: int
    output: str  # the hint; "" for a part that is right


# ---------------------------------------------------------------------------------------------------------
# Expectations


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise Wrong(message)


def expect_close(what: str, came, expected, case: str, atol: float = 1e-4, known: dict | None = None) -> None:
    """Wrong unless `came` is `expected`, a tensor (shape, dtype and numbers) or a number.

    `known` maps the description of a common mistake to what that mistake would give.
    """
    if not torch.is_tensor(expected):
        is_number = isinstance(came, (int, float)) and not isinstance(came, bool)
        expect(is_number, f"{what}: a number was expected, a {type(came).__name__} came\nwith {case}")
        came = torch.tensor(came, dtype=torch.float64)
        expected = torch.tensor(expected, dtype=torch.float64)
    expect(torch.is_tensor(came), f"{what}: a tensor was expected, a {type(came).__name__} came\nwith {case}")
    shapes = f"expected {tuple(expected.shape)}, came {tuple(came.shape)}"
    expect(came.shape == expected.shape, f"{what}: wrong shape\nwith {case}\n{shapes}")
    dtypes = f"expected {expected.dtype}, came {came.dtype}"
    expect(came.dtype == expected.dtype, f"{what}: wrong dtype\nwith {case}\n{dtypes}")
    if is_close(came, expected, atol):
        return

    message = f"{what}: wrong values\nwith {case}"
    came = came.double()
    expected = expected.double()
    right = (came - expected).abs() <= atol + 1e-4 * expected.abs()  # False for NaN, too
    index = (~right).nonzero()[0].tolist()
    where = f" at {index}, the first wrong one" if index else ""
    message += f"\nexpected {expected[tuple(index)].item():.6g}, came {came[tuple(index)].item():.6g}{where}"
    nearest = None  # of the known mistakes that fit, since two may lie within the tolerance
    for mistake, value in (known or {}).items():
        value = torch.as_tensor(value, dtype=torch.float64)
        if value.shape == came.shape and is_close(came, value, atol):
            distance = (came - value).abs().max().nan_to_num(0.0).item()
            if nearest is None or distance < nearest[0]:
                nearest = (distance, mistake)
    if nearest:
        message += f"\nit looks as if {nearest[1]}"
    raise Wrong(message)


def is_close(came: torch.Tensor, expected: torch.Tensor, atol: float) -> bool:
    return torch.allclose(came.double(), expected.double(), atol=atol, rtol=1e-4)


@contextlib.contextmanager
def registered(name: str, encoding: type) -> Iterator[None]:
    """The student's encoding in model.POSITIONS, for as long as a part needs it."""
    model.POSITIONS[name] = encoding
    try:
        yield
    finally:
        del model.POSITIONS[name]


# ---------------------------------------------------------------------------------------------------------
# Running an exercise


def refuse(path: Path, model_names: set[str]) -> None:
    """Wrong if the file uses what an exercise must not: other modules, files, the answer in model.py."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        line = f"line {getattr(node, 'lineno', '?')}"
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            for name in names:
                expect(
                    name.split(".")[0] in MODULES,
                    f"{line}: refused, this exercise does without import {name}",
                )
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            allowed = {"model": model_names, "assignments": {"experiments"}}.get(node.module)
            if allowed is None:
                known = (node.module or "").split(".")[0] in MODULES and node.level == 0
                expect(known, f"{line}: refused, this exercise does without import from {node.module}")
            else:
                foreign = sorted(set(names) - allowed)
                expect(
                    not foreign, f"{line}: refused, this exercise does without {', '.join(foreign)}: write it"
                )
        elif isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            expect("solutions" not in node.value, f"{line}: refused, it names the solutions")
        for name in names:
            special = name.startswith("__") and name not in SPECIAL_NAMES
            expect(
                name not in FORBIDDEN and not special, f"{line}: refused, this exercise does without {name}"
            )


def load_answer(path: Path, model_names: set[str]) -> ModuleType:
    refuse(path, model_names)
    spec = importlib.util.spec_from_file_location("answer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeUp in what computes longer, where the system has alarms; else grade.py ends the whole
    process.

    It is the processor's time that counts, so that a busy machine fails no right answer.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(signum, frame):
        raise TimeUp

    old = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(
        signal.ITIMER_PROF, seconds, 1
    )  # then every second, for an answer that catches everything
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def explain(error: BaseException, path: Path, part: Part) -> str:
    """The hint for what came out of a part's check."""
    if isinstance(error, Wrong):
        lines = str(error).splitlines()
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == str(path)]
        where = (
            f"line {own[-1].lineno}: {own[-1].line}" if own else "in the check, with what your file gave it"
        )
        if isinstance(error, NotImplementedError) and own:
            lines = [f"not filled in yet ({where.split(':')[0]})"]
        elif isinstance(error, TimeUp):
            lines = [f"over {part.seconds:g} seconds: {part.too_slow}", where]
        else:
            reason = (str(error).splitlines() or [""])[0]
            lines = [f"it ended with {type(error).__name__}: {reason}", where]
    return "\n".join(line[:WIDTH] for line in lines[:MAX_LINES])


def load_grader(exercise: str) -> ModuleType:
    return importlib.import_module(f"assignments.graders.{exercise}")


def grade(exercise: str, path: Path, first: int = 0) -> Iterator[Result]:
    """Grades the file at `path`, part by part from the one numbered `first`: a Result each."""
    grader = load_grader(exercise)
    answer = None
    for part in grader.PARTS[first:]:
        try:
            with time_limit(part.seconds):
                if answer is None:
                    answer = load_answer(path, grader.MODEL_NAMES)
                torch.manual_seed(0)
                part.check(answer)
            hint = ""
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            hint = explain(error, path, part)
        score = 0 if hint else part.points
        yield Result(part.name, score, part.points, hint)
