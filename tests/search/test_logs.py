"""The logs of a search, with MLflow and Weights & Biases in stubs' shape."""

import csv
import sys
from types import SimpleNamespace

import pytest

from edgeprune.search.journal.logs import logs
from edgeprune.search.trial.record import Candidate, Trial

TRIALS = [
    Trial(0, "measured", {"way": 0}, Candidate(quantization="int8"), score=0.9, macs=10, seconds=1.5),
    Trial(1, "quick", {"keep": {"stem": 0.5}}, state="failed", error="ValueError: no, not this"),
]


def log_all(kinds, folder):
    trials = []
    log = logs(kinds, folder, trials, "net on phone")
    for trial in TRIALS:
        trials.append(trial)
        log(trial)


def test_the_table_has_every_trial(tmp_path):
    log_all(["csv"], tmp_path)
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1"] and rows[0]["score"] == "0.9" and rows[0]["latency_ms"] == ""
    assert rows[1]["error"] == "ValueError: no, not this" and rows[1]["settings"] == "{'keep': {'stem': 0.5}}"


def test_tensorboard_has_the_figures_of_each_stage(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_all(["tensorboard"], tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "measured"), size_guidance={"tensors": 0})
    events.Reload()
    assert {"score", "macs"} <= set(events.Tags()["tensors"]) and events.Tensors("score")[0].step == 0


def test_mlflow_and_wandb_are_called_offline(tmp_path, monkeypatch):
    import contextlib

    seen = []
    mlflow = SimpleNamespace(
        set_tracking_uri=lambda uri: seen.append(uri),
        set_experiment=lambda name: seen.append(name),
        start_run=lambda run_name: contextlib.nullcontext(),
        log_params=lambda params: seen.append(params),
        log_metrics=lambda figures: seen.append(figures),
    )
    run = SimpleNamespace(log=lambda figures, step: seen.append((figures, step)))
    wandb = SimpleNamespace(init=lambda **settings: seen.append(settings) or run)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    log_all(["mlflow", "wandb"], tmp_path)
    assert seen[0].startswith("sqlite:///") and {"score": 0.9, "macs": 10.0} in seen
    assert any(isinstance(one, dict) and one.get("mode") == "offline" for one in seen)
    assert ({"measured/score": 0.9, "measured/macs": 10.0}, 0) in seen


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_what_is_not_installed_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {name}"):
        logs([name], tmp_path, [], "run")
