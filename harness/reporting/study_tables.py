"""The tables of a study's summary and of credits: their columns, and how numbers are written in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.accelerators import core_hours
from harness.analysis.credit import Credits
from harness.analysis.study_summary import Summary
from harness.analysis.verdicts import MARGIN
from harness.config.studies import Row, Study
from harness.config.toggles import Toggle, ToggleValue
from harness.reporting.render import Column, Line, Table

NOTHING = "–"
DAGGER = "†"
_LARGEST = 10  # most interactions shown; the CSV file has all

_MARKS = {
    **dict.fromkeys(("better", "worse", "more", "less"), "*"),
    **dict.fromkeys(("slightly better", "slightly worse"), "*≈"),
    "no difference": "≈",
}
_ACCURACY = ["top1", "low", "high", "top5", "top5_low", "top5_high"]
_STEP = [
    "step", "step_low", "step_high", "p", "p_holm", "p_equal", "p_equal_holm", "finding", "right", "wrong", "classes",
    "smallest", "settle", "spread", "units", "step_population", "discordance",
]  # fmt: skip
_COUNTS = ["seeds", "seeds_wanted", "videos"]
_VERDICT = ["verdict", "verdict_low", "verdict_high"]
_NUMBERS = [
    "gflops", "params", *_ACCURACY, *_STEP, *_COUNTS, "paper_top1", "paper_step", "paper_gflops", "run_ids",
]  # fmt: skip


_STEPS_READ = (
    "A step's interval is not corrected for their number; where it and the p-value disagree, the p-value decides. "
    "Flipped: videos that just one of the two rows has right, mean over the seeds; of a class, the net of them. "
    "Smallest visible step: the smallest that would have been found at Holm's strictest level with 80 % power. To "
    "settle: what would so find a step, if it is as large as the one seen; more videos settle it for these trainings "
    "only, and for the recipe only more seeds do."
)
# Head of a column of verdicts, and how to read them.
VERDICT_HEAD = "verdict, ours − paper"
VERDICT_READ = (
    "The verdict is on ours less the paper's, points of top-1, by its 95 % interval: agrees where that lies within "
    f"{MARGIN:g} either way; else below or above where it leaves out zero, and inconclusive where it does not."
)


def additive(summary: Summary) -> Table:
    """Returns a table like the paper's Table 2: ticks for the toggles, top-1 with its step, and the paper's beside it.

    The data have a line for each row of the study, indexed by its number ("row"). Columns: "model"; for each toggle a
    boolean under its key; and the numbers of :class:`harness.analysis.study_summary.Summary`'s rows under the names
    they have there, those of a verdict where the summary has verdicts, and those of :func:`cost_data`.
    """
    rows = summary.rows
    # Every row has a value of a scaling axis, so a tick would say nothing; the value is shown with the model.
    toggles = [toggle for toggle in summary.study.toggles if not toggle.axis]
    shown = [
        Column("#", lambda line: str(line["row"]), "right"),
        Column("Model", lambda line: line["model"] or NOTHING),
        *(Column(toggle.label, _tick(_field(toggle)), "center") for toggle in toggles),
        Column("GFLOPs", _gflops, "right"),
        Column("top-1 (%)", _top1(_origins(summary.study))),
        Column("95 % interval", _interval),
    ]
    if rows["step_low"].notna().any():
        shown.append(Column("step's 95 % interval", _step_interval))
    if rows["paper_top1"].notna().any():
        shown.append(Column(summary.reference, _paper))
    judged = summary.comparable and "verdict" in rows
    if judged:
        shown.append(Column(VERDICT_HEAD, _judged, wrap=14))
    shown += cost_columns(summary)
    sentences = [*_legend(toggles), summary.caption, *([VERDICT_READ] if judged else []), *costs_read(summary)]
    return Table(
        name=summary.study.name,
        title=f"{summary.study.title} ({summary.profile} profile)",
        caption=" ".join(sentences),
        columns=tuple(shown),
        data=_raw(summary, toggles),
    )


def _legend(toggles: Sequence[Toggle]) -> list[str]:
    """Returns a sentence that explains the heads of the toggles' columns; none where there is no toggle."""
    # The first clause of a meaning says what the toggle is; details follow.
    meanings = {toggle.label: re.split(r"[,;:(]", toggle.meaning)[0].strip() for toggle in toggles}
    explained = "; ".join(f"{label}: {meaning}" for label, meaning in meanings.items() if meaning)
    return [f"{explained}."] if explained else []


