"""From a budget to a model: `compress`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from edgeprune import flavor
from edgeprune.atomic import check_parents
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.slicing import whole_copy
from edgeprune.conversion.signature import signature_specs
from edgeprune.export.diagnosis import ConversionError
from edgeprune.export.preprocessing_split import lookup_names
from edgeprune.measure.macs import count_macs
from edgeprune.measure.metrics import MetricLike
from edgeprune.measure.parameters import count_parameters
from edgeprune.number_checks import check_number, check_seed, check_whole
from edgeprune.progress import status
from edgeprune.schemes import Scheme
from edgeprune.search.budget import FILE_SIZES, Budget
from edgeprune.search.checked_samples import test_samples, training_samples, validation_samples
from edgeprune.search.compress_result import CompressResult
from edgeprune.search.engines.engine import Engine, LocalEngine
from edgeprune.search.engines.engine_ray import RayEngine
from edgeprune.search.engines.runner import JournalRunner
from edgeprune.search.journal.logs import LogKind, check_kinds, logs
from edgeprune.search.journal.measurements import data_fingerprint, fingerprint
from edgeprune.search.journal.search_record import TRIALS, SearchHeader, this_environment
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.strategies.directions import rounding_epochs
from edgeprune.search.strategies.finalists import NotWrittenError, Outcome
from edgeprune.search.strategies.guided import guided
from edgeprune.search.strategies.reach import beyond_reach, within_target
from edgeprune.search.strategies.sampled import check_optuna, sampled
from edgeprune.search.strategies.search_space import SearchSpace, Way, ways_of
from edgeprune.search.trial.file_costs import untrained_costs
from edgeprune.search.trial.files import TrialFiles
from edgeprune.search.trial.job import Samples, TrialSettings, Work
from edgeprune.search.trial.maker import Maker
from edgeprune.search.trial.record import Trial
from edgeprune.search.verdict.ending import Ending, Prepared, check_is_free, plain
from edgeprune.search.verdict.gate import hold_out
from edgeprune.search.verdict.judge import check_varies, figure_without_labels
from edgeprune.targets import Target
from edgeprune.targets import target as target_of
from edgeprune.types import DataLike, Model, PathLike, Quantization

OPTUNA = "optuna.jsonl"
Search = Literal["guided", "tpe", "nsga2"]


def compress(
    model: Model,
    train: DataLike | None,
    validation: DataLike,
    test: DataLike | None = None,
    *,
    target: str | Target = "phone",
    max_accuracy_drop: float | str | None = None,
    max_flash: float | str | None = None,
    max_ram: float | str | None = None,
    max_latency_ms: float | str | None = None,
    max_size: float | str | None = None,
    max_gzip_size: float | str | None = None,
    metric: MetricLike | None = None,
    quantization: Quantization | Scheme | Literal["auto"] | None | Sequence[Quantization | Scheme | None] = "auto",
    search: Search = "guided",
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    num_workers: int = 2,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float = 0.0,
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float | None = None,
    num_trials: int = 24,
    num_finalists: int = 3,
    time_budget: float | None = None,
    output_dir: PathLike = "compressed",
    bundle: bool = True,
    log: Sequence[LogKind] = ("csv",),
    resume: bool = False,
    seed: int = 0,
    verbose: bool = True,
) -> CompressResult:
    """Find a smaller model that holds a budget, and prove its file.

    Candidates keep fewer channels, and perhaps fewer residual blocks. Each is cut, made up for by reconstruction and
    scored without training, in seconds. Few are trained after the original (with `train`), written as files and
    measured; what each of them lost says how narrow the next one is. Half of the validation data is looked at
    meanwhile, all of it where there are test data. The other half, or the test data, decides at the end, once: the file
    is accepted if every limit holds there.

    With limits on costs the model that holds them and loses least is looked for, with `max_accuracy_drop` alone the one
    of the fewest MACs, whose drop holds by its standard error where there is such a model.

    Args:
        model: a trained model of `keras` 3 or `tf_keras`. It is not changed. Where it was made under a
            `tf.distribute.MirroredStrategy`, models are trained under that.
        train: samples to train on, `(x, y)`, or `x` alone: then the original is the only teacher. None for no training.
        validation: samples to judge on, in any form that `model.fit` accepts. Without labels the figure is the share of
            samples whose class is kept (`metric="agreement"`) where all outputs name classes, by their loss or
            activation, else how far the outputs move (`metric="distance"`).
        test: samples that the verdict alone is on, in the same forms, as of persons or days that are in no other data;
            left out, half of `validation`, class by class at random.
        target: the device, a name of `edgeprune targets` or a `Target`. Latency on phones and computers is that of this
            machine.
        max_accuracy_drop: how much worse the figure may be: 0.01 or `"1%"`, in the figure's own unit. Of a distance,
            the error of the outputs over their own deviation from their mean: at 0.1 a tenth of it, and at 1 the mean
            would be as good a guess.
        max_flash: bytes of flash for file and code, such as `"256 KiB"`; on microcontrollers and NPUs. A board whose
            memories are known is never exceeded: left out, all of it may be used, and where the model does not fit
            the memories are limits as if they were passed.
        max_ram: bytes of RAM for the arena, on microcontrollers, likewise.
        max_latency_ms: milliseconds of one run, on phones, computers and NPUs.
        max_size: bytes of the file.
        max_gzip_size: bytes of the file after gzip; where it is limited, weights may become zero.
        metric: what is judged by, as `edgeprune.score` accepts it; left out, the compiled metric, of several outputs
            that of the first: `"kind_accuracy"`, a name as `edgeprune.score` prints it, chooses another.
        quantization: of the files, as `export_tflite` accepts it; None for float32; or several of these, the preferred
            one first. `"auto"`: the target's own, and where int8 loses too much, training for the rounding (with
            `train`) or int16x8; where bytes are limited also int4, whose files are smaller and no faster. Where only
            the drop is limited, the best file is tried in int4 too if that is among several. In files of 4 bits the
            layers that gain most keep 8, where limits on bytes leave room or 4 lose too much.
        search: how candidates are chosen. `"guided"`: by bisection, from measured curves; the same at each run.
            `"tpe"`, `"nsga2"`: by Optuna's samplers of these names, over the width of each group.
        engine: where trials are made: `"local"`, in this process, or `"ray"`, as Ray tasks. The same seed finds the
            same on both; a worker that dies is replaced, and its trial made again.
        address: of a Ray cluster that runs, such as `"auto"`; left out, one is started on this machine.
        num_workers: trials that are made at once on a cluster that is started.
        cpus_per_trial: processors that a Ray task occupies.
        gpus_per_trial: GPUs that a Ray task occupies.
        epochs: passes over the training samples for each model that is measured, in two parts: a third, after which
            models that pass already or are clearly behind are stopped, and the rest. The best one has all of them.
        batch_size: samples per step.
        learning_rate: where the training begins, to fall to 0 on a cosine; left out, that of the model, unchanged.
        num_trials: different models at most that are judged without training; those that are trained are judged so too.
        num_finalists: different models at most that are trained and measured.
        time_budget: seconds for all trials; a third of it at most for those without training. At least one model is
            measured. With it, results depend on how fast the machine is.
        output_dir: the folder for the file `model.tflite`, its `recipe.json`, its `bundle`, and the trials with their
            journal.
        bundle: whether to write the bundle for the target, as `export_bundle` does.
        log: where trials are logged beside the journal, in `output_dir`: `"csv"`, `"tensorboard"`, `"mlflow"`,
            `"wandb"`.
        resume: whether a search that was stopped in this folder continues.
        seed: of the split, the reconstruction, the training and the interval.
        verbose: whether to draw what is being done.

    Returns:
        The verdict, the file, its model, and all trials.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: nothing is limited, or a limit cannot be held on this target; the data do not fit the model, are
            too few, or the figure has no direction; nothing of the model can be cut; the folder's journal is of another
            search.
        FileExistsError: the folder has trials, and `resume` is false; or files of the same names that no search wrote.
        ImportError: what the search or the target needs is not installed.

    Example:
        >>> result = compress(model, None, (x, y), max_accuracy_drop=1.0, num_trials=4, num_finalists=1)
        >>> result.accepted, result.path.name
        (True, 'model.tflite')
    """
    budget = Budget(max_accuracy_drop, max_flash, max_ram, max_latency_ms, max_size, max_gzip_size)
    device = target_of(target)
    budget.check_target(device)
    settings = {
        "target": device.name,
        "metric": metric if isinstance(metric, str) else None,  # others are only known to this call
        "quantization": quantization,
        "search": search,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "num_trials": num_trials,
        "num_finalists": num_finalists,
        "time_budget": time_budget,
        "seed": seed,
    }
    _check(settings)
    check_kinds(log)
    if engine not in ("local", "ray"):
        raise ValueError(f"engine must be 'local' or 'ray'; got {engine!r}.")
    flavor.check_built_model(model)
    signature_specs(model)  # a file has sizes that are fixed
    strategy = flavor.mirrored_strategy(model)
    if strategy is not None and engine != "local":
        raise ValueError(f"Model {model.name!r} is trained under its strategy in this process: pass engine='local'.")
    _check_can_be_cut(model)
    if strategy is not None:
        model = whole_copy(model)  # outside of its scope, to be cut and converted
    folder = Path(output_dir)
    check_parents(folder / TRIALS)
    check_is_free(folder)
    is_training, is_size_limited = train is not None and epochs > 0, bool({*FILE_SIZES} & {*budget.costs})
    ways = ways_of(quantization, device, is_training, is_size_limited)
    prepared = _prepared(model, train, validation, test, metric, device, budget, ways, settings)
    maker = Maker(prepared.work, strategy)
    workers: dict[str, Any] = {
        "address": address,
        "num_workers": num_workers,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
    }
    with (
        TrialJournal(folder / TRIALS, _header(maker, prepared, settings), resume=resume) as journal,
        status("Compressing", verbose=verbose) as say,
        contextlib.closing(LocalEngine(maker) if engine == "local" else RayEngine(maker.work, **workers)) as made_by,
    ):
        files = TrialFiles(folder / "trials")
        space = SearchSpace(maker, journal, files, folder / "curves.jsonl", ways)
        logged = logs(log, folder, journal.trials, f"{model.name} on {device.name}")
        runner = _runner(made_by, space, journal, files, prepared, settings, say, logged)
        try:
            found = _nearest(runner, space, maker) or _searched(
                runner, space, prepared.work.budget, settings, len(maker.quick_rows), folder / OPTUNA
            )
        except NotWrittenError as error:
            raise ValueError(f"{error}{_way_out(model)}") from error
        return Ending(maker, prepared, journal, files, folder, settings, bundle).result(found)


def _way_out(model: Model) -> str:
    """What to do with a model that cannot be made into a file, where lookup layers may be the reason."""
    names = [repr(name) for name in lookup_names(model) if "/" not in name]
    if not names:
        return ""
    return (
        f" Look texts and categories up before the model ({', '.join(names)}): compress the rest of "
        "split = edgeprune.split_preprocessing(model), split.rest, on what split.preprocess returns."
    )


def _check_can_be_cut(model: Model) -> None:
    graph = trace(model)
    if all(group.frozen is not None for group in graph.groups):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(graph.frozen.items())[:3])
        raise ValueError(f"No channel of model {model.name!r} can be removed ({reasons}); inspect lists all layers.")


def _check(settings: Mapping[str, Any]) -> None:
    for name, least in (("epochs", 0), ("num_trials", 1), ("num_finalists", 1)):
        check_whole(name, settings[name], least)
    check_seed(settings["seed"])
    for name in ("time_budget", "learning_rate"):
        if settings[name] is not None:
            check_number(name, settings[name])
            if not settings[name] > 0:
                raise ValueError(f"{name} must be above 0; got {settings[name]}.")
    if settings["search"] not in ("guided", "tpe", "nsga2"):
        raise ValueError(f"search must be 'guided', 'tpe' or 'nsga2'; got {settings['search']!r}.")
    if settings["search"] != "guided":
        check_optuna()


def _prepared(
    model: Model,
    train: DataLike | None,
    validation: DataLike,
    test: DataLike | None,
    metric: MetricLike | None,
    device: Target,
    budget: Budget,
    ways: Sequence[Way],
    settings: Mapping[str, Any],
) -> Prepared:
    training = None if train is None else training_samples(model, train)
    judged = validation_samples(model, validation)
    if test is None:
        judged, held = (Samples(*part) for part in hold_out(**vars(judged), seed=settings["seed"]))
    else:
        held = test_samples(model, test, judged)
    if metric is None and judged.y is None:
        metric = figure_without_labels(model, judged.x)
    names = ("epochs", "batch_size", "learning_rate", "seed")
    made = TrialSettings(device, **{name: settings[name] for name in names})
    budget = within_target(budget, model, device, ways[0][0], judged.x)
    return Prepared(Work(model, training, judged, metric, budget, made), held, has_own_test=test is not None)


def _header(maker: Maker, prepared: Prepared, settings: Mapping[str, Any]) -> SearchHeader:
    """What the search is; a metric that is constant, has no direction or raises is refused here."""
    work, judge = prepared.work, maker.judge
    check_varies(judge, maker.original_outputs)
    prepared.held_judge.score(prepared.held_outputs)  # that it can be scored is not to be found out at the end
    several = [samples for samples in (work.judged, prepared.held, work.train) if samples is not None]
    graph = trace(work.model)
    own = {name: plain(value) for name, value in settings.items() if name not in ("target", "seed", "time_budget")}
    return SearchHeader(
        model=work.model.name,
        model_fingerprint=fingerprint(work.model, [], []),
        data_fingerprint=data_fingerprint([part for one in several for part in vars(one).values()]),
        target=work.settings.target.name,
        limits=work.budget.limits,
        settings=own,
        seed=settings["seed"],
        metric=judge.name,
        higher_is_better=judge.higher_is_better,
        baseline=judge.baseline,
        macs=count_macs(work.model).total,
        params=count_parameters(work.model).total,
        num_samples=work.judged.count,
        widths={group.name: group.size for group in graph.groups if group.frozen is None},
        frozen=graph.frozen,
        environment=this_environment(),
    )


def _runner(
    engine: Engine,
    space: SearchSpace,
    journal: TrialJournal,
    files: TrialFiles,
    prepared: Prepared,
    settings: Mapping[str, Any],
    say: Callable[[str], None],
    log: Callable[[Trial], None],
) -> JournalRunner:
    return JournalRunner(
        engine,
        space.candidate,
        journal,
        files,
        budget=prepared.work.budget,
        is_training=prepared.work.is_training,
        rounding_epochs=rounding_epochs(settings["epochs"]),
        baseline=journal.header.baseline,
        time_budget=settings["time_budget"],
        counts={"quick": settings["num_trials"]},
        num_models=settings["num_finalists"],
        say=lambda text: say(f"Compressing: {text}"),
        log=log,
    )


def _nearest(runner: JournalRunner, space: SearchSpace, maker: Maker) -> Outcome | None:
    """The narrowest model where even that exceeds a limit on costs."""
    work = maker.work

    def costs_of(settings: Mapping[str, Any]) -> dict[str, float] | None:
        candidate, device = space.candidate(settings), work.settings.target
        model = maker.untrained(replace(candidate, quantize_aware=False))
        try:
            return untrained_costs(model, candidate.quantization, work.judged.x, device, work.budget.costs)
        except ConversionError:  # one channel may be zero for all samples, and has no range then
            return None

    return beyond_reach(runner, work.budget, space.narrowest(), costs_of)


def _searched(
    runner: JournalRunner,
    space: SearchSpace,
    budget: Budget,
    settings: Mapping[str, Any],
    num_samples: int,
    storage: Path,
) -> Outcome:
    counts = {name: settings[name] for name in ("num_trials", "num_finalists")}
    if settings["search"] == "guided":
        return guided(runner, budget, space.directions, **counts, least_share=space.least_share)
    return sampled(
        runner,
        budget,
        space.directions,
        [group.name for group in space.whole.free_groups],
        sampler=settings["search"],
        num_samples=num_samples,
        seed=settings["seed"],
        storage=storage,
        **counts,
    )
