"""The store of runs: one folder for each run, under `results/runs/` or in a bucket.

results/runs/<id>/record.json                 the record, written last; names the files of attempts that belong to it
results/runs/<id>/evaluation-<protocol>.json  an evaluation that was added later
results/runs/<id>/attempts/<number>/          the files of one attempt at the run: see harness/store/attempts.py

A file appears complete or not at all, and a record is never written twice. Records from before attempts had folders
name files directly in the run's folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from harness.config.experiment import TRAIN_STEPS
from harness.store import excerpts, hits, records, write_once
from harness.store.attempts import FOLDER, Attempt, Attempts, State
from harness.store.excerpts import RecordSummarizer, RecordSummary
from harness.store.hits import Reading, VideoOutcomes
from harness.store.records import Evaluation, RecordError, RunRecord
from harness.system import files, parallel, paths
from harness.system.paths import Address, Folder

RECORD = "record.json"
_AT_ONCE = 250  # records that one process reads at a time
_AT_ONCE_OF_A_BUCKET = 25  # records that one thread reads at a time; fewer, since each takes long
# Names of files in a record: in an attempt's folder, or in the run's folder, as before attempts had folders.
_FILE = re.compile(rf"({FOLDER}/\d{{1,9}}/)?[^/\\\0]+")
_WEIGHTS = re.compile(rf"({FOLDER}/\d{{1,9}}/)?checkpoints/[^/\\\0]+")


class AlreadyThereError(RecordError):
    """A file that may be written only once exists already, with other content."""


@dataclasses.dataclass(frozen=True)
class Store:
    """The runs of a results folder.

    Attributes:
      root: the results folder.
      elsewhere: folder or bucket of the runs; None for `root/runs`.
    """

    root: Path
    elsewhere: Folder | None = None

    @property
    def runs(self) -> Folder:
        """Folder of all runs."""
        return self.elsewhere or self.root / "runs"

    @property
    def place(self) -> Folder:
        """The location of the runs as a user names it: the results folder, or the other folder or bucket."""
        return self.elsewhere or self.root

    @property
    def in_bucket(self) -> bool:
        """Whether the runs are in a bucket, where all machines can reach them."""
        return isinstance(self.elsewhere, Address)

    def folder(self, run_id: str) -> Folder:
        """Folder of one run."""
        return self.runs / run_id

    def attempts(self, run_id: str) -> Attempts:
        """All attempts at a run."""
        return Attempts(self.folder(run_id))

    def attempt(self, run_id: str, number: int) -> Attempt:
        """One attempt at a run."""
        return self.attempts(run_id)[number]

    def state(self, run_id: str) -> State:
        """Returns the state of a run according to its files."""
        return State("done") if self.has(run_id) else self.attempts(run_id).state()

    def weights(self, record: RunRecord) -> Folder:
        """Returns the absolute path of the weights that a run's training left, without a suffix, for TensorFlow.

        Raises:
          RecordError: the record names a file that cannot be weights of the run.
        """
        return self.weights_file(record).absolute()

    def weights_file(self, record: RunRecord) -> Folder:
        """Returns the same path below :attr:`runs`.

        Raises:
          RecordError: the record names a file that cannot be weights of the run.
        """
        old = f"checkpoints/weights-{record.settings[TRAIN_STEPS]}"
        return self._named(record, str(record.provenance.get("weights", old)), _WEIGHTS)

    def predictions_file(self, record: RunRecord | RecordSummary, protocol: str) -> Folder:
        """Returns the path of a run's predictions file under a protocol.

        Raises:
          RecordError: the run was not evaluated under it, or the record names a file outside the run's folder.
        """
        evaluation = record.evaluations.get(protocol)
        if evaluation is None:
            known = ", ".join(record.evaluations)
            raise RecordError(f"run {record.id}: not evaluated under {protocol}, only under {known}")
        return self._named(record, evaluation.predictions, _FILE)

    def _named(self, record: RunRecord | RecordSummary, name: str, expected: re.Pattern[str]) -> Folder:
        """Returns the path of a file that a record names; refuses one outside the run's folder."""
        if not expected.fullmatch(name) or PurePosixPath(name).name in ("", ".", ".."):
            raise RecordError(
                f"{self.folder(record.id) / RECORD}: names a file {name[:100]!r}: expected one of the run's, NAME or "
                f"{FOLDER}/NUMBER/NAME"
            )
        return self.folder(record.id) / name

    def name_of(self, run_id: str, path: str) -> str:
        """Returns the name of a file in the run's folder as a record gives it: "attempts/4/checkpoints/weights-256"."""
        absolute = str(paths.path_of(path).absolute())
        # Works for addresses too, since both paths lose one slash of the "//".
        return PurePosixPath(absolute).relative_to(str(self.folder(run_id).absolute())).as_posix()

    def has(self, run_id: str) -> bool:
        """Whether the run has a record."""
        return (self.folder(run_id) / RECORD).is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from importing into the same folder; the lock ends with the process at the latest.

        Raises:
          RecordError: another process holds the lock.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecordError(
                    f"{self.root}: another process is importing into it; wait for it, or choose another --results"
                ) from None
            yield

    def write_predictions(self, run_id: str, protocol: str, table: pd.DataFrame, attempt: int = 0) -> tuple[str, str]:
        """Writes the predictions file of a protocol; returns its name as a record gives it, and its SHA-256."""
        path = self.attempt(run_id, attempt).predictions(protocol)
        content = io.BytesIO()
        table.to_parquet(content, index=False)
        files.replace(path, content.getvalue())
        return self.name_of(run_id, str(path)), hashlib.sha256(content.getbuffer()).hexdigest()

    def write(self, record: RunRecord) -> Folder:
        """Writes a record.

        Raises:
          AlreadyThereError: the run has a record or, in a bucket, another attempt wrote one at the same time.
        """
        path, attempt = self.folder(record.id) / RECORD, record.provenance.get("attempt")
        try:
            return self._write_once(path, records.to_json(record), attempt)
        except FileExistsError:
            earlier = _attempt_that_recorded(path)
            raise AlreadyThereError(_two_writers(path, "recorded", earlier, attempt)) from None

    def write_evaluation(self, record: RunRecord, evaluation: Evaluation) -> Folder:
        """Adds an evaluation under another protocol to a run that has a record.

        Raises:
          AlreadyThereError: another attempt evaluated the run under this protocol before, or at the same time.
        """
        path = self.folder(record.id) / f"evaluation-{evaluation.protocol}.json"
        earlier = self.read(record.id).evaluations.get(evaluation.protocol)
        if earlier is None:
            with contextlib.suppress(FileExistsError):
                content = records.evaluation_to_json(record.identity, evaluation)
                return self._write_once(path, content, attempt_of(evaluation))
            earlier = self.read(record.id).evaluations[evaluation.protocol]
        raise AlreadyThereError(_two_writers(path, "evaluated", *map(attempt_of, (earlier, evaluation))))

    def _write_once(self, path: Folder, content: Mapping[str, Any], attempt: int | None) -> Folder:
        """Writes a file of a run that may be written only once.

        Raises:
          FileExistsError: the file exists already.
          AlreadyThereError: another attempt wrote it at the same time.
        """
        written = json.dumps(content, indent=1, allow_nan=False).encode()
        try:
            return write_once.write_once(path.parent, path.name, written, attempt)
        except write_once.SecondWriterError as error:
            other = "another process" if error.other is None else f"attempt {error.other}"
            raise AlreadyThereError(
                f"{path}: attempt {attempt} and {other} wrote it at the same time; that of one of them stands, whole"
            ) from None

    def read(self, run_id: str) -> RunRecord:
        """Reads the record of a run, with the evaluations that were added later.

        Raises:
          RecordError: the record is missing or damaged.
        """
        folder = self.folder(run_id)
        path = folder / RECORD
        record = records.from_json(_load(path), str(path))
        if record.id != run_id:
            raise RecordError(f"{path}: is the record of run {record.id}, expected {run_id}")
        evaluations = dict(record.evaluations)
        for name in sorted(path.name for path in folder.glob("evaluation-*.json")):
            added = folder / name
            identity, evaluation = records.evaluation_from_json(_load(added), str(added))
            if identity != record.identity:
                raise RecordError(f"{added}: belongs to run {identity[:16]}, expected {record.id}")
            evaluations.setdefault(evaluation.protocol, evaluation)
        return dataclasses.replace(record, evaluations=evaluations)

    def checked(self, run_id: str) -> RunRecord:
        """Reads the record of a run and checks its predictions files against it.

        Raises:
          RecordError: the record or one of the files is missing or damaged.
        """
        record = self.read(run_id)
        for protocol in record.evaluations:
            self._predictions(record, protocol)
        return record

    @property
    def next_attempt(self) -> int:
        """A number higher than that of any attempt at any run; 0 if there are no attempts."""
        names = (path.name for path in self.runs.glob(f"*/{FOLDER}/*"))
        return 1 + max((int(name) for name in names if name.isdecimal()), default=-1)

    def ids(self) -> list[str]:
        """Returns the ids of the runs that have a record, sorted."""
        return sorted(path.parent.name for path in self.runs.glob(f"*/{RECORD}"))

    def find(self, prefix: str) -> RunRecord:
        """Reads the record of the one run whose id begins with `prefix`.

        Raises:
          RecordError: no id or several ids begin with it.
        """
        run_ids = [run_id for run_id in self.ids() if run_id.startswith(prefix.lower())]
        if len(run_ids) == 1:
            return self.read(run_ids[0])
        if not run_ids:
            raise RecordError(f"run {prefix!r}: no record under {self.runs} begins with it")
        raise RecordError(
            f"run {prefix!r}: begins {len(run_ids)} ids, such as {', '.join(run_ids[:3])}: give more digits"
        )

    def predictions(self, record: RunRecord, protocol: str) -> pd.DataFrame:
        """Reads the per-video predictions of a run under a protocol.

        Raises:
          RecordError: the run was not evaluated under it, or the file is missing or not the one recorded.
        """
        return pd.read_parquet(io.BytesIO(self._predictions(record, protocol)))

    def outcomes(self, record: RunRecord | RecordSummary, protocol: str) -> pd.DataFrame:
        """Reads which videos a run classified correctly under a protocol.

        Returns:
          Indexed by the video's id, sorted; columns "label" (number of the class), "top1", "top5" (whether the label is
          the first guess, and among the first five).

        Raises:
          RecordError: as for :meth:`predictions`, or a video is in the predictions twice.
        """
        return hits.frames(hits.stacked([self.hits(record, protocol, hits.Reading())]))[0]

    def hits(self, record: RunRecord | RecordSummary, protocol: str, reading: Reading) -> VideoOutcomes:
        """Reads the same as arrays; pass the same `reading` for many runs, so that they share the videos' ids."""
        return reading(self._predictions(record, protocol), f"run {record.id}, {protocol}")

    def protocols(self, run_id: str) -> frozenset[str]:
        """Returns the names of the protocols that a run was evaluated under, after checking its predictions files.

        Raises:
          RecordError: as for :meth:`checked`.
        """
        return frozenset(self.checked(run_id).evaluations)

    def excerpt(self, run_id: str) -> RecordSummary:
        """Reads the excerpt of a run's record.

        Raises:
          RecordError: as for :meth:`read`.
        """
        return RecordSummarizer()(self.read(run_id))

    def excerpts(self) -> list[RecordSummary]:
        """Reads the excerpts of all readable records, sorted by their ids."""
        return [excerpt for excerpt in _read_excerpts(self, self.ids()).values() if isinstance(excerpt, RecordSummary)]

    def unreadable(self) -> list[str]:
        """Returns the ids of the runs whose record cannot be read, sorted."""
        return sorted(set(self.ids()) - {excerpt.id for excerpt in self.excerpts()})

    def recorded(self, kind: str) -> Mapping[int, str]:
        """Returns seed -> identity of the runs of a kind that are known without reading records: here none are."""
        return {}

    def look_at(self, run_ids: Iterable[str]) -> None:
        """Announces the runs whose outcomes will be read soon; here it does nothing."""

    def _predictions(self, record: RunRecord | RecordSummary, protocol: str) -> bytes:
        """Reads the content of a predictions file and checks it against its record."""
        path = self.predictions_file(record, protocol)
        if not path.is_file():
            raise RecordError(f"{path}: missing, though the record names it")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != record.evaluations[protocol].predictions_sha256:
            raise RecordError(f"{path}: changed since the record was written (SHA-256 differs)")
        return content


