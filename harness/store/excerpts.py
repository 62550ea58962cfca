"""What an overview of thousands of runs needs of their records, and which of them differ in their seed alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from harness.config.experiment import SEED, Run, content_hash, identity_content
from harness.store.records import Evaluation, RunRecord

VALIDATION_SEED = "task.validation_data.seed"


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A record without its settings and its curve.

    Its attributes are those of :class:`harness.store.records.RunRecord`, and two more.

    Attributes:
      identity: the run's.
      kind: what decides its result, the seed aside, as :func:`kind` gives it.
      taken_in: whether another trainer than ours trained it.
      profile: name of the profile.
      seed: the seed.
      replicas: over how many the batch was split.
      data, cut, parent, cost, provenance: as of the record.
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


class Excerpting:
    """Makes excerpts; runs that differ in their seed alone have their kind counted once."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def __call__(self, record: RunRecord) -> Excerpt:
        """The excerpt of a record."""
        return Excerpt(
            identity=record.identity,
            kind=self._kind(record),
            taken_in="trained_by" in record.identity_content,
            **{name: getattr(record, name) for name in _COPIED},
        )

    def _kind(self, record: RunRecord) -> str:
        content = {**record.identity_content, "settings": record.settings}
        seeds = (content.get("seed"), *(record.settings.get(name) for name in (SEED, VALIDATION_SEED)))
        if any(seed != record.seed for seed in seeds):
            return ""  # made by hand: no seed of anything
        shared = _shared(content)
        # Its text tells true from 1 and 0 from 0.0, which are equal.
        text = repr(shared)
        if text not in self._kinds:
            self._kinds[text] = content_hash(shared)
        return self._kinds[text]


_COPIED = ("profile", "seed", "replicas", "data", "cut", "parent", "cost", "provenance", "evaluations")


def kind(run: Run) -> str:
    """SHA-256, 64 hexadecimal digits, of all that decides a run's result, the seed aside: the identity of its seeds."""
    return content_hash(_shared(identity_content(run)))


def _shared(content: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in content["settings"].items() if name not in (SEED, VALIDATION_SEED)}
    return {**{name: value for name, value in content.items() if name != "seed"}, "settings": settings}


def by_kind(found: Iterable[Excerpt]) -> dict[str, dict[int, str]]:
    """Kind -> seed -> identity, of the records that are of one."""
    kinds: dict[str, dict[int, str]] = {}
    for one in found:
        if one.kind:
            kinds.setdefault(one.kind, {})[one.seed] = one.identity
    return kinds


def seeded(run: Run, seed: int, identity: str | None = None) -> Run:
    """A run with another seed, which is all that it changes; of a chain, every stage has it.

    Args:
      run: the run.
      seed: the other seed.
      identity: of the run with it, where a record says it.
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
