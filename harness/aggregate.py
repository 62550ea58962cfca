"""Records -> one tidy summary of a study: a line for each row, with a missing run said and never averaged over."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness import estimates
from harness.studies import Row, Study


@dataclasses.dataclass(frozen=True)
class Summary:
    """A study's numbers, ready to be drawn.

    Attributes:
      study: the study.
      profile: name of the profile.
      caption: what the numbers are: profile, data, protocol, what the intervals speak of, what is missing.
      reference: head of the column with the paper's numbers.
      rows: a line for each row of the study, indexed by its number; columns: "model", "keys" (frozenset of the
        keys of its toggles and axes), "setting" (label of the last change, for figures), "gflops" (1e9 multiply-adds
        of one view), "params", "top1", "low", "high" (percent; NaN where missing), "population" (of the interval),
        "step" (points above the row it follows, NaN where there is none), "seeds" (finished), "seeds_wanted",
        "videos", "paper_top1", "paper_step", "paper_gflops", "run_ids" (tuple).
      population: what the intervals speak of: "videos" or "seeds"; empty while nothing is finished.
      comparable: whether our numbers answer to the paper's: its profile, uncut, on 400 classes.
    """

    study: Study
    profile: str
    caption: str
    reference: str
    rows: pd.DataFrame
    population: str
    comparable: bool


def summarise(
    study: Study,
    wanted: Mapping[int, Sequence[str]],
    found: pd.DataFrame,
    published: pd.DataFrame | None,
    profile: str,
    caption: str,
    protocol: str,
) -> Summary:
    """The summary of a study.

    Args:
      study: the study.
      wanted: row number -> ids of its runs, one for each seed.
      found: the records, as :func:`harness.store.frame` gives them.
      published: the published numbers, indexed by row; None where there are none.
      profile: name of the profile.
      caption: the profile's own sentence.
      protocol: name of the protocol; numbers under any other are not looked at.
    """
    usable = found[found["protocol"] == protocol].set_index("id")
    lines = [_line(row, list(wanted[row.number]), usable, published) for row in study.rows]
    rows = pd.DataFrame(lines).set_index("number")
    rows["step"] = [_step(row, rows) for row in study.rows]
    population = _population(rows)
    comparable = profile == "paper" and _on_the_papers_terms(_runs(rows, usable))
    return Summary(
        study=study,
        profile=profile,
        caption=" ".join([caption, *_remarks(rows, usable, protocol, population)]),
        reference="paper" if comparable else "paper, Kinetics-400",
        rows=rows,
        population=population,
        comparable=comparable,
    )


def _line(row: Row, ids: list[str], usable: pd.DataFrame, published: pd.DataFrame | None) -> dict[str, Any]:
    done = [run_id for run_id in ids if run_id in usable.index]
    # A row counts as measured once all of its seeds are there: a mean over those that happen to exist would mislead.
    estimate = _estimate(usable.loc[done]) if done and len(done) == len(ids) else None
    paper = published.loc[row.published] if published is not None and row.published else None
    keys = {one.toggle.key for one in row.applied}
    first = usable.loc[done[0]] if done else None
    return {
        "number": row.number,
        "model": row.model,
        "keys": frozenset(keys),
        "setting": row.applied[-1].toggle.label if row.applied else row.model,
        "gflops": float("nan") if first is None else first["multiply_adds"] / 1e9,
        "params": float("nan") if first is None else first["params"],
        "top1": 100 * estimate.value if estimate else float("nan"),
        "low": 100 * estimate.low if estimate else float("nan"),
        "high": 100 * estimate.high if estimate else float("nan"),
        "population": estimate.population if estimate else "",
        "seeds": len(done),
        "seeds_wanted": len(ids),
        "videos": 0 if first is None else int(first["videos"]),
        "paper_top1": float("nan") if paper is None else float(paper["top1"]),
        "paper_step": float("nan") if paper is None else float(paper["delta"]),
        "paper_gflops": float("nan") if paper is None else float(paper["gflops"]),
        "run_ids": tuple(ids),
    }


def _estimate(runs: pd.DataFrame) -> estimates.Estimate:
    if len(runs) > 1:
        return estimates.mean_over_seeds(list(runs["top1"]))
    one = runs.iloc[0]
    return estimates.accuracy(round(one["top1"] * one["videos"]), int(one["videos"]))


def _step(row: Row, rows: pd.DataFrame) -> float:
    if row.follows is None or row.follows not in rows.index:
        return float("nan")
    return float(rows.loc[row.number, "top1"] - rows.loc[row.follows, "top1"])


def _runs(rows: pd.DataFrame, usable: pd.DataFrame) -> pd.DataFrame:
    """The finished runs of the rows."""
    return usable.loc[[run_id for run_ids in rows["run_ids"] for run_id in run_ids if run_id in usable.index]]


def _on_the_papers_terms(runs: pd.DataFrame) -> bool:
    # 400 classes tell Kinetics-400 from the embedded clips; nothing in a data set proves more than that.
    whole = all(runs["videos"] == runs["videos_in_split"])
    return whole and not any(runs["cut"]) and all(runs["classes"] == 400)


def _population(rows: pd.DataFrame) -> str:
    populations = {population for population in rows["population"] if population}
    return " and ".join(sorted(populations))


def _remarks(rows: pd.DataFrame, usable: pd.DataFrame, protocol: str, population: str) -> list[str]:
    """Sentences of the caption that the numbers themselves decide."""
    runs = _runs(rows, usable)
    remarks = [_trained_on(runs, protocol)] if len(runs) else []
    if population == "videos":
        remarks.append(
            "Intervals are Wilson's at 95 %, over videos, of one seed: they do not cover the seed's own spread."
        )
    elif population == "seeds":
        remarks.append("Intervals are Student's at 95 %, over seeds, on these videos.")
    for cut in sorted({cut for cut in runs["cut"] if cut}):
        remarks.append(f"CUT SHORT, not the profile's own training: {cut}.")
    if any(runs["videos"] < runs["videos_in_split"]):
        remarks.append("CUT SHORT, not the whole validation split.")
    missing = [number for number, line in rows.iterrows() if line["seeds"] < line["seeds_wanted"]]
    if missing:
        remarks.append(f"Not finished: row {', '.join(map(str, missing))}.")
    return remarks


def _trained_on(runs: pd.DataFrame, protocol: str) -> str:
    data = sorted(
        {f"{name} ({fingerprint[:8]})" for name, fingerprint in zip(runs["dataset"], runs["fingerprint"], strict=True)}
    )
    videos = sorted(
        {f"{int(some)} of {int(of)}" for some, of in zip(runs["videos"], runs["videos_in_split"], strict=True)}
    )
    return f"Trained on {', '.join(data)}; evaluated on {', '.join(videos)} validation videos, {protocol} views."
