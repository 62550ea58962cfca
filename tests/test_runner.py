"""Training and evaluating for real, on a handful of clips: records, resumption, replicas, precision, XLA."""

import dataclasses
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from official.core import train_utils
from tensorflow.python.data.ops import multi_device_iterator_ops

from ablations.profiles import PAPER, QUICK
from ablations.toggles import DSTEM, EMA, RA, SD, SE
from harness import execution, experiment, garden, records, runner
from harness.attempts import Interrupted, LostError, RunError
from harness.data import embedded
from harness.experiment import Cut, Protocol, SettingsError
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


def next_attempt(store, run):
    return store.attempt(run.id, max(store.attempts(run.id).numbers, default=-1) + 1)


def place_of(prepared, store, run, attempt=None):
    return execution.place_of(store, run, attempt or next_attempt(store, run), prepared[1])


def left(store, run):
    """The files that attempts at a run left, by their paths in its folder."""
    folder = store.folder(run.id)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def silent(event):
    del event


def execute(prepared, store, run, report=silent, **how):
    """Another attempt at a run."""
    attempt = next_attempt(store, run)
    return execution.execute(run, prepared[0], place_of(prepared, store, run, attempt), store, attempt, report, **how)


def evaluate(prepared, store, run, report=silent, **how):
    """Another attempt at evaluating a run that is recorded."""
    attempt = next_attempt(store, run)
    return execution.evaluate(run, prepared[0], place_of(prepared, store, run, attempt), store, attempt, report, **how)


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
    assert left(store, run) == [
        "attempts/0/checkpoints/weights-2.data-00000-of-00001",
        "attempts/0/checkpoints/weights-2.index",
        "attempts/0/predictions-10x3@32.parquet",
        "record.json",
        "recorded",
    ], "momentum and older steps are gone"
    assert record.provenance["attempt"] == 0
    assert record.provenance["weights"] == "attempts/0/checkpoints/weights-2"
    assert record.provenance["resumed_at"] == []
    assert record.cut == {"steps": 2}
    assert execute(prepared, store, run, None) == record, "a run that is recorded is not trained again"
    twice = dataclasses.replace(record, provenance={**record.provenance, "attempt": 3})
    with pytest.raises(
        records.RecordError, match=r"/record.json: attempt 0 recorded the run already, attempt 3 would write it too$"
    ):
        store.write(twice)


def test_the_train_step_is_traced_once(prepared, store, monkeypatch):
    traced, own = [], VideoTask.train_step
    monkeypatch.setattr(VideoTask, "train_step", lambda *args, **words: traced.append(1) or own(*args, **words))
    run = run_of(prepared)
    runner.train(run, prepared[0], place_of(prepared, store, run), silent)
    assert len(traced) == 1


def test_one_processor_makes_its_batches_in_one_pipeline(prepared, store, monkeypatch):
    """A second one would carry them over, and hold up the end of a training by its tuning."""

    def refused(*_, **__):
        raise AssertionError("a pipeline from device to device")

    monkeypatch.setattr(multi_device_iterator_ops.OwnedMultiDeviceIterator, "__init__", refused)
    record = execute(prepared, store, run_of(prepared), silent)
    assert record.evaluations


@pytest.mark.parametrize(
    ("replicas", "device", "one"),
    [
        (1, "/job:localhost/replica:0/task:0/device:CPU:0", True),
        # One of two workers, each with a processor.
        (2, "/job:worker/replica:0/task:1/device:CPU:0", False),
        (1, "/job:localhost/replica:0/task:0/device:GPU:0", False),
        (1, "/job:localhost/replica:0/task:0/device:TPU:0", False),
    ],
)
def test_batches_come_as_they_are_on_one_processor_alone(replicas, device, one):
    extended = types.SimpleNamespace(worker_devices=(device,))
    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas, extended=extended)
    assert runner._is_one_processor(strategy) is one


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
        execute(
            prepared,
            store,
            run,
            report,
            stop=lambda: "asked to stop" if reached and reached[-1] == step else None,
        )


