"""Runs a short study online against a server on the loopback that refuses, hangs, answers 500 or dies in the middle.

    python -m tests.proofs.mirror

Each time the study must end well, with the same records as without W&B, and at most half a minute later; and the
records that its offline mirror gives back must equal the originals.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness.store import records
from harness.store.run_store import Store
from tests.support.wandb_server import Server

STUDY = ["--rows", "1,2", "--steps", "40", "--validation-videos", "24"]
LIMIT = 30.0


def study(folder: Path, mode: str, url: str | None = None) -> tuple[float, str]:
    """Runs the study; the seconds it took, and what it said."""
    command = [sys.executable, "-m", "harness.additive_study", *STUDY, "--wandb", mode]
    command += ["--results", str(folder / "results"), "--plots", str(folder / "plots")]
    access = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40} if url else {}
    began = time.monotonic()
    done = subprocess.run(command, env={**os.environ, **access}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - began, done.stdout


def results(folder: Path) -> dict[str, object]:
    """What the records of a folder say, without what differs between any two runs: times."""
    store = Store(folder)
    kept: dict[str, object] = {}
    for run_id in store.ids():
        record = store.checked(run_id)
        points = [{name: value for name, value in point.items() if name != "seconds"} for point in record.curve]
        hashes = {name: one.predictions_sha256 for name, one in record.evaluations.items()}
        kept[run_id] = [record.settings, points, hashes]
    return kept


def imported(folder: Path) -> int:
    """Brings the records back from the mirror; how many, each held against the original."""
    command = [sys.executable, "-m", "harness.import_wandb", str(folder / "results" / "wandb")]
    subprocess.run([*command, "--results", str(folder / "back")], check=True, stdout=subprocess.DEVNULL)
    original, back = Store(folder / "results"), Store(folder / "back")
    assert original.ids() == back.ids()
    for run_id in original.ids():
        assert records.to_json(original.checked(run_id)) == records.to_json(back.checked(run_id))
    return len(back.ids())


def against(server: Server, behaviour: str, folder: Path) -> tuple[float, str]:
    """Runs the study against a server that behaves so."""
    if behaviour != "dies in the middle":
        server.become(behaviour)
        return study(folder, "online", server.url)

    def die() -> None:
        if server.wait_for("UpsertBucket"):
            server.become("gone")

    killer = threading.Thread(target=die)
    killer.start()
    found = study(folder, "online", server.url)
    killer.join()
    return found


def prove(folder: Path) -> dict[str, object]:
    """Runs all cases."""
    without, _ = study(folder / "off", "off")
    expected = results(folder / "off" / "results")
    told: dict[str, object] = {"without W&B": f"{without:.1f} s"}
    for behaviour in ("gone", "hang", "500", "dies in the middle"):
        with Server() as server:
            seconds, said = against(server, behaviour, folder / behaviour)
        assert results(folder / behaviour / "results") == expected, behaviour
        assert "wandb sync" in said, said
        assert seconds - without < LIMIT, f"{behaviour}: {seconds:.1f} s instead of {without:.1f} s"
        told[behaviour] = f"{seconds - without:+.1f} s, {imported(folder / behaviour)} records back from its files"
        print(behaviour, told[behaviour], flush=True)
    return told


def main() -> None:
    """The command line."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(prove(Path(folder)), indent=1))


if __name__ == "__main__":
    main()
