"""The batch that fits, what records say of a slice, and what the command makes of both; nothing is compiled.

The baseline has 8 clips a core on the 128 cores of v3:8x8.
"""

import dataclasses
import json
import re
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import harness.accelerators
from ablations import table2, table3
from ablations.profiles import PAPER, QUICK
from ablations.toggles import DEPTH, FRAMES, LS, R3D_RS, RA
from harness import additive_study, preflight
from harness.accelerators import compilation, forecasting, proving, tpu_compiler
from harness.accelerators.compilation import Progress
from harness.accelerators.forecasts import Measured
from harness.accelerators.proving import Task
from harness.accelerators.results import Results
from harness.accelerators.tpu_compiler import REFUSED, RefusedError, TooLargeError
from harness.cli import options, synthetic
from harness.config import devices, slices
from harness.config.experiment import Overrides, SettingsError
from harness.data import input_speed
from harness.store import records
from harness.store.run_store import RECORD
from tests.accelerators.test_forecasts import HALF, SECOND
from tests.accelerators.test_programs import CORES, made, pair, run_of
from tests.accelerators.test_results import BY, POD, SHORT, result

V3 = slices.slice_of(POD)
DEEP = (*R3D_RS, DEPTH.at(200), FRAMES.at(48))
(TRAIN, EVALUATION), (DEEP_TRAIN, DEEP_EVALUATION) = pair(), pair(*DEEP)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(tpu_compiler, "installed", lambda: BY)


def write(root, *found):
    for one in found:
        Results(root).write(one)


# The largest batch that fits.


@pytest.mark.parametrize(
    ("clips", "expected"),
    [(1, []), (2, [1]), (3, [2, 1]), (8, [4, 2, 1]), (9, [8, 4, 2, 1]), (24, [16, 8, 4, 2, 1])],
)
def test_smaller_batches_are_powers_of_two(clips, expected):
    assert proving.smaller(clips) == expected


def test_smaller_batches_by_enumeration():
    powers = (64, 32, 16, 8, 4, 2, 1)
    assert all(proving.smaller(clips) == [one for one in powers if one < clips] for clips in range(1, 70))


@pytest.mark.parametrize(
    ("fits", "searched", "fitting"),
    [
        ({}, False, None),
        ({8: False}, False, None),
        ({8: True}, False, 8),
        ({8: False, 4: True}, True, 4),
        ({8: False, 4: False}, False, None),
        ({8: False, 4: False, 2: True}, True, 2),
        ({8: False, 4: False, 2: False, 1: True}, True, 1),
        ({8: False, 4: False, 2: False, 1: False}, True, None),
        ({8: False, 2: True}, False, 2),  # of a search that another batch began
        ({8: False, 4: True, 2: True}, True, 4),
    ],
)
def test_the_largest_batch_that_is_known_to_fit(tmp_path, fits, searched, fitting):
    write(tmp_path, *(result(TRAIN.of(clips), reason="" if fit else SHORT) for clips, fit in fits.items()))
    task = Task(TRAIN, V3, tmp_path)
    assert proving.searched(task) is searched
    found = proving.fitting(task)
    assert (None if found is None else found.clips) == fitting


@pytest.mark.parametrize(
    ("made_up", "too_large"),
    [
        (result(TRAIN, reason=SHORT), True),
        (result(TRAIN, reason=f"{REFUSED}: odd"), False),
        (result(TRAIN, reason="about 20 GB", executable=result(TRAIN).executable, estimated=True), True),
    ],
)
def test_what_is_refused_is_not_too_large(made_up, too_large):
    assert proving.is_too_large(made_up) is too_large


@pytest.fixture
def compile_up_to(monkeypatch):
    """Puts a compiler in place for which so many clips fit; returns what it was given: clips and cores."""

    def put(most, error=TooLargeError):
        given = []

        def compile_for(hlo, slice_, cores):
            given.append((int(hlo), cores))
            if int(hlo) > most:
                raise error(SHORT if error is TooLargeError else f"{REFUSED}: odd")
            return result(TRAIN).executable

        lowering = SimpleNamespace(lower=lambda program: str(program.clips).encode())
        monkeypatch.setattr(harness.accelerators, "lower", lowering, raising=False)
        monkeypatch.setitem(sys.modules, "harness.accelerators.lower", lowering)
        monkeypatch.setattr(tpu_compiler, "compile_for", compile_for)
        monkeypatch.setattr(tpu_compiler, "devices", lambda slice_: (slice_.cores, slice_.hosts))
        return given

    return put


