"""Writes the students' copy of this repository: without solutions, wrong answers, the test that needs them,
and the README's section for teachers.

    python -m assignments.handout ../nanofope-class

It copies the files that git tracks, as they are on the disk now. Graders, exercises, the tour and all else
stay as they are.
"""

import argparse
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT_BACK = (
    "assignments/solutions/",
    "assignments/mutants/",
    "assignments/handout.py",
    "tests/test_assignments.py",
)
README = "assignments/README.md"


def without_teachers(readme: str) -> str:
    """The text without its section "For teachers"."""
    before, _, section = readme.partition("\n## For teachers\n")
    _, heading, after = section.partition("\n## ")
    return before + heading + after


def make_handout(target: Path) -> int:
    """Copies to `target`, which must not exist; the number of files. SystemExit for what cannot be."""
    if target.exists():
        raise SystemExit(f"error: {target} is there already: name a directory that is not")
    command = ["git", "ls-files", "-z", "--cached"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            f"error: {ROOT} is no git checkout: the hand-out is made of the files that git tracks"
        ) from None
    count = 0
    for name in listed.split("\0"):
        if not (ROOT / name).is_file() or name.startswith(KEPT_BACK):
            continue
        copy = target / name
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy)
            if name == README:
                text = copy.read_text(encoding="utf-8")
                copy.write_text(without_teachers(text), encoding="utf-8")
        except OSError as error:
            raise SystemExit(f"error: cannot write {copy}: {error.strerror}") from None
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the students' copy.", usage=argparse.SUPPRESS)
    parser.add_argument("directory", type=Path, help="where to, a directory that does not exist yet")
    args = parser.parse_args()
    count = make_handout(args.directory)
    print(f"{args.directory}: {count} files; without {', '.join(KEPT_BACK)}")


if __name__ == "__main__":
    main()
