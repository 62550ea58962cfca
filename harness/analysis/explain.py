"""Where a number of a table comes from: its runs, their settings, data and files, and the number counted anew."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis import comparison, estimates, published, verdicts
from harness.analysis.study_summary import Summary
from harness.config import network
from harness.config.experiment import difference
from harness.config.studies import Row
from harness.config.toggles import suggest
from harness.planning import labels
from harness.store.records import RunRecord
from harness.store.run_store import Store
from harness.system.errors import HarnessError


class ExplainError(HarnessError):
    """There is no such number; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Address:
    """Which number is meant.

    Attributes:
      study: name of the study: "table2".
      row: number of the row.
      column: name of the column in the table's CSV file: "top1".
    """

    study: str
    row: int
    column: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What is known of a number.

    Attributes:
      lines: for the terminal.
      value: the number of the table; NaN where there is none.
      recounted: the same number, counted from the predictions files or the settings by a way of its own; NaN where it
        is the paper's, or nothing was run.
      agrees: whether both are one number.
    """

    lines: tuple[str, ...]
    value: float
    recounted: float
    agrees: bool


def address(text: str) -> Address:
    """Reads STUDY:ROW:COLUMN.

    Raises:
      ExplainError: it is no such text.
    """
    parts = text.split(":")
    if len(parts) != 3 or not parts[1].isascii() or not parts[1].isdigit():
        raise ExplainError(f"{text!r}: expected STUDY:ROW:COLUMN, such as table2:5:top1")
    return Address(parts[0], int(parts[1]), parts[2])


def columns(numbers: Summary) -> list[str]:
    """The columns of a summary that hold numbers."""
    kinds = numbers.rows.dtypes
    return [str(name) for name in numbers.rows.columns if pd.api.types.is_numeric_dtype(kinds[name])]


def explain(numbers: Summary, wanted: Mapping[int, Mapping[int, str]], store: Store, of: Address) -> Explanation:
    """Explains one number.

    Args:
      numbers: the study's summary, as its table is drawn from.
      wanted: row number -> seed -> id of the run.
      store: the records.
      of: which number.

    Raises:
      ExplainError: no such row or column.
      RecordError: a record or a predictions file that cannot be used.
    """
    rows = {row.number: row for row in numbers.study.rows}
    if of.row not in rows:
        raise ExplainError(f"{of.study}: row {of.row}: expected one of {', '.join(map(str, rows))}")
    if of.column.startswith("paper_") and of.column not in columns(numbers):
        return _printed_besides(numbers, rows[of.row], of)
    if of.column not in columns(numbers):
        raise ExplainError(f"{of.study}: column {of.column!r}: {suggest(of.column, columns(numbers))}")
    value = float(numbers.rows.loc[of.row, of.column])
    head = f"{of.study}, row {of.row}, {of.column}: {_said(value)}"
    if of.column.startswith("paper_"):
        return Explanation((head, _from_the_paper(numbers, rows[of.row])), value, math.nan, True)
    row = rows[of.row]
    read = _Reads(wanted, numbers, store)
    lines = [head, *_runs(read[of.row], read.of(row.follows or of.row - 1), store)]
    found = _recounted(of, numbers, read)
    if found is None:
        return Explanation((*lines, "Nothing to count it from."), value, math.nan, math.isnan(value))
    recounted, how = found
    agrees = (math.isnan(value) and math.isnan(recounted)) or math.isclose(value, recounted, rel_tol=1e-9, abs_tol=1e-9)
    lines.append(f"Counted anew, {how}: {_said(recounted)}, {'the same' if agrees else 'NOT THE SAME'}")
    return Explanation(tuple(lines), value, recounted, agrees)


@dataclasses.dataclass(frozen=True)
class _Read:
    """A row's runs, read anew.

    Attributes:
      number: the row's.
      records: seed -> record of the finished runs.
      wanted: how many runs it is to have.
      protocol: name of the protocol.
      top1, top5: whether each video's label was the first guess, and among the first five; (seeds, videos), the videos
        sorted by their ids.
    """

    number: int
    records: Mapping[int, RunRecord]
    wanted: int
    protocol: str
    top1: npt.NDArray[np.bool_]
    top5: npt.NDArray[np.bool_]

    @property
    def whole(self) -> bool:
        """Whether all of its runs are there; a part of them is no number."""
        return len(self.records) == self.wanted


class _Reads:
    """Rows read when they are asked for: a damaged record of another row is no matter of this one."""

    def __init__(self, wanted: Mapping[int, Mapping[int, str]], numbers: Summary, store: Store) -> None:
        self._wanted, self._numbers, self._store = wanted, numbers, store
        self._known: dict[int, _Read] = {}

    def __getitem__(self, number: int) -> _Read:
        if number not in self._known:
            self._known[number] = _read(self._wanted[number], self._numbers, number, self._store)
        return self._known[number]

    def of(self, number: int | None) -> _Read | None:
        """A row, None where there is none of that number."""
        return self[number] if number is not None and number in self._wanted else None


def _read(wanted: Mapping[int, str], numbers: Summary, number: int, store: Store) -> _Read:
    protocol = str(numbers.rows.loc[number, "protocol"])
    found = {seed: store.read(run_id) for seed, run_id in sorted(wanted.items()) if store.has(run_id)}
    done = {seed: record for seed, record in found.items() if protocol in record.evaluations}
    tables = [store.predictions(record, protocol).sort_values("media_id") for record in done.values()]
    hits = [np.stack(table["top_class"].to_list()) == table["label"].to_numpy()[:, None] for table in tables]
    top1, top5 = (np.array([one[:, :k].any(axis=1) for one in hits], dtype=bool) for k in (1, 5))
    return _Read(number, done, len(wanted), protocol, top1, top5)


def _runs(own: _Read, before: _Read | None, store: Store) -> list[str]:
    """Whose number it is: each run with its commit, device, data and files; what it has that the row before has not."""
    lines = [line for record in own.records.values() for line in _run(record, own.protocol, store)]
    if not own.whole:
        lines.append(f"{len(own.records)} of {own.wanted} runs are finished")
    if before is not None and own.records and before.records:
        first, other = (next(iter(one.records.values())) for one in (own, before))
        lines += [f"Settings that differ from row {before.number}:", *(_differences(other, first, store) or ["  none"])]
    return lines


def _differences(before: RunRecord, after: RunRecord, store: Store) -> list[str]:
    """What decides the result of one run and not, or otherwise, that of another; seeds aside."""
    lines = [
        f"  {field}: {old!r} -> {new!r}"
        for field, (old, new) in difference(before.settings, after.settings).items()
        if not field.endswith("_data.seed")
    ]
    if before.parent != after.parent:
        old, new = (labels.start(one.parent, store) for one in (before, after))
        lines.append(f"  starts from: {old} -> {new}")
    if before.data != after.data:
        old, new = (f"{one.data['name']} ({one.data['fingerprint'][:8]})" for one in (before, after))
        lines.append(f"  data: {old} -> {new}")
    return lines


def _run(record: RunRecord, protocol: str, store: Store) -> list[str]:
    evaluation, made = record.evaluations[protocol], record.provenance
    changed = ", with uncommitted changes" if made.get("dirty") else ""
    kept = store.weights_file(record).parent
    there = any(kept.glob(f"{evaluation.checkpoint}*"))
    hits = f"{round(evaluation.top1 * evaluation.videos)} of {evaluation.videos} videos"
    return [
        f"Run {record.id}, seed {record.seed}: {hits} right at {protocol}, profile {record.profile}",
        f"  commit {made.get('commit')}{changed}, tf-models-official {made.get('tf_models_official')}, "
        f"TensorFlow {made.get('tensorflow')}, ended {made.get('ended')} on {made.get('device')}",
        f"  data {record.data['name']}, fingerprint {record.data['fingerprint']}",
        *_started_from(record, store),
        f"  checkpoint {kept / evaluation.checkpoint}{'' if there else ', not there any more'}",
        f"  predictions {store.predictions_file(record, protocol)}, whose SHA-256 holds: "
        f"{evaluation.predictions_sha256}",
    ]


def _started_from(record: RunRecord, store: Store) -> list[str]:
    """The runs whose weights it started from, the last first, as far as their records are there."""
    if record.parent is None:
        return []
    if not store.has(record.parent[:16]):
        return [f"  started from run {record.parent[:16]}, whose record is not there any more"]
    before = store.read(record.parent[:16])
    data = before.data
    return [
        f"  started from run {before.id}: {before.cost['train_steps']} steps on {data['name']}, fingerprint "
        f"{data['fingerprint']}",
        *_started_from(before, store),
    ]


def _printed_besides(numbers: Summary, row: Row, of: Address) -> Explanation:
    """A number that the paper prints and ours are not set against."""
    name = of.column.removeprefix("paper_")
    frame = published.load(numbers.study.published) if numbers.study.published else pd.DataFrame()
    there = [f"paper_{column}" for column in frame if pd.api.types.is_numeric_dtype(frame[column])]
    if of.column not in there:
        raise ExplainError(f"{of.study}: column {of.column!r}: {suggest(of.column, [*columns(numbers), *there])}")
    value = float(frame.loc[row.published, name]) if row.published else math.nan
    head = f"{of.study}, row {of.row}, {of.column}: {_said(value)}"
    return Explanation((head, _from_the_paper(numbers, row)), value, math.nan, True)


def _from_the_paper(numbers: Summary, row: Row) -> str:
    name = numbers.study.published
    if name is None or row.published is None:
        return "The paper has no such row."
    source = published.source(name)
    return f"Printed in {source['title']}: {source['table']}; row {row.published} of ablations/published/{name}.csv"


def _recounted(of: Address, numbers: Summary, read: _Reads) -> tuple[float, str] | None:
    """The number, and how it was counted; None where there is nothing to count."""
    own, before = read[of.row], read.of(next(row.follows for row in numbers.study.rows if row.number == of.row))
    if of.column in ("seeds", "seeds_wanted"):
        return float({"seeds": len(own.records), "seeds_wanted": own.wanted}[of.column]), "runs"
    if of.column in _OF_A_RUN and own.records:
        return _OF_A_RUN[of.column](own)
    if of.column in ("videos", "units") and not own.whole:
        return 0.0, "there is nothing"
    if not own.whole:
        return None
    if of.column in _OF_A_ROW:
        return _OF_A_ROW[of.column](own)
    if of.column in ("verdict_low", "verdict_high"):
        return _verdict(of, numbers, own)
    if before is None or not before.whole or set(before.records) != set(own.records):
        return (0.0, "videos and seeds of no step") if of.column == "units" else None
    if of.column in ("p_holm", "p_equal_holm"):
        return _holm(of, numbers, read)
    return _OF_A_STEP[of.column](_difference(before, own, numbers), before, own, numbers)


def _costs(read: _Read) -> network.Cost:
    return network.count(next(iter(read.records.values())).settings)


_OF_A_RUN: Mapping[str, Callable[[_Read], tuple[float, str]]] = {
    "gflops": lambda own: (_costs(own).multiply_adds / 1e9, "multiply-adds of the recorded settings"),
    "params": lambda own: (float(_costs(own).params), "weights of the recorded settings"),
    "videos": lambda own: (float(own.top1.shape[1]), "lines of the predictions file"),
}


def _interval(hits: npt.NDArray[np.bool_]) -> estimates.Estimate:
    if len(hits) == 1:
        return estimates.accuracy(int(hits.sum()), hits.shape[1])
    return estimates.mean_over_seeds(list(hits.mean(axis=1)), step=1 / hits.shape[1])


def _end(split: str, end: str) -> Callable[[_Read], tuple[float, str]]:
    def ends(own: _Read) -> tuple[float, str]:
        hits = getattr(own, split)
        which = "Wilson's over videos" if len(hits) == 1 else "Student's over seeds"
        return 100 * getattr(_interval(hits), end), f"95 % interval, {which}, of {_hits(hits)}"

    return ends


def _mean(split: str) -> Callable[[_Read], tuple[float, str]]:
    def mean(own: _Read) -> tuple[float, str]:
        hits = getattr(own, split)
        return float(100 * hits.mean()), f"{_hits(hits)} by the predictions"

    return mean


def _hits(hits: npt.NDArray[np.bool_]) -> str:
    of = f"{hits.shape[1]} videos" if len(hits) == 1 else f"{len(hits)} x {hits.shape[1]} videos"
    return f"{' + '.join(str(int(one.sum())) for one in hits)} right of {of}"


_OF_A_ROW = {
    name: how
    for split in ("top1", "top5")
    for name, how in (
        (split, _mean(split)),
        (f"{split}_low".removeprefix("top1_"), _end(split, "low")),
        (f"{split}_high".removeprefix("top1_"), _end(split, "high")),
    )
}


def _verdict(of: Address, numbers: Summary, own: _Read) -> tuple[float, str] | None:
    printed = float(numbers.rows.loc[of.row, "paper_top1"])
    if not numbers.comparable or math.isnan(printed):
        return None
    found = verdicts.against_paper(list(own.top1.mean(axis=1)), own.top1.shape[1], printed)
    return getattr(found, of.column.removeprefix("verdict_")), f"{_hits(own.top1)} against the paper's {printed:g} %"


def _difference(before: _Read, own: _Read, numbers: Summary) -> estimates.Difference:
    margin = None if math.isnan(numbers.margin) else numbers.margin / 100
    return estimates.paired(before.top1, own.top1, margin=margin)


def _flips(before: _Read, own: _Read) -> tuple[float, float]:
    """Videos that flipped to right and to wrong, means over the seeds."""
    return float((own.top1 & ~before.top1).sum() / len(own.top1)), float(
        (before.top1 & ~own.top1).sum() / len(own.top1)
    )


_Step = Callable[[estimates.Difference, _Read, _Read, Summary], tuple[float, str]]


def _tested(name: str, factor: float = 1.0) -> _Step:
    def tested(found: estimates.Difference, before: _Read, own: _Read, _: Summary) -> tuple[float, str]:
        right, wrong = _flips(before, own)
        flips = f"{right:g} videos flipped to right and {wrong:g} to wrong from row {before.number}"
        return factor * getattr(found, name), f"{found.method} over {found.units} {found.population}, {flips}"

    return tested


def _step(_: estimates.Difference, before: _Read, own: _Read, __: Summary) -> tuple[float, str]:
    return float(100 * own.top1.mean() - 100 * before.top1.mean()), f"{_hits(own.top1)} less {_hits(before.top1)}"


def _counted(place: int) -> _Step:
    return lambda _, before, own, __: (_flips(before, own)[place], f"videos of rows {before.number} and {own.number}")


def _discordance(_: estimates.Difference, before: _Read, own: _Read, __: Summary) -> tuple[float, str]:
    return sum(_flips(before, own)) / own.top1.shape[1], "flipped of all videos"


def _smallest(found: estimates.Difference, before: _Read, own: _Read, numbers: Summary) -> tuple[float, str]:
    flipped = sum(_flips(before, own)) / own.top1.shape[1]
    family = _family(numbers)
    return comparison.smallest(found, flipped, family), f"80 % power at 5 % / {family}, {100 * flipped:.1f} % flipped"


_OF_A_STEP: Mapping[str, _Step] = {
    "step": _step,
    "step_low": _tested("low", 100),
    "step_high": _tested("high", 100),
    "p": _tested("p"),
    "p_equal": _tested("p_equal"),
    "spread": _tested("spread", 100),
    "units": _tested("units"),
    "right": _counted(0),
    "wrong": _counted(1),
    "discordance": _discordance,
    "smallest": _smallest,
}


def _family(numbers: Summary) -> int:
    """How many steps the study has."""
    known = {row.number for row in numbers.study.rows}
    return sum(row.follows in known for row in numbers.study.rows)


def _holm(of: Address, numbers: Summary, read: _Reads) -> tuple[float, str]:
    """Holm's correction over the steps of the study; one that is missing counts as the largest."""
    name = of.column.removesuffix("_holm")
    found = {}
    for row in numbers.study.rows:
        before, own = read.of(row.follows), read[row.number]
        if before is not None and before.whole and own.whole and set(before.records) == set(own.records):
            found[row.number] = float(getattr(_difference(before, own, numbers), name))
    missing = [1.0] * (_family(numbers) - sum(not math.isnan(p) for p in found.values()))
    corrected = estimates.holm([*found.values(), *missing])
    how = f"Holm's correction of {_said(found[of.row])} for {_family(numbers)} steps"
    return float(corrected[list(found).index(of.row)]), how


def _said(value: float) -> str:
    return "not there" if math.isnan(value) else f"{value:.10g}"