class Snapshot(Store):
    """A store as it was when it was first read: every record and predictions file is read once, many in parallel.

    Methods that read a single run from its files, such as :meth:`read`, still read them anew.
    """

    def __init__(self, root: Path, elsewhere: Folder | None = None) -> None:
        super().__init__(root, elsewhere)
        vars(self).update(_outcomes={})

    def begin(self) -> None:
        """Starts to read the records in other processes, or in threads from a bucket; methods that need them wait."""
        _ = self._begun

    @functools.cached_property
    def _begun(self) -> Callable[[], list[dict[str, RecordSummary | RecordError]]]:
        store = self._as_it_is
        work = [
            functools.partial(_read_excerpts, store, run_ids) for run_ids in parallel.parts(store.ids(), self._at_once)
        ]
        return parallel.begin(work, threads=self.in_bucket)

    @property
    def _as_it_is(self) -> Store:
        return Store(self.root, self.elsewhere)

    @property
    def _at_once(self) -> int:
        return _AT_ONCE_OF_A_BUCKET if self.in_bucket else _AT_ONCE

    @functools.cached_property
    def _excerpts(self) -> dict[str, RecordSummary | RecordError]:
        with parallel.without_collecting():
            return {run_id: excerpt for part in self._begun() for run_id, excerpt in part.items()}

    @functools.cached_property
    def _kinds(self) -> dict[str, dict[int, str]]:
        return excerpts.by_kind(self.excerpts())

    def ids(self) -> list[str]:
        """See :class:`Store`."""
        return list(self._excerpts)

    def has(self, run_id: str) -> bool:
        """See :class:`Store`."""
        return run_id in self._excerpts

    def excerpt(self, run_id: str) -> RecordSummary:
        """See :class:`Store`."""
        excerpt = self._excerpts.get(run_id) or super().excerpt(run_id)
        if isinstance(excerpt, RecordError):
            raise excerpt
        return excerpt

    def excerpts(self) -> list[RecordSummary]:
        """See :class:`Store`."""
        return [excerpt for excerpt in self._excerpts.values() if isinstance(excerpt, RecordSummary)]

    def faults(self) -> list[str]:
        """Returns one line for each record that cannot be read."""
        return [str(fault) for fault in self._excerpts.values() if isinstance(fault, RecordError)]

    def recorded(self, kind: str) -> Mapping[int, str]:
        """See :class:`Store`; here the runs of every kind are known."""
        return self._kinds.get(kind, {})

    def protocols(self, run_id: str) -> frozenset[str]:
        """See :class:`Store`; keeps the outcomes that it reads from the predictions files."""
        excerpt = self.excerpt(run_id)
        for protocol in excerpt.evaluations:
            self.outcomes(excerpt, protocol)
        return frozenset(excerpt.evaluations)

    def outcomes(self, record: RunRecord | RecordSummary, protocol: str) -> pd.DataFrame:
        """See :class:`Store`."""
        known: dict[tuple[str, str], pd.DataFrame | RecordError] = vars(self)["_outcomes"]
        key = (record.id, protocol)
        if key not in known:
            known[key] = super().outcomes(record, protocol)
        outcomes = known[key]
        if isinstance(outcomes, RecordError):
            raise outcomes
        return outcomes

    def look_at(self, run_ids: Iterable[str]) -> None:
        """Reads the outcomes of these runs, many in parallel."""
        excerpts = [self._excerpts.get(run_id) for run_id in dict.fromkeys(run_ids)]
        wanted = [
            (excerpt, protocol)
            for excerpt in excerpts
            if isinstance(excerpt, RecordSummary)
            for protocol in excerpt.evaluations
            if (excerpt.id, protocol) not in vars(self)["_outcomes"]
        ]
        work = [
            functools.partial(_read_outcomes, self._as_it_is, part) for part in parallel.parts(wanted, self._at_once)
        ]
        with parallel.without_collecting():
            for outcomes in parallel.begin(work, threads=self.in_bucket)():
                vars(self)["_outcomes"].update(outcomes.apart())


