"""Every kind of table must compile with pdflatex, alone on a page and within it."""

import dataclasses
import functools
import re
import shutil
import subprocess

import pytest

from ablations.profiles import PAPER, QUICK
from ablations.toggles import DEPTH, DSTEM, FRAMES, SD, SE
from harness.analysis import published
from harness.config import experiment
from harness.config.experiment import DatasetInfo
from harness.config.studies import Cell
from harness.reporting import architecture_table, paper_tables, render, study_tables
from tests.support import paper_summaries, summaries
from tests.support.paper_summaries import FIGURE_2, TABLE_3
from tests.support.summaries import MISSING, PARTIAL, STUDY

pytestmark = pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")

FACTS = DatasetInfo("kinetics400", 400, 215_570, 17_706, "ab" * 32)
WITH_AWKWARD = STUDY.plus([summaries.AWKWARD.at()])
JUDGED = {number: {"verdict": "inconclusive", "verdict_low": -0.9, "verdict_high": 0.8} for number in range(1, 12)}
# As the study of the name asks it: each row is compared with the one that it scales.
FOLLOWS = {2: 1, 3: 2, 4: 3, **dict.fromkeys(range(5, 11), 4)}
FOLLOWED = dataclasses.replace(
    FIGURE_2, rows=tuple(dataclasses.replace(row, follows=FOLLOWS.get(row.number)) for row in FIGURE_2.rows)
)
PARTS = {2: MISSING, 3: PARTIAL}
SLICES = (summaries.costs(), summaries.costs("v5e:8x16"))
# A line of pdflatex's output on which some text is wider than the page.
OVERFULL = re.compile(r"^Overfull .*", re.MULTILINE)


def architectures(*applied, profile=PAPER):
    run = experiment.complete(Cell(applied), profile, FACTS, replicas=1)
    return render.render(architecture_table.architecture(run))["tex"]


def comparison(name, summary=None):
    return paper_tables.comparison(name, published.load(name), published.source(name), summary)


def scaling(*summary):
    return paper_tables.scaling(published.load("figure2"), *summary)


TABLES = {
    "additive": study_tables.additive(summaries.summary()),
    "additive, verdicts": study_tables.additive(summaries.summary(JUDGED, "paper")),
    "additive, toggle added": study_tables.additive(
        summaries.summary(JUDGED, "paper", WITH_AWKWARD, caption="a_b & <c|d>")
    ),
    "additive, nothing run": study_tables.additive(summaries.summary(dict.fromkeys(range(1, 11), MISSING))),
    "steps": study_tables.steps(summaries.summary()),
    "steps, three seeds": study_tables.steps(summaries.three_seeds()),
    "credits": study_tables.credits(summaries.credits()),
    "credits, every design": study_tables.credits(summaries.credits(summaries.DESIGNS)),
    "interactions": study_tables.interactions(summaries.credits(pairs=28)),
    **{f"{name}, nothing run": comparison(name) for name in published.names() if name not in {"table2", "figure2"}},
    "table 3, quick": comparison("table3", paper_summaries.summary(TABLE_3)),
    "table 3, paper": comparison("table3", paper_summaries.summary(TABLE_3, "paper")),
    "table 3, in parts": comparison("table3", paper_summaries.summary(TABLE_3, "paper", PARTS)),
    "figure 2, nothing run": scaling(),
    "figure 2, quick": scaling(paper_summaries.summary(FIGURE_2)),
    "figure 2, paper": scaling(paper_summaries.summary(FIGURE_2, "paper")),
    "figure 2, steps": scaling(paper_summaries.summary(FOLLOWED)),
    "figure 2, steps and verdicts": scaling(paper_summaries.summary(FOLLOWED, "paper")),
    "figure 2's steps": study_tables.steps(paper_summaries.summary(FOLLOWED)),
    "figure 2, in parts": scaling(paper_summaries.summary(FIGURE_2, "paper", PARTS)),
    "additive, core-hours": study_tables.additive(summaries.summary(PARTS, costs=SLICES[:1])),
    "additive, core-hours and verdicts": study_tables.additive(summaries.summary(JUDGED, "paper", costs=SLICES[:1])),
    "additive, two slices": study_tables.additive(summaries.summary(PARTS, costs=SLICES)),
    "table 3, core-hours": comparison("table3", paper_summaries.summary(TABLE_3, "paper", PARTS, SLICES[:1])),
    "table 3, two slices": comparison("table3", paper_summaries.summary(TABLE_3, costs=SLICES)),
    "figure 2, core-hours": scaling(paper_summaries.summary(FOLLOWED, "paper", costs=SLICES[:1])),
    "figure 2, two slices": scaling(paper_summaries.summary(FIGURE_2, costs=SLICES)),
}
PAGES = {
    **{name: render.latex(table) for name, table in TABLES.items() if table is not None},
    "table 1, R3D-50": architectures(),
    "table 1, R3D-RS-50": architectures(SE.at(), DSTEM.at(), SD.at()),
    "table 1, quick": architectures(SE.at(), DSTEM.at(), DEPTH.at(200), FRAMES.at(48), profile=QUICK),
    "table 1, not underlined": render.latex(
        architecture_table.architecture(experiment.complete(Cell(()), PAPER, FACTS, replicas=1))
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("latex")


@functools.cache
def compiled(folder):
    """What pdflatex says of all pages, and how many there are."""
    body = "\n".join(f"\\typeout{{PAGE {name}}}\n{text}\\clearpage" for name, text in PAGES.items())
    document = "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[utf8]{inputenc}",
            r"\usepackage{booktabs,amssymb}",
            rf"\begin{{document}}{body}\end{{document}}",
        ]
    )
    (folder / "pages.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "pages.tex"],
        cwd=folder, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_all_compile_each_onto_one_page(folder):
    assert f"Output written on pages.pdf ({len(PAGES)} pages" in compiled(folder)


@pytest.mark.parametrize("name", PAGES)
def test_it_fits_its_page_and_every_letter_is_there(folder, name):
    (said,) = re.findall(rf"^PAGE {re.escape(name)}\n(.*?)(?=^PAGE |\Z)", compiled(folder), re.MULTILINE | re.DOTALL)
    assert not OVERFULL.findall(said)
    assert "Missing character" not in said


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext is not installed")
def test_the_page_says_what_the_table_says(folder):
    compiled(folder)
    done = subprocess.run(["pdftotext", "-layout", "pages.pdf", "-"], cwd=folder, capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    pages = dict(zip(PAGES, done.stdout.split("\f"), strict=False))
    assert "SlowFast-16x8, R101+NL" in pages["table3, nothing run"]
    assert re.search(r"R3D-RS-200 \+ RA \(48 frames\).*121\.6 +81\.0", pages["table3, nothing run"])
    assert re.search(r"R3D-RS-101.*2 of 3 seeds", pages["table 3, in parts"].replace("R3D-RS-50", ""))
    assert "not run" in pages["table 3, in parts"]
