"""Counts the bytes that a compiled program moves between a core and its memory, without on-chip memory.

From TPU v4 on, the compiler keeps data that is read soon in on-chip memory. Its own count of bytes includes that
memory, so it would be too high as a lower bound of what a step must move.
"""

from __future__ import annotations

import itertools
import math
import re

ON_CHIP = "S(1)"
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_BUFFER = re.compile(r"([a-z]+[0-9]+[a-z0-9]*|pred)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.-]+)")
# Instructions that move no bytes themselves: other names of a buffer, or calls of other computations.
_NONE = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "while", "conditional", "call"}


def off_chip(text: str) -> int:
    """Returns the bytes of operands and results outside on-chip memory, over the operations of a program's entry.

    Loops and branches count as 0, so the sum is never too high because of them.

    Args:
      text: the optimised HLO module, with its layouts.
    """
    entry = text[text.index("\nENTRY ") :] if "\nENTRY " in text else text
    buffers: dict[str, int] = {}
    moved = 0
    for line in entry.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        name, shape, operation, rest = match.groups()
        sizes = [_size(*buffer.groups()) for buffer in _BUFFER.finditer(shape)]
        starts_copy = operation.endswith("-start")
        # The start of a copy has as results its target, its source under another name, and its state.
        buffers[name] = sum(sizes[:1] if starts_copy else sizes)
        if operation in _NONE or operation.endswith(("-done", "-update")):
            continue
        operands = rest.split("), ", 1)[0]
        moved += buffers[name] + sum(buffers.get(operand, 0) for operand in _NAME.findall(operands))
    return moved


def _size(kind: str, sides: str, layout: str | None) -> int:
    """Returns the bytes of a buffer, its minor dimensions rounded up to tiles; 0 if it is in on-chip memory."""
    if layout is not None and ON_CHIP in layout:
        return 0
    bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])  # type: ignore[index]
    return math.prod(_rounded([int(side) for side in sides.split(",") if side], layout or "")) * bits // 8


def _rounded(sides: list[int], layout: str) -> list[int]:
    """Returns sides, the minor one first, rounded up to the tile of a layout such as "{3,0,2,1:T(8,128)(2,1)}"."""
    match = re.match(r"\{([\d,]*)(?::T\(([\d,]+)\))?", layout)
    if not match or not match[1]:
        return sides
    minor = [sides[int(axis)] for axis in match[1].split(",")]
    tile = [int(side) for side in reversed((match[2] or "1").split(","))]
    return [-(-side // step) * step for side, step in itertools.zip_longest(minor, tile[: len(minor)], fillvalue=1)]
