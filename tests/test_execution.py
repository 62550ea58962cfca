"""The log of a run's attempts, torn where an attempt was killed; the rest of `execution` is tested with the runner."""

import json

from harness import execution


def event(kind, step, seconds=0.0):
    if kind == "attempt":
        return json.dumps({"event": kind, "step": step})
    return json.dumps({"event": kind, "split": kind, "step": step, "seconds": seconds, "done": step, "total": 9})


def test_attempts_are_one_curve_and_a_torn_line_costs_one_point():
    first = [event("attempt", 0), event("train", 1, 2.0), event("train", 2, 4.0), event("train", 3, 6.0)[:20]]
    second = ["", event("attempt", 2), event("train", 3, 1.5), event("validation", 3, 1.75)]
    points, attempts, seconds = execution.whole_curve("\n".join([*first, *second]).splitlines())
    assert [(point["step"], point["split"]) for point in points] == [
        (1, "train"),
        (2, "train"),
        (3, "train"),
        (3, "validation"),
    ]
    assert points[2]["seconds"] == 1.5
    assert attempts == [0, 2]
    assert seconds == 4.0 + 1.75