def _read_excerpts(store: Store, run_ids: Sequence[str]) -> dict[str, RecordSummary | RecordError]:
    """Returns id -> excerpt, or the error because of which the record cannot be read."""
    excerpting = RecordSummarizer()
    excerpts_by_id: dict[str, RecordSummary | RecordError] = {}
    for run_id in run_ids:
        try:
            excerpts_by_id[run_id] = excerpting(store.read(run_id))
        except RecordError as error:
            excerpts_by_id[run_id] = error
    return excerpts_by_id


@dataclasses.dataclass(frozen=True)
class _Outcomes:
    """The outcomes of several runs, stacked so that they are quick to hand from one process to another.

    Attributes:
      stacks: (run id, protocol) of the evaluations on the same videos, and their hits.
      faults: (run id, protocol) -> why the predictions cannot be used.
    """

    stacks: list[tuple[list[tuple[str, str]], VideoOutcomes]]
    faults: dict[tuple[str, str], RecordError]

    def apart(self) -> dict[tuple[str, str], pd.DataFrame | RecordError]:
        """Returns (run id, protocol) -> outcomes, or the error because of which there are none."""
        outcomes = {
            key: frame for keys, stack in self.stacks for key, frame in zip(keys, hits.frames(stack), strict=True)
        }
        return {**outcomes, **self.faults}


