"""Sweeps from their first point to their report, with a trainer whose accuracies are known; and one that trains."""

import contextlib
import dataclasses
import io
import itertools
import os
import re
import shutil
import socket
import sqlite3
import threading

import pytest
from click.testing import CliRunner
from rich.console import Console

from ablations import figure2
from ablations.toggles import DEPTH, SD
from harness import scaling_sweep
from harness.config.experiment import Overrides
from harness.config.studies import Cell
from harness.planning import workspace
from harness.scheduler import liveness, progress, sharing
from harness.scheduler.optuna_storage import StorageError
from harness.store.run_store import Store
from harness.sweep import sweep_run, sweep_summary
from harness.sweep.progress import TrialBoard
from harness.sweep.search import Strategy
from harness.sweep.space import Axis, Limits, validated
from harness.sweep.trial_store import SweepError, file_of, stored_sweeps, trials
from harness.tracking import wandb_files
from harness.training.worker import Job
from tests.support import pretend, sweeps
from tests.support.sweeps import Killed, Trainer
from tests.support.tiny import PROTOCOL, TINY

GRID = Strategy("grid", False, 4, 0)
TPE = Strategy("tpe", False, 4, 0)
PRUNED = Strategy("tpe", True, 4, 0)
NSGA2 = Strategy("nsga2", False, 4, 0)
WIDE = sweeps.axes((50, 101, 152, 200, 270, 300), (32, 48), (224, 256))


