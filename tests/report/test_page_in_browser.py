"""The page in a browser: its scripts run under its own security policy, and its plots answer mouse and keys."""

from __future__ import annotations

import numpy as np
import pytest
from report.browser import CHROMIUM, opened_browser
from report.written_search import journal

import edgeprune as ep
from edgeprune import flavor as flavors

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium")]

SHOWN = "[...document.querySelectorAll('.hoverlayer text')].map(one => one.textContent).join(' ')"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    keras = flavors.keras_module(flavors.KERAS_3)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="stem"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    data = rng.normal(size=(60, 8, 8, 1)).astype("f4"), rng.integers(0, 3, 60)
    file = folder / "keyword_spotting_pruned_to_a_third_and_quantized_int8.tflite"
    ep.export_tflite(model, file, "int8", data[0], verify=False, verbose=False)
    names = ["<b>first</b>", "second", "third"]
    return ep.write_report(model, file, data, folder / "r.html", num_runs=2, class_names=names, verbose=False)


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as opened:
        yield opened


@pytest.mark.parametrize("width, dark", [(1280, False), (1280, True), (400, False)])
def test_nothing_is_missing_and_nothing_is_cut_off(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    plots = "[...document.querySelectorAll('.plot')]"
    assert browser.value(f"{plots}.length") > 3
    assert browser.value(f"{plots}.every(one => one.querySelector('.main-svg'))")
    assert browser.value("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    assert browser.call("Page.getLayoutMetrics")["cssContentSize"]["width"] == width
    ink = browser.value("getComputedStyle(document.querySelector('.plot .xtick text')).fill")
    assert ink == ("rgb(230, 233, 238)" if dark else "rgb(29, 33, 41)")
    right = browser.value("document.querySelector('#summary tbody tr td:last-child').getBoundingClientRect().right")
    assert right <= width  # what was measured is seen without scrolling, however long the file's name is
    overlaps = """[...document.querySelectorAll('.plot')].filter(plot => {
        const title = plot.querySelector('.xtitle')?.getBoundingClientRect();
        const ticks = [...plot.querySelectorAll('.xtick text')].map(one => one.getBoundingClientRect().bottom);
        return title && title.top < Math.max(...ticks) - 2;
    }).map(plot => plot.id)"""
    assert browser.value(overlaps) == [] and browser.said == []


def test_a_point_says_what_it_is(browser, page):
    browser.open(page)
    place = browser.value(
        "(() => { const plot = document.querySelector('.plot'); plot.scrollIntoView();"
        " const box = plot.querySelector('.nsewdrag').getBoundingClientRect();"
        " return [box.x + box.width / 6, box.y + box.height / 6] })()"
    )
    browser.move_to(*place)
    browser.value("new Promise(done => setTimeout(done, 300))")
    assert browser.value(SHOWN).startswith("<b>first</b> named <b>first</b>: ")  # names are text in plots too
    browser.value("document.querySelector('.plot').focus()")
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    browser.value("new Promise(done => setTimeout(done, 300))")
    assert "<b>first</b> named second: " in browser.value(SHOWN)
    assert browser.value("document.getElementById('spoken').textContent") == browser.value(SHOWN)
    assert browser.said == []


def test_a_column_sorts(browser, page):
    browser.open(page)
    table = "[...document.querySelectorAll('table')].find(t => t.caption.textContent.startsWith('Recall'))"
    column = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[1].dataset.value))"
    for wanted in (sorted, lambda values: sorted(values, reverse=True)):
        browser.value(f"{table}.tHead.rows[0].cells[1].querySelector('button').click()")
        values = browser.value(column)
        assert values == wanted(values) and len(set(values)) > 1


def test_a_search_can_be_read_point_by_point(browser, tmp_path):
    browser.open(ep.write_search_report(journal(tmp_path), tmp_path / "search.html"))
    titles = browser.value("[...document.querySelectorAll('h2')].map(one => one.textContent)")
    assert titles[:3] == ["Summary", "The Pareto front: what is lost and what it costs", "What was removed"]
    chosen = "document.querySelector('#pareto .plot .scatterlayer .trace:last-child path.point')"
    browser.value(f"{chosen}.scrollIntoView({{block: 'center'}})")
    place = browser.value(
        f"(() => {{ const box = {chosen}.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2] })()"
    )
    browser.move_to(*place)
    browser.value("new Promise(done => setTimeout(done, 300))")
    assert "trial 1, measured" in browser.value(SHOWN) and "lost 0.01" in browser.value(SHOWN)
    assert browser.said == []


def test_print_has_every_table(browser, page, tmp_path):
    browser.open(page)
    browser.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF") and browser.said == []
