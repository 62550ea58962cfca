"""Files of tests run in the order of how long they take, the longest first: so both processes end at about one time."""

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
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOWEST.index(item.path.stem) if item.path.stem in SLOWEST else len(SLOWEST))
