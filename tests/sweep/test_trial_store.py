"""Sweeps in Optuna's storage: no trial popped twice, no other sweep gone on with, nothing secret said."""

import multiprocessing
import sqlite3

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ablations.toggles import DSTEM, RA, SD, TOGGLES
from harness.scheduler.optuna_storage import StorageError, faults_named, open_storage, redacted, url_of
from harness.sweep import trial_store
from harness.sweep.space import Axis, Limits, space
from harness.sweep.trial_store import SweepError, file_of, stored_sweeps, study, trials
from tests.support import sweeps

SETTINGS = {"sampler": "tpe", "space": ["depth=50,101"], "seed": 0, "max gflops": None}
WORKERS, EACH = 4, 15


def begun(path, settings=SETTINGS, name="s", objectives=("top-1",)):
    return study(open_storage(url_of(path)), name, settings, objectives, "here")


def pop(path, barrier, numbers):
    """Pops waiting trials, at the same time as the other processes."""
    made = optuna.load_study(study_name="s", storage=open_storage(url_of(path)))
    barrier.wait()
    numbers.put([made.ask({"x": IntDistribution(0, 1000)}).params["x"] for _ in range(EACH)])


def test_no_waiting_trial_is_popped_twice(tmp_path):
    path = tmp_path / "a" / "s.db"
    made = begun(path)
    for number in range(WORKERS * EACH):
        made.enqueue_trial({"x": number})
    context = multiprocessing.get_context("spawn")
    barrier, numbers = context.Barrier(WORKERS), context.Queue()
    processes = [context.Process(target=pop, args=(path, barrier, numbers)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    popped = [number for _ in processes for number in numbers.get(timeout=120)]
    for process in processes:
        process.join()
    assert sorted(popped) == list(range(WORKERS * EACH))


def test_a_restart_finds_its_sweep_and_a_file_for_optuna_alone(tmp_path):
    path = tmp_path / "with {braces} and #.db"
    begun(path).ask({"x": CategoricalDistribution([1, 2])})
    assert len(trials(begun(path))) == 1
    assert path.is_file(), "under just this name"
    with sqlite3.connect(path) as plain:
        assert plain.execute("select study_name from studies").fetchall() == [("s",)]
    assert begun(path, name="two", objectives=("top-1", "GFLOPs")).metric_names == ["top-1", "GFLOPs"]


def test_another_sweep_is_refused_where_it_differs(tmp_path):
    begun(tmp_path / "s.db")
    with pytest.raises(SweepError) as error:
        begun(tmp_path / "s.db", SETTINGS | {"space": ["depth=50"], "max gflops": 2.0})
    assert "'s' is another sweep (space: it has depth=50,101, now depth=50; max gflops: it has none, now 2.0)" in str(
        error.value
    )


def test_a_study_of_somebody_elses_is_refused(tmp_path):
    theirs = optuna.create_study(storage=open_storage(url_of(tmp_path / "s.db")), study_name="s")
    theirs.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(SweepError, match="holds a study 's' that is no sweep of this harness"):
        begun(tmp_path / "s.db")
    assert stored_sweeps(tmp_path) == []


def test_a_damaged_file_is_one_line(tmp_path):
    path = file_of(tmp_path, "s")
    begun(path)
    path.write_bytes(b"no database" * 1000)
    for use in (lambda: open_storage(url_of(path)), lambda: stored_sweeps(tmp_path)):
        with pytest.raises((SweepError, StorageError)) as error:
            use()
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        assert "not a database" in str(error.value)


def test_a_file_damaged_in_the_middle_of_a_sweep_is_one_line(tmp_path):
    path = file_of(tmp_path, "s")
    made = begun(path)
    path.write_bytes(path.read_bytes()[:4096] + b"x" * 100_000)
    with pytest.raises(StorageError, match="records are not lost"), faults_named(url_of(path)):
        made.ask({"x": CategoricalDistribution([1, 2])})
        made.get_trials()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hunter2@example.invalid:5432/db?sslpassword=hunter3",
        "mysql+nodriver://me:hunter2@example.invalid/db?secret=hunter3",
        "nothing at all with hunter2",
        "postgresql+psycopg://me:pass@hunter2@example.invalid/db",
        "postgresql+psycopg://me:{hunter2}@example.invalid/db",
        "postgresql+psycopg://me:{hunter2@example.invalid/db",
        "sqlite:////dev/null/hunter2/no.db",
    ],
)
def test_credentials_are_not_said(url):
    with pytest.raises((StorageError, OSError)) as error:
        open_storage(url)
    if "/dev/null" not in url:
        assert "hunter" not in str(error.value)
        assert "hunter" not in redacted(url)
        assert "\n" not in str(error.value)


def test_what_a_storage_is_called():
    assert redacted("postgresql+psycopg://me:pw@host:5432/db?a=b") == "postgresql+psycopg://host:5432/db"
    assert redacted("sqlite:////tmp/s.db") == "sqlite:////tmp/s.db"


def test_a_trial_that_another_process_began_is_gone_on_with(tmp_path):
    first = begun(tmp_path / "s.db").ask({"x": CategoricalDistribution([1])})
    first.report(0.25, 20)
    again = begun(tmp_path / "s.db")
    trial = trial_store.live(again, first.number)
    trial.report(0.5, 40)
    again.tell(trial, 0.75)
    (told,) = trials(again)
    assert (told.state, told.values, dict(told.reports)) == ("complete", (0.75,), {20: 0.25, 40: 0.5})


def test_distributions_of_every_kind_of_axis():
    axes = [Axis(DSTEM, ("v0", "v1")), Axis(SD, (), 0.0, 0.3), Axis(TOGGLES["wd"], (), 1e-5, 1e-3, log=True),
            Axis(RA, (), 0, 10, whole=True)]  # fmt: skip
    assert trial_store.distributions(space(axes, ())) == {
        "dstem": CategoricalDistribution(("v0", "v1")),
        "sd": FloatDistribution(0.0, 0.3),
        "wd": FloatDistribution(1e-5, 1e-3, log=True),
        "ra": IntDistribution(0, 10),
    }


def test_what_is_kept_is_found_without_the_workspace(tmp_path):
    asked = sweeps.sweep(sweeps.workspace(tmp_path))
    grid = asked.grid()
    limits = Limits(gflops=sorted(point.gflops for point in grid)[0])
    made = begun(file_of(tmp_path, "s"))
    trial_store.keep_space(made, asked.space, grid, limits, "A profile.")
    (kept,) = stored_sweeps(tmp_path)
    assert (kept.name, kept.caption, kept.settings) == ("s", "A profile.", SETTINGS)
    assert [one["key"] for one in kept.axes] == ["depth", "frames", "resolution"]
    assert {one["run"]: one["within"] for one in kept.points} == {
        point.run.id: point.gflops <= limits.gflops for point in grid
    }


def test_an_owner_of_before_sweeps_were_shared_is_nobody(tmp_path):
    made = begun(tmp_path / "s.db")
    for owner in ("0123456789ab", None, ["host:1", "token"]):
        made.ask({}).set_user_attr(trial_store.OWNER, owner)
    assert [one.owner for one in trials(made)] == [("", ""), ("", ""), ("host:1", "token")]


def test_seeds_of_trials_differ():
    seeds = {trial_store.derived_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000
