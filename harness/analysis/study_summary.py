"""Records -> one tidy summary of a study: a line for each row, with a missing run said and never averaged over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablations.datasets import DATASETS, GENERATED, WVT
from harness.accelerators import core_hours
from harness.accelerators.core_hours import RowCosts, RunCost
from harness.analysis import comparison, estimates, verdicts
from harness.analysis.comparison import MixedError
from harness.analysis.estimates import Difference
from harness.config.experiment import DatasetInfo
from harness.config.studies import Row, Study

# Row number -> seed -> id of the run.
Wanted = Mapping[int, Mapping[int, str]]

# The outcomes of the row that a row follows, and its own.
Pair = tuple[comparison.Outcomes, comparison.Outcomes]

FLIPS = ["row", "follows", "class", "right", "wrong", "net"]
_MOST_CLASSES = 3
_LEFT = 0.5  # of the paper's videos; who has fewer answers another question


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was measured, for several studies alike.

    Attributes:
      records: a line for each record and protocol, as :func:`harness.store.run_store.frame` gives them.
      outcomes: id of a run -> what it made of each video, as :meth:`harness.store.run_store.Store.outcomes` gives it.
      profile: name of the profile.
      caption: the profile's own sentence.
      protocols: id of a run -> name of its protocol; numbers under any other are not looked at.
      classes: fingerprint of a data set -> names of its classes; empty where they are not known.
      margin: a step up to so many percentage points counts as none; NaN for no such test.
      unusable: ids of runs whose record or predictions are damaged.
      origins: id of a run -> what it started from, in words; only of those that started from another.
      pre_trained: id of a run -> the data set that it, or one that it started from, pre-trained on; only of those.
      costs: topology of a slice -> id of a run -> what it takes there; empty where nothing was compiled for one.
    """

    records: pd.DataFrame
    outcomes: Mapping[str, pd.DataFrame]
    profile: str
    caption: str
    protocols: Mapping[str, str]
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    margin: float = math.nan
    unusable: frozenset[str] = frozenset()
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pre_trained: Mapping[str, DatasetInfo] = dataclasses.field(default_factory=dict)
    costs: Mapping[str, Mapping[str, RunCost]] = dataclasses.field(default_factory=dict)

    @property
    def usable(self) -> pd.DataFrame:
        """The records under their runs' protocols, indexed by id."""
        wanted = self.records["id"].map(self.protocols)
        return self.records[self.records["protocol"] == wanted].set_index("id")

    @property
    def tolerance(self) -> float | None:
        """The margin as a fraction of the videos; None for no such test."""
        return None if math.isnan(self.margin) else self.margin / 100


@dataclasses.dataclass(frozen=True)
class Summary:
    """A study's numbers, ready to be drawn. Percentages are of top-1 unless said; a missing number is NaN.

    Attributes:
      study: the study.
      profile: name of the profile.
      caption: what the numbers are: profile, data, protocol, what the intervals speak of, what is missing.
      reference: head of the column with the paper's numbers.
      rows: a line for each row of the study, indexed by its number; columns:
        "model", "keys" (frozenset of the keys of its toggles and axes), "setting" (label of the last change),
        "gflops" (1e9 multiply-adds of one view), "params", "videos", "run_ids" (tuple),
        "top1", "low", "high", "top5", "top5_low", "top5_high" (percent, with 95 % intervals),
        "population" (of these intervals: "videos" or "seeds"), "seeds" (finished), "seeds_wanted",
        "step" (points above the row it follows), "step_low", "step_high" (its 95 % interval), "p", "p_holm" (Holm over
        the study's steps), "p_equal", "p_equal_holm" (equivalence within the margin), "finding" ("better", "worse",
        "no difference", "unsettled"; empty where there is no step), "step_population", "units" (how many of them),
        "spread" (points: standard deviation of the step over those units), "right", "wrong" (videos that flipped,
        mean over seeds), "discordance" (fraction of the videos that flipped), "classes" (tuple of (class, net flips to
        right), the most affected), "smallest" (points: the smallest step that would have been shown, 80 % power),
        "settle" (what would show a step like the one seen, in words; empty where it is shown),
        "paper_top1", "paper_step", "paper_gflops", "protocol" (name: "10x3@256"), "views" ("10x3"), "verdict" (one of
        :data:`harness.analysis.verdicts.FINDINGS`, "not run", or empty where there is none to give), "verdict_low",
        "verdict_high" (points: the 95 % interval of ours less the paper's that it rests on).
      population: what the rows' intervals speak of: "videos" or "seeds"; empty while nothing is finished.
      comparable: whether our numbers answer to the paper's: its profile, uncut, on its data sets or what is left of
        them, and pre-trained on a set like its own.
      margin: a step up to so many percentage points counts as none; NaN for no such test.
      flips: a line for each step and class, the classes that changed most first; columns "row", "follows" (numbers),
        "class" (name), "right", "wrong" (videos that flipped, mean over seeds), "net".
      costs: what the rows take on slices of a TPU pod, each of which something is known of a row.
    """

    study: Study
    profile: str
    caption: str
    reference: str
    rows: pd.DataFrame
    population: str
    comparable: bool
    margin: float = math.nan
    flips: pd.DataFrame = dataclasses.field(default_factory=lambda: pd.DataFrame(columns=FLIPS))
    costs: tuple[RowCosts, ...] = ()


