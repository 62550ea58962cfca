"""A run as the Model Garden's own trainer takes it: the Garden's own parsing is the judge."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from official.core import train_utils
from official.vision.modeling.backbones import resnet_3d

from ablations import datasets, table6
from ablations.profiles import PAPER, QUICK
from ablations.table2 import STUDY
from ablations.toggles import EMA
from harness.cli import synthetic
from harness.config import embedded_spec
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides, SettingsError, complete
from harness.config.studies import Cell
from harness.data import embedded
from harness.export import main
from harness.planning import workspace
from harness.planning.workspace import facts
from harness.store.run_store import Store
from harness.training import garden_config, garden_export, garden_folder
from harness.training.loop import RunContext
from tests.support.plain import leaves

KINETICS = DatasetInfo("kinetics400", 400, 215_570, 17_706, "ab" * 32)
DATA = Path("/data/k400")


def planned(number=1, profile=QUICK, replicas=1, **cut):
    return complete(STUDY.only([number]).rows[0].cell(0), profile, KINETICS, Overrides(**cut), replicas)


def target(devices=Devices(), gpus=None, parent=None):
    gpus = RunContext("", "", devices).bookkeeping()["runtime.num_gpus"] if gpus is None else gpus
    return garden_export.Target(devices, gpus, DATA, None, parent)


def parsed(text, tmp_path, tpu=None, objective=None):
    """What the Garden's `train.py` makes of the YAML."""
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    flags = train_utils.ParseConfigOptions(garden_export.TRAINERS[objective].experiment, [str(file)], tpu)
    return train_utils.parse_configuration(flags, print_return=False)


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("number", [1, 8, 10])
@pytest.mark.parametrize("profile", [QUICK, PAPER], ids=["quick", "paper"])
def test_the_gardens_parsing_gives_the_configuration_that_is_trained_here(profile, number, tmp_path):
    run = planned(number, profile)
    ours = garden_config.build(run.settings, {**run.bookkeeping, **RunContext(str(DATA), "").bookkeeping()})
    theirs = parsed(garden_export.yaml_of(run, target(), {}), tmp_path)
    assert leaves(theirs.as_dict()) == leaves(ours.as_dict())


@pytest.mark.parametrize("profile", [QUICK, PAPER], ids=["quick", "paper"])
def test_the_stages_of_self_supervision_are_parsed_too(profile, tmp_path):
    cell = table6.STUDY.rows[2].cell(0)
    first = complete(cell.before, profile, KINETICS)
    for run in (first, complete(cell, profile, KINETICS, parent=first)):
        ours = garden_config.build(run.settings, {**run.bookkeeping, **RunContext(str(DATA), "").bookkeeping()})
        theirs = parsed(garden_export.yaml_of(run, target(), {}), tmp_path, objective=run.settings["network.objective"])
        assert leaves(theirs.as_dict()) == leaves(ours.as_dict())


def test_every_kind_of_setting_survives(tmp_path):
    """Averaged weights, a parent and a TPU: sub-configurations that are absent from the Garden's own experiment."""
    run = dataclasses.replace(complete(Cell((EMA.at(),)), PAPER, KINETICS, replicas=8), parent="cd" * 32)
    devices = Devices("tpu", "local")
    place = RunContext(str(DATA), "", devices, "/runs/weights-7")
    ours = garden_config.build(run.settings, {**run.bookkeeping, **place.bookkeeping()})
    theirs = parsed(garden_export.yaml_of(run, target(devices, parent="/runs/weights-7"), {}), tmp_path, "local")
    assert leaves(theirs.as_dict()) == leaves(ours.as_dict())


def test_a_target_says_what_a_place_says():
    for devices in (Devices(), Devices("mirrored"), Devices("multi_worker_mirrored", None, ("a:1", "b:1"), 1)):
        assert target(devices).bookkeeping() == RunContext(str(DATA), "", devices).bookkeeping()