def test_an_attempt_goes_on_from_the_furthest_before_it_and_then_removes_their_checkpoints(prepared, store):
    run = run_of(prepared, steps=5)
    interrupted_at(prepared, store, run, 3)
    torn = store.attempt(run.id, 1)
    shutil.copytree(store.attempt(run.id, 0).checkpoints, torn.checkpoints)
    for path in torn.checkpoints.glob("ckpt-3.*"):
        path.unlink()
    began, held = [], []

    def report(event):
        if event["event"] == "attempt":
            began.append(event)
        if event["event"] == "train":
            held.append((event["step"], [one.number for one in attempts.all() if any(one.checkpoints.glob("ckpt-*"))]))

    attempts = store.attempts(run.id)
    record = execute(prepared, store, run, report)
    assert began == [{"event": "attempt", "step": 3, "of": 0}], "the highest step, not the last attempt"
    assert held == [(4, [0, 1]), (5, [2])]
    assert record.provenance["resumed_at"] == [3]
    assert [point["step"] for point in record.curve if point["split"] == "train"] == [1, 2, 3, 4, 5]
    assert {name.split("/")[1] for name in left(store, run) if name.startswith("attempts/")} == {"2"}


@pytest.mark.slow
def test_a_run_of_before_attempts_had_folders_goes_on(prepared, store):
    run = run_of(prepared, steps=4)
    interrupted_at(prepared, store, run, 2)
    folder, first = store.folder(run.id), store.attempt(run.id, 0)
    for path in first.folder.iterdir():
        path.rename(folder / path.name)
    shutil.rmtree(folder / "attempts")
    record = execute(prepared, store, run)
    assert record.provenance["resumed_at"] == [2]
    assert [point["step"] for point in record.curve if point["split"] == "train"] == [1, 2, 3, 4]
    assert not (folder / "checkpoints").exists() or not any((folder / "checkpoints").iterdir())


class Lease:
    """Held until it was asked so many times whether it is now."""

    def __init__(self, times):
        self.left, self.asked = times, []

    def __call__(self, now):
        self.asked.append(now)
        self.left -= now
        if self.left < 0:
            raise LostError("another's")


def test_whether_the_run_is_still_its_own_is_asked_before_anything_is_written(prepared, store, tmp_path):
    run, lease = run_of(prepared, steps=3), Lease(100)
    execute(prepared, store, run, hold=lease)
    # Three checkpoints, the weights, the predictions and the record.
    assert lease.asked.count(True) == 3 + 1 + 1 + 1
    assert lease.asked.count(False) >= 3
    kept = {1: ["ckpt-1"], 3: ["ckpt-2", "ckpt-3"], 5: ["weights-3", "parquet"]}
    for times, names in kept.items():
        other = Store(tmp_path / str(times))
        with pytest.raises(LostError):
            execute(prepared, other, run, hold=Lease(times))
        there = " ".join(left(other, run))
        assert all(name in there for name in names), there
        assert ("ckpt" in there, "weights" in there, "parquet" in there) == (times > 0, times > 3, times > 4)
        assert not other.has(run.id)
        assert other.state(run.id).name == "interrupted"


def test_a_run_recorded_meanwhile_is_not_recorded_twice(prepared, store):
    run = run_of(prepared)
    slow, quick = store.attempt(run.id, 4), store.attempt(run.id, 6)

    def overtaken(now):
        if now and runner.trained(run, place_of(prepared, store, run, slow)) and not store.has(run.id):
            execution.execute(run, prepared[0], place_of(prepared, store, run, quick), store, quick, silent)

    with pytest.raises(records.RecordError, match="attempt 6 recorded the run already, attempt 4 would write it too"):
        how = run, prepared[0], place_of(prepared, store, run, slow), store, slow, silent
        execution.execute(*how, hold=overtaken)
    record = store.read(run.id)
    assert record.provenance["attempt"] == 6
    # It went on from what the slow one had trained, which is the record's now.
    assert record.provenance["weights"] == "attempts/4/checkpoints/weights-2"
    assert runner.trained(run, place_of(prepared, store, run, quick)) == str(store.weights(record))
    store.checked(run.id)
    assert not any("attempts/4/predictions" in name for name in left(store, run))


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
        execute(prepared, store, run, report, stop=asked)
    other = Store(tmp_path / "other")
    interrupted_at(prepared, other, run, 2)
    stopped, expected = (
        tf.train.load_checkpoint(runner.last_checkpoint(str(at.attempt(run.id, 0).checkpoints))[0])
        for at in (store, other)
    )
    for name in expected.get_variable_to_shape_map():
        if name.endswith("VARIABLE_VALUE"):
            assert np.array_equal(stopped.get_tensor(name), expected.get_tensor(name)), name


