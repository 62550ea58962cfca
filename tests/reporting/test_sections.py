"""The report: what was run is drawn, what was not is said, and trainings are never mixed. Nothing here is trained."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablations import table2, table3, table5, table6
from harness import report
from harness.analysis import trainings as trainings_
from harness.cli import synthetic
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides, SettingsError
from harness.data import embedded
from harness.planning import workspace
from harness.planning.workspace import Workspace
from harness.reporting import sections as sections_
from harness.store import excerpts, records
from harness.store.run_store import RECORD, Snapshot, Store

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "results" / "example"
SHORT = dataclasses.replace(table2.STUDY, rows=table2.STUDY.rows[:3])


def made(folder, cut=None):
    profile = workspace.profile("quick")
    store = Store(folder)
    return Workspace(profile, workspace.data_set(None, profile, folder), cut or Overrides(), 1, store, Devices())


def chosen(folder, study=SHORT):
    store = Snapshot(folder)
    found = trainings_.trainings(store, None, None, {})
    return sections_.chosen(study, found, store)


def rewrite(path, **changed):
    """A record as another version of the harness would have written it."""
    content = json.loads(path.read_text())
    record = dataclasses.replace(records.from_json(content, ""), **changed)
    path.write_text(json.dumps(records.to_json(record)))


@pytest.fixture
def three_seeds(tmp_path):
    """Three rows with three seeds each."""
    synthetic.write_synthetic(made(tmp_path), [SHORT], 9)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch):
    """Generated data sets whose videos nobody needs: a hash of the name in the place of their content's."""
    monkeypatch.setattr(embedded, "content_fingerprint", lambda spec: hashlib.sha256(spec.name.encode()).hexdigest())


@pytest.mark.usefixtures("undrawn")
def test_a_chain_is_drawn_with_all_its_seeds_and_what_it_started_from(tmp_path):
    synthetic.write_synthetic(made(tmp_path), [table5.STUDY], 15)
    assert len(Store(tmp_path).ids()) == 15, "four rows and what two of them start from, three times"
    (one,) = chosen(tmp_path, table5.STUDY)
    assert (one.seeds, len(one.run_ids)) == ((0, 1, 2), 12)
    section = sections_.draw(one, 0.5)
    assert set(section.tables) == {"table5-quick-3-seeds", "table5-quick-3-seeds-steps"}
    table = section.tables["table5-quick-3-seeds"]
    other = hashlib.sha256(b"embedded-other").hexdigest()[:8]
    few = hashlib.sha256(b"embedded-few").hexdigest()[:8]
    assert (
        f"Row 2, 4: pre-training on 512 videos of embedded-other ({other}), then fine-tuning on 128 videos of "
        f"embedded-few ({few})." in table.caption
    )
    assert "Trained on embedded-few" in table.caption
    ours = table.data.set_index("own_row")
    assert ours.loc[[2, 4], "seeds"].tolist() == [3, 3]
    assert ours.loc[2, "step"] == pytest.approx(ours.loc[2, "top1"] - ours.loc[1, "top1"])
    assert [ours.loc[row, "paper_gain"] for row in (2, 4)] == [2.5, 0.5]
    # Its rows from scratch are on few labels: they are no rows of Table 2, whose recipe they have.
    assert [found.run_ids for found in chosen(tmp_path, table2.STUDY)] == [()]


@pytest.mark.usefixtures("undrawn")
def test_trainings_that_pre_trained_on_different_sets_are_told_apart(tmp_path):
    synthetic.write_synthetic(made(tmp_path), [table5.STUDY], 5)
    third = workspace.DataSet(DatasetInfo("third", 3, 100, 50, "ef" * 32), None, None, ready=True)
    there = dataclasses.replace(made(tmp_path), pre_training=third)
    alone = dataclasses.replace(table5.STUDY, rows=(dataclasses.replace(table5.STUDY.rows[3], follows=None),))
    synthetic.write_synthetic(there, [alone], 2)
    names = [one.flags.partition(" --pretrain-data ")[2] for one in chosen(tmp_path, table5.STUDY)]
    assert sorted(names) == ["embedded-other", "third"]
    scratch = dataclasses.replace(table5.STUDY, rows=table5.STUDY.rows[::2])
    assert [one.flags for one in chosen(tmp_path, scratch)] == [""], "which has nothing of either"


@pytest.mark.usefixtures("undrawn")
def test_a_chain_may_pre_train_on_the_set_that_it_is_asked_on(tmp_path):
    few = workspace.data_set("embedded-few", workspace.profile("quick"), tmp_path)
    synthetic.write_synthetic(dataclasses.replace(made(tmp_path), pre_training=few), [table5.STUDY], 4)
    (one,) = chosen(tmp_path, table5.STUDY)  # row 3 from scratch is this pre-training, under the quick profile
    assert len(one.run_ids) == 4
    table = sections_.draw(one, 0.5).tables["table5-quick"]
    fingerprint = hashlib.sha256(b"embedded-few").hexdigest()[:8]
    assert f"pre-training on 128 videos of embedded-few ({fingerprint}), then fine-tuning." in table.caption


