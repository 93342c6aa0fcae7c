"""Trials as a table, and the front: against the definition, pair by pair."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.search.compress_result import CompressResult
from edgeprune.search.trial.record import Candidate, Trial
from edgeprune.search.trial.table import pareto_front, trials_frame


def result(*trials):
    return CompressResult(False, None, None, None, None, trials, math.nan, None, None, ())


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_nothing_beats_the_front_and_it_beats_all_others(pairs):
    trials = [Trial(n, "measured", accuracy_drop=drop, size=size) for n, (drop, size) in enumerate(pairs)]
    front = pareto_front(trials, "size")

    def beats(one, other):
        pair, beaten = (one.accuracy_drop, one.size), (other.accuracy_drop, other.size)
        return all(a <= b for a, b in zip(pair, beaten, strict=True)) and pair != beaten

    assert not any(beats(one, other) for one in trials for other in front)
    for left_out in (one for one in trials if one not in front):
        assert any(beats(one, left_out) or (one.accuracy_drop, one.size) == (left_out.accuracy_drop, left_out.size)
                   for one in front)  # fmt: skip
    assert [trial.size for trial in front] == sorted({trial.size for trial in front})


def test_what_failed_or_was_not_measured_is_on_no_front():
    trials = [
        Trial(0, "quick", accuracy_drop=0.0, macs=1.0),
        Trial(1, "measured", state="failed", error="no"),
        Trial(2, "measured", accuracy_drop=0.5),
        Trial(3, "measured", accuracy_drop=0.2, macs=9.0),
    ]
    assert [trial.number for trial in result(*trials).pareto()] == [3]
    assert [trial.number for trial in pareto_front(trials, stage="quick")] == [0]
    with pytest.raises(ValueError, match="cost must be one of macs, params, size"):
        result().pareto("points")
    with pytest.raises(ValueError, match="stage must be"):
        pareto_front(trials, stage="slow")


def test_a_data_frame_has_what_a_trial_has(monkeypatch):
    candidate = Candidate({"stem": 4}, ("block",), 0.5, "int8", True)
    first = Trial(0, "measured", {"target_macs": 0.5}, candidate, score=0.75, macs=10.0, seconds=2.0)
    second = Trial(1, "quick", {"within": 0.9}, None, "failed", error="RuntimeError: no")
    frame = result(first, second).to_dataframe()
    assert list(frame.index) == [0, 1] and frame.loc[0, "score"] == 0.75 and frame.loc[0, "width.stem"] == 4
    assert frame.loc[0, "quantization"] == "int8" and frame.loc[0, "removed_blocks"] == ["block"]
    assert frame.loc[1, "error"] == "RuntimeError: no" and np.isnan(frame.loc[1, "macs"])
    assert frame.loc[1, "setting.within"] == 0.9 and np.isnan(frame.loc[1, "setting.target_macs"])
    assert result().to_dataframe().empty and "score" in result().to_dataframe().columns

    real = builtins.__import__

    def without_pandas(name, *rest, **more):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ImportError, match=r"pip install 'edgeprune\[report\]'"):
        trials_frame([first])
