"""What is compiled, what is known already, and what is refused before it trains; made-up results, nothing is compiled.

The baseline has 8 clips a core on the 128 cores of v3:8x8.
"""

import dataclasses
import io
import os
import re
from importlib import metadata
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.live import Live

from ablations import table2
from ablations.profiles import PAPER, QUICK
from ablations.toggles import DEPTH, FRAMES, R3D_RS
from harness import additive_study
from harness.accelerators import compilation, gate, programs, proving, tpu_compiler
from harness.accelerators.compilation import Progress
from harness.accelerators.results import Results
from harness.accelerators.tpu_compiler import REFUSED
from harness.config import slices
from harness.config.devices import Devices
from harness.config.experiment import SettingsError
from harness.planning import disk
from harness.scheduler import orchestrator
from harness.scheduler.orchestrator import Outcome
from harness.sweep import sweep_run
from harness.sweep.progress import TrialBoard
from harness.sweep.search import Strategy
from harness.sweep.space import Limits
from tests.accelerators.test_programs import made, pair
from tests.accelerators.test_results import BY, POD, SHORT, result
from tests.support import sweeps

V3 = slices.slice_of(POD)
ON_POD = Devices("tpu", "local", topology=POD)
ROWS_1_AND_9 = dataclasses.replace(table2.STUDY, rows=(table2.STUDY.rows[0], table2.STUDY.rows[8]))
DEEP = (*R3D_RS, DEPTH.at(200), FRAMES.at(48))
(TRAIN, EVALUATION), (DEEP_TRAIN, DEEP_EVALUATION) = pair(), pair(*DEEP)
INSTALLED = tpu_compiler.installed


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(tpu_compiler, "installed", lambda: BY)
    monkeypatch.setattr(disk, "refuse_small_disk", lambda *_: None)


def quiet():
    return Console(file=io.StringIO(), width=200)


def said(console):
    return console.file.getvalue()


def write(root, *found):
    for one in found:
        Results(root).write(one)


def refuse(place, study=ROWS_1_AND_9, change=lambda one: one, console=None, live=True):
    """Asks whether what a study has left to train may be trained, with some change of each planned run."""
    runs = [change(one) for one in place.plan([study], [0]).runs]
    gate.refuse_too_large(place, (one for one in runs if not one.done), console or quiet(), live)


def on_pod(root, **changes):
    return made(root, **{"devices": ON_POD, **changes})


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
    assert gate.compile_missing([TRAIN], V3, tmp_path, 1, quiet()) == {}
    assert compiled == ([] if is_known else [([(TRAIN.key, V3)], 1)])


def test_one_video_that_does_not_fit_leaves_nothing_to_search(tmp_path, compiled):
    write(tmp_path, result(EVALUATION, reason=SHORT))
    gate.compile_missing([EVALUATION], V3, tmp_path, 1, quiet())
    assert compiled == []


def test_without_the_compiler_any_result_is_believed(tmp_path, compiled, monkeypatch):
    monkeypatch.setattr(tpu_compiler, "installed", lambda: None)
    write(tmp_path, result(TRAIN, compiler="libtpu 0.0.1"), result(EVALUATION, compiler="XLA on the CPU"))
    gate.compile_missing([TRAIN, EVALUATION], V3, tmp_path, 1, quiet())
    assert compiled == []


def test_a_damaged_result_is_compiled_again(tmp_path, compiled):
    path = Results(tmp_path).write(result(TRAIN))
    path.write_text("half of it")
    gate.compile_missing([TRAIN, EVALUATION], V3, tmp_path, 2, quiet())
    assert [key for key, _ in compiled[0][0]] == [TRAIN.key, EVALUATION.key]
    assert Results(tmp_path).read(POD, TRAIN.key) == result(TRAIN)


def test_the_largest_train_step_comes_first_and_no_more_jobs_than_programs(tmp_path, compiled):
    console = quiet()
    wanted = [EVALUATION, TRAIN, DEEP_EVALUATION, DEEP_TRAIN]
    write(tmp_path, result(DEEP_EVALUATION))
    assert gate.compile_missing(wanted, V3, tmp_path, 8, console) == {}
    ((tasks, jobs),) = compiled
    assert [key for key, _ in tasks] == [DEEP_TRAIN.key, TRAIN.key, EVALUATION.key]
    assert jobs == 3
    assert all(text in said(console) for text in ("3 of 4 programs", POD, BY, "3/3"))
    again = quiet()
    assert gate.compile_missing(wanted, V3, tmp_path, 8, again) == {}
    assert (len(compiled), said(again)) == (1, "")


