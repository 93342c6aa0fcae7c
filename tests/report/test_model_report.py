"""The report on a model and its files: every number on the page is one that was measured, and no name is mark-up."""

from __future__ import annotations

import html
import json
import math

import numpy as np
import pytest
from report.page_reader import NASTY, PageReader

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.latency.operators import operator_costs
from edgeprune.measure.class_scores import count_classes
from edgeprune.report.page.content import Figure, Page, PageTable, Plot, Section
from edgeprune.report.page.figures import heat_map, row_bars
from edgeprune.report.page.rendering import page_html


def classifier(keras):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="stem")(image)
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x), name="net")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 8, 8, 1)).astype("f4"), rng.integers(0, 3, 60)


@pytest.fixture(scope="module", params=[flavors.KERAS_3, pytest.param(flavors.TF_KERAS, marks=pytest.mark.slow)])
def reported(request, images, tmp_path_factory):
    """A model, its two files, and the page on them."""
    folder, model = tmp_path_factory.mktemp("report"), classifier(flavors.keras_module(request.param))
    for name, quantization in (("float", None), ("int8", "int8")):
        ep.export_tflite(model, folder / f"{name}.tflite", quantization, images[0], verify=False, verbose=False)
    files = [folder / "float.tflite", folder / "int8.tflite"]
    path = ep.write_report(
        model, files, images, folder / "report.html", num_runs=2, num_samples=8, verbose=False,
        class_names=["shoe", NASTY, "bag & belt"], target="arduino-nano-33-ble", max_flash="32 KiB", max_ram="200 KiB",
    )  # fmt: skip
    return model, files, path, PageReader(path.read_text(encoding="utf-8"))


def test_every_number_is_one_that_was_measured(reported, images):
    model, files, _, page = reported
    summary = {number: page.column("The model and its files", number) for number in (1, 2, 3)}
    assert summary[1]["accuracy (higher is better)"] == pytest.approx(ep.score(model, *images)["accuracy"])
    assert summary[1]["MACs"] == ep.count_macs(model).total
    for number, file in zip((2, 3), files, strict=True):
        column, size = summary[number], ep.file_size(file)
        assert column["accuracy (higher is better)"] == pytest.approx(ep.score(file, *images, model=model)["accuracy"])
        assert (column["Size"], column["Size after gzip"]) == (size.bytes, size.gzip_bytes)
        assert column["MACs"] == ep.count_macs_of_file(file).total
        held = ep.inspect_tflite(file)
        assert column["Zeros in the weights"] == held.zeros / held.parameters
        assert column["RAM"] == page.figures["files"][number - 2]["costs"]["ram"]
        assert column["RAM, share of the 256 KiB of arduino-nano-33-ble"] == column["RAM"] / (256 * 1024)
        assert column["max_ram of 200 KiB"] == 1 and column["max_flash of 32 KiB"] == 0
        assert column["Flash"] > 32 * 1024
        tensors = page.column(f"Weights and zeros in {file.name}", 3)
        assert tensors == {tensor.name: tensor.bytes for tensor in held.weights}
        operators = page.tables[f"The operators of {file.name}"][1:]
        assert [row[0][0] for row in operators] == list(held.operators) or sum(held.operators.values()) == len(
            operators
        )
    timed = page.figures["latency"]["files"]
    assert [summary[number]["Time of a run"] for number in (2, 3)] == [one["milliseconds"] for one in timed]
    errors = page.column("The errors of int8.tflite as a table", 4)
    assert errors == {
        row["layer"]: row["signal_to_noise"] for row in page.figures["files"][1]["quantization_error"]["layers"]
    }
    assert page.column("The model layer by layer", 4)["stem"] == 8 * 9 + 8


def test_what_is_mistaken_for_what(reported, images):
    model, files, _, page = reported
    x, y = images
    named = np.asarray(model(x)).argmax(-1)
    counts = [[int(((y == right) & (named == got)).sum()) for got in range(3)] for right in range(3)]
    of = "samples of each class (rows) by what they were named (columns), as a table"
    table = page.tables[f"Keras: {of}"]
    assert [[cell[1] for cell in row[1:]] for row in table[1:]] == counts
    recall = page.column("Recall and precision of each class", 2)
    assert list(recall.values()) == [row[place] / sum(row) for place, row in enumerate(counts)]
    assert list(recall) == ["shoe", NASTY, "bag & belt"]
    assert f"int8.tflite: {of}" in page.tables
    heat = next(plot for plot in page.plots if plot["data"][0]["type"] == "heatmap")
    assert heat["data"][0]["text"] == [[str(count) for count in row] for row in counts]


