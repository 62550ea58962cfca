"""The parts that all figures share: style, title and caption, and the writing of files."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.text import Text

WIDTH = 7.0  # inches: the text width of a two-column paper
MUTED = "#595959"
_PANELS = 3.5  # inches of height for all panels together, labels included
_DPI = 200  # figures are laid out at the resolution of their files, since the width of letters depends on it
_LINE = 0.13  # inches of one line of the caption

_STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "svg.hashsalt": "harness",  # without a salt the ids in the file are random
}
SUFFIXES = ("png", "pdf", "svg")  # formats in which a figure is written
_METADATA: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def framed(title: str, caption: str) -> Figure:
    """Makes a figure without panels: its title above, its caption below, and room for the panels between."""
    lines = textwrap.wrap(caption, 135)
    head = textwrap.wrap(title, 88)
    height = _PANELS + _LINE * (len(lines) + 2) + 0.15 * (len(head) - 1)
    figure = Figure(figsize=(WIDTH, height), dpi=_DPI, layout="constrained")
    figure.suptitle("\n".join(head), x=0.01, ha="left", weight="bold")
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7, color=MUTED)
    return figure


def beside(axes: Axes, x: float, y: float, text: str, below: bool = False, color: str = MUTED) -> None:
    """Writes a text above or below a point."""
    axes.annotate(text, (x, y), xytext=(0, -5 if below else 4), textcoords="offset points", ha="center",
                  va="top" if below else "bottom", fontsize=7, linespacing=0.9, color=color)  # fmt: skip


def say_absent(axes: Axes, x: npt.ArrayLike, texts: Sequence[str]) -> None:
    """Writes each text upright at its x, from the foot of the panel, to say what is missing there."""
    for position, text in zip(np.asarray(x), texts, strict=True):
        if text:
            axes.text(position, 0.04, text, transform=axes.get_xaxis_transform(), rotation=90, ha="center",
                      va="bottom", fontsize=7, color=MUTED)  # fmt: skip


def settle(figure: Figure, axes: Axes) -> None:
    """Slants labels that would touch, then fixes the layout, so that drawing again changes nothing."""
    labels = axes.get_xticklabels()
    figure.draw_without_rendering()
    if _touching(labels):
        _turn(figure, labels)
    figure.set_layout_engine("none")


def _touching(labels: Sequence[Text]) -> bool:
    boxes = [label.get_window_extent() for label in labels]
    return any(left.x1 + 4 > right.x0 for left, right in itertools.pairwise(boxes))


def _turn(figure: Figure, labels: Sequence[Text]) -> None:
    """Slants the labels, and makes the figure taller by what they need, so that the panels keep their height."""
    before = max(label.get_window_extent().height for label in labels)
    for label in labels:
        label.set(rotation=40, ha="right", rotation_mode="anchor")
    after = max(label.get_window_extent().height for label in labels)
    figure.set_size_inches(WIDTH, figure.get_figheight() + (after - before) / figure.dpi)
    figure.draw_without_rendering()


def to_bytes(figure: Figure, suffix: str) -> bytes:
    """Returns the content of a file with the figure; the same numbers give the same bytes.

    Args:
      figure: the figure.
      suffix: "png" (200 dots per inch), "pdf" or "svg".

    Raises:
      ValueError: any other suffix.
    """
    if suffix not in _METADATA:
        raise ValueError(f"figure format {suffix!r}: expected one of {', '.join(_METADATA)}")
    buffer = io.BytesIO()
    with style():
        if isinstance(figure.get_layout_engine(), PlaceHolderLayoutEngine):
            # With any layout engine, even the placeholder, matplotlib would draw the figure twice.
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=suffix, dpi=_DPI, metadata=_METADATA[suffix])
    return buffer.getvalue()


def load_backends() -> None:
    """Imports Matplotlib's writers of files, so that forked processes share them instead of each importing its own."""
    for name in ("agg", "pdf", "svg"):
        importlib.import_module(f"matplotlib.backends.backend_{name}")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Applies Matplotlib's defaults with the changes above, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", _STYLE]):
        yield