@pytest.mark.parametrize(
    ("program", "most", "tried"),
    [
        (TRAIN, 8, [8]),
        (TRAIN, 5, [8, 4]),
        (TRAIN, 1, [8, 4, 2, 1]),
        (TRAIN, 0, [8, 4, 2, 1]),
        (EVALUATION, 1, [1]),
        (EVALUATION, 0, [1]),
    ],
)
def test_batches_are_halved_until_one_fits(tmp_path, compile_up_to, program, most, tried):
    given = compile_up_to(most)
    heard = []
    task = Task(program, V3, tmp_path)
    proving.prove(task, heard.append)
    cores = CORES if program is TRAIN else 1  # an evaluation sums nothing over cores
    assert given == [(clips, cores) for clips in tried]
    found = {clips: Results(tmp_path).read(POD, program.of(clips).key) for clips in tried}
    assert {clips: (one.fits, one.clips, one.compiler, one.estimated) for clips, one in found.items()} == {
        clips: (clips <= most, clips, BY, False) for clips in tried
    }
    assert all(one.reason == ("" if one.fits else SHORT) for one in found.values())
    assert len(heard) == 2 * len(tried)
    assert found[tried[0]].fits or proving.searched(task)
    proving.prove(task, heard.append)
    assert len(given) == len(tried), "nothing is compiled twice"


def test_what_the_compiler_refuses_is_not_tried_smaller(tmp_path, compile_up_to):
    given = compile_up_to(0, RefusedError)
    proving.prove(Task(TRAIN, V3, tmp_path), lambda _: None)
    assert given == [(8, CORES)]
    assert Results(tmp_path).read(POD, TRAIN.key).reason.startswith(REFUSED)


def test_a_slice_that_the_compiler_counts_otherwise_is_refused(tmp_path, compile_up_to, monkeypatch):
    given = compile_up_to(8)
    monkeypatch.setattr(tpu_compiler, "devices", lambda slice_: (64, 16))
    with pytest.raises(SettingsError, match=r"64 cores.*128"):
        proving.prove(Task(TRAIN, V3, tmp_path), lambda _: None)
    assert given == []


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False), (10**9, True)])
def test_an_estimate_is_held_against_what_a_core_gives_a_program(tmp_path, monkeypatch, spare, fits):
    """Which is less than it has: between the two, a program does not fit."""
    monkeypatch.setattr(tpu_compiler, "installed", lambda: None)
    assert V3.generation.usable < V3.generation.memory
    needed = V3.generation.usable - spare
    found = SimpleNamespace(
        arguments=needed - 40, outputs=50, aliased=20, temporaries=10, flops=1_000, bytes_moved=2_000
    )
    for name, module in (
        ("lower", SimpleNamespace(lower=lambda program, compiled: f"{program.cores}{compiled}".encode())),
        ("estimating", SimpleNamespace(estimate={b"1True": found}.__getitem__)),
    ):
        monkeypatch.setattr(harness.accelerators, name, module, raising=False)
        monkeypatch.setitem(sys.modules, f"harness.accelerators.{name}", module)
    proving.prove(Task(TRAIN.of(1), V3, tmp_path), lambda _: None)
    made_up = Results(tmp_path).read(POD, TRAIN.of(1).key)
    assert (made_up.fits, made_up.estimated, made_up.compiler) == (fits, True, "XLA on the CPU")
    assert (made_up.executable.operations, made_up.executable.memory.needed) == (1_000, needed)
    expected = "" if fits else "needs about 16.6 GB of memory, a core gives 16.6 GB"  # 15.48 GiB
    assert made_up.reason == expected


# On which slice it trains.


