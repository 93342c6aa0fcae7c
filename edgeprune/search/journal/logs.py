"""Where the trials of a search are logged as they are made: a table, TensorBoard, MLflow, Weights & Biases.

The journal is the record; these are for watching a search, and for beside others.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from edgeprune.atomic import atomic_path
from edgeprune.search.trial.record import FIGURES, Trial

LogKind = Literal["csv", "tensorboard", "mlflow", "wandb"]
Log = Callable[[Trial], None]
_SCORES = ("quick_score", "score", "float_score")
_COLUMNS = ("number", "stage", "state", *_SCORES, *FIGURES, "seconds", "error", "settings", "candidate")


def logs(kinds: Sequence[LogKind], folder: Path, trials: Sequence[Trial], run: str) -> Log:
    """Open logs.

    Args:
        kinds: which ones.
        folder: where `trials.csv` and the folders `tensorboard`, `mlflow` and `wandb` lie; the last two are written
            offline unless the user's own settings, such as `MLFLOW_TRACKING_URI` and `WANDB_MODE`, say otherwise.
        trials: all trials so far, to which each is added before it is logged.
        run: the name of the run.

    Returns:
        A function to call with each trial.

    Raises:
        ImportError: what a log needs is not installed.
        ValueError: there is no log of this name.
    """
    check_kinds(kinds)
    opened = [_OPENERS[kind](folder, trials, run) for kind in kinds]

    def log(trial: Trial) -> None:
        for one in opened:
            one(trial)

    return log


def check_kinds(kinds: Sequence[Any]) -> None:
    """Refuse logs that there are not.

    Raises:
        ValueError: there is no log of this name.
    """
    for kind in kinds:
        if kind not in get_args(LogKind):
            raise ValueError(f"log must name some of {', '.join(map(repr, get_args(LogKind)))}; got {kind!r}.")


def _csv(folder: Path, trials: Sequence[Trial], run: str) -> Log:
    def log(_: Trial) -> None:
        # Written whole each time: a stop between the journal and this file leaves no gap in it.
        with atomic_path(folder / "trials.csv") as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(trial.to_dict() for trial in trials)

    return log


def _tensorboard(folder: Path, trials: Sequence[Trial], run: str) -> Log:
    import tensorflow as tf

    writers: dict[str, Any] = {}

    def log(trial: Trial) -> None:
        if trial.stage not in writers:
            writers[trial.stage] = tf.summary.create_file_writer(str(folder / "tensorboard" / trial.stage))
        with writers[trial.stage].as_default():
            for name, value in _figures(trial).items():
                tf.summary.scalar(name, value, step=trial.number)
        writers[trial.stage].flush()

    return log


def _mlflow(folder: Path, trials: Sequence[Trial], run: str) -> Log:
    try:
        import mlflow
    except ImportError as error:
        raise ImportError("log='mlflow' needs MLflow: pip install mlflow") from error
    import os

    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    mlflow.set_experiment("edgeprune")

    def log(trial: Trial) -> None:
        with mlflow.start_run(run_name=f"{run} {trial.number}"):
            mlflow.log_params({"stage": trial.stage, "state": trial.state, **trial.settings})
            mlflow.log_metrics(_figures(trial))

    return log


def _wandb(folder: Path, trials: Sequence[Trial], run: str) -> Log:
    try:
        import wandb
    except ImportError as error:
        raise ImportError("log='wandb' needs Weights & Biases: pip install wandb") from error
    import os

    mode = None if "WANDB_MODE" in os.environ else "offline"
    opened = wandb.init(project="edgeprune", name=run, dir=str(folder), mode=mode, reinit=True)

    def log(trial: Trial) -> None:
        opened.log({f"{trial.stage}/{name}": value for name, value in _figures(trial).items()}, step=trial.number)

    return log


def _figures(trial: Trial) -> dict[str, float]:
    scores = {name: getattr(trial, name) for name in _SCORES}
    return {**{name: value for name, value in scores.items() if value is not None}, **trial.figures}


_OPENERS: dict[str, Callable[[Path, Sequence[Trial], str], Log]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
