"""Training and evaluating for real, on a handful of clips: records, resumption, replicas, precision, XLA."""

import dataclasses
import itertools
import json
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from official.core import train_utils

from ablations.profiles import PAPER
from ablations.toggles import DSTEM, RA, SD, SE
from harness.config.experiment import TRAIN_BATCH, Protocol, SettingsError
from harness.config.toggles import VALUE, Toggle
from harness.store import records
from harness.store.attempts import Interrupted, LostError, RunError
from harness.store.run_store import Store
from harness.training import executor, garden_config, loop
from harness.training.task import VideoTask
from tests.support import forked, tiny
from tests.support import trained as stores
from tests.support.tiny import PROTOCOL, every_step, files_of, seldom, unevaluated, variables


@pytest.fixture
def run(data):
    """The run of most stores."""
    return stores.baseline(data)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def steps_of(points, split="train"):
    return [point["step"] for point in points if point.get("split") == split]


def test_a_run_leaves_a_record_whose_numbers_come_from_its_predictions(data, trained, run):
    store = trained("whole")
    record = store.read(run.id)
    evaluation = record.evaluations[PROTOCOL]
    predictions = store.predictions(record, PROTOCOL)
    best = np.stack(predictions["top_class"])
    labels = predictions["label"].to_numpy()
    assert predictions["media_id"].is_unique
    assert len(predictions) == evaluation.videos == 13
    assert evaluation.top1 == np.mean(best[:, 0] == labels)
    assert evaluation.top5 == np.mean([label in row for label, row in zip(labels, best, strict=True)])
    assert steps_of(record.curve) == steps_of(record.curve, "validation") == [1, 2, 3, 4]
    assert evaluation.checkpoint == "weights-4"
    assert files_of(store, run) == [
        "attempts/0/checkpoints/weights-4.data-00000-of-00001",
        "attempts/0/checkpoints/weights-4.index",
        f"attempts/0/predictions-{PROTOCOL}.parquet",
        "record.json",
        "recorded",
    ], "momentum and older steps are gone"
    assert record.provenance["attempt"] == 0
    assert record.provenance["weights"] == "attempts/0/checkpoints/weights-4"
    assert record.provenance["resumed_at"] == []
    assert record.cut == {"steps": 4}
    assert data.execute(store, run, None) == record, "a run that is recorded is not trained again"
    twice = dataclasses.replace(record, provenance={**record.provenance, "attempt": 3})
    with pytest.raises(
        records.RecordError, match=r"/record.json: attempt 0 recorded the run already, attempt 3 would write it too$"
    ):
        store.write(twice)


def test_the_train_step_is_traced_once(trained):
    assert stores.watched(trained("whole"))["traced"] == 1


def test_one_processor_makes_its_batches_in_one_pipeline(trained):
    """A second one would carry them over, and hold up the end of a training by its tuning."""
    assert stores.watched(trained("whole"))["carried"] == 0


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
    assert loop._is_one_processor(strategy) is one


def test_a_resumed_run_is_the_run_that_was_never_interrupted(data, store, tmp_path):
    """It goes on from the checkpoint of its second step: clips, distortions, left-out blocks, momentum are the same."""
    run = unevaluated(every_step(data.run(DSTEM.at(), SD.at(), RA.at(), steps=4), validation_interval=100))
    killed, events = Store(tmp_path / "killed"), []

    def report(event):
        if event["event"] == "train" and event["step"] == 3:
            shutil.copytree(store.root, killed.root)

    whole = data.execute(store, run, report)
    assert not killed.has(run.id)
    resumed = data.execute(killed, run, events.append)
    assert steps_of(events) == [3, 4]
    assert (whole.provenance["resumed_at"], resumed.provenance["resumed_at"]) == ([], [2])
    assert steps_of(resumed.curve) == steps_of(whole.curve) == [1, 2, 3, 4]
    assert [point["loss"] for point in resumed.curve] == [point["loss"] for point in whole.curve]
    ours, theirs = (variables(at.weights(record)) for at, record in ((killed, resumed), (store, whole)))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert np.array_equal(value, theirs[name]), name