def test_the_shipped_networks_are_the_gardens():
    shipped = {
        depth: tuple((filters, blocks) for kind, filters, blocks in specs)
        for depth, specs in resnet_3d.RESNET_SPECS.items()
        if depth in garden_config._GARDENS_OWN
    }
    assert shipped == garden_folder.SHIPPED


@pytest.mark.parametrize("profile", [QUICK, PAPER], ids=["quick", "paper"])
def test_only_a_network_that_the_garden_does_not_ship_needs_a_trainer(profile, tmp_path):
    command = garden_export.write_export(planned(10, profile), target(), {}, tmp_path)
    trainer = tmp_path / "train.py"
    assert trainer.exists() == (profile is QUICK)
    assert command[1] == (str(trainer) if profile is QUICK else "-m")
    if profile is QUICK:
        assert 'RESNET_SPECS[23] = [\n    ("bottleneck3d", 16, 1),\n    ("bottleneck3d", 32, 2),' in trainer.read_text()


def test_a_tpu_is_named_on_the_command_line_too(tmp_path):
    assert "--tpu=local" in garden_export.write_export(planned(), target(Devices("tpu", "local"), 0), {}, tmp_path)


def test_the_shards_are_those_of_the_manifest(tmp_path):
    spec = embedded_spec.EmbeddedSpec(train_videos=9, validation_videos=9)
    manifest, folder = embedded.ensure(spec, tmp_path), embedded.folder(spec, tmp_path)
    own = dataclasses.replace(target(), data=folder, manifest=manifest)
    assert own.bookkeeping()["task.train_data.input_path"] == f"{folder}/train-*"
    shutil.copy(next(folder.glob("train-*")), folder / "train-of-another-set")
    listed = own.bookkeeping()["task.train_data.input_path"].split(",")
    assert listed == [f"{folder}/{shard.file}" for shard in manifest.splits["train"].shards]


def test_the_comments_say_what_differs():
    text = garden_export.yaml_of(planned(2, steps=3, validation_videos=5), target(), {"ls": 0.1})
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert comments[1] == "# Profile quick; ls=0.1; seed 0; data kinetics400 abababab"
    assert "# Cut: steps 3, validation videos 5; not the profile's own training." in comments
    assert "# - Validation takes all 17706 videos, not the first 5." in comments
    assert max(map(len, comments)) <= 120
    assert yaml.safe_load(text)["trainer"]["train_steps"] == 3
    assert "&id" not in text


@pytest.mark.parametrize(
    ("replicas", "devices", "given", "gpus"),
    [
        (1, Devices(), None, 0),
        (1, Devices(), 1, 1),
        (1, Devices("mirrored"), None, 0),
        (4, Devices("mirrored"), None, 4),
        (4, Devices("multi_worker_mirrored", None, ("a:1", "b:1")), None, 2),
        (2, Devices("multi_worker_mirrored", None, ("a:1", "b:1")), None, 0),
        (8, Devices("tpu", "local"), None, 0),
    ],
)
def test_gpus_share_the_batch_as_the_run_does(replicas, devices, given, gpus):
    assert garden_export.gpus_for(planned(replicas=replicas), devices, given) == gpus


@pytest.mark.parametrize(
    ("replicas", "devices", "given", "message"),
    [
        (2, Devices(), None, "splits its batch over 2 replicas, --strategy one_device here over 1"),
        (1, Devices(), 2, "--gpus 2: --strategy one_device uses one at most"),
        (2, Devices("mirrored"), 4, "splits its batch over 2 replicas, --strategy mirrored here over 4"),
        (3, Devices("multi_worker_mirrored", None, ("a:1", "b:1")), None, "over 3 replicas"),
    ],
)
def test_another_split_of_the_batch_is_refused(replicas, devices, given, message):
    run = complete(Cell(()), QUICK, KINETICS, Overrides(batch=12), replicas)
    with pytest.raises(SettingsError, match=message):
        garden_export.gpus_for(run, devices, given)


