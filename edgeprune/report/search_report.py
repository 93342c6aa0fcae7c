"""The report on a search as one HTML file: `write_search_report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeprune.atomic import check_paths
from edgeprune.measure.metrics import MetricLike
from edgeprune.number_checks import check_whole
from edgeprune.progress import status
from edgeprune.report.model_figures import measure_model
from edgeprune.report.page.figures import require_plotly
from edgeprune.report.page.rendering import write_page
from edgeprune.report.search_page import search_page
from edgeprune.search.compress_result import CompressResult
from edgeprune.search.journal.search_record import TRIALS, SearchRecord, read_search
from edgeprune.search.verdict.ending import MODEL
from edgeprune.search.verdict.evidence import load_evidence
from edgeprune.search.verdict.judge import AGREEMENT, DISTANCE
from edgeprune.targets import TARGETS
from edgeprune.types import DataLike, Model


def write_search_report(
    search: str | Path | CompressResult,
    path: str | Path = "report.html",
    *,
    model: Model | None = None,
    data: DataLike | None = None,
    converted_from: Model | None = None,
    metric: MetricLike | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    num_samples: int = 50,
    num_runs: int = 50,
    overwrite: bool = False,
    verbose: bool = True,
) -> Path:
    """Write what a search found as one HTML file: every number on it is one of its journal.

    The page has the verdict with its interval, before and after, what models lose against what they cost, all trials,
    how well the quick judgement ranks, sensitivity curves, widths, what is frozen, and the settings. The chosen file is
    measured again beside the models and on the samples that the search kept in its folder, or on those that are passed,
    and the sections of `write_report` follow. The page loads nothing from elsewhere. A search that was stopped, or is
    still running, is reported as far as it is.

    Args:
        search: what `compress` returned; its folder; or the journal in it.
        path: the HTML file to write.
        model: the original; left out, that in the folder.
        data: samples to measure on, as `write_report` accepts them; left out, at most 2,000 of those held out.
        converted_from: the Keras model of the chosen file, which layers are compared with; left out, that of `search`
            where it is what `compress` returned.
        metric: what to score by, as `edgeprune.score` accepts it; left out, what the search judged by where its name
            or `search` says what that is, else the compiled metrics.
        class_names: what the classes are called; left out, their numbers.
        title: the heading; left out, the model's name.
        num_samples: how many samples the layers are compared on at most.
        num_runs: how often the file is timed.
        overwrite: whether a file that exists may be replaced.
        verbose: whether to draw what is being done.

    Returns:
        The file.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is false.
        FileNotFoundError: there is no such journal.
        ImportError: plotly is not installed.
        ValueError: the journal is no such one, or damaged; no file came of the search, so that its result does not say
            where the journal is; one of `model` and `data` is missing, or they do not fit the file.

    Example:
        >>> result = ep.compress(model, None, (x, y), max_accuracy_drop=1.0, num_trials=4, num_finalists=1)
        >>> write_search_report(result, "report.html").name
        'report.html'
    """
    if (model is None) != (data is None):
        raise ValueError("The file is measured beside its model on data: pass both model= and data=, or neither.")
    for name, count in (("num_samples", num_samples), ("num_runs", num_runs)):
        check_whole(name, count, 1)
    require_plotly()
    check_paths(path, overwrite=overwrite)
    journal = _journal_of(search)
    record, measured, reason = read_search(journal), None, ""
    smaller = search.model if isinstance(search, CompressResult) and converted_from is None else converted_from
    if model is None and record.ending is not None:
        try:
            if kept := load_evidence(journal.parent):
                model, data, smaller = kept.original, (*vars(kept.samples).values(),), kept.smaller
        except ValueError as error:
            reason = f"{error} Pass the model and data."
    if model is not None and data is not None:
        with status("Measuring", verbose=verbose) as say:
            measured = measure_model(
                model,
                [journal.parent / MODEL],
                data,
                converted_from=smaller,
                target=TARGETS.get(record.header.target),
                budget=None,
                metric=_judged_by(search, record) if metric is None else metric,
                class_names=class_names,
                num_samples=num_samples,
                num_runs=num_runs,
                num_threads=1,
                say=lambda what: say(f"Measuring {what}"),
            )
    page = search_page(record, title or record.header.model, measured, reason)
    return write_page(page, path, overwrite=overwrite)


def _judged_by(search: str | Path | CompressResult, record: SearchRecord) -> MetricLike | None:
    """The metric of the search; None for the compiled one, for what compares outputs, and where only a name is left."""
    known = search.metric if isinstance(search, CompressResult) else record.header.settings.get("metric")
    return None if known == AGREEMENT or known == DISTANCE else known


def _journal_of(search: str | Path | CompressResult) -> Path:
    if isinstance(search, CompressResult):
        if search.path is None:
            raise ValueError("No file came of this search: pass its folder, the output_dir of compress.")
        return search.path.parent / TRIALS
    folder = Path(search)
    return folder / TRIALS if folder.is_dir() else folder
