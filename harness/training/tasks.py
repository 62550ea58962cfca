"""Chooses the task class of a run by its objective, the setting `network.objective`."""

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


def task_maker(settings: Settings) -> Maker:
    """Returns a function that makes the task of a run with these settings.

    The function takes the arguments of :class:`harness.training.task.VideoTask`.
    """
    return _TASKS[objectives.objective(settings)](settings)
