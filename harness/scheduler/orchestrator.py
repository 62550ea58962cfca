"""Runs what a plan is missing, one run after the other, beside whoever else does, and says what happens.

Every run is claimed in the queue (:mod:`harness.scheduler.run_queue`) before it is trained, and told there when it
ends, so that other processes, here or on other machines, take up the others, and those that were left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from harness.accelerators import gate
from harness.config.devices import DevicesError
from harness.config.experiment import Run, SettingsError
from harness.config.studies import Study
from harness.planning import disk
from harness.planning.labels import label
from harness.planning.plans import Plan, Planned
from harness.planning.workspace import Workspace
from harness.scheduler import chief, liveness, membership, run_states, sharing
from harness.scheduler.chief import TEMPORARY, Fault, Heard, Order, Orders, SilentError
from harness.scheduler.optuna_storage import StorageError, UnansweredError
from harness.scheduler.progress import Board, View, view
from harness.scheduler.run_queue import Lease, Queue
from harness.scheduler.run_states import Item, Standing
from harness.store.attempts import Attempts
from harness.store.records import RecordError
from harness.system.text import print_line
from harness.tracking.study_mirror import Mirror
from harness.training.worker import Event, Job, Watch, Worker

# Seconds between two looks at what others are at, while there is nothing to do: a part of the lease, within these.
_LOOK = (0.5, 3.0)
# Times in a row that another of the workers which train together may be lost without a step forward.
_LOSSES = 3


class Stopped(Exception):  # noqa: N818 - no error: the user, or the system, asked for it
    """A study that was asked to stop, or cannot go on here; the message is one line.

    Attributes:
      exit_status: that the command ends with: 128 and the signal that asked, SIGINT, or SIGTERM also for a TPU that is
        being preempted; or :data:`harness.scheduler.chief.TEMPORARY`, for a scheduler to start it again.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def conduct(
    workspace: Workspace, plan: Plan, console: Console, mirror: Mirror, name: str = "", fail_fast: bool = False
) -> list[str]:
    """Trains and evaluates what is missing, together with the other workers of its storage.

    Args:
      workspace: where and how.
      plan: what.
      console: where to show progress.
      mirror: is told of each run.
      name: of the study, which other workers join; empty for a run of no study.
      fail_fast: stop at the first run that fails.

    Returns:
      One line for each run that failed, or that nobody will carry out.

    Raises:
      SettingsError: the disk is too small for it, or the TPU.
      DevicesError: this machine does not have the devices asked for.
      StorageError: the storage cannot be used, or workers with other code, settings or data are at the study.
      Stopped: a signal asked to stop; the run that was training saved its checkpoint. Or the other workers that train
        it together with this one are gone, or did not come. Or there is no space left to write to.
    """
    if not plan.missing:
        return []
    sharing.refuse_unseen_queue(workspace.sharing, workspace.store)
    disk.refuse_small_disk(workspace, plan)
    gate.refuse_too_large(workspace, (one for one in plan.missing if not one.done), console)
    board = Board(plan, workspace.rate or workspace.profile.measured_rate)
    if not workspace.devices.chief:
        return _follow(workspace, plan, board, console)
    with conductor(workspace, console, mirror) as conducted:
        conducted.join(plan, name)
        with view(board, console) as shown:
            return conducted.carry_out_all(plan, name, shown, fail_fast)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How carrying out a run ended.

    Attributes:
      event: the last event.
      failure: one line where it failed; empty otherwise.
    """

    event: Mapping[str, Any]
    failure: str = ""

    @property
    def ended_by_watch(self) -> bool:
        """Whether the run was ended at a validation, its checkpoint saved, by the one who watched it."""
        return self.event["event"] == "interrupted" and bool(self.event.get("watched"))

    @property
    def deserted(self) -> bool:
        """Whether another of the workers that train it together was gone."""
        return bool(self.event.get("deserted"))


class Conductor:
    """Carries out runs, one after the other, in one worker; made by :func:`conductor`."""

    def __init__(
        self,
        workspace: Workspace,
        worker: Worker,
        mirror: Mirror,
        queue: Queue,
        asked: list[int],
        console: Console,
        orders: Orders | None = None,
    ) -> None:
        self._workspace, self._worker, self._mirror, self._queue = workspace, worker, mirror, queue
        self._asked, self._console, self._orders = asked, console, orders
        self._furthest: dict[str, tuple[bool, int]] = {}
        self._losses = 0
        self._told: dict[str, str] = {}

    @property
    def lease(self) -> float:
        """Seconds after which a silent worker has lost its run."""
        return self._queue.lease

    @property
    def asked(self) -> bool:
        """Whether somebody asked this process to stop."""
        return bool(self._asked)

    def join(self, plan: Plan, name: str) -> None:
        """Joins a study, or begins it.

        Raises:
          StorageError: its other workers have other code, settings or data, or another results folder.
        """
        membership.bind(self._workspace, self._queue)
        if name:
            for line in membership.join(self._workspace, self._queue, plan, name):
                print_line(self._console, line)

    def carry_out_all(self, plan: Plan, name: str, shown: View, fail_fast: bool) -> list[str]:
        """Carries out what a plan is missing, until nothing of it is left to anyone; a line for each failure."""
        wanted = {sharing.key(one): one for one in plan.missing}
        items = sharing.items(plan, name)
        if not name:
            self._ask_again(items)
        while True:
            standings = self._reconciled(items, wanted, shown)
            failed = [key for key, one in standings.items() if one.name in ("failed", "blocked")]
            if (failed and fail_fast) or all(one.name in run_states.SETTLED for one in standings.values()):
                if self._orders is not None:
                    self._orders.failed = bool(failed)
                self._say_cancelled(standings, wanted)
                return [self._failure(wanted[key], standings[key]) for key in failed]
            claimed = False
            while lease := self._queue.claim():
                claimed = True
                outcome = self._attempt(lease, wanted[lease.attempt.item.key], shown, None)
                if self._queue.due or fail_fast or outcome.deserted:
                    break
            if not claimed:
                self.wait()

    def carry_out(self, one: Planned, shown: View, watch: Watch | None = None) -> Outcome:
        """Trains and evaluates a run, or evaluates it only where it is trained; waits where another worker is at it.

        Args:
          one: the run.
          shown: is shown its events.
          watch: may end the run at a validation.

        Raises:
          DevicesError: this machine does not have the devices asked for.
          StorageError: the storage does not answer.
          Stopped: a signal asked to stop; the run saved its checkpoint.
        """
        key = sharing.key(one)
        (item,) = sharing.items(Plan((), (one,), {}), "")
        while True:
            standing = self._reconciled([item], {key: one}, shown)[key]
            if standing.name == "done":
                return Outcome(self._recorded(one))
            if standing.name in run_states.SETTLED:
                return Outcome({"event": "failed", "error": standing.error}, self._failure(one, standing))
            lease = self._queue.claim()
            if lease is None:
                self.wait()
                continue
            outcome = self._attempt(lease, one, shown, watch)
            if outcome.event["event"] == "done" or outcome.ended_by_watch:
                return outcome

    def _ask_again(self, items: Sequence[Item]) -> None:
        """Puts back what failed for good or was cancelled: who asks for one run by its name wants it tried."""
        listed, known = self._queue.attempts(), self._recorded_keys(items)
        standings = run_states.standings(items, listed, known, self._workspace.sharing.retries)
        for item in items:
            if standings[item.key].name in ("failed", "cancelled"):
                self._queue.add(item, again=True)

    def _reconciled(self, items: Sequence[Item], wanted: Mapping[str, Planned], shown: View) -> Mapping[str, Standing]:
        """Where everything stands by now; what other workers did since is shown."""
        standings = self._queue.reconcile(items, lambda: self._recorded_keys(items), self._workspace.sharing.retries)
        for key, standing in standings.items():
            at = standing.attempts[-1] if standing.attempts else None
            told = f"{standing.name} {at.worker} {at.step}" if at and standing.name == "running" else standing.name
            if standing.name in ("waiting", "missing") or self._told.get(key) == told:
                continue
            self._told[key] = told
            if standing.name == "running" and at:
                shown.event(wanted[key].run.id, {"event": "elsewhere", "worker": at.worker, **at.progress})
            elif standing.name == "done":
                shown.event(wanted[key].run.id, {**self._recorded(wanted[key]), "event": "recorded"})
            else:
                settled = {"event": "settled", "state": standing.name, "error": standing.error}
                shown.event(wanted[key].run.id, settled)
        return standings

    def _recorded_keys(self, items: Sequence[Item]) -> set[str]:
        """Keys of what is recorded."""
        evaluations = {item.key for item in items if " " in item.key}
        return {*self._workspace.store.ids(), *filter(self._is_there, evaluations)}

    def _recorded(self, one: Planned) -> dict[str, Any]:
        """What the record of a run says, as a worker says it of one that it has done."""
        with contextlib.suppress(RecordError, KeyError):  # a damaged one is named by what reads it
            evaluation = self._workspace.store.read(one.run.id).evaluations[one.run.protocol.name]
            return {
                "event": "done", "top1": evaluation.top1, "top5": evaluation.top5, "videos": evaluation.videos
            }  # fmt: skip
        return {"event": "done"}

    def _attempt(self, lease: Lease, one: Planned, shown: View, watch: Watch | None) -> Outcome:
        """Carries out what was claimed, and tells the queue how it ended."""
        with lease:
            if self._is_there(lease.attempt.item.key):
                lease.superseded()
                return Outcome(self._recorded(one))
            event: Mapping[str, Any] = {"event": "interrupted", "reason": "stopped at once"}
            try:
                event = self._carried_out(one, lease, shown, watch)
                if event.get("watched"):
                    self._attempts(one).keep_furthest()  # while nobody else can be at it
            finally:
                self._told[lease.attempt.item.key] = str(event["event"])
                self._tell_if_it_answers(lease, one, event)
        if event.get("every run"):
            raise DevicesError(event["error"])
        outcome = Outcome(event, f"{label(one)}: {event['error']}" if event["event"] == "failed" else "")
        if outcome.deserted and not self._asked:
            self._count_loss(one, event)
        elif self._asked or (event["event"] == "interrupted" and not outcome.ended_by_watch):
            raise Stopped(_how_it_stopped(one, event), _status(event, self._asked))
        return outcome

    def _count_loss(self, one: Planned, event: Mapping[str, Any]) -> None:
        """Another worker is gone: it is waited for, unless it never came, or is gone again and again.

        Raises:
          Stopped: one of the two.
        """
        self._losses += 1
        if event.get("alone") or self._losses >= _LOSSES:
            often = "" if event.get("alone") else f", {self._losses} times in a row without a step forward"
            raise Stopped(f"{label(one)}: {event['reason']}{often}", TEMPORARY)

    def _carried_out(self, one: Planned, lease: Lease, shown: View, watch: Watch | None) -> Mapping[str, Any]:
        """The last event of a run; each is shown and mirrored."""
        if not one.done:
            self._mirror.begins(one)
        job = _job(self._workspace, one, lease.attempt.number)
        event: Event = {}
        held = _held(lease, functools.partial(self._is_recorded, one), self._queue.interval)
        if self._orders is not None:
            self._orders.give(one.run.id, one.run.protocol.name, job.kind, job.attempt)
        for event in self._worker.events(job, watch, held, self._fault):
            lease.progress(**_reached(event))
            self._note_progress(one, event)
            if event["event"] == "lost":
                event = {**event, "reason": _why_lost(lease)}
            if event.get("deserted") and self._orders is not None:
                event = _as_event(self._orders.late_fault()) or event
            shown.event(one.run.id, event)
            self._mirror.event(one.run.id, event)
        if self._orders is not None and (event["event"] in ("failed", "lost") or event.get("deserted")):
            self._orders.withdraw()
        return event

    def _is_there(self, key: str) -> bool:
        """Whether what was wanted of a run, by the key of :func:`harness.scheduler.sharing.key`, is recorded."""
        run_id, _, protocol = key.partition(" ")
        if not protocol:
            return self._workspace.store.has(run_id)
        with contextlib.suppress(RecordError):  # named where it is evaluated
            return protocol in self._workspace.store.read(run_id).evaluations
        return False

    def _is_recorded(self, one: Planned) -> bool:
        """Whether a run that is to be trained has its record by now."""
        return not one.done and self._is_there(one.run.id)

    def _fault(self) -> Event | None:
        """The failure of another of the workers that train together, as an event."""
        return None if self._orders is None else _as_event(self._orders.fault())

    def _note_progress(self, one: Planned, event: Event) -> None:
        """A step that no attempt came to before means that the workers, lost as they may be, get on."""
        at = event["event"] == "evaluate", int(event.get("done", 0))
        if at > self._furthest.get(one.run.id, (False, 0)):
            self._furthest[one.run.id] = at
            self._losses = 0

    def _tell_if_it_answers(self, lease: Lease, one: Planned, event: Mapping[str, Any]) -> None:
        """The same; a worker that has to leave does so without, and is found silent.

        Raises:
          StorageError: the storage does not answer, and the worker would go on.
        """
        try:
            self._tell(lease, one, event)
        except UnansweredError as error:
            if not (self._asked or event.get("full")):
                raise
            others = f"others take up {label(one)} within {self._queue.lease:g} s of its answer"
            print_line(self._console, f"{error}; {others}", style="yellow")

    def _tell(self, lease: Lease, one: Planned, event: Mapping[str, Any]) -> None:
        """Tells the queue how an attempt ended."""
        if event["event"] == "done":
            lease.done(event.get("top1"))
        elif event["event"] == "failed" and not event.get("every run"):
            with contextlib.suppress(OSError):  # a full disk, perhaps the failure itself
                self._attempts(one)[lease.attempt.number].fail(event["error"], event["traceback"])
            lease.failed(event["error"], event["traceback"])
        elif event["event"] == "lost" and self._is_there(lease.attempt.item.key):
            lease.superseded()
        else:
            lease.preempted(event.get("reason") or event["error"])

    def _attempts(self, one: Planned) -> Attempts:
        return self._workspace.store.attempts(one.run.id)

    def _say_cancelled(self, standings: Mapping[str, Standing], wanted: Mapping[str, Planned]) -> None:
        """Says which runs are missing since somebody wanted it so: no failure."""
        for key, standing in standings.items():
            if standing.name == "cancelled":
                back = f"python -m harness.retry {wanted[key].run.id[:8]} puts it back"
                print_line(self._console, f"{label(wanted[key])}: was cancelled; {back}", style="yellow")

    def _failure(self, one: Planned, standing: Standing) -> str:
        """One line: why a run failed for good, and what to type."""
        failed = [at for at in standing.attempts if at.state == "failed"]
        path = self._attempts(one)[failed[-1].number].failure if failed else None
        where = f"traceback: {path}; " if path is not None and standing.name == "failed" else ""
        if standing.name == "blocked":
            return f"{label(one)}: {standing.error}"
        return f"{label(one)}: {standing.error} ({where}python -m harness.retry {one.run.id[:8]} tries it again)"

    def wait(self) -> None:
        """Waits a little for the runs that other workers are at."""
        if self._asked:
            raise Stopped("while other workers were at what is left", 128 + self._asked[0])
        least, most = _LOOK
        time.sleep(min(max(self._queue.lease / 40, least), most))


def _reached(event: Mapping[str, Any]) -> dict[str, Any]:
    """How far an event says that a run is; nothing where it does not."""
    if event["event"] == "attempt":
        return {"start": event["step"], "trained": event["step"]}
    if "total" not in event:
        return {}
    far = {"stage": event["event"], "step": event["done"], "total": event["total"]}
    return far | {"trained": event["step"]} if "step" in event else far


def _held(lease: Lease, recorded: Callable[[], bool], interval: float) -> Callable[[bool], bool]:
    """Whether a lease is held and worth holding; where the storage cannot say, for as long as nobody can have taken it.

    A worker that was paused between its last question and the record wakes up and writes it: the one that took the run
    meanwhile learns of it here, after `interval` seconds at most; a bucket is not to be asked at each step.
    """
    looked = time.monotonic()

    def held(now: bool) -> bool:
        nonlocal looked
        try:
            if not lease.held(now):
                return False
            if not now and time.monotonic() - looked < interval:
                return True
            looked = time.monotonic()
            return not recorded()
        except StorageError:
            return lease.fresh  # so that what was trained can be saved

    return held


def _why_lost(lease: Lease) -> str:
    try:
        return "cancelled" if lease.cancelled else "another worker has it, or had it done"
    except StorageError:
        return "the storage does not answer"


@contextlib.contextmanager
def conductor(workspace: Workspace, console: Console, mirror: Mirror) -> Iterator[Conductor]:
    """A conductor, while signals ask the run that trains to save and stop.

    Raises:
      StorageError: the storage cannot be opened.
    """
    settings, asked = workspace.sharing, list[int]()
    sharing.refuse_unseen_queue(settings, workspace.store)
    url = sharing.url(settings, workspace.store.root)

    def say(text: str) -> None:
        print_line(console, text, style="yellow")

    with (
        liveness.present() as token,
        Worker(grace=settings.grace) as worker,
        _asking(worker, console, asked),
        chief.orders(workspace.store.root, workspace.devices) as orders,
    ):
        queue = Queue(url, settings.lease, token, say, lambda: bool(asked))
        yield Conductor(workspace, worker, mirror, queue, asked, console, orders)


def _as_event(found: tuple[int, Fault] | None) -> dict[str, Any] | None:
    """Why another of the workers could not go on, as the last event of the run."""
    if found is None:
        return None
    index, fault = found
    error = f"worker {index}: {fault.error}"
    return {"event": "failed", "error": error, "traceback": fault.traceback, "every run": fault.every_run}


def _follow(workspace: Workspace, plan: Plan, board: Board, console: Console) -> list[str]:
    """Carries out, as one of several workers that train together, what the first of them is at; as :func:`conduct`."""
    asked = list[int]()
    heard = Heard(workspace.store.root, workspace.devices)
    with (
        Worker(grace=workspace.sharing.grace) as worker,
        _asking(worker, console, asked),
        view(board, console) as shown,
    ):
        try:
            for order in heard.orders(lambda: bool(asked)):
                if order.status is not None:
                    return _as_the_first_ended(order.status)
                _obey(order, heard, workspace, plan, worker, shown, asked)
        except SilentError as error:
            raise Stopped(str(error), TEMPORARY) from None
    raise Stopped("while it waited for the first worker", 128 + asked[0])


def _as_the_first_ended(status: int) -> list[str]:
    if status > 2:
        raise Stopped("the first worker stopped", status)
    return ["a run failed: the first worker says which"] if status else []


def _obey(
    order: Order, heard: Heard, workspace: Workspace, plan: Plan, worker: Worker, shown: View, asked: list[int]
) -> None:
    """Carries out an order.

    Raises:
      DevicesError: this machine cannot carry it out, or was not asked to.
      Stopped: a signal asked one of the workers to stop, or the others did not come.
    """
    one = next((one for one in plan.runs if one.run.id == order.run), None)
    if one is None or one.run.protocol.name != order.protocol:
        error = (
            f"the first worker is at run {order.run} under {order.protocol}, which the flags of this one do not mean"
        )
        heard.failed(error, every_run=True)
        raise DevicesError(f"{error}: start all workers with the same flags")
    job = dataclasses.replace(_job(workspace, one, order.attempt), kind=order.kind)
    left = {"event": "interrupted", "reason": "the first worker left it", "deserted": True}
    event: Event = {}
    for event in worker.events(job, over=lambda: left if heard.left() else None):
        shown.event(one.run.id, event)
    if event["event"] == "failed":
        heard.failed(event["error"], event["traceback"], bool(event.get("every run")))
    if event.get("every run"):
        raise DevicesError(event["error"])
    if event["event"] == "interrupted" and (asked or not event.get("deserted")):
        raise Stopped(_how_it_stopped(one, event), _status(event, asked))
    if event.get("alone"):
        raise Stopped(_how_it_stopped(one, event), TEMPORARY)


def faults(plan: Plan) -> list[str]:
    """One line for each run that cannot be carried out or whose record cannot be used."""
    return [f"{label(one)}: {one.fault}" for one in plan.faulty]


def _status(event: Event, asked: Sequence[int]) -> int:
    """Exit status of a command whose run was interrupted."""
    if asked:
        return 128 + asked[0]
    return TEMPORARY if event.get("full") else 128 + signal.SIGTERM


def _how_it_stopped(one: Planned, event: Mapping[str, Any]) -> str:
    if event["event"] != "interrupted":
        return f"after {label(one)}"
    return f"{label(one)}: {event['reason']}"


@contextlib.contextmanager
def _asking(worker: Worker, console: Console, asked: list[int]) -> Iterator[None]:
    """While active, Ctrl-C and SIGTERM ask the worker to save and stop; the signals that came are added to a list.

    A second Ctrl-C ends at once.
    """

    def handle(number: int, _: object) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)
        if number == signal.SIGINT:
            print_line(
                console,
                "Stopping once a checkpoint is saved; Ctrl-C again stops at once and loses what came since the last.",
            )
        worker.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _job(workspace: Workspace, planned: Planned, attempt: int) -> Job:
    data = workspace.data_of(planned.run)
    if data.folder is None:
        raise SettingsError(f"{data.facts.name} was only planned with: training needs --data DIR")
    return Job(
        kind="evaluate" if planned.done else "train",
        run=planned.run,
        attempt=attempt,
        data=data.folder,
        spec=data.spec,
        results=workspace.store.root,
        runs=workspace.store.elsewhere,
        devices=workspace.devices,
        # Of a run that is trained already the weights are its own.
        parent=None if planned.done else workspace.parents_weights(planned.run),
        garden=workspace.garden,
    )


def plan_of_one(run: Run, done: bool) -> Plan:
    """The plan of one run under the protocol it carries: trained already, and to be evaluated only, or not."""
    return Plan((Study("one", "One run", (), ()),), (Planned(run, (), done, evaluated=False),), {})
