"""Files of tests run in the order of how long they take, the longest first: so both processes end at about one time."""

import sys

# TensorFlow loads jax where it is installed, and jax has Python's garbage collector call it, even while a process of
# tests is being ended. The tests that need jax start processes of their own.
sys.modules.setdefault("jax", None)

SLOWEST = (
    "test_runner",
    "test_interruptions",
    "test_study",
    "test_prepare_data",
    "test_seeds",
    "test_workers",
    "test_tracking",
    "test_faults",
    "test_export",
    "test_import_garden",
    "test_decoding",
    "test_augment",
    "test_speed",
    "test_preflight",
    "test_tpu_compiler",
    "test_tpu_estimating",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOWEST.index(item.path.stem) if item.path.stem in SLOWEST else len(SLOWEST))
