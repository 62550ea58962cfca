"""How a command's runs are shared with other workers, as its flags say."""

from __future__ import annotations

import dataclasses

RETRIES = 1
GRACE = 120.0


@dataclasses.dataclass(frozen=True)
class Sharing:
    """How a command's runs are shared with other workers.

    Attributes:
      storage: URL of Optuna's storage; None for an SQLite file in the results folder.
      retries: how often a run that failed is tried again.
      lease: seconds after which a silent worker has lost its run; None for the storage's own.
      grace: seconds that a run has, once it was asked to stop, to save a checkpoint.
    """

    storage: str | None = None
    retries: int = RETRIES
    lease: float | None = None
    grace: float = GRACE
