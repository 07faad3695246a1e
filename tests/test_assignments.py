"""
The exercises in assignments/: each grader passes with the reference solution and fails with the skeleton that is given.

One pytest process grades all skeletons while another grades all solutions; each writes a report, read here.
"""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "assignments"
GRADERS = sorted(path.stem for path in FOLDER.glob("grade_*.py"))
EXERCISES = {grader: grader.replace("grade_", "ex") for grader in GRADERS}
# The encodings that exercises add, which the tests of model.py are then run for too.
ADDED = ("kerple", "p_rope", "interpolated")


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, dict[str, dict[str, bool]]]:
    """Of "skeletons" and of "solutions": for each test file, whether each of its tests passed."""
    folder, processes = tmp_path_factory.mktemp("reports"), {}
    for which, arguments in {
        "skeletons": [],
        "solutions": ["--solutions", "tests/test_model.py", "-k", " or ".join((*GRADERS, *ADDED))],
    }.items():
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={folder / which}"]
        command += [f"assignments/{grader}.py" for grader in GRADERS] + arguments
        processes[which] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    reports = {}
    for which, process in processes.items():
        print(process.communicate()[0][-5000:])  # pytest shows it when a test below fails
        reports[which] = {}
        for case in ElementTree.parse(folder / which).iter("testcase"):
            module = case.get("classname").rpartition(".")[-1]
            assert case.find("error") is None, f"{module} breaks off: {case.find('error').get('message')}"
            reports[which].setdefault(module, {})[case.get("name")] = case.find("failure") is None
    return reports


@pytest.mark.parametrize("grader", GRADERS)
def test_solution_passes(grader, reports):
    assert [name for name, passed in reports["solutions"][grader].items() if not passed] == []


@pytest.mark.parametrize("encoding", ADDED)
def test_solution_passes_the_tests_of_every_encoding(encoding, reports):
    report = {name: passed for name, passed in reports["solutions"]["test_model"].items() if encoding in name}
    assert len(report) >= 10 and [name for name, passed in report.items() if not passed] == []


@pytest.mark.parametrize("grader", GRADERS)
def test_skeleton_fails(grader, reports):
    if "NotImplementedError" not in (FOLDER / f"{EXERCISES[grader]}.py").read_text(encoding="utf-8"):
        pytest.skip(f"{EXERCISES[grader]} has been solved here")
    assert not all(reports["skeletons"][grader].values())


@pytest.mark.parametrize("grader", GRADERS)
def test_exercise_is_complete(grader):
    """A solution that fills every gap, and the README names the file and the command that grades it."""
    solution = (FOLDER / "solutions" / f"{EXERCISES[grader]}.py").read_text(encoding="utf-8")
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "NotImplementedError" not in solution
    assert f"`{EXERCISES[grader]}.py`" in readme and f"pytest assignments/{grader}.py" in readme


def test_graders_are_not_in_the_normal_run(request):
    assert not any("assignments" in str(item.path.parent) for item in request.session.items)
