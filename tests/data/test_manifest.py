"""The manifest: what it accepts, what it refuses and in which words, and an identity that ignores sharding."""

import copy
import dataclasses
import json
import os
import random
import types
from pathlib import Path
from typing import Any

import pytest

from harness.data import manifest as manifests
from harness.data.manifest import Listed, Manifest, ManifestError, Shard, Split

FILES = {"train-0": b"abc", "train-1": b"defg", "validation-0": b"hi"}
GOOD = Manifest(
    name="toy",
    classes=("up", "down"),
    height=40,
    width=0,
    splits={
        "train": Split((Shard("train-0", 2, 3), Shard("train-1", 1, 4)), 10, 40, (2, 1)),
        "validation": Split((Shard("validation-0", 2, 2),), 10, 10, (1, 1)),
    },
    fingerprint="0123456789abcdef" * 4,
    source="made by hand",
)
# With all that a preparation knows besides.
PREPARED = dataclasses.replace(
    GOOD,
    splits={
        "train": dataclasses.replace(GOOD.splits["train"], frames=70, left_out=0, sources=Listed("s.csv", "ab" * 32)),
        "validation": GOOD.splits["validation"],
    },
    preparation={"fps": "25"},
)
MISSING = object()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with shards and a good manifest."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    manifests.save(GOOD, tmp_path)
    return tmp_path


def rewrite(folder: Path, keys: tuple[Any, ...], value: Any) -> None:
    """Put `value` at the given place of the manifest file, or take away what is there."""
    path = folder / manifests.FILE_NAME
    node = data = json.loads(path.read_text())
    for key in keys[:-1]:
        node = node[key]
    if value is MISSING:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value
    path.write_text(json.dumps(data))


def test_what_is_saved_is_loaded(folder: Path) -> None:
    assert manifests.load(folder) == GOOD
    assert GOOD.splits["train"].examples == 3


def test_what_only_a_preparation_knows_is_kept_and_may_lack(folder: Path) -> None:
    fields = json.loads((folder / manifests.FILE_NAME).read_text())
    assert "preparation" not in fields
    assert set(fields["splits"]["train"]) == {"shards", "frames_min", "frames_max", "histogram"}
    manifests.save(PREPARED, folder)
    assert manifests.load(folder) == PREPARED


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("preparation",), [], "preparation is a list of 0; expected an object of options"),
        (("preparation", "fps"), 25, "preparation['fps'] is 25; expected text"),
        (("splits", "train", "frames"), 0, "splits.train.frames is 0; expected a whole number of at least 1"),
        (("splits", "train", "left_out"), -1, "splits.train.left_out is -1; expected a whole number of at least 0"),
        (("splits", "train", "sources", "file"), "../s", "splits.train.sources.file is '../s'; expected a plain name"),
        (("splits", "train", "sources", "sha256"), "ab", "splits.train.sources.sha256 is 'ab'; expected 64 lower-case"),
    ],
)
def test_malformed_fields_of_a_preparation(folder: Path, keys: tuple[Any, ...], value: Any, message: str) -> None:
    manifests.save(PREPARED, folder)
    rewrite(folder, keys, value)
    with pytest.raises(ManifestError) as caught:
        manifests.load(folder)
    assert str(caught.value).startswith(f"{folder / manifests.FILE_NAME}: {message}")


def test_save_leaves_only_the_manifest(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, manifests.FILE_NAME])


def test_a_read_only_mapping_of_splits_can_be_saved(folder: Path) -> None:
    manifests.save(dataclasses.replace(GOOD, splits=types.MappingProxyType(dict(GOOD.splits))), folder)
    assert manifests.load(folder) == GOOD


def test_a_failed_save_keeps_the_old_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        manifests.save(dataclasses.replace(GOOD, name="other"), folder)
    assert manifests.load(folder) == GOOD
    assert not list(folder.glob(".*.tmp"))


