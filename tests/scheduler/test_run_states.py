"""Where items stand by their attempts, by hand; and that nobody who claims by it trains a run twice, by simulation."""

import random

import pytest

from harness.scheduler import run_states
from harness.scheduler.run_states import Attempt, Item


def attempts(*told, item=Item("a", "a", "s"), first=0):  # noqa: B008 - it is frozen
    """Attempts at an item by their states; "!" marks one asked for again, ":5" the step that it reached."""
    found = []
    for number, one in enumerate(told, first):
        state, _, step = one.rstrip("!").partition(":")
        found.append(Attempt(number, item, state, one.endswith("!"), progress={"trained": int(step or 0)}))
    return found


@pytest.mark.parametrize(
    ("told", "recorded", "name"),
    [
        ([], False, "missing"),
        (["waiting"], False, "waiting"),
        (["running", "waiting"], False, "running"),
        (["done"], True, "done"),
        ([], True, "done"),
        (["done"], False, "missing"),
        (["failed"], False, "missing"),
        (["failed", "failed"], False, "failed"),
        (["failed", "failed", "waiting!"], False, "waiting"),
        (["failed", "failed", "failed!"], False, "missing"),
        (["failed", "failed", "failed!", "failed"], False, "failed"),
        (["failed", "failed", "done", "failed"], False, "missing"),
        (["cancelled"], False, "cancelled"),
        (["failed", "failed", "cancelled!"], False, "cancelled"),
        (["cancelled", "preempted!"], False, "missing"),
        (["superseded"], False, "missing"),
        (["failed", "superseded", "failed"], False, "failed"),
        (["preempted"] * 9, False, "missing"),
        (["stale"] * 3, False, "missing"),
        (["stale"] * 4, False, "failed"),
        (["stale:1", "stale:2", "stale:3", "stale:4", "stale:5"], False, "missing"),
    ],
)
def test_standing(told, recorded, name):
    assert run_states.standing(attempts(*told), recorded, retries=1).name == name


CHAIN = [Item("a", "a", "s", 0), Item("b", "b", "s", 1, "a"), Item("c", "c", "s", 2, "b")]


def names(held, recorded=()):
    return [one.name for one in run_states.standings(CHAIN, held, set(recorded), 0).values()]


def test_what_starts_from_a_failed_run_is_blocked_however_far_below():
    assert names(attempts("failed")) == ["failed", "blocked", "blocked"]
    assert names(attempts("cancelled")) == ["cancelled", "blocked", "blocked"]
    assert names(attempts("failed", "waiting!")) == ["waiting", "missing", "missing"]
    assert names(attempts("failed"), "b") == ["failed", "done", "missing"], "what it starts from is there"


def test_litter_and_untold():
    held = attempts("waiting", "waiting", "running", "waiting")
    items = {"a": CHAIN[0]}
    assert [one.number for one in run_states.litter(held, ())] == [1, 3]
    assert [one.number for one in run_states.litter(held, "a")] == [0, 1, 3]
    assert run_states.untold(attempts("failed", "stale"), items, "a") == [CHAIN[0]]
    assert not run_states.untold(attempts("failed", "stale"), items, "")
    assert not run_states.untold(attempts("stale", "done"), items, "a")


def test_claimable_goes_by_the_plan_and_waits_for_parents():
    held = [*attempts("waiting", item=CHAIN[1]), *attempts("waiting", item=CHAIN[0], first=1)]
    items = {one.key: one for one in CHAIN}
    assert [one.number for one in run_states.claimable(held, items, ())] == [1]
    assert [one.number for one in run_states.claimable(held, items, "a")] == [0]
    assert not run_states.claimable(attempts("running", "waiting"), items, ())


@pytest.mark.parametrize("seed", range(40))
def test_workers_with_old_lists_never_train_a_run_twice(seed):
    rng, items = random.Random(seed), {one.key: one for one in [*CHAIN, Item("d", "d", "s", 3)]}
    held, recorded, seen = [], set(), [[] for _ in range(4)]
    for _ in range(3000):
        mine, does = rng.randrange(4), rng.choice(("list", "claim", "end", "add", "add"))
        running = [one for one in held if one.state == "running"]
        if does == "list":
            seen[mine] = run_states.claimable(list(held), items, set(recorded))
        elif does == "claim" and seen[mine]:
            one = held[seen[mine].pop(0).number]
            if one.state == "waiting":  # the compare-and-set
                key = one.item.key
                assert all(other.item.key != key for other in running)
                assert key not in recorded
                assert not one.item.parent or one.item.parent in recorded
                held[one.number] = Attempt(one.number, one.item, "running")
        elif does == "end" and running:
            one, state = rng.choice(running), rng.choice(("done", "preempted", "stale"))
            recorded |= {one.item.key} if state == "done" else set()
            held[one.number] = Attempt(one.number, one.item, state)
        elif does == "add":
            item = rng.choice(list(items.values()))
            if sum(one.state == "waiting" and one.item == item for one in held) < 3:
                held.append(Attempt(len(held), item, "waiting"))
    assert recorded == set(items)
