"""What is compiled, what is known already, and what is refused before it trains; made-up results, nothing is compiled.

The baseline has 8 clips a core on the 128 cores of v3:8x8.
"""

import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from rich.console import Console
from test_tpu_forecasts import HALF, SECOND
from test_tpu_programs import CORES, made, pair
from test_tpu_results import BY, POD, SHORT, result

import harness.tpu
from ablations import table2, table3
from ablations.profiles import PAPER, QUICK
from ablations.toggles import DEPTH, FRAMES, LS, R3D_RS, RA
from harness import additive_study, devices, input_speed, preflight, preflighting, records, slices, synthetic
from harness.devices import Devices
from harness.experiment import Cut, SettingsError
from harness.store import RECORD
from harness.tpu import compiler, compiling, programs, proving
from harness.tpu.compiler import REFUSED, RefusedError, TooLargeError
from harness.tpu.compiling import Progress
from harness.tpu.proving import Task
from harness.tpu.results import Results

V3 = slices.slice_of(POD)
ON_POD = Devices("tpu", "local", topology=POD)
ROWS_1_AND_9 = dataclasses.replace(table2.STUDY, rows=(table2.STUDY.rows[0], table2.STUDY.rows[8]))
DEEP = (*R3D_RS, DEPTH.at(200), FRAMES.at(48))
(TRAIN, EVALUATION), (DEEP_TRAIN, DEEP_EVALUATION) = pair(), pair(*DEEP)
NO_CUT = Cut()


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(compiler, "installed", lambda: BY)


@pytest.fixture
def compiled(monkeypatch):
    """The tasks that would be compiled, each time, and how many at a time; each is found to fit."""
    asked = []

    def compile_all(tasks, jobs):
        asked.append(([(task.program.key, task.slice_) for task in tasks], jobs))
        for number, task in enumerate(tasks):
            Results(task.results).write(result(task.program, topology=task.slice_.topology))
            yield Progress(number, "tracing")
            yield Progress(number, "3 s", ended=True)

    monkeypatch.setattr(compiling, "compile_all", compile_all)
    return asked


def quiet():
    return Console(file=io.StringIO(), width=200)


def said(console):
    return console.file.getvalue()


def write(root, *found):
    for one in found:
        Results(root).write(one)


def refuse(place, study=ROWS_1_AND_9, change=lambda one: one, console=None):
    """Asks whether a study may be trained, with some change of each planned run."""
    plan = place.plan([study], [0])
    plan = dataclasses.replace(plan, runs=tuple(change(one) for one in plan.runs))
    preflighting.refuse_too_large(place, plan, console or quiet())


def on_pod(root, **changes):
    return made(root, devices=ON_POD, **changes)


# What is compiled.


@pytest.mark.parametrize(
    ("found", "is_known"),
    [
        ([], False),
        ([result(TRAIN)], True),
        ([result(TRAIN, compiler="libtpu 0.0.1")], False),
        ([result(TRAIN, topology="v3:4x8")], False),
        ([result(EVALUATION)], False),
        ([result(TRAIN, reason=f"{REFUSED}: odd")], True),
        ([result(TRAIN, reason=SHORT)], False),
        ([result(TRAIN, reason=SHORT), result(TRAIN.of(4))], True),
        ([result(TRAIN, reason=SHORT), result(TRAIN.of(4), compiler="libtpu 0.0.1")], False),
        ([result(TRAIN, reason=SHORT), result(TRAIN.of(4), reason=SHORT)], False),
        ([result(TRAIN, reason=SHORT), result(TRAIN.of(2))], False),
        ([result(TRAIN, reason=SHORT), result(TRAIN.of(4), reason=SHORT), result(TRAIN.of(2))], True),
        ([result(TRAIN.of(clips), reason=SHORT) for clips in (8, 4, 2, 1)], True),
        ([result(TRAIN, reason="about 20 GB", estimated=True, executable=result(TRAIN).executable)], False),
    ],
)
def test_nothing_is_asked_twice(tmp_path, compiled, found, is_known):
    write(tmp_path, *found)
    assert preflighting.compile_missing([TRAIN], V3, tmp_path, 1, quiet()) == {}
    assert compiled == ([] if is_known else [([(TRAIN.key, V3)], 1)])


