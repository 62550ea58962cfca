"""The record of a run: frozen, versioned, plain data, which every reported number comes from.

Records outlive the code that wrote them. This module reads every schema from that of the first release, 2, to the
current one. A field that an old record lacks gets its default. So a new field is one line in its class:

    notes: str = _since(3, "")

This line also raises the schema that is written to 3. A field is never removed, renamed or given another meaning.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from harness.config.experiment import (
    RESULTS_VERSION,
    TRAIN_BATCH,
    DatasetInfo,
    Overrides,
    Protocol,
    Run,
    applied_as_data,
    content_hash,
    garden_version,
    identity_content,
)
from harness.config.studies import Cell
from harness.system.errors import HarnessError

FIRST_SCHEMA = 2
_HASH = re.compile(r"[0-9a-f]{64}")


class RecordError(HarnessError):
    """A record that cannot be used; the message tells the user why, in one line."""


def _since(schema: int, default: Any) -> Any:
    """Declares a field that was added in a schema; in records of older schemas it reads as the default."""
    return dataclasses.field(default=default, metadata={"schema": schema})


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run's last checkpoint.

    Attributes:
      protocol: name of the protocol: "10x3@256".
      clips, crops, size: views in time, views in space, and their size in pixels, as in the protocol's name.
      videos: number of videos evaluated.
      videos_in_split: number of videos the validation split has.
      top1, top5: accuracy over the videos, fractions.
      loss: mean cross entropy, nats.
      checkpoint: name of the checkpoint.
      seconds: time it took.
      predictions: name of the predictions file beside the record.
      predictions_sha256: hash of that file.
      provenance: when, on what device and by which commit the evaluation was made.
    """

    protocol: str
    clips: int
    crops: int
    size: int
    videos: int
    videos_in_split: int
    top1: float
    top5: float
    loss: float
    checkpoint: str
    seconds: float
    predictions: str
    predictions_sha256: str
    provenance: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Everything that is kept of a finished run.

    Attributes:
      identity: the run's identity, 64 hexadecimal digits.
      profile: name of the profile.
      toggles, scale: key -> value of the toggles and of the scaling axes.
      seed: the seed.
      settings: every value that decided the result.
      bookkeeping: other values that the Garden was given: intervals, evaluation batches; not part of the identity.
      identity_content: the content whose hash is the identity.
      data: name, fingerprint, class and video counts of the data set.
      cut: departures from the profile; empty if there are none.
      parent: identity of the run it started from; None if it started from its seed.
      cost: "params", "multiply_adds" (one evaluation view), "train_steps", "train_seconds".
      curve: points of the training curve.
      evaluations: protocol name -> evaluation; empty for a stage that other runs start from.
      provenance: commit, versions, device; number of attempts and the steps at which they resumed; start and duration
        of the last attempt.
    """

    identity: str
    profile: str
    toggles: Mapping[str, Any]
    scale: Mapping[str, Any]
    seed: int
    settings: Mapping[str, Any]
    bookkeeping: Mapping[str, Any]
    identity_content: Mapping[str, Any]
    data: Mapping[str, Any]
    cut: Mapping[str, Any]
    parent: str | None
    cost: Mapping[str, Any]
    curve: tuple[Mapping[str, Any], ...]
    evaluations: Mapping[str, Evaluation]
    provenance: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The first 16 digits of the identity."""
        return self.identity[:16]

    @property
    def first_evaluation(self) -> Evaluation:
        """The evaluation that the record was written with.

        Raises:
          RecordError: there is none, as for a stage that other runs start from.
        """
        for evaluation in self.evaluations.values():
            return evaluation
        raise RecordError(f"run {self.id}: was never evaluated, other runs start from it")

    @property
    def replicas(self) -> int:
        """Number of replicas that the batch was split over."""
        return int(self.settings[TRAIN_BATCH]) // int(self.identity_content["clips_per_group"])


def _schema_of(field: dataclasses.Field[Any]) -> int:
    """Returns the schema that a field was added in."""
    return int(field.metadata.get("schema", FIRST_SCHEMA))


# The schema of newly written records: that of the newest field.
SCHEMA = max(_schema_of(field) for kind in (RunRecord, Evaluation) for field in dataclasses.fields(kind))


def of_run(
    run: Run,
    cost: Mapping[str, Any],
    curve: tuple[Mapping[str, Any], ...],
    evaluation: Evaluation | None,
    provenance: Mapping[str, Any],
) -> RunRecord:
    """Makes the record of a run that was trained and evaluated, or only trained."""
    return RunRecord(
        identity=run.identity,
        profile=run.profile,
        toggles=applied_as_data(run.cell.toggles),
        scale=run.scale,
        seed=run.seed,
        settings=dict(run.settings),
        bookkeeping=dict(run.bookkeeping),
        identity_content={key: value for key, value in identity_content(run).items() if key != "settings"},
        data=dataclasses.asdict(run.data),
        # Videos that were left out concern the evaluations, each of which says how many it had.
        cut={key: value for key in ("steps", "batch") if (value := getattr(run.cut, key)) is not None},
        parent=run.parent,
        cost=cost,
        curve=curve,
        evaluations={evaluation.protocol: evaluation} if evaluation else {},
        provenance=provenance,
    )


