"""What graders are made of: parts with points, expectations with short messages, and the run of one exercise.

A grader is a module in assignments/graders with two names: MODEL_NAMES, what the exercise may import from
model.py, and PARTS, a list of Part; and EXPERIMENTS, what it may call in experiments.py, where it has an
experiment. A part is a function that takes the student's module and raises Wrong at the first case that
fails. `grade` runs the parts of one exercise in this process; grade.py starts a process for it.
"""

import ast
import contextlib
import importlib
import importlib.util
import numbers
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import allclose  # by its own name, so that an answer which replaces torch.allclose wins nothing

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
    "fractions",
    "operator",
    "types",
    "__future__",
}
# Ways to other files, other modules and what the graders hold. An exercise needs none of them. With
# underscores in front they are the same: collections._sys is sys.
FORBIDDEN = {
    "open",
    "exec",
    "compile",
    "globals",
    "vars",
    "breakpoint",
    "attrgetter",
    "methodcaller",
}
FORBIDDEN |= {"os", "sys", "importlib", "inspect", "builtins", "pathlib", "subprocess", "runpy", "pickle"}
FORBIDDEN |= {"import_dotted_name"}  # torch._utils has it
FORBIDDEN |= {"load", "fromfile", "loadtxt", "genfromtxt", "memmap"}
FORBIDDEN_ALONE = {"eval"}  # but not as an attribute: model.eval()
FORBIDDEN_CALLS = {"input"}  # but not as a variable
SPECIAL_NAMES = {"__init__", "__name__", "__class__", "__future__"}
# What Python adds to a class by itself when it is copied or its annotations are asked for.
BY_PYTHON = {"__slotnames__", "__annotations__", "__annotations_cache__", "__annotate__", "__annotate_func__"}


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


def is_number(value) -> bool:
    """Whether it is a real number, Python's or NumPy's; a bool is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def plain(value):
    """What NumPy computed, such as np.int64(3), as Python's own type; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def expect_close(
    what: str,
    came,
    expected,
    case: str,
    atol: float = 1e-4,
    known: dict | None = None,
    known_atol: float | None = None,
) -> None:
    """Wrong unless `came` is `expected`, a tensor (shape, dtype and numbers) or a number.

    `known` maps the description of a common mistake to what that mistake would give, to within known_atol
    (atol, if it is not given).
    """
    if not torch.is_tensor(expected):
        message = f"{what}: a number was expected, a {type(came).__name__} came\nwith {case}"
        expect(is_number(came), message)
        came = torch.tensor(float(came), dtype=torch.float64)
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
        if value.shape == came.shape and is_close(came, value, known_atol or atol):
            distance = (came - value).abs().max().nan_to_num(0.0).item()
            if nearest is None or distance < nearest[0]:
                nearest = (distance, mistake)
    if nearest:
        message += f"\nit looks as if {nearest[1]}"
    raise Wrong(message)


def is_close(came: torch.Tensor, expected: torch.Tensor, atol: float) -> bool:
    return allclose(came.double(), expected.double(), atol=atol, rtol=1e-4)


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


