"""Puts faults into copies of the code, each drawn from a seed, and asks whether the quick tests find them.

    python -m tests.proofs.mutations                       twenty faults, about an hour on two cores
    python -m tests.proofs.mutations --seed 3 --faults 8   others
    python -m tests.proofs.mutations --list                what would be drawn, and nothing else
    python -m tests.proofs.mutations --repository PATH     the tests of another checkout, whose code has the same text

A fault is one of four kinds, as often each: a whole number off by one, a condition negated, a check that raises no
error any more, a wrong default. Mutation tools have the first two alone, so positions come from :mod:`ast`. Each fault
is put into a clone of what is committed, in which the tests named after the module run first and then all of them, up
to the first failure. Prints a line for each fault and the number of those that were found; exits with 1 if one wasn't.
A fault may leave the program's behaviour as it was (another text of the same value): who reads the list decides that.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = "harness"
# pytest's exit codes: a test failed, or it couldn't even begin, as where a module can't be imported.
FOUND = (1, 2, 3, 4)
LONGEST = 1800.0  # seconds that the tests may take, which a fault may make endless


@dataclasses.dataclass(frozen=True)
class Fault:
    """A change of a few characters.

    Attributes:
      kind: one of the four kinds.
      path: of the module, in the repository.
      line: its number in the module.
      start, end: offsets in the module's bytes.
      text: what stands there instead.
    """

    kind: str
    path: str
    line: int
    start: int
    end: int
    text: str

    def put_into(self, root: Path) -> None:
        """Changes the module in a checkout."""
        path = root / self.path
        content = path.read_bytes()
        path.write_bytes(content[: self.start] + self.text.encode() + content[self.end :])

    def described(self, root: Path) -> str:
        """What it changes, in a line."""
        before = (root / self.path).read_bytes()[self.start : self.end].decode()
        return f"{self.path}:{self.line} {self.kind}: {' '.join(before.split())!r} -> {' '.join(self.text.split())!r}"


class _Module:
    """Finds the places of a module at which faults can be put."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self._content = path.relative_to(root).as_posix(), path.read_bytes()
        self._lines = [0]
        for line in self._content.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def faults(self) -> Iterator[Fault]:
        """All of them, in the order of the syntax tree."""
        for node in ast.walk(ast.parse(self._content)):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                yield self._fault("off by one", node, str(node.value + 1))
            elif isinstance(node, ast.If | ast.IfExp | ast.While):
                yield self._fault("negated condition", node.test, f"(not ({self._text(node.test)}))")
                if isinstance(node, ast.If) and not node.orelse and all(isinstance(at, ast.Raise) for at in node.body):
                    yield self._fault("dropped check", node.test, "False")
            elif isinstance(node, ast.comprehension):
                for test in node.ifs:
                    yield self._fault("negated condition", test, f"(not ({self._text(test)}))")
            elif isinstance(node, ast.arguments):
                for default in (*node.defaults, *node.kw_defaults):
                    yield from self._wrong_default(default)
            elif isinstance(node, ast.ClassDef):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign):
                        yield from self._wrong_default(field.value)

    def _wrong_default(self, node: ast.expr | None) -> Iterator[Fault]:
        if not isinstance(node, ast.Constant) or node.value is ...:
            return
        value = node.value
        if isinstance(value, bool):
            wrong: object = not value
        elif isinstance(value, int | float):
            wrong = value + 1
        elif isinstance(value, str):
            wrong = value + "x"
        else:
            wrong = 1
        yield self._fault("wrong default", node, repr(wrong))

    def _fault(self, kind: str, node: ast.expr, text: str) -> Fault:
        start, end = self._span(node)
        return Fault(kind, self.path, node.lineno, start, end, text)

    def _text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._content[start:end].decode()

    def _span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.lineno - 1] + node.col_offset, self._lines[node.end_lineno - 1] + node.end_col_offset


def drawn(root: Path, seed: int, number: int) -> list[Fault]:
    """So many faults of a checkout's code, as many of each kind, drawn from a seed."""
    kinds: dict[str, list[Fault]] = {}
    for path in sorted((root / CODE).rglob("*.py")):
        for fault in _Module(path, root).faults():
            kinds.setdefault(fault.kind, []).append(fault)
    draw = random.Random(seed)
    shuffled = [draw.sample(kinds[kind], -(-number // len(kinds))) for kind in sorted(kinds)]
    return [fault for together in zip(*shuffled, strict=True) for fault in together][:number]


def judged(fault: Fault, repository: Path) -> tuple[bool, str]:
    """Whether the tests of a repository find a fault, and the test that does."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(repository), str(clone)], check=True)
        fault.put_into(clone)
        stem = Path(fault.path).stem
        near = [str(path.relative_to(clone)) for path in sorted(clone.glob(f"tests/**/test_*{stem}*.py"))]
        for words in ([near] if near else []) + [[]]:
            failure = _failure(clone, words)
            if failure is not None:
                return True, failure
    return False, ""


def _failure(clone: Path, words: list[str]) -> str | None:
    """The first test that fails; None where all of them pass."""
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *words]
    try:
        done = subprocess.run(
            command, cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return "the tests went on without end"
    if done.returncode not in FOUND:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0][:160] if failed else f"pytest ended with {done.returncode}"


def main() -> None:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--seed", type=int, default=0, help="what the faults are drawn from")
    flags.add_argument("--faults", type=int, default=20, help="how many")
    flags.add_argument("--list", action="store_true", help="only say what would be drawn")
    flags.add_argument("--only", type=int, action="append", help="only the fault of this number; may be given again")
    flags.add_argument("--repository", type=Path, default=ROOT, help="the checkout whose tests are asked")
    asked = flags.parse_args()
    assert shutil.which("git"), "git clones what is committed"
    faults, missed = drawn(ROOT, asked.seed, asked.faults), 0
    for number, fault in enumerate(faults, 1):
        if asked.only and number not in asked.only:
            continue
        line = f"{number:2} {fault.described(ROOT)}"
        if asked.list:
            print(line)
            continue
        began = time.monotonic()
        found, failure = judged(fault, asked.repository)
        missed += not found
        print(
            f"{line}\n   {'found by ' + failure if found else 'MISSED'} ({time.monotonic() - began:.0f} s)", flush=True
        )
    if not asked.list:
        print(f"{missed} faults missed")
        raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
