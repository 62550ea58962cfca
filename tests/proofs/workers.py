"""Trains row 1 in two processes and in one, with the same clips in each group of batch normalization, and compares.

    python -m tests.proofs.workers                                 the quick profile's row 1
    python -m tests.proofs.workers --steps 26 --validation-videos 9  in short, as test_workers does

Both have two replicas of 8 clips: `multi_worker_mirrored` one in each process, `mirrored` both in one process, on two
logical CPU devices. The tolerance, stated before anything was measured: every video gets the same class, and its loss
agrees to a relative 1e-4. The sums over two replicas have the same terms, so no difference is expected at all.
"""

import argparse
import json
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import embedded_spec
from harness.store.run_store import Store
from tests.support import commands
from tests.support.commands import Starts

TOLERANCE = 1e-4


def ports(count: int) -> list[int]:
    """Free ports of this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


def start_workers(results: Path, words: list[str], start: Starts = commands.start) -> list[Any]:
    """The two workers of row 1; `start` starts a command in a process of its own."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports(2))
    words = ["--strategy", "multi_worker_mirrored", "--worker-hosts", hosts, "--wandb", "off", *words]
    return [start("harness.train", [*words, "--results", results, "--task-index", index]) for index in range(2)]


def in_two_processes(results: Path, words: list[str], start: Starts = commands.start) -> list[str]:
    """Trains row 1 with two workers; what each of them said."""
    workers = start_workers(results, words, start)
    said = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    return said


def in_one_process(results: Path, data: Path, steps: int | None, videos: int | None) -> None:
    """Trains it in this process on two logical devices."""
    import tensorflow as tf

    from ablations.profiles import QUICK
    from harness.config import experiment
    from harness.config.devices import Devices
    from harness.config.experiment import Overrides
    from harness.config.studies import Cell
    from harness.data import embedded
    from harness.planning.workspace import facts
    from harness.training import executor, loop

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    loop.strategy_for = lambda devices: strategy
    spec = embedded_spec.EmbeddedSpec()
    described = embedded.ensure(spec, data)
    run = experiment.complete(Cell((), 0), QUICK, facts(described), Overrides(steps, None, videos), replicas=2)
    store = Store(results)
    attempt = store.attempt(run.id, 0)
    place = executor.run_context(store, run, attempt, embedded.folder(spec, data), Devices("mirrored"))
    executor.execute(run, described, place, store, attempt, lambda event: None)


def compared(one: Store, other: Store) -> dict[str, object]:
    """How far the predictions of the one run in each store are apart."""
    assert one.ids() == other.ids(), "the same settings and clips per group are the same run"
    records = [store.read(store.ids()[0]) for store in (one, other)]
    protocol = next(iter(records[0].evaluations))
    first, second = (
        store.predictions(record, protocol).set_index("media_id").sort_index()
        for store, record in zip((one, other), records, strict=True)
    )
    assert first.index.is_unique
    assert list(first.index) == list(second.index), "every video counts once"
    assert len(first) == records[0].evaluations[protocol].videos
    classes = [np.stack(table["top_class"].to_numpy())[:, 0] for table in (first, second)]
    apart = np.abs(first["loss"] / second["loss"] - 1).max()
    return {
        "videos": len(first),
        "same class": int((classes[0] == classes[1]).sum()),
        "losses apart by at most": float(apart),
        "equal": bool((first["loss"] == second["loss"]).all()),
        "top-1": [record.evaluations[protocol].top1 for record in records],
    }


def prove(steps: int | None, videos: int | None, folder: Path, start: Starts = commands.start) -> dict[str, object]:
    """Trains both ways and compares; `start` starts a command in a process of its own."""
    words = [*(["--steps", str(steps)] if steps else []), *(["--validation-videos", str(videos)] if videos else [])]
    in_two_processes(folder / "two", words, start)
    data = folder / "two" / "data"
    child = start("tests.proofs.workers", ["--child", folder / "one", data, steps or 0, videos or 0])
    said, _ = child.communicate()
    assert child.returncode == 0, said
    found = compared(Store(folder / "two"), Store(folder / "one"))
    assert found["same class"] == found["videos"], found
    assert found["losses apart by at most"] <= TOLERANCE, found
    return found


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--child"]:
        results, data, steps, videos = sys.argv[2:]
        in_one_process(Path(results), Path(data), int(steps) or None, int(videos) or None)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--validation-videos", type=int)
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(prove(known.steps, known.validation_videos, Path(folder))))


if __name__ == "__main__":
    main()