def summarise(study: Study, wanted: Wanted, evidence: Evidence, published: pd.DataFrame | None) -> Summary:
    """The summary of a study.

    Args:
      study: the study.
      wanted: the runs of its rows.
      evidence: what was measured.
      published: the published numbers, indexed by row; None where there are none.

    Raises:
      MixedError: runs of several profiles, rows of one data set of the paper's on several or on different videos, or
        one seed counted twice.
    """
    usable = evidence.usable
    runs = runs_of(wanted, usable)
    parts = _parts(study, wanted)
    for own in parts.values():
        refuse_mixed({f"row {number}": seeds for number, seeds in own.items()}, runs_of(own, usable), evidence)
    lines = [_line(row, wanted[row.number], usable, published, evidence.protocols) for row in study.rows]
    pairs = {row.number: _pair(row, wanted, evidence) for row in study.rows}
    classes = {
        number: names
        for own in parts.values()
        for names in [_classes(runs_of(own, usable), evidence)]
        for number in own
    }
    rows = pd.DataFrame(lines).set_index("number").join(_steps(pairs, _planned_steps(study), evidence, classes))
    population = " and ".join(sorted({population for population in rows["population"] if population}))
    terms = [_on_the_papers_terms(name, found) for name, own in parts.items() if len(found := runs_of(own, usable))]
    sets = _pre_trained_on(rows, evidence)
    comparable = evidence.profile == "paper" and bool(terms) and all(terms) and all(map(_like_the_papers, sets))
    rows = rows.join(_verdicts(rows, usable, comparable))
    remarks = [evidence.caption, *_stand_ins(study, runs), *_origins(rows, evidence)]
    remarks += _pre_training(sets) if evidence.profile == "paper" else []
    remarks += _remarks(rows, runs, evidence, population, _planned_steps(study))
    return Summary(
        study=study,
        profile=evidence.profile,
        caption=" ".join(remarks if len(runs) else [f"Nothing of it was run under the {evidence.profile} profile."]),
        reference="paper" if comparable else f"paper, {' and '.join(study.datasets)}",
        rows=rows,
        population=population,
        comparable=comparable,
        margin=evidence.margin,
        flips=_flips(pairs, classes),
        costs=core_hours.of_rows(wanted, evidence.costs),
    )


def _parts(study: Study, wanted: Wanted) -> dict[str, dict[int, Mapping[int, str]]]:
    """Data set that the paper asks rows on -> their runs: only such rows are on the same videos."""
    found: dict[str, dict[int, Mapping[int, str]]] = {}
    for row in study.rows:
        found.setdefault(study.dataset_of(row), {})[row.number] = wanted[row.number]
    return found


