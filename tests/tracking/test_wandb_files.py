"""W&B's files are read back: all of a run, what a kill left of it, and nothing from outside the folder."""

import json
import shutil
import struct
import zlib

import pytest

from harness.store.records import RecordError
from harness.tracking import wandb, wandb_files
from tests.support import mirrored

BLOCK = 32_768
NAN = {"split": "train", "step": 5, "loss": float("nan"), "top1": float("inf")}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with a study of two runs, mirrored offline; the first run was interrupted after two steps."""
    results = tmp_path_factory.mktemp("mirrored") / "results"
    one, other = mirrored.write(results, 0, "1x1@32"), mirrored.write(results, 1)
    _mirror(results, [mirrored.begins(one.id), *mirrored.points(one.id, mirrored.curve((1, 2), offset=9.0))])
    again = [mirrored.begins(one.id, 1), *mirrored.points(one.id, mirrored.curve((2, 3, 4)))]
    again += [*mirrored.points(one.id, [NAN]), mirrored.recorded(results, one)]
    _mirror(results, [*again, *mirrored.whole(results, other), mirrored.study(results)])
    return results


def _mirror(results, events):
    tracker = wandb.tracker("offline", results)
    for event in events:
        tracker.write(event)
    assert tracker.close() == []


def run_of(results, seed):
    return wandb_files.merged(wandb_files.read_runs(results))[mirrored.run_id(seed)]


def test_settings_metrics_and_cost_are_read_back(results):
    run, record = run_of(results, 1), mirrored.record_in(results, 1)
    assert (run.group, run.job_type, run.name) == ("table2-quick", "row 3", "row 3: ls sd")
    assert set(run.tags) == {"ls", "sd"}
    assert run.config == mirrored.SETTINGS
    assert list(run.points) == sorted(record.curve, key=lambda point: (point["step"], point["split"]))
    costs = {name.removeprefix("cost/"): value for name, value in run.summary.items() if name.startswith("cost/")}
    assert costs == record.cost
    evaluation = record.evaluations["10x3@32"]
    assert [run.summary[f"10x3@32/{name}"] for name in ("top1", "top5", "loss", "videos")] == [
        evaluation.top1,
        evaluation.top5,
        evaluation.loss,
        evaluation.videos,
    ]
    assert (run.summary["state"], run.exit_code, run.damaged) == ("done", 0, False)


def test_the_artifact_holds_the_files_of_the_record(results):
    record = mirrored.record_in(results, 0)
    (artifact,) = run_of(results, 0).artifacts
    folder = results / "runs" / record.id
    predictions = {f"attempts/0/predictions-{protocol}.parquet" for protocol in ("10x3@32", "1x1@32")}
    names = {"record.json", "evaluation-1x1@32.json", *predictions}
    assert (artifact.name, artifact.type, set(artifact.files)) == (f"run-{record.id}", "run-record", names)
    assert (artifact.metadata["identity"], artifact.metadata["group"]) == (record.identity, "table2-quick")
    assert set(artifact.metadata["sha256"]) == names
    assert all(path.read_bytes() == (folder / name).read_bytes() for name, path in artifact.files.items())


def test_the_table_is_read_back(results):
    study = wandb_files.merged(wandb_files.read_runs(results))[wandb.study_run("table2-quick")]
    assert (study.job_type, study.name, study.group) == ("study", "Table 2", "table2-quick")
    assert wandb_files.table(study.tables["table"]) == (["row", "top-1"], [["1: base", 61.5], ["3: ls", None]])
    assert [set(one.files) for one in study.artifacts if one.type == "study"] == [{"table2-quick.md"}]


def test_two_attempts_are_one_run(results):
    attempts = [one for one in wandb_files.read_runs(results) if one.run == mirrored.run_id(0)]
    assert [[point["step"] for point in one.points] for one in attempts] == [[1, 2, 2], [2, 2, 3, 4, 4, 5]]
    assert [one.exit_code for one in attempts] == [1, 0]
    (run,) = wandb_files.merged(attempts).values()
    first, *others = mirrored.curve((1, 2, 3, 4))
    expected = [first | {"loss": 9.0 + first["loss"]}, *others, NAN]
    expected.sort(key=lambda point: (point["step"], point["split"]))
    assert all(map(mirrored.equal, run.points, expected))
    assert len(run.points) == len(expected)
    assert run.summary["resumed_at"] == 1


def test_a_moved_folder_reads_the_same(results, tmp_path):
    here = wandb_files.read_runs(results)
    shutil.copytree(results / "wandb", tmp_path / "else" / "where", symlinks=True)
    there = wandb_files.read_runs(tmp_path / "else")
    assert [one.run for one in there] == [one.run for one in here]
    assert [one.points for one in there[-2:]] == [one.points for one in here[-2:]]
    for mine, theirs in zip(here, there, strict=True):
        for before, after in zip(mine.artifacts, theirs.artifacts, strict=True):
            assert {name: path.read_bytes() for name, path in before.files.items()} == {
                name: path.read_bytes() for name, path in after.files.items()
            }
            assert all(path.is_relative_to(tmp_path) for path in after.files.values())


def test_copies_are_not_sought_outside_the_folder(results):
    alone = next(one for one in wandb_files.read_runs(results) if one.artifacts).path.parent
    (run,) = wandb_files.read_runs(alone)
    assert set(run.artifacts[0].files.values()) == {None}


def test_a_kill_at_any_byte_leaves_all_that_came_before(results, tmp_path):
    whole = next(one for one in wandb_files.read_runs(results) if one.run == mirrored.run_id(1))
    content = whole.path.read_bytes()
    path = tmp_path / "run.wandb"
    seen = []
    for length in range(0, len(content), 41):
        path.write_bytes(content[:length])
        run = wandb_files.read_file(path, tmp_path)
        points = run.points if run else ()
        assert points == whole.points[: len(points)]
        seen.append(len(points))
    assert seen == sorted(seen)
    assert seen[-1] == len(whole.points)


def test_damage_costs_the_rest_of_its_block(tmp_path):
    messages = [_message(step) for step in range(2000)]
    content = bytearray(_file([_begun(), *messages]))
    assert len(content) > 4 * BLOCK
    path = tmp_path / "run.wandb"
    path.write_bytes(content)
    run = wandb_files.read_file(path, tmp_path)
    assert [point["step"] for point in run.points] == list(range(2000))
    assert not run.damaged
    content[BLOCK + 500] ^= 1
    path.write_bytes(content)
    damaged = wandb_files.read_file(path, tmp_path)
    assert damaged.damaged
    steps = [point["step"] for point in damaged.points]
    lost = sorted(set(range(2000)) - set(steps))
    assert steps == sorted(steps)
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert len(lost) * len(messages[0]) < 1.2 * BLOCK


def test_a_message_longer_than_a_block_is_read(tmp_path):
    path = tmp_path / "run.wandb"
    path.write_bytes(_file([_begun(), _message(1, "x" * 3 * BLOCK), _message(2)]))
    run = wandb_files.read_file(path, tmp_path)
    assert [point["step"] for point in run.points] == [1, 2]
    assert len(run.points[0]["note"]) == 3 * BLOCK


@pytest.mark.parametrize("content", [b":W&B\xe1\xbe\x09 of another version", b"not a file of W&B's at all"])
def test_another_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "run.wandb"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"run\.wandb: not a file of W&B's"):
        wandb_files.read_runs(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecordError, match="nowhere: no such folder"):
        wandb_files.read_runs(tmp_path / "nowhere")


@pytest.mark.parametrize("staged", ["/../../secret", "/a/../../../secret", "/link"])
def test_a_path_in_a_file_cannot_leave_the_folder(tmp_path, staged):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    record = _records().Record()
    record.artifact.name = "run-0"
    record.artifact.manifest.contents.add(path="record.json", local_path=staged)
    path = folder / "run.wandb"
    path.write_bytes(_file([_begun(), record.SerializeToString()]))
    assert wandb_files.read_file(path, folder).artifacts[0].files == {"record.json": None}


def _records():
    from wandb.proto import wandb_internal_pb2

    return wandb_internal_pb2


def _begun():
    record = _records().Record()
    record.run.run_id = "0" * 16
    return record.SerializeToString()


def _message(step, note="x" * 60):
    record = _records().Record()
    for key, value in {"step": step, "train/note": note}.items():
        record.history.item.add(key=key, value_json=json.dumps(value))
    return record.SerializeToString()


def _file(messages):
    """The bytes of a `.wandb` file, written after the format's description."""
    content = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
    for message in messages:
        rest, first = message, True
        while rest or first:
            room = BLOCK - len(content) % BLOCK
            if room < 7:
                content += bytes(room)
                room = BLOCK
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (1 if first else 4) if not rest else (2 if first else 3)
            content += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return content
