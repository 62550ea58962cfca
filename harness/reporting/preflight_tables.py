"""The preflight's tables of programs and of rows, and its sentences on the totals, from forecasts."""

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
    """Maps each program's key to its name in the tables: "T1", "T2" for train steps, "E1" for evaluation steps."""
    names: dict[str, str] = {}
    every = [program for forecast in found for program, _ in forecast.programs]
    for letter, kind in (("T", "train"), ("E", "evaluation")):
        keys = dict.fromkeys(program.key for program in every if program.kind == kind)
        names |= {key: f"{letter}{number}" for number, key in enumerate(keys, 1)}
    return names


def programs(
    found: Sequence[Forecast], slice_: Slice, fitting: Mapping[str, Result | None], failures: Mapping[str, str]
) -> Table:
    """Returns the table of programs: whether each compiles and fits, what it needs, and the least time of a step.

    Args:
      found: the forecasts, one for each run.
      slice_: the slice.
      fitting: key of a program that does not fit -> the result of the largest batch that fits, None where none does.
      failures: key of a program -> why it could not be compiled.

    Returns:
      The table. The data are indexed by "program", in bytes, operations of a core and step, and seconds.
    """
    names = letters(found)
    lines: dict[str, dict[str, Any]] = {}
    for forecast in found:
        for program, result in forecast.programs:
            line = lines.setdefault(program.key, _program(names[program.key], program, result, slice_))
            line["rows"] += forecast.planned.rows
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
    """Sorts train steps before evaluation steps, each by number."""
    return {"T": "0", "E": "1"}[line["program"][0]], int(line["program"][1:])


def _program(name: str, program: Program, result: Result | None, slice_: Slice) -> dict[str, Any]:
    settings = program.run.settings
    part = "train" if program.kind == "train" else "validation"
    least, executable = step_bound(result, slice_), None if result is None else result.executable
    memory = None if executable is None else executable.memory
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
        "multiply_adds": math.nan if executable is None else executable.operations / 2,
        "bytes_moved": math.nan if executable is None else executable.bytes_moved,
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
    compiled_by = ", ".join(sorted({name for name in compilers if name}))
    sentences = [f"Of one core and step, by {compiled_by}." if compiled_by else "Nothing was compiled."]
    if estimated:
        sentences.append(
            "No compiler for TPUs is installed here: XLA compiled the steps for the CPU, and memory, bytes and time "
            "are estimates; pip install -e '.[preflight]' brings the TPU's own."
        )
    sentences += [
        "Arguments are the batch and the variables. Needed is the sum, with outputs that take no argument's place; of "
        f"what a core has, the compiler gives a program {slice_.generation.usable / _GB:.1f} GB.",
        "Multiply-adds and bytes are the compiler's count, without what stays on the chip between two operations; a "
        "step takes at least the longer of both at the published "
        f"peaks ({slice_.generation.peak / 1e12:g} T operations and {slice_.generation.bandwidth / 1e9:g} GB a second "
        f"and core, {slice_.generation.source}).",
    ]
    return " ".join(sentences)


def rows(
    found: Sequence[Forecast], studies: Sequence[Study], price: float | None, speed: InputSpeed | None = None
) -> Table:
    """Returns the table of runs: the programs, the steps and the cost of each on the slice.

    Args:
      found: the forecasts, one for each run.
      studies: the studies of the rows, for the title.
      price: price of a chip for an hour; None to leave it out.
      speed: measured speed at which a machine reads clips; None where it was not measured.

    Returns:
      The table. Seeds of one row share a line, whose hours are their sum. The data are indexed by "runs".
    """
    names, slice_ = letters(found), found[0].slice_
    lines: dict[Any, list[Forecast]] = {}
    for forecast in found:  # seeds of one row look alike in the table
        lines.setdefault((forecast.planned.rows, _changes(forecast), forecast.is_measured), []).append(forecast)
    data = pd.DataFrame([_row(forecasts, names, price, speed) for forecasts in lines.values()]).set_index("runs")
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
    measured = any(forecast.is_measured for forecast in found)
    return Table(
        name="preflight-rows",
        title=f"{', '.join(study.name for study in studies)} on {_described(slice_)}",
        caption=_rows_caption(measured, price, speed),
        columns=tuple(shown),
        data=data,
    )


