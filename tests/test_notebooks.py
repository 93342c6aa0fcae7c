"""The notebooks run from the first cell to the last, on few images, one epoch and a smaller net."""

from __future__ import annotations

from pathlib import Path

import pytest
from used_names import checked_calls

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NEEDS = {"04_microcontroller": "tflite_micro", "07_fit_a_budget": "tflite_micro"}
# Stands before a notebook's first cell here. ResNet-8 itself is what the demo trains, prunes and exports in its tests.
SETTINGS = """
%reset -f
import os
from edgeprune import datasets, models

os.environ["EDGEPRUNE_NOTEBOOK_OUTPUT"] = {output!r}
train, test = getattr(datasets, "whole", None) or datasets.load_fashion_mnist()
datasets.whole = train, test
datasets.load_fashion_mnist = lambda train=train, fewer=tuple(values[:60] for values in test): (train, fewer)
models.resnet8 = models.small_cnn
del os, datasets, models, train, test
"""
# What is repeated for more points of a plot or rows of a table.
FEWER = {
    "01_prune_and_export": {"Path(OUTPUT))": "Path(OUTPUT), demo.FORMATS[::4])"},
    "02_remove_channels": {"kept = (0.9, 0.8, 0.7, 0.6, 0.5)": "kept = (0.8, 0.5)", "num_runs=200": "num_runs=5"},
    "03_android": {},
    "04_microcontroller": {
        '(("dense", model), ("smaller", smaller)):': '[("smaller", smaller)]:',
        "x_test[:200]": "x_test[:20]",
    },
    "05_without_training": {
        "levels = (0.25, 0.5, 0.75)": "levels = (0.5,)",
        "kept = (0.9, 0.7, 0.5, 0.35, 0.25)": "kept = (0.5,)",
        "widths = range(20, 101, 4)": "widths = (48, 64)",
    },
    "06_quantization": {'write("int8, auto", model, "int8", calibration="auto")\n': ""},
    "07_fit_a_budget": {"num_trials=10, num_finalists=3": "num_trials=4, num_finalists=1"},
}


@pytest.fixture(scope="module")
def kernel():
    """One process for all of them, which imports TensorFlow once; `make notebooks` runs each in its own."""
    import nbformat
    from nbclient import NotebookClient

    folder = str(NOTEBOOKS[0].parent)
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=600, resources={"metadata": {"path": folder}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_NOTEBOOK_EPOCHS", "1")
        patch.setenv("EDGEPRUNE_NOTEBOOK_IMAGES", "96")
        with client.setup_kernel():
            yield client


# What they call is run by tests of its own, by guides and by the demo; the names and arguments are checked below.
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, kernel):
    import nbformat

    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem], reason=f"{NEEDS[path.stem]} is not installed")
    notebook = nbformat.read(path, as_version=4)
    for whole, part in FEWER[path.stem].items():
        (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and whole in cell.source)
        cell.source = cell.source.replace(whole, part)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SETTINGS.format(output=str(tmp_path))))
    kernel.nb = notebook
    kernel.execute(cleanup_kc=False)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert list(tmp_path.glob("*.tflite"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_uses_of_edgeprune_is_there(path):
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    assert checked_calls(cell.source for cell in cells if cell.cell_type == "code") >= 8


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_with_clean_outputs(path):
    """What a reader sees on the web: every cell has run, in order, with plots, and no machine's path or warning."""
    import nbformat

    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert not [output for output in outputs if output.get("name") == "stderr"]