def test_one_video_that_does_not_fit_leaves_nothing_to_search(tmp_path, compiled):
    write(tmp_path, result(EVALUATION, reason=SHORT))
    preflighting.compile_missing([EVALUATION], V3, tmp_path, 1, quiet())
    assert compiled == []


def test_without_the_compiler_any_result_is_believed(tmp_path, compiled, monkeypatch):
    monkeypatch.setattr(compiler, "installed", lambda: None)
    write(tmp_path, result(TRAIN, compiler="libtpu 0.0.1"), result(EVALUATION, compiler="XLA on the CPU"))
    preflighting.compile_missing([TRAIN, EVALUATION], V3, tmp_path, 1, quiet())
    assert compiled == []


def test_a_damaged_result_is_compiled_again(tmp_path, compiled):
    path = Results(tmp_path).write(result(TRAIN))
    path.write_text("half of it")
    preflighting.compile_missing([TRAIN, EVALUATION], V3, tmp_path, 2, quiet())
    assert [key for key, _ in compiled[0][0]] == [TRAIN.key, EVALUATION.key]
    assert Results(tmp_path).read(POD, TRAIN.key) == result(TRAIN)


def test_the_largest_train_step_comes_first_and_no_more_jobs_than_programs(tmp_path, compiled):
    console = quiet()
    wanted = [EVALUATION, TRAIN, DEEP_EVALUATION, DEEP_TRAIN]
    write(tmp_path, result(DEEP_EVALUATION))
    assert preflighting.compile_missing(wanted, V3, tmp_path, 8, console) == {}
    ((tasks, jobs),) = compiled
    assert [key for key, _ in tasks] == [DEEP_TRAIN.key, TRAIN.key, EVALUATION.key]
    assert jobs == 3
    assert all(text in said(console) for text in ("3 of 4 programs", POD, BY, "3/3"))
    again = quiet()
    assert preflighting.compile_missing(wanted, V3, tmp_path, 8, again) == {}
    assert (len(compiled), said(again)) == (1, "")


def test_what_failed_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    def compile_all(tasks, jobs):
        yield Progress(1, "3 s", ended=True)
        yield Progress(0, "it died", ended=True, failure="it died")

    monkeypatch.setattr(compiling, "compile_all", compile_all)
    console = quiet()
    assert preflighting.compile_missing([TRAIN, DEEP_TRAIN], V3, tmp_path, 1, console) == {DEEP_TRAIN.key: "it died"}
    assert "it died" in said(console)


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
        monkeypatch.setattr(harness.tpu, "lowering", lowering, raising=False)
        monkeypatch.setitem(sys.modules, "harness.tpu.lowering", lowering)
        monkeypatch.setattr(compiler, "compile_for", compile_for)
        monkeypatch.setattr(compiler, "devices", lambda slice_: (slice_.cores, slice_.hosts))
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
    monkeypatch.setattr(compiler, "devices", lambda slice_: (64, 16))
    with pytest.raises(SettingsError, match=r"64 cores.*128"):
        proving.prove(Task(TRAIN, V3, tmp_path), lambda _: None)
    assert given == []


# What is refused before it trains.


def test_what_fits_is_trained_without_a_word(tmp_path, compiled):
    write(tmp_path, result(TRAIN), result(EVALUATION), result(DEEP_TRAIN), result(DEEP_EVALUATION))
    console = quiet()
    refuse(on_pod(tmp_path), console=console)
    assert (compiled, said(console)) == ([], "")


def test_the_largest_alone_is_compiled_where_it_is_not_known(tmp_path, compiled):
    refuse(on_pod(tmp_path))
    ((tasks, _),) = compiled
    assert tasks == [(DEEP_TRAIN.key, V3)]
    refuse(on_pod(tmp_path))
    assert len(compiled) == 1


