"""Workers that train together: what the first of them says, what the others make of it, and what comes of a loss."""

import json
import signal
from types import SimpleNamespace

import pytest

from harness.config.devices import Devices, DevicesError
from harness.scheduler import chief as chief_
from harness.scheduler import orchestrator, sharing
from harness.scheduler.chief import Broadcast, Follower, SilentError
from harness.scheduler.optuna_storage import UnansweredError
from harness.scheduler.orchestrator import Orchestrator, Stopped

FIRST, SECOND = (Devices("multi_worker_mirrored", None, ("a:1", "b:1"), index) for index in (0, 1))
HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when somebody sleeps, by so much."""
    now = SimpleNamespace(seconds=0.0, then=lambda: None)

    def sleep(seconds):
        now.seconds += seconds
        now.then()

    monkeypatch.setattr(chief_, "time", SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep))
    return now


def given(root):
    """A chief's orders whose thread does not beat by itself."""
    return Broadcast(root, FIRST, beat=HOUR)


def taken(heard):
    """The next order that a worker takes."""
    return next(heard.orders(lambda: False))


def test_an_order_is_taken_once_and_a_new_one_of_the_same_run_anew(tmp_path, clock):
    heard = Follower(tmp_path, SECOND)
    with given(tmp_path) as orders:
        assert heard.order().token == "", "it is there, and at nothing yet"
        orders.give("0123", "10x3@32", "train", 4)
        first = taken(heard)
        assert (first.run, first.protocol, first.kind, first.attempt) == ("0123", "10x3@32", "train", 4)
        assert not heard.left()
        clock.then = lambda: orders.give("0123", "10x3@32", "train", 5)
        second = taken(heard)
        assert (second.attempt, second.token != first.token) == (5, True)


def test_what_a_chief_of_long_ago_said_counts_for_nothing(tmp_path, clock):
    with given(tmp_path) as orders:
        orders.give("0123", "10x3@32", "train", 4)
        orders.end(0)
    heard = Follower(tmp_path, SECOND, wait=30)
    assert heard.order() is None
    with pytest.raises(SilentError, match="for 30 seconds"):
        taken(heard)
    assert 30 < clock.seconds < 32


def test_an_order_in_progress_counts_once_the_chief_shows_that_it_is_there(tmp_path, clock):
    with given(tmp_path) as orders:
        orders.give("0123", "10x3@32", "train", 4)
        heard = Follower(tmp_path, SECOND)
        assert heard.order() is None
        clock.then = orders._written  # its next beat
        assert taken(heard).run == "0123"


def test_a_chief_that_beats_is_not_silent(tmp_path, clock):
    heard = Follower(tmp_path, SECOND, wait=30)
    with given(tmp_path) as orders:
        orders.give("0123", "10x3@32", "train", 4)
        taken(heard)
        for _ in range(10):
            clock.seconds += 29
            orders._written()
            assert not heard.left()
        clock.seconds += 31
        with pytest.raises(SilentError):
            heard.left()


def test_an_order_is_left_at_once_where_another_is_given_or_the_chief_begins_anew(tmp_path, clock):
    heard = Follower(tmp_path, SECOND)
    with given(tmp_path) as orders:
        for change in (orders.withdraw, lambda: orders.give("0123", "10x3@32", "train", 5)):
            orders.give("0123", "10x3@32", "train", 4)
            taken(heard)
            assert not heard.left()
            change()
            assert heard.left()
        taken(heard)
    assert not heard.left()
    with given(tmp_path):  # killed, and started again
        assert heard.left()


def test_who_trained_with_a_chief_that_has_ended_has_a_little_time(tmp_path, clock):
    heard = Follower(tmp_path, SECOND)
    with given(tmp_path) as orders:
        orders.give("0123", "10x3@32", "train", 4)
        taken(heard)
        orders.end(143)
    assert not heard.left()
    clock.seconds += 11
    assert heard.left()
    assert taken(heard).status == 143