def _origins(study: Study) -> dict[int, str]:
    """Maps each row's number to the row that its step is from, in the words of :func:`origin`."""
    numbers = [row.number for row in study.rows]
    before = zip(study.rows, [None, *numbers], strict=False)
    return {row.number: origin(row.follows, above) if row.follows in numbers else "" for row, above in before}


def origin(follows: float | None, above: float | None) -> str:
    """Names the row that a step is from: "from row 4"; empty for the row just above, or for no step.

    Args:
      follows: number of the row that the step is from, None for no step.
      above: number of the row above, None where there is none.
    """
    return "" if follows is None or follows == above else f"from row {follows:.0f}"


def _raw(summary: Summary, toggles: list[Toggle]) -> pd.DataFrame:
    rows = summary.rows
    models = pd.Series({row.number: model(row) for row in summary.study.rows}, dtype=object).reindex(rows.index)
    ticks = {_field(toggle): [_ticked(row, toggle) for row in summary.study.rows] for toggle in toggles}
    marked = pd.DataFrame({"model": models, **ticks}, index=rows.index)
    judged = [name for name in _VERDICT if name in rows]
    costs = cost_data(summary, pd.Series(rows.index, rows.index))
    return pd.concat([marked, rows[[*_NUMBERS, *judged]], costs], axis="columns").rename_axis("row")


def _ticked(row: Row, toggle: Toggle) -> bool | str:
    """Returns whether the row has the toggle, or its value where that is not the default, which a tick would hide."""
    value = next((applied.value for applied in row.applied if applied.toggle.key == toggle.key), None)
    return value is not None if value in (None, toggle.default) else str(value)


def _field(toggle: Toggle) -> str:
    """Returns the name of the toggle's column in the data: its key, prefixed if another column has that name."""
    return f"toggle_{toggle.key}" if toggle.key in {"row", "model", *_NUMBERS, *_VERDICT} else toggle.key


def cost_columns(summary: Summary, whose: str = "") -> list[Column]:
    """Returns the columns of the rows' core-hours, one for each slice with known costs.

    Args:
      summary: the summary with the rows.
      whose: beginning of the heads: "ours: ".
    """
    return [
        Column(f"{whose}core-hours, TPU {cost.topology}", _core_hours(cost.topology), "right") for cost in summary.costs
    ]


def cost_data(summary: Summary, numbers: pd.Series[Any]) -> pd.DataFrame:
    """Returns the data of :func:`cost_columns`, three columns for each slice.

    Args:
      summary: the summary with the rows.
      numbers: number of a row for each line of a table, NaN for a line without a row.

    Returns:
      A frame with the index of the lines; columns "core_hours_v3:8x8" (NaN where unknown), "measured_v3:8x8" (True for
      a measurement, False for a bound), "obstacle_v3:8x8" (shown in place of the hours: "does not fit", "does not
      compile", or nothing).
    """
    costs = [
        cost.rows.reindex(numbers).set_axis(numbers.index).add_suffix(f"_{cost.topology}") for cost in summary.costs
    ]
    data = pd.concat([pd.DataFrame(index=numbers.index), *costs], axis="columns")
    # A line without a row was not measured and has no obstacle.
    for name in data:
        if not name.startswith("core_hours"):
            data[name] = data[name].eq(True) if name.startswith("measured") else data[name].fillna("")
    return data