def test_only_what_is_still_to_be_trained_counts(tmp_path, compiled):
    def trained(one):
        return dataclasses.replace(one, done="9" in one.rows)

    refuse(on_pod(tmp_path), change=trained)
    assert [tasks for tasks, _ in compiled] == [[(TRAIN.key, V3)]]
    write(tmp_path, result(DEEP_TRAIN, reason=SHORT), result(DEEP_TRAIN.of(4)))
    refuse(on_pod(tmp_path), change=trained)


@pytest.mark.parametrize(("best", "batch"), [(4, 512), (1, 128)])
def test_what_is_too_large_is_refused_with_the_batch_that_fits(tmp_path, compiled, best, batch):
    smaller = [result(DEEP_TRAIN.of(clips), reason=SHORT) for clips in proving.smaller(8) if clips > best]
    write(tmp_path, result(DEEP_TRAIN, reason=SHORT), *smaller, result(DEEP_TRAIN.of(best)))
    with pytest.raises(SettingsError) as error:
        refuse(on_pod(tmp_path))
    text = str(error.value)
    assert all(word in text for word in ("row 9", "depth=200", POD, SHORT, f"--batch {batch} ", "--no-preflight"))
    assert "\n" not in text
    assert compiled == []


def test_where_no_batch_fits_none_is_named(tmp_path, compiled):
    write(tmp_path, *(result(DEEP_TRAIN.of(clips), reason=SHORT) for clips in (8, 4, 2, 1)))
    with pytest.raises(SettingsError, match=re.escape(SHORT)) as error:
        refuse(on_pod(tmp_path))
    assert "--batch" not in str(error.value)


def test_what_the_compiler_refuses_is_not_trained_either(tmp_path, compiled):
    write(tmp_path, result(DEEP_TRAIN, reason=f"{REFUSED}: odd"))
    with pytest.raises(SettingsError, match=r"odd.*--no-preflight"):
        refuse(on_pod(tmp_path))
    assert compiled == []


def test_a_smaller_run_and_an_evaluation_that_are_known_not_to_fit_are_refused_too(tmp_path, compiled):
    write(tmp_path, result(DEEP_TRAIN), result(TRAIN, reason=SHORT), result(TRAIN.of(4)))
    with pytest.raises(SettingsError, match=r"row 1: baseline.*--batch 512"):
        refuse(on_pod(tmp_path))
    write(tmp_path, result(TRAIN), result(DEEP_EVALUATION, reason=SHORT))
    with pytest.raises(SettingsError, match=r"row 9: .*evaluation.*GB") as error:
        refuse(on_pod(tmp_path))
    assert "--batch" not in str(error.value)


def test_another_batch_of_training_is_no_help_to_an_evaluation(tmp_path, compiled):
    place = on_pod(tmp_path, profile=dataclasses.replace(PAPER, evaluation_batch=4))
    write(tmp_path, result(DEEP_TRAIN), result(EVALUATION.of(4), reason=SHORT), result(EVALUATION.of(2)))
    with pytest.raises(SettingsError, match="row 1: baseline, evaluation") as error:
        refuse(place)
    assert "--batch" not in str(error.value)


def test_an_estimate_warns_and_lets_it_pass(tmp_path, compiled, monkeypatch):
    monkeypatch.setattr(compiler, "installed", lambda: None)
    reason = "needs about 20.1 GB"
    estimate = {"reason": reason, "estimated": True, "compiler": "XLA on the CPU"}
    counted = result(TRAIN).executable
    write(tmp_path, *(result(DEEP_TRAIN.of(clips), executable=counted, **estimate) for clips in (8, 4, 2, 1)))
    console = quiet()
    refuse(on_pod(tmp_path), console=console)
    assert all(word in said(console) for word in ("row 9", reason, "estimate"))
    assert compiled == []