@pytest.mark.parametrize(
    ("strategy", "tpu", "named", "kind", "topology"),
    [
        (None, "local", None, "v3-128", POD),
        ("tpu", "local", None, "v5litepod-64", "v5e:8x8"),
        (None, "local", None, None, None),
        (None, "local", None, "", None),
        (None, "local", None, "rubbish", None),
        (None, "local", None, "v3-7", None),
        (None, "local", None, "v3:8x8", None),
        (None, "my-tpu", POD, None, POD),
        (None, "my-tpu", "v3-128", None, POD),
        (None, "my-tpu", "V3:8X8", "v5litepod-64", POD),
        (None, None, None, "v3-128", None),
        ("mirrored", None, None, "v3-128", None),
    ],
)
def test_the_slice_is_that_of_the_flag_or_of_the_tpu_vm(strategy, tpu, named, kind, topology):
    environment = {} if kind is None else {"TPU_ACCELERATOR_TYPE": kind}
    found = devices.devices_from_flags(strategy, tpu, None, None, environment, named)
    assert (found.topology, found.tpu) == (topology, tpu)
    assert found.strategy == ("tpu" if tpu else strategy or "one_device")


@pytest.mark.parametrize(
    ("strategy", "tpu", "named", "words"),
    [
        (None, None, POD, "--topology v3:8x8.*--tpu"),
        ("mirrored", None, POD, "--topology v3:8x8.*--tpu"),
        ("multi_worker_mirrored", None, POD, "--topology v3:8x8.*--tpu"),
        ("tpu", None, POD, "--tpu"),
        (None, "local", "v3:3x3", "v3:3x3"),
        (None, "local", "v3-7", "v3-7"),
        (None, "local", "", "''"),
    ],
)
def test_a_slice_that_cannot_be_is_refused(strategy, tpu, named, words):
    with pytest.raises(SettingsError, match=words):
        devices.devices_from_flags(strategy, tpu, None, None, {"TPU_ACCELERATOR_TYPE": "v3-128"}, named)


# What recorded runs took.


def recorded(place, row, seconds, topology=POD, **about):
    """The record of a row on a slice: 42,104 steps in so many seconds, and 240 videos evaluated in 120.

    `about` is what its provenance says beside that.
    """
    (run_id,) = synthetic.write_synthetic(
        place, [dataclasses.replace(table2.STUDY, rows=(table2.STUDY.rows[row - 1],))], 1
    )
    record = place.store.read(run_id)
    where = {"commit": "by hand", "attempts": 1, "topology": topology, **about}
    record = dataclasses.replace(
        record,
        cost={**record.cost, "train_steps": 42_104, "train_seconds": seconds},
        evaluations={
            name: dataclasses.replace(one, seconds=120.0, provenance=where) for name, one in record.evaluations.items()
        },
        provenance={name: value for name, value in where.items() if value is not None},
    )
    (place.store.folder(run_id) / RECORD).write_text(json.dumps(records.to_json(record)))


def test_records_of_the_slice_measure_their_programs(tmp_path):
    place = made(tmp_path)
    recorded(place, 1, 84_208.0)
    recorded(place, 2, 42_104.0, topology="v3:4x16")
    found = forecasting.measured(place, V3)
    assert found.steps == {TRAIN.fed: 2.0}
    assert found.evaluations == {EVALUATION.fed: 0.5}
    other = forecasting.measured(place, slices.slice_of("v3:4x16"))
    assert other.steps == {pair(LS.at())[0].fed: 1.0}
    quick = dataclasses.replace(place, profile=QUICK)
    assert not forecasting.measured(quick, V3).steps


def test_a_training_in_one_go_is_measured_whatever_was_evaluated_of_it(tmp_path):
    recorded(made(tmp_path), 1, 84_208.0, attempts=None)  # of a version that did not count them
    recorded(made(tmp_path, cut=Overrides(validation_videos=1_000)), 2, 42_104.0)
    assert forecasting.measured(made(tmp_path), V3).steps == {TRAIN.fed: 2.0, pair(LS.at())[0].fed: 1.0}


