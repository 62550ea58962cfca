"""Carries out the missing runs of a plan, one after the other, alongside any other workers, and shows the progress.

Each run is claimed in the queue (:mod:`harness.scheduler.run_queue`) before it is trained, and its end is reported
there. So other processes, on this or other machines, can take the other runs, and resume those that were abandoned.
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
from harness.scheduler.chief import TEMPORARY, Assignment, Broadcast, Fault, Follower, SilentError
from harness.scheduler.optuna_storage import StorageError, UnansweredError
from harness.scheduler.progress import ProgressState, ProgressView, progress_view
from harness.scheduler.run_queue import Lease, Queue
from harness.scheduler.run_states import Item, ItemStatus
from harness.store.attempts import Attempts
from harness.store.records import RecordError
from harness.system.text import print_line
from harness.tracking.study_mirror import Mirror
from harness.training.worker import Event, Job, Watch, Worker

# Least and most seconds between two looks at the queue while there is nothing to do; in between, a part of the lease.
_LOOK = (0.5, 3.0)
# Times in a row that a worker of a run on several workers may be lost without the run getting any further.
_LOSSES = 3


class Stopped(Exception):  # noqa: N818 - not an error: the user, or the system, asked for it
    """Raised when a study was asked to stop or cannot continue here; the message is one line.

    Attributes:
      exit_status: exit status of the command: 128 plus the number of the signal that asked, SIGINT or SIGTERM (the
        latter also for a TPU that is being preempted); or :data:`harness.scheduler.chief.TEMPORARY`, so that the
        cluster's scheduler starts it again.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def conduct(
    workspace: Workspace, plan: Plan, console: Console, mirror: Mirror, name: str = "", fail_fast: bool = False
) -> list[str]:
    """Trains and evaluates the missing runs of a plan, together with the other workers that share its storage.

    Args:
      workspace: the folders, settings and devices to use.
      plan: the runs that are wanted.
      console: where to show progress.
      mirror: receives the events of each run.
      name: name of the study, which other workers join; empty for a run of no study.
      fail_fast: whether to stop at the first run that fails.

    Returns:
      One line for each run that failed, or that nobody will carry out.

    Raises:
      SettingsError: the disk or the TPU is too small for the runs.
      DevicesError: this machine does not have the requested devices.
      StorageError: the storage cannot be used, or workers train the study with other code, settings or data.
      Stopped: a signal asked to stop, and the run in training saved its checkpoint; or the other workers that train
        runs together with this one are gone or did not come; or there is no disk space left.
    """
    if not plan.missing:
        return []
    sharing.refuse_unseen_queue(workspace.sharing, workspace.store)
    disk.refuse_small_disk(workspace, plan)
    gate.refuse_too_large(workspace, (planned for planned in plan.missing if not planned.done), console)
    board = ProgressState(plan, workspace.rate or workspace.profile.measured_rate)
    if not workspace.devices.chief:
        return _follow(workspace, plan, board, console)
    with orchestration(workspace, console, mirror) as orchestrator:
        orchestrator.join(plan, name)
        with progress_view(board, console) as shown:
            return orchestrator.carry_out_all(plan, name, shown, fail_fast)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How carrying out a run ended.

    Attributes:
      event: the last event of the run.
      failure: why it failed, in one line; empty if it did not.
    """

    event: Mapping[str, Any]
    failure: str = ""

    @property
    def ended_by_watch(self) -> bool:
        """Whether the watch ended the run at a validation, after it had saved its checkpoint."""
        return self.event["event"] == "interrupted" and bool(self.event.get("watched"))

    @property
    def deserted(self) -> bool:
        """Whether the run ended because another of the workers that train it together was gone."""
        return bool(self.event.get("deserted"))


class Orchestrator:
    """Carries out runs, one after the other, in one worker; created by :func:`conductor`."""

    def __init__(
        self,
        workspace: Workspace,
        worker: Worker,
        mirror: Mirror,
        queue: Queue,
        asked: list[int],
        console: Console,
        orders: Broadcast | None = None,
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
        """Whether this process was asked to stop."""
        return bool(self._asked)

    def join(self, plan: Plan, name: str) -> None:
        """Joins a study that other workers train, or begins it.

        Raises:
          StorageError: the other workers have other code, settings or data, or another results folder.
        """
        membership.bind(self._workspace, self._queue)
        if name:
            for line in membership.join(self._workspace, self._queue, plan, name):
                print_line(self._console, line)

    def carry_out_all(self, plan: Plan, name: str, shown: ProgressView, fail_fast: bool) -> list[str]:
        """Carries out the missing runs of a plan until no worker has any left; returns a line for each failure."""
        wanted = {sharing.key(planned): planned for planned in plan.missing}
        items = sharing.items(plan, name)
        if not name:
            self._ask_again(items)
        while True:
            standings = self._reconciled(items, wanted, shown)
            failed = [key for key, standing in standings.items() if standing.name in ("failed", "blocked")]
            if (failed and fail_fast) or all(standing.name in run_states.SETTLED for standing in standings.values()):
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

    def carry_out(self, one: Planned, shown: ProgressView, watch: Watch | None = None) -> Outcome:
        """Trains and evaluates a run, or only evaluates one that is trained; waits if another worker has claimed it.

        Args:
          one: the run.
          shown: the view that shows its events.
          watch: may end the run at a validation.

        Raises:
          DevicesError: this machine does not have the requested devices.
          StorageError: the storage does not answer.
          Stopped: a signal asked to stop, and the run saved its checkpoint.
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
        """Queues items that failed for good or were cancelled: a user who asks for a run by name wants it tried."""
        attempts, recorded = self._queue.attempts(), self._recorded_keys(items)
        standings = run_states.standings(items, attempts, recorded, self._workspace.sharing.retries)
        for item in items:
            if standings[item.key].name in ("failed", "cancelled"):
                self._queue.add(item, again=True)

    def _reconciled(
        self, items: Sequence[Item], wanted: Mapping[str, Planned], shown: ProgressView
    ) -> Mapping[str, ItemStatus]:
        """Reconciles the queue, shows what other workers did since the last time, and returns each item's standing."""
        standings = self._queue.reconcile(items, lambda: self._recorded_keys(items), self._workspace.sharing.retries)
        for key, standing in standings.items():
            attempt = standing.attempts[-1] if standing.attempts else None
            summary = (
                f"{standing.name} {attempt.worker} {attempt.step}"
                if attempt and standing.name == "running"
                else standing.name
            )
            if standing.name in ("waiting", "missing") or self._told.get(key) == summary:
                continue
            self._told[key] = summary
            if standing.name == "running" and attempt:
                shown.event(wanted[key].run.id, {"event": "elsewhere", "worker": attempt.worker, **attempt.progress})
            elif standing.name == "done":
                shown.event(wanted[key].run.id, {**self._recorded(wanted[key]), "event": "recorded"})
            else:
                settled = {"event": "settled", "state": standing.name, "error": standing.error}
                shown.event(wanted[key].run.id, settled)
        return standings

    def _recorded_keys(self, items: Sequence[Item]) -> set[str]:
        """Returns the keys of the items that are recorded."""
        evaluations = {item.key for item in items if " " in item.key}
        return {*self._workspace.store.ids(), *filter(self._is_there, evaluations)}

    def _recorded(self, planned: Planned) -> dict[str, Any]:
        """Returns the results in a run's record as the event with which a worker ends a run."""
        with contextlib.suppress(RecordError, KeyError):  # the commands that read records report a damaged one
            evaluation = self._workspace.store.read(planned.run.id).evaluations[planned.run.protocol.name]
            return {
                "event": "done", "top1": evaluation.top1, "top5": evaluation.top5, "videos": evaluation.videos
            }  # fmt: skip
        return {"event": "done"}

    def _attempt(self, lease: Lease, planned: Planned, shown: ProgressView, watch: Watch | None) -> Outcome:
        """Carries out a claimed attempt and reports to the queue how it ended."""
        with lease:
            if self._is_there(lease.attempt.item.key):
                lease.superseded()
                return Outcome(self._recorded(planned))
            event: Mapping[str, Any] = {"event": "interrupted", "reason": "stopped at once"}
            try:
                event = self._carried_out(planned, lease, shown, watch)
                if event.get("watched"):
                    self._attempts(planned).keep_furthest()  # while the run is still claimed
            finally:
                self._told[lease.attempt.item.key] = str(event["event"])
                self._tell_if_it_answers(lease, planned, event)
        if event.get("every run"):
            raise DevicesError(event["error"])
        outcome = Outcome(event, f"{label(planned)}: {event['error']}" if event["event"] == "failed" else "")
        if outcome.deserted and not self._asked:
            self._count_loss(planned, event)
        elif self._asked or (event["event"] == "interrupted" and not outcome.ended_by_watch):
            raise Stopped(_how_it_stopped(planned, event), _status(event, self._asked))
        return outcome

    def _count_loss(self, planned: Planned, event: Mapping[str, Any]) -> None:
        """Counts the loss of another worker of the run, for which the command waits within limits.

        Raises:
          Stopped: the other worker never came, or workers were lost too often in a row.
        """
        self._losses += 1
        if event.get("alone") or self._losses >= _LOSSES:
            repetition = "" if event.get("alone") else f", {self._losses} times in a row without a step forward"
            raise Stopped(f"{label(planned)}: {event['reason']}{repetition}", TEMPORARY)

    def _carried_out(
        self, planned: Planned, lease: Lease, shown: ProgressView, watch: Watch | None
    ) -> Mapping[str, Any]:
        """Runs the job of a claimed attempt, shows and mirrors its events, and returns the last one."""
        if not planned.done:
            self._mirror.begins(planned)
        job = _job(self._workspace, planned, lease.attempt.number)
        event: Event = {}
        held = _held(lease, functools.partial(self._is_recorded, planned), self._queue.interval)
        if self._orders is not None:
            self._orders.give(planned.run.id, planned.run.protocol.name, job.kind, job.attempt)
        for event in self._worker.events(job, watch, held, self._fault):
            lease.progress(**_reached(event))
            self._note_progress(planned, event)
            if event["event"] == "lost":
                event = {**event, "reason": _why_lost(lease)}
            if event.get("deserted") and self._orders is not None:
                event = _as_event(self._orders.late_fault()) or event
            shown.event(planned.run.id, event)
            self._mirror.event(planned.run.id, event)
        if self._orders is not None and (event["event"] in ("failed", "lost") or event.get("deserted")):
            self._orders.withdraw()
        return event

    def _is_there(self, key: str) -> bool:
        """Returns whether an item is recorded, given its key as of :func:`harness.scheduler.sharing.key`."""
        run_id, _, protocol = key.partition(" ")
        if not protocol:
            return self._workspace.store.has(run_id)
        with contextlib.suppress(RecordError):  # the evaluation reports a damaged record
            return protocol in self._workspace.store.read(run_id).evaluations
        return False

    def _is_recorded(self, planned: Planned) -> bool:
        """Returns whether a run that is to be trained has its record by now."""
        return not planned.done and self._is_there(planned.run.id)

    def _fault(self) -> Event | None:
        """Returns the failure of another of the workers that train together as an event, or None."""
        return None if self._orders is None else _as_event(self._orders.fault())

    def _note_progress(self, planned: Planned, event: Event) -> None:
        """Resets the count of lost workers once a run passes its furthest step so far."""
        at = event["event"] == "evaluate", int(event.get("done", 0))
        if at > self._furthest.get(planned.run.id, (False, 0)):
            self._furthest[planned.run.id] = at
            self._losses = 0

    def _tell_if_it_answers(self, lease: Lease, planned: Planned, event: Mapping[str, Any]) -> None:
        """Reports the end of an attempt to the queue, if the storage answers.

        A worker that has to stop anyway does so without the report; other workers then find it silent.

        Raises:
          StorageError: the storage does not answer, and the worker would otherwise continue.
        """
        try:
            self._tell(lease, planned, event)
        except UnansweredError as error:
            if not (self._asked or event.get("full")):
                raise
            others = f"others take up {label(planned)} within {self._queue.lease:g} s of its answer"
            print_line(self._console, f"{error}; {others}", style="yellow")

    def _tell(self, lease: Lease, planned: Planned, event: Mapping[str, Any]) -> None:
        """Reports to the queue how an attempt ended."""
        if event["event"] == "done":
            lease.done(event.get("top1"))
        elif event["event"] == "failed" and not event.get("every run"):
            with contextlib.suppress(OSError):  # a full disk, which may be why the run failed
                self._attempts(planned)[lease.attempt.number].fail(event["error"], event["traceback"])
            lease.failed(event["error"], event["traceback"])
        elif event["event"] == "lost" and self._is_there(lease.attempt.item.key):
            lease.superseded()
        else:
            lease.preempted(event.get("reason") or event["error"])

    def _attempts(self, planned: Planned) -> Attempts:
        return self._workspace.store.attempts(planned.run.id)

    def _say_cancelled(self, standings: Mapping[str, ItemStatus], wanted: Mapping[str, Planned]) -> None:
        """Prints which runs are missing because a user cancelled them; they do not count as failures."""
        for key, standing in standings.items():
            if standing.name == "cancelled":
                back = f"python -m harness.retry {wanted[key].run.id[:8]} puts it back"
                print_line(self._console, f"{label(wanted[key])}: was cancelled; {back}", style="yellow")

    def _failure(self, planned: Planned, standing: ItemStatus) -> str:
        """Returns a line that says why a run failed for good, and which command tries it again."""
        failed = [attempt for attempt in standing.attempts if attempt.state == "failed"]
        path = self._attempts(planned)[failed[-1].number].failure if failed else None
        where = f"traceback: {path}; " if path is not None and standing.name == "failed" else ""
        if standing.name == "blocked":
            return f"{label(planned)}: {standing.error}"
        return (
            f"{label(planned)}: {standing.error} ({where}python -m harness.retry {planned.run.id[:8]} tries it again)"
        )

    def wait(self) -> None:
        """Waits a little for the runs of other workers.

        Raises:
          Stopped: this process was asked to stop.
        """
        if self._asked:
            raise Stopped("while other workers were at what is left", 128 + self._asked[0])
        least, most = _LOOK
        time.sleep(min(max(self._queue.lease / 40, least), most))


