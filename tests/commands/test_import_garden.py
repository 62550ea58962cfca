"""The Garden's own trainer trains what was exported, and what it leaves is taken in: both for real, on a few clips."""

import copy
import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner

from ablations.profiles import PAPER, PROFILES, QUICK
from ablations.toggles import DEPTH, DSTEM, EMA, SE
from harness import export, import_garden
from harness.config import experiment
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Protocol
from harness.config.studies import Cell
from harness.planning.workspace import facts
from harness.store import records
from harness.store.run_store import Store
from harness.system.errors import HarnessError
from harness.training import garden_config, garden_export, garden_folder, garden_import
from harness.training.garden_folder import GardenFolderError
from tests.support import tiny
from tests.support.plain import leaves
from tests.support.tiny import TINY, every_step, silent, unevaluated


@dataclasses.dataclass(frozen=True)
class Trained:
    """What was exported, and the folder into which the Garden trained it."""

    data: tiny.Data
    run: experiment.Run
    folder: Path

    def taken(self, folder=None, views=(1, 1), checkpoint=None):
        """The folder as a run, and what it holds."""
        found = garden_folder.read_garden_folder(folder or self.folder, checkpoint)
        return garden_folder.run_of(found, TINY, facts(self.data.manifest), views=views), found

    def take_in(self, store, folder=None, **how):
        run, found = self.taken(folder, **how)
        attempt = store.attempt(run.id, 0)
        place = self.data.place(store, run, attempt)
        return garden_import.take_in(run, found, self.data.manifest, place, store, attempt, silent)


@pytest.fixture(autouse=True)
def known(tiny_profile, monkeypatch):
    """Of the profiles whose networks are as deep commands know the tiny one alone."""
    monkeypatch.delitem(PROFILES, QUICK.name)


@pytest.fixture
def trained(data, once):
    """Two steps of the Garden's own trainer, by the very command that the export prints."""
    run = every_step(data.run(SE.at(), DSTEM.at(), EMA.at(0.9), batch=4), validation_interval=2)

    def train(folder):
        target = garden_export.Target(Devices(), 0, data.folder, data.manifest)
        command = garden_export.write_export(run, target, {"se": 0.25}, folder / "exported")
        environment = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2", "PATH": ""}
        words = [sys.executable, *command[1:]]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    return Trained(data, run, once("garden", train) / "exported" / "model")


@pytest.fixture
def taken(trained, once, tmp_path):
    """A store into which it was taken in."""
    kept = once("garden-taken", lambda folder: trained.take_in(Store(folder)))
    return Store(Path(shutil.copytree(kept, tmp_path / "taken")))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the folder, to be damaged."""
    return Path(shutil.copytree(trained.folder, tmp_path / "model"))


def edited(folder, **changes):
    """The folder with leaves of its configuration changed: "task__losses" for "task.losses"."""
    path = folder / "params.yaml"
    config = garden_folder.read_garden_folder(folder).config
    for field, value in changes.items():
        place = config
        *parents, leaf = field.split("__")
        for name in parents:
            place = place[name]
        place[leaf] = value
    path.write_text(yaml.safe_dump(copy.deepcopy(config)))
    return folder


def tags(folder):
    """The last value of each of TensorBoard's points."""
    found = {}
    for path in folder.glob("events.out.*"):
        for content in tf.data.TFRecordDataset(str(path)):
            for value in tf.compat.v1.Event.FromString(content.numpy()).summary.value:
                found[value.tag] = tf.make_ndarray(value.tensor)
    return found


def test_the_garden_trained_the_exported_configuration(trained):
    run, store = trained.run, Store(Path())
    place = trained.data.place(store, run, store.attempt(run.id, 0))
    ours = garden_config.build(run.settings, {**run.bookkeeping, **place.bookkeeping()})
    assert leaves(garden_folder.read_garden_folder(trained.folder).config) == leaves(
        {part: ours.as_dict()[part] for part in ("task", "trainer", "runtime")}
    )


def test_it_is_the_same_run_by_another_hand(trained):
    run, _ = trained.taken(views=None)
    assert run.settings == trained.run.settings
    assert run.protocol == trained.run.protocol
    assert run.profile == "tiny"
    assert run.id != trained.run.id
    assert trained.taken()[0].id == run.id