@pytest.mark.parametrize(
    ("place", "about"),
    [
        ({"cut": Overrides(steps=42_104)}, {}),
        ({"cut": Overrides(steps=42_104, validation_videos=1_000)}, {}),
        ({}, {"attempts": 2}),
        ({"replicas": 64}, {}),
        ({"profile": dataclasses.replace(PAPER, name="mine")}, {}),
        ({}, {"topology": None}),
        ({}, {"topology": "v3:8X8"}),
    ],
)
def test_what_is_no_whole_training_of_that_slice_measures_nothing(tmp_path, place, about):
    recorded(made(tmp_path, **place), 1, 84_208.0, **about)
    assert forecasting.measured(made(tmp_path), V3) == Measured()


def test_a_record_of_another_version_measures_nothing(tmp_path, monkeypatch):
    recorded(made(tmp_path), 1, 84_208.0)
    monkeypatch.setattr(records, "garden_version", lambda: "tf-models-official 9.9.9")
    assert forecasting.measured(made(tmp_path), V3) == Measured()


def test_a_slice_is_known_by_what_was_compiled_for_it_or_recorded_on_it(tmp_path):
    place = made(tmp_path)
    assert forecasting.topologies(place) == []
    recorded(place, 1, 84_208.0, topology="v5e:8x16")
    recorded(place, 2, 84_208.0, topology=None)
    assert forecasting.topologies(place) == ["v5e:8x16"]
    write(tmp_path, result(TRAIN), result(TRAIN, topology="v5e:8x16"), result(TRAIN, topology="v4:4x4x4"))
    assert forecasting.topologies(place) == [POD, "v4:4x4x4", "v5e:8x16"]


def test_a_row_does_not_take_what_another_took_that_is_fed_otherwise(tmp_path):
    """Row 10 of Table 2 is row 9 with RandAugment: the same programs, of which only the evaluation was measured."""
    place = made(tmp_path)
    recorded(place, 9, 84_208.0)
    rows_9_and_10 = dataclasses.replace(table2.STUDY, rows=table2.STUDY.rows[8:])
    ninth, tenth = forecasting.forecast(place.plan([rows_9_and_10], [0]), place, V3)
    assert (ninth.train.key, ninth.evaluation.key) == (tenth.train.key, tenth.evaluation.key)
    assert (ninth.step_seconds, ninth.is_measured) == (2.0, True)
    assert (tenth.step_seconds, tenth.is_measured, tenth.hours) == (None, False, None)
    assert tenth.evaluation_seconds == ninth.evaluation_seconds == 17_706 * 0.5


# What a plan says.


def planned_with(root, purpose="plan", **flags):
    """The workspace of such flags of a command."""
    names = ("data", "strategy", "tpu", "worker_hosts", "task_index", "replicas", "batch", "steps", "validation_videos")
    given = {"profile_name": "paper", **dict.fromkeys(names), **flags}
    return options.workspace(
        options.TrainingOptions(results=root, keep_checkpoints=2, repeat_short_videos=False, **given), purpose
    )


@pytest.mark.parametrize(
    ("flags", "replicas"),
    [
        ({}, 128),
        ({"replicas": 64}, 64),
        ({"strategy": "one_device"}, 1),
        ({"strategy": "mirrored"}, 1),
        ({"tpu": "local"}, 128),
        ({"profile_name": "quick"}, 1),
        ({"strategy": "multi_worker_mirrored", "worker_hosts": "a:1,b:1,c:1", "task_index": 0}, 3),
        ({"data": "embedded"}, 1),
    ],
)
def test_without_data_and_devices_the_papers_training_is_planned(tmp_path, flags, replicas):
    assert planned_with(tmp_path, **flags).replicas == replicas


def test_to_train_nothing_is_taken_for_granted(tmp_path):
    place = planned_with(tmp_path, "train", profile_name="quick")
    assert (place.replicas, place.devices.strategy) == (1, "one_device")
    with pytest.raises(SettingsError, match="--data"):
        planned_with(tmp_path, "train")