def test_an_attempt_goes_on_from_the_furthest_before_it_and_then_removes_their_checkpoints(data, trained, run):
    store = trained("stopped")
    torn = store.attempt(run.id, 1)
    shutil.copytree(store.attempt(run.id, 0).checkpoints, torn.checkpoints)
    for path in torn.checkpoints.glob("ckpt-3.*"):
        path.unlink()
    began, held = [], []

    def report(event):
        if event["event"] == "attempt":
            began.append(event)
        if event["event"] in ("train", "validation"):
            numbers = [one.number for one in attempts.all() if any(one.checkpoints.glob("ckpt-*"))]
            held.append((event["event"], event["step"], numbers))

    attempts = store.attempts(run.id)
    record = data.execute(store, unevaluated(run), report)
    assert began == [{"event": "attempt", "step": 3, "of": 0}], "the highest step, not the last attempt"
    assert held == [("train", 4, [0, 1]), ("validation", 4, [2])]
    assert record.provenance["resumed_at"] == [3]
    assert steps_of(record.curve) == [1, 2, 3, 4]
    assert {name.split("/")[1] for name in files_of(store, run) if name.startswith("attempts/")} == {"2"}


def test_a_run_of_before_attempts_had_folders_goes_on(data, trained, run):
    store = trained("stopped")
    folder, first = store.folder(run.id), store.attempt(run.id, 0)
    for path in first.folder.iterdir():
        path.rename(folder / path.name)
    shutil.rmtree(folder / "attempts")
    # What a kill leaves of a checkpoint that is being written.
    (folder / "checkpoints" / "ckpt-4_temp").mkdir()
    (folder / "checkpoints" / "ckpt-4_temp" / "part-00000").write_text("half of it")
    record = data.execute(store, unevaluated(run))
    assert record.provenance["resumed_at"] == [3]
    assert steps_of(record.curve) == [1, 2, 3, 4]
    assert not (folder / "checkpoints").exists() or not any((folder / "checkpoints").iterdir())


def test_whether_the_run_is_still_its_own_is_asked_before_anything_is_written(trained):
    asked = stores.watched(trained("whole"))["asked"]
    written = [
        (now, name)
        for (now, before), (_, after) in itertools.pairwise(asked)
        for name in sorted({*after} - {*before})
        if not name.endswith("curve.jsonl")  # the log, which says what was done whosever the run is
    ]
    assert [name for now, name in written if not now] == []
    assert {name.split("/")[-1].split(".")[0] for _, name in written} == {
        *("checkpoint", "ckpt-1", "ckpt-2", "ckpt-3", "ckpt-4", "weights-4", f"predictions-{PROTOCOL}")
    }
    # Four checkpoints, the weights, the predictions and, after the last question, the record.
    assert [now for now, _ in asked].count(True) == 4 + 1 + 1 + 1
    assert [now for now, _ in asked].count(False) >= 4
    assert asked[-1][0]
    assert not any("record" in name for name in asked[-1][1])


class Lease:
    """Held until it was asked so many times whether it is now."""

    def __init__(self, times):
        self.left = times

    def __call__(self, now):
        self.left -= now
        if self.left < 0:
            raise LostError("another's")


@pytest.mark.parametrize(
    ("left", "times", "there", "missing"),
    [
        ("killed", 1, "ckpt-3.", ("ckpt-4", "weights", "predictions")),
        ("without weights", 0, "ckpt-4.", ("weights", "predictions")),
        ("evaluating", 1, "predictions", ()),
    ],
    ids=["checkpoint", "weights", "record"],
)
def test_nothing_is_written_any_more_once_the_run_is_anothers(left, times, there, missing, data, trained, run):
    store = trained("evaluating" if left == "without weights" else left)
    if left == "without weights":
        for path in store.attempt(run.id, 0).checkpoints.glob("weights-4.*"):
            path.unlink()
    with pytest.raises(LostError):
        data.execute(store, run, hold=Lease(times))
    names = " ".join(files_of(store, run))
    assert there in names
    assert not [name for name in (*missing, "record") if name in names]
    assert not store.has(run.id)
    assert store.state(run.id).name == "interrupted"