def _stand_ins(study: Study, runs: pd.DataFrame) -> list[str]:
    """A sentence where one generated set was trained on for several of the paper's."""
    used = sorted(set(runs["dataset"]) & set(GENERATED)) if len(study.datasets) > 1 else []
    return [f"{name} stands in for {' and for '.join(study.datasets)}." for name in used]


def _origins(rows: pd.DataFrame, evidence: Evidence) -> list[str]:
    """A sentence for each way in which rows came about that did not start from their seed."""
    found: dict[str, list[int]] = {}
    for number, ids in rows["run_ids"].items():
        for said in dict.fromkeys(evidence.origins[run_id] for run_id in ids if run_id in evidence.origins):
            found.setdefault(said, []).append(int(str(number)))
    return [f"Row {', '.join(map(str, own))}: {said}." for said, own in found.items()]


def _pre_trained_on(rows: pd.DataFrame, evidence: Evidence) -> dict[DatasetInfo, list[int]]:
    """Data set that rows pre-trained on -> their numbers."""
    found: dict[DatasetInfo, list[int]] = {}
    for number, ids in rows["run_ids"].items():
        for data in dict.fromkeys(evidence.pre_trained[run_id] for run_id in ids if run_id in evidence.pre_trained):
            found.setdefault(data, []).append(int(str(number)))
    return found


def _like_the_papers(data: DatasetInfo) -> bool:
    """Whether a set to pre-train on may stand for the paper's: nobody else has that, so by its size and classes."""
    return data.classes == WVT.classes and WVT.train_videos * _LEFT <= data.train_videos <= WVT.train_videos


def _pre_training(sets: Mapping[DatasetInfo, Sequence[int]]) -> list[str]:
    """A sentence for each set that rows pre-trained on: why they have no verdict, or what theirs rests on."""
    said = []
    for data, numbers in sets.items():
        pre_trained = f"{', '.join(map(str, numbers))} pre-trained on {data.name}"
        if _like_the_papers(data):
            said.append(f"Row {pre_trained}, which is like the paper's {WVT.name}, a private set, in its size alone.")
        else:
            said.append(
                f"No verdict: row {pre_trained}, {data.train_videos:,} videos of {data.classes} classes; the paper's "
                f"{WVT.name}, a private set, has {WVT.train_videos:,} of {WVT.classes}."
            )
    return said


def _line(
    row: Row,
    wanted: Mapping[int, str],
    usable: pd.DataFrame,
    published: pd.DataFrame | None,
    protocols: Mapping[str, str],
) -> dict[str, Any]:
    done = usable.loc[finished(wanted, usable)]
    paper = published.loc[row.published] if published is not None and row.published else None
    first = done.iloc[0] if len(done) else None
    # A row counts as measured once all of its seeds are there: a mean over those that happen to exist would mislead.
    whole = len(done) == len(wanted)
    top1, top5 = (_percent(_estimate(done, name) if whole else None) for name in ("top1", "top5"))
    return {
        "number": row.number,
        "model": row.model,
        "keys": frozenset(one.toggle.key for one in row.applied),
        "setting": row.applied[-1].label if row.applied else row.model,
        "gflops": math.nan if first is None else first["multiply_adds"] / 1e9,
        "params": math.nan if first is None else first["params"],
        **dict(zip(("top1", "low", "high", "population"), top1, strict=True)),
        **dict(zip(("top5", "top5_low", "top5_high"), top5, strict=False)),
        "seeds": len(done),
        "seeds_wanted": len(wanted),
        "videos": 0 if first is None else int(first["videos"]),
        "paper_top1": _printed(paper, "top1"),
        "paper_step": _printed(paper, "gain" if paper is not None and "gain" in paper.index else "delta"),
        "paper_gflops": _printed(paper, "gflops"),
        "run_ids": tuple(wanted.values()),
        "protocol": (protocol := next((protocols[run_id] for run_id in wanted.values() if run_id in protocols), "")),
        "views": protocol.partition("@")[0],
    }


def _printed(paper: pd.Series[Any] | None, column: str) -> float:
    """A number of the paper's; NaN where it prints none."""
    return math.nan if paper is None or column not in paper.index else float(paper[column])


