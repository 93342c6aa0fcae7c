"""The page of a report on a search: what its journal says, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeprune.report.model_figures import ModelFigures
from edgeprune.report.model_page import environment_section, file_sections, frozen_section, width_plot
from edgeprune.report.page.content import Cell, Figure, Mark, Page, PageTable, Plot, Section, amount, figure
from edgeprune.report.page.figures import BLUE, COLOURS, GREY, ORANGE, Points, scatter
from edgeprune.report.summary_section import board_share
from edgeprune.schemes import scheme_of
from edgeprune.search.budget import amount_text
from edgeprune.search.compress_result import settings_text
from edgeprune.search.curves.curves import Sensitivity, SensitivityCurve
from edgeprune.search.journal.search_record import SearchRecord
from edgeprune.search.trial.record import Trial
from edgeprune.search.trial.table import COSTS, pareto_front
from edgeprune.search.verdict.judge import AGREEMENT, DISTANCE
from edgeprune.targets import TARGETS

# The figures beside the scores, as a column's name.
_TITLES = {
    "macs": "MACs",
    "params": "Parameters",
    "size": "Size",
    "gzip_size": "Size after gzip",
    "flash": "Flash",
    "ram": "RAM",
    "arena": "Arena",
    "latency_ms": "Time of a run",
}
_COUNTS = ("macs", "params")
_MAX_DROP = 0.1  # of a sensitivity curve: what counts as its collapse
_FEWEST_RANKED = 3
_FAR = 5  # times the worst of the measured losses: models that lost more would flatten the plot
_PLOT_HEIGHT = 420
_SMALL_PLOT_HEIGHT = 320


def search_page(record: SearchRecord, title: str, measured: ModelFigures | None = None, not_measured: str = "") -> Page:
    """Put what a journal says on a page.

    Args:
        record: what the journal says.
        title: the heading.
        measured: what was measured on the chosen file since; its sections follow those of the journal.
        not_measured: why it could not be measured.
    """
    header, ending = record.header, record.ending
    quick = sum(trial.stage == "quick" for trial in record.trials)
    files = len(record.trials) - quick
    mark: Mark = "" if ending is None else "good" if ending.accepted else "bad"
    return Page(
        title=title,
        subtitle=(
            f"A search for {header.target}: {quick:,} models judged without training, {files:,} measured as files, "
            f"seed {header.seed}"
        ),
        sections=tuple(_sections(record, measured, not_measured)),
        figures={
            "header": header.to_dict(),
            "trials": [trial.to_dict() for trial in record.trials],
            "sensitivity": record.sensitivity and record.sensitivity.to_dict(),
            "ending": ending and ending.to_dict(),
            "measured": measured and measured.to_dict(),
        },
        verdict=_verdict(record),
        verdict_mark=mark,
    )


def _sections(record: SearchRecord, measured: ModelFigures | None, not_measured: str) -> Iterator[Section]:
    for make in (_summary, _trade_offs, _widths, _trials, _ranking, _sensitivity):
        yield from make(record)
    yield frozen_section(record.header.frozen)
    if measured is not None:
        yield from file_sections(measured, _other_scores(record, measured))
    elif not_measured:
        yield Section("file", "The file beside the original", (f"Not measured: {not_measured}",))
    yield _settings(record)
    yield environment_section(record.header.environment)


def _other_scores(record: SearchRecord, measured: ModelFigures) -> tuple[str, ...]:
    """That the file was scored by other figures than the search judged by, where it was."""
    metric = record.header.metric
    if metric in (AGREEMENT, DISTANCE) or not measured.scores or metric in {one.name for one in measured.scores}:
        return ()
    return (
        f"The search judged by {metric}, which its journal knows by name alone: the scores here are other ones. Write "
        "the report with metric= (--metric) to have it here too.",
    )


def _verdict(record: SearchRecord) -> str:
    ending = record.ending
    if ending is None:
        return "The search was stopped before its end, or is still running: nothing was accepted yet."
    if ending.verdict is None:
        return "Not accepted: no model could be made."
    said = ending.verdict
    lost = (
        f"On {said['num_samples']:,} samples that were held out {said['metric']} was {said['before']:.4g} before "
        f"and is {said['after']:.4g} after: {said['lost']:.4g} lost, with a {said['confidence']:.0%} interval from "
        f"{said['lost_low']:.4g} to {said['lost_high']:.4g}."
    )
    if ending.accepted:
        return f"Accepted: every limit holds. {lost}"
    broken = "; ".join(_excess(one) for one in said["exceeded"])
    return f"Not accepted: this is the nearest. {broken}. {lost}"


def _excess(one: Mapping[str, Any]) -> str:
    allowed = f"{one['limit']} of {amount_text(one['limit'], one['allowed'])}"
    return f"{allowed}: {'not measured' if one['measured'] is None else amount_text(one['limit'], one['measured'])}"


def winner_of(record: SearchRecord) -> Trial | None:
    """The trial whose file was chosen; None where there is none."""
    number = None if record.ending is None else record.ending.winner
    return next((trial for trial in record.trials if trial.number == number), None)


def _summary(record: SearchRecord) -> Iterator[Section]:
    notes = () if record.ending is None else tuple(f"{note[:1].upper()}{note[1:]}." for note in record.ending.notes)
    if _original_file(record):
        notes += ("Before: the original, and what its own file in the same format costs.",)
    table = PageTable(
        "Before and after", ("", "Before", "After", "Limit"), tuple(_summary_rows(record)), sortable=False
    )
    yield Section("summary", "Summary", notes, (table,))


def _summary_rows(record: SearchRecord) -> Iterator[tuple[Cell, ...]]:
    header, winner = record.header, winner_of(record)
    verdict = (record.ending and record.ending.verdict) or {}
    broken = {one["limit"] for one in verdict.get("exceeded", ())}

    def mark(limit: str) -> Mark:
        return "" if not verdict or limit not in header.limits else "bad" if limit in broken else "good"

    def limit(name: str) -> Cell:
        return amount(name, header.limits.get(name))

    searched = f"{header.metric} on the search's samples ({header.num_samples:,})"
    yield searched, figure(header.baseline), figure(None if winner is None else winner.score), ""
    if verdict:
        held = f"{header.metric} on those held out ({verdict['num_samples']:,})"
        yield held, figure(verdict["before"]), figure(verdict["after"]), ""
        name = "max_accuracy_drop"
        yield "Lost there", "", figure(verdict["lost"], ".4g", mark(name)), limit(name)
        bounds = (("Lower", verdict["lost_low"]), ("Upper", verdict["lost_high"]))
        for word, value in bounds:
            yield f"{word} end of its {verdict['confidence']:.0%} interval", "", figure(value), ""
    else:
        drop = None if winner is None else winner.accuracy_drop
        yield "Lost", "", figure(drop), limit("max_accuracy_drop")
    # The last check measured the file again; what it did not is the trial's.
    after = {**({} if winner is None else winner.figures), **verdict.get("measured", {})}
    before = {**_original_file(record), "macs": header.macs, "params": header.params}
    for name in COSTS:
        if name in after or name in before or f"max_{name}" in header.limits:
            cells = (_cell(name, before.get(name)), _cell(name, after.get(name), mark(f"max_{name}")))
            yield _TITLES[name], *cells, limit(f"max_{name}")
            shares = board_share(TARGETS.get(header.target), name, _TITLES[name], [after.get(name)])
            yield from ((words, "", *cells, "") for words, cells in shares)


def _original_file(record: SearchRecord) -> Mapping[str, float]:
    """What the original's file costs, in the format of the chosen one; empty where it was not measured in that."""
    winner = winner_of(record)
    if winner is None or winner.candidate is None:
        return {}
    name = scheme_of(winner.candidate.quantization).name
    figures = [
        trial.figures
        for trial in record.trials
        if trial.stage == "measured" and (one := trial.candidate) is not None
        if one.is_whole and not one.quantize_aware and scheme_of(one.quantization).name == name
    ]
    return {name: value for name, value in figures[0].items() if name in COSTS} if figures else {}


