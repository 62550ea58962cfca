"""Records come back from W&B as they were, byte for byte, or not at all."""

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from harness import import_wandb
from harness.import_wandb import Bundle, Outcome
from harness.store.records import RecordError
from harness.store.run_store import Store
from harness.tracking import wandb, wandb_files
from tests.support import mirrored
from tests.support.wandb_server import Server


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A results folder of two runs, one of them evaluated twice, and its mirror, which was moved elsewhere."""
    folder = tmp_path_factory.mktemp("mirror")
    results = folder / "results"
    found = [mirrored.write(results, 0, "1x1@32"), mirrored.write(results, 1)]
    tracker = wandb.tracker("offline", results)
    for record in found:
        for event in mirrored.whole(results, record):
            tracker.write(event)
    assert tracker.close() == []
    (results / "wandb").rename(folder / "moved")
    for run in results.glob("runs/*"):
        (run / wandb.MIRRORED).unlink()
    return results, folder / "moved"


@pytest.fixture
def copied(mirror, tmp_path):
    """The results folder, and a copy of the mirror to damage."""
    shutil.copytree(mirror[1], tmp_path / "copied", symlinks=True)
    return mirror[0], tmp_path / "copied"


def call(*words):
    return CliRunner().invoke(import_wandb.main, [str(word) for word in words])


def staged(folder, run, name):
    """W&B's copy of a file of a run."""
    artifacts = wandb_files.merged(wandb_files.read_runs(folder))[run].artifacts
    return artifacts[-1].files[name]


def change(path, content):
    path.chmod(0o644)
    path.write_bytes(content)


def test_records_come_back_byte_for_byte(mirror, tmp_path):
    results, folder = mirror
    done = call(folder, "--results", tmp_path)
    assert done.exit_code == 0, done.output
    assert mirrored.contents(tmp_path / "runs") == mirrored.contents(results / "runs")
    assert "Imported: 2 (" in done.output
    assert all(run in done.output for run in Store(results).ids())
    assert list(Store(tmp_path).checked(mirrored.run_id(0)).evaluations) == ["10x3@32", "1x1@32"]


def test_what_is_there_already_stays(mirror, tmp_path):
    call(mirror[1], "--results", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    done = call(mirror[1], "--results", tmp_path)
    assert done.exit_code == 0
    assert "Imported: 0\nAlready there: 2 (" in done.output
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_evaluation_that_is_missing_is_added(mirror, tmp_path):
    call(mirror[1], "--results", tmp_path)
    (Store(tmp_path).folder(mirrored.run_id(0)) / "evaluation-1x1@32.json").unlink()
    done = call(mirror[1], "--results", tmp_path)
    assert f"Imported: 1 ({mirrored.run_id(0)})" in done.output
    assert mirrored.contents(tmp_path / "runs") == mirrored.contents(mirror[0] / "runs")


def test_another_record_is_refused_by_name_and_kept(mirror, tmp_path):
    run = Store(tmp_path).folder(mirrored.run_id(1))
    run.mkdir(parents=True)
    (run / "record.json").write_text("{}")
    done = call(mirror[1], "--results", tmp_path)
    assert done.exit_code == 1
    assert f"REFUSED {run / 'record.json'}: is there already with other content" in done.output
    assert mirrored.contents(run) == {"record.json": b"{}"}
    assert "Imported: 1 (" in done.output


def test_what_an_interrupted_run_left_is_replaced(mirror, tmp_path):
    run = Store(tmp_path).folder(mirrored.run_id(1))
    (run / "attempts/0").mkdir(parents=True)
    (run / "attempts/0/predictions-10x3@32.parquet").write_text("of another time")
    assert call(mirror[1], "--results", tmp_path).exit_code == 0
    Store(tmp_path).checked(mirrored.run_id(1))


@pytest.mark.parametrize("name", ["record.json", "attempts/0/predictions-10x3@32.parquet", "evaluation-1x1@32.json"])
def test_a_changed_file_is_refused_and_the_others_go_on(copied, tmp_path, name):
    folder = copied[1]
    path = staged(folder, mirrored.run_id(0), name)
    change(path, path.read_bytes() + b" ")
    done = call(folder, "--results", tmp_path / "back")
    assert done.exit_code == 1
    assert f"REFUSED run-{mirrored.run_id(0)}: {name}: changed since it was mirrored" in done.output
    assert Store(tmp_path / "back").ids() == [mirrored.run_id(1)]
    assert not Store(tmp_path / "back").folder(mirrored.run_id(0)).exists()


def test_a_missing_copy_is_refused(copied, tmp_path):
    staged(copied[1], mirrored.run_id(1), "record.json").unlink()
    done = call(copied[1], "--results", tmp_path / "back")
    assert done.exit_code == 1
    assert "record.json: W&B's copy of it is not in the folder" in done.output
    assert Store(tmp_path / "back").ids() == [mirrored.run_id(0)]


def test_a_file_that_is_not_of_wandb_is_refused_and_the_others_go_on(copied, tmp_path):
    (copied[1] / "other").mkdir()
    (copied[1] / "other" / "run.wandb").write_text("something else")
    done = call(copied[1], "--results", tmp_path / "back")
    assert done.exit_code == 1
    assert "run.wandb: not a file of W&B's" in done.output
    assert "Imported: 2 (" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected either FOLDER or --project"),
        (["{folder}", "--project", "us/p"], "expected either FOLDER or --project"),
        (["{folder}/nowhere"], "nowhere: no such folder"),
        (["{folder}/data"], "data: no record of a run in it"),
        (["{folder}", "--group", "table3"], "group 'table3': {folder} has records of table2-quick"),
    ],
)
def test_mistakes_are_one_line(mirror, tmp_path, words, message):
    folder = str(mirror[1])
    done = call(*(word.format(folder=folder) for word in words), "--results", tmp_path)
    assert done.exit_code == 2
    assert message.format(folder=folder) in " ".join(done.output.split())