def _read_outcomes(store: Store, wanted: Sequence[tuple[RecordSummary, str]]) -> _Outcomes:
    """Reads the outcomes of runs under protocols."""
    reading = hits.Reading()
    hits_by_key: dict[tuple[str, str], VideoOutcomes] = {}
    faults: dict[tuple[str, str], RecordError] = {}
    for excerpt, protocol in wanted:
        try:
            hits_by_key[excerpt.id, protocol] = store.hits(excerpt, protocol, reading)
        except RecordError as error:
            faults[excerpt.id, protocol] = error
    alike: dict[int, list[tuple[str, str]]] = {}
    for key, hits_of_run in hits_by_key.items():
        alike.setdefault(id(hits_of_run.videos), []).append(key)
    return _Outcomes([(keys, hits.stacked([hits_by_key[key] for key in keys])) for keys in alike.values()], faults)


def frame(evaluated: Sequence[RunRecord | RecordSummary]) -> pd.DataFrame:
    """Returns one row for each record and protocol, for :mod:`harness.analysis.study_summary`.

    Returns:
      Columns "id", "identity", "profile", "seed", "protocol", "top1", "top5", "videos", "videos_in_split", "params",
      "multiply_adds", "train_steps", "train_seconds", "device", "dataset", "fingerprint", "classes",
      "train_videos", "replicas", "cut".
    """
    lines = [line for record in evaluated for line in _lines(record)]
    return pd.DataFrame(lines, columns=FRAME)