def test_save_refuses_what_load_would_refuse(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: not written: fingerprint is 'abc'"):
        manifests.save(dataclasses.replace(GOOD, fingerprint="abc"), folder)
    assert manifests.load(folder) == GOOD


SHARD = ("splits", "train", "shards", 0)
MALFORMED = [
    (("schema",), 2, "schema is 2; expected 1"),
    (("schema",), "1", "schema is '1'; expected 1"),
    (("schema",), True, "schema is True; expected a whole number of at least 1"),
    (("schema",), MISSING, "the manifest lacks 'schema'; expected the keys schema, name, classes, "),
    (("source",), MISSING, "the manifest lacks 'source'; expected the keys schema, name, classes, "),
    (("extra\n",), 1, "the manifest has the unknown key 'extra\\n'; expected the keys schema, name, classes, "),
    (("name",), "", "name is ''; expected text"),
    (("name",), 3, "name is 3; expected text"),
    (("source",), None, "source is None; expected text"),
    (("classes",), [], "classes is a list of 0; expected a list of at least one"),
    (("classes",), "up", "classes is 'up'; expected a list of at least one"),
    (("classes",), ["up", 1], "classes[1] is 1; expected text"),
    (("classes",), ["up", "up"], "classes name 'up' twice; expected each once"),
    (("height",), -1, "height is -1; expected a whole number of at least 0"),
    (("width",), 1.5, "width is 1.5; expected a whole number of at least 0"),
    (("fingerprint",), "AB" * 32, f"fingerprint is '{'AB' * 28}...; expected 64 lower-case hexadecimal digits"),
    (("fingerprint",), "ab", "fingerprint is 'ab'; expected 64 lower-case hexadecimal digits"),
    (("splits",), [], "splits is a list of 0; expected an object"),
    (("splits", "validation"), MISSING, "splits lacks 'validation'; expected the keys train, validation"),
    (("splits", "test"), {}, "splits has the unknown key 'test'; expected the keys train, validation"),
    (("splits", "train"), None, "splits.train is None; expected an object"),
    (("splits", "train", "shards"), [], "splits.train.shards is a list of 0; expected a list of at least one"),
    (("splits", "train", "frames_min"), 0, "splits.train.frames_min is 0; expected a whole number of at least 1"),
    (("splits", "train", "frames_max"), 9, "splits.train.frames_max is 9; expected a whole number of at least 10"),
    (("splits", "train", "histogram"), [3], "splits.train.histogram has 1 counts; expected one for each of 2 classes"),
    (
        ("splits", "train", "histogram"),
        [2, 2],
        "splits.train.histogram adds up to 4; expected the 3 examples of its shards",
    ),
    (
        ("splits", "train", "histogram", 1),
        -1,
        "splits.train.histogram[1] is -1; expected a whole number of at least 0",
    ),
    (SHARD, 7, "splits.train.shards[0] is 7; expected an object"),
    ((*SHARD, "bytes"), MISSING, "splits.train.shards[0] lacks 'bytes'; expected the keys file, examples, bytes"),
    ((*SHARD, "examples"), 0, "splits.train.shards[0].examples is 0; expected a whole number of at least 1"),
    ((*SHARD, "file"), "../x", "splits.train.shards[0].file is '../x'; expected a plain name inside the folder"),
    ((*SHARD, "file"), "..", "splits.train.shards[0].file is '..'; expected a plain name inside the folder"),
    ((*SHARD, "file"), "/x", "splits.train.shards[0].file is '/x'; expected a plain name inside the folder"),
    ((*SHARD, "file"), "a/b", "splits.train.shards[0].file is 'a/b'; expected a plain name inside the folder"),
    ((*SHARD, "file"), "a\\b", "splits.train.shards[0].file is 'a\\\\b'; expected a plain name inside the folder"),
    ((*SHARD, "file"), "a\0", "splits.train.shards[0].file is 'a\\x00'; expected a plain name inside the folder"),
    ((*SHARD, "file"), "train-1", "shard files name 'train-1' twice; expected each once"),
    ((*SHARD, "file"), "validation-0", "shard files name 'validation-0' twice; expected each once"),
    ((*SHARD, "file"), "gone", "shard 'gone' is missing; expected 3 bytes"),
    ((*SHARD, "file"), "\ud800", "shard '\\ud800' is missing; expected 3 bytes"),
    ((*SHARD, "file"), "x" * 999, f"shard '{'x' * 56}... is missing; expected 3 bytes"),
    ((*SHARD, "bytes"), 4, "shard 'train-0' has 3 bytes; expected 4"),
]


@pytest.mark.parametrize(("keys", "value", "message"), MALFORMED)
def test_malformed_fields(folder: Path, keys: tuple[Any, ...], value: Any, message: str) -> None:
    rewrite(folder, keys, value)
    with pytest.raises(ManifestError) as caught:
        manifests.load(folder)
    assert str(caught.value).startswith(f"{folder / manifests.FILE_NAME}: {message}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON ('Expecting value: line 1 column 1 (char 0)'); expected an object"),
        (b'{"schema": 1', "is not JSON (\"Expecting ',' delimiter: line 1 column 13 (char 12)\"); expected an object"),
        (b"\xff\xfe", "is not UTF-8 text; expected JSON"),
        (b"[1]", "the manifest is a list of 1; expected an object"),
        (b"[" * 100_000, "is not JSON ("),
        (b'{"schema": 1, "schema": 1}', "keys of one object name 'schema' twice; expected each once"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "is not JSON ("),
    ],
)
def test_malformed_files(folder: Path, content: bytes, message: str) -> None:
    (folder / manifests.FILE_NAME).write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        manifests.load(folder)
    assert str(caught.value).startswith(f"{folder / manifests.FILE_NAME}: {message}")
    assert len(str(caught.value).splitlines()) == 1


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file; expected the manifest of a prepared data set"):
        manifests.load(tmp_path)
    (tmp_path / manifests.FILE_NAME).mkdir()
    with pytest.raises(ManifestError, match=r"cannot be read \(Is a directory\); expected a file"):
        manifests.load(tmp_path)


