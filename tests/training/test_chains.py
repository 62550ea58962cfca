"""Chains trained for real, on a handful of clips: what is taken, what stays, and where a chain goes on."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from ablations import datasets
from ablations.stages import FINETUNE, LINEAR, PRETRAIN
from ablations.toggles import DEPTH
from harness import import_wandb
from harness.store.attempts import RunError
from harness.store.run_store import Store
from harness.training import loop
from tests.proofs import resume
from tests.support import trained as stores
from tests.support.tiny import PROTOCOL, every_step, seldom, silent, unevaluated, variables


@pytest.fixture
def store(trained):
    """A store with a run to start from."""
    return trained("pretrained")


@pytest.fixture
def before(other_data):
    """The run that it holds."""
    return stores.pretraining(other_data)


def held(store, run, part):
    """Name -> value of the variables of a part of a run's weights."""
    values = variables(store.weights(store.read(run.id)))
    return {name: value for name, value in values.items() if name.startswith(part)}


def test_a_stage_that_is_only_started_from_leaves_its_curve_and_its_weights(store, before):
    record = store.read(before.id)
    assert record.evaluations == {}
    assert [point["step"] for point in record.curve if point["split"] == "validation"] == [1, 2]
    assert store.weights(record).with_suffix(".index").is_file()
    assert record.data["name"] == "other"


def test_linear_evaluation_trains_the_head_alone(data, store, before):
    run = seldom(data.run(stages=(PRETRAIN, LINEAR), parent=before))
    record = data.execute(store, run)
    ours, theirs = held(store, run, "backbone/"), held(store, before, "backbone/")
    assert ours.keys() == theirs.keys()
    assert len(ours) > 50
    for name, value in ours.items():  # statistics of batch normalization too
        assert np.array_equal(value, theirs[name]), name
    head = held(store, run, "model/").values()
    (kernel,), (bias,) = ([value for value in head if value.ndim == axes] for axes in (2, 1))
    assert (kernel.shape[1], bias.shape) == (8, (8,))
    assert any(np.abs(value).max() > 0 for value in head)
    assert (record.parent, list(record.evaluations)) == (before.identity, [PROTOCOL])


def test_a_chain_that_is_stopped_inside_a_stage_comes_to_what_an_undisturbed_one_does(data, store, before, tmp_path):
    """What a kill in its third step leaves goes on from the checkpoint of its second, not from the stage before."""
    run = unevaluated(every_step(data.run(stages=(PRETRAIN, FINETUNE), parent=before, steps=4), validation_interval=9))
    stopped = Store(tmp_path / "stopped")

    def report(event):
        if event["event"] == "train" and event["step"] == 3:
            shutil.copytree(store.root, stopped.root)

    whole = data.execute(store, run, report)
    assert whole.parent == before.identity
    record = data.execute(stopped, run)
    assert record.provenance["resumed_at"] == [2]
    ours, theirs = (held(at, run, "") for at in (stopped, store))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert np.array_equal(value, theirs[name]), name
    assert [point["loss"] for point in record.curve] == [point["loss"] for point in whole.curve]


def test_weights_that_do_not_fit_stop_a_run_before_its_first_step(data, store, before):
    run = data.run(DEPTH.at(101), stages=(PRETRAIN, FINETUNE), parent=before)
    events = []
    with pytest.raises(
        RunError, match=r"weights-2: weights of another network than the run's: \d+ missing \(backbone/"
    ):
        data.execute(store, run, events.append)
    assert not [event for event in events if event["event"] == "train"]


def test_damaged_weights_are_not_started_from(data, store, before):
    path = store.weights(store.read(before.id)).with_suffix(".data-00000-of-00001")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    run = data.run(stages=(PRETRAIN, FINETUNE), parent=before)
    with pytest.raises(RunError, match="damaged checkpoint"):
        loop.train(run, data.manifest, data.place(store, run, store.attempt(run.id, 0)), silent)


OWN = '''
"""Two chains with one beginning."""

from ablations.stages import FINETUNE, LINEAR, PRETRAIN
from harness.config.studies import Row, Study

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