def test_its_record_says_who_trained_it_and_agrees_with_the_gardens_own_validation(trained, taken):
    record = taken.read(trained.taken()[0].id)
    evaluation = record.evaluations["1x1@16"]
    theirs = tags(trained.folder / "validation")
    assert evaluation.videos == 13
    assert evaluation.top1 == pytest.approx(float(theirs["top_1_accuracy"]))
    assert evaluation.top5 == pytest.approx(float(theirs["top_5_accuracy"]))
    assert evaluation.checkpoint == "weights-2"
    assert record.provenance["weights"] == "attempts/0/checkpoints/weights-2"
    said = record.provenance
    assert (said["trained_by"], said["checkpoint"], said["steps_in_config"]) == ("Model Garden", "ckpt-2", 2)
    _, found = trained.taken()
    assert record.identity_content["trained_by"] == found.trained_by
    assert found.trained_by["config"] == said["config_sha256"]
    whole = {**record.identity_content, "settings": record.settings}
    assert experiment.content_hash(whole) == record.identity
    assert [(point["split"], point["step"]) for point in record.curve] == [("train", 1), ("train", 2)]
    assert set(record.curve[0]) == {"split", "step", "seconds", "loss", "top1", "top5", "learning_rate"}
    assert record.curve[1]["loss"] == pytest.approx(float(tags(trained.folder / "train")["training_loss"]))


@pytest.mark.slow
def test_what_was_taken_in_is_evaluated_again_exported_and_trained_on(trained, taken, tmp_path):
    data, record = trained.data, taken.read(trained.taken()[0].id)
    again = records.run_of(record, Protocol(2, 1, 16), evaluation_batch=8)
    assert again.id == record.id
    found = data.evaluate(taken, again)
    assert set(found.evaluations) == {"1x1@16", "2x1@16"}

    child = dataclasses.replace(trained.run, settings={**trained.run.settings, "trainer.train_steps": 1})
    child = unevaluated(dataclasses.replace(child, parent=record.identity))
    made = data.execute(taken, child)
    assert made.parent == record.identity

    for run_id in (record.id, made.id):
        words = [run_id[:10], "--data", data.folder, "--results", taken.root, "--output", tmp_path / run_id]
        result = CliRunner().invoke(export.main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
    written = yaml.safe_load((tmp_path / made.id / "experiment.yaml").read_text())
    assert written["task"]["init_checkpoint"] == str(taken.weights(record))


def call(*words):
    return CliRunner().invoke(import_garden.main, [str(word) for word in words])


def test_the_command_takes_a_folder_in_once(trained, tmp_path, kept_process):
    words = [trained.folder, "--data", trained.data.folder, "--results", tmp_path]
    result = call(*words, "--views", "1x1")
    assert result.exit_code == 0, result.output
    assert re.search(r"1x1@16: top-1 .*, 13 of 13 videos", result.output)
    again = call(*words)
    assert again.exit_code == 2
    run_id = Store(tmp_path).ids()[0]
    assert f"taken in before; python -m harness.evaluate {run_id} --views 2x3" in again.output
    assert call(*words, "--views", "1x1").exit_code == 0


def test_a_checkpoint_before_the_last_is_a_run_of_fewer_steps(copied, trained):
    run, found = trained.taken(copied, checkpoint="ckpt-1")
    assert run.settings["trainer.train_steps"] == found.step == 1
    assert run.settings[experiment.DECAY_STEPS] == 2
    for file in copied.glob("ckpt-2.*"):
        shutil.copy(file, file.with_name(file.name.replace("ckpt-2", "ckpt-5")))
    with pytest.raises(GardenFolderError, match="ckpt-5: holds step 2, its name says 5"):
        trained.take_in(Store(copied), copied)


def test_a_configuration_without_a_seed_is_taken_in(copied, trained):
    run, found = trained.taken(edited(copied, task__train_data__seed=None))
    assert run.seed == 0
    assert found.config["task"]["train_data"]["seed"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task__model__backbone__resnet_3d_rs__se_ratio": 0.0},
            r"model/.* is .*, the network's missing \(\d+ variables",
        ),
        ({"task__model__backbone__resnet_3d_rs__model_id": 17}, r"the network's 1 x 1 x 1 x"),
        ({"trainer__optimizer_config__ema": None, "task__losses__focal": 1}, "does not know a setting"),
    ],
)
def test_another_network_than_the_checkpoints_is_named(copied, trained, store, changes, message):
    with pytest.raises(HarnessError, match=message):
        trained.take_in(store, edited(copied, **changes))
    assert store.attempts(trained.taken(copied)[0].id).numbers == []


