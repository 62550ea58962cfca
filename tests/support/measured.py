"""Evidence made by hand, for the tests of what is computed from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.study_summary import Evidence
from harness.store import run_store

PROTOCOL = "10x3@32"


def line(run_id: str, top1: float, seed: int = 0, protocol: str = PROTOCOL, **others: Any) -> dict[str, Any]:
    """A record's line of the frame; 240 videos of 8 classes unless said."""
    values = dict.fromkeys(run_store.FRAME) | {
        "id": run_id,
        "seed": seed,
        "profile": "quick",
        "protocol": protocol,
        "top1": top1,
        "top5": top1,
        "videos": 240,
        "videos_in_split": 240,
        "params": 1e6,
        "multiply_adds": 5e7,
        "dataset": "embedded",
        "fingerprint": "ab" * 32,
        "classes": 8,
        "cut": "",
    }
    return values | others


def outcomes(right: Any, labels: Any = None, names: Any = None) -> pd.DataFrame:
    """What a run made of its videos; top-5 as top-1."""
    right = np.asarray(right, dtype=bool)
    videos = names or [f"v{place:05}" for place in range(len(right))]
    return pd.DataFrame(
        {"label": np.arange(len(right)) % 8 if labels is None else labels, "top1": right, "top5": right},
        index=pd.Index(videos, name="video"),
    )


def first(correct: int, videos: int = 240) -> np.ndarray:
    """Right on the first so many videos."""
    return np.arange(videos) < correct


def evidence(lines: list[dict[str, Any]], profile: str = "quick", margin: float = math.nan, **more: Any) -> Evidence:
    """Evidence with these records, each right on its first videos unless `more` holds other outcomes."""
    made = {
        one["id"]: outcomes(first(round(one["top1"] * one["videos"]), one["videos"]))
        for one in lines
        if one["protocol"] == PROTOCOL
    }
    return Evidence(
        records=pd.DataFrame(lines, columns=run_store.FRAME),
        outcomes=made | more.pop("outcomes", {}),
        profile=profile,
        caption="Caption.",
        protocols={one["id"]: PROTOCOL for one in lines},
        margin=margin,
        **more,
    )


def from_outcomes(runs: dict[str, tuple[int, Any]], **more: Any) -> Evidence:
    """Evidence from what each run made of its videos: id -> (seed, right)."""
    tables = {run_id: outcomes(right) for run_id, (_, right) in runs.items()}
    lines = [
        line(run_id, float(np.mean(right)), seed, videos=len(right), videos_in_split=len(right))
        for run_id, (seed, right) in runs.items()
    ]
    return evidence(lines, outcomes=tables, **more)
