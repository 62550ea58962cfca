"""Flat names and nested configurations: each is the other, turned inside out."""

import pytest

from ablations.profiles import PAPER, QUICK
from harness.config.experiment import SettingsError
from harness.config.nested import flat, nested


def test_lists_and_mappings_are_built_in_order():
    settings = {"a.b[1]": 2, "a.b[0]": 1, "a.c": {"d": [3]}, "e": None, **{f"a.long[{i}]": i for i in range(11)}}
    assert nested(settings) == {"a": {"b": [1, 2], "c": {"d": [3]}, "long": list(range(11))}, "e": None}


def test_an_element_without_those_before_it_is_refused():
    with pytest.raises(SettingsError, match="element 1 of a list stated without the 0 before it"):
        nested({"a[1]": 1})


@pytest.mark.parametrize("profile", [QUICK, PAPER], ids=["quick", "paper"])
def test_a_profiles_names_come_back(profile):
    stated = {**profile.settings, **profile.bookkeeping}
    assert flat(nested(stated), stated) == stated


@pytest.mark.parametrize(
    ("config", "leaves", "expected"),
    [
        ({"a": {"b": 1}}, (), {"a.b": 1}),
        ({"a": {"b": 1}}, ("a",), {"a": {"b": 1}}),
        ({"a": [1, 2]}, (), {"a": [1, 2]}),
        ({"a": [1, 2]}, ("a[0]",), {"a[0]": 1, "a[1]": 2}),
        ({"a": {}, "b": None}, (), {"a": {}, "b": None}),
        ({"a": None}, ("a[0]", "a.b"), {"a": None}),
    ],
    ids=str,
)
def test_names_that_are_leaves_are_not_taken_apart(config, leaves, expected):
    assert flat(config, leaves) == expected
    assert nested(flat(config, leaves)) == config