def top1(point):
    """Deeper is better, longer is a little better; in whole videos of 240."""
    return (60 + point.params["depth"] // 3 + point.params["frames"] // 4) / 240


@pytest.fixture
def here(tmp_path):
    return sweeps.workspace(tmp_path / "results")


def told(search):
    return trials(search.study)


def test_a_grid_trains_every_point_once_in_order(here):
    asked, trainer = sweeps.sweep(here), Trainer(here.store, top1)
    search = sweeps.search(here, asked, trainer, GRID, None)
    assert search.run() == []
    expected = [{"depth": depth, "frames": frames, "resolution": 224}
                for depth, frames in itertools.product((50, 101, 200), (32, 48))]  # fmt: skip
    assert [point.params for point in trainer.trained] == expected
    assert [one.params for one in told(search)] == expected
    assert [one.values for one in told(search)] == [(top1(point),) for point in trainer.trained]
    sweeps.search(here, asked, trainer, GRID, None).run()
    assert len(trainer.trained) == len(told(search)) == 6, "a restart has nothing left to do"


@pytest.mark.parametrize("strategy", [GRID, TPE, NSGA2])
def test_points_over_a_limit_are_turned_away_and_never_trained(here, strategy):
    limits = Limits(gflops=sorted(point.gflops for point in sweeps.sweep(here, *WIDE).grid())[9])
    asked, trainer, said = sweeps.sweep(here, *WIDE, limits=limits), Trainer(here.store, top1), []
    search = sweeps.search(here, asked, trainer, strategy, None if strategy is GRID else 8, said=said)
    search.run()
    assert {point.gflops <= limits.gflops for point in trainer.trained} == {True}
    assert len(trainer.trained) == (10 if strategy is GRID else 8)
    away = [one for one in told(search) if one.source == "turned away"]
    assert away
    assert {(one.state, one.values) for one in away} == {("pruned", ())}
    assert all("GFLOPs, more than" in one.reason for one in away)
    assert sum("turned away" in line for line in said) == len(away)
    constraints = {one.number: one.constraints["gflops"] for one in search.study.get_trials() if one.constraints}
    assert {number for number, amount in constraints.items() if amount > 0} == {one.number for one in away}


def test_tpe_finds_the_best_point_within_a_limit(here):
    grid = sweeps.sweep(here, *WIDE).grid()
    limits = Limits(gflops=sorted(point.gflops for point in grid)[15])
    best = max(top1(point) for point in grid if point.gflops <= limits.gflops)
    trainer = Trainer(here.store, top1)
    search = sweeps.search(here, sweeps.sweep(here, *WIDE, limits=limits), trainer, TPE, 12)
    search.run()
    assert len(trainer.trained) == 12
    assert search.study.best_value == best


def test_nsga2_keeps_both_objectives_and_its_generations(here):
    trainer = Trainer(here.store, top1)
    search = sweeps.search(here, sweeps.sweep(here, *WIDE), trainer, NSGA2, 12)
    search.run()
    assert len({point.run.id for point in trainer.trained}) == 12
    complete = [one for one in search.study.get_trials() if one.values]
    assert [one.name for one in search.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(one.values == [top1(asked), asked.gflops] for one, asked in
               ((one, search.sweep.at(one.params)) for one in complete))  # fmt: skip
    generations = [one.system_attrs["NSGAIISampler:generation"] for one in complete]
    assert generations == sorted(generations)
    assert generations.count(0) == generations.count(1) == 4
    assert all(not one.intermediate_values for one in complete)
    with pytest.raises(SweepError, match="Optuna prunes for one objective only"):
        Strategy("nsga2", True, 4, 0)


@pytest.mark.parametrize(("strategy", "dies"), [(TPE, (1, 20)), (PRUNED, (7, 40)), (NSGA2, (5, 100)), (GRID, (3, 60))])
def test_a_killed_sweep_goes_on_as_if_it_had_not_been(tmp_path, strategy, dies):
    wanted = None if strategy is GRID else 8
    searched = sweeps.axes() if strategy is GRID else WIDE
    calm, broken = (sweeps.workspace(tmp_path / name) for name in ("calm", "broken"))
    undisturbed = Trainer(calm.store, top1)
    expected = sweeps.search(calm, sweeps.sweep(calm, *searched), undisturbed, strategy, wanted)
    expected.run()

    trainer = Trainer(broken.store, top1, dies=dies)
    with pytest.raises(Killed):
        sweeps.search(broken, sweeps.sweep(broken, *searched), trainer, strategy, wanted).run()
    assert [one.state for one in stored_sweeps(broken.store.root)[0].trials][-1] == "running"
    search = sweeps.search(broken, sweeps.sweep(broken, *searched), trainer, strategy, wanted)
    search.run()
    assert [(one.number, one.state, one.params, one.values, one.steps) for one in told(search)] == [
        (one.number, one.state, one.params, one.values, one.steps) for one in told(expected)
    ]
    assert trainer.steps == undisturbed.steps, "each step of a run was trained once"
    again = len(trainer.trained)
    assert again - len(undisturbed.trained) in (0, 1), "the run that was killed is begun twice, and no other"
    sweeps.search(broken, sweeps.sweep(broken, *searched), trainer, strategy, wanted).run()
    assert len(trainer.trained) == again


def test_a_trial_killed_before_it_had_a_point_is_given_up(here):
    asked, trainer = sweeps.sweep(here), Trainer(here.store, top1)
    search = sweeps.search(here, asked, trainer, TPE, 2)
    search.study.ask({})
    search.run()
    assert [one.state for one in told(search)] == ["fail", "complete", "complete"]


def test_a_point_that_was_left_waiting_is_tried(here):
    asked, trainer = sweeps.sweep(here), Trainer(here.store, top1)
    search = sweeps.search(here, asked, trainer, TPE, 3)
    for depth in (200, 101):
        search.study.enqueue_trial({"depth": depth, "frames": 48, "resolution": 224})
    search.run()
    assert [point.params["depth"] for point in trainer.trained][:2] == [200, 101]
    assert len(trainer.trained) == 3


class Waits(Exception):  # noqa: N818
    """A worker has nothing to do but to wait for others."""


def waits():
    raise Waits


@pytest.mark.parametrize("strategy", [GRID, NSGA2])
def test_a_worker_leaves_a_point_to_another_and_waits_for_it(here, strategy):
    asked, others, trials = sweeps.sweep(here), Trainer(here.store, top1), None if strategy is GRID else 4
    second = sweeps.search(here, asked, others, strategy, trials, token="second", wait=waits)

    def carry(point, name, watch):
        if trainer.trained:
            return trainer(point, name, watch)
        with pytest.raises(Waits):
            second.run()
        assert point.run.id not in {one.run.id for one in others.trained}
        assert {one.state for one in told(second) if one.run == point.run.id} >= {"running"}
        return trainer(point, name, watch)

    trainer = Trainer(here.store, top1)
    first = sweeps.search(here, asked, carry, strategy, trials, token="first")
    assert first.run() == []
    assert len(trainer.trained) == 1, "the others were the second worker's"
    trained = {point.run.id for point in [*trainer.trained, *others.trained]}
    assert len(trained) == len(trainer.trained) + len(others.trained) == (trials or 6)
    assert {one.run for one in told(first) if one.state == "complete" and one.source == "trained"} == trained
    second.run()
    assert len(others.trained) == len(trained) - 1, "nothing is left to wait for"


@pytest.mark.parametrize("strategy", [GRID, TPE])
def test_workers_at_the_same_time_train_no_point_twice_and_none_too_many(here, strategy):
    asked, trials = sweeps.sweep(here), None if strategy is GRID else 5
    barrier, trainers, failures = threading.Barrier(2), [Trainer(here.store, top1) for _ in range(2)], []

    def work(trainer, token):
        def carry(point, name, watch):
            if not trainer.trained:
                barrier.wait(60)
            return trainer(point, name, watch)

        failures.append(sweeps.search(here, asked, carry, strategy, trials, token=token, wait=lambda: None).run())

    sweeps.search(here, asked, None, strategy)
    threads = [threading.Thread(target=work, args=one) for one in zip(trainers, ("first", "second"), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [[], []]
    both = [point.run.id for trainer in trainers for point in trainer.trained]
    assert len(both) == len(set(both)) == (trials or 6)
    assert all(trainer.trained for trainer in trainers)
    (kept,) = stored_sweeps(here.store.root)
    assert {one.state for one in kept.trials if one.source == "trained"} == {"complete"}


def test_a_killed_workers_trial_is_taken_up_at_once(here, monkeypatch):
    monkeypatch.setattr(liveness, "gone", lambda token: token == "killed")
    asked, trainer = sweeps.sweep(here), Trainer(here.store, top1, dies=(1, 20))
    first = sweeps.search(here, asked, trainer, GRID, None, token="killed")
    first.workers.at = lambda _: contextlib.nullcontext()  # a process that is killed gives nothing back
    with pytest.raises(Killed):
        first.run()
    assert told(first)[0].owner[1] == "killed"
    second = sweeps.search(here, asked, trainer, GRID, None, token="second")
    second.run()
    assert [one.state for one in told(second)] == ["complete"] * 6
    assert set(told(second)[0].reports) == {20, 40, 60, 80, 100}
    assert len(trainer.trained) == 7
    assert {one.owner[1] for one in told(second)} == {"second"}


def test_a_silent_workers_point_goes_on_elsewhere_and_its_return_does_no_harm(here):
    asked, others, said = sweeps.sweep(here), Trainer(here.store, top1), []
    second = sweeps.search(here, asked, others, GRID, None, token="second", wait=waits)

    def carry(point, name, watch):
        watch({"done": -(-point.steps // 5), "total": point.steps, "top1": 0.25})
        with contextlib.closing(sqlite3.connect(file_of(here.store.root, "s"))) as plain:
            plain.execute("update trial_heartbeats set heartbeat = datetime('now', '-30 seconds')")
            plain.commit()
            with pytest.raises(Waits):
                second.run()
            assert [one.state for one in told(second)].count("running") == 1
            plain.execute("update trial_heartbeats set heartbeat = datetime('now', '-1 hour')")
            plain.commit()
        assert second.run() == []
        watch({"done": -(-2 * point.steps // 5), "total": point.steps, "top1": 0.5})
        return sweeps.Ended({"event": "done"})

    first = sweeps.search(here, asked, carry, GRID, None, said=said, token="first")
    assert first.run() == []
    assert any("trial 0: depth=50" in line and "given up while this worker was silent" in line for line in said)
    by_run = {}
    for one in told(first):
        by_run.setdefault(one.run, []).append(one)
    (lost, again), *rest = by_run.values()
    assert (lost.state, lost.reason, again.state, again.source) == ("fail", "", "complete", "trained")
    assert dict(lost.reports) == {20: 0.25}
    assert again.reports[20] == 0.25, "the validations of before count"
    assert [len(one) for one in rest] == [1] * 5
    assert len(others.trained) == 6


def test_a_worker_that_waits_for_another_to_choose_can_be_stopped(here):
    asked = sweeps.sweep(here)
    first, second = (sweeps.search(here, asked, None, token=name).workers for name in ("first", "second"))

    def stopped():
        raise KeyboardInterrupt

    with first.alone(), pytest.raises(KeyboardInterrupt), second.alone(stopped):
        raise AssertionError("two choose at once")
    with second.alone(stopped):
        pass


def test_other_code_is_refused_while_others_are_at_the_sweep(here, monkeypatch):
    asked, same = sweeps.sweep(here), sharing.code()
    other = {**same, "files": {**same["files"], "harness/training/loop.py": "0" * 12}}

    def carry(point, name, watch):
        second = sweeps.search(here, asked, None, token="second")
        assert second.workers.join("here") == [f"Joining {socket.gethostname()}:{os.getpid()}."]
        with monkeypatch.context() as patched:
            patched.setattr(sharing, "code", lambda: other)
            with pytest.raises(StorageError, match=r"with other code: code: harness/training/loop\.py; start with"):
                second.workers.join("here")
        return Trainer(here.store, top1)(point, name, watch)

    first = sweeps.search(here, asked, carry, trials=1, token="first")
    assert first.workers.join("here") == []
    first.run()
    monkeypatch.setattr(sharing, "code", lambda: other)
    (line,) = sweeps.search(here, asked, None, token="second").workers.join("here")
    assert line == "Sweep s: goes on with other code than it was begun with: code: harness/training/loop.py"


def test_sqlite_is_refused_to_a_second_machine(here):
    search = sweeps.search(here, sweeps.sweep(here), None)
    search.study.ask({}).set_user_attr("owner", ["elsewhere:7", "token"])
    with pytest.raises(StorageError, match=r"here: elsewhere trains with it, and SQLite is for one machine"):
        search.workers.join("here")


def test_recorded_runs_are_told_once_and_not_trained(here):
    asked = sweeps.sweep(here, *WIDE)
    grid = asked.grid()
    for point in grid[3:10]:
        sweeps.keep(here.store, sweeps.record(point.run, top1(point)))
    for other in (
        Cell((DEPTH.at(50), *sweeps.BASE), seed=1),
        Cell((DEPTH.at(50),)),
        Cell((*sweeps.BASE, SD.at(0.1))[:1]),
    ):
        sweeps.keep(here.store, sweeps.record(here.complete(other), 0.125))
    for strategy in (TPE, NSGA2):
        trainer = Trainer(here.store, top1)
        search = sweeps.search(here, asked, trainer, strategy, 0, name=strategy.sampler)
        search.run()
        assert trainer.trained == []
        assert {one.run for one in told(search)} == {point.run.id for point in grid[3:10]}
        assert {(one.state, one.source, one.steps) for one in told(search)} == {("complete", "recorded", 0)}
        sweeps.search(here, asked, trainer, strategy, 0, name=strategy.sampler).run()
        assert len(told(search)) == 7
    attributes = [one.system_attrs["NSGAIISampler:generation"] for one in search.study.get_trials()]
    assert attributes == [0, 0, 0, 0, 1, 1, 1], "what was told belongs to generations, so that it has children"


def test_a_limit_keeps_recorded_points_above_it_out(here):
    asked = sweeps.sweep(here, limits=Limits(gflops=1e-3 + min(point.gflops for point in sweeps.sweep(here).grid())))
    for point in asked.grid():
        sweeps.keep(here.store, sweeps.record(point.run, top1(point)))
    search = sweeps.search(here, asked, Trainer(here.store, top1), TPE, 0)
    search.run()
    assert len(told(search)) == 1


def test_proposals_that_cost_nothing_end(here):
    asked, trainer, said = sweeps.sweep(here), Trainer(here.store, top1), []
    search = sweeps.search(here, asked, trainer, TPE, 100, said=said)
    search.run()
    assert len(trainer.trained) == 6, "all there are"
    assert "No point is left within the limits that was not tried." in said
    assert len(told(search)) < 6 * 12, "ten in a row that cost nothing, then one that was not tried"
    assert {one.source for one in told(search)} <= {"trained", "repeated"}


def test_a_range_is_searched_by_tpe(here):
    asked = sweeps.sweep(here, *sweeps.axes((50, 101), (32,)), Axis(SD, (), 0.0, 0.4))
    trainer = Trainer(here.store, lambda point: round(200 * (1 - abs(point.params["sd"] - 0.3))) / 240)
    search = sweeps.search(here, asked, trainer, TPE, 25)
    search.run()
    assert abs(search.study.best_params["sd"] - 0.3) < 0.03
    assert len({point.run.id for point in trainer.trained}) == 25


def test_a_run_behind_the_median_is_pruned_and_its_steps_counted(here):
    order = [point.run.id for point in sweeps.sweep(here, *WIDE).grid()]
    sinking = Trainer(
        here.store, lambda point: 0.5, lambda point, percent: percent / 200 - 0.01 * order.index(point.run.id)
    )
    search = sweeps.search(here, sweeps.sweep(here, *WIDE), sinking, PRUNED, 12)
    search.run()
    ended = [one for one in told(search) if one.source == "trained"]
    pruned = [one for one in ended if one.state == "pruned"]
    assert pruned
    assert min(one.number for one in pruned) >= 5, "the first five end"
    for one in pruned:
        done = [other for other in ended if other.state == "complete" and other.number < one.number]
        last = max(one.reports)
        assert last in (40, 60, 80)
        at = sorted(other.reports[last] for other in done)
        median = (at[(len(at) - 1) // 2] + at[len(at) // 2]) / 2
        assert max(one.reports.values()) < median
        assert one.steps == -(-one.schedule // 5) * last // 20
    assert len(ended) == 12
    (kept,) = stored_sweeps(here.store.root)
    summary = sweep_summary.summarize(kept, here.store)
    saved = sum(one.schedule - one.steps for one in pruned)
    schedule = pruned[0].schedule
    assert f"Pruning saved {saved:,} of the grid's {24 * schedule:,} training steps" in summary.saving_note
    steps = summary.saving.set_index("what")["steps"]
    assert steps["not trained: pruned"] == saved
    assert steps.iloc[1:].sum() == steps.iloc[0]


def test_a_failed_point_is_named_and_tried_once_more(here):
    asked = sweeps.sweep(here)
    fails = {"now": True}
    trainer = Trainer(here.store, top1, fails=lambda point: fails["now"] and point.params["depth"] == 101)
    search = sweeps.search(here, asked, trainer, GRID, None)
    failures = search.run()
    assert len(failures) == 2
    assert all("the training loss is nan" in line for line in failures)
    assert [one.state for one in told(search)].count("fail") == 2
    assert len(trainer.trained) == 6, "the others are done, and none is tried twice"
    fails["now"] = False
    assert sweeps.search(here, asked, trainer, GRID, None).run() == []
    assert len(trainer.trained) == 8
    assert len({one.run for one in told(search) if one.state == "complete"}) == 6


def test_more_trials_go_on_where_fewer_ended(here):
    trainer, asked = Trainer(here.store, top1), sweeps.sweep(here, *WIDE)
    sweeps.search(here, asked, trainer, TPE, 3).run()
    assert len(trainer.trained) == 3
    sweeps.search(here, asked, trainer, TPE, 5).run()
    assert len({point.run.id for point in trainer.trained}) == len(trainer.trained) == 5


def call(*words):
    return CliRunner().invoke(scaling_sweep.main, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tune", "sd=0.3:0.0"], "--tune sd=0.3:0.0: expected LOW below HIGH"),
        (["--tune", "nope=0:1"], "unknown toggle 'nope'"),
        (["--tune", "dstem=0:1"], "dstem has no range, list its values: dstem=v1,v0"),
        (["--sampler", "grid", "--trials", "3"], "--trials 3: a grid trains every point within the limits"),
        (["--sampler", "grid", "--tune", "sd=0.0:0.3"], "sd=0:0.3: is a range, which has no grid"),
        (["--sampler", "nsga2", "--pruner", "median"], "--pruner median: Optuna prunes for one objective only"),
        (["--max-gflops", "0.001"], "no point of the space lies within the limits: the cheapest has 0.0399 GFLOPs"),
        (["--max-gflops", "nan"], "nan is no number"),
        (["--depth", "51"], "depth=51: expected one of 50"),
        (["--base", "depth=101"], "--base depth=101: say --depth 101"),
        (["--base", "ls,ls=0.2"], "both set task.losses.label_smoothing"),
        (["--name", "../up"], "--name '../up': expected letters"),
        (
            ["--strategy", "multi_worker_mirrored", "--worker-hosts", "a:1,b:1", "--task-index", "0"],
            "led by one process",
        ),
        (["--profile", "paper", "--data", "embedded", "--max-hours", "1"], "--max-hours 1: nothing was measured here"),
        (["--storage", "nothing"], "--storage: is no URL"),
        (["--name", "runs"], "--name runs: is what the queue of runs is called"),
    ],
)
def test_mistakes_are_one_line(tmp_path, words, message):
    result = call(*words, "--plan", "--results", tmp_path / "results")
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "results" / "sweeps").exists()


def test_a_plan_says_what_is_searched_and_changes_nothing(tmp_path):
    result = call("--plan", "--max-gflops", "0.06", "--results", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert "depth=50,101,152,200,270,300 frames=32,48 resolution=224,256; every point has ls sd wd ep sj se dstem" in (
        result.output
    )
    assert "turned away: 0.081 GFLOPs, more than 0.06" in result.output
    assert not (tmp_path / "results").exists()
    assert call("--draw", "--results", tmp_path / "results").exit_code == 2


def test_a_plan_of_the_papers_networks_needs_no_data(tmp_path):
    result = call("--plan", "--profile", "paper", "--depth", "50", "--frames", "32", "--resolution", "224",
                  "--results", tmp_path / "results")  # fmt: skip
    assert result.exit_code == 0, result.output
    # Three passes over 73,682 batches of 1024 clips of 224 x 224, and 30 views of 17,706 videos of 256 x 256.
    small = 57_490_997_248 * (224 / 256) ** 2
    work = 3 * small * 73_682 * 1024 + 57_490_997_248 * 30 * 17_706
    hours = float(re.search(r"at least ([\d,.e+]+) TPU", result.output)[1].replace(",", ""))
    assert hours == pytest.approx(2 * work / 61.5e12 / 3600, rel=0.01)


def test_help_has_an_example():
    assert "python -m harness.scaling_sweep --sampler nsga2" in call("--help").output


def test_help_names_the_defaults_that_hold():
    text = " ".join(call("--help").output.split())
    assert f"[default: {','.join(one.toggle.key for one in figure2.BASE)}]" in text
    for values in figure2.SCALES.values():
        assert f"[default: {','.join(map(str, values))}]" in text
    assert f"[default: {scaling_sweep.TRIALS}]" in text


def test_a_damaged_record_is_named_and_not_trained_over(here):
    point = sweeps.sweep(here).grid()[0]
    sweeps.keep(here.store, sweeps.record(point.run, 0.5))
    (predictions,) = here.store.attempt(point.run.id, 0).folder.glob("predictions-*")
    predictions.write_bytes(b"damaged")
    asked = sweep_run.sweep_request(here, sweeps.sweep(here).space, Limits(), TPE, 1, "s")
    outcome = asked._carry(None, None, None, None, point, "trial 3: depth=50", None)
    assert outcome.failure.startswith("trial 3: depth=50: ")
    assert str(predictions) in outcome.failure


def test_the_live_table_grows_with_the_trials(here):
    asked = sweep_run.sweep_request(here, sweeps.sweep(here).space, Limits(), TPE, 4, "s")
    board, (first, second, *_) = TrialBoard(1e10, 4, 1e12), asked.sweep.grid()
    console = Console(force_terminal=True, file=io.StringIO(), width=160)
    with progress.progress_view(board, console) as shown:
        for number, point in enumerate((first, second)):
            board.begin(asked._planned(point, f"trial {number}: some name"))
            shown.event(point.run.id, {"event": "attempt", "step": 0})
        shown.event(first.run.id, {"event": "interrupted", "reason": "pruned after 40 %", "watched": True})
        ahead = board.remaining
        shown.event(second.run.id, {"event": "done", "top1": 0.5, "top5": 1.0, "videos": 240})
    assert 2 * 100 < ahead <= 2 * 100 + board.states[second.run.id].planned.work / 1e10
    said = console.file.getvalue()
    assert "trial 0" in said
    assert "pruned" in said
    assert "after 40 %" in said
    assert "top-1 50.0 % of 240 videos" in said


@pytest.mark.slow
def test_a_run_is_ended_at_a_validation_and_gone_on_with_in_the_same_process(tmp_path, data, training_process):
    here = dataclasses.replace(
        sweeps.workspace(tmp_path),
        profile=TINY,
        data=workspace.data_set(str(data.folder), TINY, tmp_path),
        cut=Overrides(steps=5, validation_videos=8),
    )
    (point, *_) = sweeps.sweep(here, *sweeps.axes((50,), (32,))).grid()
    run, seen = validated(point.run), []

    def watch(event):
        seen.append(event["step"])
        return "behind the others" if event["step"] == 2 else None

    job = Job("train", run, here.data.folder, here.data.spec, here.store.root)
    with training_process.lent() as worker:
        *_, last = worker.events(job, watch)
        assert last == {"event": "interrupted", "reason": "behind the others", "watched": True}
        assert seen == [1, 2]
        process = worker._process.pid
        assert str(here.store.state(run.id)) == "interrupted at step 2"
        events = list(worker.events(job, lambda _: None))
        assert worker._process.pid == process
    assert [event["step"] for event in events if event["event"] == "attempt"] == [2]
    assert events[-1]["event"] == "done"
    assert here.store.read(run.id).provenance["resumed_at"] == [2]


SMALL = ["--steps", "2", "--validation-videos", "8", "--depth", "50,101", "--frames", "32", "--resolution", "224"]


@pytest.mark.usefixtures("tiny_profile", "kept_process")
def test_a_sweep_that_trains_and_one_that_is_told(tmp_path, data, monkeypatch):
    """The first trains for real, the second, which it tells of, by pretence."""
    small = [*SMALL, "--profile", "tiny", "--data", data.folder, "--results", tmp_path / "results"]

    def trained(*words):
        result = call(*small, *words, "--plots", tmp_path / "plots")
        assert result.exit_code == 0, result.output
        return result.output

    name = "tpe-tiny-on-tiny-cut-steps-2-validation-videos-8"
    first = trained("--trials", "1", "--pruner", "none")
    store = Store(tmp_path / "results")
    assert first.count(": done after") == len(store.ids()) == 1
    record = store.read(store.ids()[0])
    assert [point["step"] for point in record.curve if point["split"] == "validation"] == [1, 2]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        f"sweep-{name}-front.png",
        f"sweep-{name}-front.pdf",
        f"sweep-{name}-front.svg",
    }
    assert "CUT SHORT" in (tmp_path / f"results/tables/sweep-{name}-front.md").read_text()

    again = trained("--trials", "1", "--pruner", "none")
    assert ": done after" not in again
    assert "To train: 0 of 1 points, 1 are." in again

    other = call(*small, "--depth", "50", "--pruner", "none")
    assert other.exit_code == 2
    assert "is another sweep (space: it has depth=50,101 frames=32" in other.output

    kept = (store.folder(record.id) / "record.json").read_bytes()
    monkeypatch.setenv("PRETEND_SECONDS", "0")
    with pretend.pretending():
        second = trained("--sampler", "nsga2", "--trials", "1")
    top1 = record.evaluations[f"{PROTOCOL}-first8"].top1
    assert f"recorded already, top-1 {100 * top1:.1f} %" in second
    assert second.count(": done after") == 1
    assert (store.folder(record.id) / "record.json").read_bytes() == kept
    assert [summary.name for summary in sweep_summary.summaries(store.root)] == [name.replace("tpe", "nsga2"), name]
    groups = {one.group for one in wandb_files.read_runs(store.root / "wandb")}
    assert groups == {f"sweep-{name}", f"sweep-{name}".replace("tpe", "nsga2")}

    drawn = trained("--draw")
    assert ": done after" not in drawn
    shutil.rmtree(store.folder(record.id))
    assert "1 record missing" in trained("--draw")