def _cell(name: str, value: float | None, mark: Mark = "") -> Cell:
    """A figure of a trial as it is written."""
    return figure(value, ",.0f", mark) if name in _COUNTS else amount(name, value, mark)


def _trade_offs(record: SearchRecord) -> Iterator[Section]:
    """What is lost against what it costs, for the MACs and for every cost that is limited."""
    limited = [name.removeprefix("max_") for name in record.header.limits if name != "max_accuracy_drop"]
    costs = dict.fromkeys([*limited, "macs", "size"])
    plots = [plot for cost in costs for plot in _trade_off(record, cost)]
    if plots:
        words = (
            "Each point is a model. The line joins those that no other measured one beats; dashed lines are limits. "
            "Models judged without training would be better after it; where they lost far more than those measured, a "
            "click on their name shows them.",
        )
        yield Section("pareto", "The Pareto front: what is lost and what it costs", words, tuple(plots))


def _trade_off(record: SearchRecord, cost: str) -> Iterator[Plot]:
    known = [trial for trial in record.trials if {cost, "accuracy_drop"} <= trial.figures.keys()]
    front, winner = pareto_front(record.trials, cost), winner_of(record)
    quick, measured = ([trial for trial in known if trial.stage == stage] for stage in ("quick", "measured"))
    named = (
        ("without training", quick, GREY, "circle-open", 8, ""),
        ("front", list(front), BLUE, "", 8, "hv"),
        ("measured", measured, BLUE, "circle", 9, ""),
        ("chosen", [trial for trial in known if trial is winner], ORANGE, "star", 16, ""),
    )
    series = [
        Points(
            name,
            [trial.figures[cost] for trial in trials],
            [trial.figures["accuracy_drop"] for trial in trials],
            [_said(trial, cost) for trial in trials],
            colour,
            symbol,
            size,
            joined,
            trials is not quick or _is_near(quick, measured),
        )
        for name, trials, colour, symbol, size, joined in named
        if trials
    ]
    if series:
        limits = record.header.limits
        plot = scatter(
            series,
            _TITLES[cost] + (" (ms)" if cost == "latency_ms" else "" if cost in _COUNTS else " (bytes)"),
            f"{record.header.metric} lost",
            x_limit=limits.get(f"max_{cost}"),
            y_limit=limits.get("max_accuracy_drop"),
        )
        rows = tuple(
            (
                figure(trial.number, "d"),
                settings_text(trial),
                figure(trial.accuracy_drop),
                _cell(cost, trial.figures[cost]),
            )
            for trial in front
        )
        header = ("Trial", "Model", f"{record.header.metric} lost", _TITLES[cost])
        table = PageTable(f"Trials that no other one beats, by {_TITLES[cost]}", header, rows, folded=True)
        yield Plot(f"{_TITLES[cost]}: what the models lose and what they cost", plot, _PLOT_HEIGHT, table)