def test_a_group_is_chosen(mirror, tmp_path):
    done = call(mirror[1], "--results", tmp_path, "--group", "table2-quick")
    assert done.exit_code == 0
    assert len(Store(tmp_path).ids()) == 2


def bundle(results, seed=0, metadata=None, **changed):
    """A run's files as an artifact; those named are changed, or removed where None."""
    run = Store(results).folder(mirrored.run_id(seed))
    contents = {name: content for name, content in (mirrored.contents(run) | changed).items() if content is not None}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    about = {"identity": json.loads((run / "record.json").read_text())["identity"], "sha256": hashes}
    return Bundle("run-x", about | (metadata or {}), tuple(contents), contents.__getitem__)


def sealed(results, **changed):
    """A record that says something else, and whose own hash holds."""
    from harness.store import records

    return json.dumps(records.to_json(dataclasses.replace(mirrored.record_in(results, 1), **changed))).encode()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"record.json": None}, "run-x: its files are not those whose hashes it names"),
        ({"../record.json": b"{}"}, r"run-x: '../record.json': no file of a record has such a name"),
        ({"checkpoint": b""}, "run-x: 'checkpoint': no file of a record has such a name"),
        ({"record.json": b"{"}, "run-x: record.json: not JSON"),
        ({"record.json": b'{"schema": 0}'}, "run-x: record.json: schema 0"),
        ({"attempts/0/predictions-10x3@32.parquet": None}, "parquet: missing, though the record names it"),
        ({"attempts/0/predictions-10x3@32.parquet": b"x"}, "not the predictions that the record names"),
        ({"evaluation-1x1@32.json": b"[]"}, "evaluation-1x1@32.json: expected a JSON object"),
    ],
)
def test_damage_that_its_hashes_do_not_show_is_refused(mirror, changed, message):
    with pytest.raises(RecordError, match=message):
        import_wandb.checked(bundle(mirror[0], 1, **changed))


def test_hashes_that_are_not_named_are_missed(mirror):
    with pytest.raises(RecordError, match="its files are not those whose hashes it names"):
        import_wandb.checked(bundle(mirror[0], metadata={"sha256": {}}))


def test_an_artifact_of_another_run_is_refused(mirror):
    with pytest.raises(RecordError, match="not of the run that the artifact names"):
        import_wandb.checked(bundle(mirror[0], metadata={"identity": "0" * 64}))


def test_settings_that_are_not_its_identity_s_are_refused(mirror):
    content = sealed(mirror[0], settings=mirrored.SETTINGS | {"trainer.train_steps": 5})
    with pytest.raises(RecordError, match=r"its settings are not those that its identity .* is the hash of"):
        import_wandb.checked(bundle(mirror[0], 1, **{"record.json": content}))


def test_an_evaluation_of_another_run_is_refused(mirror):
    other = mirrored.contents(Store(mirror[0]).folder(mirrored.run_id(0)))["evaluation-1x1@32.json"]
    with pytest.raises(RecordError, match=f"belongs to run {mirrored.run_id(0)}, expected {mirrored.run_id(1)}"):
        import_wandb.checked(bundle(mirror[0], 1, **{"evaluation-1x1@32.json": other}))