@pytest.mark.parametrize(
    ("raised", "failed", "status"),
    [
        (None, False, 0),
        (None, True, 1),
        (DevicesError("no"), False, 2),
        (Stopped("asked", 143), False, 143),
        (Stopped("gone", 75), False, 75),
        (KeyboardInterrupt(), False, 130),
    ],
)
def test_the_others_learn_how_the_chief_ended(tmp_path, raised, failed, status):
    heard = Follower(tmp_path, SECOND)
    try:
        with chief_.broadcast(tmp_path, FIRST) as orders:
            orders.failed = failed
            if raised:
                raise raised
    except BaseException as error:
        assert error is raised
    assert heard.order().status == status


def test_one_that_works_alone_writes_nothing(tmp_path):
    with chief_.broadcast(tmp_path, Devices()) as orders:
        assert orders is None
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_another_worker_is_of_the_order_it_was_met_in(tmp_path, clock):
    heard = Follower(tmp_path, SECOND)
    with given(tmp_path) as orders:
        orders.give("0123", "10x3@32", "train", 4)
        taken(heard)
        assert orders.fault() is None
        clock.then = lambda: heard.failed("damaged shard", "line 3")
        index, fault = orders.late_fault()
        assert (index, fault.error, fault.traceback, fault.every_run) == (1, "damaged shard", "line 3", False)
        orders.give("0123", "10x3@32", "train", 5)
        assert orders.fault() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": 3, "other": 1}'])
def test_a_file_that_makes_no_sense_says_nothing(tmp_path, clock, content):
    heard = Follower(tmp_path, SECOND, wait=2)
    chief_._file(tmp_path, FIRST).write_text(content)
    assert heard.order() is None


def test_other_hosts_have_another_file(tmp_path):
    other = Devices("multi_worker_mirrored", None, ("a:1", "b:2"), 0)
    with given(tmp_path), Broadcast(tmp_path, other, beat=HOUR):
        assert len(list(tmp_path.glob(".cluster-*"))) == 2


RUN = SimpleNamespace(id="0123456789abcdef", protocol=SimpleNamespace(name="10x3@32"), seed=0, parent=None)
PLANNED = SimpleNamespace(run=RUN, rows=("1",), done=False, evaluated=False)


@pytest.fixture
def second(tmp_path, monkeypatch, clock):
    """What the second worker does where its training process says so: function of the events of each order."""
    monkeypatch.setattr(orchestrator, "label", lambda one: "row 1")
    monkeypatch.setattr(orchestrator, "_job", lambda workspace, one, attempt: chief_.Assignment(attempt=attempt))

    def obey(order, heard, *events, asked=()):
        jobs = []

        def said(job, over):
            jobs.append(job)
            yield from events
            if over():
                yield over()

        shown = SimpleNamespace(event=lambda run_id, event: None)
        plan = SimpleNamespace(runs=(PLANNED,))
        orchestrator._obey(order, heard, None, plan, SimpleNamespace(events=said), shown, list(asked))
        return jobs

    return obey


GONE = {"event": "interrupted", "reason": "another worker is gone", "watched": False, "deserted": True}


def test_a_worker_does_as_ordered_whatever_its_own_plan_had_to_do(tmp_path, second):
    heard = Follower(tmp_path, SECOND)
    with given(tmp_path) as orders:
        orders.give(RUN.id, "10x3@32", "evaluate", 7)
        (job,) = second(taken(heard), heard, {"event": "done"})
        assert (job.kind, job.attempt) == ("evaluate", 7)
        assert orders.fault() is None


@pytest.mark.parametrize(("run", "protocol"), [("fedcba9876543210", "10x3@32"), (RUN.id, "1x1@32")])
def test_workers_with_other_flags_find_out_at_once_all_of_them(tmp_path, second, run, protocol):
    heard = Follower(tmp_path, SECOND)
    with given(tmp_path) as orders:
        orders.give(run, protocol, "train", 0)
        with pytest.raises(DevicesError, match=rf"run {run} under {protocol}.*the same flags"):
            second(taken(heard), heard)
        assert orders.fault()[1].every_run


