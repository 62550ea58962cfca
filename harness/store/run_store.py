"""Files under `results/runs/`, or in a bucket: one folder a run, each file whole or not there; a record never twice.

results/runs/<id>/record.json                 the record, written last; names the files of attempts that belong to it
results/runs/<id>/evaluation-<protocol>.json  an evaluation added later
results/runs/<id>/attempts/<number>/          what one attempt at the run wrote: see harness/store/attempts.py

Records of before attempts had folders name files in the run's own folder.
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
from harness.store.excerpts import Excerpt, Excerpting
from harness.store.hits import Hits, Reading
from harness.store.records import Evaluation, RecordError, RunRecord
from harness.system import files, parallel, paths
from harness.system.paths import Address, Folder

RECORD = "record.json"
_AT_ONCE = 250  # records that a process reads before it hands them over
_AT_ONCE_OF_A_BUCKET = 25  # and a thread: each record is waited for
# What a record may call a file: one of an attempt's, or as it was before attempts had folders.
_FILE = re.compile(rf"({FOLDER}/\d{{1,9}}/)?[^/\\\0]+")
_WEIGHTS = re.compile(rf"({FOLDER}/\d{{1,9}}/)?checkpoints/[^/\\\0]+")


class AlreadyThereError(RecordError):
    """A file that is written once is there already, with other content."""


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
        """What a user names to say where the runs are: the results folder, or where else they are."""
        return self.elsewhere or self.root

    @property
    def in_bucket(self) -> bool:
        """Whether the runs are in a bucket, and so for all machines to reach."""
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
        """Where a run stands, as far as its files tell."""
        return State("done") if self.has(run_id) else self.attempts(run_id).state()

    def weights(self, record: RunRecord) -> Folder:
        """Absolute path of what is left of a run's training: the network's weights, as TensorFlow names a checkpoint.

        Raises:
          RecordError: the record names something else.
        """
        return self.weights_file(record).absolute()

    def weights_file(self, record: RunRecord) -> Folder:
        """The same path, below :attr:`runs`.

        Raises:
          RecordError: the record names something else.
        """
        old = f"checkpoints/weights-{record.settings[TRAIN_STEPS]}"
        return self._named(record, str(record.provenance.get("weights", old)), _WEIGHTS)

    def predictions_file(self, record: RunRecord | Excerpt, protocol: str) -> Folder:
        """Path of a run's predictions file under a protocol.

        Raises:
          RecordError: the run was not evaluated under it, or the record names something else.
        """
        evaluation = record.evaluations.get(protocol)
        if evaluation is None:
            known = ", ".join(record.evaluations)
            raise RecordError(f"run {record.id}: not evaluated under {protocol}, only under {known}")
        return self._named(record, evaluation.predictions, _FILE)

    def _named(self, record: RunRecord | Excerpt, name: str, expected: re.Pattern[str]) -> Folder:
        """A file that a record names; never one outside the run's folder."""
        if not expected.fullmatch(name) or PurePosixPath(name).name in ("", ".", ".."):
            raise RecordError(
                f"{self.folder(record.id) / RECORD}: names a file {name[:100]!r}: expected one of the run's, NAME or "
                f"{FOLDER}/NUMBER/NAME"
            )
        return self.folder(record.id) / name

    def name_of(self, run_id: str, path: str) -> str:
        """What a record of the run calls a file in its folder: "attempts/4/checkpoints/weights-256"."""
        whole = str(paths.of(path).absolute())
        # So an address as well: both lose one stroke.
        return PurePosixPath(whole).relative_to(str(self.folder(run_id).absolute())).as_posix()

    def has(self, run_id: str) -> bool:
        """Whether the run has a record."""
        return (self.folder(run_id) / RECORD).is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from importing into the same folder; the system lets go when the process ends.

        Raises:
          RecordError: another process holds it.
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
        """Writes the predictions file of a protocol; what a record calls it, and its SHA-256."""
        path = self.attempt(run_id, attempt).predictions(protocol)
        content = io.BytesIO()
        table.to_parquet(content, index=False)
        files.replace(path, content.getvalue())
        return self.name_of(run_id, str(path)), hashlib.sha256(content.getbuffer()).hexdigest()

    def write(self, record: RunRecord) -> Folder:
        """Writes a record.

        Raises:
          AlreadyThereError: the run has a record, or, in a bucket, another attempt wrote one at the same time.
        """
        path, attempt = self.folder(record.id) / RECORD, record.provenance.get("attempt")
        try:
            return self._write_once(path, records.to_json(record), attempt)
        except FileExistsError:
            there = _attempt_that_recorded(path)
            raise AlreadyThereError(_two_writers(path, "recorded", there, attempt)) from None

    def write_evaluation(self, record: RunRecord, evaluation: Evaluation) -> Folder:
        """Adds an evaluation under another protocol to a run that has a record.

        Raises:
          AlreadyThereError: the run was evaluated under it before, or at the same time.
        """
        path = self.folder(record.id) / f"evaluation-{evaluation.protocol}.json"
        there = self.read(record.id).evaluations.get(evaluation.protocol)
        if there is None:
            with contextlib.suppress(FileExistsError):
                content = records.evaluation_to_json(record.identity, evaluation)
                return self._write_once(path, content, attempt_of(evaluation))
            there = self.read(record.id).evaluations[evaluation.protocol]
        raise AlreadyThereError(_two_writers(path, "evaluated", *map(attempt_of, (there, evaluation))))

    def _write_once(self, path: Folder, content: Mapping[str, Any], attempt: int | None) -> Folder:
        """Writes a file of a run that nobody else may write.

        Raises:
          FileExistsError: it is there.
          AlreadyThereError: another attempt wrote it at the same time.
        """
        written = json.dumps(content, indent=1, allow_nan=False).encode()
        try:
            return write_once.write(path.parent, path.name, written, attempt)
        except write_once.SecondWriterError as error:
            other = "another process" if error.other is None else f"attempt {error.other}"
            raise AlreadyThereError(
                f"{path}: attempt {attempt} and {other} wrote it at the same time; that of one of them stands, whole"
            ) from None

    def read(self, run_id: str) -> RunRecord:
        """The record of a run, with the evaluations added to it later.

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
        """The record of a run, its predictions files held against it.

        Raises:
          RecordError: one of them is missing or damaged.
        """
        record = self.read(run_id)
        for protocol in record.evaluations:
            self._predictions(record, protocol)
        return record

    @property
    def next_attempt(self) -> int:
        """A number that no attempt at any run has, nor a lower one than any has: 0 where there is none."""
        names = (path.name for path in self.runs.glob(f"*/{FOLDER}/*"))
        return 1 + max((int(name) for name in names if name.isdecimal()), default=-1)

    def ids(self) -> list[str]:
        """Ids of the runs that have a record, sorted."""
        return sorted(path.parent.name for path in self.runs.glob(f"*/{RECORD}"))

    def find(self, prefix: str) -> RunRecord:
        """The record of the one run whose id begins with `prefix`.

        Raises:
          RecordError: none or several do.
        """
        found = [run_id for run_id in self.ids() if run_id.startswith(prefix.lower())]
        if len(found) == 1:
            return self.read(found[0])
        if not found:
            raise RecordError(f"run {prefix!r}: no record under {self.runs} begins with it")
        raise RecordError(f"run {prefix!r}: begins {len(found)} ids, such as {', '.join(found[:3])}: give more digits")

    def predictions(self, record: RunRecord, protocol: str) -> pd.DataFrame:
        """Per-video predictions of a run under a protocol.

        Raises:
          RecordError: the run was not evaluated under it, or the file is missing or not the one recorded.
        """
        return pd.read_parquet(io.BytesIO(self._predictions(record, protocol)))

    def outcomes(self, record: RunRecord | Excerpt, protocol: str) -> pd.DataFrame:
        """Which videos a run classified rightly under a protocol.

        Returns:
          Indexed by the video's id, sorted; columns "label" (number of the class), "top1", "top5" (whether the label is
          the first guess, and among the first five).

        Raises:
          RecordError: as of :meth:`predictions`, or a video is in them twice.
        """
        return hits.frames(hits.stacked([self.hits(record, protocol, hits.Reading())]))[0]

    def hits(self, record: RunRecord | Excerpt, protocol: str, reading: Reading) -> Hits:
        """The same as arrays; `reading` is one for many runs."""
        return reading(self._predictions(record, protocol), f"run {record.id}, {protocol}")

    def protocols(self, run_id: str) -> frozenset[str]:
        """Names of the protocols that a run was evaluated under, its predictions files held against its record.

        Raises:
          RecordError: as of :meth:`checked`.
        """
        return frozenset(self.checked(run_id).evaluations)

    def excerpt(self, run_id: str) -> Excerpt:
        """What an overview needs of the record of a run.

        Raises:
          RecordError: as of :meth:`read`.
        """
        return Excerpting()(self.read(run_id))

    def excerpts(self) -> list[Excerpt]:
        """Of all records that can be read, sorted by their ids."""
        return [one for one in _excerpts(self, self.ids()).values() if isinstance(one, Excerpt)]

    def unreadable(self) -> list[str]:
        """Ids of the runs whose record cannot be read, sorted."""
        return sorted(set(self.ids()) - {one.id for one in self.excerpts()})

    def recorded(self, kind: str) -> Mapping[int, str]:
        """Seed -> identity of the runs of a kind, as far as that is known without looking: here it is of none."""
        return {}

    def look_at(self, run_ids: Iterable[str]) -> None:
        """Says whose outcomes will be asked for soon."""

    def _predictions(self, record: RunRecord | Excerpt, protocol: str) -> bytes:
        """The content of a predictions file, held against its record."""
        path = self.predictions_file(record, protocol)
        if not path.is_file():
            raise RecordError(f"{path}: missing, though the record names it")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != record.evaluations[protocol].predictions_sha256:
            raise RecordError(f"{path}: changed since the record was written (SHA-256 differs)")
        return content


class Snapshot(Store):
    """A store as it was when it was first looked at: its files are read, and their hashes taken, once and many at once.

    What is read of a run alone, as by :meth:`read`, is read anew.
    """

    def __init__(self, root: Path, elsewhere: Folder | None = None) -> None:
        super().__init__(root, elsewhere)
        vars(self).update(_outcomes={})

    def begin(self) -> None:
        """Begins to read the records, in other processes, of a bucket in threads; what asks for them waits."""
        _ = self._begun

    @functools.cached_property
    def _begun(self) -> Callable[[], list[dict[str, Excerpt | RecordError]]]:
        store = self._as_it_is
        work = [functools.partial(_excerpts, store, some) for some in parallel.parts(store.ids(), self._at_once)]
        return parallel.begin(work, threads=self.in_bucket)

    @property
    def _as_it_is(self) -> Store:
        return Store(self.root, self.elsewhere)

    @property
    def _at_once(self) -> int:
        return _AT_ONCE_OF_A_BUCKET if self.in_bucket else _AT_ONCE

    @functools.cached_property
    def _found(self) -> dict[str, Excerpt | RecordError]:
        with parallel.without_collecting():
            return {run_id: one for some in self._begun() for run_id, one in some.items()}

    @functools.cached_property
    def _kinds(self) -> dict[str, dict[int, str]]:
        return excerpts.by_kind(self.excerpts())

    def ids(self) -> list[str]:
        """As of the store."""
        return list(self._found)

    def has(self, run_id: str) -> bool:
        """As of the store."""
        return run_id in self._found

    def excerpt(self, run_id: str) -> Excerpt:
        """As of the store."""
        found = self._found.get(run_id) or super().excerpt(run_id)
        if isinstance(found, RecordError):
            raise found
        return found

    def excerpts(self) -> list[Excerpt]:
        """As of the store."""
        return [one for one in self._found.values() if isinstance(one, Excerpt)]

    def faults(self) -> list[str]:
        """A line for each record that cannot be read."""
        return [str(one) for one in self._found.values() if isinstance(one, RecordError)]

    def recorded(self, kind: str) -> Mapping[int, str]:
        """As of the store, of all kinds."""
        return self._kinds.get(kind, {})

    def protocols(self, run_id: str) -> frozenset[str]:
        """As of the store, and what the predictions say is kept."""
        excerpt = self.excerpt(run_id)
        for protocol in excerpt.evaluations:
            self.outcomes(excerpt, protocol)
        return frozenset(excerpt.evaluations)

    def outcomes(self, record: RunRecord | Excerpt, protocol: str) -> pd.DataFrame:
        """As of the store."""
        known: dict[tuple[str, str], pd.DataFrame | RecordError] = vars(self)["_outcomes"]
        key = (record.id, protocol)
        if key not in known:
            known[key] = super().outcomes(record, protocol)
        found = known[key]
        if isinstance(found, RecordError):
            raise found
        return found

    def look_at(self, run_ids: Iterable[str]) -> None:
        """Reads their outcomes, many at once."""
        found = [self._found.get(run_id) for run_id in dict.fromkeys(run_ids)]
        wanted = [
            (one, protocol)
            for one in found
            if isinstance(one, Excerpt)
            for protocol in one.evaluations
            if (one.id, protocol) not in vars(self)["_outcomes"]
        ]
        work = [functools.partial(_look, self._as_it_is, some) for some in parallel.parts(wanted, self._at_once)]
        with parallel.without_collecting():
            for looked in parallel.begin(work, threads=self.in_bucket)():
                vars(self)["_outcomes"].update(looked.apart())


def _excerpts(store: Store, run_ids: Sequence[str]) -> dict[str, Excerpt | RecordError]:
    """Id -> excerpt, or what keeps the record from being read."""
    excerpting = Excerpting()
    found: dict[str, Excerpt | RecordError] = {}
    for run_id in run_ids:
        try:
            found[run_id] = excerpting(store.read(run_id))
        except RecordError as error:
            found[run_id] = error
    return found


@dataclasses.dataclass(frozen=True)
class _Looked:
    """The outcomes of several runs.

    Attributes:
      stacks: runs with their protocols, and what they made of the same videos.
      faults: those whose predictions cannot be used, and why.
    """

    stacks: list[tuple[list[tuple[str, str]], Hits]]
    faults: dict[tuple[str, str], RecordError]

    def apart(self) -> dict[tuple[str, str], pd.DataFrame | RecordError]:
        """Run and protocol -> outcomes, or why there are none."""
        found = {key: one for keys, stack in self.stacks for key, one in zip(keys, hits.frames(stack), strict=True)}
        return {**found, **self.faults}


def _look(store: Store, wanted: Sequence[tuple[Excerpt, str]]) -> _Looked:
    """The outcomes of runs under protocols."""
    reading = hits.Reading()
    found: dict[tuple[str, str], Hits] = {}
    faults: dict[tuple[str, str], RecordError] = {}
    for excerpt, protocol in wanted:
        try:
            found[excerpt.id, protocol] = store.hits(excerpt, protocol, reading)
        except RecordError as error:
            faults[excerpt.id, protocol] = error
    alike: dict[int, list[tuple[str, str]]] = {}
    for key, one in found.items():
        alike.setdefault(id(one.videos), []).append(key)
    return _Looked([(keys, hits.stacked([found[key] for key in keys])) for keys in alike.values()], faults)


def frame(found: Sequence[RunRecord | Excerpt]) -> pd.DataFrame:
    """One line for each record and protocol, for :mod:`harness.analysis.study_summary`.

    Returns:
      Columns "id", "identity", "profile", "seed", "protocol", "top1", "top5", "videos", "videos_in_split", "params",
      "multiply_adds", "train_steps", "train_seconds", "device", "dataset", "fingerprint", "classes",
      "train_videos", "replicas", "cut".
    """
    lines = [line for record in found for line in _lines(record)]
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


def _lines(record: RunRecord | Excerpt) -> Iterator[dict[str, Any]]:
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
    """Number of the attempt that made an evaluation; None for one of before attempts had folders."""
    folder, _, rest = evaluation.predictions.partition("/")
    number = rest.partition("/")[0]
    return int(number) if folder == FOLDER and number.isdecimal() else None


def _two_writers(path: Folder, did: str, there: int | None, other: int | None) -> str:
    """One line that names the attempts at a file that only one may write."""
    first = "another process" if there is None else f"attempt {there}"
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
