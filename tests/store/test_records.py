"""Records of every schema, one of which is kept for ever, are read; what can't be understood is refused by its name."""

import dataclasses
import json
from pathlib import Path

import pytest

from harness.config.experiment import content_hash
from harness.store import records
from harness.store.records import FIRST_SCHEMA, SCHEMA, Evaluation, RecordError, RunRecord

KEPT = Path(__file__).parent / "records"
# Typed from the files, which no later version may change.
EXPECTED = {
    2: {
        "identity": "b7c1fb5855bfc749b2cc6282cdcaf89234630390c460dee1b3c4d86d6ac748f7",
        "profile": "quick",
        "toggles": {},
        "seed": 0,
        "cut": {},
        "parent": None,
        "cost": {
            "params": 448264,
            "multiply_adds": 55285760,
            "train_steps": 256,
            "train_multiply_adds": 535906222080,
            "train_seconds": 30.769,
        },
    }
}
EVALUATED = {2: ("10x3@32", 240, 169 / 240)}


def kept(schema, name="record.json"):
    return json.loads((KEPT / f"schema-{schema}" / name).read_text())


def test_a_record_of_every_schema_is_kept():
    assert sorted(path.name for path in KEPT.iterdir()) == [f"schema-{n}" for n in range(FIRST_SCHEMA, SCHEMA + 1)]


@pytest.mark.parametrize("schema", range(FIRST_SCHEMA, SCHEMA + 1))
def test_a_record_of_any_schema_is_read_and_written_again_whole(schema):
    record = records.from_json(kept(schema), "record.json")
    found = {name: getattr(record, name) for name in EXPECTED[schema]}
    assert found == EXPECTED[schema]
    (evaluation,) = record.evaluations.values()
    assert (evaluation.protocol, evaluation.videos, evaluation.top1) == EVALUATED[schema]
    identity, further = records.evaluation_from_json(kept(schema, "evaluation-1x1@32.json"), "evaluation")
    assert identity == record.identity
    assert (further.protocol, further.top1, further.top5) == ("1x1@32", 0.5, 0.875)
    written = json.loads(json.dumps(records.to_json(record)))
    assert written["schema"] == SCHEMA
    assert records.from_json(written, "written") == record


def test_the_schema_is_that_of_the_newest_field():
    newest = [field.metadata.get("schema", 2) for kind in (RunRecord, Evaluation) for field in dataclasses.fields(kind)]
    assert max(newest) == SCHEMA


@dataclasses.dataclass(frozen=True)
class Grown:
    """A class of records that gained two fields."""

    top1: float
    notes: str = records._since(3, "")
    groups: tuple = records._since(4, ())


@pytest.mark.parametrize(
    ("schema", "content", "expected"),
    [
        (2, {"top1": 0.5}, Grown(0.5)),
        (3, {"top1": 0.5, "notes": "n"}, Grown(0.5, "n")),
        (4, {"top1": 0.5, "notes": "n", "groups": (1,)}, Grown(0.5, "n", (1,))),
        (2, {}, "f: field 'top1' is missing"),
        (3, {"top1": 0.5}, "f: field 'notes' is missing"),
        (2, {"top1": 0.5, "notes": "n"}, "f: unknown field 'notes'"),
        (4, {"top1": 0.5, "notes": "n", "groups": (), "more": 1}, "f: unknown field 'more'"),
        (2, [0.5], "f: expected a JSON object"),
    ],
)
def test_a_field_that_a_record_is_too_old_to_have_has_its_default(schema, content, expected):
    if isinstance(expected, str):
        with pytest.raises(RecordError) as refusal:
            records._complete(content, schema, Grown, "f")
        assert str(refusal.value) == expected
    else:
        assert Grown(**records._complete(content, schema, Grown, "f")) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schema": SCHEMA + 1},
            f"schema {SCHEMA + 1}: this version of the harness reads 2, a newer one",
        ),
        ({"schema": FIRST_SCHEMA - 1}, f"schema {FIRST_SCHEMA - 1}: this version of the harness reads {SCHEMA}"),
        ({"schema": None}, "schema None: this version"),
        ({"schema": "2"}, "schema '2': this version"),
        ({"schema": True}, "schema True: this version"),
        ({"seed": 5}, "changed since it was written, its sha256 does not hold"),
        ({"sha256": "0" * 64}, "changed since it was written, its sha256 does not hold"),
    ],
)
def test_a_record_that_is_not_understood_is_refused_by_its_name(changes, message):
    with pytest.raises(RecordError, match=r"^a/record.json: ") as refusal:
        records.from_json(kept(FIRST_SCHEMA) | changes, "a/record.json")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_further_evaluation_names_its_run():
    content = kept(FIRST_SCHEMA, "evaluation-1x1@32.json")
    fields = {name: value for name, value in content.items() if name not in ("schema", "sha256", "identity")}
    with pytest.raises(RecordError, match=r"^e: field 'identity' is missing$"):
        records.evaluation_from_json({"schema": FIRST_SCHEMA, "sha256": content_hash(fields), **fields}, "e")