def test_what_failed_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    def compile_all(tasks, jobs):
        yield Progress(1, "3 s", ended=True)
        yield Progress(0, "it died", ended=True, failure="it died")

    monkeypatch.setattr(compilation, "compile_all", compile_all)
    console = quiet()
    assert gate.compile_missing([TRAIN, DEEP_TRAIN], V3, tmp_path, 1, console) == {DEEP_TRAIN.key: "it died"}
    assert "it died" in said(console)


def test_a_slice_that_the_compiler_does_not_know_ends_it_all(tmp_path, monkeypatch):
    begun, ended = [], []

    def compile_all(tasks, jobs):
        try:
            for number, task in enumerate(tasks):
                begun.append(task.program.key)
                yield Progress(number, "x", ended=True, failure=f"--topology {POD}: the TPU compiler does not know it")
        finally:
            ended.append(len(begun))

    monkeypatch.setattr(compilation, "compile_all", compile_all)
    with pytest.raises(SettingsError) as error:
        gate.compile_missing([TRAIN, DEEP_TRAIN], V3, tmp_path, 1, quiet())
    assert str(error.value) == f"--topology {POD}: the TPU compiler does not know it"
    assert (begun, ended) == ([DEEP_TRAIN.key], [1]), "the second is not begun, the first is put away"


def test_a_folder_that_takes_no_results_is_refused_before_anything_is_compiled(tmp_path, compiled, monkeypatch):
    write(tmp_path, result(TRAIN))
    closed = Results(tmp_path).folder
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (closed, os.W_OK))  # root may write anywhere
    gate.compile_missing([TRAIN], V3, tmp_path, 1, quiet())
    with pytest.raises(SettingsError, match=rf"{re.escape(str(closed))}: cannot be written"):
        gate.compile_missing([TRAIN, DEEP_TRAIN], V3, tmp_path, 1, quiet())
    assert compiled == []


def test_a_file_in_the_place_of_the_folder_is_no_folder(tmp_path, compiled):
    Results(tmp_path).folder.write_text("mine")
    with pytest.raises(OSError, match="preflight"):
        gate.compile_missing([TRAIN], V3, tmp_path, 1, quiet())
    assert compiled == []


@pytest.mark.parametrize("live", [True, False])
def test_a_terminal_has_a_bar_unless_something_else_is_live_in_it(tmp_path, compiled, live):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    gate.compile_missing([TRAIN], V3, tmp_path, 1, console, live)
    assert ("0 of 1 programs" in said(console)) == live
    assert ("\x1b[?25l" in said(console)) == live  # a bar hides the cursor
    assert "1/1" in said(console)


def test_within_a_live_display_lines_are_said(tmp_path, compiled):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with Live(console=console):
        refuse(on_pod(tmp_path), console=console, live=False)
    assert "2/2" in said(console) and "of 2 programs:" not in said(console)


@pytest.mark.parametrize(
    ("versions", "name"),
    [
        ({"jax": "0.10.2", "jaxlib": "0.10.1", "libtpu": "0.0.52"}, "libtpu 0.0.52 through jax 0.10.2"),
        ({"jax": "0.10.2", "jaxlib": "0.10.2"}, None),
        ({"jax": "0.10.2", "libtpu": "0.0.52"}, None),
        ({"jaxlib": "0.10.2", "libtpu": "0.0.52"}, None),
        ({}, None),
    ],
)
def test_the_compiler_is_named_by_its_version_and_that_of_jax(monkeypatch, versions, name):
    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, "version", version)
    assert INSTALLED() == name


# What is refused before it trains.


def test_what_fits_is_trained_without_a_word(tmp_path, compiled):
    write(tmp_path, result(TRAIN), result(EVALUATION), result(DEEP_TRAIN), result(DEEP_EVALUATION))
    console = quiet()
    refuse(on_pod(tmp_path), console=console)
    assert (compiled, said(console)) == ([], "")


def test_the_largest_train_step_and_evaluation_are_compiled_where_they_are_not_known(tmp_path, compiled):
    refuse(on_pod(tmp_path))
    ((tasks, _),) = compiled
    assert tasks == [(DEEP_TRAIN.key, V3), (DEEP_EVALUATION.key, V3)]
    refuse(on_pod(tmp_path))
    assert len(compiled) == 1


def test_the_largest_evaluation_may_be_of_another_run_than_the_largest_train_step(tmp_path, compiled):
    def evaluated_in_large_batches(one):
        return dataclasses.replace(one, run=dataclasses.replace(one.run, evaluation_batch=64 if "1" in one.rows else 1))

    assert EVALUATION.of(64).multiply_adds > DEEP_EVALUATION.multiply_adds
    refuse(on_pod(tmp_path), change=evaluated_in_large_batches)
    ((tasks, _),) = compiled
    assert tasks == [(DEEP_TRAIN.key, V3), (EVALUATION.of(64).key, V3)]


