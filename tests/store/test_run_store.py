"""Records and their files: whole or not at all, written once, damage named."""

import dataclasses
import json

import pandas as pd
import pytest

from harness.config.experiment import content_hash
from harness.store import records, run_store
from harness.store.records import RecordError
from harness.store.run_store import Store
from tests.support.made_up import IDENTITY, evaluation, record


@pytest.fixture
def runs(tmp_path):
    return Store(tmp_path)


def test_a_record_reads_back_equal(runs):
    written = record()
    runs.write(written)
    assert runs.read(written.id) == written
    assert runs.ids() == [written.id]
    assert [path.name for path in runs.folder(written.id).iterdir()] == ["record.json"]


def test_a_record_is_written_once(runs):
    runs.write(record())
    with pytest.raises(run_store.AlreadyThereError):
        runs.write(dataclasses.replace(record(), seed=1))
    assert runs.read(IDENTITY[:16]).seed == 0
    assert len(list(runs.folder(IDENTITY[:16]).iterdir())) == 1


def test_a_failed_write_leaves_nothing(runs):
    with pytest.raises(ValueError, match="JSON"):
        runs.write(dataclasses.replace(record(), cost={"params": float("nan")}))
    assert runs.ids() == []
    assert not any(runs.runs.rglob("*.part"))


def test_predictions_are_held_against_their_hash(runs):
    table = pd.DataFrame({"media_id": ["a"], "label": [1], "top_class": [[1, 0]], "top_probability": [[0.9, 0.1]]})
    name, sha256 = runs.write_predictions(IDENTITY[:16], "10x3@32", table, attempt=4)
    kept = record(IDENTITY, evaluation(predictions=name, predictions_sha256=sha256))
    runs.write(kept)
    assert list(runs.predictions(kept, "10x3@32")["top_class"][0]) == [1, 0]
    assert name == "attempts/4/predictions-10x3@32.parquet"
    path = runs.folder(kept.id) / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RecordError, match="changed since the record was written"):
        runs.predictions(kept, "10x3@32")
    path.unlink()
    with pytest.raises(RecordError, match="missing, though the record names it"):
        runs.predictions(kept, "10x3@32")
    with pytest.raises(RecordError, match="not evaluated under 1x1@32, only under 10x3@32"):
        runs.predictions(kept, "1x1@32")


@pytest.mark.parametrize(
    "name",
    ["../../secret.parquet", "/etc/secret.parquet", "..", ".", "", "attempts/../secret", "attempts/1/../../secret",
     "attempts/x/secret", "attempts/1/2/secret", "other/secret"],
)  # fmt: skip
def test_a_name_in_a_record_cannot_leave_the_runs_folder(runs, tmp_path, name):
    (tmp_path / "secret.parquet").write_bytes(b"x")
    kept = record(IDENTITY, evaluation(predictions=name))
    kept = dataclasses.replace(kept, settings={"trainer.train_steps": 9}, provenance={"weights": name})
    runs.write(kept)
    with pytest.raises(RecordError, match=r"runs/0123456789abcdef/record.json: names a file .*: expected one") as error:
        runs.predictions(kept, "10x3@32")
    assert "\n" not in str(error.value)
    with pytest.raises(RecordError, match="names a file"):
        runs.weights(kept)


def test_weights_are_where_the_record_says_or_where_they_used_to_be(runs):
    old = dataclasses.replace(record(), settings={"trainer.train_steps": 9})
    assert runs.weights(old) == runs.folder(old.id).absolute() / "checkpoints" / "weights-9"
    new = dataclasses.replace(old, provenance={"weights": "attempts/4/checkpoints/weights-9"})
    assert runs.weights(new) == runs.folder(old.id).absolute() / "attempts/4/checkpoints/weights-9"