def _core_hours(topology: str) -> Callable[[Line], str]:
    def shown(line: Line) -> str:
        hours, obstacle = line[f"core_hours_{topology}"], line[f"obstacle_{topology}"]
        if math.isnan(hours):
            return obstacle if isinstance(obstacle, str) and obstacle else NOTHING
        return ("" if line[f"measured_{topology}"] else "≥ ") + core_hours.amount(hours)

    return shown


def costs_read(summary: Summary) -> list[str]:
    """Returns the sentence that explains the columns of core-hours; none where there is no such column."""
    if not summary.costs:
        return []
    phrases = ["Core-hours: of training and the reported evaluation on that slice, all seeds of a row together"]
    if any(cost.bounded for cost in summary.costs):
        by = " and ".join(sorted({name for cost in summary.costs for name in cost.by}))
        phrases.append(f"≥: the least that is possible, by the counts of {by} and published peaks")
    if any(cost.measured for cost in summary.costs):
        phrases.append("without a sign: as measured on recorded runs")
    return [f"{'; '.join(phrases)}."]


def steps(summary: Summary) -> Table:
    """Returns the table of steps: each step's size, tests, moved videos and classes, and what would settle it.

    Rows without a step are listed for their top-5. The data are those of :func:`additive`, with "change" (what the row
    adds or takes away), "follows" (number of the row that its step is from) and "absent" (the text in place of a
    missing step) instead of the model and the toggles.
    """
    rows, origins = summary.rows, _origins(summary.study)
    described = {
        "change": [change(row, summary.study) for row in summary.study.rows],
        "follows": pd.array([row.follows for row in summary.study.rows], dtype="Int64"),
        "absent": [_absent_step(row, rows) for row in summary.study.rows],
    }
    return Table(
        name=f"{summary.study.name}-steps",
        title=f"{summary.study.title}: its steps ({summary.profile} profile)",
        caption=f"{summary.caption} {_STEPS_READ}",
        columns=(
            Column("#", lambda line: str(line["row"]), "right"),
            Column("change", lambda line: _from(line["change"], origins[line["row"]]), wrap=14),
            Column("top-5 (%)", _top5),
            Column("step, 95 % interval", _step),
            Column("p", _number("p", p_value), "right"),
            Column("p (Holm)", _number("p_holm", p_value), "right"),
            Column("finding", lambda line: line["finding"] or NOTHING),
            Column("flipped right / wrong", _flipped, "right"),
            Column("most affected classes", _classes, wrap=22),
            Column("smallest visible step", _number("smallest", "{:.1f}".format), "right"),
            Column("to settle", lambda line: line["settle"] or NOTHING),
        ),
        data=pd.concat(
            [pd.DataFrame(described, index=rows.index), rows[[*_ACCURACY, *_STEP, *_COUNTS, "run_ids"]]], axis="columns"
        ).rename_axis("row"),
    )


def _from(text: str, where: str) -> str:
    return f"{text} ({where})" if where else text


def _absent_step(row: Row, rows: pd.DataFrame) -> str:
    """Returns the text in place of a row's missing step; empty where it has a step, or expects none."""
    if row.follows not in rows.index:
        return ""
    for number, words in ((row.number, ""), (row.follows, f"row {row.follows}: ")):
        line = rows.loc[number]
        if math.isnan(line["top1"]):
            return words + absent(line["seeds"], line["seeds_wanted"])
    return ""


def credits(numbers: Credits) -> Table:
    """Returns the table of credits: a line for each toggle, a column for each design."""
    lines = {(line["design"], line["toggle"]): line for line in numbers.credits.to_dict("records")}
    columns = {design: [lines.get((design, label)) for label in numbers.labels] for design in numbers.designs}
    return Table(
        name=f"{numbers.name}-credit",
        title=f"{numbers.title} ({numbers.profile} profile)",
        caption=numbers.caption,
        columns=(
            Column("toggle", lambda line: line["toggle"]),
            *(Column(design, _credit_of(design)) for design in numbers.designs),
        ),
        data=pd.DataFrame(columns, index=pd.Index(numbers.labels, name="toggle"), dtype=object),
        more=numbers.credits.set_index("design"),
    )