def test_shards_that_are_not_files_or_changed(folder: Path) -> None:
    (folder / "train-1").write_bytes(b"cut")
    with pytest.raises(ManifestError, match="shard 'train-1' has 3 bytes; expected 4"):
        manifests.load(folder)
    (folder / "train-1").unlink()
    (folder / "train-1").mkdir()
    with pytest.raises(ManifestError, match="shard 'train-1' is not a file; expected 4 bytes"):
        manifests.load(folder)


def places(node: Any, keys: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON tree, the root excepted."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = [place for key, child in children for place in places(child, (*keys, key))]
    return [keys, *found] if keys else found


def test_no_odd_value_anywhere_escapes_as_another_error(folder: Path) -> None:
    path = folder / manifests.FILE_NAME
    manifests.save(PREPARED, folder)
    good = json.loads(path.read_text())
    messages = []
    for keys in places(good):
        for value in (None, True, -1, 1.5, float("nan"), 10**30, "", "a\nb", [], {}, [[]], {"a": {}}, MISSING):
            path.write_text(json.dumps(copy.deepcopy(good)))
            rewrite(folder, keys, value)
            try:
                manifests.load(folder)
            except ManifestError as error:
                messages.append(str(error))
    assert len(messages) > 300
    assert all(len(message.splitlines()) == 1 for message in messages)


def test_fingerprint_ignores_order_and_nothing_else() -> None:
    triples = [(split, f"video-{i}", f"{i:064x}") for split in manifests.SPLITS for i in range(20)]
    shuffled = random.Random(0).sample(triples, len(triples))
    assert manifests.fingerprint(shuffled) == manifests.fingerprint(iter(triples))
    swapped = [("train" if split == "validation" else "validation", name, digest) for split, name, digest in triples]
    changed = {
        manifests.fingerprint(other)
        for other in (triples, triples[1:], [*triples, triples[0]], [("train", "a", "b"), *triples[1:]], [])
    }
    assert len(changed) == 5
    # Both splits hold the same here, so changing their names changes nothing ...
    assert manifests.fingerprint(swapped) == manifests.fingerprint(triples)
    # ... but a video that moves over does.
    assert manifests.fingerprint(swapped[:1] + triples[1:]) != manifests.fingerprint(triples)


def test_example_digest_sees_id_label_and_every_frame_boundary() -> None:
    cases = [
        ("a", 0, [b"xy", b"z"]),
        ("b", 0, [b"xy", b"z"]),
        ("a", 1, [b"xy", b"z"]),
        ("a", 0, [b"x", b"yz"]),
        ("a", 0, [b"z", b"xy"]),
        ("a", 0, [b"xyz"]),
        ("a", 0, [b"xy", b"z", b""]),
    ]
    digests = {manifests.example_digest(*case) for case in cases}
    assert len(digests) == len(cases)
    assert all(len(digest) == 64 for digest in digests)
