"""Training and evaluating for real, on a handful of clips: records, resumption, replicas, precision, XLA."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from official.core import train_utils

from ablations.profiles import PAPER, QUICK
from ablations.toggles import DSTEM, EMA, RA, SD, SE
from harness import execution, experiment, garden, records, runner
from harness.attempts import Interrupted, RunError
from harness.data import embedded
from harness.experiment import Cut, Protocol, SettingsError
from harness.runner import Place
from harness.store import Store
from harness.studies import Cell
from harness.task import VideoTask
from harness.toggles import VALUE, Toggle
from harness.workspace import facts

SPEC = embedded.EmbeddedSpec(train_videos=24, validation_videos=13)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return embedded.ensure(SPEC, root), embedded.folder(SPEC, root)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def run_of(prepared, *applied, steps=2, seed=0, profile=QUICK, **cut):
    run = experiment.complete(Cell(applied, seed), profile, facts(prepared[0]), Cut(steps=steps, **cut), replicas=1)
    short = {f"trainer.{name}_interval": 1 for name in ("checkpoint", "validation")} | {"trainer.steps_per_loop": 1}
    return dataclasses.replace(run, bookkeeping={**run.bookkeeping, **short})


def place_of(prepared, store, run):
    return Place(str(prepared[1]), str(store.checkpoints(run.id)))


def silent(event):
    del event


def execute(prepared, store, run, report=silent):
    return execution.execute(run, prepared[0], place_of(prepared, store, run), store, report)


def test_a_run_leaves_a_record_whose_numbers_come_from_its_predictions(prepared, store):
    run = run_of(prepared)
    record = execute(prepared, store, run)
    assert record == store.read(run.id)
    evaluation = record.evaluations["10x3@32"]
    predictions = store.predictions(record, "10x3@32")
    best = np.stack(predictions["top_class"])
    labels = predictions["label"].to_numpy()
    assert predictions["media_id"].is_unique
    assert len(predictions) == evaluation.videos == 13
    assert evaluation.top1 == np.mean(best[:, 0] == labels)
    assert evaluation.top5 == np.mean([label in row for label, row in zip(labels, best, strict=True)])
    assert [point["step"] for point in record.curve if point["split"] == "train"] == [1, 2]
    assert evaluation.checkpoint == "weights-2"
    left = sorted(path.name for path in store.checkpoints(run.id).iterdir())
    assert left == ["weights-2.data-00000-of-00001", "weights-2.index"], "momentum and older steps are gone"
    assert sorted(path.name for path in store.folder(run.id).iterdir()) == [
        "checkpoints",
        "predictions-10x3@32.parquet",
        "record.json",
        "recorded",
    ]
    assert record.provenance["resumed_at"] == []
    assert record.cut == {"steps": 2}
    assert execute(prepared, store, run, None) == record, "a run that is recorded is not trained again"
    with pytest.raises(records.RecordError, match="written by another process"):
        store.write(record)


def test_one_seed_gives_the_same_predictions_and_another_seed_others(prepared, tmp_path):
    tables = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        own = Store(tmp_path / folder)
        record = execute(prepared, own, run_of(prepared, steps=3, seed=seed))
        tables.append(own.predictions(record, "10x3@32"))
    losses = [table["loss"].to_numpy() for table in tables]
    assert np.array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[0], losses[2])


def test_an_interrupted_run_goes_on_from_its_checkpoint(prepared, store):
    run = run_of(prepared, steps=4)

    def interrupted(event):
        if event["event"] == "train" and event["done"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepared, store, run, interrupted)
    assert not store.has(run.id)
    seen = []
    record = execute(prepared, store, run, seen.append)
    assert [event["done"] for event in seen if event["event"] == "train"] == [3, 4]
    assert record.provenance["resumed_at"] == [2]
    assert [point["step"] for point in record.curve if point["split"] == "train"] == [1, 2, 3, 4]


def interrupted_at(prepared, store, run, step):
    """Asks to stop after the loop that ends at a step, as SIGTERM does."""
    reached = []

    def report(event):
        if event["event"] == "train":
            reached.append(event["step"])

    with pytest.raises(Interrupted, match="asked"):
        execution.execute(
            run,
            prepared[0],
            place_of(prepared, store, run),
            store,
            report,
            lambda: "asked to stop" if reached and reached[-1] == step else None,
        )


def test_a_run_that_is_asked_to_stop_saves_the_step_it_reached(prepared, store):
    run = run_of(prepared, steps=5)
    seldom = {"trainer.checkpoint_interval": 100, "trainer.validation_interval": 100}
    run = dataclasses.replace(run, bookkeeping={**run.bookkeeping, **seldom})
    interrupted_at(prepared, store, run, 3)
    assert str(store.state(run.id)) == "interrupted at step 3"
    record = execute(prepared, store, run)
    assert record.provenance["resumed_at"] == [3]
    assert [point["step"] for point in record.curve if point["split"] == "train"] == [1, 2, 3, 4, 5]


def test_a_resumed_run_is_the_run_that_was_never_interrupted(prepared, store, tmp_path):
    run = run_of(prepared, DSTEM.at(), SD.at(), RA.at(), steps=6)
    interrupted_at(prepared, store, run, 3)
    resumed, whole = execute(prepared, store, run), execute(prepared, Store(tmp_path / "whole"), run)
    assert resumed.provenance["resumed_at"] == [3]
    assert whole.provenance["resumed_at"] == []
    tables = [at.predictions(one, "10x3@32") for at, one in ((store, resumed), (Store(tmp_path / "whole"), whole))]
    assert np.array_equal(*(table["loss"].to_numpy() for table in tables))
    curves = [[point for point in one.curve if point["split"] == "train"] for one in (resumed, whole)]
    assert [point["loss"] for point in curves[0]] == [point["loss"] for point in curves[1]]


def test_a_stop_in_a_validation_saves_the_weights_that_train_not_their_average(prepared, store, tmp_path):
    run = run_of(prepared, EMA.at(0.9), steps=4)
    seldom = {"trainer.checkpoint_interval": 100, "trainer.validation_interval": 2, "trainer.steps_per_loop": 1}
    run = dataclasses.replace(run, bookkeeping={**run.bookkeeping, **seldom})
    events = []

    def asked():
        return "asked to stop" if events and events[-1]["step"] == 2 and inside(sys._getframe()) else None

    def inside(frame):
        while frame:
            if frame.f_code.co_name == "during_validation":
                return True
            frame = frame.f_back
        return False

    def report(event):
        if event["event"] == "train":
            events.append(event)

    with pytest.raises(Interrupted):
        execution.execute(run, prepared[0], place_of(prepared, store, run), store, report, asked)
    other = Store(tmp_path / "other")
    interrupted_at(prepared, other, run, 2)
    stopped, expected = (
        tf.train.load_checkpoint(runner.last_checkpoint(str(at.checkpoints(run.id)))[0]) for at in (store, other)
    )
    for name in expected.get_variable_to_shape_map():
        if name.endswith("VARIABLE_VALUE"):
            assert np.array_equal(stopped.get_tensor(name), expected.get_tensor(name)), name


def test_what_a_kill_left_of_a_checkpoint_is_removed(prepared, store):
    run = run_of(prepared, steps=4)
    interrupted_at(prepared, store, run, 2)
    torn = store.checkpoints(run.id) / "ckpt-3_temp"
    torn.mkdir()
    (torn / "part-00000").write_text("half of it")
    assert execute(prepared, store, run).provenance["resumed_at"] == [2]
    assert not torn.exists()


def test_weights_torn_by_a_kill_are_written_again_from_the_checkpoint(prepared, store):
    run = run_of(prepared)

    def last_straw(event):
        if event["event"] == "evaluate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepared, store, run, last_straw)
    data = store.checkpoints(run.id) / "weights-2.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    seen = []
    execute(prepared, store, run, seen.append)
    assert [event["step"] for event in seen if event["event"] == "train"] == []


def test_a_run_stopped_after_its_last_step_is_only_evaluated(prepared, store):
    run = run_of(prepared)

    def last_straw(event):
        if event["event"] == "evaluate" and event["done"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepared, store, run, last_straw)
    seen = []
    record = execute(prepared, store, run, seen.append)
    assert {event["event"] for event in seen} == {"evaluate"}
    assert [point["step"] for point in record.curve if point["split"] == "train"] == [1, 2]


def test_a_checkpoint_that_tensorflow_lost_sight_of_is_found(prepared, store):
    run = run_of(prepared, steps=4)
    interrupted_at(prepared, store, run, 2)
    (store.checkpoints(run.id) / "checkpoint").write_text("damaged by hand")
    assert execute(prepared, store, run).provenance["resumed_at"] == [2]


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(prepared, store):
    run = run_of(prepared, steps=4)
    interrupted_at(prepared, store, run, 3)
    data = store.checkpoints(run.id) / "ckpt-3.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoints/ckpt-3: damaged checkpoint, its checksums or its index do not"):
        execute(prepared, store, run)
    for path in store.checkpoints(run.id).glob("ckpt-3.*"):
        path.unlink()
    assert execute(prepared, store, run).provenance["resumed_at"] == [2]


def test_damaged_weights_are_named(prepared, store):
    run = run_of(prepared)
    record = execute(prepared, store, run)
    index = store.checkpoints(run.id) / "weights-2.index"
    index.write_bytes(index.read_bytes()[:100])
    again = records.run_of(record, Protocol(1, 1, 32), evaluation_batch=8)
    with pytest.raises(RunError, match="weights-2: damaged checkpoint"):
        execution.evaluated(again, again.protocol, prepared[0], place_of(prepared, store, run), store, silent)


def test_a_loss_that_is_no_number_ends_the_run_with_its_checkpoint_good(prepared, store):
    rate = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate"
    run = run_of(prepared, steps=6)
    run = dataclasses.replace(
        run,
        settings={**run.settings, rate: 1e30, "trainer.optimizer_config.warmup.linear.warmup_steps": 1},
    )
    with pytest.raises(
        RunError, match=r"the training loss of steps \d to \d is (nan|inf|[\d.e+]+), .* expected a number"
    ):
        execute(prepared, store, run)
    path, step = runner.last_checkpoint(store.checkpoints(run.id))
    values = tf.train.load_checkpoint(path)
    assert step < 6
    assert all(
        np.isfinite(values.get_tensor(name)).all()
        for name in values.get_variable_to_shape_map()
        if name.startswith("model") and "VARIABLE_VALUE" in name
    )


def test_what_is_kept_of_a_training_checkpoint_is_its_network(prepared, store, tmp_path):
    run = run_of(prepared, EMA.at(0.5), steps=4)
    interrupted_at(prepared, store, run, 3)
    place = dataclasses.replace(place_of(prepared, store, run), checkpoints=str(tmp_path))
    checkpoint = store.checkpoints(run.id) / "ckpt-3"
    kept = tf.train.load_checkpoint(runner.shrink(run, str(checkpoint), place))
    whole = tf.train.load_checkpoint(str(checkpoint))
    assert not any("OPTIMIZER_SLOT" in name for name in kept.get_variable_to_shape_map())
    found = [name for name in whole.get_variable_to_shape_map() if name.endswith("average/.ATTRIBUTES/VARIABLE_VALUE")]
    assert found
    for name in found:
        plain = name.split("/.OPTIMIZER_SLOT")[0] + "/.ATTRIBUTES/VARIABLE_VALUE"
        assert np.array_equal(kept.get_tensor(plain), whole.get_tensor(name))


def test_a_run_whose_record_was_removed_is_trained_from_its_first_step(prepared, store):
    run = run_of(prepared)
    execute(prepared, store, run)
    (store.folder(run.id) / "record.json").unlink()
    seen = []
    execute(prepared, store, run, seen.append)
    assert [event["done"] for event in seen if event["event"] == "train"] == [1, 2]


def test_a_further_protocol_is_added_without_training(prepared, store):
    run = run_of(prepared)
    record = execute(prepared, store, run)
    again = records.run_of(record, Protocol(1, 1, 32), evaluation_batch=8)
    assert again.id == run.id
    place = place_of(prepared, store, run)
    store.write_evaluation(record, execution.evaluated(again, again.protocol, prepared[0], place, store, silent))
    found = store.read(run.id)
    assert set(found.evaluations) == {"10x3@32", "1x1@32"}
    assert found.curve[-1]["loss"] == pytest.approx(found.evaluations["1x1@32"].loss, rel=1e-5)
    with pytest.raises(records.RecordError, match="evaluated under this protocol before"):
        store.write_evaluation(found, found.evaluations["1x1@32"])


def test_evaluation_needs_the_last_checkpoint(prepared, store):
    run = run_of(prepared)
    with pytest.raises(SettingsError, match="no weights of step 2"):
        runner.evaluate(run, run.protocol, prepared[0], place_of(prepared, store, run), silent)


def test_a_toggle_of_the_users_trains(prepared, store):
    mixup = Toggle(
        "mixup",
        "MX",
        "",
        "mixup",
        {
            "task.train_data.one_hot": False,
            "task.train_data.mixup_and_cutmix": {
                "mixup_alpha": VALUE,
                "cutmix_alpha": 0.0,
                "prob": 1.0,
                "switch_prob": 0.0,
                "label_smoothing": 0.0,
            },
        },
        default=0.2,
    )
    one = execute(prepared, store, run_of(prepared, mixup.at()))
    assert one.toggles == {"mixup": 0.2}
    assert one.curve[0]["loss"] != execute(prepared, store, run_of(prepared)).curve[0]["loss"]


def test_averaged_weights_are_what_is_evaluated(prepared, store):
    averaged = execute(prepared, store, run_of(prepared, EMA.at(0.9)))
    plain = execute(prepared, store, run_of(prepared))
    losses = [record.evaluations["10x3@32"].loss for record in (averaged, plain)]
    assert losses[0] != losses[1]


def test_another_number_of_replicas_than_planned_is_refused(prepared, store):
    run = dataclasses.replace(run_of(prepared), replicas=2)
    with pytest.raises(SettingsError, match="gives 1 replicas here, the run was planned for 2: say --replicas 1"):
        execute(prepared, store, run)


def test_a_run_can_start_from_another_runs_checkpoint(prepared, store):
    parent = execute(prepared, store, run_of(prepared))
    child = dataclasses.replace(run_of(prepared, steps=1), parent=parent.identity)
    place = dataclasses.replace(
        place_of(prepared, store, child), parent=runner.weights(store.checkpoints(parent.id), 2)
    )
    record = execution.execute(child, prepared[0], place, store, silent)
    fresh = execute(prepared, store, run_of(prepared, steps=1))
    assert record.parent == parent.identity
    assert record.id != fresh.id
    assert record.curve[0]["loss"] != fresh.curve[0]["loss"]


def test_the_papers_precision_trains_and_evaluates_here(prepared, store):
    mixed = dataclasses.replace(
        QUICK,
        settings={
            **QUICK.settings,
            **{name: value for name, value in PAPER.settings.items() if name.endswith((".dtype", "precision_dtype"))},
        },
    )
    record = execute(prepared, store, run_of(prepared, SE.at(), DSTEM.at(), profile=mixed))
    assert record.settings["runtime.mixed_precision_dtype"] == "bfloat16"
    assert np.isfinite(record.evaluations["10x3@32"].loss)


def on_replicas(replicas, folder):
    script = Path(__file__).with_name("evaluate_on_replicas.py")
    command = [sys.executable, "-m", f"tests.{script.stem}", str(replicas), folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_video_counts_once_under_one_two_and_four_replicas(prepared):
    one, two, four = (on_replicas(replicas, prepared[1]) for replicas in (1, 2, 4))
    assert [found["replicas"] for found in (one, two, four)] == [1, 2, 4]
    for found in (one, two, four):
        assert len(found["ids"]) == len(set(found["ids"])) == 13
        assert found["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_the_train_step_compiles_with_xla_at_static_shapes(prepared):
    run = run_of(prepared)
    config = garden.build(run.settings, run.bookkeeping)
    task = VideoTask(config.task, None, runner.reader.Source((), (), 8))
    model, optimizer = task.build_model(), train_utils.create_optimizer(task, config)
    clips, labels = tf.TensorSpec([16, 8, 28, 28, 3]), tf.TensorSpec([16, 8])

    @tf.function(jit_compile=True, input_signature=[clips, labels])
    def step(image, label):
        return task.train_step(({"image": image}, label), model, optimizer)[task.loss]

    before = model.trainable_variables[0].numpy()
    for _ in "ab":  # the first step of the warm-up has a learning rate of zero
        loss = step(tf.random.stateless_uniform([16, 8, 28, 28, 3], [0, 1]), tf.one_hot([1, 2] * 8, 8))
    assert np.isfinite(float(loss))
    assert not np.array_equal(before, model.trainable_variables[0].numpy())
    text = step.experimental_get_compiler_ir(tf.zeros([16, 8, 28, 28, 3]), tf.zeros([16, 8]))(stage="hlo")
    assert "<=" not in text.splitlines()[0], "a dynamic dimension is printed as <=size"
    assert "convolution" in text
