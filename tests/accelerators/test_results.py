"""Results of compiling in their files: what is written is read again, what is damaged is refused in one line."""

import dataclasses
import json
import math
import os

import pytest

from harness.accelerators import programs, proving, results
from harness.accelerators.results import Executable, Memory, Result, ResultError, Results
from tests.accelerators.test_programs import pair

POD = "v3:8x8"
BY = "libtpu 9.9.9"
SHORT = "needs 20.1 GB of memory, a core has 17.2 GB"
MEMORY = Memory(arguments=2_000_000_000, outputs=500_000_000, aliased=400_000_000, temporaries=9_000_000_000, code=7)


def result(program, operations=61_500_000_000_000, bytes_moved=1_000_000, **changes):
    """What compiling a program showed, made up: it fits, and a step takes a second; with a reason, it does not fit."""
    reason = changes.get("reason", "")
    made = Result(
        key=program.key,
        topology=POD,
        compiler=BY,
        estimated=False,
        fits=not reason,
        reason=reason,
        executable=None if reason else Executable(MEMORY, operations, bytes_moved),
        program=programs.described(program),
        versions={"tensorflow": "2.20.0"},
        hlo="ab" * 32,
        seconds=12.5,
        made="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def place(tmp_path):
    return Results(tmp_path)


TRAIN, EVALUATION = pair()


@pytest.mark.parametrize(
    "made",
    [
        result(TRAIN),
        result(EVALUATION, topology="v4:2x2x2", compiler="XLA on the CPU", estimated=True),
        result(TRAIN, reason=SHORT),
        result(TRAIN, reason="about „20 GB“", estimated=True, executable=Executable(MEMORY, 1, 2)),
    ],
)
def test_what_is_written_is_read_again(place, made):
    path = place.write(made)
    assert path == place.path(made.topology, made.key)
    assert path.is_relative_to(place.folder)
    read = place.read(made.topology, made.key)
    assert read == made
    assert read.clips == made.program["clips"]


def test_a_file_is_found_by_slice_and_program(place, tmp_path):
    place.write(result(TRAIN))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")] == [
        f"preflight/v3-8x8/{TRAIN.key[:16]}.json"
    ]
    assert place.read(POD, EVALUATION.key) is None
    assert place.read("v3:4x4", TRAIN.key) is None


def test_memory_is_needed_for_everything_that_has_no_place_yet():
    assert MEMORY.needed == 2_000_000_000 + 100_000_000 + 9_000_000_000 + 7


def damaged(change):
    def damage(text):
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "not JSON",
        lambda text: "[]",
        lambda text: "null",
        lambda text: "NaN",
        lambda text: f"[{text}]",
        lambda text: text.replace("61500000000000", "NaN"),
        damaged(lambda content: content.update(schema=results.SCHEMA + 1)),
        damaged(lambda content: content.pop("schema")),
        damaged(lambda content: content.update(key=EVALUATION.key)),
        damaged(lambda content: content.update(key=TRAIN.key[:16])),
        damaged(lambda content: content.update(topology="v3:4x4")),
        damaged(lambda content: content.update(fits="yes")),
        damaged(lambda content: content.update(estimated=None)),
        damaged(lambda content: content.update(reason=None)),
        damaged(lambda content: content.update(executable=None)),
        damaged(lambda content: content.update(executable=[])),
        damaged(lambda content: content.update(more=1)),
        damaged(lambda content: content.pop("hlo")),
        damaged(lambda content: content.pop("executable")),
        damaged(lambda content: content["program"].update(clips="8")),
        damaged(lambda content: content.update(program=[])),
        damaged(lambda content: content["executable"].pop("memory")),
        damaged(lambda content: content["executable"].pop("operations")),
        damaged(lambda content: content["executable"]["memory"].pop("code")),
        damaged(lambda content: content["executable"]["memory"].update(code="much")),
        damaged(lambda content: content["executable"]["memory"].update(code=None)),
        damaged(lambda content: content["executable"].update(operations=-1)),
        damaged(lambda content: content["executable"].update(bytes_moved=-1)),
        damaged(lambda content: content["executable"].update(operations=math.inf)),
        damaged(lambda content: content["executable"].update(bytes_moved=-math.inf)),
        damaged(lambda content: content["executable"].update(bytes_moved=math.nan)),
        damaged(lambda content: content["executable"]["memory"].update(temporaries=-(10**12))),
        damaged(lambda content: content["executable"]["memory"].update(temporaries=math.inf)),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(place, damage):
    path = place.write(result(TRAIN))
    path.write_text(damage(path.read_text()))
    with pytest.raises(ResultError) as error:
        place.read(POD, TRAIN.key)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused(place):
    path = place.write(result(TRAIN))
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ResultError, match=path.name):
        place.read(POD, TRAIN.key)


@pytest.mark.parametrize("name", ["arguments", "outputs", "aliased", "code"])
def test_no_part_of_the_memory_is_negative(place, name):
    """Though the sum may be more than nothing."""
    path = place.write(result(TRAIN))
    path.write_text(damaged(lambda content: content["executable"]["memory"].update({name: -1}))(path.read_text()))
    with pytest.raises(ResultError, match=path.name):
        place.read(POD, TRAIN.key)


@pytest.mark.parametrize("clips", [0, -8])
def test_a_batch_has_clips(place, clips):
    path = place.write(result(TRAIN))
    path.write_text(damaged(lambda content: content["program"].update(clips=clips))(path.read_text()))
    with pytest.raises(ResultError, match=path.name):
        place.read(POD, TRAIN.key)


def test_what_keeps_a_file_from_being_read_is_no_damage(place, monkeypatch):
    """Else a disk that fails for a moment would have everything compiled again."""
    path = place.write(result(TRAIN))
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        place.read(POD, TRAIN.key)

    def fail(*_):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(type(path), "read_text", fail)
    for read in (place.read, lambda topology, key: proving.known_result(place, topology, key)):
        with pytest.raises(OSError, match="Input/output error"):
            read(POD, TRAIN.key)


def test_slices_with_results_are_listed(place):
    assert place.topologies() == []
    for topology in ("v5e:8x8", POD, "v4:2x2x2"):
        place.write(result(TRAIN, topology=topology))
    (place.folder / "v5e-4x4").write_text("no folder")
    assert place.topologies() == [POD, "v4:2x2x2", "v5e:8x8"]


def test_a_second_result_takes_the_place_of_the_first(place):
    first, second = result(TRAIN), result(TRAIN, compiler="libtpu 10.0.0")
    path = place.write(first)
    assert place.write(second) == path
    assert place.read(POD, TRAIN.key) == second
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_result_is_written_whole_or_not_at_all(place, monkeypatch, broken):
    first = result(TRAIN)
    path = place.write(first)

    def fail(*_):
        raise OSError(28, "No space left on device")

    if broken == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        place.write(result(TRAIN, seconds=99.0))
    assert place.read(POD, TRAIN.key) == first


def test_no_number_is_no_result(place):
    with pytest.raises(ValueError, match="JSON"):
        place.write(result(TRAIN, seconds=float("nan")))
    assert place.read(POD, TRAIN.key) is None
    assert place.topologies() == []
