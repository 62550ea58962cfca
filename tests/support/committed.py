"""Committed tables beside those that are drawn again."""

import re
from pathlib import Path

_LONG = re.compile(r"-?\d+\.\d{9,}(?:e[+-]\d+)?")


def equals(path: Path, text: str) -> bool:
    """Whether a file holds a text, the last digits of long numbers aside.

    The last of the 17 digits that a CSV gives depend on the kind of processor, by which linear algebra sums in another
    order.
    """
    return _rounded(path.read_text()) == _rounded(text)


def _rounded(text: str) -> str:
    return _LONG.sub(lambda match: f"{float(match[0]):.9g}", text)
