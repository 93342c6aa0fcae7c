"""The notebooks run from the first cell to the last, on few images and one epoch."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NEEDS = {"04_microcontroller": "tflite_micro"}
# Stands before a notebook's first cell here.
FEWER_TEST_IMAGES = """
from edgeprune import datasets

train, test = datasets.load_fashion_mnist()
fewer = tuple(values[:200] for values in test)
datasets.load_fashion_mnist = lambda train=train, fewer=fewer: (train, fewer)
del train, test, fewer
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem], reason=f"{NEEDS[path.stem]} is not installed")
    monkeypatch.setenv("EDGEPRUNE_NOTEBOOK_EPOCHS", "1")
    monkeypatch.setenv("EDGEPRUNE_NOTEBOOK_IMAGES", "320")
    monkeypatch.setenv("EDGEPRUNE_NOTEBOOK_OUTPUT", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FEWER_TEST_IMAGES))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert list(tmp_path.glob("*.tflite"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_with_clean_outputs(path):
    """What a reader sees on the web: every cell has run, in order, with plots, and no machine's path or warning."""
    import nbformat

    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert not [output for output in outputs if output.get("name") == "stderr"]
