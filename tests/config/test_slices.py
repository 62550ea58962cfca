"""Slices against hand counts, the sizes in Google's own names, and the compiler's count of devices and hosts."""

import importlib.resources
import itertools
import json
import math
import os
import subprocess
import sys

import pytest

from harness.accelerators import tpu_compiler
from harness.config import slices
from harness.config.experiment import SettingsError

GENERATIONS = ("v2", "v3", "v4", "v5e", "v5p", "v6e")
GIB = 2**30

# topology: chips, cores, hosts, cores a host; counted by hand.
COUNTS = {
    "v2:16x16": (256, 512, 64, 8),
    "v3:8x8": (64, 128, 16, 8),
    "v3:2x2": (4, 8, 1, 8),
    "v3:1x1": (1, 2, 1, 2),
    "v3:1x2": (2, 4, 1, 4),
    "v3:1x4": (4, 8, 2, 4),
    "v3:2x4": (8, 16, 2, 8),
    "v3:4x2": (8, 16, 2, 8),
    "v3:2x6": (12, 24, 3, 8),
    "v3:32x32": (1024, 2048, 256, 8),
    "v4:2x2x1": (4, 8, 1, 8),
    "v4:2x2x2": (8, 16, 2, 8),
    "v4:2x2x3": (12, 24, 3, 8),
    "v4:1x4x4": (16, 32, 8, 4),
    "v5e:4x4": (16, 16, 4, 4),
    "v5e:1x1": (1, 1, 1, 1),
    "v5p:2x2x2": (8, 8, 2, 4),
    "v5p:1x1x2": (2, 2, 2, 1),
    "v6e:2x4": (8, 8, 2, 4),
}

# What one core has: memory, operations a second, bytes a second.
CORES = {
    "v3": (16 * GIB, 61.5e12, 450e9),
    "v4": (16 * GIB, 137.5e12, 600e9),
    "v5e": (16 * GIB, 197e12, 819e9),
    "v5p": (95 * GIB, 459e12, 2765e9),
    "v6e": (32 * GIB, 918e12, 1638e9),
    "v2": (8 * GIB, 23e12, 358e9),
}

# Every small shape, and a few large ones; never a side of 0, at which the compiler takes its process down.
SHAPES = {
    2: [*itertools.product(range(1, 7), repeat=2), (8, 8), (16, 16), (9, 8)],
    3: [*itertools.product(range(1, 5), range(1, 5), range(1, 4)), (4, 4, 8), (2, 2, 7), (12, 12, 24), (8, 5, 8)],
}

ASK_COMPILER = """
import collections, json, sys
from jax.experimental import topologies

answers = {}
for name in json.load(sys.stdin):
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
        hosts = collections.Counter(device.process_index for device in devices)
        chips = {tuple(device.coords) for device in devices}
        answers[name] = [len(chips), len(devices), len(hosts), *set(hosts.values())]
    except Exception as error:
        answers[name] = str(error)
json.dump(answers, sys.stdout)
"""


def counts(part: slices.Slice) -> tuple[int, int, int, int]:
    return part.chips, part.cores, part.hosts, part.cores_per_host


def published() -> dict[str, dict[str, object]]:
    return json.loads(importlib.resources.files("ablations.published").joinpath("tpus.json").read_text())


@pytest.mark.parametrize(("topology", "expected"), COUNTS.items())
def test_counts_are_those_made_by_hand(topology, expected):
    part = slices.slice_of(topology)
    assert part.topology == topology
    assert part.generation == slices.load(topology.split(":")[0])
    assert counts(part) == expected


@pytest.mark.parametrize("text", ["V3:8x8", " v3:8X8\n", "v3:08x8"])
def test_a_topology_has_one_name(text):
    assert slices.slice_of(text) == slices.slice_of("v3:8x8")


@pytest.mark.parametrize(("name", "expected"), CORES.items())
def test_a_core_has_its_share_of_the_chip(name, expected):
    generation = slices.load(name)
    assert (generation.memory, generation.peak, generation.bandwidth) == expected
    assert generation.name == name