def parse(path: Path) -> ast.Module:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        compile(tree, str(path), "exec")  # finds more, such as a return outside of a function
    except SyntaxError as error:
        raise Wrong(f"the file does not parse, line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # it is no UTF-8, or has null bytes
        raise Wrong(f"the file does not parse: {error}") from None
    return tree


def expect_name(name: str, line: str) -> None:
    special = name.startswith("__") and name not in SPECIAL_NAMES
    refused = special or name.lstrip("_") in FORBIDDEN
    expect(not refused, f"{line}: refused, this exercise does without {name}")


def expect_import(node: ast.Import | ast.ImportFrom, allowed: dict[str, set[str]], line: str) -> None:
    """Wrong unless the import is of MODULES, or of names that are allowed from a file of this repository."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        for name in names:
            message = f"{line}: refused, this exercise does without import {name}"
            expect(name.split(".")[0] in MODULES, message)
    elif node.level == 0 and node.module in allowed:
        foreign = sorted(set(names) - allowed[node.module])
        there_is = f"from {node.module} there is {', '.join(sorted(allowed[node.module])) or 'nothing'}"
        message = f"{line}: refused, this exercise does without {', '.join(foreign)}: {there_is} to import"
        expect(not foreign, message)
    else:
        module = node.module or "."
        known = module.split(".")[0] in MODULES and node.level == 0
        expect(known, f"{line}: refused, this exercise does without import from {module}")
        names.append(module)
    for name in names:
        for part in name.strip(".").split("."):
            expect_name(part, line)


def expect_experiment(tree: ast.Module, names: set[str]) -> None:
    """Wrong if experiments.py, which imports what model.py answers, is used for more than its experiment."""
    own = set()  # the names of the module in this file
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "assignments":
            own |= {alias.asname or alias.name for alias in node.names}
    right = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            right.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in own:
            message = f"refused, of experiments there is only {', '.join(sorted(names))} to use here"
            expect(node in right, f"line {node.lineno}: {message}")


def expect_modules_stay(tree: ast.Module) -> None:
    """Wrong if an attribute of something imported is assigned, such as torch.allclose.

    Classes of model.py are left to `keep_classes`, which knows the part that changes them.
    """
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != "model"):
            imported |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    for node in ast.walk(tree):  # T = torch: another name for the same module
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in imported:
            imported |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            root = node
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            foreign = isinstance(root, ast.Name) and root.id in imported
            message = f"refused, {ast.unparse(node)} would be changed for the whole process, not here alone"
            expect(not foreign, f"line {node.lineno}: {message}")


def refuse(tree: ast.Module, model_names: set[str], experiments: set[str]) -> None:
    """Wrong if the file uses what an exercise must not: other modules, files, the answer in model.py."""
    allowed = {"model": model_names}
    if experiments:
        allowed["assignments"] = {"experiments"}
    for node in ast.walk(tree):
        line = f"line {getattr(node, 'lineno', '?')}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            expect_import(node, allowed, line)
        elif isinstance(node, ast.Name):
            expect_name(node.id, line)
            expect(node.id not in FORBIDDEN_ALONE, f"{line}: refused, this exercise does without {node.id}")
        elif isinstance(node, ast.Attribute):
            expect_name(node.attr, line)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            expect(name not in FORBIDDEN_CALLS, f"{line}: refused, this exercise does without {name}()")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            names_them = "assignments.solutions" in node.value or "/solutions" in node.value
            expect(not names_them, f"{line}: refused, it names the solutions")
    expect_experiment(tree, experiments)
    expect_modules_stay(tree)


def careful_getattr(thing, name: str, *default):
    """The answer's getattr: a name that is computed passes no check but this one."""
    expect(not name.startswith("_"), f"refused, this exercise does without getattr of {name}")
    expect_name(name, "getattr")
    return getattr(thing, name, *default)


def careful_setattr(thing, name: str, value) -> None:
    expect(not name.startswith("_"), f"refused, this exercise does without setattr of {name}")
    message = "would be changed for the whole process, not here alone"
    expect(not isinstance(thing, ModuleType), f"refused, setattr: {name} {message}")
    setattr(thing, name, value)


def load_answer(path: Path, grader: ModuleType) -> ModuleType:
    refuse(parse(path), grader.MODEL_NAMES, getattr(grader, "EXPERIMENTS", set()))
    spec = importlib.util.spec_from_file_location("answer", path)
    module = importlib.util.module_from_spec(spec)
    module.getattr = careful_getattr
    module.setattr = careful_setattr
    spec.loader.exec_module(module)
    return module


def class_attributes() -> dict[type, dict]:
    """What stands in every class of model.py."""
    attributes = {}
    for value in vars(model).values():
        if isinstance(value, type) and value.__module__ == model.__name__:
            attributes[value] = {name: what for name, what in vars(value).items() if name not in BY_PYTHON}
    return attributes


@contextlib.contextmanager
def keep_classes() -> Iterator[None]:
    """Puts back what an answer changed in the classes of model.py, and then raises Wrong, whatever else was
    wrong."""
    before = class_attributes()
    try:
        yield
    finally:
        changed = []
        for encoding, now in class_attributes().items():
            old = before[encoding]
            for name in [*old, *(set(now) - set(old))]:
                if name not in old:
                    delattr(encoding, name)
                elif now.get(name) is not old[name]:
                    setattr(encoding, name, old[name])
                else:
                    continue
                changed.append(f"{encoding.__name__}.{name}")
        if changed:
            what = f"the class was changed: {', '.join(changed)} of model.py was assigned"
            why = "every model with that class breaks then, not the given one alone: write a subclass"
            raise Wrong(f"{what}\n{why}")


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


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """On a busy machine threads wait for one another: two took fifty times the processor time of one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
    return "\n".join(shorten(line) for line in lines[:MAX_LINES])


def shorten(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 4].rsplit(" ", 1)[0] + " ..."


def load_grader(exercise: str) -> ModuleType:
    return importlib.import_module(f"assignments.graders.{exercise}")


def grade(exercise: str, path: Path, first: int = 0) -> Iterator[Result]:
    """Grades the file at `path`, part by part from the one numbered `first`: a Result each."""
    grader = load_grader(exercise)
    answer = None
    for part in grader.PARTS[first:]:
        try:
            with keep_classes(), one_thread(), time_limit(part.seconds):
                if answer is None:
                    answer = load_answer(path, grader)
                torch.manual_seed(0)
                part.check(answer)
            hint = ""
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            hint = explain(error, path, part)
        score = 0 if hint else part.points
        yield Result(part.name, score, part.points, hint)
