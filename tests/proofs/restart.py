"""Trains row 1 in two processes, kills each of them in turn, starts it again with the same command, and looks.

    python -m tests.proofs.restart                                     the quick profile's row 1, each worker killed
    python -m tests.proofs.restart --steps 90 --validation-videos 8    in short

The one that is killed (kill -9, with its training process or alone) is to join the other, which waits for it; the run
is to end with one record, which says that it went on from a checkpoint.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness.store import checkpoints
from harness.store.run_store import Store


def two_hosts() -> str:
    """Two free ports of this machine."""
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in (first, second))


def start(results: Path, words: list[str], hosts: str, index: int) -> subprocess.Popen:
    """A worker of row 1, started as a user starts it."""
    command = [sys.executable, "-u", "-m", "harness.train", "--strategy", "multi_worker_mirrored", "--wandb", "off"]
    command += ["--worker-hosts", hosts, "--task-index", str(index), "--results", str(results), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def children(process: int) -> list[int]:
    """The processes that one started."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
        return [int(word) for word in text.split()]
    return []


def kill(worker: subprocess.Popen, alone: bool = False) -> None:
    """Kills a worker, with all that it started unless alone; waits for the end of all of them."""
    own = children(worker.pid)
    for one in [worker.pid] if alone else [worker.pid, *own]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    worker.wait()
    while any(Path(f"/proc/{one}").exists() for one in own):
        time.sleep(0.01)


def attempts(results: Path) -> list[Path]:
    """Folders of the attempts that were begun."""
    return list(results.glob("runs/*/attempts/*"))


def wait_for_checkpoint(results: Path, workers: list[subprocess.Popen], before: list[Path]) -> None:
    """Waits for the first checkpoint of an attempt that was not there before: it is in the midst of its training."""
    while not any(checkpoints.listed(one / "checkpoints") for one in attempts(results) if one not in before):
        assert all(worker.poll() is None for worker in workers), [worker.communicate()[0] for worker in workers]
        time.sleep(0.05)


def prove(victim: int, words: list[str], results: Path, alone: bool = False) -> dict[str, object]:
    """Kills a worker in mid training and starts it again; what came of it.

    Args:
      victim: index of the worker.
      words: flags of both.
      results: the results folder.
      alone: whether its training process is left to find out by itself.
    """
    hosts, before = two_hosts(), attempts(results)
    workers = [start(results, words, hosts, index) for index in range(2)]
    wait_for_checkpoint(results, workers, before)
    kill(workers[victim], alone)
    killed = time.monotonic()
    workers[victim].communicate()
    workers[victim] = start(results, words, hosts, victim)
    said = ["", ""]
    threads = [
        threading.Thread(target=lambda i=i, one=one: said.__setitem__(i, one.communicate()[0]))
        for i, one in enumerate(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [worker.returncode for worker in workers] == [0, 0], said
    store = Store(results)
    (run_id,) = store.ids()
    provenance = store.read(run_id).provenance
    assert provenance["resumed_at"], said
    return {
        "killed": f"worker {victim}{' alone' if alone else ''}",
        "resumed at": provenance["resumed_at"],
        "attempts": provenance["attempts"],
        "seconds from the kill to the end": round(time.monotonic() - killed, 1),
        "said by the other": [line for line in said[1 - victim].splitlines() if line.startswith("row 1: ")],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--validation-videos", type=int)
    known = parser.parse_args()
    words = ["--steps", str(known.steps)] if known.steps else []
    words += ["--validation-videos", str(known.validation_videos)] if known.validation_videos else []
    found = []
    for victim, alone in ((1, False), (0, False), (1, True), (0, True)):
        with tempfile.TemporaryDirectory() as folder:
            found.append(prove(victim, words, Path(folder), alone))
            print(json.dumps(found[-1]), flush=True)


if __name__ == "__main__":
    main()
