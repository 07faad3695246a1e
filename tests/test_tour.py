"""The tour, assignments/tour.ipynb, runs from top to bottom, with trainings of two steps."""

import base64
from pathlib import Path

import pytest
from runs import make_tokens, write_corpus

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
TOUR = Path(__file__).resolve().parent.parent / "assignments" / "tour.ipynb"


def test_the_tour_runs_and_its_pictures_can_be_projected(monkeypatch, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", make_tokens())
    monkeypatch.setenv("TOUR_STEPS", "2")
    monkeypatch.setenv("TOUR_TRIALS", "3")
    monkeypatch.setenv("TOUR_DATASET", str(corpus))
    notebook = nbformat.read(TOUR, as_version=4)
    resources = {"metadata": {"path": str(TOUR.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    pictures = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                pictures.append(base64.b64decode(output["data"]["image/png"]))
    widths = [int.from_bytes(picture[16:20], "big") for picture in pictures]  # from the header of a PNG
    assert len(widths) == 5 and min(widths) >= 900
