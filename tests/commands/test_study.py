"""The commands for real: two cut rows trained, run again, a record removed, drawn again, evaluated once more.

The first study starts its training process as a user's does; what is trained after it uses one that is forked.
"""

import shutil

import pytest
from click.testing import CliRunner

from harness import additive_study, evaluate, import_wandb
from harness.store.run_store import Store
from harness.tracking import wandb_files
from tests.support import trained as trained_

CUT = ["--rows", "1,2", "--steps", "2", "--validation-videos", "8"]


def call(command, folder, *words, plots=True):
    flags = (
        [] if plots is None else ["--results", f"{folder}/results", *(["--plots", f"{folder}/plots"] if plots else [])]
    )
    result = CliRunner().invoke(command, [*words, *flags])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.real_processes
def test_a_study_from_nothing_and_again(tmp_path, training_process):
    folder = tmp_path
    first = call(additive_study.main, folder, *CUT)
    with training_process.used():
        check_what_follows(first, folder)


def check_what_follows(first, folder):
    """Runs the study again, whole and in part, and the commands that take up its records."""
    store = Store(folder / "results")
    assert len(store.ids()) == 2
    assert first.count(": done after") == 2
    table = (folder / "results/tables/table2-quick-cut-steps-2-validation-videos-8.md").read_text()
    assert "CUT SHORT, not the profile's own training: steps 2." in table
    assert table.count("not run") == 3 * 8
    assert (folder / "plots/table2-quick-cut-steps-2-validation-videos-8.pdf").read_bytes().startswith(b"%PDF")

    again = call(additive_study.main, folder, *CUT)
    assert "done 2, to do 0" in again
    assert "done after" not in again

    removed = store.ids()[0]
    kept = (store.folder(store.ids()[1]) / "record.json").read_bytes()
    shutil.rmtree(store.folder(removed))
    mended = call(additive_study.main, folder, *CUT)
    assert mended.count(": done after") == 1
    assert store.has(removed)
    assert (store.folder(store.ids()[1]) / "record.json").read_bytes() == kept
    assert (folder / "results/tables/table2-quick-cut-steps-2-validation-videos-8.md").read_text() == table

    drawn = call(additive_study.main, folder, "--draw", "--validation-videos", "8")
    assert "done after" not in drawn
    assert (folder / "results/tables/table2-quick-cut-steps-2-validation-videos-8.md").read_text() == table

    mirrored = {one.run: one for one in wandb_files.read_runs(folder / "results" / "wandb")}
    assert {*store.ids()} < {*mirrored}, "and the study itself"
    assert mirrored[removed].job_type == "row 2" or mirrored[store.ids()[1]].job_type == "row 2"
    imported = Store(folder / "imported")
    call(import_wandb.main, folder, f"{folder}/results/wandb", "--results", f"{imported.root}", plots=None)
    for run_id in store.ids():
        for path in store.folder(run_id).glob("[rp]*-*.parquet"):
            assert (imported.folder(run_id) / path.name).read_bytes() == path.read_bytes()
        assert imported.read(run_id) == store.read(run_id)

    added = call(evaluate.main, folder, removed[:8], "--views", "1x1", plots=False)
    assert "1x1@32: top-1" in added
    assert set(store.read(removed).evaluations) == {"10x3@32-first8", "1x1@32"}


@pytest.mark.usefixtures("tiny_profile", "kept_process")
def test_a_row_that_fails_is_named_and_the_others_stay(trained, data, tmp_path):
    store = trained("whole")
    toggles = tmp_path / "mine.py"
    toggles.write_text(
        "from harness.config.toggles import VALUE, Toggle\n"
        "BAD = Toggle('bad', 'BAD', '', 'no such stem', "
        "{'task.model.backbone.resnet_3d_rs.stem_conv_temporal_stride': VALUE}, -1)\n"
    )
    words = ["--profile", "tiny", "--data", str(data.folder), "--steps", str(trained_.STEPS), "--rows", "1,11"]
    words += ["--toggles", str(toggles), "--add", "bad"]
    flags = ["--results", str(store.root), "--plots", f"{tmp_path}/plots"]
    result = CliRunner().invoke(additive_study.main, [*words, *flags])
    assert result.exit_code == 1
    assert "done 1, to do 1" in result.output
    assert "FAILED row 11" in result.output
    assert "failure.json" in result.output
