"""Shows the progress of a study while it runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.planning.labels import label
from harness.planning.plans import Plan, Planned
from harness.system.text import duration, print_line

# Events about runs of other workers.
_OTHERS = ("elsewhere", "recorded", "settled")
_STAGES = {
    "data": "drawing the data set",
    "build": "building",
    "attempt": "training",
    "train": "training",
    "validation": "training",
}


@dataclasses.dataclass
class _State:
    """The displayed state of one run."""

    planned: Planned
    stage: str
    done: float = 0.0
    note: str = ""
    began: float | None = None
    seconds: float | None = None


class ProgressView(Protocol):
    """Shows the events of a study's runs; a context manager."""

    def event(self, run_id: str, event: Mapping[str, Any]) -> None:
        """Shows an event of a run."""

    def __enter__(self) -> ProgressView:
        """Begins showing."""

    def __exit__(self, *_: object) -> None:
        """Ends showing."""


class ProgressState:
    """The state of every run of a plan, and how long the rest will take."""

    def __init__(self, plan: Plan, rate: float | None) -> None:
        self.plan = plan
        self.states = {planned.run.id: _initial_state(planned) for planned in plan.runs}
        self._rate = rate

    def update(self, run_id: str, event: Mapping[str, Any]) -> _State:
        """Updates a run's state by an event, and returns it."""
        state = self.states[run_id]
        kind = event["event"]
        if kind in _OTHERS:
            return _others(state, event)
        if state.began is None or state.seconds is not None:  # the run begins, or begins again after a failure
            state.began, state.seconds, state.note, state.done = time.monotonic(), None, "", 0.0
        state.stage = _STAGES.get(kind, {"evaluate": "evaluating"}.get(kind, kind))
        if "total" in event:
            state.done = event["done"] / max(1, event["total"])
        if kind in ("train", "validation"):
            state.note = f"step {event['step']}, {kind} loss {event['loss']:.2f}{_accuracy(event)}"
        if kind == "attempt":
            state.note = f"from step {event['step']}" if event["step"] else ""
        if kind == "interrupted":
            state.note = event["reason"]
        if kind == "done":
            state.note = "its results are the chief's to write" if state.planned.run.evaluated else "not evaluated"
        if "top1" in event and kind == "done":
            state.note = f"top-1 {100 * event['top1']:.1f} % of {event['videos']} videos"
        if kind == "failed":
            state.note = event["error"]
        if kind == "lost":
            state.note = event["reason"]
        if kind in ("done", "failed"):
            state.seconds = time.monotonic() - state.began
            state.done = 1.0
        return state

    @property
    def rate(self) -> float | None:
        """Multiply-adds per second, from this study's finished runs, or else from earlier runs; None if unknown."""
        finished = [state for state in self.states.values() if state.seconds and state.stage == "done"]
        if finished:
            return sum(state.planned.work for state in finished) / sum(state.seconds or 0.0 for state in finished)
        return self._rate

    @property
    def remaining(self) -> float | None:
        """Seconds that are left; None if no speed was measured yet."""
        if self.rate is None:
            return None
        left = 0.0
        for state in self.states.values():
            if state.seconds is not None or (state.done == 1.0 and state.began is None):
                continue
            spent = time.monotonic() - state.began if state.began else 0.0
            left += max(state.planned.work / self.rate - spent, 0.0)
        return left


def _accuracy(event: Mapping[str, Any]) -> str:
    """Returns the accuracies in a point of a training curve, in words."""
    named = {"top1": "top-1", "contrast_acc": "contrastive accuracy"}
    return "".join(f", {name} {100 * event[key]:.1f} %" for key, name in named.items() if key in event)


