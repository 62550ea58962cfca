"""Toggles: parsing, values, composition and its refusals."""

import pytest

from ablations.toggles import DEPTH, DSTEM, LS, SD, TOGGLES
from harness.config.toggles import VALUE, PaperAmount, Toggle, ToggleError, compose, parse


def test_parse_takes_default_or_value():
    assert parse("ls", TOGGLES) == LS.at(0.1)
    assert parse("sd=0.1", TOGGLES) == SD.at(0.1)
    assert parse("depth=101", TOGGLES).value == 101
    assert parse("DSTEM=v0", TOGGLES).value == "v0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sdd", "unknown toggle 'sdd': did you mean sd?"),
        ("zzzzz", "unknown toggle 'zzzzz': expected one of depth, dstem, ema"),
        ("sd=1.5", "sd=1.5: expected a number from 0 to 0.999"),
        ("sd=much", "sd=much: expected a number"),
        ("sd=nan", "sd=nan: expected a finite number"),
        ("sd=", "sd=: expected a value after '='"),
        ("depth=18", "depth=18: expected one of 50, 101, 152, 200, 270, 300"),
        ("dstem=v2", "dstem=v2: expected one of v1, v0"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ToggleError) as error:
        parse(text, TOGGLES)
    assert str(error.value).startswith(message)


def test_compose_refuses_two_values_of_one_field_and_names_both():
    with pytest.raises(ToggleError, match=r"sd=0.1 and sd=0.2 both set .*stochastic_depth_drop_rate, to 0.1 and 0.2"):
        compose([SD.at(0.1), SD.at(0.2)])


def test_compose_lets_equal_values_pass():
    assert compose([SD.at(0.1), SD.at(0.1)]) == compose([SD.at(0.1)])


def test_value_is_filled_in_at_any_depth():
    toggle = Toggle("x", "X", "", "", {"a.b": {"c": VALUE, "d": PaperAmount("pixels"), "e": 3}}, default=2)
    assert toggle.at(7).changes == {"a.b": {"c": 7, "d": PaperAmount("pixels", 7), "e": 3}}


def test_short_name_hides_defaults_but_not_of_axes():
    assert [LS.at().short, LS.at(0.2).short, DEPTH.at(50).short, DSTEM.at().short] == [
        "ls",
        "ls=0.2",
        "depth=50",
        "dstem",
    ]
