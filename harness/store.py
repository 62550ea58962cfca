"""Files under `results/runs/`: one folder a run, each file written whole or not at all; a record never twice.

results/runs/<id>/record.json                     the record, written last
results/runs/<id>/predictions-<protocol>.parquet  per-video predictions, hashed in the record
results/runs/<id>/evaluation-<protocol>.json      an evaluation added later
results/runs/<id>/checkpoints/                    while it trains its last checkpoints, then its weights
results/runs/<id>/curve.jsonl, failure.json       while it has no record: see harness/attempts.py
results/runs/<id>/log.txt                         what the libraries said while it trained
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness import excerpts, files, forking, hits, records
from harness.attempts import Attempts, State
from harness.excerpts import Excerpt, Excerpting
from harness.experiment import TRAIN_STEPS
from harness.hits import Hits, Reading
from harness.records import Evaluation, RecordError, RunRecord

RECORD = "record.json"
_AT_ONCE = 250  # records that a process reads before it hands them over


class AlreadyThereError(RecordError):
    """A file that is written once is there already, with other content."""


@dataclasses.dataclass(frozen=True)
class Store:
    """The runs under a results folder.

    Attributes:
      root: the results folder; runs are under `root/runs`.
    """

    root: Path

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.root / "runs"

    def folder(self, run_id: str) -> Path:
        """Folder of one run."""
        return self.runs / run_id

    def checkpoints(self, run_id: str) -> Path:
        """Folder of a run's checkpoints."""
        return self.folder(run_id) / "checkpoints"

    def weights(self, record: RunRecord) -> Path:
        """Path of what is left of a run's training: the network's weights, as TensorFlow names a checkpoint."""
        return self.checkpoints(record.id).absolute() / f"weights-{record.settings[TRAIN_STEPS]}"

    def drop_training_checkpoints(self, run_id: str) -> None:
        """Removes what only going on with the training needs; the weights stay."""
        folder = self.checkpoints(run_id)
        self.drop_unfinished_checkpoints(run_id)
        for path in (*folder.glob("ckpt-*"), folder / "checkpoint"):
            path.unlink(missing_ok=True)

    def drop_unfinished_checkpoints(self, run_id: str) -> None:
        """Removes what a kill left of a checkpoint that was being written."""
        for path in self.checkpoints(run_id).glob("*_temp"):
            shutil.rmtree(path, ignore_errors=True)

    def attempts(self, run_id: str) -> Attempts:
        """What is kept of a run while it has no record."""
        return Attempts(self.folder(run_id))

    def state(self, run_id: str) -> State:
        """Where a run stands."""
        return State("done") if self.has(run_id) else self.attempts(run_id).state()

    def log(self, run_id: str, task_index: int = 0) -> Path:
        """File of what the libraries said while the run was carried out; one for each of several workers."""
        return self.folder(run_id) / (f"log-{task_index}.txt" if task_index else "log.txt")

    def has(self, run_id: str) -> bool:
        """Whether the run has a record."""
        return (self.folder(run_id) / RECORD).is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from training into the same folder; the system lets go when the process ends.

        Raises:
          RecordError: another process holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecordError(
                    f"{self.root}: another process is training into it; wait for it, or choose another --results"
                ) from None
            yield

    def write_predictions(self, run_id: str, protocol: str, table: pd.DataFrame) -> tuple[str, str]:
        """Writes the predictions file of a protocol; name of the file and its SHA-256."""
        name = f"predictions-{protocol}.parquet"
        path = self.folder(run_id) / name
        content = io.BytesIO()
        table.to_parquet(content, index=False)
        files.replace(path, content.getvalue())
        return name, file_hash(path)

    def write(self, record: RunRecord) -> Path:
        """Writes a record.

        Raises:
          AlreadyThereError: the run has a record.
        """
        return self._write_once(self.folder(record.id) / RECORD, records.to_json(record))

    def write_evaluation(self, record: RunRecord, evaluation: Evaluation) -> Path:
        """Adds an evaluation under another protocol to a run that has a record.

        Raises:
          AlreadyThereError: the run was evaluated under it before.
        """
        path = self.folder(record.id) / f"evaluation-{evaluation.protocol}.json"
        if evaluation.protocol in self.read(record.id).evaluations:
            raise AlreadyThereError(f"{path}: the run was evaluated under this protocol before")
        return self._write_once(path, records.evaluation_to_json(record.identity, evaluation))

    def _write_once(self, path: Path, content: Mapping[str, Any]) -> Path:
        try:
            return files.create(path, json.dumps(content, indent=1, allow_nan=False).encode())
        except FileExistsError:
            raise AlreadyThereError(f"{path}: written by another process in the meantime") from None

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
        for added in sorted(folder.glob("evaluation-*.json")):
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
        evaluation = record.evaluations.get(protocol)
        if evaluation is None:
            known = ", ".join(record.evaluations)
            raise RecordError(f"run {record.id}: not evaluated under {protocol}, only under {known}")
        path = self.folder(record.id) / Path(evaluation.predictions).name
        if not path.is_file():
            raise RecordError(f"{path}: missing, though the record names it")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != evaluation.predictions_sha256:
            raise RecordError(f"{path}: changed since the record was written (SHA-256 differs)")
        return content


class Snapshot(Store):
    """A store as it was when it was first looked at: its files are read, and their hashes taken, once and many at once.

    What is read of a run alone, as by :meth:`read`, is read anew.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        vars(self).update(_outcomes={})

    def begin(self) -> None:
        """Begins to read the records, in other processes; what asks for them waits."""
        _ = self._begun

    @functools.cached_property
    def _begun(self) -> Callable[[], list[dict[str, Excerpt | RecordError]]]:
        store = Store(self.root)
        return forking.begin(
            [functools.partial(_excerpts, store, some) for some in forking.parts(store.ids(), _AT_ONCE)]
        )

    @functools.cached_property
    def _found(self) -> dict[str, Excerpt | RecordError]:
        with forking.without_collecting():
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
        work = [functools.partial(_look, Store(self.root), some) for some in forking.parts(wanted, _AT_ONCE)]
        with forking.without_collecting():
            for looked in forking.each(work):
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
    """One line for each record and protocol, for :mod:`harness.aggregate`.

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


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: damaged, not JSON ({error}); delete the folder to train the run again") from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