def test_the_largest_that_is_known_is_not_compiled_again_for_the_other(tmp_path, compiled):
    write(tmp_path, result(DEEP_TRAIN))
    refuse(on_pod(tmp_path))
    assert [tasks for tasks, _ in compiled] == [[(DEEP_EVALUATION.key, V3)]]


def test_only_what_is_still_to_be_trained_counts(tmp_path, compiled):
    def trained(one):
        return dataclasses.replace(one, done="9" in one.rows)

    refuse(on_pod(tmp_path), change=trained)
    assert [tasks for tasks, _ in compiled] == [[(TRAIN.key, V3), (EVALUATION.key, V3)]]
    write(tmp_path, result(DEEP_TRAIN, reason=SHORT), result(DEEP_TRAIN.of(4)))
    refuse(on_pod(tmp_path), change=trained)


def test_a_study_asks_of_what_it_will_train(tmp_path, monkeypatch):
    """Neither of what is done, nor of what is only to be evaluated again."""
    asked = []

    def refuse_too_large(place, to_train, console):
        asked.append([one.rows for one in to_train])
        raise SettingsError("enough")

    monkeypatch.setattr(gate, "refuse_too_large", refuse_too_large)
    place = on_pod(tmp_path)
    plan = place.plan([table2.STUDY], [0])
    states = {"1": (True, True), "2": (True, False)}
    runs = []
    for one in plan.runs:
        done, evaluated = states.get(one.rows[0], (False, False))
        runs.append(dataclasses.replace(one, done=done, evaluated=evaluated))
    with pytest.raises(SettingsError, match="enough"):
        orchestrator.conduct(place, dataclasses.replace(plan, runs=tuple(runs)), quiet(), None)
    assert asked == [[(str(number),) for number in range(3, 11)]]


@pytest.mark.parametrize(("best", "batch"), [(4, 512), (1, 128)])
def test_what_is_too_large_is_refused_with_the_batch_that_fits(tmp_path, compiled, best, batch):
    smaller = [result(DEEP_TRAIN.of(clips), reason=SHORT) for clips in proving.smaller(8) if clips > best]
    write(tmp_path, result(DEEP_TRAIN, reason=SHORT), *smaller, result(DEEP_TRAIN.of(best)), result(DEEP_EVALUATION))
    with pytest.raises(SettingsError) as error:
        refuse(on_pod(tmp_path))
    text = str(error.value)
    assert all(word in text for word in ("row 9", "depth=200", "train: does not fit", POD, SHORT, "--no-preflight"))
    assert f"--batch {batch} would ({best} clips a core)" in text
    assert "\n" not in text
    assert compiled == []


def test_where_no_batch_fits_none_is_named(tmp_path, compiled):
    write(tmp_path, *(result(DEEP_TRAIN.of(clips), reason=SHORT) for clips in (8, 4, 2, 1)))
    with pytest.raises(SettingsError, match=re.escape(SHORT)) as error:
        refuse(on_pod(tmp_path))
    assert "--batch" not in str(error.value)


def test_what_the_compiler_refuses_is_not_trained_either(tmp_path, compiled):
    write(tmp_path, result(DEEP_TRAIN, reason=f"{REFUSED}: odd"), result(DEEP_EVALUATION))
    with pytest.raises(SettingsError, match=rf"row 9: .*, train: does not compile on TPU {POD}: .*odd.*--no-preflight"):
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
    monkeypatch.setattr(tpu_compiler, "installed", lambda: None)
    reason = "needs about 20.1 GB"
    estimate = {"reason": reason, "estimated": True, "compiler": "XLA on the CPU"}
    counted = result(TRAIN).executable
    write(tmp_path, *(result(DEEP_TRAIN.of(clips), executable=counted, **estimate) for clips in (8, 4, 2, 1)))
    write(tmp_path, result(DEEP_EVALUATION, compiler="XLA on the CPU", estimated=True))
    console = quiet()
    refuse(on_pod(tmp_path), console=console)
    assert all(word in said(console) for word in ("row 9", reason, "estimate"))
    assert compiled == []