def test_a_preflight_shows_in_the_plan_of_the_papers_training(tmp_path):
    write(tmp_path, result(TRAIN, **HALF), result(EVALUATION, **SECOND), result(pair(LS.at())[0], reason=SHORT))
    flags = ["--profile", "paper", "--plan", "--results", str(tmp_path)]
    done = CliRunner().invoke(additive_study.main, flags)
    assert done.exit_code == 0, done.output
    first, second, third = (line for line in done.output.splitlines() if re.search(r"row [123]:", line))
    assert first.endswith(", at least 753 core-hours on TPU v3:8x8")  # 128 (42,104 / 2 + 139) / 3,600
    assert second.endswith(", does not fit on TPU v3:8x8")
    assert "TPU" not in third
    assert "On TPU v3:8x8, by its preflight: at least 753 core-hours for 1 of the 10 runs left." in done.output
    alone = CliRunner().invoke(additive_study.main, [*flags, "--replicas", "64"])
    assert "v3:8x8" not in alone.output


# The command, of results that are there.


def show(results, *flags, code=0):
    """What the command says of rows 1 and 2 where nothing is compiled."""
    flags = ["table2", "--rows", "1-2", "--topology", POD, "--results", str(results), "--cached", *flags]
    done = CliRunner().invoke(preflight.main, flags)
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_says_all_in_one_object(tmp_path):
    write(tmp_path, result(TRAIN, **HALF), result(EVALUATION, **SECOND), result(pair(LS.at())[0], **HALF))
    input_speed.write_input_speed(tmp_path, [
        {"case": "training", "ours": 40.0}, {"case": "training with RandAugment", "ours": 20.0}
    ])  # fmt: skip
    found = json.loads(show(tmp_path, "--json", "--price", "2"))
    assert found["slice"] == {
        "topology": POD, "chips": 64, "cores": 128, "hosts": 16, "memory_of_a_core": 16 * 2**30
    }  # fmt: skip
    assert [one["program"] for one in found["programs"]] == ["T1", "T2", "E1"]
    hours = (42_104 / 2 + 139) / 3600
    assert [one["hours"] for one in found["rows"]] == pytest.approx([hours] * 2)
    assert [one["price"] for one in found["rows"]] == pytest.approx([hours * 128] * 2)
    assert [one["clips_per_second_here"] for one in found["rows"]] == [40.0] * 2
    assert [one["runs"] for one in found["rows"]] == [[run_of().id], [run_of(LS.at()).id]]
    assert [one["changes"] for one in found["rows"]] == ["baseline", "ls"]
    expected = {"hours": pytest.approx(2 * hours), "core_hours": pytest.approx(256 * hours), "known": 2, "unknown": 0}
    assert found["total"] == found["without_sharing"] == {**expected, "measured": False}
    assert found["failures"] == []


def test_the_command_fails_where_a_row_does_not_fit(tmp_path):
    write(tmp_path, result(TRAIN), result(EVALUATION), result(pair(LS.at())[0], reason=SHORT))
    found = json.loads(show(tmp_path, "--json", code=1))
    assert [one["obstacle"] for one in found["rows"]] == ["", "does not fit"]
    assert found["rows"][1]["hours"] is None
    assert (found["total"]["known"], found["total"]["unknown"]) == (1, 1)
    assert found["failures"] == [f"T2: {SHORT}"]
    output = show(tmp_path, code=1)
    assert SHORT in output and "Together: 1 run, at least" in output and "; 1 more " in output


def test_the_command_fails_where_a_row_is_not_known(tmp_path):
    write(tmp_path, result(TRAIN), result(EVALUATION))
    output = show(tmp_path, code=1)
    assert "not compiled" in output and "nan" not in output.lower()


def test_of_nothing_that_is_known_nothing_is_said_together(tmp_path):
    output = show(tmp_path, "--price", "2", code=1)
    assert "Together" not in output and "at least" not in output.split("Hours of training")[1]
    assert json.loads(show(tmp_path, "--json", code=1))["total"]["known"] == 0