@pytest.mark.usefixtures("undrawn")
def test_self_supervision_on_a_set_is_no_pre_training_on_it(tmp_path):
    few = dataclasses.replace(table6.STUDY, stand_in="embedded-few")
    synthetic.write_synthetic(made(tmp_path), [table5.STUDY, few], 18)
    assert [(one.flags, len(one.run_ids)) for one in chosen(tmp_path, table5.STUDY)] == [("", 4)]


@pytest.fixture
def started_from_nothing(tmp_path, undrawn):
    """Chains of two seeds, of which what was pre-trained is not there any more."""
    synthetic.write_synthetic(made(tmp_path), [table5.STUDY], 10)
    store = Store(tmp_path)
    parents = {one.parent[:16] for one in store.excerpts() if one.parent}
    assert len(parents) == 2
    for run_id in parents:
        shutil.rmtree(store.folder(run_id))
    return tmp_path


def test_a_chain_whose_start_was_removed_is_drawn_where_its_data_can_be_told(started_from_nothing):
    other = workspace.data_set("embedded-other", workspace.profile("quick"), started_from_nothing)
    synthetic.write_synthetic(dataclasses.replace(made(started_from_nothing), data=other), [SHORT], 1)
    (one,) = chosen(started_from_nothing, table5.STUDY)
    assert (one.seeds, len(one.run_ids), one.note) == ((0, 1), 8, "")
    caption = sections_.draw(one, 0.5).tables["table5-quick-2-seeds"].caption
    assert "Row 2, 4: pre-training on 512 videos of embedded-other (" in caption
    assert " (which has no record any more), then fine-tuning on 128 videos of embedded-few (" in caption


def test_a_chain_whose_start_cannot_be_known_is_left_out_and_said(started_from_nothing):
    (one,) = chosen(started_from_nothing, table5.STUDY)
    assert (one.seeds, len(one.run_ids)) == ((0, 1), 4), "the rows from scratch"
    own = [run.id for run in Store(started_from_nothing).excerpts() if run.parent]
    first = re.match("Row 2: run (.+?) started from a run that has no record any more; what that was", one.note)
    assert set(first[1].split(", ")) < {run_id[:8] for run_id in own}
    assert "Row 4: run " in one.note
    trainings = trainings_.trainings(Store(started_from_nothing), None, None, {})
    explained = sections_.explained("table5:2:top1", [table5.STUDY], trainings, 0.5)
    assert explained.lines[-1].startswith("Row 2: run ")
    chains = dataclasses.replace(table5.STUDY, rows=table5.STUDY.rows[1:2])
    (one,) = chosen(started_from_nothing, chains)
    assert one.note.startswith("Row 2: run "), "where there is nothing else of the study, too"


def test_trainings_are_called_by_the_name_of_their_data_where_it_tells_them_apart(tmp_path):
    profile, store = workspace.profile("quick"), Store(tmp_path)

    def write(name, fingerprint):
        facts = DatasetInfo(name, 8, 512, 240, fingerprint * 32)
        data = workspace.DataSet(facts, None, None, ready=True)
        synthetic.write_synthetic(Workspace(profile, data, Overrides(), 1, store, Devices()), [SHORT], 1)

    def recorded(data=None):
        return trainings_.recorded(store, profile, data, {}, None).data.facts.fingerprint[:4]

    write("embedded-few", "ab")
    assert recorded() == "abab"
    for name, fingerprint in (("mine", "cd"), ("mine", "ef"), ("two words", "12")):
        write(name, fingerprint)
    flags = ["--data 12121212", "--data cdcdcdcd", "--data efefefef", "--data embedded-few"]
    assert sorted(trainings_.trainings(store, "quick", None, {})) == [f"{one} --replicas 1" for one in flags]
    with pytest.raises(SettingsError, match=r"several trainings, say which to draw: .*--data embedded-few --replicas"):
        recorded()
    assert recorded("embedded-few") == "abab"
    write("embedded", "34")
    assert recorded() == "3434", "what the profile trains on unless told otherwise"
    assert recorded("efef") == "efef"