def _changes(forecast: Forecast) -> str:
    """Returns a run's toggles and stage, which set its row apart whatever the seed."""
    cell = forecast.planned.run.cell
    stage = f" ({cell.stage.label})" if cell.stage else ""
    return (" ".join(change.short for change in cell.applied) or "baseline") + stage


def _row(
    forecasts: Sequence[Forecast], names: Mapping[str, str], price: float | None, speed: InputSpeed | None
) -> dict[str, Any]:
    """Returns the line of one row's runs, which differ only in their seeds."""
    first, times = forecasts[0], len(forecasts)
    hours = math.nan if first.hours is None else times * first.hours
    return {
        "runs": tuple(forecast.planned.run.id for forecast in forecasts),
        "rows": first.planned.rows,
        "changes": _changes(first),
        "train": names[first.train.key],
        "evaluation": names[first.evaluation.key] if first.planned.run.evaluated else "",
        "obstacle": core_hours.of_run(first).obstacle,
        "steps": first.steps,
        "batch": first.train.clips * first.slice_.cores,
        "evaluation_steps": first.evaluation_steps,
        "step_seconds": _number(first.step_seconds),
        "evaluation_seconds": _number(first.evaluation_seconds),
        "hours": hours,
        "core_hours": hours * first.slice_.cores,
        "price": math.nan if price is None else hours * first.slice_.chips * price,
        "clips_per_second": _number(first.clips_per_second),
        "clips_per_second_here": math.nan if speed is None else speed.clips_per_second(first.planned.run),
        "measured": first.is_measured,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _bound(line: Line, name: str, sign: str = "≥") -> str:
    """Formats a number of a row, with the sign of a bound unless it was measured.

    Where the hours are unknown, the obstacle stands in their place, such as a program that does not fit.
    """
    if math.isnan(line[name]):
        return line["obstacle"] or _NOTHING if name == "hours" else _NOTHING
    return ("" if line["measured"] else f"{sign} ") + core_hours.amount(line[name])


def _machines(line: Line) -> str:
    """Returns how many machines like the benchmark's would read as many clips a second as a host's cores take."""
    if math.isnan(line["clips_per_second"]):
        return _NOTHING
    return core_hours.amount(line["clips_per_second"] / line["clips_per_second_here"])


def _rows_caption(measured: bool, price: float | None, speed: InputSpeed | None) -> str:
    sentences = ["Hours of training and the reported evaluation on the whole slice, one run after the other."]
    sentences.append(
        "≥: the least that is possible, every core at its published peak in each step, nothing waiting for input, "
        "nothing for another core, no validation or checkpoint in between."
    )
    if measured:
        sentences.append("Without a sign: as recorded runs of the same program took on such a slice.")
    if price is not None:
        sentences.append(f"Price: at {price:g} for a chip and hour.")
    sentences.append("≤ clips/s: what a host must read at most, so that no core waits.")
    if speed is None:
        sentences.append("python -m harness.benchmark input measures what a machine reads.")
    else:
        sentences.append(
            f"Machines like this one: it has {speed.cores} CPU cores and read, in python -m harness.benchmark input, "
            f"{speed.plain:,.0f} clips/s of {FRAMES} frames, {speed.augmented:,.0f} with RandAugment; with more "
            "frames, fewer in proportion."
        )
    return " ".join(sentences)


def totals(own: Total, naive: Total, shared: bool, slice_: Slice, price: float | None) -> list[str]:
    """Returns sentences on the total cost; none where no cost is known.

    Args:
      own: the total of all runs, each counted once.
      naive: the total of all runs, each counted once for every row that wants it.
      shared: whether rows share runs, so that the two totals differ.
      slice_: the slice.
      price: price of a chip for an hour; None to leave it out.
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


def _whole(total: Total, slice_: Slice, price: float | None) -> str:
    runs = f"{total.known} run{'' if total.known == 1 else 's'}"
    least = "" if total.measured else "at least "
    cost = (
        ""
        if price is None
        else f", {core_hours.amount(total.hours * slice_.chips * price)} at {price:g} for a chip and hour"
    )
    rest = _unknown(total.unknown)
    hours = f"{core_hours.amount(total.hours)} hours, {core_hours.amount(total.core_hours)} core-hours"
    return f"{runs}, {least}{hours}{cost}{rest}"