def test_a_program_that_could_not_be_compiled_is_named_and_the_command_fails(tmp_path, monkeypatch):
    def compile_all(tasks, jobs):
        for number, task in enumerate(tasks):
            if task.program.kind == "train":
                Results(task.results).write(result(task.program, **HALF))
            yield Progress(number, "3 s", ended=True, failure="" if task.program.kind == "train" else "it died")

    monkeypatch.setattr(compilation, "compile_all", compile_all)
    flags = ["table2", "--rows", "1", "--topology", POD, "--results", str(tmp_path)]
    done = CliRunner().invoke(preflight.main, [*flags, "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [one["verdict"] for one in found["programs"]] == ["fits", "could not be compiled"]
    assert (found["failures"], found["rows"][0]["hours"]) == (["E1: it died"], None)
    assert "E1: it died" in CliRunner().invoke(preflight.main, flags).output


def test_a_slice_that_the_compiler_does_not_know_is_one_line(tmp_path, monkeypatch):
    def compile_all(tasks, jobs):
        yield Progress(0, "x", ended=True, failure=f"--topology {POD}: the TPU compiler does not know it")

    monkeypatch.setattr(compilation, "compile_all", compile_all)
    done = CliRunner().invoke(preflight.main, ["table2", "--topology", POD, "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == f"Error: --topology {POD}: the TPU compiler does not know it"


def test_another_batch_is_other_train_steps(tmp_path):
    write(tmp_path, result(TRAIN.of(4), **HALF), result(EVALUATION), result(pair(LS.at())[0].of(4)))
    found = json.loads(show(tmp_path, "--json", "--batch", "512"))
    assert [one["clips"] for one in found["programs"]] == [4, 4, 1]
    assert found["rows"][0]["steps"] == 84_208  # ceil(200 * 215,570 / 512)
    assert found["rows"][0]["clips_per_second"] == pytest.approx(4 * 8 / 0.5)


def test_seeds_train_again_and_share_their_programs(tmp_path):
    write(tmp_path, result(TRAIN, **HALF), result(EVALUATION, **SECOND), result(pair(LS.at())[0], **HALF))
    found = json.loads(show(tmp_path, "--json", "--seeds", "3"))
    hours = (42_104 / 2 + 139) / 3600
    assert (len(found["programs"]), len(found["rows"])) == (3, 2), "seeds of a row are one line"
    assert [one["runs"] for one in found["rows"]] == [
        [run_of(*changes, seed=seed).id for seed in range(3)] for changes in ((), (LS.at(),))
    ]
    assert [one["hours"] for one in found["rows"]] == pytest.approx([3 * hours] * 2)
    assert found["total"]["hours"] == pytest.approx(6 * hours)
    assert found["total"]["known"] == 6


def test_rows_that_two_studies_share_are_trained_once(tmp_path, compiled):
    flags = ["table2", "table3", "--topology", "v3-128", "--results", str(tmp_path), "--json", "--jobs", "4"]
    found = json.loads(CliRunner().invoke(preflight.main, flags).stdout)
    ((tasks, jobs),) = compiled
    assert (len(tasks), jobs) == (10 + 7, 4)  # Table 2 has 7 train steps and 4 evaluations, Table 3 3 of each more
    assert len(found["rows"]) == 13
    assert found["without_sharing"]["hours"] > found["total"]["hours"] > 0
    again = json.loads(CliRunner().invoke(preflight.main, flags).stdout)
    assert again == found and len(compiled) == 1


def test_what_is_measured_there_takes_the_place_of_the_bound(tmp_path):
    recorded(made(tmp_path), 1, 84_208.0)
    write(tmp_path, result(TRAIN, **HALF), result(EVALUATION, **SECOND), result(pair(LS.at())[0], **HALF))
    first, second = json.loads(show(tmp_path, "--json"))["rows"]
    assert first["step_seconds"] == 2.0
    assert first["hours"] == pytest.approx((84_208 + 17_706 * 0.5) / 3600)
    assert (first["measured"], second["measured"]) == (True, False)
    assert second["step_seconds"] == pytest.approx(0.5)


def test_nothing_known_is_shown_as_eleven_programs(tmp_path):
    flags = ["table2", "--topology", "v3:8x8", "--results", str(tmp_path), "--cached", "--json"]
    done = CliRunner().invoke(preflight.main, flags)
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)["programs"]) == 11


def test_the_programs_named_here_are_those_of_the_rows():
    rows = table2.STUDY.rows
    assert (rows[0].applied, rows[8].applied) == ((), DEEP)
    assert rows[9].applied == table3.STUDY.rows[5].applied == (*DEEP, RA.at())