def _credit_of(design: str) -> Callable[[Line], str]:
    return lambda line: _credit(line[design]) if line[design] else NOTHING


def _credit(line: Line) -> str:
    if math.isnan(line["credit"]):
        return str(line["absent"]) or NOTHING
    return _effect(line, "credit", "low", "high") + (DAGGER if line["note"] else "")


def interactions(numbers: Credits) -> Table | None:
    """Returns the table of the largest interactions, a line each; None where none could be estimated."""
    pairs = numbers.interactions
    if pairs.empty:
        return None
    every = pairs.assign(pair=pairs["first"] + " × " + pairs["second"]).set_index("pair")
    few = f" The {_LARGEST} largest of {len(every)} are shown." if len(every) > _LARGEST else ""
    return Table(
        name=f"{numbers.name}-interactions",
        title=f"{numbers.title}: interactions ({numbers.profile} profile)",
        caption=numbers.interactions_note + few,
        columns=(
            Column("pair", lambda line: line["pair"]),
            Column("effect, 95 % interval", lambda line: _effect(line, "effect", "low", "high")),
            Column("p", _number("p", p_value), "right"),
            Column("p (Holm)", _number("p_holm", p_value), "right"),
            Column("finding", lambda line: line["finding"] or NOTHING),
        ),
        data=every.head(_LARGEST),
        more=every,
    )


def model(row: Row) -> str:
    """Returns the row's model with its scale: "R3D-RS-200, 48 frames"; empty where it has neither.

    A value that the model's name contains, such as the 200, is not repeated.
    """
    named = re.findall(r"\w+", row.model)
    scale = [applied.label for applied in row.applied if applied.toggle.axis and str(applied.value) not in named]
    return ", ".join(filter(None, [row.model, *scale]))


def change(row: Row, study: Study) -> str:
    """Returns how the row differs from the one that it follows: "+ LS", "− LS", "48 frames", "+ pre-training".

    For a row that follows none it is its model. A change from a row outside the study begins with "…".
    """
    last = f"+ {row.applied[-1].label}" if row.applied else ""
    if row.follows is None:
        return model(row) or last or f"row {row.number}"
    followed = next((applied for applied in study.rows if applied.number == row.follows), None)
    if followed is None:
        return f"… {last}"
    ours, before = ({applied.toggle.key: applied for applied in each.applied} for each in (row, followed))
    added = [
        _added(applied, applied.toggle.key in before) for key, applied in ours.items() if applied != before.get(key)
    ]
    added += [f"+ {stage.label}" for stage in row.stages if stage not in followed.stages]
    removed = [applied.label for key, applied in before.items() if key not in ours]
    removed += [stage.label for stage in followed.stages if stage not in row.stages]
    return " ".join([*added, *(f"− {label}" for label in removed)]) or NOTHING


def _added(applied: ToggleValue, known: bool) -> str:
    if applied.toggle.axis:
        return applied.label
    return f"{applied.toggle.label} {applied.value}" if known else f"+ {applied.label}"


def absent(seeds: int, wanted: int) -> str:
    """Returns the text in place of a missing number: "not run", or "2 of 3 seeds"."""
    return f"{seeds} of {wanted} seeds" if seeds else "not run"


def signed(points: float) -> str:
    """Formats a difference in percentage points with its sign: "+0.3"; what rounds to zero is "+0.0"."""
    return f"{points:+z.1f}"


def mark(finding: str) -> str:
    """Returns a finding's mark: "*" for a difference that survives Holm, "≈" within the margin, "*≈" both, or none."""
    return _MARKS.get(finding, "")


