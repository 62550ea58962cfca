"""Forecasts -> two tables, of the programs and of the rows, and sentences on the whole; nothing is computed or read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.accelerators import core_hours
from harness.accelerators.forecasts import Forecast, Total, step_bound
from harness.accelerators.programs import Program
from harness.accelerators.results import Result
from harness.config.slices import Slice
from harness.config.studies import Study
from harness.data.input_speed import FRAMES, InputSpeed
from harness.reporting.render import Column, Line, Table

_NOTHING = "–"
_GB = 1e9


def letters(found: Sequence[Forecast]) -> dict[str, str]:
    """Key of a program -> its name in the tables: "T1", "T2" the train steps, "E1" the evaluation steps."""
    names: dict[str, str] = {}
    every = [program for one in found for program, _ in one.programs]
    for letter, kind in (("T", "train"), ("E", "evaluation")):
        keys = dict.fromkeys(program.key for program in every if program.kind == kind)
        names |= {key: f"{letter}{number}" for number, key in enumerate(keys, 1)}
    return names


def programs(
    found: Sequence[Forecast], slice_: Slice, fitting: Mapping[str, Result | None], failures: Mapping[str, str]
) -> Table:
    """A line for each program: whether it compiles and fits, what it needs and does, and the least time of a step.

    Args:
      found: the forecasts, one for each run.
      slice_: the slice.
      fitting: key of a program that does not fit -> the result of the largest batch that does, None where none does.
      failures: key of a program -> what kept it from being compiled.

    Returns:
      The table. Its data are indexed by "program", in bytes, operations of a core and step, and seconds.
    """
    names = letters(found)
    lines: dict[str, dict[str, Any]] = {}
    for one in found:
        for program, result in one.programs:
            line = lines.setdefault(program.key, _program(names[program.key], program, result, slice_))
            line["rows"] += one.planned.rows
            if program.key in failures:
                line["verdict"] = "could not be compiled"
            elif program.key in fitting:
                line["fitting"] = 0 if (best := fitting[program.key]) is None else best.clips
                line["verdict"] = _too_large(line, best)
    data = pd.DataFrame(sorted(lines.values(), key=_place)).set_index("program")
    data["rows"] = [tuple(dict.fromkeys(rows)) for rows in data["rows"]]
    return Table(
        name="preflight-programs",
        title=f"Programs on {_described(slice_)}",
        caption=_programs_caption(list(data["compiler"]), any(data["estimated"]), slice_),
        columns=(
            Column("program", lambda line: str(line["program"])),
            Column("rows", lambda line: _rows(line["rows"]), wrap=16),
            Column("a core's batch", lambda line: f"{line['clips']} × {_shape(line)}", wrap=18),
            Column("verdict", lambda line: line["verdict"], wrap=24),
            Column("arguments (GB)", _scaled("arguments", _GB), "right"),
            Column("temporaries (GB)", _scaled("temporaries", _GB), "right"),
            Column("code (GB)", _scaled("code", _GB), "right"),
            Column(f"needed of {slice_.generation.memory / _GB:.1f} GB", _share, "right"),
            Column("multiply-adds (T)", _scaled("multiply_adds", 1e12), "right"),
            Column("moved (GB)", _scaled("bytes_moved", _GB, 1), "right"),
            Column("step, at least (ms)", _scaled("step_seconds", 1e-3, 1), "right"),
            Column("bound by", lambda line: line["bound_by"] or _NOTHING),
        ),
        data=data,
    )


def _place(line: Mapping[str, Any]) -> tuple[str, int]:
    """Train steps first, in the order of their numbers."""
    return {"T": "0", "E": "1"}[line["program"][0]], int(line["program"][1:])


def _program(name: str, program: Program, result: Result | None, slice_: Slice) -> dict[str, Any]:
    settings = program.run.settings
    part = "train" if program.kind == "train" else "validation"
    least, made = step_bound(result, slice_), None if result is None else result.executable
    memory = None if made is None else made.memory
    return {
        "program": name,
        "key": program.key,
        "kind": program.kind,
        "rows": (),
        "clips": program.clips,
        "views": program.views,
        "unit": program.unit,
        "frames": settings[f"task.{part}_data.feature_shape[0]"],
        "size": settings["task.train_data.feature_shape[1]"] if part == "train" else program.run.protocol.size,
        "verdict": _verdict(result),
        "reason": "" if result is None else result.reason,
        "fitting": math.nan,
        "arguments": math.nan if memory is None else memory.arguments,
        "outputs": math.nan if memory is None else memory.outputs,
        "aliased": math.nan if memory is None else memory.aliased,
        "temporaries": math.nan if memory is None else memory.temporaries,
        "code": math.nan if memory is None else memory.code,
        "needed": math.nan if memory is None else memory.needed,
        "memory": slice_.generation.memory,
        "multiply_adds": math.nan if made is None else made.operations / 2,
        "bytes_moved": math.nan if made is None else made.bytes_moved,
        "step_seconds": math.nan if least is None else least.seconds,
        "compute_seconds": math.nan if least is None else least.compute,
        "memory_seconds": math.nan if least is None else least.memory,
        "bound_by": "" if least is None else least.limited_by,
        "estimated": result is not None and result.estimated,
        "compiler": "" if result is None else result.compiler,
    }


def _verdict(result: Result | None) -> str:
    if result is None:
        return "not compiled"
    if result.fits:
        return "fits, by an estimate" if result.estimated else "fits"
    return core_hours.obstacle([result])


def _too_large(line: Mapping[str, Any], best: Result | None) -> str:
    unit = line["unit"]
    if best is None:
        return f"does not fit, nor does one {unit}"
    return f"does not fit; {best.clips} {unit}{'' if best.clips == 1 else 's'} a core do"


def _shape(line: Line) -> str:
    views = f"{line['views']} views, " if line["views"] > 1 else ""
    return f"{views}{line['frames']}×{line['size']}²"


def _scaled(name: str, unit: float, digits: int = 2) -> Any:
    return lambda line: _NOTHING if math.isnan(line[name]) else f"{line[name] / unit:,.{digits}f}"


def _share(line: Line) -> str:
    return _NOTHING if math.isnan(line["needed"]) else f"{100 * line['needed'] / line['memory']:.0f} %"


def _rows(rows: Sequence[str]) -> str:
    return ", ".join(rows)


def _described(slice_: Slice) -> str:
    hosts = f"{slice_.hosts} host{'' if slice_.hosts == 1 else 's'}"
    return f"TPU {slice_.topology}: {slice_.chips} chips, {slice_.cores} cores, {hosts}"


def _programs_caption(compilers: Sequence[str], estimated: bool, slice_: Slice) -> str:
    by = ", ".join(sorted({one for one in compilers if one}))
    said = [f"Of one core and step, by {by}." if by else "Nothing was compiled."]
    if estimated:
        said.append(
            "No compiler for TPUs is installed here: XLA compiled the steps for the CPU, and memory, bytes and time "
            "are estimates; pip install -e '.[preflight]' brings the TPU's own."
        )
    said += [
        "Arguments are the batch and the variables. Needed is the sum, with outputs that take no argument's place; of "
        f"what a core has, the compiler gives a program {slice_.generation.usable / _GB:.1f} GB.",
        "Multiply-adds and bytes are the compiler's count, without what stays on the chip between two operations; a "
        "step takes at least the longer of both at the published "
        f"peaks ({slice_.generation.peak / 1e12:g} T operations and {slice_.generation.bandwidth / 1e9:g} GB a second "
        f"and core, {slice_.generation.source}).",
    ]
    return " ".join(said)


def rows(
    found: Sequence[Forecast], studies: Sequence[Study], price: float | None, speed: InputSpeed | None = None
) -> Table:
    """A line for each run: its programs, its steps, and what it takes on the slice.

    Args:
      found: the forecasts, one for each run.
      studies: whose rows they are, for the title.
      price: of a chip and hour; None to leave it out.
      speed: at which a machine read clips; None where none was measured.

    Returns:
      The table: seeds of one row are one line, whose hours are those of all of them. Its data are indexed by "runs".
    """
    names, slice_ = letters(found), found[0].slice_
    lines: dict[Any, list[Forecast]] = {}
    for one in found:  # seeds of one row differ in nothing that is shown
        lines.setdefault((one.planned.rows, _changes(one), one.is_measured), []).append(one)
    data = pd.DataFrame([_row(own, names, price, speed) for own in lines.values()]).set_index("runs")
    shown = [
        Column("rows", lambda line: _rows(line["rows"]), wrap=16),
        Column("toggles and scale", lambda line: line["changes"], wrap=40),
        Column("programs", lambda line: ", ".join(name for name in (line["train"], line["evaluation"]) if name)),
        *([Column("seeds", lambda line: str(len(line["runs"])), "right")] if len(data) < len(found) else []),
        Column("steps", lambda line: f"{line['steps']:,}", "right"),
        Column("hours", lambda line: _bound(line, "hours"), "right"),
        Column("core-hours", lambda line: _bound(line, "core_hours"), "right"),
    ]
    if price is not None:
        shown.append(Column("price", lambda line: _bound(line, "price"), "right"))
    shown.append(Column("clips/s a host", lambda line: _bound(line, "clips_per_second", "≤"), "right"))
    if speed is not None:
        shown.append(Column("machines like this one a host", _machines, "right"))
    measured = any(one.is_measured for one in found)
    return Table(
        name="preflight-rows",
        title=f"{', '.join(study.name for study in studies)} on {_described(slice_)}",
        caption=_rows_caption(measured, price, speed),
        columns=tuple(shown),
        data=data,
    )


def _changes(one: Forecast) -> str:
    """What sets a row apart, whatever the seed."""
    cell = one.planned.run.cell
    stage = f" ({cell.stage.label})" if cell.stage else ""
    return (" ".join(change.short for change in cell.applied) or "baseline") + stage


def _row(
    own: Sequence[Forecast], names: Mapping[str, str], price: float | None, speed: InputSpeed | None
) -> dict[str, Any]:
    """A line of one row's runs, which differ in their seeds."""
    one, times = own[0], len(own)
    hours = math.nan if one.hours is None else times * one.hours
    return {
        "runs": tuple(each.planned.run.id for each in own),
        "rows": one.planned.rows,
        "changes": _changes(one),
        "train": names[one.train.key],
        "evaluation": names[one.evaluation.key] if one.planned.run.evaluated else "",
        "obstacle": core_hours.of_run(one).obstacle,
        "steps": one.steps,
        "batch": one.train.clips * one.slice_.cores,
        "evaluation_steps": one.evaluation_steps,
        "step_seconds": _number(one.step_seconds),
        "evaluation_seconds": _number(one.evaluation_seconds),
        "hours": hours,
        "core_hours": hours * one.slice_.cores,
        "price": math.nan if price is None else hours * one.slice_.chips * price,
        "clips_per_second": _number(one.clips_per_second),
        "clips_per_second_here": math.nan if speed is None else speed.clips_per_second(one.planned.run),
        "measured": one.is_measured,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _bound(line: Line, name: str, sign: str = "≥") -> str:
    """A number of a row with the sign of a bound, unless it was measured; in place of hours what keeps it from any."""
    if math.isnan(line[name]):
        return line["obstacle"] or _NOTHING if name == "hours" else _NOTHING
    return ("" if line["measured"] else f"{sign} ") + core_hours.amount(line[name])


def _machines(line: Line) -> str:
    """How many machines like that of the benchmark a host would need to be, to read what its cores take."""
    if math.isnan(line["clips_per_second"]):
        return _NOTHING
    return core_hours.amount(line["clips_per_second"] / line["clips_per_second_here"])


def _rows_caption(measured: bool, price: float | None, speed: InputSpeed | None) -> str:
    said = ["Hours of training and the reported evaluation on the whole slice, one run after the other."]
    said.append(
        "≥: the least that is possible, every core at its published peak in each step, nothing waiting for input, "
        "nothing for another core, no validation or checkpoint in between."
    )
    if measured:
        said.append("Without a sign: as recorded runs of the same program took on such a slice.")
    if price is not None:
        said.append(f"Price: at {price:g} for a chip and hour.")
    said.append("≤ clips/s: what a host must read at most, so that no core waits.")
    if speed is None:
        said.append("python -m harness.benchmark input measures what a machine reads.")
    else:
        said.append(
            f"Machines like this one: it has {speed.cores} CPU cores and read, in python -m harness.benchmark input, "
            f"{speed.plain:,.0f} clips/s of {FRAMES} frames, {speed.augmented:,.0f} with RandAugment; with more "
            "frames, fewer in proportion."
        )
    return " ".join(said)


def totals(own: Total, naive: Total, shared: bool, slice_: Slice, price: float | None) -> list[str]:
    """What the whole takes, sentences; none where nothing is known.

    Args:
      own: of all runs, each once.
      naive: of all runs, each as often as a row wants it.
      shared: whether rows share runs, so that the two differ.
      slice_: the slice.
      price: of a chip and hour.
    """
    if not own.known:
        return []
    lines = [f"Together: {_whole(own, slice_, price)}."]
    if shared:
        lines.append(f"If no row shared a run with another: {_whole(naive, slice_, price)}.")
    return lines


def _unknown(count: int) -> str:
    if not count:
        return ""
    return "; 1 more is not known or does not fit" if count == 1 else f"; {count} more are not known or do not fit"


def _whole(one: Total, slice_: Slice, price: float | None) -> str:
    runs = f"{one.known} run{'' if one.known == 1 else 's'}"
    least = "" if one.measured else "at least "
    cost = (
        ""
        if price is None
        else f", {core_hours.amount(one.hours * slice_.chips * price)} at {price:g} for a chip and hour"
    )
    rest = _unknown(one.unknown)
    hours = f"{core_hours.amount(one.hours)} hours, {core_hours.amount(one.core_hours)} core-hours"
    return f"{runs}, {least}{hours}{cost}{rest}"