def test_a_program_that_could_not_be_compiled_stops_it(tmp_path, monkeypatch):
    asked = []

    def compile_missing(wanted, slice_, results, jobs, console):
        asked.append(([one.key for one in wanted], slice_, results))
        return {DEEP_TRAIN.key: "it died"}

    monkeypatch.setattr(preflighting, "compile_missing", compile_missing)
    with pytest.raises(SettingsError, match=r"depth=200.*it died.*--no-preflight"):
        refuse(on_pod(tmp_path))
    assert asked == [([DEEP_TRAIN.key], V3, tmp_path)]


@pytest.mark.parametrize(
    "changes",
    [
        {"preflight": False},
        {"devices": Devices()},
        {"devices": Devices("mirrored")},
        {"devices": dataclasses.replace(ON_POD, topology=None), "preflight": False},
        {"garden": SimpleNamespace()},
        {"profile": QUICK, "replicas": 8},
    ],
)
def test_elsewhere_nothing_is_asked(tmp_path, compiled, changes):
    every = [
        result(program, reason=SHORT)
        for one in made(tmp_path, **{"devices": ON_POD, **changes}).plan([ROWS_1_AND_9], [0]).runs
        for program in programs.of_run(one.run, 8)
    ]
    write(tmp_path, *every, *(result(one, reason=SHORT) for one in (TRAIN, DEEP_TRAIN)))
    console = quiet()
    refuse(made(tmp_path, **{"devices": ON_POD, **changes}), console=console)
    assert (compiled, said(console)) == ([], "")


@pytest.mark.parametrize("evaluated", [False, True])
def test_runs_that_are_trained_already_are_left_alone(tmp_path, compiled, evaluated):
    write(tmp_path, result(TRAIN, reason=SHORT), result(DEEP_TRAIN, reason=SHORT))
    without_slice = made(tmp_path, devices=Devices("tpu", "local"))
    refuse(without_slice, change=lambda one: dataclasses.replace(one, done=True, evaluated=evaluated))
    assert compiled == []


def test_a_tpu_of_an_unknown_slice_is_asked_for(tmp_path, compiled):
    with pytest.raises(SettingsError, match=r"--topology.*--no-preflight"):
        refuse(made(tmp_path, devices=Devices("tpu", "local")))


@pytest.mark.parametrize(("topology", "cores"), [("v3:4x4", 32), ("v5e:8x8", 64), ("v4:4x4x8", 256)])
def test_a_slice_of_another_number_of_cores_than_replicas_is_refused(tmp_path, compiled, topology, cores):
    with pytest.raises(SettingsError, match=rf"{topology}.* {cores} cores.* 128 .*--replicas {cores}"):
        refuse(made(tmp_path, devices=dataclasses.replace(ON_POD, topology=topology)))
    assert compiled == []


def test_no_preflight_is_a_flag_of_training():
    given, left_out = (
        additive_study.main.make_context("additive_study", flags).params["preflight"]
        for flags in (["--no-preflight"], [])
    )
    assert (given, left_out) == (False, True)


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
    found = devices.of(strategy, tpu, None, None, environment, named)
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
        devices.of(strategy, tpu, None, None, {"TPU_ACCELERATOR_TYPE": "v3-128"}, named)


# What recorded runs took.


def recorded(place, row, seconds, topology=POD):
    """The record of a row on a slice: 42,104 steps in so many seconds, and 240 videos evaluated in 120."""
    (run_id,) = synthetic.write(place, [dataclasses.replace(table2.STUDY, rows=(table2.STUDY.rows[row - 1],))], 1)
    record = place.store.read(run_id)
    where = {"commit": "by hand", "topology": topology}
    record = dataclasses.replace(
        record,
        cost={**record.cost, "train_steps": 42_104, "train_seconds": seconds},
        evaluations={
            name: dataclasses.replace(one, seconds=120.0, provenance=where) for name, one in record.evaluations.items()
        },
        provenance=where,
    )
    (place.store.folder(run_id) / RECORD).write_text(json.dumps(records.to_json(record)))