def _estimate(runs: pd.DataFrame, name: str) -> estimates.Estimate:
    if len(runs) > 1:
        return estimates.mean_over_seeds(list(runs[name]), step=1 / runs["videos"].max())
    one = runs.iloc[0]
    return estimates.accuracy(round(one[name] * one["videos"]), int(one["videos"]))


def _percent(estimate: estimates.Estimate | None) -> tuple[float, float, float, str]:
    if estimate is None:
        return math.nan, math.nan, math.nan, ""
    return 100 * estimate.value, 100 * estimate.low, 100 * estimate.high, estimate.population


def finished(wanted: Mapping[int, str], usable: pd.DataFrame) -> list[str]:
    """Ids of the runs of one row that have a record."""
    return [run_id for run_id in wanted.values() if run_id in usable.index]


def runs_of(wanted: Wanted, usable: pd.DataFrame) -> pd.DataFrame:
    """The finished runs of the rows, each once."""
    return usable.loc[list(dict.fromkeys(run_id for own in wanted.values() for run_id in finished(own, usable)))]


def refuse_mixed(named: Mapping[str, Mapping[int, str]], runs: pd.DataFrame, evidence: Evidence) -> None:
    """Refuses runs that cannot share a table.

    Args:
      named: name of a row, for messages -> seed -> id of its run.
      runs: the finished ones.
      evidence: what was measured.

    Raises:
      MixedError: naming them.
    """
    for field, one in (("profile", "profile"), ("fingerprint", "data set"), ("videos", "number of videos")):
        kinds = runs.drop_duplicates(field)
        if len(kinds) > 1:
            which = ", ".join(f"run {run_id[:8]}: {_short(kinds.loc[run_id, field])}" for run_id in kinds.index)
            raise MixedError(f"rows cannot share a table: more than one {one} ({which})")
    if len(runs) and runs["profile"].iloc[0] != evidence.profile:
        raise MixedError(f"runs of profile {runs['profile'].iloc[0]} cannot stand in a table of {evidence.profile}")
    for name, own in named.items():
        for seed, run_id in own.items():
            if run_id in runs.index and runs.loc[run_id, "seed"] != seed:
                raise MixedError(
                    f"{name}: run {run_id[:8]} has seed {runs.loc[run_id, 'seed']} and is counted as seed "
                    f"{seed}: one seed would count twice"
                )
    there = {
        name if len(own) == 1 else f"{name}, seed {seed}": evidence.outcomes[run_id]
        for name, own in named.items()
        for seed, run_id in own.items()
        if run_id in evidence.outcomes
    }
    if there:
        comparison.refuse_several_sets(there)


def _short(value: Any) -> str:
    return value[:8] if isinstance(value, str) else str(value)


def _planned_steps(study: Study) -> int:
    """How many steps the study has once all of its runs are there."""
    numbers = {row.number for row in study.rows}
    return sum(row.follows in numbers for row in study.rows)


def _verdicts(rows: pd.DataFrame, usable: pd.DataFrame, comparable: bool) -> pd.DataFrame:
    """What each row's accuracy says of the paper's, indexed by the row's number; nothing where they do not compare."""
    return pd.DataFrame([_verdict(line, usable, comparable) for line in rows.to_dict("records")], index=rows.index)


def _verdict(line: Mapping[Any, Any], usable: pd.DataFrame, comparable: bool) -> dict[str, Any]:
    if not comparable or math.isnan(line["paper_top1"]):
        return {"verdict": "", "verdict_low": math.nan, "verdict_high": math.nan}
    if math.isnan(line["top1"]):
        return {"verdict": "not run", "verdict_low": math.nan, "verdict_high": math.nan}
    accuracies = list(usable.loc[list(line["run_ids"]), "top1"])
    found = verdicts.against_paper(accuracies, line["videos"], line["paper_top1"])
    return {"verdict": found.finding, "verdict_low": found.low, "verdict_high": found.high}


