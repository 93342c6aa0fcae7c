"""The demo on a few images: every figure of its table is measured again here, on the file."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import sys

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgeprune import datasets, demo, flavor, models
from edgeprune.cli import app
from edgeprune.measure import latency
from edgeprune.measure.accuracy import accuracy
from edgeprune.report import plots, tables
from edgeprune.tflite.file import read_tflite

QUICK = demo.DemoSettings(dense_epochs=1, pruned_epochs=2, frequency=2)

RESNET8 = models.resnet8


@pytest.fixture(scope="module")
def few():
    """96 training and 40 test images."""
    (x_train, y_train), (x_test, y_test) = datasets.load_fashion_mnist()
    return (x_train[:96], y_train[:96]), (x_test[:40], y_test[:40])


@pytest.fixture(scope="module", autouse=True)
def few_runs():
    """Files are timed over 5 runs, not 200."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            latency, "benchmark", lambda paths, num_runs, benchmark=latency.benchmark: benchmark(paths, num_runs=5)
        )
        yield


@pytest.fixture(scope="module")
def result(few, few_runs, tmp_path_factory):
    """With a smaller net."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "resnet8", models.small_cnn)
        yield demo.run_demo(tmp_path_factory.mktemp("demo"), QUICK, few)


@pytest.mark.slow
def test_the_net_of_the_demo_itself(few, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "resnet8", RESNET8)
    result = demo.run_demo(tmp_path, QUICK, few)
    assert all(row.problems == () for row in result.rows)
    assert result.row("pruned float32").zeros == pytest.approx(0.8, abs=0.001)


def test_every_figure_is_that_of_the_file(result, few):
    _, (x_test, y_test) = few
    dense_gzip = len(gzip.compress((result.folder / "dense_float32.tflite").read_bytes(), 9))
    for row in result.rows:
        path = result.folder / row.file
        content = path.read_bytes()
        assert row.bytes == len(content)
        assert row.gzip_bytes == pytest.approx(len(gzip.compress(content, 9)), abs=20)
        assert row.smaller == pytest.approx(dense_gzip / row.gzip_bytes, rel=0.01)
        assert row.accuracy == pytest.approx(accuracy(path, demo.scaled(x_test), y_test))
        kernels = [t for t in read_tflite(path).weights if len(t.shape) >= 2]
        assert row.zeros == pytest.approx(sum(t.zeros for t in kernels) / sum(t.elements for t in kernels))
        assert row.problems == ()
    assert [row.name for row in result.rows] == [f"{name} {kind or 'float32'}" for name, kind in demo.FORMATS]


def test_pruned_files_keep_the_zeros_and_are_smaller(result):
    dense, pruned = result.row("dense float32"), result.row("pruned float32")
    assert dense.smaller == dense.time_ratio == 1
    assert dense.zeros < 0.01 and dense.zeros_kept is None
    assert pruned.zeros == pytest.approx(0.8, abs=0.001)
    for row in result.rows[2:]:
        assert row.zeros_kept == 1 and row.zeros >= pruned.zeros - 1e-9
    sizes = {row.name: row.gzip_bytes for row in result.rows}
    assert sizes["pruned int8"] < sizes["dense int8"] < sizes["dense float32"]
    assert sizes["pruned int8"] < sizes["pruned float16"] < sizes["pruned float32"] < sizes["dense float32"]


def test_models_and_results_are_saved(result):
    dense, pruned = (flavor.load_model(result.folder / f"{name}.keras") for name in ("dense", "pruned"))
    assert dense.count_params() == pruned.count_params()
    assert np.mean(np.asarray(pruned.get_layer("conv2").kernel) == 0) == pytest.approx(0.8, abs=1e-3)
    content = json.loads((result.folder / demo.RESULTS_FILE).read_text())
    assert content == json.loads(json.dumps(result.to_dict()))
    assert content["rows"][0]["file"] == "dense_float32.tflite"


@pytest.mark.parametrize("width", [80, 100])
def test_table_fits_the_terminal(result, width):
    text = io.StringIO()
    Console(file=text, width=width).print(tables.formats_table(result.rows, "Formats"))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for row in result.rows:
        (line,) = [line for line in lines if line.strip().startswith(row.name)]
        assert line.split() == " ".join(tables.cells(row)).split()


def test_a_problem_is_marked(result):
    bad = dataclasses.replace(result.rows[0], problems=("wrong",))
    text = io.StringIO()
    Console(file=text, width=100, force_terminal=True).print(tables.formats_table([bad], "Formats"))
    assert "\x1b[1;31m" in text.getvalue()
    assert tables.summary([bad]).splitlines()[1] == "problem: dense_float32.tflite: wrong"


def test_summary_names_the_smallest_file(result):
    smallest = min(result.rows, key=lambda row: row.gzip_bytes)
    (line,) = tables.summary(result.rows).splitlines()
    points = 100 * (smallest.accuracy - result.rows[0].accuracy)
    assert line.startswith(f"{smallest.name} against dense float32: {smallest.smaller:.1f} times smaller")
    assert f"{points:+.1f} points" in line


def test_markdown(result):
    lines = tables.formats_markdown(result.rows).splitlines()
    assert len(lines) == 2 + len(result.rows)
    assert {line.count("|") for line in lines} == {len(tables.HEADER) + 1}


def test_existing_files_are_not_replaced_unasked(result, few):
    before = (result.folder / demo.RESULTS_FILE).read_bytes()
    with pytest.raises(FileExistsError, match="already holds dense.keras.*results.json"):
        demo.run_demo(result.folder, QUICK, few, overwrite=False)
    assert (result.folder / demo.RESULTS_FILE).read_bytes() == before


def test_the_seed_makes_it_repeatable(result, few):
    x, y = few[0]
    first = flavor.load_model(result.folder / "dense.keras").get_weights()
    again = demo.train_dense(demo.scaled(x), y, QUICK).get_weights()
    for one, other in zip(first, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_command_with_tf_keras(few, tmp_path, monkeypatch):
    """With a smaller net."""
    monkeypatch.setattr(models, "resnet8", models.small_cnn)
    monkeypatch.setattr(datasets, "load_fashion_mnist", lambda: few)
    # The first is what the others are compared with; all six are measured above.
    formats = demo.FORMATS[:1] + demo.FORMATS[-1:]
    monkeypatch.setattr(demo, "FORMATS", formats)
    monkeypatch.setattr(demo.write_formats, "__defaults__", (formats,))
    arguments = ["demo", "-o", str(tmp_path), "--epochs", "1", "--flavor", "tf_keras", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["recipe"]["flavor"] == "tf_keras"
    assert {row["zeros_kept"] for row in content["rows"] if "pruned" in row["name"]} == {1.0}
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2 and "--overwrite replaces it" in again.stderr


def test_the_command_prints_the_table(result, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: result)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 0, done.output
    assert all(row.name in done.stdout for row in result.rows)
    assert str(result.folder) in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flavor": "torch"}, "flavor='torch' is unknown"),
        ({"sparsity": 1.0}, "sparsity must be from 0 to below 1, got 1.0"),
        ({"pruned_epochs": 0}, "pruned_epochs must be at least 1, got 0"),
        ({"frequency": 0}, "frequency must be at least 1, got 0"),
    ],
)
def test_recipe_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        demo.DemoSettings(**change)


def test_plots_draw_the_figures(result):
    from edgeprune import sparsity

    schedule = sparsity.PolynomialDecay(0.0, 0.8, 0, 100, frequency=10)
    (line,) = plots.plot_schedule(schedule, 150).get_lines()
    drawn = line.get_ydata()
    assert drawn[0] == 0 and drawn[99] == drawn[149] == pytest.approx(0.8)
    assert np.all(np.diff(drawn) >= 0) and np.count_nonzero(np.diff(drawn)) == 10

    report = sparsity.sparsity_report(flavor.load_model(result.folder / "pruned.keras"))
    bars = plots.plot_sparsity(report).patches
    assert [bar.get_width() for bar in bars] == [row.sparsity for row in report.rows if row.weight]

    size, dots = plots.plot_formats(result.rows)
    widths = [bar.get_width() * 1000 for bar in size.patches]
    assert widths == pytest.approx([row.bytes for row in result.rows] + [row.gzip_bytes for row in result.rows])
    assert list(dots.get_lines()[0].get_xdata()) == [row.accuracy for row in result.rows]


def test_plots_draw_on_given_axes(result):
    import matplotlib.pyplot as plt

    from edgeprune import sparsity

    _, axes = plt.subplots(1, 2)
    assert plots.plot_formats(result.rows, axes) is axes
    assert plots.plot_schedule(sparsity.ConstantSparsity(0.5, 0), 5, ax=axes[0]) is axes[0]


def test_plots_refuse_nothing(result):
    from edgeprune import sparsity

    with pytest.raises(ValueError, match="no rows"):
        plots.plot_formats([])
    with pytest.raises(ValueError, match="no prunable weights"):
        plots.plot_sparsity(sparsity.SparsityReport("empty", ()))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        plots.plot_schedule(sparsity.ConstantSparsity(0.5, 0), 0)


def test_plots_without_matplotlib_give_a_hint(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'edgeprune\[notebook\]'"):
        plots.plot_formats(result.rows)
