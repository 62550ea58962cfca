"""Chains trained for real, on a handful of clips: what is taken, what stays, and where a chain goes on."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from ablations import datasets
from ablations.profiles import QUICK
from ablations.stages import FINETUNE, LINEAR, PRETRAIN
from ablations.toggles import DEPTH
from harness import execution, experiment, import_wandb, runner
from harness.attempts import Interrupted, RunError
from harness.data import embedded
from harness.experiment import Cut
from harness.store import Store
from harness.studies import Cell
from harness.workspace import facts
from tests.proofs import resume

SPECS = (
    embedded.EmbeddedSpec("few", train_videos=24, validation_videos=13),
    embedded.EmbeddedSpec("other", train_videos=24, validation_videos=13, paths="other"),
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return [(embedded.ensure(spec, root), embedded.folder(spec, root)) for spec in SPECS]


def stage_of(sets, *stages, applied=(), parent=None, steps=2):
    data = sets[stages[-1].dataset is not None][0]
    run = experiment.complete(Cell(applied, 0, stages), QUICK, facts(data), Cut(steps=steps), 1, parent)
    short = {f"trainer.{name}_interval": 1 for name in ("checkpoint", "validation")} | {"trainer.steps_per_loop": 1}
    return dataclasses.replace(run, bookkeeping={**run.bookkeeping, **short})


def execute(sets, store, run, **how):
    """Another attempt at a run."""
    manifest, folder = next(pair for pair in sets if facts(pair[0]) == run.data)
    attempt = store.attempt(run.id, max(store.attempts(run.id).numbers, default=-1) + 1)
    before = None if run.parent is None else str(store.weights(store.read(run.parent[:16])))
    place = execution.place_of(store, run, attempt, folder, parent=before)
    return execution.execute(run, manifest, place, store, attempt, how.pop("report", lambda _: None), **how)


@pytest.fixture(scope="module")
def pretrained(sets, tmp_path_factory):
    """A store with a run to start from, and the run."""
    store, run = Store(tmp_path_factory.mktemp("chain")), stage_of(sets, PRETRAIN)
    execute(sets, store, run)
    return store, run


def held(store, run, part):
    """Name -> value of the variables of a part of a run's weights."""
    path = str(store.weights(store.read(run.id)))
    names = [name for name, _ in tf.train.list_variables(path) if name.startswith(part)]
    return {name: tf.train.load_variable(path, name) for name in names}


def test_a_stage_that_is_only_started_from_leaves_its_curve_and_its_weights(pretrained):
    store, run = pretrained
    record = store.read(run.id)
    assert record.evaluations == {}
    assert [point["step"] for point in record.curve if point["split"] == "validation"] == [1, 2]
    assert store.weights(record).with_suffix(".index").is_file()
    assert record.data["name"] == "other"


def test_linear_evaluation_trains_the_head_alone(sets, pretrained):
    store, before = pretrained
    run = stage_of(sets, PRETRAIN, LINEAR, parent=before)
    record = execute(sets, store, run)
    ours, theirs = held(store, run, "backbone/"), held(store, before, "backbone/")
    assert ours.keys() == theirs.keys()
    assert len(ours) > 50
    for name, value in ours.items():  # statistics of batch normalization too
        assert np.array_equal(value, theirs[name]), name
    shapes = {value.shape for value in held(store, run, "model/").values()}
    assert shapes == {(256, 8), (8,)}
    assert any(np.abs(value).max() > 0 for value in held(store, run, "model/").values())
    assert (record.parent, list(record.evaluations)) == (before.identity, ["10x3@32"])


def test_a_chain_that_is_stopped_inside_a_stage_comes_to_what_an_undisturbed_one_does(sets, pretrained):
    store, before = pretrained
    run = stage_of(sets, PRETRAIN, FINETUNE, parent=before, steps=4)
    whole, kept = execute(sets, store, run), store.folder(run.id)
    expected = store.predictions(whole, "10x3@32")["loss"].to_numpy()
    kept.rename(kept.with_name("undisturbed"))
    reached = []

    def report(event):
        if event["event"] == "train":
            reached.append(event["step"])

    with pytest.raises(Interrupted):
        execute(sets, store, run, report=report, stop=lambda: "asked" if reached and reached[-1] == 2 else None)
    record = execute(sets, store, run)
    assert record.provenance["resumed_at"] == [2]
    assert np.array_equal(store.predictions(record, "10x3@32")["loss"].to_numpy(), expected)


def test_weights_that_do_not_fit_stop_a_run_before_its_first_step(sets, pretrained):
    store, before = pretrained
    run = stage_of(sets, PRETRAIN, FINETUNE, applied=(DEPTH.at(101),), parent=before)
    events = []
    with pytest.raises(
        RunError, match=r"weights-2: weights of another network than the run's: \d+ missing \(backbone/"
    ):
        execute(sets, store, run, report=events.append)
    assert not [event for event in events if event["event"] == "train"]


def test_damaged_weights_are_not_started_from(sets, pretrained, tmp_path):
    store, before = pretrained
    copy = tmp_path / "weights-2"
    source = store.weights(store.read(before.id))
    for suffix in (".index", ".data-00000-of-00001"):
        content = bytearray(source.with_suffix(suffix).read_bytes())
        if suffix != ".index":
            content[len(content) // 2] ^= 0xFF
        copy.with_suffix(suffix).write_bytes(content)
    run = stage_of(sets, PRETRAIN, FINETUNE, parent=before)
    attempt = store.attempt(run.id, 90)
    place = execution.place_of(store, run, attempt, sets[0][1], parent=str(copy))
    with pytest.raises(RunError, match="damaged checkpoint"):
        runner.train(run, sets[0][0], place, lambda _: None)


OWN = '''
"""Two chains with one beginning."""

from ablations.stages import FINETUNE, LINEAR, PRETRAIN
from harness.studies import Row, Study

STUDY = Study("own", "Two chains", (), (
    Row(1, "tuned", (), stages=(PRETRAIN, FINETUNE)),
    Row(2, "linear", (), follows=1, stages=(PRETRAIN, LINEAR)),
), stand_in="embedded-few")
'''


@pytest.mark.slow
def test_a_chain_that_is_killed_goes_on_at_the_stage_it_reached(tmp_path, drawn):
    drawn(tmp_path / "results", datasets.GENERATED.values())
    (tmp_path / "own.py").write_text(OWN)
    words = ["--steps", "60", "--validation-videos", "8"]
    found = resume.prove(2, 16.0, 2, words, tmp_path, str(tmp_path / "own.py"))
    assert found["records"] == 3, "what both rows start from is trained once"
    mirrored = ["results/wandb", "--results", "imported"]
    done = CliRunner().invoke(
        import_wandb.main, [name if name[0] == "-" else str(tmp_path / name) for name in mirrored]
    )
    assert done.exit_code == 0, done.output
    ours, theirs = Store(tmp_path / "results"), Store(tmp_path / "imported")
    assert [ours.read(run_id) for run_id in ours.ids()] == [theirs.read(run_id) for run_id in theirs.ids()]
    table = (tmp_path / "results/tables").glob("own-quick*.md")
    assert any("pre-training on 512 videos of embedded-other" in path.read_text() for path in table)