@pytest.mark.parametrize("program", [DEEP_TRAIN, DEEP_EVALUATION])
@pytest.mark.parametrize("live", [True, False])
def test_a_program_that_could_not_be_compiled_stops_it(tmp_path, monkeypatch, program, live):
    asked = []

    def compile_missing(wanted, slice_, results, jobs, console, live):
        asked.append(([one.key for one in wanted], slice_, results, jobs, live))
        return {program.key: "it died"}

    monkeypatch.setattr(gate, "compile_missing", compile_missing)
    with pytest.raises(SettingsError, match=rf"depth=200.*, {program.kind}: it died; --no-preflight"):
        refuse(on_pod(tmp_path), live=live)
    assert asked == [([DEEP_TRAIN.key, DEEP_EVALUATION.key], V3, tmp_path, None, live)]


def test_what_another_version_of_the_compiler_found_stops_nothing(tmp_path, compiled):
    write(tmp_path, result(DEEP_TRAIN), result(DEEP_EVALUATION))
    write(tmp_path, *(result(one, reason=SHORT, compiler="libtpu 0.0.1") for one in (TRAIN, EVALUATION)))
    refuse(on_pod(tmp_path))
    assert compiled == []


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
    console, place = quiet(), made(tmp_path, **{"devices": ON_POD, **changes})
    refuse(place, console=console)
    assert (compiled, said(console), gate.wanted(place)) == ([], "", False)


def test_on_a_tpu_it_is_wanted(tmp_path):
    assert gate.wanted(on_pod(tmp_path))
    assert gate.wanted(made(tmp_path, devices=Devices("tpu", "local"))), "whose slice is asked for then"
    assert gate.slice_of(on_pod(tmp_path)) == V3


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
    place = made(tmp_path, devices=dataclasses.replace(ON_POD, topology=topology))
    for ask in (refuse, gate.slice_of):
        with pytest.raises(SettingsError, match=rf"{topology}.* {cores} cores.* 128 .*--replicas {cores}"):
            ask(place)
    assert compiled == []


def test_no_preflight_is_a_flag_of_training():
    given, left_out = (
        additive_study.main.make_context("additive_study", flags).params["preflight"]
        for flags in (["--no-preflight"], [])
    )
    assert (given, left_out) == (False, True)


# Points of a sweep.


def point_of_a_sweep(root, **changes):
    """A sweep by the paper's recipe over two depths, and its points, the smaller one first."""
    place = on_pod(root, **changes)
    asked = sweep_run.sweep_request(place, sweeps.sweep(place, *sweeps.axes((50, 200), (32,))).space, Limits(),
                            Strategy("grid", False, 4, 0), 2, "s")  # fmt: skip
    return asked, asked.sweep.grid()


class Conducted:
    """Carries out whatever it is given; which runs these were."""

    def __init__(self):
        self.runs = []

    def carry_out(self, planned, shown, watch):
        self.runs.append(planned.run.id)
        return Outcome({"event": "done"})


def carried(asked, point, console=None):
    conducted = Conducted()
    outcome = asked._carry(
        conducted, TrialBoard(None, 1, 1.0), None, console or quiet(), point, "trial 3: depth=200", None
    )
    return outcome, conducted.runs


def test_a_point_that_does_not_fit_is_a_failed_trial(tmp_path, compiled):
    asked, (small, large) = point_of_a_sweep(tmp_path)
    train, evaluation = programs.of_run(large.run, 128)
    write(tmp_path, result(train, reason=SHORT), result(train.of(4)), result(evaluation))
    outcome, trained = carried(asked, large)
    assert outcome.event["event"] == "failed"
    assert outcome.failure.startswith("trial 3: depth=200: ") and "\n" not in outcome.failure
    assert all(text in outcome.failure for text in ("does not fit", POD, SHORT, "--batch 512"))
    assert (trained, compiled) == ([], [])
    outcome, trained = carried(asked, small)
    assert (outcome.failure, trained) == ("", [small.run.id])
    assert [[key for key, _ in tasks] for tasks, _ in compiled] == [
        [one.key for one in programs.of_run(small.run, 128)]
    ], "each point is compiled when its turn comes"


def test_a_sweep_on_a_tpu_of_an_unknown_slice_is_refused_before_its_first_trial(tmp_path, compiled):
    asked, _ = point_of_a_sweep(tmp_path, devices=Devices("tpu", "local"))
    with pytest.raises(SettingsError, match=r"--topology.*--no-preflight"):
        asked.carry_out(quiet(), "off")
    assert compiled == [] and not list(tmp_path.rglob("*.db"))


def test_a_sweep_elsewhere_compiles_nothing(tmp_path, compiled):
    asked, (_, large) = point_of_a_sweep(tmp_path, devices=Devices())
    outcome, trained = carried(asked, large)
    assert (outcome.failure, trained, compiled) == ("", [large.run.id], [])