def test_a_workers_own_failure_is_told_and_a_loss_is_not(tmp_path, second):
    heard = Follower(tmp_path, SECOND)
    with given(tmp_path) as orders:
        orders.give(RUN.id, "10x3@32", "train", 0)
        second(taken(heard), heard, GONE)
        assert orders.fault() is None
        orders.give(RUN.id, "10x3@32", "train", 1)
        second(taken(heard), heard, {"event": "failed", "error": "damaged shard", "traceback": ""})
        assert orders.fault()[1].error == "damaged shard"


@pytest.mark.parametrize(
    ("event", "asked", "status"),
    [
        ({"event": "interrupted", "reason": "another worker was asked to stop"}, [], 143),
        ({"event": "interrupted", "reason": "asked to stop"}, [signal.SIGINT], 130),
        (GONE | {"alone": True}, [], 75),
        (GONE, [signal.SIGTERM], 143),
    ],
)
def test_when_a_worker_stops(tmp_path, second, event, asked, status):
    heard = Follower(tmp_path, SECOND)
    with given(tmp_path) as orders:
        orders.give(RUN.id, "10x3@32", "train", 0)
        with pytest.raises(Stopped) as stopped:
            second(taken(heard), heard, event, asked=asked)
    assert stopped.value.exit_status == status


class FakeQueue:
    """A queue of one run, each attempt at which ends as it is told."""

    def __init__(self):
        self.told, self.due, self.number, self.interval = [], False, -1, 30.0
        self.lease = 120.0

    def reconcile(self, items, recorded, retries):
        name = {"done": "done", "failed": "failed"}.get(self.told[-1], "waiting") if self.told else "waiting"
        return {one.key: SimpleNamespace(name=name, attempts=(), error="") for one in items}

    def claim(self):
        if self.told and self.told[-1] in ("done", "failed"):
            return None
        self.number += 1
        return FakeLease(self)


class FakeLease:
    cancelled = False

    def __init__(self, queue):
        self._queue = queue
        self.attempt = SimpleNamespace(number=queue.number, item=SimpleNamespace(key=RUN.id))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return

    def held(self, now):
        return True

    def progress(self, **about):
        return

    def done(self, top1):
        self._queue.told.append("done")

    def failed(self, error, traceback):
        self._queue.told.append("failed")

    def preempted(self, reason):
        self._queue.told.append("preempted")


def step(at):
    return {"event": "train", "step": at, "done": at, "total": 90}


@pytest.fixture
def chief(tmp_path, monkeypatch, clock):
    """What the first worker makes of the events of each attempt; the orders that it gave, and what the queue heard."""
    attempts, kept = SimpleNamespace(fail=lambda error, traceback: None, failure=None), list[str]()

    class Attempts(dict):
        def keep_furthest(self):
            kept.append("furthest")

    store = SimpleNamespace(
        ids=list, has=lambda run_id: False, root=tmp_path, attempts=lambda run_id: Attempts.fromkeys(range(9), attempts)
    )
    workspace = SimpleNamespace(store=store, sharing=SimpleNamespace(retries=1))
    monkeypatch.setattr(orchestrator, "label", lambda one: "row 1")
    monkeypatch.setattr(
        orchestrator, "_job", lambda workspace, one, attempt: SimpleNamespace(kind="train", attempt=attempt)
    )
    item = sharing.Item(RUN.id, "row 1", "")
    monkeypatch.setattr(sharing, "items", lambda plan, study: [item])
    ignored = SimpleNamespace(begins=lambda one: None, event=lambda run_id, event: None)

    def conduct(*lives, answer=lambda heard: None, asked=()):
        queue, heard, seen, left = FakeQueue(), Follower(tmp_path, SECOND), [], list(lives)
        plan = SimpleNamespace(missing=[PLANNED], runs=(PLANNED,))

        def events(job, watch, held, over):
            seen.append(taken(heard).attempt)
            answer(heard)
            yield from left.pop(0)

        with given(tmp_path) as orders:
            conductor = Orchestrator(
                workspace, SimpleNamespace(events=events), ignored, queue, list(asked), None, orders
            )
            try:
                failures, status = conductor.carry_out_all(plan, "study", ignored, False), 0
            except Stopped as stopped:
                failures, status = [str(stopped)], stopped.exit_status
        return seen, queue.told, failures, status

    conduct.kept = kept
    return conduct


DONE = {"event": "done", "top1": 0.5}


