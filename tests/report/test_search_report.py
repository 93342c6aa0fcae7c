"""The report on a search: every number on the page is one of its journal, however far that goes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from report.page_reader import NASTY, PageReader
from report.written_search import CURVES, ENDING, HEADER, TRIALS, VERDICT, journal
from search.small_net import data, net, trained_net

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.search.compress_result import CompressResult
from edgeprune.search.curves.curves import SensitivityCurve
from edgeprune.search.journal.search_record import SearchEnding
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.trial.job import Samples
from edgeprune.search.trial.record import Candidate, Trial
from edgeprune.search.verdict.evidence import load_evidence, save_evidence

SECTIONS = "summary pareto widths trials ranking sensitivity frozen settings environment".split()


def page_on(folder):
    path = ep.write_search_report(folder, folder / "report.html")
    return PageReader(path.read_text(encoding="utf-8"))


def test_every_number_is_one_of_the_journal(tmp_path):
    page = page_on(journal(tmp_path))
    assert page.sections == SECTIONS
    rows = page.tables["All trials"]
    columns = {name: place for place, (name, _) in enumerate(rows[0])}
    fields = {"Trial": "number", "Without training": "quick_score", "File": "score", "Lost": "accuracy_drop"}
    fields |= {"MACs": "macs", "Parameters": "params", "Size": "size", "Size after gzip": "gzip_size"}
    fields |= {"Flash": "flash", "Time of a run": "latency_ms", "Seconds": "seconds"}
    assert set(columns) == {*fields, "Stage", "State", "Model", "Error"}  # no column without a figure
    for trial, row in zip(TRIALS, rows[1:], strict=True):
        assert {field: row[columns[name]][1] for name, field in fields.items()} == {
            field: getattr(trial, field) for field in fields.values()
        }
        assert [row[columns[name]][0] for name in ("Stage", "State", "Error")] == [
            trial.stage, trial.state, trial.error or "",
        ]  # fmt: skip
    before, after, limit = (page.column("Before and after", number) for number in (1, 2, 3))
    assert before["accuracy on the search's samples (250)"] == 0.9 and before["MACs"] == 1000
    assert after["accuracy on the search's samples (250)"] == 0.89 and after["MACs"] == 500
    held = "accuracy on those held out (249)"
    assert (before[held], after[held]) == (VERDICT["before"], VERDICT["after"])
    bounds = [after[f"{word} end of its 95% interval"] for word in ("Lower", "Upper")]
    assert (after["Lost there"], *bounds) == (0.015, -0.005, 0.035) and limit["Lost there"] == 0.02
    assert (after["Flash"], limit["Flash"]) == (70_001, 90_000)  # as the last check measured it
    assert after["Flash, share of the 1024 KiB of arduino-nano-33-ble"] == 70_001 / 1024**2
    assert page.column("The widths as a table", 2) == {"stem": 4, "conv": 16}
    curves = {row[0][0]: [value for _, value in row[1:]] for row in page.tables["The curves as a table"][1:]}
    assert curves == {"stem": [8, 0.25, 0.88, 0.5, 0.5, 0.5], "conv": [16, 0.5, 0.89, None, None, None]}
    assert page.column("What was asked for", 1)["seed"] == 7
    assert page.figures["ending"]["rank_correlation"] == 0.5 and page.figures["trials"][1]["score"] == 0.89


def test_the_original_is_compared_by_its_own_file(tmp_path):
    whole = Trial(5, "measured", {"target_macs": 1.0}, Candidate(quantization="int8"), score=0.9, size=9000, macs=1000)
    other = dataclasses.replace(whole, number=6, candidate=Candidate(quantization="int4"), size=7000)
    page = page_on(journal(tmp_path, trials=[other, whole, *TRIALS]))
    before = page.column("Before and after", 1)
    assert before["Size"] == 9000 and before["Flash"] == "" and before["MACs"] == 1000


def test_layers_with_bits_of_their_own_are_named_for_each_trial(tmp_path):
    mixed = Candidate({"stem": 4}, quantization=ep.Scheme(4, 8, layers={"stem": 8, "head": 8}))
    trial = Trial(5, "measured", {"target_macs": 0.5}, mixed, score=0.88, accuracy_drop=0.02, macs=500, size=2900)
    column = page_on(journal(tmp_path, trials=[*TRIALS, trial])).column("All trials", 4)
    assert column["5"] == "weights of 8 bits: stem, head" and not any(column[f"{one.number}"] for one in TRIALS)


@pytest.mark.parametrize(("drop", "shown"), [(0.09, True), (0.8, "legendonly")])
def test_points_far_from_those_measured_do_not_flatten_the_plot(tmp_path, drop, shown):
    trials = [dataclasses.replace(TRIALS[0], accuracy_drop=drop), *TRIALS[1:]]
    _, macs, *_ = page_on(journal(tmp_path, trials=trials)).plots
    visible = {trace["name"]: trace["visible"] for trace in macs["data"]}
    assert visible == {"without training": shown, "front": True, "measured": True, "chosen": True}


def test_plots_show_what_the_journal_says(tmp_path):
    page = page_on(journal(tmp_path))
    flash, macs, size, widths, ranks, curves = page.plots
    by_name = {trace["name"]: trace for trace in macs["data"]}
    assert by_name["without training"]["x"] == [500] and by_name["without training"]["y"] == [0.2]
    assert list(zip(by_name["measured"]["x"], by_name["measured"]["y"], strict=True)) == [
        (500, 0.01), (900, 0.0), (950, 0.02),
    ]  # fmt: skip
    assert by_name["front"]["x"] == [500, 900] and by_name["chosen"]["x"] == [500]
    assert "trial 1, measured<br>50.0% of the MACs" in by_name["chosen"]["customdata"][0]
    assert [line["y0"] for line in macs["layout"]["shapes"]] == [0.02]
    assert [line.get("x0") for line in flash["layout"]["shapes"]] == [90_000, 0]
    assert [trace["name"] for trace in size["data"]] == ["front", "measured", "chosen"]
    assert [trace["x"] for trace in widths["data"]] == [[16, 8], [16, 4]]  # by name, as JSON has them
    assert (ranks["data"][0]["x"], ranks["data"][0]["y"]) == ([0.7, 0.8, 0.75], [0.89, 0.9, 0.88])
    stem, conv, collapse = curves["data"]
    assert (stem["x"], stem["y"]) == ([0.0, 0.25, 0.5], [0.9, 0.88, 0.5]) and conv["y"] == [0.9, 0.89]
    assert (collapse["x"], collapse["y"]) == ([0.5], [0.5])


def test_what_does_not_hold_is_named(tmp_path):
    exceeded = [{"limit": "max_flash", "allowed": 90_000.0, "measured": 95_000.0}]
    exceeded += [{"limit": "max_ram", "allowed": 9_000.0, "measured": None}]
    verdict = {**VERDICT, "accepted": False, "exceeded": exceeded}
    folder = journal(
        tmp_path, ending=dataclasses.replace(ENDING, accepted=False, verdict=verdict, rank_correlation=None)
    )
    page = page_on(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert (
        "Not accepted: this is the nearest. max_flash of 87.89 KiB: 92.77 KiB; max_ram of 8.789 KiB: not measured"
        in text
    )
    assert "rank correlation is not known" in text and page.figures["ending"]["accepted"] is False


def test_a_journal_that_was_cut_is_reported_as_far_as_it_goes(tmp_path):
    whole = (journal(tmp_path / "whole") / "trials.jsonl").read_bytes()
    (tmp_path / "cut").mkdir()
    for share in (0.3, 0.6, 0.9):
        path = tmp_path / "cut" / "trials.jsonl"
        path.write_bytes(whole[: int(len(whole) * share)])
        before = path.read_bytes()
        ep.write_search_report(path, tmp_path / "cut" / "report.html", overwrite=True)
        text = (tmp_path / "cut" / "report.html").read_text(encoding="utf-8")
        page = PageReader(text)
        assert "was stopped before its end, or is still running" in text and path.read_bytes() == before
        assert {"summary", "trials", "frozen"} <= set(page.sections) and "widths" not in page.sections
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3][:20] + b"x" + lines[3][21:], *lines[4:]]))
    with pytest.raises(ValueError, match="damaged"):
        ep.write_search_report(path, tmp_path / "cut" / "report.html", overwrite=True)
    path.write_bytes(b"no journal")
    with pytest.raises(ValueError, match="is no journal of trials"):
        ep.write_search_report(path, tmp_path / "cut" / "report.html", overwrite=True)


def test_trials_without_an_error_have_no_column_for_it(tmp_path):
    with TrialJournal(tmp_path / "trials.jsonl", HEADER) as kept:
        kept.add(Trial(0, "measured", {"num_blocks": 1}, Candidate({"stem": 4}, epochs=(1,)), score=0.8))
        kept.add(Trial(1, "measured", {"num_blocks": 2}, Candidate({"stem": 4}, epochs=(1, 2)), score=0.8))
    page = page_on(tmp_path)
    header, *rows = page.tables["All trials"]
    assert "Seconds" == header[-1][0] and all(len(row) == len(header) for row in rows)
    models = [row[[name for name, _ in header].index("Model")][0] for row in rows]
    assert models == ["1 block removed, 1 epoch, float32", "2 blocks removed, 1 + 2 epochs, float32"]


def test_a_search_without_any_model(tmp_path):
    header = dataclasses.replace(
        HEADER, metric="mse", higher_is_better=False, target="board of my own", widths={}, frozen={}
    )
    nothing = SearchEnding(None, False, None, None, ("every trial failed: see their errors",))
    failed = [
        Trial(n, "measured", {}, None, state, error=f"E: {n}") for n, state in enumerate(("failed", "nan", "oom"))
    ]
    page = page_on(journal(tmp_path / "failed", header, failed, None, nothing))
    assert page.sections == ["summary", "trials", "frozen", "settings", "environment"] and page.plots == []
    assert [row[-1][0] for row in page.tables["All trials"][1:]] == ["E: 0", "E: 1", "E: 2"]
    text = (tmp_path / "failed" / "report.html").read_text(encoding="utf-8")
    assert "Not accepted: no model could be made." in text and "3 of 3 trials failed" in text
    assert page_on(journal(tmp_path / "empty", header, (), None, None)).sections == page.sections
    assert "No trial was made." in (tmp_path / "empty" / "report.html").read_text(encoding="utf-8")


def test_names_in_a_journal_are_text(tmp_path):
    header = dataclasses.replace(
        HEADER,
        model=NASTY,
        metric=NASTY,
        target=NASTY,
        settings={NASTY: NASTY},
        widths={NASTY: 8},
        frozen={NASTY: NASTY},
    )
    candidate = Candidate({NASTY: 4}, (NASTY,), 0.5, "int8")
    trial = dataclasses.replace(TRIALS[1], candidate=candidate, state="ok", error=NASTY)
    curves = dataclasses.replace(CURVES, metric=NASTY, curves=(SensitivityCurve(NASTY, (), 8, (4,), (0.1,)),))
    verdict = {**VERDICT, "metric": NASTY}
    folder = journal(tmp_path, header, (trial,), curves, dataclasses.replace(ENDING, verdict=verdict, notes=(NASTY,)))
    page = page_on(folder)
    assert "<script>alert" not in (folder / "report.html").read_text(encoding="utf-8")
    assert page.figures["header"]["model"] == NASTY and page.column("The widths as a table", 2) == {NASTY: 4}


def test_what_is_passed_is_checked_first(tmp_path):
    folder = journal(tmp_path)
    page_on(folder)
    with pytest.raises(FileExistsError, match="is not overwritten"):
        page_on(folder)
    with pytest.raises(ValueError, match="pass both model= and data="):
        ep.write_search_report(folder, tmp_path / "other.html", data=[1])
    with pytest.raises(FileNotFoundError):
        ep.write_search_report(tmp_path / "nowhere", tmp_path / "other.html")
    result = CompressResult(False, None, None, None, None, (), 0.0, None, None, ())
    with pytest.raises(ValueError, match="pass its folder, the output_dir of compress"):
        ep.write_search_report(result, tmp_path / "other.html")
    found = dataclasses.replace(result, path=folder / "model.tflite")
    assert ep.write_search_report(found, tmp_path / "other.html").read_text() == (folder / "report.html").read_text()


def test_the_file_is_measured_beside_what_the_search_kept(tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    folder, (x, y) = journal(tmp_path), data(30, 1)
    model, smaller = trained_net(), net(keras, "smaller")
    ep.export_tflite(smaller, folder / "model.tflite", verify=False, verbose=False)
    save_evidence(folder, model, smaller, Samples(x, y), 0)
    kept = load_evidence(folder)
    assert np.array_equal(kept.samples.x, x) and np.array_equal(kept.samples.y, y) and kept.smaller.name == "smaller"
    assert all(np.array_equal(*pair) for pair in zip(kept.original.get_weights(), model.get_weights(), strict=True))
    page = PageReader(
        ep.write_search_report(folder, tmp_path / "r.html", num_runs=1, verbose=False).read_text(encoding="utf-8")
    )
    assert page.sections == [*SECTIONS[:7], "file", "classes", "size", "latency", "layers", *SECTIONS[7:]]
    own = float(np.mean(model.predict(x, verbose=0).argmax(axis=-1) == y))
    assert page.figures["measured"]["scores"]["accuracy"]["value"] == pytest.approx(own)
    (folder / "evidence" / "model.keras").write_bytes(b"damaged")
    text = ep.write_search_report(folder, tmp_path / "d.html", verbose=False).read_text(encoding="utf-8")
    assert "Not measured: " in text and "Pass the model and data." in text
    assert load_evidence(tmp_path / "nowhere") is None


def largest_share(y_true, y_pred):
    return y_pred.max(axis=-1)


def test_the_file_is_scored_by_what_the_search_judged_by(tmp_path):
    """By the metric of the result, by a name in the journal, or by others, of which the page says so."""
    model, (x, y), own = trained_net(), data(30, 1), ep.Metric(largest_share, higher_is_better=True)
    ep.export_tflite(model, tmp_path / "model.tflite", verify=False, verbose=False)
    save_evidence(tmp_path, model, model, Samples(x, y), 0)

    def measured(search, header, **more):
        journal(tmp_path, header)
        made = ep.write_search_report(search, tmp_path / "r.html", num_runs=1, overwrite=True, verbose=False, **more)
        (tmp_path / "trials.jsonl").unlink()
        text = made.read_text(encoding="utf-8")
        return PageReader(text).figures["measured"]["scores"], "the scores here are other ones" in text

    value = float(np.mean(model.predict(x, verbose=0).max(axis=-1)))
    of_own = {"largest_share": {"value": pytest.approx(value), "higher_is_better": True}}
    header = dataclasses.replace(HEADER, metric="largest_share")
    result = CompressResult(False, tmp_path / "model.tflite", None, None, None, (), 0.0, None, None, (), own)
    assert measured(result, header) == (of_own, False) == measured(tmp_path, header, metric=own)
    scores, said = measured(tmp_path, header)
    assert said and "largest_share" not in scores and scores
    name = "sparse_categorical_crossentropy"
    by_name = dataclasses.replace(HEADER, metric=name, settings={"metric": name})
    scores, said = measured(tmp_path, by_name)
    assert list(scores) == [name] and not said
    by_agreement = dataclasses.replace(HEADER, metric="agreement", settings={"metric": "agreement"})
    assert measured(tmp_path, by_agreement)[1] is False


def test_samples_of_several_inputs_and_outputs_are_kept_by_name(tmp_path):
    keras = flavors.keras_module(flavors.KERAS_3)
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    outputs = [keras.layers.Dense(1, name=name)(joined) for name in ("first", "second")]
    model = keras.Model([left, right], outputs, name="pair")
    rng = np.random.default_rng(0)
    x, y = [rng.normal(size=(9, size)).astype("f4") for size in (2, 3)], [rng.normal(size=(9, 1)) for _ in outputs]
    save_evidence(tmp_path, model, model, Samples(x, y, np.arange(9.0)), 0)
    kept = load_evidence(tmp_path)
    assert kept.smaller is None and np.array_equal(kept.samples.sample_weight, np.arange(9.0))
    assert [np.array_equal(*pair) for pair in zip(kept.samples.x.values(), x, strict=True)] == [True, True]
    assert list(kept.samples.x) == ["left", "right"] and np.array_equal(kept.samples.y["second"], y[1])
    many = Samples(np.zeros((5000, 2), "f4"), np.zeros(5000))
    save_evidence(tmp_path, net(keras), net(keras), many, 0)
    assert load_evidence(tmp_path).samples.count == 2000