def test_a_run_recorded_meanwhile_is_not_recorded_twice(data, trained, run):
    store = trained("evaluating")
    slow, quick = store.attempt(run.id, 4), store.attempt(run.id, 6)
    store.attempt(run.id, 0).folder.rename(slow.folder)

    def how(attempt):
        return run, data.manifest, data.place(store, run, attempt), store, attempt, tiny.silent

    def overtaken(now):
        if now and not store.has(run.id):
            executor.execute(*how(quick))

    with pytest.raises(records.RecordError, match="attempt 6 recorded the run already, attempt 4 would write it too"):
        executor.execute(*how(slow), hold=overtaken)
    record = store.read(run.id)
    assert record.provenance["attempt"] == 6
    # It went on from what the slow one had trained, which is the record's now.
    assert record.provenance["weights"] == "attempts/4/checkpoints/weights-4"
    assert loop.trained(run, data.place(store, run, quick)) == str(store.weights(record))
    store.checked(run.id)
    assert not any("attempts/4/predictions" in name for name in files_of(store, run))


def test_a_run_that_is_asked_to_stop_saves_the_step_it_reached(trained, run):
    """It would not have saved it otherwise; what goes on from there, the test of the furthest attempt shows."""
    store = trained("stopped")
    assert str(store.state(run.id)) == "interrupted at step 3"
    saved = [name for name in files_of(store, run) if name.endswith(".index")]
    assert [name.split("/")[-1] for name in saved] == ["ckpt-1.index", "ckpt-3.index"]


def test_a_stop_in_a_validation_saves_the_weights_that_train_not_their_average(data, store, trained):
    run = every_step(stores.averaged(data), checkpoint_interval=100, validation_interval=2)
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
        data.execute(store, run, report, stop=asked)
    path, step = loop.last_checkpoint(str(store.attempt(run.id, 0).checkpoints))
    assert step == 2
    stopped = variables(path)
    expected = variables(trained("averaged", "expected").attempt(run.id, 0).checkpoints / "ckpt-2")
    assert stopped.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(stopped[name], value), name


def test_averaged_weights_are_what_is_kept_and_evaluated(data, trained):
    store, run = trained("averaged"), stores.averaged(data)
    kept, checkpoint = {}, {}

    def report(event):
        if event["event"] == "evaluate" and not event["done"]:
            folder = store.attempt(run.id, 1).checkpoints
            kept.update(variables(folder / "weights-4"))
            checkpoint.update(variables(folder / "ckpt-4"))

    # As the validations that come with training evaluate it, which show the averages.
    record = data.execute(store, dataclasses.replace(run, protocol=Protocol(1, 1, 16)), report)
    averages = [name for name in checkpoint if name.endswith("average/.ATTRIBUTES/VARIABLE_VALUE")]
    assert averages
    differing = 0
    for name in averages:
        plain = name.split("/.OPTIMIZER_SLOT")[0] + "/.ATTRIBUTES/VARIABLE_VALUE"
        # The validation after the checkpoint swaps them in and out, which costs the last digits.
        assert kept[plain] == pytest.approx(checkpoint[name], rel=1e-5, abs=1e-7), name
        differing += checkpoint[plain] != pytest.approx(checkpoint[name], rel=1e-3, abs=1e-5)
    assert differing > 50
    (evaluation,) = record.evaluations.values()
    assert evaluation.checkpoint == "weights-4"
    assert record.curve[-1]["split"] == "validation"
    assert record.curve[-1]["loss"] == pytest.approx(evaluation.loss, rel=1e-5)


def test_what_is_kept_of_a_training_checkpoint_is_its_network(data, trained, tmp_path):
    store, run = trained("averaged"), stores.averaged(data)
    checkpoint = store.attempt(run.id, 0).checkpoints / "ckpt-3"
    place = dataclasses.replace(data.place(store, run, store.attempt(run.id, 0)), checkpoints=str(tmp_path))
    kept = tf.train.load_checkpoint(loop.shrink(run, str(checkpoint), place))
    whole = tf.train.load_checkpoint(str(checkpoint))
    assert not any("OPTIMIZER_SLOT" in name for name in kept.get_variable_to_shape_map())
    found = [name for name in whole.get_variable_to_shape_map() if name.endswith("average/.ATTRIBUTES/VARIABLE_VALUE")]
    assert found
    for name in found:
        plain = name.split("/.OPTIMIZER_SLOT")[0] + "/.ATTRIBUTES/VARIABLE_VALUE"
        assert np.array_equal(kept.get_tensor(plain), whole.get_tensor(name))