def test_a_loss_costs_no_retry_and_is_followed_by_another_order(chief):
    lost = [step(13), GONE]
    seen, told, failures, status = chief(lost, [step(13), step(26), GONE], [step(26), DONE])
    assert (seen, told, failures, status) == ([0, 1, 2], ["preempted", "preempted", "done"], [], 0)


def test_three_losses_without_a_step_forward_ask_the_scheduler(chief):
    stuck = [step(13), GONE]
    seen, told, (failure,), status = chief([step(39), GONE], stuck, stuck, [DONE])
    assert (seen, told, status) == ([0, 1, 2], ["preempted"] * 3, 75)
    assert failure == "row 1: another worker is gone, 3 times in a row without a step forward"


def test_losses_between_steps_forward_do_not_add_up(chief):
    lives = [[step(13 * n), GONE] for n in range(1, 7)]
    *_, status = chief(*lives, [DONE])
    assert status == 0


def test_others_that_never_come_ask_the_scheduler_at_once(chief):
    alone = GONE | {"reason": "the other workers did not come within 600 seconds", "alone": True}
    assert chief([alone]) == ([0], ["preempted"], [f"row 1: {alone['reason']}"], 75)


def test_a_full_disk_costs_no_retry_and_asks_the_scheduler(chief):
    full = {"event": "interrupted", "reason": "a/b: no space left on device", "watched": False, "full": True}
    assert chief([step(13), full]) == ([0], ["preempted"], ["row 1: a/b: no space left on device"], 75)


@pytest.mark.parametrize(
    ("event", "asked", "status"),
    [
        ({"event": "interrupted", "reason": "asked to stop", "watched": False}, [15], 143),
        ({"event": "interrupted", "reason": "a/b: no space left", "watched": False, "full": True}, [], 75),
        ({"event": "interrupted", "reason": "the TPU is taken", "watched": False}, [], None),
        ({"event": "lost"}, [15], 143),
        ({"event": "lost"}, [], None),
    ],
)
def test_who_has_to_leave_does_so_though_the_storage_does_not_answer(chief, monkeypatch, event, asked, status):
    def silent(*_):
        raise UnansweredError("the storage does not answer")

    said = []
    monkeypatch.setattr(FakeLease, "preempted", silent)
    monkeypatch.setattr(FakeLease, "cancelled", property(silent))
    monkeypatch.setattr(orchestrator, "print_line", lambda _, line, **__: said.append(line))
    if status is None:
        with pytest.raises(UnansweredError):
            chief([step(13), event], asked=asked)
        return
    assert chief([step(13), event], asked=asked)[3] == status
    assert said == ["the storage does not answer; others take up row 1 within 120 s of its answer"]


def test_a_lost_run_without_a_record_is_not_said_to_have_one(chief):
    _, told, _, _ = chief([step(13), {"event": "lost"}], [DONE])
    assert told == ["preempted", "done"]


def test_what_a_run_needs_that_is_ended_early_is_kept_before_another_can_go_on_with_it(chief):
    ended = {"event": "interrupted", "reason": "pruned", "watched": True}
    told = chief([step(13), ended], [DONE])[1]
    assert (chief.kept, told) == (["furthest"], ["preempted", "done"])


def test_a_loss_behind_which_is_another_workers_failure_is_one(chief):
    def answer(heard):
        heard.failed("damaged shard")

    seen, told, (_,), status = chief([step(13), GONE], answer=answer)
    assert (seen, told, status) == ([0], ["failed"], 0)


def test_a_failure_that_every_run_would_meet_ends_the_first_too(chief):
    with pytest.raises(DevicesError, match="worker 1: other flags"):
        chief([GONE], answer=lambda heard: heard.failed("other flags", every_run=True))


def test_the_file_is_plain_data(tmp_path):
    with given(tmp_path) as orders:
        orders.give("0123", "10x3@32", "train", 4)
    (path,) = tmp_path.glob(".cluster-*")
    content = json.loads(path.read_text())
    assert content.pop("token") and content.pop("beat")
    assert content == {"run": "0123", "protocol": "10x3@32", "kind": "train", "attempt": 4, "status": None}