def test_a_page_is_one_file_whose_names_are_no_mark_up(reported):
    _, _, path, page = reported
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5e6 and NASTY not in text
    assert page.sections == ["summary", "classes", "size", "latency", "quantization", "layers", "frozen", "environment"]
    assert {"h1", "h2", "main", "nav", "caption"} <= page.tags and not {"img", "iframe", "object"} & page.tags
    assert not any("src" in given for given, _ in page.scripts)
    plain = text.replace(next(body for given, body in page.scripts if given.get("id") == "plotly"), "")
    assert "http://" not in plain and "https://" not in plain
    policy = text.partition('Content-Security-Policy" content="')[2].partition('"')[0].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-inline' blob" not in policy
    # The plots have the names too, escaped once more, as Plotly would read mark-up in them.
    assert all("<script" not in json.dumps(plot) for plot in page.plots)


def test_any_name_is_text():
    """Keras and TensorFlow refuse most such names; a file or a journal may still have them."""
    table = PageTable(NASTY, ("", NASTY), ((NASTY, Figure(1.5, NASTY)), (NASTY, "'\"><img src=x>")), NASTY, folded=True)
    bars = row_bars([NASTY], {NASTY: [1.5]}, {NASTY: [NASTY]}, "ms")
    plots = (Plot(NASTY, bars, 100, table), Plot(NASTY, heat_map([[1]], [NASTY]), 100))
    section = Section("one", NASTY, (NASTY,), (table, *plots))
    text = page_html(Page(NASTY, NASTY, (section,), {"name": NASTY, "none": math.nan}, NASTY, "bad"))
    page = PageReader(text)
    assert "<script>alert" not in text and "img" not in page.tags and len(page.scripts) == 5
    assert page.figures == {"name": NASTY, "none": None} and page.tables[NASTY][1] == [[NASTY, None], [NASTY, 1.5]]
    assert page.plots[0]["data"][0]["customdata"] == [[html.escape(NASTY, quote=False)] * 2]


def test_files_that_exist_are_kept(reported, images):
    model, files, path, _ = reported
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists and is not overwritten"):
        ep.write_report(model, files, images, path, verbose=False)
    assert path.read_bytes() == before


def test_what_does_not_fit_is_refused(images, tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    model = classifier(keras)
    with pytest.raises(ValueError, match="one or more .tflite files"):
        ep.write_report(model, [], images, tmp_path / "r.html")
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        ep.write_report(model, tmp_path / "nothing.tflite", images, tmp_path / "r.html", verbose=False)
    (tmp_path / "damaged.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(100))
    with pytest.raises(ValueError, match="damaged"):
        ep.write_report(model, tmp_path / "damaged.tflite", images, tmp_path / "r.html", verbose=False)
    wide = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4)])
    ep.export_tflite(wide, tmp_path / "wide.tflite", verify=False, verbose=False)
    with pytest.raises(ValueError, match="is no file of model 'net': Output"):
        ep.write_report(model, tmp_path / "wide.tflite", images, tmp_path / "r.html", num_runs=1, verbose=False)
    assert not (tmp_path / "r.html").exists()


def test_regression_with_several_outputs(tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    keras.utils.set_random_seed(0)
    given = keras.Input((6,), name="given")
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(given)
    outputs = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("age", "height")}
    model = keras.Model(given, outputs, name="body")
    model.compile("adam", {"age": "mse", "height": "mae"})
    x = np.random.default_rng(0).normal(size=(20, 6)).astype("f4")
    targets = {name: np.linspace(0, 1, 20)[:, None].astype("f4") for name in ("age", "height")}
    ep.export_tflite(model, tmp_path / "m.tflite", "int8", x, verify=False, verbose=False)
    path = ep.write_report(
        model, tmp_path / "m.tflite", (x, targets), tmp_path / "r.html", num_runs=1, num_samples=4, verbose=False
    )
    page = PageReader(path.read_text(encoding="utf-8"))
    assert "classes" not in page.sections
    column = page.column("The model and its files", 1)
    scores = {one.name: one.value for one in ep.score(model, x, targets)}
    assert len(scores) == 2
    assert {
        f"{name} (lower is better)": pytest.approx(value) for name, value in scores.items()
    }.items() <= column.items()
    assert "Largest difference from Keras of age" in column and page.figures["model"]["model"] == model.name


