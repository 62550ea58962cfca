"""The pages of a report: its sections as one Markdown, one HTML and one LaTeX document. Reads and writes no files."""

from __future__ import annotations

import dataclasses
import html
import urllib.parse
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from harness.reporting import figure_style
from harness.reporting import render as render_
from harness.reporting.render import Table

_STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
section { margin: 3em 0; }
.wide { overflow-x: auto; }
img { max-width: 100%; background: white; }
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
      title: its heading.
      tables: name of the file -> table.
      figures: name of the file -> figure.
      values: name of the file -> CSV of values that are too many to show.
      note: sentences shown above the tables; empty where there are none.
      number: the number of its tables in LaTeX: "3", "of Figure 2".
      faults: a line for each record that cannot be used.
    """

    title: str
    tables: Mapping[str, Table]
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""
    number: str = ""
    faults: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A section rendered to the content of its files.

    Attributes:
      title, note, number, faults: as of :class:`Section`.
      tables: name of the file -> suffix -> content.
      figures: likewise.
      values: name of the file -> CSV.
    """

    title: str
    tables: Mapping[str, Mapping[str, str]]
    figures: Mapping[str, Mapping[str, bytes]] = dataclasses.field(default_factory=dict)
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""
    number: str = ""
    faults: tuple[str, ...] = ()


def render(section: Section) -> Rendered:
    """Renders a section's tables and figures in all formats."""
    kept = {name: getattr(section, name) for name in ("title", "values", "note", "number", "faults")}
    return Rendered(tables=render_tables(section), figures=render_figures(section), **kept)


def render_tables(section: Section) -> dict[str, dict[str, str]]:
    """Renders a section's tables: name of the file -> suffix -> content."""
    return {name: render_.render(table) for name, table in section.tables.items()}


def render_figures(section: Section) -> dict[str, dict[str, bytes]]:
    """Renders a section's figures: name of the file -> suffix -> content."""
    return {
        name: {suffix: figure_style.to_bytes(figure, suffix) for suffix in figure_style.SUFFIXES}
        for name, figure in section.figures.items()
    }


def markdown(title: str, sections: Sequence[Rendered], plots: str) -> str:
    """Returns the page as Markdown; it shows the figures' image files.

    Args:
      title: of the page.
      sections: its parts, in order.
      plots: folder of the figures as seen from the page, with forward slashes.
    """
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {render_.markdown_text(section.title)}")
        if section.note:
            parts.append(section.note)
        parts += [table["md"].strip() for table in section.tables.values()]
        title = render_.markdown_text(section.title)
        parts += [f"![{title}]({urllib.parse.quote(plots)}/{name}.png)" for name in section.figures]
    return "\n\n".join(parts) + "\n"


def html_page(title: str, sections: Sequence[Rendered], plots: str) -> str:
    """Returns the page as HTML; arguments as of :func:`markdown`. Tables too wide for the page scroll sideways."""
    contents = "".join(
        f'<li><a href="#section-{index}">{html.escape(section.title)}</a></li>'
        for index, section in enumerate(sections)
    )
    body = "".join(_html_section(index, section, plots) for index, section in enumerate(sections))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{_STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{html.escape(title)}</h1>\n<nav><ul>{contents}</ul></nav>\n{body}</body>\n</html>\n"
    )


def _html_section(place: int, section: Rendered, plots: str) -> str:
    note = f"<p>{html.escape(section.note)}</p>\n" if section.note else ""
    tables = "".join(f'<div class="wide">{table["html"]}</div>\n' for table in section.tables.values())
    figures = "".join(
        f'<p><img src="{urllib.parse.quote(f"{plots}/{name}")}.svg" alt="{html.escape(section.title)}"></p>\n'
        for name in section.figures
    )
    return f'<section id="section-{place}">\n<h2>{html.escape(section.title)}</h2>\n{note}{tables}{figures}</section>\n'


def latex(title: str, sections: Sequence[Rendered], plots: str) -> str:
    """Returns the page as a LaTeX document that inputs the tables' files; it must be compiled in its own folder.

    Args:
      title: of the page.
      sections: its parts, in order.
      plots: folder of the figures as seen from the page, with forward slashes.
    """
    parts = [rf"\section*{{{render_.latex_text(title)}}}"]
    for section in sections:
        parts.append(rf"\subsection*{{{render_.latex_text(section.title)}}}")
        if section.note:
            parts.append(render_.latex_text(section.note))
        for index, name in enumerate(section.tables):
            # Tables keep the paper's numbers, which LaTeX's own counting would not give.
            number = render_.latex_text(section.number + (", steps" if index else ""))
            parts.append(rf"\renewcommand{{\thetable}}{{{number}}}\input{{tables/{name}.tex}}")
        parts += [
            rf"\begin{{center}}\includegraphics[width=\linewidth]{{{plots}/{name}.pdf}}\end{{center}}"
            for name in section.figures
        ]
        parts.append(r"\clearpage")
    return "\n".join([_PREAMBLE, *parts, r"\end{document}", ""])


_PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[margin=2cm]{geometry}
\usepackage{amssymb,booktabs,graphicx}
\begin{document}"""