# What the compiler gives a program of a core, GiB: what its messages say of programs that are too large.
USABLE = {"v2": 7.48, "v3": 15.48, "v4": 15.25, "v5e": 15.75, "v5p": 95.73, "v6e": 31.24}


@pytest.mark.parametrize(("name", "gib"), USABLE.items())
def test_a_program_is_given_most_of_it(name, gib):
    generation = slices.load(name)
    assert generation.usable == pytest.approx(gib * GIB, abs=1)
    assert isinstance(generation.usable, int)
    assert 0.93 < generation.usable / generation.memory < 1.01  # of v5p more than Google prints


def test_every_generation_is_complete_and_has_a_source():
    assert slices.names() == GENERATIONS
    for name, entry in published().items():
        assert slices.load(name).source == entry["source"]
        assert entry["source"].startswith(
            ("https://cloud.google.com/", "https://docs.cloud.google.com/", "https://docs.jax.dev/")
        )
        assert entry["chip_name"] == f"TPU {name}"
        assert entry["notes"]
        assert entry["read"] == "2026-11-23"


@pytest.mark.parametrize("name", GENERATIONS)
def test_an_accelerator_type_names_the_size_of_its_slice(name):
    entry = published()[name]
    per_chip = {"cores": 2, "chips": 1}[entry["accelerator_counts"]]
    sizes = {}
    for size, shape in entry["accelerators"].items():
        topology = slices.of_accelerator(f"{entry['accelerator_prefix']}{size}")
        assert topology == f"{name}:{shape}"
        sizes[int(size)] = slices.slice_of(topology).chips * per_chip
    assert all(size == counted for size, counted in sizes.items())
    assert max(sizes.values()) <= entry["largest"] * per_chip


@pytest.mark.parametrize(
    ("accelerator", "topology"),
    [
        ("v3-128", "v3:8x8"),
        ("v5litepod-16", "v5e:4x4"),
        ("v6e-8", "v6e:2x4"),
        ("v4-8", "v4:2x2x1"),
        ("v5p-8", "v5p:2x2x1"),
        (" V2-8", "v2:2x2"),
    ],
)
def test_known_accelerator_types(accelerator, topology):
    assert slices.of_accelerator(accelerator) == topology


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5:2x2x1", "unknown TPU generation 'v5': did you mean v5p or v5e?"),
        ("gpu:2x2", "unknown TPU generation 'gpu': expected one of v2, v3, v4, v5e, v5p, v6e"),
        ("v3", "TPU topology 'v3': expected a generation and the sides in chips, such as v3:8x8"),
        ("v3-128", "TPU topology 'v3-128': expected a generation and the sides in chips, such as v3:8x8"),
        ("v3:-2x2", "TPU topology 'v3:-2x2': expected a generation and the sides in chips, such as v3:8x8"),
        ("v3:8x", "TPU topology 'v3:8x': expected a generation and the sides in chips, such as v3:8x8"),
        ("", "TPU topology '': expected a generation and the sides in chips, such as v3:8x8"),
        ("v3:2x2x2", "TPU topology 'v3:2x2x2': TPU v3 expects 2 sides, such as v3:2x2, not 3"),
        ("v4:4x4", "TPU topology 'v4:4x4': TPU v4 expects 3 sides, such as v4:2x2x2, not 2"),
        ("v3:0x2", "TPU topology 'v3:0x2': every side must be 1 chip or more"),
        ("v4:2x2x0", "TPU topology 'v4:2x2x0': every side must be 1 chip or more"),
        (
            "v3:3x3",
            "TPU topology 'v3:3x3': a host has 2x2 chips, so each of the first two sides must be 1 or even",
        ),
        (
            "v4:2x3x2",
            "TPU topology 'v4:2x3x2': a host has 2x2 chips, so each of the first two sides must be 1 or even",
        ),
        ("v3:32x64", "TPU topology 'v3:32x64': 2048 chips, but the largest slice of TPU v3 has 1024"),
        ("v5e:16x32", "TPU topology 'v5e:16x32': 512 chips, but the largest slice of TPU v5e has 256"),
    ],
)
def test_a_slice_that_does_not_exist_is_refused_in_one_line(text, message):
    with pytest.raises(SettingsError) as error:
        slices.slice_of(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "v6e-7",
            "TPU accelerator type 'v6e-7': expected v6e- and one of 1, 4, 8, 16, 32, 64, 128, 256",
        ),
        ("v2-", "TPU accelerator type 'v2-': expected v2- and one of 8, 32, 128, 256, 512"),
        (
            "v5lite-16",
            "TPU accelerator type 'v5lite-16': expected a prefix and a size, such as v3-128: did you mean v5litepod-?",
        ),
        (
            "8x8",
            "TPU accelerator type '8x8': expected a prefix and a size, such as v3-128: "
            "expected one of v2-, v3-, v4-, v5litepod-, v5p-, v6e-",
        ),
    ],
)
def test_an_unknown_accelerator_type_is_refused_with_the_known_ones(text, message):
    with pytest.raises(SettingsError) as error:
        slices.of_accelerator(text)
    assert str(error.value) == message


