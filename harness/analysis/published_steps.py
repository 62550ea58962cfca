"""What printed accuracies alone allow: the McNemar p-values of published steps, whichever videos flipped. Pure."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from harness.system.errors import HarnessError

# Printed accuracies and steps carry one decimal; half of it is what rounding may hide. In tenths of a point.
_HALF = 0.5
# Closer than any two roundings of counts of videos can be; what is left is floating-point noise.
_NOISE = 1e-6


class PublishedError(HarnessError):
    """A published step that no counts of videos can have led to; the message is one line."""


def correct(percent: float, videos: int) -> range:
    """Counts of rightly classified videos whose share is printed so.

    Args:
      percent: printed accuracy, 0 to 100, one decimal.
      videos: number of videos, at least 1.

    Raises:
      PublishedError: no count is printed so.
    """
    tenth = videos / 1000
    low = int(np.ceil((10 * percent - _HALF) * tenth - _NOISE))
    high = int(np.floor((10 * percent + _HALF) * tenth + _NOISE))
    found = range(max(low, 0), min(high, videos) + 1)
    if not found:
        raise PublishedError(f"top-1 {percent}: no number of {videos} videos is printed so")
    return found


def flips(before: int, after: int, videos: int) -> range:
    """How many videos two models can classify differently, one rightly and one wrongly, given how many each has right.

    Args:
      before: rightly classified videos of one model, 0 to `videos`.
      after: those of the other.
      videos: number of videos.

    Returns:
      All possible counts: from the net difference, in steps of two, to where one model is right on all that the other
      is wrong on, as far as there are such videos.
    """
    return range(abs(after - before), min(before + after, 2 * videos - before - after) + 1, 2)


def p_value(net: int, flipped: int) -> float:
    """Two-sided p-value of the exact McNemar test.

    Args:
      net: videos that flipped to right less those that flipped to wrong.
      flipped: how many flipped, at least `abs(net)` and of its parity.
    """
    fewer = (flipped - abs(net)) // 2
    return min(1.0, 2 * float(special.bdtr(fewer, flipped, 0.5)))


def largest_significant(net: int, flipped: range, alpha: float) -> int:
    """The largest of the counts in `flipped` at which the net difference is significant; 0 where there is none.

    At the same net difference the p-value only grows with the number of flips.
    """
    place = bisect.bisect_right(flipped, alpha, key=lambda count: p_value(net, count))
    return flipped[place - 1] if place else 0


def pairs(before: float, after: float, step: float, videos: int) -> Iterator[tuple[int, int]]:
    """Counts of rightly classified videos of two rows that are printed as they are, and lead to the printed step.

    A step may have been rounded after subtracting or subtracted after rounding; counts that fit either way are allowed.

    Args:
      before: printed accuracy in percent of the row that the step starts from.
      after: that of the row it leads to.
      step: printed difference in points.
      videos: number of videos.
    """
    subtracted = abs(after - before - step) < _NOISE
    for one, other in itertools.product(correct(before, videos), correct(after, videos)):
        if subtracted or abs(1000 * (other - one) / videos - 10 * step) <= _HALF + _NOISE:
            yield one, other


def bounds(before: float, after: float, step: float, videos: int, alpha: float = 0.05) -> dict[str, float]:
    """What the printed numbers of one step leave open.

    Args:
      before: printed accuracy in percent, one decimal, of the row that the step starts from.
      after: that of the row it leads to.
      step: printed difference in points.
      videos: how many videos both were evaluated on.
      alpha: level of the test.

    Returns:
      "net_low", "net_high": videos won, flipped to right less flipped to wrong.
      "p_low", "p_high": two-sided p-values of the exact McNemar test, over all allowed counts of flips.
      "surely": significant at all allowed counts with so many flips or fewer; 0 where there are none.
      "at_most": significant at no allowed counts with more flips.
      "flipped_high": the most videos that can have flipped.

    Raises:
      PublishedError: no counts are printed so.
    """
    allowed = [(other - one, flips(one, other, videos)) for one, other in pairs(before, after, step, videos)]
    if not allowed:
        raise PublishedError(f"{before} to {after}: no numbers of {videos} videos give a step of {step:+}")
    most = max(flipped[-1] for _, flipped in allowed)
    largest = [(largest_significant(net, flipped, alpha), flipped[-1]) for net, flipped in allowed]
    nets = [net for net, _ in allowed]
    return {
        "net_low": min(nets),
        "net_high": max(nets),
        "p_low": min(p_value(net, flipped[0]) for net, flipped in allowed),
        "p_high": max(p_value(net, flipped[-1]) for net, flipped in allowed),
        # Counts that are significant up to their own end set no limit to the others.
        "surely": min((found for found, end in largest if found < end), default=most),
        "at_most": max(found for found, _ in largest),
        "flipped_high": most,
    }


def steps(published: pd.DataFrame, follows: Mapping[int, int | None], videos: int, alpha: float = 0.05) -> pd.DataFrame:
    """The bounds of every step of a published table.

    Args:
      published: a table with columns "top1" (percent) and "delta" (points), indexed by row.
      follows: row -> the row its step is counted from; None where it is none.
      videos: how many videos each row was evaluated on.
      alpha: level of the test.

    Returns:
      A line for each row of `follows` but the first, indexed by "row"; columns "before", "after" (percent), "step"
      (points), and those of :func:`bounds`, all NaN where there is no step.

    Raises:
      PublishedError: a step that no counts of videos can have led to.
    """
    lines = [_line(published, row, before, videos, alpha) for row, before in list(follows.items())[1:]]
    return pd.DataFrame(lines).set_index("row")


def _line(published: pd.DataFrame, row: int, before: int | None, videos: int, alpha: float) -> dict[str, Any]:
    if before is None or np.isnan(published.loc[row, "delta"]):
        return {"row": row}
    first, last = float(published.loc[before, "top1"]), float(published.loc[row, "top1"])
    step = float(published.loc[row, "delta"])
    return {"row": row, "before": first, "after": last, "step": step, **bounds(first, last, step, videos, alpha)}