def _is_near(quick: Sequence[Trial], measured: Sequence[Trial]) -> bool:
    """Whether models that were judged without training leave room in a plot for those that were measured."""
    worst, others = (
        max((abs(trial.accuracy_drop or 0.0) for trial in part), default=0.0) for part in (quick, measured)
    )
    return not others or worst <= _FAR * others


def _said(trial: Trial, cost: str) -> list[str]:
    """What a trial's point says."""
    costs = ", ".join(
        f"{_TITLES[name]} {text.text}"
        for name in dict.fromkeys((cost, "macs", "size"))
        if isinstance(text := _cell(name, trial.figures.get(name)), Figure)
    )
    score = trial.stage_score
    lost = f"score {score:.4g}, lost {trial.accuracy_drop:.4g}" if score is not None else ""
    return [f"trial {trial.number}, {trial.stage}", settings_text(trial), lost, costs]


def _trials(record: SearchRecord) -> Iterator[Section]:
    if not record.trials:
        yield Section("trials", "Trials", ("No trial was made.",))
        return
    winner = winner_of(record)
    costs = [name for name in COSTS if any(name in trial.figures for trial in record.trials)]
    has_errors = any(trial.error for trial in record.trials)
    bits = [_bits_of_layers(trial) for trial in record.trials]
    has_bits = any(bits)
    own_bits = ("Bits of single layers",) if has_bits else ()
    header = ("Trial", "Stage", "State", "Model", *own_bits, "Without training", "File", "Lost")
    rows = tuple(
        (
            figure(trial.number, "d", "best" if trial is winner else ""),
            trial.stage,
            trial.state,
            settings_text(trial),
            *([own] if has_bits else []),
            figure(trial.quick_score),
            figure(trial.score),
            figure(trial.accuracy_drop),
            *(_cell(name, trial.figures.get(name)) for name in costs),
            figure(trial.seconds, ".1f"),
            *([trial.error or ""] if has_errors else []),
        )
        for trial, own in zip(record.trials, bits, strict=True)
    )
    columns = (*header, *(_TITLES[name] for name in costs), "Seconds", *(["Error"] if has_errors else []))
    failed = sum(trial.state not in ("ok", "pruned") for trial in record.trials)
    words = (f"{failed} of {len(record.trials)} trials failed: their errors are in the last column.",) if failed else ()
    note = f"The two scores are {record.header.metric}, of the model without training and of the file."
    note += "" if winner is None else f" Trial {winner.number} was chosen."
    yield Section("trials", "Trials", words, (PageTable("All trials", columns, rows, note),))


def _bits_of_layers(trial: Trial) -> str:
    return "" if trial.candidate is None else scheme_of(trial.candidate.quantization).layers_text