FRAME = [
    "id",
    "identity",
    "profile",
    "seed",
    "protocol",
    "top1",
    "top5",
    "videos",
    "videos_in_split",
    "params",
    "multiply_adds",
    "train_steps",
    "train_seconds",
    "device",
    "dataset",
    "fingerprint",
    "classes",
    "train_videos",
    "replicas",
    "cut",
]


def _lines(record: RunRecord | RecordSummary) -> Iterator[dict[str, Any]]:
    for evaluation in record.evaluations.values():
        yield {
            "id": record.id,
            "identity": record.identity,
            "profile": record.profile,
            "seed": record.seed,
            "protocol": evaluation.protocol,
            "top1": evaluation.top1,
            "top5": evaluation.top5,
            "videos": evaluation.videos,
            "videos_in_split": evaluation.videos_in_split,
            **{name: record.cost.get(name) for name in ("params", "multiply_adds", "train_steps", "train_seconds")},
            "device": record.provenance.get("device"),
            "dataset": record.data.get("name"),
            "fingerprint": record.data.get("fingerprint"),
            "classes": record.data.get("classes"),
            "train_videos": record.data.get("train_videos"),
            "replicas": record.replicas,
            "cut": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record.cut.items()),
        }


def _attempt_that_recorded(path: Folder) -> int | None:
    with contextlib.suppress(RecordError):
        return records.from_json(_load(path), str(path)).provenance.get("attempt")
    return None


def attempt_of(evaluation: Evaluation) -> int | None:
    """Returns the number of the attempt that made an evaluation; None if attempts had no folders yet."""
    folder, _, rest = evaluation.predictions.partition("/")
    number = rest.partition("/")[0]
    return int(number) if folder == FOLDER and number.isdecimal() else None


def _two_writers(path: Folder, did: str, earlier: int | None, other: int | None) -> str:
    """Returns a message that names the two attempts at a file that only one may write."""
    first = "another process" if earlier is None else f"attempt {earlier}"
    second = "this one" if other is None else f"attempt {other}"
    return f"{path}: {first} {did} the run already, {second} would write it too"


def _load(path: Folder) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: damaged, not JSON ({error}); delete the folder to train the run again") from None
