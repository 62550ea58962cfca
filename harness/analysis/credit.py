"""Computes the credit of each toggle under each design, and the interactions between toggles."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis import comparison, estimates, study_summary
from harness.analysis.comparison import Outcomes
from harness.analysis.estimates import Difference
from harness.analysis.study_summary import Evidence, Wanted
from harness.config.designs import DESIGNS, Design, Question, Weights
from harness.config.toggles import ToggleValue


@dataclasses.dataclass(frozen=True)
class Credits:
    """Credits of the same toggles under several designs, ready to be drawn.

    Attributes:
      name: short name, for files and labels: "table2".
      title: the question, in one line.
      profile: name of the profile.
      caption: text about the numbers: profile, data, protocol, population of the intervals, findings, and what is
        missing.
      designs: names of the designs, in the order requested.
      labels: labels of the toggles, in the study's order.
      credits: a line for each design and toggle, in that order; columns: "design", "toggle" (its label), "credit"
        (percentage points of top-1 that the toggle adds; NaN where missing), "low", "high" (95 % interval, points),
        "p" (two-sided), "p_holm" (Holm over the design's toggles), "p_equal" (equivalence within the margin),
        "p_equal_holm", "finding" (see :func:`harness.analysis.comparison.verdicts`), "population" (of the interval),
        "method",
        "note" (the scale, where it is not the base's: "depth 200, 48 frames"), "absent" (the text
        in place of a missing number: "not run", "2 of 3 seeds"; empty elsewhere), "run_ids" (tuple).
      interactions: a line for each pair of toggles whose interaction can be estimated, the largest first; columns:
        "first", "second" (labels), "effect" (points by which the first adds more where the second is on), "low",
        "high", "p", "p_holm", "finding" ("more", "less", "unsettled").
      interactions_note: one sentence: why there are none, or which runs they were estimated from.
      margin: largest difference, in points, that counts as none; NaN where no margin was given.
    """

    name: str
    title: str
    profile: str
    caption: str
    designs: tuple[str, ...]
    labels: tuple[str, ...]
    credits: pd.DataFrame
    interactions: pd.DataFrame
    interactions_note: str
    margin: float


def summarise(
    designs: Sequence[Design], question: Question, wanted: Mapping[str, Wanted], evidence: Evidence
) -> Credits:
    """Summarises the credits of the toggles under the designs.

    Args:
      designs: the designs built for the question.
      question: the toggles, base and seeds.
      wanted: name of a design's study -> the runs of its rows.
      evidence: the measurements.

    Raises:
      MixedError: the runs have several profiles or data sets, rows have different videos, or one seed counts twice.
    """
    usable = evidence.usable
    named = {f"{study} {number}": seeds for study, rows in wanted.items() for number, seeds in rows.items()}
    runs = study_summary.runs_of(dict(enumerate(named.values())), usable)
    study_summary.refuse_mixed(named, runs, evidence)
    credits = pd.concat([_of_design(design, question, wanted[design.study.name], evidence) for design in designs],
                        ignore_index=True)  # fmt: skip
    interactions, note = _interactions(designs, question, wanted, usable)
    return Credits(
        name=question.study.name,
        title="What each toggle is credited with, by design",
        profile=evidence.profile,
        caption=" ".join([evidence.caption, *_remarks(designs, question, credits, runs, evidence), note]),
        designs=tuple(map(name, designs)),
        labels=tuple(factor.label for factor in question.factors),
        credits=credits,
        interactions=interactions,
        interactions_note=note,
        margin=evidence.margin,
    )


def _of_design(design: Design, question: Question, wanted: Wanted, evidence: Evidence) -> pd.DataFrame:
    """Returns a line for each toggle under one design."""
    keys = [one.toggle.key for one in question.factors]
    rows = {key: _rows(design, key) for key in keys}
    differences = [_difference(design, key, wanted, evidence) for key in keys]
    lines = comparison.verdicts(differences, len(keys)).rename(columns={"value": "credit"})
    lines.insert(0, "design", name(design))
    lines.insert(1, "toggle", [one.label for one in question.factors])
    lines["note"] = [design.scales.get(key, "") for key in keys]
    lines["absent"] = [
        "" if one else _absent(rows[key], wanted, evidence) for key, one in zip(keys, differences, strict=True)
    ]
    lines["run_ids"] = [tuple(_ids(rows[key], wanted)) for key in keys]
    return lines


def name(design: Design) -> str:
    """Returns the name of the design; the study's own rows are the additive design."""
    return design.study.name if design.study.name in DESIGNS else "additive"


def _rows(design: Design, key: str) -> dict[int, Weights]:
    """Returns seed -> weights of the toggle's credit, for the seeds that credit it."""
    return {seed: credits[key] for seed, credits in design.credits.items() if key in credits}


def _ids(rows: Mapping[int, Weights], wanted: Wanted) -> Iterator[str]:
    """Yields the ids of the runs that a credit is computed from, each once."""
    yield from dict.fromkeys(wanted[number][seed] for seed, weights in rows.items() for number in weights)


def _absent(rows: Mapping[int, Weights], wanted: Wanted, evidence: Evidence) -> str:
    """Returns the text in place of a missing credit."""
    if not rows:
        return "not asked"
    ids = list(_ids(rows, wanted))
    finished = sum(run_id in evidence.outcomes for run_id in ids)
    return f"{finished} of {len(ids)} runs" if finished else "not run"


def _difference(design: Design, key: str, wanted: Wanted, evidence: Evidence) -> Difference | None:
    """Returns the credit of a toggle; None where a run is missing."""
    rows = _rows(design, key)
    if not rows or any(run_id not in evidence.outcomes for run_id in _ids(rows, wanted)):
        return None
    margin = evidence.tolerance
    sums = [_weighted(weights, seed, wanted, evidence) for seed, weights in rows.items()]
    terms = sums[0]
    if len(sums) > 1:
        per_seed = [float(sum(weight * outcomes.right.mean() for weight, outcomes in terms)) for terms in sums]
        # The smallest change of the credit that a single video can make.
        step = min(abs(weight) for weight, _ in terms) / terms[0][1].right.shape[1]
        return estimates.contrast(per_seed, "seeds", margin, step=step)
    if sorted(weight for weight, _ in terms) == [-1.0, 1.0]:
        (_, before), (_, after) = sorted(terms, key=lambda term: term[0])
        return comparison.compare(before, after, margin)
    per_video = np.sum([weight * outcomes.right[0] for weight, outcomes in terms], axis=0)
    difference = estimates.contrast(per_video, "videos", margin, step=1.0)
    return _untested(difference) if design.drawn else difference


def _untested(found: Difference) -> Difference:
    """Removes the interval and the tests, since one seed cannot tell how much other orders would differ."""
    unknown = dict.fromkeys(("low", "high", "p", "p_equal"), math.nan)
    return dataclasses.replace(found, **unknown, method="")  # type: ignore[arg-type]


def _weighted(weights: Weights, seed: int, wanted: Wanted, evidence: Evidence) -> list[tuple[float, Outcomes]]:
    """Returns the terms of one seed's credit: the weight and the outcomes of each row's run."""
    return [  # all on the same videos: `summarise` has refused anything else
        (
            weight,
            comparison.outcomes(f"run {wanted[number][seed][:8]}", {seed: wanted[number][seed]}, evidence.outcomes),
        )
        for number, weight in weights.items()
    ]


def _interactions(
    designs: Sequence[Design], question: Question, wanted: Mapping[str, Wanted], usable: pd.DataFrame
) -> tuple[pd.DataFrame, str]:
    """Estimates interactions from the runs of all designs at the base's scale; returns them and a sentence on them."""
    runs = _runs_at_base(designs, question, wanted)
    missing = sum(run_id not in usable.index for run_id in runs)
    if missing or len(question.factors) < 2:
        reason = f"{missing} of {len(runs)} runs are missing" if missing else "there is one toggle only"
        return _ordered([], question), f"Interactions: not told, {reason}."
    switched_on = [[factor in applied for factor in question.factors] for applied, _ in runs.values()]
    try:
        pairs, freedom = estimates.interactions(
            usable.loc[list(runs), "top1"].to_numpy(),
            np.array(switched_on, dtype=int),
            np.array([s for _, s in runs.values()]),
        )
    except estimates.NotEstimable as error:
        return _ordered([], question), f"{str(error)[0].upper()}{str(error)[1:]}."
    every = len(set(map(tuple, switched_on))) == 2 ** len(question.factors)
    bias = "" if every else ", and can bias them, since not every combination was run"
    return _ordered(pairs, question), (
        f"Interactions by least squares over the {len(runs)} runs of all designs at one scale ({freedom} degrees of "
        f"freedom are left; noise are the trainings' own differences and what three toggles do together{bias}). *: at "
        f"5 % after Holm's correction for {len(pairs)} pair{'s' if len(pairs) > 1 else ''}."
    )


def _runs_at_base(
    designs: Sequence[Design], question: Question, wanted: Mapping[str, Wanted]
) -> dict[str, tuple[frozenset[ToggleValue], int]]:
    """Returns id -> toggles and seed of every distinct run that has the base and, beyond it, only factors."""
    base, factors = frozenset(question.base), frozenset(question.factors)
    runs: dict[str, tuple[frozenset[ToggleValue], int]] = {}
    for design in designs:
        for row in design.study.rows:
            applied = frozenset(row.applied)
            if base <= applied and applied - base <= factors:
                runs |= {run_id: (applied, seed) for seed, run_id in wanted[design.study.name][row.number].items()}
    return runs


_INTERACTIONS = ["first", "second", "effect", "low", "high", "p", "p_holm", "finding"]


def _ordered(found: Sequence[estimates.Interaction], question: Question) -> pd.DataFrame:
    """Returns the interactions as a table, in percentage points, the largest first."""
    labels = [factor.label for factor in question.factors]
    adjusted = estimates.holm([pair.p for pair in found])
    lines: list[dict[str, Any]] = [
        {
            "first": labels[pair.first],
            "second": labels[pair.second],
            "effect": 100 * pair.value,
            "low": 100 * pair.low,
            "high": 100 * pair.high,
            "p": pair.p,
            "p_holm": float(p),
            "finding": "unsettled" if not p <= comparison.LEVEL else "more" if pair.value > 0 else "less",
        }
        for pair, p in zip(found, adjusted, strict=True)
    ]
    table = pd.DataFrame(lines, columns=_INTERACTIONS)
    return table.iloc[np.argsort(-table["effect"].abs().to_numpy(dtype=float), kind="stable")].reset_index(drop=True)


def _remarks(
    designs: Sequence[Design], question: Question, credits: pd.DataFrame, runs: pd.DataFrame, evidence: Evidence
) -> list[str]:
    """Returns the sentences of the caption that depend on the numbers."""
    remarks = study_summary.provenance(runs)
    remarks.append(f"A toggle's credit: {'; '.join(design.note.removesuffix('.') for design in designs)}.")
    base = " ".join(str(item) for item in question.base)
    if base:
        remarks.append(f"Every run has {base}.")
    scales = {line["toggle"]: line["note"] for line in credits.to_dict("records") if line["note"]}
    if scales:
        remarks.append(f"†: {'; '.join(f'{label} was asked at {note}' for label, note in scales.items())}.")
    if (credits["finding"] == "not tested").any():
        remarks.append(
            "Credits over drawn orders have no interval with one seed, which cannot tell how far other orders would "
            "have led: train more seeds, or draw enough --orderings that all are taken."
        )
    remarks += study_summary.marks(
        credits, evidence.margin, "Credits", f"the {len(question.factors)} toggles of a design"
    )
    return remarks + _findings(credits)


_SAID = {
    "better": ("helps", "help"),
    "worse": ("hurts", "hurt"),
    "slightly better": ("helps by less than the margin", "help by less than the margin"),
    "slightly worse": ("hurts by less than the margin", "hurt by less than the margin"),
    "no difference": ("does not matter", "do not matter"),
    "unsettled": ("is unsettled", "are unsettled"),
    "not tested": ("is not tested", "are not tested"),
}
# One seed says nothing about the toggle itself, since the difference may come from the seed.
_SAID_OF_TRAININGS = {
    "better": ("is better", "are better"),
    "worse": ("is worse", "are worse"),
    "slightly better": ("is better by less than the margin", "are better by less than the margin"),
    "slightly worse": ("is worse by less than the margin", "are worse by less than the margin"),
    "no difference": ("is equal within the margin", "are equal within the margin"),
}


def _findings(credits: pd.DataFrame) -> list[str]:
    """Returns a sentence on the findings of each design."""
    sentences = []
    for design, lines in credits.groupby("design", sort=False):
        single = (lines["population"] == "videos").any()
        verbs = _SAID | (_SAID_OF_TRAININGS if single else {})
        phrases = [
            f"{', '.join(matching['toggle'])} {verb[len(matching) > 1]}"
            for finding, verb in verbs.items()
            if len(matching := lines[lines["finding"] == finding])
        ]
        if phrases:
            of = " (these trainings of one seed; other seeds may say otherwise)" if single else ""
            sentences.append(f"{str(design).capitalize()}{of}: {'; '.join(phrases)}.")
    return sentences