def test_weights_torn_by_a_kill_are_written_again_from_the_checkpoint(data, trained, run):
    store = trained("evaluating")
    path = store.attempt(run.id, 0).checkpoints / "weights-4.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:1000])
    events = []
    data.execute(store, unevaluated(run), events.append)
    assert steps_of(events) == []
    whole = trained("whole", "whole")
    ours, theirs = (variables(at.weights(at.read(run.id))) for at in (store, whole))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_stopped_after_its_last_step_is_only_evaluated(data, trained, run):
    store = trained("evaluating")
    assert not store.has(run.id)
    events = []
    record = data.execute(store, run, events.append)
    assert {event["event"] for event in events} == {"evaluate"}
    assert steps_of(record.curve) == [1, 2, 3, 4]


def test_a_checkpoint_that_tensorflow_lost_sight_of_is_found(data, trained, run):
    store = trained("stopped")
    (store.attempt(run.id, 0).checkpoints / "checkpoint").write_text("damaged by hand")
    assert data.begun(store, run) == {"event": "attempt", "step": 3, "of": 0}


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(data, trained, run):
    store = trained("stopped")
    path = store.attempt(run.id, 0).checkpoints / "ckpt-3.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoints/ckpt-3: damaged checkpoint, its checksums or its index do not"):
        data.execute(store, run)
    for path in store.attempt(run.id, 0).checkpoints.glob("ckpt-3.*"):
        path.unlink()
    assert data.begun(store, run) == {"event": "attempt", "step": 1, "of": 0}


def test_damaged_weights_are_named(data, trained, run):
    store = trained("whole")
    index = store.attempt(run.id, 0).checkpoints / "weights-4.index"
    index.write_bytes(index.read_bytes()[:100])
    again = records.run_of(store.read(run.id), Protocol(1, 1, 16), evaluation_batch=8)
    with pytest.raises(RunError, match="weights-4: damaged checkpoint"):
        data.evaluate(store, again)


def test_a_loss_that_is_no_number_ends_the_run_with_its_checkpoint_good(data, store):
    rate = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate"
    run = every_step(data.run(steps=6), validation_interval=100)
    warm_up = "trainer.optimizer_config.warmup.linear.warmup_steps"
    run = dataclasses.replace(run, settings={**run.settings, rate: 1e30, warm_up: 1})
    with pytest.raises(
        RunError, match=r"the training loss of steps \d to \d is (nan|inf|[\d.e+]+), .* expected a number"
    ):
        data.execute(store, run)
    path, step = loop.last_checkpoint(store.attempt(run.id, 0).checkpoints)
    assert 0 < step < 6
    network = [value for name, value in variables(path).items() if name.startswith("model")]
    assert network
    assert all(np.isfinite(value).all() for value in network)


def test_a_run_whose_record_was_removed_is_trained_from_its_first_step(data, trained, run):
    store = trained("whole")
    (store.folder(run.id) / "record.json").unlink()
    assert data.begun(store, run) == {"event": "attempt", "step": 0}
    assert files_of(store, run) == ["attempts/1/curve.jsonl"], "what it left does not stand in for training"


def test_a_further_protocol_is_added_without_training(data, trained, run):
    store = trained("whole")
    again = records.run_of(store.read(run.id), Protocol(1, 1, 16), evaluation_batch=8)
    assert again.id == run.id
    found = data.evaluate(store, again)
    assert found == store.read(run.id)
    assert found.evaluations["1x1@16"].predictions == "attempts/1/predictions-1x1@16.parquet"
    assert data.evaluate(store, again, None) == found, "it was evaluated under it before"
    assert set(found.evaluations) == {PROTOCOL, "1x1@16"}
    assert found.curve[-1]["loss"] == pytest.approx(found.evaluations["1x1@16"].loss, rel=1e-5)
    twice = dataclasses.replace(found.evaluations["1x1@16"], predictions="attempts/7/predictions-1x1@16.parquet")
    with pytest.raises(records.RecordError, match="attempt 1 evaluated the run already, attempt 7 would write it too"):
        store.write_evaluation(found, twice)