def _classes(runs: pd.DataFrame, evidence: Evidence) -> tuple[str, ...]:
    """Names of the classes of the one data set that the runs are on."""
    return evidence.classes.get(runs["fingerprint"].iloc[0], ()) if len(runs) else ()


def _steps(
    pairs: Mapping[int, Pair | None], planned: int, evidence: Evidence, classes: Mapping[int, tuple[str, ...]]
) -> pd.DataFrame:
    """The step of each row that follows another, indexed by its number; the columns of a summary that are a step's."""
    differences = {number: comparison.compare(*pair, evidence.tolerance) for number, pair in pairs.items() if pair}
    found = comparison.verdicts([differences.get(number) for number in pairs], planned)
    found.index = pd.Index(pairs, name="number")
    found = found.rename(columns={"value": "step", "low": "step_low", "high": "step_high",
                                  "population": "step_population"})  # fmt: skip
    details = [_details(pairs[number], differences.get(number), planned, classes[number]) for number in pairs]
    found = found.join(pd.DataFrame(details, index=found.index))
    found.loc[~found["finding"].isin(["unsettled"]), "settle"] = ""
    return found


def _flips(pairs: Mapping[int, Pair | None], classes: Mapping[int, tuple[str, ...]]) -> pd.DataFrame:
    tables = [
        comparison.flipped_by_class(*pair, classes[number])
        .reset_index()
        .assign(row=number, follows=int(pair[0].name.removeprefix("row ")))
        for number, pair in pairs.items()
        if pair
    ]
    return pd.concat(tables, ignore_index=True)[FLIPS] if tables else pd.DataFrame(columns=FLIPS)


def _pair(row: Row, wanted: Wanted, evidence: Evidence) -> Pair | None:
    """The row that a row follows, and itself; None where there is none, or a run of either is missing."""
    if row.follows not in wanted or row.follows is None:
        return None
    both = {number: wanted[number] for number in (row.follows, row.number)}
    if any(run_id not in evidence.outcomes for own in both.values() for run_id in own.values()):
        return None
    if set(both[row.follows]) != set(both[row.number]):
        return None
    before, after = (comparison.outcomes(f"row {number}", own, evidence.outcomes) for number, own in both.items())
    return before, after


def _details(pair: Pair | None, difference: Difference | None, planned: int, names: tuple[str, ...]) -> dict[str, Any]:
    if pair is None or difference is None:
        return {"discordance": math.nan, "classes": (), "smallest": math.nan, "settle": ""}
    flipped = comparison.discordance(*pair)
    classes = comparison.flipped_by_class(*pair, names)["net"].head(_MOST_CLASSES)
    return {
        "discordance": flipped,
        "classes": tuple((str(name), float(net)) for name, net in classes.items() if net),
        "smallest": comparison.smallest(difference, flipped, planned),
        "settle": comparison.settle(difference, flipped, planned),
    }


def _on_the_papers_terms(dataset: str, runs: pd.DataFrame) -> bool:
    """Whether the runs are the paper's training on this data set of the paper's, as far as their records can tell.

    A data set is taken for the paper's by its number of classes and by sizes that the paper's can have shrunk to, since
    videos vanish from the web; its name is the user's.
    """
    paper = DATASETS.get(dataset)
    if paper is None or runs.empty or any(runs["cut"]):
        return False
    whole = all(runs["videos"] == runs["videos_in_split"])
    shrunk = paper.validation_videos * _LEFT <= runs["videos_in_split"].min()
    fits = runs["videos_in_split"].max() <= paper.validation_videos
    trained = runs["train_videos"].fillna(paper.train_videos)
    fits &= paper.train_videos * _LEFT <= trained.min() and trained.max() <= paper.train_videos
    return bool(whole and shrunk and fits and all(runs["classes"] == paper.classes))