class Api:
    """Answers as W&B's `Api` does, from the files of runs."""

    def __init__(self, bundles, broken=()):
        self.bundles, self.broken = bundles, broken
        self.downloads = []

    def artifact_type(self, type_name, project):
        assert type_name == "run-record"
        if project != "us/r3d-ablations":
            raise ValueError(f"Could not find project\n{project}")
        names = [SimpleNamespace(name=name) for name in (*self.bundles, *self.broken)]
        return SimpleNamespace(collections=lambda: names)

    def artifact(self, name, type):
        project, _, name = name.removesuffix(":latest").rpartition("/")
        assert (project, type) == ("us/r3d-ablations", "run-record")
        if name in self.broken:
            raise ConnectionError("500")
        found = self.bundles[name]

        def download(root, skip_cache):
            self.downloads.append(name)
            for file in found.names:
                (Path(root) / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(root) / file).write_bytes(found.content(file))
            return root

        entries = dict.fromkeys(found.names)
        return SimpleNamespace(
            metadata=found.metadata, manifest=SimpleNamespace(entries=entries), download=download, name=name
        )


@pytest.fixture
def fetched(mirror, tmp_path, monkeypatch):
    """Imports from an `Api` that is made of the given bundles; what the command said."""

    def fetch(api, *words):
        monkeypatch.setattr(import_wandb, "_api", lambda folder: api)
        return call("--project", "us/r3d-ablations", "--results", tmp_path, *words)

    return fetch


def both(results):
    about = {"group": "table2-quick"}
    return {f"run-{mirrored.run_id(seed)}": bundle(results, seed, about) for seed in (0, 1)}


def test_records_come_back_from_the_api(mirror, tmp_path, fetched):
    api = Api(both(mirror[0]))
    done = fetched(api)
    assert done.exit_code == 0, done.output
    assert mirrored.contents(tmp_path / "runs") == mirrored.contents(mirror[0] / "runs")
    assert len(api.downloads) == 2
    assert "Already there: 2 (" in fetched(api).output


def test_records_come_back_from_a_server(mirror, tmp_path):
    with Server() as server:
        for name, one in both(mirror[0]).items():
            contents = {file: one.content(file) for file in one.names}
            server.artifacts[name] = SimpleNamespace(metadata=one.metadata, files=contents)
        damaged = server.artifacts[f"run-{mirrored.run_id(1)}"].files
        damaged["record.json"] = damaged["record.json"].replace(b"quick", b"paper")
        done = _from(server, tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"Imported: 1 ({mirrored.run_id(0)})" in done.stdout
    assert f"REFUSED run-{mirrored.run_id(1)}: record.json: changed since it was mirrored" in done.stderr
    run = Store(tmp_path / "back").folder(mirrored.run_id(0))
    assert mirrored.contents(run) == mirrored.contents(Store(mirror[0]).folder(run.name))
    assert mirrored.contents(tmp_path / "home") == {}
    assert {path.name for path in tmp_path.iterdir()} == {"back", "home"}


def _from(server, tmp_path):
    """Imports in a process of its own: W&B keeps who is logged in where."""
    (tmp_path / "home").mkdir()
    login = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path / "home")}
    words = ["--project", "us/r3d-ablations", "--results", str(tmp_path / "back")]
    return subprocess.run(
        [sys.executable, "-m", "harness.import_wandb", *words],
        cwd=tmp_path,
        env=os.environ | login,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_artifact_that_cannot_be_read_is_one_line(mirror, tmp_path, fetched):
    done = fetched(Api(both(mirror[0]), broken=["run-lost"]))
    assert done.exit_code == 1
    assert "REFUSED run-lost: cannot be read from W&B: ConnectionError: 500" in done.output
    assert len(Store(tmp_path).ids()) == 2


def test_nothing_is_downloaded_under_a_strange_name(mirror, fetched):
    api = Api({"run-x": bundle(mirror[0], 0, {"group": "g"}, **{"../../evil": b"x"})})
    done = fetched(api)
    assert done.exit_code == 1
    assert "'../../evil': no file of a record has such a name" in done.output
    assert api.downloads == []


def test_a_project_that_is_not_there_is_one_line(mirror, tmp_path):
    with pytest.raises(RecordError, match="us/other: cannot be read from W&B: ValueError: Could not find project us/"):
        import_wandb.of_project(Api({}), "us/other", tmp_path, Outcome())


def test_help_is_quick():
    before = _seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-m", "harness.import_wandb", "--help"], capture_output=True, text=True, check=True
    )
    assert _seconds_of_children() - before < 0.5
    assert "python -m harness.import_wandb" in done.stdout


def _seconds_of_children():
    """Seconds that processors have spent on processes which ended; what else they do takes none of them."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
