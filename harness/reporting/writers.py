"""Writes a study's tables and figures, each file whole or not at all."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from harness.analysis import credit, evidence
from harness.analysis.credit import Credits
from harness.analysis.study_summary import Evidence, Summary
from harness.config.designs import Design, Question
from harness.config.experiment import SettingsError
from harness.planning.plans import Plan
from harness.planning.workspace import Workspace
from harness.reporting import credit_figure, figure_style, layouts, study_tables
from harness.reporting import pages as pages_
from harness.reporting import render as render_
from harness.reporting.pages import Rendered
from harness.reporting.render import Table
from harness.reporting.sections import ReportPart
from harness.system import files, parallel


def credits(designs: Sequence[Design], question: Question, plan: Plan, measured: Evidence) -> Credits:
    """Returns the credits that a plan's designs give the toggles."""
    return credit.summarise(designs, question, plan.wanted, measured)


_REPORT = "Revisiting 3D ResNets for video recognition: ours beside the paper's"


@dataclasses.dataclass(frozen=True)
class DrawnStudies:
    """The tables drawn of a plan, and the files written.

    Attributes:
      tables: the tables for the terminal, in order.
      studies: base name of a study's files -> its summary, and the files written.
    """

    tables: tuple[Table, ...]
    studies: Mapping[str, tuple[Summary, tuple[Path, ...]]]

    @property
    def files(self) -> list[Path]:
        """Returns all files written."""
        return [path for _, paths in self.studies.values() for path in paths]


def draw(
    workspace: Workspace,
    plan: Plan,
    designs: Sequence[Design],
    question: Question,
    name: str,
    plots: Path,
    margin: float,
) -> DrawnStudies:
    """Draws every study of a plan, and its designs' credits for the toggles, from the present records.

    Args:
      workspace: the records; tables go into `results/tables/` beside them.
      plan: the studies and their runs.
      designs: the designs that the studies come from; empty where there is only the study's own.
      question: the question that the designs ask.
      name: base name of the files, as :func:`harness.analysis.evidence.stem` gives it; a design's study adds its own.
      plots: folder of the figures.
      margin: largest difference, in percentage points, that counts as none.
    """
    measured = evidence.evidence(workspace, plan, margin)
    summaries = [evidence.summary(study, plan, measured) for study in plan.studies]
    root, files_ = workspace.store.root, []
    for study, numbers in zip(plan.studies, summaries, strict=True):
        files_ += write_study(numbers, name if study is question.study else f"{name}-{study.name}", root, plots)
    shown: list[Table | None] = [*_shown(summaries[0])]
    if designs:
        numbers_of_designs = credits(designs, question, plan, measured)
        files_ += write_credits(numbers_of_designs, f"{name}-{'-'.join(numbers_of_designs.designs)}", root, plots)
        shown += [study_tables.credits(numbers_of_designs), study_tables.interactions(numbers_of_designs)]
    return DrawnStudies(tuple(table for table in shown if table is not None), {name: (summaries[0], tuple(files_))})


def draw_each(workspace: Workspace, plan: Plan, seeds: int, plots: Path, margin: float) -> DrawnStudies:
    """Draws every study of a plan separately; arguments as of :func:`draw`."""
    measured = evidence.evidence(workspace, plan, margin)
    shown: list[Table] = []
    drawn = {}
    for study in plan.studies:
        numbers, name = evidence.summary(study, plan, measured), evidence.stem(workspace, study, seeds)
        drawn[name] = (numbers, tuple(write_study(numbers, name, workspace.store.root, plots)))
        shown += _shown(numbers)
    return DrawnStudies(tuple(shown), drawn)


def _shown(numbers: Summary) -> list[Table]:
    """Returns the tables of a study that the terminal shows."""
    main = layouts.layout_of(numbers.study).table(numbers)
    return [main, study_tables.steps(numbers)] if len(numbers.flips) else [main]


def write_study(numbers: Summary, name: str, results: Path, plots: Path) -> list[Path]:
    """Writes a study's tables into `results/tables/` and its figure into `plots/`, under a name; returns the paths.

    The flips of each class are written as CSV only, since they are too many to show.
    """
    layout = layouts.layout_of(numbers.study)
    main = dataclasses.replace(layout.table(numbers), name=name)
    steps = study_tables.steps(numbers) if any(row.follows for row in numbers.study.rows) else None
    steps = dataclasses.replace(steps, name=f"{name}-steps") if steps else None
    written = write_tables([(name, main), (f"{name}-steps", steps)], results)
    (results / "tables" / f"{name}-flips.csv").unlink(missing_ok=True)
    if len(numbers.flips):
        flips = numbers.flips.to_csv(index=False, lineterminator="\n")
        written.append(files.replace(results / "tables" / f"{name}-flips.csv", flips.encode()))
    figure = layout.figure(numbers)
    return written + (write_figure(figure, name, plots) if figure else [])