def _remarks(rows: pd.DataFrame, runs: pd.DataFrame, evidence: Evidence, population: str, planned: int) -> list[str]:
    """Sentences of the caption that the numbers themselves decide."""
    remarks = provenance(runs)
    remarks += intervals(population)
    steps = rows.assign(population=rows["step_population"])
    remarks += marks(steps, evidence.margin, "Steps", f"{planned} step{'s' if planned > 1 else ''}")
    missing = [number for number, line in rows.iterrows() if line["seeds"] < line["seeds_wanted"]]
    damaged = [number for number in missing if set(rows.loc[number, "run_ids"]) & evidence.unusable]
    if damaged:
        remarks.append(f"Not usable, a record or its predictions are damaged: row {', '.join(map(str, damaged))}.")
    if unfinished := [number for number in missing if number not in damaged]:
        remarks.append(f"Not finished: row {', '.join(map(str, unfinished))}.")
    return remarks


def intervals(population: str) -> list[str]:
    """What the rows' intervals speak of."""
    if population == "videos":
        return ["Intervals are Wilson's at 95 %, over videos, of one seed: they do not cover the seed's own spread."]
    if population == "seeds":
        return ["Intervals are Student's at 95 %, over seeds, on these videos."]
    if population:
        return ["Intervals are at 95 %: Student's over seeds, on these videos, where a row has several; Wilson's over "
                "videos where it has one, which do not cover the seed's own spread."]  # fmt: skip
    return []


def marks(found: pd.DataFrame, margin: float, what: str, family: str) -> list[str]:
    """How differences were tested and what their marks mean; nothing where there is none.

    Args:
      found: a line for each difference; columns "finding" (empty where it is missing), "population", "units", "method".
      margin: percentage points, NaN for no equivalence test.
      what: what the differences are called: "Steps".
      family: over which of them Holm's correction goes: "8 steps".
    """
    tested = found[~found["finding"].isin(["", "not tested"])]
    if not len(tested):
        return []
    means = []
    if methods := sorted(set(tested.loc[tested["population"] == "videos", "method"])):
        means.append(
            f"on the same videos, of one seed ({' or '.join(methods)}: it speaks of these very trainings, other seeds "
            "may differ by more)"
        )
    if len(seeds := tested[tested["population"] == "seeds"]):
        few = "; two seeds can hardly show anything" if seeds["units"].min() == 2 else ""
        means.append(f"over seeds, paired by seed, on these videos (Student's t{few})")
    points = f"{margin:g} point{'' if margin == 1 else 's'}"
    equal = f"; ≈: less than {points} either way (two one-sided tests)" if margin == margin else ""
    return [
        f"{what} are compared {'; '.join(means)}; *: a difference{equal}; each at 5 % after "
        f"Holm's correction for {family}."
    ]


def provenance(runs: pd.DataFrame) -> list[str]:
    """What the runs were trained and evaluated on, and what of it was left out; nothing where there are none."""
    if not len(runs):
        return []
    remarks = [_trained_on(runs)]
    for cut in sorted({cut for cut in runs["cut"] if cut}):
        remarks.append(f"CUT SHORT, not the profile's own training: {cut}.")
    if any(runs["videos"] < runs["videos_in_split"]):
        remarks.append("CUT SHORT, not the whole validation split.")
    for full in DATASETS.values():
        fewer = runs.loc[runs["classes"] == full.classes, "videos_in_split"].min()
        if fewer < full.validation_videos:
            remarks.append(
                f"FEWER VIDEOS than {full.name}'s validation split was published with: {int(fewer):,} of "
                f"{full.validation_videos:,}; every finding here rests on those that are left."
            )
    return remarks


def _trained_on(runs: pd.DataFrame) -> str:
    data = sorted(
        {f"{name} ({fingerprint[:8]})" for name, fingerprint in zip(runs["dataset"], runs["fingerprint"], strict=True)}
    )
    videos = sorted(
        {f"{int(some)} of {int(of)}" for some, of in zip(runs["videos"], runs["videos_in_split"], strict=True)}
    )
    protocols = " and ".join(sorted(set(runs["protocol"])))
    several = sorted({int(one) for one in runs["replicas"].dropna() if one > 1})
    by = f" by {' and '.join(map(str, several))} replicas" if several else ""
    return f"Trained on {', '.join(data)}{by}; evaluated on {', '.join(videos)} validation videos, {protocols} views."
