"""Bytes moved, read off a compiled program's text, against counts by hand."""

import pytest

from harness.accelerators import traffic

HEAD = """HloModule m

%fused (p: f32[4096]) -> f32[4096] {
  %p = f32[4096]{0:T(1024)} parameter(0)
  ROOT %n = f32[4096]{0:T(1024)} negate(%p)
}

ENTRY %main (a: bf16[16,64]) -> bf16[16,64] {
  %a = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(0)
"""
# 16 rows of 64, rounded up to 128, of two bytes.
A = 16 * 128 * 2


@pytest.mark.parametrize(
    ("lines", "moved"),
    [
        ("ROOT %r = bf16[16,64]{1,0:T(8,128)(2,1)} fusion(%a), kind=kLoop, calls=%fused", 2 * A),
        # The first dimension is the minor one: 64 columns of 16, rounded up to 128.
        ("ROOT %r = bf16[16,64]{0,1:T(8,128)(2,1)} copy(%a)", A + 64 * 128 * 2),
        # Two results, one of them on the chip; a name for one of them costs nothing.
        (
            "%f = (f32[64]{0:T(256)}, bf16[16,64]{1,0:T(8,128)(2,1)S(1)}) fusion(%a), calls=%fused\n"
            "  %g = bf16[16,64]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%f), index=1\n"
            "  ROOT %r = bf16[16,64]{1,0:T(8,128)(2,1)} add(%g, %g)",
            A + 256 * 4 + A,
        ),
        # Brought onto the chip: read once, when it begins.
        (
            "%s = (bf16[16,64]{1,0:T(8,128)(2,1)S(1)}, bf16[16,64]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%a)\n"
            "  %d = bf16[16,64]{1,0:T(8,128)(2,1)S(1)} copy-done(%s)\n"
            "  ROOT %r = bf16[16,64]{1,0:T(8,128)(2,1)} negate(%d)",
            A + A,
        ),
        ('%c = pred[8]{0} constant({0})\n  ROOT %r = pred[8]{0} not(%c), metadata={op_name="x(%a)"}', 16),
        ("ROOT %w = bf16[16,64]{1,0:T(8,128)(2,1)} while(%a), condition=%fused, body=%fused", 0),
    ],
)
def test_bytes_are_those_counted_by_hand(lines, moved):
    assert traffic.off_chip(f"{HEAD}  {lines}\n}}\n") == moved


def test_what_a_fused_operation_does_within_is_not_counted():
    assert traffic.off_chip(HEAD + "}\n") == 0
