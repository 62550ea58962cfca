"""Trains one row in three processes: two with one seed, one with another, and compares every validation prediction.

python -m tests.proofs.seeds                                 row 10, RandAugment on, whole
python -m tests.proofs.seeds --steps 4 --validation-videos 8  in short, as test_interruptions does
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from harness.store.run_store import Store
from tests.support import commands
from tests.support.commands import Runs

ROW_10 = ["ls", "sd", "wd", "ep", "sj", "se", "dstem", "ra", "--depth", "200", "--frames", "48"]


def predictions(folder: Path, seed: int, words: list[str], run: Runs):
    """Per-video predictions of row 10, trained in a process of its own."""
    code, said = run("harness.train", [*ROW_10, "--seed", seed, "--results", folder, *words])
    assert code == 0, said
    store = Store(folder)
    record = store.read(store.ids()[0])
    return store.predictions(record, next(iter(record.evaluations)))


def equal(one, other) -> bool:
    """Whether all predictions agree, to the last bit."""
    return all(
        np.array_equal(np.stack(one[column].to_numpy()), np.stack(other[column].to_numpy()))
        for column in ("media_id", "label", "top_class", "top_probability", "loss")
    )


def prove(words: list[str], folder: Path, run: Runs = commands.run) -> dict[str, object]:
    """Trains and compares; `run` runs a command in a process of its own."""
    first, second, other = (
        predictions(folder / name, seed, words, run) for name, seed in (("first", 0), ("second", 0), ("other", 1))
    )
    assert equal(first, second), "two runs with one seed differ"
    assert not equal(first, other), "another seed changes nothing"
    assert list(first["media_id"]) == list(other["media_id"])
    top = [np.stack(table["top_class"].to_numpy())[:, 0] for table in (first, other)]
    changed = int((top[0] != top[1]).sum())
    return {"videos": len(first), "one seed": "equal", "another seed": f"{changed} videos change class"}


def main() -> None:
    """The command line; other words are handed to harness.train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(prove(words, Path(folder))))


if __name__ == "__main__":
    main()