def test_a_study_on_two_data_sets_is_one_table(tmp_path):
    sets = [DatasetInfo(name, classes, 1000, 240, name * 16) for name, classes in (("four", 400), ("six", 600))]
    web = workspace.DataSet(DatasetInfo("web", 700, 9000, 240, "ef" * 32), None, None, ready=True)
    first, further = (workspace.DataSet(facts, None, None, ready=True) for facts in sets)
    paper = Workspace(
        workspace.profile("paper"),
        first,
        Overrides(),
        128,
        Store(tmp_path),
        Devices(),
        further=(further,),
        pre_training=web,
    )
    synthetic.write_synthetic(paper, [table5.STUDY], 5)
    (one,) = chosen(tmp_path, table5.STUDY)
    assert len(one.run_ids) == 4
    table = sections_.draw(one, 0.5).tables["table5-paper-on-four-fourfour"]
    ours = table.data.set_index("own_row")
    assert ours["top1"].dropna().index.tolist() == [2, 4, 1, 3]
    assert ours.loc[4, "step"] == pytest.approx(ours.loc[4, "top1"] - ours.loc[3, "top1"])
    assert "Trained on four (fourfour), six (sixsixsi)" in table.caption
    assert "No verdict: row 2, 4 pre-trained on web, 9,000 videos of 700 classes" in table.caption


def record_of(folder, row, seed):
    return Store(folder).folder(made(folder).complete(SHORT.rows[row - 1].cell(seed)).id) / RECORD


def test_a_training_that_has_runs_is_a_section_with_all_their_seeds(three_seeds):
    (one,) = chosen(three_seeds)
    assert (one.seeds, one.note, len(one.run_ids)) == ((0, 1, 2), "", 9)
    section = sections_.draw(one, 0.5)
    assert set(section.tables) == {"table2-quick-3-seeds", "table2-quick-3-seeds-steps"}
    assert set(section.figures) == {"table2-quick-3-seeds", "table2-quick-3-seeds-curves"}
    rows = section.tables["table2-quick-3-seeds"].data
    store = Store(three_seeds)
    mean = sum(store.read(record_of(three_seeds, 2, seed).parent.name).evaluations["10x3@32"].top1 for seed in range(3))
    assert rows["top1"].iloc[1] == pytest.approx(100 * mean / 3)


def test_nothing_run_is_the_papers_numbers(tmp_path):
    (one,) = chosen(tmp_path, table2.STUDY)
    section = sections_.draw(one, 0.5)
    assert section.title.endswith("(paper profile)")
    rows = section.tables["table2-paper"].data
    assert rows["top1"].isna().all()
    assert list(rows["paper_top1"])[:2] == [74.4, 74.9]


def test_several_trainings_are_sections_of_their_own(three_seeds):
    synthetic.write_synthetic(made(three_seeds, Overrides(steps=7)), [SHORT], 3)
    found = chosen(three_seeds)
    assert sorted((len(one.run_ids), one.seeds, str(one.workspace.cut)) for one in found) == [
        (3, (0,), "steps 7"),
        (9, (0, 1, 2), ""),
    ]
    sections = [sections_.draw(one, 0.5) for one in found]
    for kind in ("tables", "figures"):
        names = [name for section in sections for name in getattr(section, kind)]
        assert len(set(names)) == len(names)


def test_seeds_that_not_every_row_has_are_left_out_and_said(three_seeds):
    shutil.rmtree(record_of(three_seeds, 2, 1).parent)
    (one,) = chosen(three_seeds)
    assert (one.seeds, one.note) == ((0, 2), "Seeds that not every row has are left out: 1.")


def test_a_row_that_was_not_begun_has_no_say(three_seeds):
    for seed in range(3):
        shutil.rmtree(record_of(three_seeds, 3, seed).parent)
    (one,) = chosen(three_seeds)
    assert (one.seeds, one.note, len(one.run_ids)) == ((0, 1, 2), "", 6)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: {"settings": {**record.settings, "task.model.dropout_rate": 0.123}},
        lambda record: {"settings": {**record.settings, "trainer.validation_summary_subdir": True}},
        lambda record: {"identity_content": {**record.identity_content, "model_garden": "0.0.1"}},
        lambda record: {"identity_content": {**record.identity_content, "results_version": 0}},
        lambda record: {"identity_content": {**record.identity_content, "data": "f" * 64}},
        lambda record: {"identity_content": {**record.identity_content, "clips_per_group": 1}},
        lambda record: {"identity_content": {**record.identity_content, "trained_by": {"trainer": "another"}}},
        lambda record: {"identity_content": {**record.identity_content, "seed": 77}},
    ],
)
def test_a_record_made_otherwise_is_not_taken_for_a_row(three_seeds, change):
    path = record_of(three_seeds, 2, 1)
    rewrite(path, **change(Store(three_seeds).read(path.parent.name)))
    store = Snapshot(three_seeds)
    one = sections_.chosen_of(SHORT, made(three_seeds))
    assert (one.seeds, one.note) == ((0, 2), "Seeds that not every row has are left out: 1.")
    assert len(store.ids()) == 9