def write_credits(found: Credits, name: str, results: Path, plots: Path) -> list[Path]:
    """Writes the tables and the figure of the designs' credits under a name; returns the paths."""
    named = [
        (f"{name}-credit", study_tables.credits(found)),
        (f"{name}-interactions", study_tables.interactions(found)),
    ]
    return write_tables(named, results) + write_figure(credit_figure.credits(found), f"{name}-credit", plots)


def render(parts: Sequence[ReportPart]) -> list[Rendered]:
    """Renders the parts of a report, several at once, to the content of their files."""
    # The longest parts start first, so that the processes finish at about the same time.
    order = sorted(range(len(parts)), key=lambda index: -parts[index].runs)
    drawn = parallel.each([functools.partial(_rendered, parts[index]) for index in order])
    return [rendered for _, rendered in sorted(zip(order, drawn, strict=True), key=lambda pair: pair[0])]


def _rendered(part: ReportPart) -> Rendered:
    return pages_.render(part.draw())


def write_report(sections: Sequence[Rendered], results: Path, plots: Path, page: str = "report") -> list[Path]:
    """Writes a report: its tables and figures, and its pages in the results folder.

    Args:
      sections: its parts.
      results: the results folder.
      plots: folder of the figures.
      page: name of the pages `.md`, `.html` and `.tex`.

    Raises:
      SettingsError: two sections would write the same files.
    """
    plots_path = Path(os.path.relpath(plots, results)).as_posix()
    _refuse_one_name_for_two(sections)
    contents = {results / "tables" / name: text.encode() for section in sections for name, text in _texts(section)}
    contents |= {plots / name: content for section in sections for name, content in _images(section)}
    pages = {"md": pages_.markdown, "html": pages_.html_page, "tex": pages_.latex}
    contents |= {results / f"{page}.{suffix}": page_of(_REPORT, sections, plots_path).encode()
                 for suffix, page_of in pages.items()}  # fmt: skip
    for path in {path for section in sections for path in _earlier(section, results)} - set(contents):
        path.unlink(missing_ok=True)
    return [files.replace(path, content) for path, content in contents.items()]


def _refuse_one_name_for_two(sections: Sequence[Rendered]) -> None:
    names = [name for section in sections for name in section.tables]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{name}: two trainings would be written under this name; narrow the report to one")


def _earlier(section: Rendered, results: Path) -> Iterator[Path]:
    """Yields the files that an earlier drawing of the section's study may have left."""
    for name in list(section.tables)[:1]:
        yield from (results / "tables" / f"{name}-steps.{suffix}" for suffix in render_.SUFFIXES)
        yield results / "tables" / f"{name}-flips.csv"


def _texts(section: Rendered) -> Iterator[tuple[str, str]]:
    for name, rendered in section.tables.items():
        yield from ((f"{name}.{suffix}", text) for suffix, text in rendered.items())
    yield from ((f"{name}.csv", text) for name, text in section.values.items())


def _images(section: Rendered) -> Iterator[tuple[str, bytes]]:
    for name, rendered in section.figures.items():
        yield from ((f"{name}.{suffix}", content) for suffix, content in rendered.items())


def write_tables(named: Iterable[tuple[str, Table | None]], results: Path) -> list[Path]:
    """Writes tables under their names, and returns the paths; for None deletes the files of an earlier drawing."""
    written = []
    for name, table in named:
        rendered = render_.render(table) if table else {}
        for suffix in render_.SUFFIXES:
            path = results / "tables" / f"{name}.{suffix}"
            if suffix in rendered:
                written.append(files.replace(path, rendered[suffix].encode()))
            else:
                path.unlink(missing_ok=True)
    return written


def write_figure(figure: Figure, name: str, plots: Path) -> list[Path]:
    """Writes a figure in every format under a name; returns the paths."""
    return [
        files.replace(plots / f"{name}.{suffix}", figure_style.to_bytes(figure, suffix))
        for suffix in figure_style.SUFFIXES
    ]