def test_without_labels_the_page_says_why_there_are_no_scores(images, tmp_path):
    model = classifier(flavors.keras_module(flavors.KERAS_3))
    smaller = ep.prune_channels(model, pruning_ratio=0.5)
    ep.export_tflite(smaller, tmp_path / "m.tflite", verify=False, verbose=False)
    path = ep.write_report(
        model, tmp_path / "m.tflite", images[0], tmp_path / "r.html", converted_from=smaller, num_runs=1, verbose=False
    )
    text = path.read_text(encoding="utf-8")
    page = PageReader(text)
    assert "no labels were passed." in text and "quantization" not in page.sections  # a float file has no such error
    assert page.column("The widths as a table", 2) == {"stem": 4.0, "conv": 4.0}
    assert page.column("The model layer by layer", 7)["conv"] == ep.count_macs(smaller).per_layer["conv"]


def test_operators_cost_what_they_hold(reported):
    _, files, _, page = reported
    costs = operator_costs(files[1])
    held = ep.inspect_tflite(files[1])
    assert [row.operator for row in costs] == [one.name for one in ep.read_tflite(files[1]).operators]
    assert costs[0].output_bytes == 6 * 6 * 8 and costs[0].alive_bytes == 6 * 6 * 8 + 8 * 8
    assert costs[0].weight_bytes == 8 * 9 + 4 * 8  # the kernel in int8 and the bias in int32
    assert sum(row.weight_bytes for row in costs) >= sum(tensor.bytes for tensor in held.weights)
    assert all(row.milliseconds is None or row.milliseconds > 0 for row in costs)
    assert max(row.alive_bytes for row in costs) == max(page.column("The operators of int8.tflite", 7).values())


def test_classes_are_counted():
    rng = np.random.default_rng(0)
    outputs, labels = rng.random((50, 6, 4)), rng.integers(0, 4, (50, 6))
    found, named = count_classes(outputs, labels), outputs.argmax(-1)
    for right in range(4):
        for got in range(4):
            assert found.counts[right, got] == sum(
                labels[i, j] == right and named[i, j] == got for i in range(50) for j in range(6)
            )
    assert found.recall[2] == pytest.approx((named[labels == 2] == 2).mean())
    assert found.precision[2] == pytest.approx((labels[named == 2] == 2).mean())
    never = count_classes(np.array([[0.9, 0.1]]), np.array([0]))
    assert math.isnan(never.recall[1]) and never.to_dict()["precision"] == [1.0, None]


def test_many_classes_have_no_matrix(tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 3), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(300, activation="softmax")])
    x, y = np.random.default_rng(0).integers(0, 9, (40, 4)), np.repeat([7, 11], 20)
    ep.export_tflite(model, tmp_path / "m.tflite", verify=False, verbose=False)
    path = ep.write_report(model, tmp_path / "m.tflite", (x, y), tmp_path / "r.html", num_runs=1, verbose=False)
    page, named = PageReader(path.read_text(encoding="utf-8")), np.asarray(model(x)).argmax(-1)
    rows = page.tables["The most frequent mistakes"][1:]
    counted = {(7, n): int(((y == 7) & (named == n)).sum()) for n in range(300) if n != 7}
    counted |= {(11, n): int(((y == 11) & (named == n)).sum()) for n in range(300) if n != 11}
    worst = sorted(filter(None, counted.values()), reverse=True)[:20]
    assert [row[2][1] for row in rows] == worst
    assert all(counted[int(row[0][0]), int(row[1][0])] == row[2][1] for row in rows)
    assert "counts" not in page.figures["classes"][next(iter(page.figures["classes"]))]
    assert not any(plot["data"][0]["type"] == "heatmap" for plot in page.plots)
