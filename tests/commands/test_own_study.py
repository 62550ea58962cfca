"""A study of the user's from its file to its report: carried out, drawn, drawn again, followed back.

Its rows only pretend to train (:mod:`tests.support.pretend`); test_study trains those of the additive study.
"""

import pytest
from click.testing import CliRunner

from harness import report, study

OWN = """
from ablations.toggles import DSTEM, LS, TABLE_2
from harness.config.studies import Row, Study

STUDY = Study(
    "stems",
    "What does the stem add?",
    TABLE_2,
    (Row(1, "R3D-50", (LS.at(),)), Row(2, "D-stem", (LS.at(), DSTEM.at()), follows=1)),
)
"""
SHORT = ["--steps", "2", "--validation-videos", "8", "--wandb", "off"]


def run(command, folder, *words):
    """The exit code and the output of a command that has a results folder and one for plots."""
    found = CliRunner().invoke(
        command, [*map(str, words), "--results", str(folder / "results"), "--plots", str(folder / "plots")]
    )
    return found.exit_code, found.output


@pytest.mark.usefixtures("pretended")
def test_it_is_trained_drawn_reported_and_explained(tmp_path, drawn):
    folder, file = tmp_path, tmp_path / "stems.py"
    drawn(folder / "results")
    file.write_text(OWN)
    code, said = run(study.main, folder, file, *SHORT)
    assert code == 0, said
    assert said.count(": done after") == 2
    assert "What does the stem add? (quick profile)" in said
    name = "stems-quick-cut-steps-2-validation-videos-8"
    written = folder / "results" / "tables" / f"{name}.md"
    assert "CUT SHORT" in written.read_text()
    assert (folder / "plots" / f"{name}.svg").is_file()

    code, said = run(study.main, folder, file, *SHORT)
    assert code == 0, said
    assert "done 2, to do 0" in said

    first = written.read_text()
    written.unlink()
    code, said = run(report.main, folder, file, "--validation-videos", 8)
    assert code == 0, said
    assert written.read_text() == first
    assert "What does the stem add?" in (folder / "results" / "report-stems.html").read_text()

    code, said = run(report.main, folder, file, "--explain", "stems:2:step", "--validation-videos", 8)
    assert code == 0, said
    assert "stem_type: 'v0' -> 'v1'" in said
    assert "the same" in said