def test_a_damaged_checkpoint_is_named(copied, trained, store):
    data = next(copied.glob("ckpt-2.data-*"))
    data.write_bytes(data.read_bytes()[:-5000])
    with pytest.raises(GardenFolderError, match="ckpt-2: damaged, or no checkpoint of TensorFlow's"):
        trained.take_in(store, copied)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__train_data__num_classes": 400}, "trained on 400 classes, tiny has 8"),
        ({"task__train_data__is_multilabel": True}, "is_multilabel is True: the evaluation knows False only"),
        ({"task__validation_data__is_training": True}, "is_training is True: the evaluation knows False only"),
        (
            {"task__validation_data__feature_shape": [4, 16, 20, 3]},
            r"feature_shape\[2\] is 20: the evaluation knows 16",
        ),
        ({"task__validation_data__feature_shape": 3}, r"feature_shape\[0\] is missing \(4 fields are\)"),
        ({"task__train_data__global_batch_size": "four"}, "global_batch_size is 'four': expected a whole number"),
        ({"runtime__mixed_precision_dtype": None}, "mixed_precision_dtype is None: the evaluation knows float32 or"),
        ({"runtime__distribution_strategy": "tpu"}, "strategy tpu, which does not say over how many replicas"),
        ({"task__losses": {}}, "task.losses.one_hot is missing"),
        ({"task__model__backbone__type": "resnet_3d"}, "backbone 'resnet_3d': expected video classification with"),
        ({"task__model": 3}, "backbone None: expected video classification with"),
        ({"task__model__backbone__resnet_3d_rs__model_id": 18}, "a network of 18 layers: expected one of 14, 17, 20"),
        ({"task__model__backbone__resnet_3d_rs__model_id": [50]}, r"a network of \[50\] layers: expected one of"),
        ({"extra": {}}, "expected a configuration of the Model Garden: task, trainer and runtime"),
    ],
)
def test_unusable_configurations_are_named(copied, trained, changes, message):
    with pytest.raises(GardenFolderError, match=message):
        found = garden_folder.read_garden_folder(edited(copied, **changes))
        garden_folder.run_of(found, garden_folder.profile_of(found, PROFILES.values()), facts(trained.data.manifest))


def without(name):
    def remove(folder):
        for path in folder.glob(name):
            path.unlink()

    return remove


def written(text):
    return lambda folder: (folder / "params.yaml").write_text(text)


@pytest.mark.parametrize(
    ("damage", "words", "message"),
    [
        (without("params.yaml"), [], "params.yaml: no such file; expected the configuration that the Garden's"),
        (written("task: [\n"), [], "params.yaml: is no YAML of plain values"),
        (written("task: !!python/object/apply:os.getcwd []"), [], "params.yaml: is no YAML of plain values"),
        (written("nothing"), [], "params.yaml: expected a configuration of the Model Garden"),
        (without("ckpt-*"), [], "no checkpoint ckpt-*.index in it"),
        (without("ckpt-*.data*"), [], "ckpt-2.data-*: no such file"),
        (silent, ["--checkpoint", "ckpt-3"], "no checkpoint 'ckpt-3': expected one of ckpt-1, ckpt-2"),
        (silent, ["--views", "3x2"], "--views '3x2': expected CLIPSxCROPS"),
        (
            silent,
            ["--strategy", "multi_worker_mirrored", "--worker-hosts", "a:1,b:1", "--task-index", "0"],
            "one process",
        ),
        (silent, ["--replicas", "3"], "batch 4 cannot have been split over 3 replicas"),
        (silent, ["--data", "/nowhere"], "/nowhere/manifest.json: no such file"),
        (shutil.rmtree, [], "no such folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(copied, trained, tmp_path, damage, words, message):
    damage(copied)
    result = call(copied, "--data", trained.data.folder, *words, "--results", tmp_path / "results")
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert not (tmp_path / "results" / "runs").exists()


@pytest.mark.parametrize("depth", [50, 350])
def test_a_folder_of_the_gardens_own_depth_is_of_the_papers_profile(depth, tmp_path):
    run = experiment.complete(Cell((DEPTH.at(50),)), PAPER, DatasetInfo("k400", 400, 8, 8, "ab" * 32), replicas=1)
    run = dataclasses.replace(run, settings={**run.settings, garden_folder.DEPTH: depth})
    config = garden_export.configuration(run, garden_export.Target(Devices(), 0, tmp_path, None))
    found = garden_folder.GardenFolder(tmp_path, config, tmp_path / "ckpt-9", "", "")
    assert garden_folder.profile_of(found, PROFILES.values()) is PAPER
    taken = garden_folder.run_of(found, PAPER, run.data)
    assert garden_folder.stages(taken.settings) == garden_folder.SHIPPED[depth]
    garden_config.build(taken.settings, taken.bookkeeping)