def _ranking(record: SearchRecord) -> Iterator[Section]:
    """How well the judgement without training foretells that of the file."""
    both = [trial for trial in record.trials if None not in (trial.quick_score, trial.score)]
    if not both:
        return
    found = None if record.ending is None else record.ending.rank_correlation
    words = (
        "Spearman's rank correlation is not known: fewer than three models have both scores, or all of them the same."
        if found is None
        else f"Spearman's rank correlation of the scores without training with those of the files is {found:.2f}."
    )
    rows = tuple((figure(trial.number, "d"), figure(trial.quick_score), figure(trial.score)) for trial in both)
    few = len(both) < _FEWEST_RANKED
    table = PageTable(
        "The two scores of the measured models", ("Trial", "Without training", "File"), rows, folded=not few
    )
    points = Points(
        "models",
        [trial.quick_score or 0.0 for trial in both],
        [trial.score or 0.0 for trial in both],
        [_said(trial, "macs") for trial in both],
        BLUE,
    )
    plot = scatter([points], f"{record.header.metric} without training", f"{record.header.metric} of the file")
    label = "The scores of the measured models without training and as files"
    part = table if few else Plot(label, plot, _SMALL_PLOT_HEIGHT, table)
    yield Section("ranking", "How well the quick judgement ranks", (words,), (part,))


def _sensitivity(record: SearchRecord) -> Iterator[Section]:
    if record.sensitivity is not None and record.sensitivity.curves:
        yield sensitivity_section(record.sensitivity)


def sensitivity_section(curves: Sensitivity) -> Section:
    """The curves, with a cross where each collapses."""
    collapse = curves.collapse(_MAX_DROP)
    series = []
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        texts = [[curve.name, f"{level:.0%} removed"] for level in (0.0, *curve.levels)]
        scores = (curves.baseline, *curve.scores)
        said = [[*text, f"{curves.metric} {score:.4g}"] for text, score in zip(texts, scores, strict=True)]
        series.append(Points(curve.name, (0.0, *curve.levels), scores, said, colour, "circle", 5, "linear"))
    crosses = [(curve, level) for curve in curves if (level := collapse[curve.name]) is not None]
    if crosses:
        scores = tuple(curve.scores[curve.levels.index(level)] for curve, level in crosses)
        said = [[curve.name, f"collapses at {level:.0%}"] for curve, level in crosses]
        levels = [level for _, level in crosses]
        series.append(Points("collapse", levels, scores, said, GREY, "x-thin-open", 12))
    plot = scatter(series, f"{curves.kind} removed", curves.metric, x_format=".0%")
    most = max(len(curve.levels) for curve in curves)
    header = ("Group", curves.kind.capitalize(), *(["Removed", curves.metric] * most), "Collapse")
    rows = tuple(
        (
            curve.name,
            figure(curve.size, ",d"),
            *_level_cells(curve, most),
            "never" if (level := collapse[curve.name]) is None else figure(level, ".0%", "bad"),
        )
        for curve in curves
    )
    table = PageTable("The curves as a table", header, rows, folded=True)
    drop = f"{_MAX_DROP:.0%} of that" if curves.baseline else f"{_MAX_DROP:g}"
    words = (
        f"Each group is cut alone. The whole model has {curves.metric} {curves.baseline:.4g}, on "
        f"{curves.num_samples:,} samples; a curve collapses at the first level that loses more than {drop}.",
    )
    label = f"{curves.metric} as each group's {curves.kind} are removed"
    return Section("sensitivity", "Which parts matter", words, (Plot(label, plot, _PLOT_HEIGHT, table),))


def _level_cells(curve: SensitivityCurve, most: int) -> Iterator[Cell]:
    for level, score in zip(curve.levels, curve.scores, strict=True):
        yield from (figure(level, ".0%"), figure(score))
    yield from [""] * (2 * (most - len(curve.levels)))


def _widths(record: SearchRecord) -> Iterator[Section]:
    winner = winner_of(record)
    candidate = None if winner is None else winner.candidate
    if candidate is None:
        return
    scheme = candidate.quantization
    name = "float32" if scheme is None else str(scheme)
    words = [f"The file is quantized as {name}{', and was trained for it' if candidate.quantize_aware else ''}."]
    if candidate.removed_blocks:
        words.append(f"Blocks that were removed: {', '.join(candidate.removed_blocks)}.")
    if candidate.sparsity:
        words.append(f"{candidate.sparsity:.0%} of the weights are zero.")
    if not candidate.widths:
        words.append("No group lost channels.")
    before = record.header.widths
    # A removed block may remove a group too.
    groups = [(one, before[one], candidate.widths.get(one, before[one])) for one in before]
    yield Section("widths", "What was removed", tuple(words), tuple(width_plot(groups)))


def _settings(record: SearchRecord) -> Section:
    header = record.header
    rows: list[tuple[Cell, ...]] = [
        ("seed", figure(header.seed, "d")),
        ("target", header.target),
        *((name, amount(name, value)) for name, value in header.limits.items()),
        *((name, str(value)) for name, value in header.settings.items()),
        ("fingerprint of the model", header.model_fingerprint),
        ("fingerprint of the data", header.data_fingerprint),
    ]
    table = PageTable("What was asked for", ("", ""), tuple(rows), sortable=False)
    return Section("settings", "Settings", (), (table,))
