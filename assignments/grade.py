"""Grades exercises: a table of points, with the first hint of each exercise and its points by part.

    python -m assignments.grade                             all exercises
    python -m assignments.grade ex01 ex04                   some, by the beginning of their names
    python -m assignments.grade --json results.json         and a file in the layout that Gradescope reads
    python -m assignments.grade --folder PATH               a student's files, from another folder
    python -m assignments.grade --solutions                 the solutions, for teachers

Each exercise is graded in a process of its own, with a time limit for each of its parts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import data
from assignments import checks
from assignments.checks import EXERCISES, FOLDER, Result

ROOT = FOLDER.parent
START = 60.0  # seconds that a process may take to start and import torch
GRACE = 20.0  # a part is ended from outside after its time limit times this, which is of processor time


def work(exercise: str, path: str, results: str, first: str) -> None:
    """The other process: writes a line to the file `results` as soon as a part is graded."""
    for hidden in ("assignments.solutions", "assignments.mutants"):
        sys.modules[hidden] = None  # importing it ends in ImportError
    with open(results, "w", encoding="utf-8") as file:
        for result in checks.grade(exercise, Path(path), int(first)):
            file.write(json.dumps(asdict(result)) + "\n")
            file.flush()


def read_lines(file: Path) -> list[str]:
    """The whole lines of a file that another process is writing."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return text.splitlines()[: text.count("\n")]


def grade(exercise: str, path: Path) -> list[Result]:
    """Grades one exercise in another process. A part that kills or hangs it gets no points."""
    if not path.is_file():
        raise SystemExit(f"error: there is no file {path}")
    parts = checks.load_grader(exercise).PARTS
    results = []
    while len(results) < len(parts):
        rest = parts[len(results) :]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "results"
            command = [sys.executable, "-m", "assignments.grade", "--worker", exercise, str(path), str(file)]
            # Without input and output: what an answer prints, and its warnings, would flood the table.
            silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            process = subprocess.Popen([*command, str(len(results))], cwd=ROOT, **silent)
            lines = []
            deadline = time.monotonic() + START + GRACE * rest[0].seconds
            try:
                while len(lines) < len(rest) and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                    done = read_lines(file)
                    if (
                        len(lines) < len(done) < len(rest)
                    ):  # the worker keeps the limit, and this process if that fails
                        deadline = time.monotonic() + GRACE * rest[len(done)].seconds
                    lines = done
            finally:
                process.kill()
                code = process.wait()
            lines = read_lines(file)
            reason = f"it ended the whole process (exit status {code}): exit(), or out of memory?"
            if time.monotonic() >= deadline:
                reason = (
                    f"it does not end, and catches what would end it: "
                    f"{rest[min(len(lines), len(rest) - 1)].too_slow}\nor is this machine too busy? try again"
                )
        for line in lines:
            results.append(Result(**json.loads(line)))
        if len(lines) < len(rest):
            part = parts[len(results)]
            results.append(Result(part.name, 0, part.points, reason))
    return results


def print_row(exercise: str, results: list[Result]) -> None:
    score = sum(result.score for result in results)
    max_score = sum(result.max_score for result in results)
    hints = []
    for result in results:
        if result.output:  # most hints begin with the name of the part, but not all
            named = result.output.startswith(result.name)
            hints.append(result.output if named else f"{result.name}: {result.output}")
    lines = hints[0].splitlines() if hints else ["all right"]
    print(f"{exercise:<16} {score:>3} of {max_score:<3}  {lines[0]}")
    if hints:
        parts = [f"{result.name} {result.score}/{result.max_score}" for result in results]
        lines.append(f"by part: {', '.join(parts)}")
    for line in lines[1:]:
        print(" " * 30 + line)
    sys.stdout.flush()


def find(name: str) -> str:
    found = [exercise for exercise in EXERCISES if exercise.startswith(name)]
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(EXERCISES)}")
    return found[0]


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description="Grades exercises.", usage=argparse.SUPPRESS)
    parser.add_argument("exercises", nargs="*", type=find, metavar="ex01", help="default: all")
    parser.add_argument(
        "--json", type=data.output, help="write points and hints to this file, as Gradescope reads them"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the answers are; default: assignments"
    )
    there = (FOLDER / "solutions").is_dir()  # not in a student's copy
    text = "grade the solutions" if there else argparse.SUPPRESS
    parser.add_argument("--solutions", action="store_true", help=text)
    args = parser.parse_args()
    folder = args.folder.resolve() / "solutions" if args.solutions else args.folder.resolve()

    print(f"{'exercise':<16} {'points':<10}  first hint")
    tests = []
    for exercise in args.exercises or EXERCISES:
        results = grade(exercise, folder / f"{exercise}.py")
        print_row(exercise, results)
        for result in results:
            test = asdict(result)
            test["name"] = f"{exercise}: {result.name}"
            tests.append(test)
    score = sum(test["score"] for test in tests)
    max_score = sum(test["max_score"] for test in tests)
    print(f"{'together':<16} {score:>3} of {max_score:<3}")
    if args.json:
        data.write_json(args.json, {"tests": tests})


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("stopped by Ctrl-C") from None