def test_a_row_of_the_papers_training_needs_no_data(tmp_path):
    result = call("row10", "--profile", "paper", "--tpu", "local", "--output", tmp_path / "out", "--results", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Put the folder of Kinetics-400 in place of DATA" in result.output
    assert "python -m official.vision.train --experiment=video_classification" in result.output
    assert "--tpu=local" in result.output
    written = yaml.safe_load((tmp_path / "out" / "experiment.yaml").read_text())
    assert written["task"]["train_data"]["input_path"] == "DATA/train-*"
    assert written["task"]["train_data"]["global_batch_size"] == 1024


@pytest.fixture
def stood_in(monkeypatch, tmp_path):
    """The embedded data set, drawn small."""
    small = embedded_spec.EmbeddedSpec(train_videos=9, validation_videos=9)
    monkeypatch.setitem(datasets.GENERATED, small.name, small)
    return embedded.ensure(small, tmp_path / "data")


def test_a_row_is_written_where_results_are(stood_in, tmp_path):
    result = call("row3", "--results", tmp_path, "--seed", 4)
    assert result.exit_code == 0, result.output
    run = complete(STUDY.only([3]).rows[0].cell(4), QUICK, facts(stood_in))
    folder = tmp_path / "export" / run.id
    assert f"{folder / 'train.py'} --experiment=video_classification" in " ".join(result.output.split())
    assert f"python -m harness.import_garden {folder / 'model'} --results {tmp_path}" in result.output
    assert yaml.safe_load((folder / "experiment.yaml").read_text())["task"]["train_data"]["seed"] == 4


def test_a_recorded_pre_training_is_exported_for_the_gardens_other_trainer(tmp_path, monkeypatch):
    small = embedded_spec.EmbeddedSpec("embedded-motion", train_videos=9, validation_videos=9, alike=True)
    monkeypatch.setitem(datasets.GENERATED, small.name, small)
    embedded.ensure(small, tmp_path / "data")
    made = workspace.data_set(small.name, QUICK, tmp_path)
    place = workspace.Workspace(QUICK, made, Overrides(), 1, Store(tmp_path), Devices())
    study = dataclasses.replace(table6.STUDY, rows=table6.STUDY.rows[1:2])
    first, _ = synthetic.write_synthetic(place, [study], 2)
    assert place.store.read(first).evaluations == {}
    result = call(first, "--results", tmp_path)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "--experiment=video_ssl_pretrain_kinetics400" in said
    assert "--mode=train " in said
    assert "import_garden" not in said, "which evaluates what was trained on classes"
    folder = tmp_path / "export" / first
    assert '"official.projects.video_ssl.train"' in (folder / "train.py").read_text()
    text = (folder / "experiment.yaml").read_text()
    assert "Negatives come from all replicas on a TPU only" in text
    assert "Validation is" not in text
    run = place.plan([study], [0]).runs[0].run
    place_ = RunContext(str(embedded.folder(small, tmp_path / "data")), "")
    ours = garden_config.build(run.settings, {**run.bookkeeping, **place_.bookkeeping()})
    assert leaves(parsed(text, tmp_path, objective="cvrl").as_dict()) == leaves(ours.as_dict())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["row11"], "row 11: table2 has rows 1 to 10"),
        (["abc"], "run 'abc': no record under"),
        (["abc", "--steps", "3"], "--steps: run 'abc' was trained already; the flag is for a row"),
        (["row1", "--profile", "papre"], "unknown profile 'papre'"),
        (["row1", "--profile", "paper", "--replicas", "8"], "splits its batch over 8 replicas"),
        (["row1", "--data", "/nowhere"], "/nowhere/manifest.json: no such file"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, message, tmp_path):
    result = call(*words, "--results", tmp_path)
    assert result.exit_code == 2
    assert result.output.strip().splitlines()[-1].startswith("Error: ")
    assert message in result.output.strip().splitlines()[-1]
