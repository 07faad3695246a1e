"""What pages beside the README promise: rows of docs/paper.md, the licence, the numbers of results/10m."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEN = ROOT / "results" / "10m"
FILES = ["perplexity", "perplexity_logn_1", "perplexity_logn_2", "no_window", "window"]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("point", ["YaRN on FoPE: the floor", "fine-tuning: the optimizer"])
def test_what_the_paper_leaves_open_is_said(point):
    """A row with four cells: the point, what the paper says, what its code does, what is done here."""
    (row,) = [line for line in read("docs/paper.md").splitlines() if line.startswith(f"| {point} |")]
    cells = row.strip("|").split("|")
    assert len(cells) == 4 and all(cell.strip() for cell in cells)


def test_the_licence():
    text = read("LICENSE")
    assert text.startswith("MIT License") and "The nanoFoPE authors" in text
    assert re.search(r"MIT .*\[LICENSE\]\(LICENSE\)", read("README.md"))


def rows(title: str) -> dict[str, list[str]]:
    """The table of results/10m/README.md whose head begins with the title: its cells by the row's name."""
    table = read("results/10m/README.md").split(f"| {title} |")[1].split("\n\n")[0]
    lines = [line.strip("| ").split("|") for line in table.splitlines()[2:]]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines}


def results(name: str) -> dict[str, dict[int, float]]:
    """Perplexities of a file, by run and length."""
    content = json.loads((TEN / f"{name}.json").read_text())
    found = {}
    for result in content["results"]:
        run = result["checkpoint"].removeprefix("out/")
        found[run] = dict(zip(content["lengths"], result["perplexity"]))
    return found


def test_the_first_table_of_10m():
    numbers = results("perplexity")
    for name, cells in rows("perplexity (65,536 tokens)").items():
        assert cells == [f"{value:.2f}" for value in numbers[f"{name.lower()}_10m_1"].values()]


def test_the_second_table_of_10m():
    """All but the row without harmonics, whose numbers are in no file: a snippet beside it prints them."""
    table = rows("perplexity")
    scaled = results("perplexity_logn_1")["fope_10m_1"]
    lengths = (256, 512, 1024, 2048, 4096)
    expected = {"FoPE 10M, scaled queries, strength 1": [scaled.get(length) for length in lengths]}
    for file, words in (("no_window", ""), ("window", ", the last 256 keys")):
        for run, numbers in results(file).items():
            kind, size, _ = run.split("_")
            name = f"{'FoPE' if kind == 'fope' else 'RoPE'} {size.replace('10m', '10M')}{words}"
            expected[name] = list(numbers.values())
    assert set(table) == set(expected) | {"FoPE 10M, without harmonics"}
    for name, values in expected.items():
        assert table[name] == [f"{value:.2f}" if value else "" for value in values], name


def test_the_sentence_of_10m():
    """How much perplexity rises, and over how many tokens it is."""
    fope, rope = results("perplexity")["fope_10m_1"], results("perplexity")["rope_10m_1"]
    text = re.sub(r"\s+", " ", read("results/10m/README.md"))
    rise = f"+{100 * (fope[1024] / fope[256] - 1):.0f} % at 4N, {fope[4096] / fope[256]:.1f} times at 16N"
    ratios = f"{rope[1024] / rope[256]:.1f} and {rope[4096] / rope[256]:.1f} times"
    assert f"{rise} (RoPE {ratios})" in text
    tokens = {name: json.loads((TEN / f"{name}.json").read_text())["tokens"] for name in FILES}
    assert tokens.pop("perplexity") == 65_536 and set(tokens.values()) == {32_768}
    assert "the first 65,536 tokens" in text and "the first 32,768 (the others)" in text


def test_what_git_keeps_works_on_another_machine():
    """No link is tracked: a corpus that is one, into this machine's disk, would break the first command."""
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    files = listed.stdout.splitlines()
    assert files and not [line for line in files if line.startswith("120000")]
    for name in ("data/corpus/train.bin", "data/python", "data/mine.1.partial", "out/fope_tiny/ckpt.pt"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0, name
