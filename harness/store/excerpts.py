"""Short forms of records, for overviews of thousands of runs, and which runs differ only in their seed.

Runs that differ only in their seed are of one kind; a kind is named by a hash, see :func:`kind`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from harness.config.experiment import SEED, Run, content_hash, identity_content
from harness.store.records import Evaluation, RunRecord

VALIDATION_SEED = "task.validation_data.seed"


@dataclasses.dataclass(frozen=True)
class RecordSummary:
    """A record without its settings and its curve.

    Its attributes are those of :class:`harness.store.records.RunRecord`, and `kind` and `taken_in`.

    Attributes:
      identity: identity of the run.
      kind: hash of everything that decides the run's result except the seed, see :func:`kind`; empty if the record's
        seeds contradict one another.
      taken_in: whether the run was trained by a trainer other than the harness's.
      profile: name of the profile.
      seed: the seed.
      replicas: number of replicas that the batch was split over.
      data, cut, parent, cost, provenance: as in the record.
      evaluations: protocol name -> evaluation.
    """

    identity: str
    kind: str
    taken_in: bool
    profile: str
    seed: int
    replicas: int
    data: Mapping[str, Any]
    cut: Mapping[str, Any]
    parent: str | None
    cost: Mapping[str, Any]
    provenance: Mapping[str, Any]
    evaluations: Mapping[str, Evaluation]

    @property
    def id(self) -> str:
        """The first 16 digits of the identity."""
        return self.identity[:16]


class RecordSummarizer:
    """Makes excerpts of records, and computes the kind of runs that differ only in their seed just once."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def __call__(self, record: RunRecord) -> RecordSummary:
        """Returns the excerpt of a record."""
        return RecordSummary(
            identity=record.identity,
            kind=self._kind(record),
            taken_in="trained_by" in record.identity_content,
            **{name: getattr(record, name) for name in _COPIED},
        )

    def _kind(self, record: RunRecord) -> str:
        content = {**record.identity_content, "settings": record.settings}
        seeds = (content.get("seed"), *(record.settings.get(name) for name in (SEED, VALIDATION_SEED)))
        if any(seed != record.seed for seed in seeds):
            return ""  # seeds that contradict one another: the settings were made by hand
        shared = _shared(content)
        # Unlike the values themselves, their text tells True from 1 and 0 from 0.0.
        text = repr(shared)
        if text not in self._kinds:
            self._kinds[text] = content_hash(shared)
        return self._kinds[text]


_COPIED = ("profile", "seed", "replicas", "data", "cut", "parent", "cost", "provenance", "evaluations")


def kind(run: Run) -> str:
    """Returns the hash of everything that decides a run's result except the seed: SHA-256, 64 hexadecimal digits.

    Runs that differ only in their seed have the same.
    """
    return content_hash(_shared(identity_content(run)))


def _shared(content: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in content["settings"].items() if name not in (SEED, VALIDATION_SEED)}
    return {**{name: value for name, value in content.items() if name != "seed"}, "settings": settings}


def by_kind(records: Iterable[RecordSummary]) -> dict[str, dict[int, str]]:
    """Returns kind -> seed -> identity, for the records whose kind is known."""
    kinds: dict[str, dict[int, str]] = {}
    for record in records:
        if record.kind:
            kinds.setdefault(record.kind, {})[record.seed] = record.identity
    return kinds


def seeded(run: Run, seed: int, identity: str | None = None) -> Run:
    """Returns a run with another seed and everything else unchanged; if it starts from other runs, they get it too.

    Args:
      run: the run.
      seed: the other seed.
      identity: identity of the run with that seed, if a record gives it.
    """
    start = None if run.start is None else seeded(run.start, seed)
    return dataclasses.replace(
        run,
        cell=dataclasses.replace(run.cell, seed=seed),
        settings={**run.settings, SEED: seed, VALIDATION_SEED: seed},
        recorded=identity,
        start=start,
        parent=run.parent if start is None else start.identity,
    )