def test_true_is_not_taken_for_one(three_seeds):
    record = Store(three_seeds).read(record_of(three_seeds, 1, 0).parent.name)
    one, true = ({**record.settings, "task.model.dropout_rate": value} for value in (1, True))
    excerpting = excerpts.RecordSummarizer()
    kinds = [excerpting(dataclasses.replace(record, settings=some)).kind for some in (one, true)]
    assert kinds[0] != kinds[1]
    whole = {**record.settings, "task.model.dropout_rate": 1.0}
    assert excerpting(dataclasses.replace(record, settings=whole)).kind == kinds[0]


@pytest.mark.parametrize("study", [table2.STUDY, table3.STUDY])
def test_a_seed_changes_nothing_but_itself(study, tmp_path):
    own = made(tmp_path)
    for row in study.rows:
        run = excerpts.seeded(own.complete(row.cell(0)), 7)
        assert run == own.complete(row.cell(7))
        assert run.identity == own.complete(row.cell(7)).identity
        assert excerpts.kind(run) == excerpts.kind(own.complete(row.cell(3)))


def test_ids_from_records_are_those_that_settings_give(three_seeds):
    ahead = dataclasses.replace(made(three_seeds), store=Snapshot(three_seeds)).plan([SHORT], range(4))
    assert ahead.wanted == made(three_seeds).plan([SHORT], range(4)).wanted
    assert [one.done for one in ahead.runs] == [one.done for one in made(three_seeds).plan([SHORT], range(4)).runs]


def test_a_damaged_record_is_said_and_stops_nothing(three_seeds):
    path = record_of(three_seeds, 2, 1)
    path.write_text(path.read_text()[:-40])
    (one,) = chosen(three_seeds)
    assert one.seeds == (0, 1, 2)
    section = sections_.draw(one, 0.5)
    assert "damaged: row 2" in section.tables["table2-quick-3-seeds"].caption


def test_damaged_predictions_are_said_and_stop_nothing(three_seeds):
    (path,) = record_of(three_seeds, 3, 0).parent.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (one,) = chosen(three_seeds)
    one.workspace.store.look_at(one.run_ids)
    section = sections_.draw(one, 0.5)
    assert "damaged: row 3" in section.tables["table2-quick-3-seeds"].caption


def test_outcomes_read_ahead_are_those_read_one_by_one(three_seeds):
    ahead, alone = Snapshot(three_seeds), Store(three_seeds)
    ahead.look_at(alone.ids())
    for run_id in alone.ids():
        record = alone.read(run_id)
        predictions = alone.predictions(record, "10x3@32").set_index("media_id").sort_index()
        for found in (ahead.outcomes(record, "10x3@32"), alone.outcomes(record, "10x3@32")):
            assert list(found.index) == list(predictions.index)
            guesses = predictions["top_class"].to_list()
            labels = list(predictions["label"])
            assert list(found["label"]) == labels
            assert list(found["top1"]) == [row[0] == label for row, label in zip(guesses, labels, strict=True)]
            assert list(found["top5"]) == [label in row[:5] for row, label in zip(guesses, labels, strict=True)]


def test_the_whole_report_of_the_example(tmp_path):
    shutil.copytree(EXAMPLE / "runs", tmp_path / "runs")
    before = sorted(EXAMPLE.rglob("*"))
    (tmp_path / "runs" / "0123456789abcdef").mkdir()
    (tmp_path / "runs" / "0123456789abcdef" / RECORD).write_text("{")
    found = CliRunner().invoke(report.main, ["--results", str(tmp_path), "--plots", str(tmp_path / "plots")])
    assert found.exit_code == 1, found.output
    assert "NOT USED" in found.output
    assert "0123456789abcdef/record.json: damaged, not JSON" in found.output
    assert "report.html" in found.output
    for suffix in ("csv", "html", "md", "tex"):
        table = (tmp_path / "tables" / f"table2-quick.{suffix}").read_text()
        assert table == (EXAMPLE / f"table2-quick.{suffix}").read_text()
    page = (tmp_path / "report.md").read_text()
    for number in range(1, 7):
        assert f"\n## Table {number}" in page
    assert page.index("## Table 6") < page.index("## Figure 1") < page.index("## Figure 2")
    for name in ("table5-quick-3-seeds", "table6-quick"):  # as many seeds as all rows have, and no fewer
        assert (tmp_path / "tables" / f"{name}.md").read_text() == (EXAMPLE / f"{name}.md").read_text()
    shown = [line.split("(")[-1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(shown) == len(set(shown)) >= 4
    assert all((tmp_path / name).is_file() for name in shown)
    assert sorted(EXAMPLE.rglob("*")) == before
