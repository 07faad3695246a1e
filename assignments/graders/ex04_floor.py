"""Grader of exercise 4: the student's formulas against the frequencies that model.py keeps."""

import ast
import itertools
import math
import numbers
from pathlib import Path

from assignments.checks import Part, Wrong, expect
from model import FoPE, GPTConfig

MODEL_NAMES = set()
LENGTHS = (256, 512, 100, 4096, 60_000, 4)
CASES = list(itertools.product(LENGTHS, (10_000.0, 500.0, 500_000.0), (64, 24, 2, 128)))

# θ, head_dim and pair m, with an N that is between whole numbers at which m just makes a whole turn. Here
# float32, and what is added to be on the safe side, are off.
EXACT = [(500_000.0, 128, 63), (5e6, 80, 39), (1e9, 64, 31), (1e6, 64, 30), (1e9, 128, 50)]

# Too large for loops over the pairs: many kept, few, none, all.
HUGE = [(512, 10_000.0, 2**40), (4096, 10_000.0, 2**41), (512, 500.0, 2**41), (100, 500_000.0, 2**40)]
HUGE += [(4, 10_000.0, 2**41), (60_000, 500.0, 2**40)]
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
HIDDEN_LOOPS = {"map", "filter", "reduce", "accumulate", "takewhile", "starmap"}


def count_kept(block_size: int, rope_theta: float, head_dim: int) -> int:
    config = GPTConfig(
        n_head=1, n_embd=head_dim, block_size=block_size, rope_theta=rope_theta, fope_series=False
    )
    return len(FoPE(config).frequencies)


def exact_cases() -> list[tuple[int, float, int, int]]:
    """N, θ, head_dim and how many pairs are kept: one N before a pair's whole turn and one after."""
    cases = []
    for theta, head_dim, pair in EXACT:
        turn = 2 * math.pi * theta ** (2 * pair / head_dim)
        cases += [(math.floor(turn), theta, head_dim, pair), (math.ceil(turn), theta, head_dim, pair + 1)]
    return cases


def expect_whole(came, what: str, case: str) -> int:
    whole = isinstance(came, numbers.Integral) and not isinstance(came, bool)  # NumPy's integers, too
    expect(whole, f"{what}: an int was expected, a {type(came).__name__} came\nwith {case}")
    return int(came)


def kept(answer) -> None:
    for case in CASES:
        name = "N {}, θ {:g}, head_dim {}".format(*case)
        came = expect_whole(answer.kept(*case), "kept", name)
        expected = count_kept(*case)
        pairs = case[2] // 2
        known = mistakes(*case)
        message = f"kept: wrong number of pairs\nwith {name}\nexpected {expected}, came {came}"
        if came > pairs:
            message += f"\na head of {case[2]} dimensions has {pairs} pairs and no more"
        elif came < 0:
            message += "\na number of pairs is not negative"
        elif came == expected - 1 or came == expected + 1:
            message += "\none off: does pair m = 0 count, and which way do you round?"
        elif came in known:
            message += f"\nit looks as if {known[came]}"
        expect(came == expected, message)
    for *case, expected in exact_cases():
        name = "N {}, θ {:g}, head_dim {}".format(*case)
        came = expect_whole(answer.kept(*case), "kept", name)
        message = (
            f"kept: wrong number of pairs where N is large\nwith {name}\nexpected {expected}, came {came}"
        )
        message += "\nis it computed in float32, or is something added to be on the safe side?"
        expect(came == expected, message)


def mistakes(block_size: int, rope_theta: float, head_dim: int) -> dict[int, str]:
    """What `kept` would give with a common mistake, and which one."""
    pairs = head_dim // 2

    def count(turn: float, size: int) -> int:
        """The formula, with a turn of this many radians and a head of so many pairs."""
        last = size * math.log(block_size / turn) / math.log(rope_theta)
        return min(max(math.floor(last) + 1, 0), pairs)

    return {
        count(1, pairs): "a turn were 1: how long is it in radians?",
        count(math.tau, head_dim): "a pair had one dimension: how many pairs has a head?",
        pairs - count(math.tau, pairs): "the undertrained pairs were counted",
    }


def closed_form(answer) -> None:
    for block_size, theta, head_dim in HUGE:
        case = f"N {block_size}, θ {theta:g}, head_dim 2^{head_dim.bit_length() - 1}"
        try:
            came = answer.kept(block_size, theta, head_dim)
        except NotImplementedError:
            raise
        except RecursionError:
            raise Wrong(f"kept: closed form required, no recursion\nwith {case}") from None
        except (MemoryError, RuntimeError):  # NumPy's, and torch's
            message = f"kept: closed form required, a list of {head_dim:,} does not fit in memory"
            raise Wrong(f"{message}\nwith {case}") from None
        pairs = head_dim // 2
        share = expect_whole(came, "kept", case) / pairs
        expected = math.log(block_size / math.tau) / math.log(theta)  # of the pairs; + 1 is nothing here
        expected = min(max(expected, 0.0), 1.0)
        numbers = f"expected {expected:.10f} of all pairs, came {share:.10f}"
        if abs(share - expected) < 1e-6:
            numbers += "\nfloat32 is too coarse for so many pairs"
        expect(abs(share - expected) < 1e-9, f"kept: wrong number of pairs\nwith {case}\n{numbers}")
    source = Path(answer.__file__).read_text(encoding="utf-8")
    for line in loops_of("kept", ast.parse(source)):
        message = "kept: closed form required, but there is a loop, a list, or a function that calls itself"
        expect(False, f"{message}\nin line {line}")


