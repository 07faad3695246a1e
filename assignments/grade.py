"""
Grades exercises: points by part, with a hint for the first thing that is wrong in each.

    python -m assignments.grade                             all exercises
    python -m assignments.grade ex01 ex04                   some, by the beginning of their names
    python -m assignments.grade --json results.json         and a file in the layout that Gradescope reads
    python -m assignments.grade --folder PATH               a student's files, from another folder
    python -m assignments.grade --solutions                 the solutions, for teachers
"""

import argparse
import contextlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

import torch

from assignments import harness
from model import require

FOLDER = Path(__file__).resolve().parent
EXERCISES = sorted(path.stem for path in (FOLDER / "graders").glob("ex*.py"))
SECONDS = 300  # that an exercise may take; an answer takes a few, most of them to import torch


def grade(exercise: str, path: Path) -> list[dict]:
    """The results of all parts. The answer runs in another process, which may hang or die."""
    command = [sys.executable, "-m", "assignments.grade", "--worker", exercise, str(path)]
    reason = "the process ended here: exit(), or out of memory?"
    try:
        process = subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, timeout=SECONDS)
        lines = process.stdout.splitlines()
    except subprocess.TimeoutExpired as error:
        lines = (error.stdout or b"").splitlines()
        reason = f"stopped here after {SECONDS} seconds: an endless loop, or a very busy machine?"
    results = [json.loads(line) for line in lines if line.startswith(b'{"name"')]
    importlib.import_module(f"assignments.graders.{exercise}")
    for name, points, _ in harness.PARTS[exercise][len(results) :]:
        results.append({"name": f"{exercise}: {name}", "score": 0, "max_score": points, "output": reason})
        reason = "not reached"
    return results


def work(exercise: str, path: str):
    """The other process: prints a line as soon as a part is graded. What the answer prints goes to stderr."""
    torch.set_num_threads(1)  # on a busy machine, waiting for a second thread can take longer than the limit
    table = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for result in harness.run(exercise, Path(path)):
            print(json.dumps(result), file=table, flush=True)


def print_points(name: str, results: list[dict]):
    score = sum(result["score"] for result in results)
    max_score = sum(result["max_score"] for result in results)
    print(f"{name:<32} {score:>3} of {max_score}", flush=True)


def main():
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("exercises", nargs="*", metavar="ex01", help="default: all")
    parser.add_argument("--json", type=Path, help="write points and hints to this file, for Gradescope")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the answers are")
    parser.add_argument("--solutions", action="store_true", help="grade the solutions")
    args = parser.parse_args()
    folder = FOLDER / "solutions" if args.solutions else args.folder.resolve()
    chosen = []
    for name in args.exercises or EXERCISES:
        found = [exercise for exercise in EXERCISES if exercise.startswith(name)]
        require(len(found) == 1, f"{name} is not one of {', '.join(EXERCISES)}")
        chosen += found

    tests = []
    for exercise in chosen:
        results = grade(exercise, folder / f"{exercise}.py")
        print_points(exercise, results)
        for result in results:
            name = result["name"].split(": ")[1]
            hint = result["output"].replace("\n", "\n" + " " * 44) or "all right"
            print(f"    {name:<28} {result['score']:>3} of {result['max_score']:<3} {hint}")
        tests += results
    print_points("together", tests)
    if args.json:
        args.json.write_text(json.dumps({"tests": tests}, indent=1))


if __name__ == "__main__":
    main()
