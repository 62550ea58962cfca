"""python -m tests.proofs.preflight: the preflight against what was measured by hand, and a batch too large on purpose.

The train steps of R3D-RS-50 (16 frames) and R3D-RS-200 (24 frames), 8 clips of a core, were compiled before for the
topology v3:2x2 by an experiment that builds the network by hand and knows nothing of this harness, with libtpu 0.0.52:
the memory that it found must agree within 10 %. A batch of 128 clips of a core must be refused for R3D-RS-50, and what
is said to fit must be compiled, and the next power of two too large. And every generation must compile a small network.
It takes about twenty minutes on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

# Row of Table 3 -> bytes of one core: arguments, temporaries; operations and bytes moved in a step.
MEASURED = {"2": (0.43e9, 3.90e9, 2.06e12, 30.0e9), "6": (1.04e9, 12.6e9, 10.9e12, 106.9e9)}
WITHIN = 0.1
CORES = 8


def preflown(results: str, *flags: str) -> dict[str, Any]:
    """What the command says of rows of Table 3, as data."""
    command = [sys.executable, "-m", "harness.preflight", "table3", "--topology", "v3:2x2", "--results", results]
    done = subprocess.run([*command, "--json", *flags], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def agrees(results: str) -> bool:
    """Whether memory, operations and bytes agree with what was measured before."""
    found = preflown(results, "--batch", str(8 * CORES), "--rows", "2,6")
    trained = [one for one in found["programs"] if one["kind"] == "train" and one["arguments"] is not None]
    good = len(trained) == len(MEASURED)
    for program in trained:
        ours = (
            program["arguments"], program["temporaries"], 2 * program["multiply_adds"], program["bytes_moved"],
        )  # fmt: skip
        for name, own, other in zip(
            ("arguments", "temporaries", "operations", "bytes"), ours, MEASURED[program["rows"][0]], strict=True
        ):
            off = own / other - 1
            good = good and abs(off) <= WITHIN
            print(f"row {program['rows'][0]} {name:12}{own:12.4g} measured before {other:12.4g}  {100 * off:+.1f} %")
    return good


def refuses(results: str) -> bool:
    """Whether a batch that is too large is refused with the largest that fits."""
    found = preflown(results, "--batch", str(128 * CORES), "--rows", "2")
    program = found["programs"][0]
    best = int(program["fitting"] or 0)
    if not best:
        return False
    print(f"128 clips of a core: {program['verdict']} ({found['failures'][0]})")
    fits = preflown(results, "--batch", str(best * CORES), "--rows", "2", "--cached")["programs"][0]
    larger = preflown(results, "--batch", str(2 * best * CORES), "--rows", "2", "--cached")["programs"][0]
    print(f"{best} clips: {fits['verdict']}, {fits['needed'] / 1e9:.1f} GB; {2 * best} clips: {larger['verdict']}")
    return bool(program["verdict"].startswith("does not fit") and fits["verdict"] == "fits" and best < 128) and (
        larger["verdict"].startswith("does not fit")
    )


def knows(results: str) -> bool:
    """Whether every generation compiles the quick profile's first row."""
    good = True
    for topology in ("v2:2x2", "v3:2x2", "v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"):
        command = [sys.executable, "-m", "harness.preflight", "table2", "--profile", "quick", "--rows", "1"]
        command += ["--topology", topology, "--results", results, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        verdicts = [one["verdict"] for one in json.loads(done.stdout)["programs"]] if done.returncode in (0, 1) else []
        print(f"{topology}: {', '.join(verdicts)}")
        good = good and verdicts == ["fits", "fits"]
    return good


def main() -> None:
    """Runs both; exit code 1 where one does not hold."""
    with tempfile.TemporaryDirectory() as results:
        held = [knows(results), agrees(results), refuses(results)]
    print("knows every generation, agrees within 10 %, refuses with a batch that fits" if all(held) else "FAILED")
    raise SystemExit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
