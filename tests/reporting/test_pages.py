"""The pages of a report: one content in three formats, each of which its own reader takes."""

import html.parser
import shutil
import subprocess

import pandas as pd
import pytest

from harness.reporting import additive_figure, pages, render, study_tables, writers
from harness.reporting.pages import Rendered, Section
from tests.support import summaries

VOID = {"meta", "img", "br", "hr", "col", "link"}
AWKWARD = 'A <title> & "50 %" of_$5'


class Strict(html.parser.HTMLParser):
    """Refuses a tag that is closed before those in it."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.images = [], [], [], []

    def handle_starttag(self, tag, attributes):
        own = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [own["id"]] if "id" in own else []
        self.links += [own["href"]] if tag == "a" else []
        self.images += [own["src"]] if tag == "img" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def rendered():
    numbers = summaries.summary()
    one = Section(
        AWKWARD,
        {"t": study_tables.additive(numbers)},
        {"t": additive_figure.additive(numbers)},
        {"t-flips": "a\n1\n"},
        "A note, 5 %.",
    )
    return [pages.render(one), Rendered("Second", {})]


def test_markdown(rendered):
    page = pages.markdown("R", rendered, "../plots")
    assert page.startswith("# R\n\n## A \\<title>")
    assert "\n\nA note, 5 %.\n\n" in page
    assert f"![{render.markdown_text(AWKWARD)}](../plots/t.png)" in page
    assert "\n## Second\n" in page
    assert rendered[0].tables["t"]["md"].strip() in page


def test_html_is_well_formed_and_its_links_lead_somewhere(rendered):
    page = pages.html_page("R & D", rendered, "../plots")
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert parser.images == ["../plots/t.svg"]
    assert [link.removeprefix("#") for link in parser.links] == ["section-0", "section-1"]
    assert set(parser.ids) >= {"section-0", "section-1"}
    assert len(parser.ids) == len(set(parser.ids))
    assert "<title>R &amp; D</title>" in page
    assert "A &lt;title&gt; &amp;" in page


def test_all_files_of_a_page_are_written(rendered, tmp_path):
    results = tmp_path / "results"
    written = writers.write_report(rendered, results, tmp_path / "plots")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path).as_posix() for path in written} == found
    assert found == {
        *(f"results/tables/t.{suffix}" for suffix in ("csv", "html", "md", "tex")),
        "results/tables/t-flips.csv",
        *(f"plots/t.{suffix}" for suffix in ("png", "pdf", "svg")),
        *(f"results/report.{suffix}" for suffix in ("md", "html", "tex")),
    }
    assert (tmp_path / "plots" / "t.pdf").read_bytes() == rendered[0].figures["t"]["pdf"]
    assert "../plots/t.svg" in (results / "report.html").read_text()
    assert len(pd.read_csv(results / "tables" / "t.csv")) == 10


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex")
def test_the_latex_page_compiles(rendered, tmp_path):
    writers.write_report(rendered, tmp_path / "results", tmp_path / "plots")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path / "results", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "results" / "report.pdf").stat().st_size > 10_000
