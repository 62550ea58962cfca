"""The paper's printed numbers as data frames, each with its provenance; nothing is computed from them.

The files stand in `ablations/published/`: one CSV per table or figure, and `sources.json`, which says where each comes
from. A file without an entry there does not exist for this module. An empty cell is a value that the paper does not
print; it is read as NaN and never filled.
"""

from __future__ import annotations

import importlib.resources
import io
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

PACKAGE = "ablations.published"
TEXT_COLUMNS = frozenset({"model", "family", "pretrain", "dataset", "series", "label", "source"})


def names() -> tuple[str, ...]:
    """Returns the names of the published tables and figures, sorted: "figure1", ..., "table6"."""
    return tuple(sorted(_sources()))


def source(name: str) -> Mapping[str, Any]:
    """Returns where a published table comes from.

    Args:
      name: one of :func:`names`.

    Returns:
      The texts `title` (the paper), `table` (table and sections), `dataset`, `protocol` and `caption` (the paper's),
      `notes`, a list of sentences on what was derived, how, and what is unknown, and of some `said`, for the caption.

    Raises:
      ValueError: if the name is unknown.
    """
    sources = _sources()
    if name not in sources:
        raise ValueError(f"unknown published table {name!r}; known: {', '.join(sorted(sources))}")
    return sources[name]


def load(name: str) -> pd.DataFrame:
    """Reads one published table or figure.

    Args:
      name: one of :func:`names`, such as "table2".

    Returns:
      One row per printed result, indexed by `row` (1, 2, ..., in the paper's order). Which of these columns there are
      depends on the table:
        top1, top5: accuracy in percent, 0 to 100, higher is better.
        delta: difference of top1 to the row above, in percentage points, as printed.
        gain: difference of top1 to the same model trained from scratch, in percentage points, as printed.
        gflops: the paper's "FLOPs (B)" of one view, in 1e9, above 0; the paper does not say which operations count.
        clips, crops: views per video in time and in space, 1 or more; a video is seen clips x crops times.
        params_m: parameters in millions, above 0.
        depth, frames, resolution: layers; frames of the clip; side of the training crop in pixels.
        ls, sd, wd, ep, sj, se, dstem, ra: 1 where the toggle is on, else 0.
        model, family, pretrain, dataset, series, label, source: text.
      What the paper does not print is NaN.

    Raises:
      ValueError: if the name is unknown, or the file is malformed.
    """
    source(name)
    return parse(name, _read(f"{name}.csv"))


def parse(name: str, text: str) -> pd.DataFrame:
    """Turns the text of a CSV file into the frame that :func:`load` describes.

    Args:
      name: name for the messages.
      text: the file's text, a header line first; its columns are text where :data:`TEXT_COLUMNS` names them, else
        numbers.

    Raises:
      ValueError: if a number is not one, or `row` does not count 1, 2, ...
    """
    # "NA" or "None" would be a typing mistake here, not a missing value; only the empty cell is one.
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_values=[""])
    for column in frame.columns.difference(sorted(TEXT_COLUMNS)):
        frame[column] = _numbers(name, frame[column])
    if "row" not in frame or list(frame["row"]) != list(range(1, len(frame) + 1)):
        raise ValueError(f"{name}: column 'row' must count 1, 2, ..., {len(frame)}")
    return frame.set_index("row")


def _numbers(name: str, column: pd.Series[Any]) -> pd.Series[Any]:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = column[numbers.isna() & column.notna()]
    if len(wrong):
        raise ValueError(f"{name}: column {column.name!r} must hold numbers or nothing, not {wrong.iloc[0]!r}")
    return numbers


def _sources() -> dict[str, dict[str, Any]]:
    sources: dict[str, dict[str, Any]] = json.loads(_read("sources.json"))
    return sources


def _read(filename: str) -> str:
    return importlib.resources.files(PACKAGE).joinpath(filename).read_text(encoding="utf-8")
