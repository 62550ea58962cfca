"""Which task carries out a run, by what it learns: the field of ours `network.objective`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from harness.config import objectives
from harness.training.cvrl_task import ContrastiveTask
from harness.training.task import VideoTask

DISTORTION = "network.distortion"

Settings = Mapping[str, Any]
Maker = Callable[..., VideoTask]


def _contrastive(settings: Settings) -> Maker:
    return functools.partial(ContrastiveTask, distortion=settings[DISTORTION])


_TASKS: Mapping[str | None, Callable[[Settings], Maker]] = {
    None: lambda _: VideoTask,
    objectives.CVRL: _contrastive,
    objectives.LINEAR: lambda _: VideoTask,
}


def of(settings: Settings) -> Maker:
    """What makes the task of a run with these settings; takes what :class:`harness.training.task.VideoTask` takes."""
    return _TASKS[objectives.of(settings)](settings)
