"""
Lets the graders grade the reference solutions instead of the student's files:

    pytest assignments/grade_*.py --solutions
"""

import importlib
import sys
from pathlib import Path


def pytest_addoption(parser):
    parser.addoption("--solutions", action="store_true", help="grade assignments/solutions, not the student's files")


def pytest_configure(config):
    if config.getoption("solutions"):
        for path in sorted(Path(__file__).parent.glob("solutions/ex*.py")):
            # From here on, importing assignments.ex1_kerple gives the solution of that name.
            sys.modules[f"assignments.{path.stem}"] = importlib.import_module(f"assignments.solutions.{path.stem}")