def test_predictions_beside_the_record_are_read(runs):
    name, sha256 = runs.write_predictions(IDENTITY[:16], "10x3@32", pd.DataFrame({"media_id": ["a"]}))
    folder = runs.folder(IDENTITY[:16])
    (folder / name).rename(folder / "predictions-10x3@32.parquet")
    kept = record(IDENTITY, evaluation(predictions_sha256=sha256))
    assert list(runs.predictions(kept, "10x3@32")["media_id"]) == ["a"]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"attempt": 3}, {"attempt": 5}, "attempt 3 recorded the run already, attempt 5 would write it too"),
        ({}, {"attempt": 5}, "another process recorded the run already, attempt 5 would write it too"),
        ({}, {}, "another process recorded the run already, this one would write it too"),
    ],
)
def test_two_writers_of_a_record_are_named(runs, first, second, said):
    path = runs.write(dataclasses.replace(record(), provenance=first))
    with pytest.raises(run_store.AlreadyThereError) as error:
        runs.write(dataclasses.replace(record(), provenance=second))
    assert str(error.value) == f"{path}: {said}"


def test_a_damaged_record_is_not_written_over(runs):
    path = runs.write(record())
    path.write_text("{")
    with pytest.raises(run_store.AlreadyThereError, match="another process recorded"):
        runs.write(record())
    assert path.read_text() == "{"


def test_two_writers_of_an_evaluation_are_named(runs):
    path = runs.write(record()).with_name("evaluation-1x1@32.json")
    one, other = (evaluation("1x1@32", predictions=f"attempts/{n}/predictions-1x1@32.parquet") for n in (3, 5))
    assert runs.write_evaluation(record(), one) == path
    with pytest.raises(run_store.AlreadyThereError) as error:
        runs.write_evaluation(record(), other)
    assert str(error.value) == f"{path}: attempt 3 evaluated the run already, attempt 5 would write it too"


def damage(content, change, seal=True):
    """A record changed by hand, by someone who knows of its hash."""
    loaded = json.loads(content)
    change(loaded)
    if seal:
        loaded["sha256"] = content_hash({key: loaded[key] for key in loaded if key not in ("schema", "sha256")})
    return json.dumps(loaded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged, not JSON"),
        (lambda text: "[]", "expected a JSON object"),
        (lambda text: damage(text, lambda r: r.update(schema=99)), "schema 99: this version of the harness reads 2"),
        (
            lambda text: damage(text, lambda r: r.update(seed=1), seal=False),
            "changed since it was written, its sha256 does not hold",
        ),
        (lambda text: damage(text, lambda r: r.pop("seed")), "field 'seed' is missing"),
        (lambda text: damage(text, lambda r: r.update(extra=1)), "unknown field 'extra'"),
        (lambda text: damage(text, lambda r: r.update(identity="x")), "identity 'x': expected 64 hexadecimal digits"),
        (lambda text: damage(text, lambda r: r.update(identity="f" * 64)), "is the record of run ffffffffffffffff"),
        (lambda text: damage(text, lambda r: r.update(settings=[])), "settings: expected a mapping"),
        (lambda text: damage(text, lambda r: r["evaluations"]["10x3@32"].pop("top1")), "field 'top1' is missing"),
    ],
)
def test_damaged_records_are_named(runs, change, message):
    path = runs.write(record())
    path.write_text(change(path.read_text()))
    with pytest.raises(RecordError) as error:
        runs.read(IDENTITY[:16])
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_find_takes_an_unambiguous_beginning(runs):
    runs.write(record("aa11" * 16))
    runs.write(record("aa22" * 16))
    assert runs.find("AA1").identity == "aa11" * 16
    with pytest.raises(RecordError, match="begins 2 ids"):
        runs.find("aa")
    with pytest.raises(RecordError, match="no record under"):
        runs.find("bb")


def test_frame_has_a_line_for_each_protocol():
    frame = run_store.frame([record(IDENTITY, evaluation(), evaluation("1x1@32", top1=0.25))])
    assert list(frame["top1"]) == [0.5, 0.25]
    assert list(frame["multiply_adds"]) == [20, 20]
    assert list(frame["replicas"]) == [2, 2]
    assert list(run_store.frame([]).columns) == run_store.FRAME


def test_a_later_evaluation_of_another_run_is_refused(runs):
    path = runs.write(record())
    content = records.evaluation_to_json("f" * 64, evaluation("1x1@32"))
    path.with_name("evaluation-1x1@32.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match="belongs to run ffffffffffffffff"):
        runs.read(IDENTITY[:16])


def test_a_second_process_is_kept_out_while_the_first_imports(runs):
    with runs.locked(), pytest.raises(RecordError, match="another process is importing into it"), runs.locked():
        pass
    with runs.locked():
        pass