def test_evaluation_needs_the_last_checkpoint(data, store, run):
    with pytest.raises(SettingsError, match="no weights of step 4"):
        place = data.place(store, run, store.attempt(run.id, 0))
        loop.evaluate(run, run.protocol, data.manifest, place, tiny.silent)


def test_a_toggle_of_the_users_trains(data, store, trained, run):
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
    mixed = data.execute(store, data.run(mixup.at(), steps=1))
    assert mixed.toggles == {"mixup": 0.2}
    assert mixed.curve[0]["loss"] != trained("whole", "plain").read(run.id).curve[0]["loss"]
    assert mixed.evaluations


def test_another_number_of_replicas_than_planned_is_refused(data, store, run):
    with pytest.raises(SettingsError, match="gives 1 replicas here, the run was planned for 2: say --replicas 1"):
        data.execute(store, dataclasses.replace(run, replicas=2))


def test_a_run_can_start_from_another_runs_checkpoint(data, trained, run):
    store = trained("whole")
    parent = store.read(run.id)
    child = unevaluated(data.run(steps=1, parent=run))
    record = data.execute(store, child)
    assert record.parent == parent.identity
    assert record.id != data.run(steps=1).id
    # Its first step begins with the parent's weights; without, it would be the parent's first step.
    assert record.curve[0]["loss"] != parent.curve[0]["loss"]


def test_the_papers_precision_trains_and_evaluates_here(data, store):
    precision = {name: value for name, value in PAPER.settings.items() if name.endswith((".dtype", "precision_dtype"))}
    mixed = dataclasses.replace(tiny.TINY, settings={**tiny.TINY.settings, **precision})
    record = data.execute(store, seldom(data.run(SE.at(), DSTEM.at(), profile=mixed)))
    assert record.settings["runtime.mixed_precision_dtype"] == "bfloat16"
    assert np.isfinite(record.evaluations[PROTOCOL].loss)


def test_every_video_counts_once_under_one_two_and_four_replicas(data):
    code, output = forked.run("tests.support.evaluate_on_replicas", [data.folder, 1, 2, 4])
    assert code == 0, output[-2000:]
    one, two, four = json.loads(output.splitlines()[-1])
    assert [found["replicas"] for found in (one, two, four)] == [1, 2, 4]
    for found in (one, two, four):
        assert len(found["ids"]) == len(set(found["ids"])) == 13
        assert found["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_the_train_step_compiles_with_xla_at_static_shapes(run):
    config = garden_config.build(run.settings, run.bookkeeping)
    task = VideoTask(config.task, None, loop.reader.Source((), (), 8))
    model, optimizer = task.build_model(), train_utils.create_optimizer(task, config)
    batch = run.settings[TRAIN_BATCH]
    clips = tf.TensorSpec([batch, *(run.settings[f"task.train_data.feature_shape[{axis}]"] for axis in range(4))])
    labels = tf.TensorSpec([batch, 8])

    @tf.function(jit_compile=True, input_signature=[clips, labels])
    def step(image, label):
        return task.train_step(({"image": image}, label), model, optimizer)[task.loss]

    before = model.trainable_variables[0].numpy()
    for _ in "ab":  # the first step of the warm-up has a learning rate of zero
        loss = step(tf.random.stateless_uniform(clips.shape, [0, 1]), tf.one_hot([1, 2] * (batch // 2), 8))
    assert np.isfinite(float(loss))
    assert not np.array_equal(before, model.trainable_variables[0].numpy())
    text = step.experimental_get_compiler_ir(tf.zeros(clips.shape), tf.zeros(labels.shape))(stage="hlo")
    assert "<=" not in text.splitlines()[0], "a dynamic dimension is printed as <=size"
    assert "convolution" in text
