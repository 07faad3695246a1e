"""Runs assignments/tour.ipynb from top to bottom and keeps its new outputs in it: about two minutes on one
core.

    python -m assignments.make_tour

TOUR_STEPS is the number of steps of the live training, TOUR_DATASET its corpus: see the notebook's first
cell.
"""

from pathlib import Path

import nbclient
import nbformat

TOUR = Path(__file__).resolve().parent / "tour.ipynb"


def execute() -> nbformat.NotebookNode:
    """The notebook with the outputs of a new run. nbclient.exceptions.CellExecutionError if a cell fails."""
    notebook = nbformat.read(TOUR, as_version=4)
    resources = {"metadata": {"path": str(TOUR.parent)}}
    client = nbclient.NotebookClient(notebook, timeout=600, resources=resources, record_timing=False)
    return client.execute()


if __name__ == "__main__":
    nbformat.write(execute(), TOUR)
    print(f"{TOUR}: {TOUR.stat().st_size / 1024:.0f} KB")
