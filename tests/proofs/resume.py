"""Kills a quick study again and again at random moments, lets it finish, and checks what it left.

    python -m tests.proofs.resume                  twenty kills over the ten rows, about a quarter of an hour
    python -m tests.proofs.resume --kills 3 --rows 1,2 --steps 40
    python -m tests.proofs.resume --study table5   between the stages of its chains and inside them

Run by test_chains in its short form.
"""

import argparse
import dataclasses
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.store.attempts import Attempts


@dataclasses.dataclass
class Seen:
    """What a folder of runs held after a kill.

    Attributes:
      records: id -> content of the record.
      began: id -> steps at which the attempts so far began.
      checkpoint: id -> step of the furthest checkpoint.
    """

    records: dict[str, bytes]
    began: dict[str, tuple[int, ...]]
    checkpoint: dict[str, int]


def look(runs: Path) -> Seen:
    """Looks at a folder of runs."""
    records = {path.parent.name: path.read_bytes() for path in runs.glob("*/record.json")}
    begun = {path.parents[2].name for path in runs.glob("*/attempts/*/curve.jsonl")}
    attempts = {run_id: Attempts(runs / run_id) for run_id in begun}
    began = {run_id: found.history().began for run_id, found in attempts.items()}
    return Seen(records, began, {run_id: found.furthest for run_id, found in attempts.items()})


def killed(command: list[str], after: float, victim: str, log: Path) -> bool:
    """Starts the study and kills it so many seconds later; whether it was still at it.

    Args:
      command: the study.
      after: seconds.
      victim: "all" (power goes) or "command" (the process that was started, alone).
      log: where its output goes.
    """
    with log.open("a") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            process.wait(after)
            return False
        except subprocess.TimeoutExpired:
            (os.killpg if victim == "all" else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            assert gone(process.pid), "the worker, left alone, ends when it next reports"
            return True


def gone(group: int, within: float = 120.0) -> bool:
    """Whether every process of a group has ended, waited for."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def check(seen: list[Seen], runs: Path) -> dict[str, object]:
    """Holds the records against what was seen after each kill."""
    final = look(runs)
    for one in seen:
        for run_id, content in one.records.items():
            assert final.records.get(run_id) == content, f"{run_id}: trained or written again after it was done"
    summary: dict[str, object] = {}
    for run_id, content in final.records.items():
        made = json.loads(content)["provenance"]
        history = [one for one in seen if run_id in one.began]
        for before, after in itertools.pairwise(history):
            fresh = after.began[run_id][len(before.began[run_id]) :]
            assert set(fresh[:1]) <= {before.checkpoint[run_id]}, f"{run_id}: {fresh} after {before.checkpoint[run_id]}"
        if history and made["attempts"] > len(history[-1].began[run_id]):
            assert (made["resumed_at"] or [0])[-1] == history[-1].checkpoint[run_id], (
                f"{run_id}: last attempt from zero"
            )
        zeros = made["attempts"] - len(made["resumed_at"])
        summary[run_id] = {"attempts": made["attempts"], "from zero": zeros, "resumed at": made["resumed_at"]}
    return summary


def prove(
    kills: int, longest: float, seed: int, words: list[str], folder: Path, study: str | None = None
) -> dict[str, object]:
    """Kills a study so many times, lets it finish and checks it.

    Args:
      kills: how often.
      longest: seconds after which it is killed at the latest.
      seed: of the moments.
      words: what the command is given.
      folder: where its results go.
      study: of `harness.study`; None for the additive study.

    Returns:
      What happened, for a reader.
    """
    draw = random.Random(seed)
    asked = ["harness.additive_study"] if study is None else ["harness.study", study]
    command = [sys.executable, "-m", *asked, *words]
    command += ["--results", str(folder / "results"), "--plots", str(folder / "plots")]
    runs, log = folder / "results" / "runs", folder / "log.txt"
    seen = []
    began = time.monotonic()
    while len(seen) < kills:
        after, victim = draw.uniform(0.0, longest), draw.choice(["all", "command"])
        if not killed(command, after, victim, log):
            break
        seen.append(look(runs))
        print(f"kill {len(seen)} ({victim}) after {after:.1f} s: {len(seen[-1].records)} records", flush=True)
    assert len(seen) == kills, f"the study was done after {len(seen)} kills: draw shorter times with --longest"
    with log.open("a") as out:
        code = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    assert code == 0, f"the study ended with exit code {code}, see {log}"
    found = check(seen, runs)
    plan = subprocess.run([*command, "--plan"], capture_output=True, text=True, check=True).stdout
    assert "to do 0;" in plan, plan
    return {"kills": len(seen), "seconds": round(time.monotonic() - began), "records": len(found), "runs": found}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--longest", type=float, default=45.0, help="seconds after which an attempt is killed at the latest"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", help="name or path of a study, for harness.study")
    known, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(prove(known.kills, known.longest, known.seed, words, Path(folder), known.study), indent=1))


if __name__ == "__main__":
    main()
