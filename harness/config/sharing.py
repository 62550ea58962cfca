"""Settings for sharing the runs of a command with other workers, as its flags give them."""

from __future__ import annotations

import dataclasses

RETRIES = 1
GRACE = 120.0


@dataclasses.dataclass(frozen=True)
class Sharing:
    """How a command's runs are shared with other workers.

    Attributes:
      storage: URL of Optuna's storage; None for an SQLite file in the results folder.
      retries: number of times that a failed run is tried again.
      lease: seconds without a sign of life after which a worker loses its run; None for the storage's default.
      grace: seconds that a run has to save a checkpoint after it was asked to stop.
    """

    storage: str | None = None
    retries: int = RETRIES
    lease: float | None = None
    grace: float = GRACE