def p_value(p: float) -> str:
    """Formats a p-value with three decimals: "0.032", "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _tick(field: str) -> Callable[[Line], bool | str]:
    return lambda line: line[field] if isinstance(line[field], str) else bool(line[field])


def _gflops(line: Line) -> str:
    value = line["gflops"]
    if math.isnan(value):
        return _missing(line)
    if value < 1:  # the networks of the quick profile would all be 0.0 or 0.1
        return f"{value:#.2g}"
    return f"{value:.1f}" if round(value, 1) < 10 else f"{value:.0f}"


def _top1(origins: Mapping[int, str]) -> Callable[[Line], str]:
    def shown(line: Line) -> str:
        if math.isnan(line["top1"]):
            return _missing(line)
        return with_step(line["top1"], line["step"], mark(line["finding"]), origins[line["row"]])

    return shown


def _interval(line: Line) -> str:
    return _missing(line) if math.isnan(line["top1"]) else _percent(line["low"], line["high"])


def _top5(line: Line) -> str:
    if math.isnan(line["top5"]):
        return _missing(line)
    return f"{line['top5']:.1f} {_percent(line['top5_low'], line['top5_high'])}"


def _missing(line: Line) -> str:
    # All seeds may be there, and the number still be unknown.
    return absent(line["seeds"], line["seeds_wanted"]) if line["seeds"] < line["seeds_wanted"] else NOTHING


def _percent(low: float, high: float) -> str:
    return f"[{low:.1f}, {high:.1f}]"


def _step_interval(line: Line) -> str:
    return NOTHING if math.isnan(line["step_low"]) else _points(line["step_low"], line["step_high"])


def _points(low: float, high: float) -> str:
    return f"[{signed(low)}, {signed(high)}]"


def _paper(line: Line) -> str:
    return NOTHING if math.isnan(line["paper_top1"]) else with_step(line["paper_top1"], line["paper_step"])


def _judged(line: Line) -> str:
    return _missing(line) if math.isnan(line["top1"]) else verdict(line)


def verdict(line: Line) -> str:
    """Formats a verdict with its interval: "agrees [-0.4, +0.7]"; a dash where there is none."""
    if math.isnan(line["verdict_low"]):
        return line["verdict"] or NOTHING
    return f"{line['verdict']} {_points(line['verdict_low'], line['verdict_high'])}"


def with_step(value: float, step: float, sign: str = "", where: str = "") -> str:
    """Formats an accuracy with its step, if known: "60.2 (-1.8*, from row 4)".

    Args:
      value: percent.
      step: percentage points; NaN for none.
      sign: the mark from :func:`mark`.
      where: the text from :func:`origin`.
    """
    if math.isnan(step):
        return f"{value:.1f}"
    return f"{value:.1f} ({', '.join(filter(None, [signed(step) + sign, where]))})"


def _step(line: Line) -> str:
    return line["absent"] or _effect(line, "step", "step_low", "step_high")


def _effect(line: Line, value: str, low: str, high: str) -> str:
    """Formats a difference with its interval, if it has one, and its mark: "+1.3 [+0.2, +2.4]*"."""
    if math.isnan(line[value]):
        return NOTHING
    ends = "" if math.isnan(line[low]) else f" {_points(line[low], line[high])}"
    return f"{signed(line[value])}{ends}{mark(line['finding'])}"


def _number(name: str, form: Callable[[float], str]) -> Callable[[Line], str]:
    return lambda line: NOTHING if math.isnan(line[name]) else form(line[name])


def _flipped(line: Line) -> str:
    if math.isnan(line["right"]):
        return NOTHING
    return f"{_count(line['right'])} / {_count(line['wrong'])}"


def _count(videos: float, sign: str = "") -> str:
    """Formats a mean number of videos, without decimals where it is whole."""
    return f"{videos:{sign},.0f}" if videos == round(videos) else f"{videos:{sign},.1f}"


def _classes(line: Line) -> str:
    return ", ".join(f"{name} {_count(net, '+')}" for name, net in line["classes"]) or NOTHING