def test_records_of_the_slice_measure_their_programs(tmp_path):
    place = made(tmp_path)
    recorded(place, 1, 84_208.0)
    recorded(place, 2, 42_104.0, topology="v3:4x16")
    found = preflighting.measured(place, V3)
    assert found.steps == {TRAIN.shape: 2.0}
    assert found.evaluations == {EVALUATION.shape: 0.5}
    other = preflighting.measured(place, slices.slice_of("v3:4x16"))
    assert list(other.steps) == [pair(LS.at())[0].shape]
    quick = dataclasses.replace(place, profile=QUICK)
    assert not preflighting.measured(quick, V3).steps


# The command, of results that are there.


def show(results, *flags, code=0):
    """What the command says of rows 1 and 2 where nothing is compiled."""
    flags = ["table2", "--rows", "1-2", "--topology", POD, "--results", str(results), "--cached", *flags]
    done = CliRunner().invoke(preflight.main, flags)
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_says_all_in_one_object(tmp_path):
    write(tmp_path, result(TRAIN, **HALF), result(EVALUATION, **SECOND), result(pair(LS.at())[0], **HALF))
    input_speed.write(tmp_path, [
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
    expected = {"hours": pytest.approx(2 * hours), "core_hours": pytest.approx(256 * hours), "unknown": 0}
    assert found["total"] == found["without_sharing"] == expected
    assert found["failures"] == []


def test_the_command_fails_where_a_row_does_not_fit(tmp_path):
    write(tmp_path, result(TRAIN), result(EVALUATION), result(pair(LS.at())[0], reason=SHORT))
    found = json.loads(show(tmp_path, "--json", code=1))
    assert [one["fits"] for one in found["rows"]] == [True, False]
    assert found["rows"][1]["hours"] is None
    assert found["total"]["unknown"] == 1
    assert found["failures"] == [f"T2: {SHORT}"]
    assert SHORT in show(tmp_path, code=1)


def test_the_command_fails_where_a_row_is_not_known(tmp_path):
    write(tmp_path, result(TRAIN), result(EVALUATION))
    output = show(tmp_path, code=1)
    assert "not compiled" in output and "nan" not in output.lower()


def test_another_batch_is_other_train_steps(tmp_path):
    write(tmp_path, result(TRAIN.of(4), **HALF), result(EVALUATION), result(pair(LS.at())[0].of(4)))
    found = json.loads(show(tmp_path, "--json", "--batch", "512"))
    assert [one["clips"] for one in found["programs"]] == [4, 4, 1]
    assert found["rows"][0]["steps"] == 84_208  # ceil(200 * 215,570 / 512)
    assert found["rows"][0]["clips_per_second"] == pytest.approx(4 * 8 / 0.5)


def test_seeds_train_again_and_share_their_programs(tmp_path):
    write(tmp_path, result(TRAIN, **HALF), result(EVALUATION, **SECOND), result(pair(LS.at())[0], **HALF))
    found = json.loads(show(tmp_path, "--json", "--seeds", "3"))
    assert (len(found["programs"]), len(found["rows"])) == (3, 6)
    assert found["total"]["hours"] == pytest.approx(6 * (42_104 / 2 + 139) / 3600)


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
    assert second["step_seconds"] == pytest.approx(0.5)


ALONE = """
import sys
from harness import preflight
try:
    preflight.main(["table2", "--topology", "v3:8x8", "--results", sys.argv[1], "--cached", "--json"])
except SystemExit as done:
    loaded = {"tensorflow", "tf_keras", "official", "jax", "libtpu"} & set(sys.modules)
    print(done.code, *sorted(loaded), file=sys.stderr)
"""


def test_what_is_known_is_shown_without_tensorflow(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.stderr.split() == ["1"]
    assert len(json.loads(done.stdout)["programs"]) == 11


def test_the_programs_named_here_are_those_of_the_rows():
    rows = table2.STUDY.rows
    assert (rows[0].applied, rows[8].applied) == ((), DEEP)
    assert rows[9].applied == table3.STUDY.rows[5].applied == (*DEEP, RA.at())
