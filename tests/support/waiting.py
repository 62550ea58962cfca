"""Trainings that wait for the signal which stops them, so that it comes in their midst, however quick they are.

In a training process that is forked (:mod:`tests.support.forked`) or pretends (:mod:`tests.support.pretend`), the
environment's TRAINING_WAITS says what happens where training asks whether to stop, which it does after each inner loop:

    signal   it waits until it was told by SIGTERM, and stops
    ever     it waits, whatever it is told
"""

from __future__ import annotations

import os

VARIABLE = "TRAINING_WAITS"
SIGNAL, EVER = "signal", "ever"


def wait_where_told() -> None:
    """Makes the training of this process wait, if its environment says so."""
    from harness.training import worker

    if os.environ.get(VARIABLE) in (SIGNAL, EVER):
        worker._Asked = _Asked  # type: ignore[misc, assignment]


class _Asked:
    """In the place of :class:`harness.training.worker._Asked`."""

    def __init__(self) -> None:
        self._told, self._telling = os.pipe()
        self._reason: str | None = None

    def __call__(self, *_: object) -> None:
        """Handles the signal."""
        if os.environ[VARIABLE] == SIGNAL:
            os.write(self._telling, b"stop")

    @property
    def reason(self) -> str | None:
        """Why to stop, once it was told."""
        if self._reason is None:
            os.read(self._told, 4)
            self._reason = "asked to stop"
        return self._reason