def test_what_a_kill_left_of_a_checkpoint_is_removed(prepared, store):
    run = run_of(prepared, steps=4)
    interrupted_at(prepared, store, run, 2)
    torn = store.attempt(run.id, 0).checkpoints / "ckpt-3_temp"
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
    data = store.attempt(run.id, 0).checkpoints / "weights-2.data-00000-of-00001"
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
    (store.attempt(run.id, 0).checkpoints / "checkpoint").write_text("damaged by hand")
    assert execute(prepared, store, run).provenance["resumed_at"] == [2]


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(prepared, store):
    run = run_of(prepared, steps=4)
    interrupted_at(prepared, store, run, 3)
    data = store.attempt(run.id, 0).checkpoints / "ckpt-3.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoints/ckpt-3: damaged checkpoint, its checksums or its index do not"):
        execute(prepared, store, run)
    for path in store.attempt(run.id, 0).checkpoints.glob("ckpt-3.*"):
        path.unlink()
    assert execute(prepared, store, run).provenance["resumed_at"] == [2]


def test_damaged_weights_are_named(prepared, store):
    run = run_of(prepared)
    record = execute(prepared, store, run)
    index = store.attempt(run.id, 0).checkpoints / "weights-2.index"
    index.write_bytes(index.read_bytes()[:100])
    again = records.run_of(record, Protocol(1, 1, 32), evaluation_batch=8)
    with pytest.raises(RunError, match="weights-2: damaged checkpoint"):
        evaluate(prepared, store, again)


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
    path, step = runner.last_checkpoint(store.attempt(run.id, 0).checkpoints)
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
    checkpoint = store.attempt(run.id, 0).checkpoints / "ckpt-3"
    kept = tf.train.load_checkpoint(runner.shrink(run, str(checkpoint), place))
    whole = tf.train.load_checkpoint(str(checkpoint))
    assert not any("OPTIMIZER_SLOT" in name for name in kept.get_variable_to_shape_map())
    found = [name for name in whole.get_variable_to_shape_map() if name.endswith("average/.ATTRIBUTES/VARIABLE_VALUE")]
    assert found
    for name in found:
        plain = name.split("/.OPTIMIZER_SLOT")[0] + "/.ATTRIBUTES/VARIABLE_VALUE"
        assert np.array_equal(kept.get_tensor(plain), whole.get_tensor(name))


@pytest.mark.slow
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
    found = evaluate(prepared, store, again)
    assert found == store.read(run.id)
    assert found.evaluations["1x1@32"].predictions == "attempts/1/predictions-1x1@32.parquet"
    assert evaluate(prepared, store, again, None) == found, "it was evaluated under it before"
    assert set(found.evaluations) == {"10x3@32", "1x1@32"}
    assert found.curve[-1]["loss"] == pytest.approx(found.evaluations["1x1@32"].loss, rel=1e-5)
    twice = dataclasses.replace(found.evaluations["1x1@32"], predictions="attempts/7/predictions-1x1@32.parquet")
    with pytest.raises(records.RecordError, match="attempt 1 evaluated the run already, attempt 7 would write it too"):
        store.write_evaluation(found, twice)


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


@pytest.mark.slow
def test_a_run_can_start_from_another_runs_checkpoint(prepared, store):
    parent = execute(prepared, store, run_of(prepared))
    child = dataclasses.replace(run_of(prepared, steps=1), parent=parent.identity)
    place = dataclasses.replace(
        place_of(prepared, store, child), parent=runner.weights(store.attempt(parent.id, 0).checkpoints, 2)
    )
    record = execution.execute(child, prepared[0], place, store, store.attempt(child.id, 0), silent)
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
    command = [sys.executable, "-m", "tests.support.evaluate_on_replicas", str(replicas), folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
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