def _others(state: _State, event: Mapping[str, Any]) -> _State:
    """Updates a state by an event of another worker, without timing it: that would not measure this machine's speed."""
    state.began = state.seconds = None
    if event["event"] == "elsewhere":
        state.stage, state.done = "elsewhere", event.get("step", 0) / max(1, event.get("total", 1))
        stage = f", {_STAGES.get(event['stage'], event['stage'])}" if "stage" in event else ""
        state.note = f"{event['worker']}{stage}"
        return state
    state.stage, state.done, state.note = event.get("state", "done"), 1.0, event.get("error", "")
    if state.stage == "cancelled":
        state.note = ""
    if "top1" in event:
        state.note = f"top-1 {100 * event['top1']:.1f} % of {event['videos']} videos, by another worker"
    return state


def _initial_state(planned: Planned) -> _State:
    """Returns the state of a run when the study starts."""
    if planned.fault:
        return _State(planned, "unusable", 1.0, planned.fault)
    if planned.done:
        return _State(planned, "done", 1.0) if planned.evaluated else _State(planned, "waiting")
    return _State(planned, planned.state.name, note=planned.state.error)


class PlainProgress:
    """Shows progress as plain lines, for logs and pipes."""

    def __init__(self, board: ProgressState, console: Console) -> None:
        self._board, self._console = board, console
        self._stages: dict[str, str] = {}

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def event(self, run_id: str, event: Mapping[str, Any]) -> None:
        """Prints a line if the event brings something new."""
        state = self._board.update(run_id, event)
        changed = self._stages.get(run_id) != state.stage
        self._stages[run_id] = state.stage
        name = label(state.planned)
        if event["event"] in _OTHERS:
            if changed or event["event"] != "elsewhere":
                self._say(f"{name}: {state.stage}{', ' if state.note else ''}{state.note}")
        elif event["event"] in ("done", "failed"):
            left = self._board.remaining
            to_go = f"; about {duration(left)} to go" if left else ""
            self._say(f"{name}: {state.stage} after {duration(state.seconds)}, {state.note}{to_go}")
        elif event["event"] == "validation":
            self._say(f"{name}: {state.note}")
        elif changed:
            note = state.note if event["event"] in ("attempt", "interrupted", "lost") else ""
            self._say(f"{name}: {state.stage}{', ' if note else ''}{note}")

    def _say(self, text: str) -> None:
        print_line(self._console, text)


class LiveProgress:
    """Shows progress as a live table."""

    def __init__(self, board: ProgressState, console: Console) -> None:
        self._board, self._console = board, console
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4)

    def __enter__(self) -> LiveProgress:
        self._live.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)

    def event(self, run_id: str, event: Mapping[str, Any]) -> None:
        """Updates the run's state; the table redraws itself."""
        self._board.update(run_id, event)

    def _draw(self) -> Group:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("row", no_wrap=True)
        # Most room goes to the columns that change all the time; the plan printed above has the rows' changes in full.
        table.add_column("changes", no_wrap=True, overflow="ellipsis", max_width=max(12, self._console.width // 4))
        table.add_column("state", no_wrap=True)
        table.add_column("", width=10)
        table.add_column("last", no_wrap=True, overflow="ellipsis", ratio=1)
        for state in self._board.states.values():
            name, _, changes = label(state.planned).removeprefix("row ").partition(": ")
            style = {"done": "green", "failed": "red", "unusable": "red", "waiting": "dim"}.get(state.stage, "bold")
            bar = ProgressBar(total=1.0, completed=state.done, width=10)
            table.add_row(name, changes, Text(state.stage, style), bar, Text(state.note, "" if state.note else "dim"))
        finished = sum(state.stage == "done" for state in self._board.states.values())
        left = self._board.remaining
        to_go = "time to go unknown" if left is None else f"about {duration(left)} to go"
        foot = f"{finished} of {len(self._board.states)} runs done, {to_go}"
        return Group(table, Text(foot, "bold"))


def progress_view(board: ProgressState, console: Console) -> ProgressView:
    """Returns the live table for a terminal, or plain lines for anything else."""
    return LiveProgress(board, console) if console.is_terminal else PlainProgress(board, console)