def run_of(record: RunRecord, protocol: Protocol, evaluation_batch: int) -> Run:
    """Makes the run of a record, to be evaluated under a protocol; its cell holds only the seed.

    Args:
      record: the record.
      protocol: how to evaluate the run.
      evaluation_batch: videos per evaluation batch and replica.

    Raises:
      RecordError: the record was made by other versions, with which an evaluation could differ.
    """
    for name, current in (("model_garden", garden_version()), ("results_version", RESULTS_VERSION)):
        recorded = record.identity_content[name]
        if recorded != current:
            raise RecordError(
                f"run {record.id}: made with {name} {recorded}, this is {current}: evaluate it with that version"
            )
    return Run(
        cell=Cell((), record.seed),
        profile=record.profile,
        data=DatasetInfo(**record.data),
        settings=record.settings,
        bookkeeping=record.bookkeeping,
        protocol=protocol,
        evaluation_batch=evaluation_batch,
        replicas=record.replicas,
        scale=record.scale,
        cut=Overrides(**record.cut),
        parent=record.parent,
        recorded=record.identity,
    )


def to_json(record: RunRecord) -> dict[str, Any]:
    """Converts a record to plain data for its file, with a hash that reveals changes made by hand."""
    return _sealed(dataclasses.asdict(record))


def evaluation_to_json(identity: str, evaluation: Evaluation) -> dict[str, Any]:
    """Converts an evaluation that is added to a run to plain data for its file, with a hash too."""
    return _sealed({"identity": identity, **dataclasses.asdict(evaluation)})


def _sealed(content: dict[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "sha256": content_hash(content), **content}


def from_json(content: Any, where: str) -> RunRecord:
    """Reads a record from plain data.

    Args:
      content: the parsed content of the file.
      where: the file's name, for messages.

    Raises:
      RecordError: the content is not a valid record; the message names the file, the field and what was expected.
    """
    schema, fields = _unsealed(content, where)
    fields = _complete(fields, schema, RunRecord, where)
    if not isinstance(fields["identity"], str) or not _HASH.fullmatch(fields["identity"]):
        raise RecordError(f"{where}: identity {str(fields['identity'])[:20]!r}: expected 64 hexadecimal digits")
    for name in (
        "toggles",
        "scale",
        "settings",
        "bookkeeping",
        "identity_content",
        "data",
        "cut",
        "cost",
        "evaluations",
        "provenance",
    ):
        if not isinstance(fields[name], Mapping):
            raise RecordError(f"{where}: {name}: expected a mapping")
    fields["curve"] = tuple(fields["curve"])
    fields["evaluations"] = {
        protocol: Evaluation(**_complete(evaluation, schema, Evaluation, f"{where}: evaluation {protocol}"))
        for protocol, evaluation in fields["evaluations"].items()
    }
    return RunRecord(**fields)


def evaluation_from_json(content: Any, where: str) -> tuple[str, Evaluation]:
    """Reads an evaluation that was added to a run from plain data.

    Returns:
      The identity of the run, and the evaluation.

    Raises:
      RecordError: the content is not valid; the message names the file, the field and what was expected.
    """
    schema, fields = _unsealed(content, where)
    if "identity" not in fields:
        raise RecordError(f"{where}: field 'identity' is missing")
    return str(fields.pop("identity")), Evaluation(**_complete(fields, schema, Evaluation, where))


def _unsealed(content: Any, where: str) -> tuple[int, dict[str, Any]]:
    """Checks the schema and the hash in a file's plain data.

    Returns:
      The schema, and the other fields.

    Raises:
      RecordError: the content is not an object, has an unknown schema, or was changed since it was written.
    """
    fields = dict(_object(content, where))
    schema, seal = fields.pop("schema", None), fields.pop("sha256", None)
    if type(schema) is not int or schema < FIRST_SCHEMA:
        raise RecordError(f"{where}: schema {schema!r}: this version of the harness reads {_READ}")
    if schema > SCHEMA:
        raise RecordError(f"{where}: schema {schema}: this version of the harness reads {_READ}, a newer one wrote it")
    if seal != content_hash(fields):
        raise RecordError(
            f"{where}: changed since it was written, its sha256 does not hold; remove the folder to train anew"
        )
    return schema, fields


_READ = str(SCHEMA) if SCHEMA == FIRST_SCHEMA else f"{FIRST_SCHEMA} to {SCHEMA}"


def _complete(content: Any, schema: int, kind: type, where: str) -> dict[str, Any]:
    """Returns the fields of a class that are in plain data; those newer than the schema keep their defaults.

    Args:
      content: the plain data.
      schema: the schema that it was written with.
      kind: the class.
      where: the file's name, for messages.

    Raises:
      RecordError: a field of that schema is missing, or a field is not in that schema.
    """
    fields = dict(_object(content, where))
    known = [field for field in dataclasses.fields(kind) if _schema_of(field) <= schema]
    for missing in sorted({field.name for field in known} - set(fields)):
        raise RecordError(f"{where}: field {missing!r} is missing")
    for extra in sorted(set(fields) - {field.name for field in known}):
        raise RecordError(f"{where}: unknown field {extra!r}")
    return fields


def _object(content: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise RecordError(f"{where}: expected a JSON object")
    return content