def _reached(event: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the progress that an event reports, for the queue; empty if it reports none."""
    if event["event"] == "attempt":
        return {"start": event["step"], "trained": event["step"]}
    if "total" not in event:
        return {}
    progress = {"stage": event["event"], "step": event["done"], "total": event["total"]}
    return progress | {"trained": event["step"]} if "step" in event else progress


def _held(lease: Lease, recorded: Callable[[], bool], interval: float) -> Callable[[bool], bool]:
    """Returns a function that tells whether a lease is held and its run is still without a record.

    If the storage does not answer, the lease counts as held for as long as no other worker can have taken it.

    The record matters because a paused worker may wake up and write it after another worker took the run; the other
    worker then learns of it here.

    Args:
      lease: the lease.
      recorded: returns whether the run has its record.
      interval: most seconds between two looks for the record, since a bucket should not be asked at each step.
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
            return lease.fresh  # so that the training so far can be saved

    return held


def _why_lost(lease: Lease) -> str:
    try:
        return "cancelled" if lease.cancelled else "another worker has it, or had it done"
    except StorageError:
        return "the storage does not answer"


@contextlib.contextmanager
def orchestration(workspace: Workspace, console: Console, mirror: Mirror) -> Iterator[Orchestrator]:
    """Opens the queue and yields a conductor; meanwhile, signals ask the run in training to save and stop.

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
        chief.broadcast(workspace.store.root, workspace.devices) as orders,
    ):
        queue = Queue(url, settings.lease, token, say, lambda: bool(asked))
        yield Orchestrator(workspace, worker, mirror, queue, asked, console, orders)


def _as_event(indexed: tuple[int, Fault] | None) -> dict[str, Any] | None:
    """Returns the reason why another of the workers could not continue, as the last event of the run."""
    if indexed is None:
        return None
    index, fault = indexed
    error = f"worker {index}: {fault.error}"
    return {"event": "failed", "error": error, "traceback": fault.traceback, "every run": fault.every_run}


def _follow(workspace: Workspace, plan: Plan, board: ProgressState, console: Console) -> list[str]:
    """Carries out the chief's orders as one of several workers that train together; otherwise like :func:`conduct`."""
    asked = list[int]()
    heard = Follower(workspace.store.root, workspace.devices)
    with (
        Worker(grace=workspace.sharing.grace) as worker,
        _asking(worker, console, asked),
        progress_view(board, console) as shown,
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
    order: Assignment,
    heard: Follower,
    workspace: Workspace,
    plan: Plan,
    worker: Worker,
    shown: ProgressView,
    asked: list[int],
) -> None:
    """Carries out an order.

    Raises:
      DevicesError: this machine cannot carry it out, or its flags do not include the run.
      Stopped: a signal asked one of the workers to stop, or the others did not come.
    """
    planned = next((planned for planned in plan.runs if planned.run.id == order.run), None)
    if planned is None or planned.run.protocol.name != order.protocol:
        error = (
            f"the first worker is at run {order.run} under {order.protocol}, which the flags of this one do not mean"
        )
        heard.failed(error, every_run=True)
        raise DevicesError(f"{error}: start all workers with the same flags")
    job = dataclasses.replace(_job(workspace, planned, order.attempt), kind=order.kind)
    left = {"event": "interrupted", "reason": "the first worker left it", "deserted": True}
    event: Event = {}
    for event in worker.events(job, over=lambda: left if heard.left() else None):
        shown.event(planned.run.id, event)
    if event["event"] == "failed":
        heard.failed(event["error"], event["traceback"], bool(event.get("every run")))
    if event.get("every run"):
        raise DevicesError(event["error"])
    if event["event"] == "interrupted" and (asked or not event.get("deserted")):
        raise Stopped(_how_it_stopped(planned, event), _status(event, asked))
    if event.get("alone"):
        raise Stopped(_how_it_stopped(planned, event), TEMPORARY)


def faults(plan: Plan) -> list[str]:
    """Returns a line for each run that cannot be carried out or whose record cannot be used."""
    return [f"{label(planned)}: {planned.fault}" for planned in plan.faulty]


def _status(event: Event, asked: Sequence[int]) -> int:
    """Returns the exit status of a command whose run was interrupted."""
    if asked:
        return 128 + asked[0]
    return TEMPORARY if event.get("full") else 128 + signal.SIGTERM


def _how_it_stopped(planned: Planned, event: Mapping[str, Any]) -> str:
    if event["event"] != "interrupted":
        return f"after {label(planned)}"
    return f"{label(planned)}: {event['reason']}"


@contextlib.contextmanager
def _asking(worker: Worker, console: Console, asked: list[int]) -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM ask the worker to save and stop, and adds each signal that comes to `asked`.

    A second Ctrl-C ends the process at once.
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
        # A run that is already trained is evaluated with its own weights.
        parent=None if planned.done else workspace.parents_weights(planned.run),
        garden=workspace.garden,
    )


def plan_of_one(run: Run, done: bool) -> Plan:
    """Returns a plan of one run under its protocol; if `done`, it is trained already and only has to be evaluated."""
    return Plan((Study("one", "One run", (), ()),), (Planned(run, (), done, evaluated=False),), {})
