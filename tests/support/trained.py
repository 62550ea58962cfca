"""Stores with real weights, each trained once for all tests (the fixture `trained`): what they hold, and their runs.

A test that needs weights, checkpoints or a record copies the store that has them, and goes on from there.
"""

from __future__ import annotations

from ablations.stages import PRETRAIN
from ablations.toggles import EMA
from harness.experiment import Run
from harness.store import Store
from tests.support.tiny import Data

STEPS, STOPPED = 4, 2


def baseline(data: Data) -> Run:
    """Four steps of the baseline."""
    return data.run(steps=STEPS)


def averaged(data: Data) -> Run:
    """Four steps of the baseline whose weights are averaged."""
    return data.run(EMA.at(0.5), steps=STEPS)


def pretraining(other: Data) -> Run:
    """Two steps on the other data set, for other runs to start from."""
    return other.run(stages=(PRETRAIN,))


def _whole(store: Store, data: Data, other: Data) -> None:
    data.execute(store, baseline(data))


def _stopped(store: Store, data: Data, other: Data) -> None:
    data.interrupt(store, baseline(data), STOPPED)


def _averaged(store: Store, data: Data, other: Data) -> None:
    data.interrupt(store, averaged(data), 3)


def _pretrained(store: Store, data: Data, other: Data) -> None:
    other.execute(store, pretraining(other))


STORES = {
    "whole": _whole,  # the baseline, recorded
    "stopped": _stopped,  # the baseline, asked to stop after two steps, each of which left a checkpoint
    "averaged": _averaged,  # with averaged weights, asked to stop after three
    "pretrained": _pretrained,  # a run to start from, recorded
}
