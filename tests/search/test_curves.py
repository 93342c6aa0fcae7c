"""Curves as an object: drops, collapse, the table, the file, the plot."""

import json

import numpy as np
import pytest

import edgeprune as ep


def curves(**changes):
    own = (
        ep.SensitivityCurve("stem", ("stem", "add"), 8, (2, 4, 6), (0.78, 0.6, 0.2)),
        ep.SensitivityCurve("wide", ("wide",), 16, (4, 8, 12), (0.8, 0.82, 0.76)),
    )
    settings = {
        "model": "net", "kind": "channels", "metric": "accuracy", "higher_is_better": True, "baseline": 0.8,
        "importance": "l2", "reconstructed": False, "num_samples": 100, "curves": own,
    }  # fmt: skip
    return ep.Sensitivity(**{**settings, **changes})


def test_drops_are_fractions_of_the_baseline():
    np.testing.assert_allclose(curves().drops("stem"), [0.025, 0.25, 0.75])
    np.testing.assert_allclose(curves().drops("wide"), [0, -0.025, 0.05], atol=1e-12)
    lower = curves(higher_is_better=False, baseline=0.1)
    np.testing.assert_allclose(lower.drops("stem"), [6.8, 5.0, 1.0])
    distance = curves(higher_is_better=False, baseline=0.0)
    np.testing.assert_allclose(distance.drops("stem"), [0.78, 0.6, 0.2])


def test_a_part_collapses_at_the_first_level_with_a_larger_drop():
    assert curves().collapse() == {"stem": 0.5, "wide": None}
    assert curves().collapse(0.01) == {"stem": 0.25, "wide": 0.75}
    for wrong, error in ((0, ValueError), ("much", TypeError)):
        with pytest.raises(error, match="max_drop must be"):
            curves().collapse(wrong)


def test_what_a_channel_adds_is_on_lines_between_the_slopes():
    own = ep.SensitivityCurve("stem", ("stem",), 10, (2, 6, 8), (0.76, 0.6, 0.6))  # drops 0.05, 0.25, 0.25
    added = curves(curves=(own,)).drop_per_channel("stem", np.array([0, 1, 2.5, 4, 7, 9]))
    np.testing.assert_allclose(added, [0, 0.025, 0.0375, 0.05, 0.05, 0.05])  # what is flat behind a cliff is not cheap
    steeper = ep.SensitivityCurve("stem", ("stem",), 10, (2, 6), (0.76, 0.6))
    added = curves(curves=(steeper,)).drop_per_channel("stem", np.array([4, 7]))
    np.testing.assert_allclose(added, [0.05, 0.05 + 0.025])  # the last line goes on
    assert curves().drop_per_channel("head", np.arange(3)) is None


def test_they_are_looked_up_by_name():
    assert curves()["wide"].levels == (0.25, 0.5, 0.75)
    assert len(curves()) == 2 and [curve.name for curve in curves()] == ["stem", "wide"]
    with pytest.raises(KeyError):
        curves()["head"]


def test_the_table_names_every_level_and_the_collapse():
    text = str(curves())
    assert "'net': accuracy 0.8, higher is better, on 100 samples" in text
    assert "drop of more than 10%" in text
    (stem,) = [line for line in text.splitlines() if line.startswith("stem")]
    assert stem.split() == "stem 8 0.78 at 25% 0.6 at 50% 0.2 at 75% 50%".split()


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "curves.json"
    curves().save(path)
    assert ep.Sensitivity.load(path) == curves()
    with pytest.raises(FileExistsError):
        curves().save(path)
    curves(baseline=0.9).save(path, overwrite=True)
    assert ep.Sensitivity.load(path).baseline == 0.9


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("curves"),
        lambda content: content.update(format=2),
        lambda content: content.update(kind="layers"),
        lambda content: content["curves"][0].update(removed=[4, 2, 6]),
        lambda content: content["curves"][0].update(scores=[0.1]),
        lambda content: content.update(curves="none"),
    ],
)
def test_another_file_is_refused(change, tmp_path):
    path = tmp_path / "curves.json"
    curves().save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="holds no curves"):
        ep.Sensitivity.load(path)


def test_the_plot_has_a_line_for_each_and_a_cross_where_it_collapses(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    axes = curves().plot()
    baseline = [line for line in axes.lines if line.get_linestyle() == "--"]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert len(axes.lines) == 4 and len(baseline) == 1
    assert [(*line.get_xdata(), *line.get_ydata()) for line in crosses] == [(0.5, 0.6)]
    with pytest.raises(ValueError, match="no curves"):
        curves(curves=()).plot()