def test_a_number_that_nobody_published_is_named(monkeypatch):
    for missing in (("peak_bf16", "bandwidth"), ("compiler_gib_a_core",)):
        entry = {**published()["v3"], **dict.fromkeys(missing), "notes": ["The page is gone."]}
        monkeypatch.setattr(slices, "_published", lambda entry=entry: {"v3": entry})
        with pytest.raises(SettingsError) as error:
            slices.slice_of("v3:8x8")
        assert str(error.value) == f"TPU v3: no {' and '.join(missing)} in tpus.json: The page is gone."


def test_bound_by_hand():
    # 3e12 operations at 61.5e12 a second, 30e9 bytes at 450e9 a second.
    found = slices.bound(1.5e12, 30e9, slices.load("v3"))
    assert found.compute == pytest.approx(3 / 61.5)
    assert found.memory == pytest.approx(1 / 15)
    assert found.seconds == pytest.approx(1 / 15)
    assert found.limited_by == "memory"


def test_bound_by_compute_and_by_nothing():
    found = slices.bound(1.5e12, 20e9, slices.load("v3"))
    assert found.seconds == pytest.approx(3 / 61.5)
    assert found.limited_by == "compute"
    assert slices.bound(0, 0, slices.load("v3")) == slices.Bound(0, 0)
    assert slices.Bound(1, 1).limited_by == "compute"


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ((-1, 0), "multiply-adds of a core must be 0 or more, not -1"),
        ((0, math.nan), "bytes moved of a core must be 0 or more, not nan"),
    ],
)
def test_bound_refuses_impossible_work(work, message):
    with pytest.raises(SettingsError) as error:
        slices.bound(*work, slices.load("v3"))
    assert str(error.value) == message


@pytest.fixture(scope="module")
def compiler():
    """What the compiler says of each topology: chips, devices, hosts, devices a host, or why it refuses."""
    if tpu_compiler.installed() is None:
        pytest.skip("needs pip install -e '.[preflight]'")
    asked = [
        f"{name}:{'x'.join(map(str, shape))}"
        for name in GENERATIONS
        for shape in SHAPES[3 if name in ("v4", "v5p") else 2]
    ]
    # libtpu locks itself to one process; without a TPU there is nothing to fight over.
    environment = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v3-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK_COMPILER],
        input=json.dumps([*asked, *COUNTS]),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_compiler_counts_the_same(compiler):
    accepted = {name: tuple(answer) for name, answer in compiler.items() if isinstance(answer, list)}
    assert set(COUNTS) <= set(accepted)
    assert {name: counts(slices.slice_of(name)) for name in accepted} == accepted


def test_the_compiler_refuses_the_same(compiler):
    refused = {name: answer for name, answer in compiler.items() if isinstance(answer, str)}
    assert {"v3:3x3", "v5e:2x3", "v4:2x3x2"} <= set(refused)
    assert all("not divisible" in answer for answer in refused.values())
    for name in refused:
        with pytest.raises(SettingsError, match="a host has 2x2 chips"):
            slices.slice_of(name)