def loops_of(name: str, tree: ast.Module) -> list[int]:
    """The lines of loops in a function of the file and in all that it calls there, itself included.

    A function that calls itself, by way of others or not, is a loop, too.
    """
    functions = find_functions(tree)
    if name not in functions:
        return []
    lines = []
    for function in {name} | all_called_by(name, functions):
        node = functions[function]
        if function in all_called_by(function, functions):
            lines.append(node.lineno)
        for part in ast.walk(node):
            if isinstance(part, LOOPS) or names_in(part) & HIDDEN_LOOPS:
                lines.append(part.lineno)
    return sorted(lines)


def find_functions(tree: ast.Module) -> dict[str, ast.AST]:
    """All functions of the file by name: at the top, in others, in classes; and lambdas that get a name."""
    functions = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            functions[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            functions |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
    return functions


def names_in(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return {node.id}
    return {node.attr} if isinstance(node, ast.Attribute) else set()


def called_by(function: str, functions: dict[str, ast.AST]) -> set[str]:
    node = functions[function]
    used = set()
    variables = set()  # which may be called like a function: def count(): count = ...
    for part in ast.walk(node):
        used |= names_in(part)
        if isinstance(part, ast.arg):
            variables.add(part.arg)
        elif isinstance(part, ast.Assign) and not isinstance(part.value, ast.Lambda):
            variables |= {target.id for target in part.targets if isinstance(target, ast.Name)}
    return (used - variables) & functions.keys()


def all_called_by(function: str, functions: dict[str, ast.AST]) -> set[str]:
    """All that a function calls, directly or not."""
    reached = set()
    waiting = called_by(function, functions)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= called_by(name, functions) - reached
    return reached


def undertrained(answer) -> None:
    for case in CASES:
        name = "N {}, θ {:g}, head_dim {}".format(*case)
        head_dim = case[2]
        pairs = head_dim // 2
        first = count_kept(*case)
        expected = [*range(first, pairs), *range(pairs + first, head_dim)]
        came = answer.undertrained(*case)
        expect(
            isinstance(came, list),
            f"undertrained: a list was expected, a {type(came).__name__} came\nwith {name}",
        )
        message = f"undertrained: wrong dimensions\nwith {name}"
        message += f"\nexpected {len(expected)} of them, came {len(came)}"
        for i, (right, wrong) in enumerate(zip(expected, came)):
            if right != wrong:
                message += f"; number {i} of the list: expected {right}, came {wrong}"
                break
        if came == [dimension + 1 for dimension in expected]:
            message += "\nit looks as if dimensions were counted from 1"
        elif sorted(came) == expected:
            message += "\nthe right dimensions, but not ascending"
        elif came == expected[: len(expected) // 2]:
            message += "\na pair has two dimensions"
        elif came == list(range(2 * first, head_dim)):
            message += "\nit looks as if a pair were two neighbours"
        expect(came == expected, message)
    for *case, first in exact_cases():
        name = "N {}, θ {:g}, head_dim {}".format(*case)
        pairs = case[2] // 2
        expected = [*range(first, pairs), *range(pairs + first, case[2])]
        came = answer.undertrained(*case)
        numbers = f"expected {shown(expected)}, came {shown(came)}\nis it computed in float32?"
        message = f"undertrained: wrong dimensions where N is large\nwith {name}\n{numbers}"
        expect(came == expected, message)


def shown(dimensions: list[int]) -> str:
    if len(dimensions) < 9:
        return str(dimensions)
    return f"{len(dimensions)} dimensions from {dimensions[0]} on"


def shortest_unclipped(answer) -> None:
    for theta, head_dim in ((10_000.0, 64), (500.0, 64), (10_000.0, 128), (20_000.0, 2), (500_000.0, 128)):
        name = f"θ {theta:g}, head_dim {head_dim}"
        length = expect_whole(answer.shortest_unclipped(theta, head_dim), "shortest_unclipped", name)
        pairs = head_dim // 2
        clipped = pairs - count_kept(length, theta, head_dim) if length > 0 else pairs
        what = f"with {name}: N = {length} came"
        expect(clipped == 0, f"shortest_unclipped: too short, {clipped} of {pairs} pairs are clipped\n{what}")
        too_long = length > 1 and count_kept(length - 1, theta, head_dim) == pairs
        expect(not too_long, f"shortest_unclipped: too long, a shorter N will do\n{what}")
    for theta, head_dim, pair in EXACT[:3]:  # the last pair
        name = f"θ {theta:g}, head_dim {head_dim}"
        length = expect_whole(answer.shortest_unclipped(theta, head_dim), "shortest_unclipped", name)
        expected = math.ceil(2 * math.pi * theta ** (2 * pair / head_dim))
        numbers = f"expected {expected}, came {length}"
        far = abs(length - expected) > 1e-6 * expected
        why = "" if far else "\nis it computed in float32?"
        expect(length == expected, f"shortest_unclipped: wrong length\nwith {name}\n{numbers}{why}")


SLOW = "closed form required, neither a loop nor a list over the pairs"

PARTS = [
    Part("kept", 3, kept),
    Part("closed form", 2, closed_form, seconds=3, too_slow=SLOW),
    Part("undertrained", 3, undertrained),
    Part("shortest", 2, shortest_unclipped),
]
