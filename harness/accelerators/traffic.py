"""A compiled program as text -> the bytes that it moves between a core and its memory, on-chip memory left out.

From TPU v4 on the compiler places what is read soon in on-chip memory, which its own count of bytes does not tell from
the rest: as the least that a step must move that count would be too high there.
"""

from __future__ import annotations

import itertools
import math
import re

ON_CHIP = "S(1)"
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_BUFFER = re.compile(r"([a-z]+[0-9]+[a-z0-9]*|pred)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.-]+)")
# No operation of their own: other names of a buffer, or the ends of what was begun elsewhere.
_NONE = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "while", "conditional", "call"}


def off_chip(text: str) -> int:
    """Bytes of operands and results outside of on-chip memory of the operations of a program's entry.

    Loops and branches count nothing, so it is never too high for them.

    Args:
      text: the optimised HLO module, with its layouts.
    """
    entry = text[text.index("\nENTRY ") :] if "\nENTRY " in text else text
    buffers: dict[str, int] = {}
    moved = 0
    for line in entry.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        name, shape, operation, rest = found.groups()
        sizes = [_size(*one.groups()) for one in _BUFFER.finditer(shape)]
        begun = operation.endswith("-start")
        # What begins a copy gives its target, its source under another name, and its state.
        buffers[name] = sum(sizes[:1] if begun else sizes)
        if operation in _NONE or operation.endswith(("-done", "-update")):
            continue
        operands = rest.split("), ", 1)[0]
        moved += buffers[name] + sum(buffers.get(one, 0) for one in _NAME.findall(operands))
    return moved


def _size(kind: str, sides: str, layout: str | None) -> int:
    """Bytes of a buffer, its minor dimensions rounded up to tiles; none for one in on-chip memory."""
    if layout is not None and ON_CHIP in layout:
        return 0
    bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])  # type: ignore[index]
    return math.prod(_rounded([int(side) for side in sides.split(",") if side], layout or "")) * bits // 8


def _rounded(sides: list[int], layout: str) -> list[int]:
    """Sides from the minor one up, rounded up to the tile of a layout such as "{3,0,2,1:T(8,128)(2,1)}"."""
    found = re.match(r"\{([\d,]*)(?::T\(([\d,]+)\))?", layout)
    if not found or not found[1]:
        return sides
    minor = [sides[int(place)] for place in found[1].split(",")]
    tile = [int(side) for side in reversed((found[2] or "1").split(","))]
    return [-(-side // step) * step for side, step in itertools.zip_longest(minor, tile[: len(minor)], fillvalue=1)]
