"""Compiles one program for a slice, and where it does not fit, finds the largest batch that does. Runs in a process."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from harness.accelerators import programs, tpu_compiler
from harness.accelerators.programs import Program
from harness.accelerators.results import Executable, Memory, Result, ResultError, Results
from harness.accelerators.tpu_compiler import CompilerError, RefusedError, TooLargeError
from harness.config.slices import Slice

ON_THE_CPU = "XLA on the CPU"

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """One program to prove.

    Attributes:
      program: the program.
      slice_: for which slice.
      results: the results folder, whose results are used and which gets new ones.
    """

    program: Program
    slice_: Slice
    results: Path


def known(results: Results, topology: str, key: str) -> Result | None:
    """What was found out of a program, by whichever compiler; a damaged file is as good as none."""
    with contextlib.suppress(ResultError):
        return results.read(topology, key)
    return None


def current(results: Results, topology: str, key: str) -> Result | None:
    """A result that need not be found out again: of the installed compiler, or of any where none is installed."""
    found = known(results, topology, key)
    here = tpu_compiler.installed()
    return found if found is not None and (here is None or found.compiler == here) else None


def prove(task: Task, say: Say) -> None:
    """Compiles a program, and where it does not fit, smaller batches until one does; each result is written.

    Args:
      task: what to prove.
      say: is told what is done now, a few words.

    Raises:
      SettingsError: the Garden cannot build it, or the compiler does not know the slice.
    """
    _refuse_unknown(task.slice_)
    result = _proved(task.program, task, say)
    if result.fits or not is_too_large(result):
        return
    for clips in smaller(task.program.clips):
        if _proved(task.program.of(clips), task, say).fits:
            return


Found = Callable[[Results, str, str], Result | None]


def searched(task: Task, found: Found = known) -> bool:
    """Whether smaller batches were tried until one fitted, or none was left; never where size is not the reason.

    Args:
      task: the task.
      found: which results count, :func:`known` or :func:`current`.
    """
    results, topology = Results(task.results), task.slice_.topology
    own = found(results, topology, task.program.key)
    if own is None or own.fits or not is_too_large(own):
        return False
    for clips in smaller(task.program.clips):
        one = found(results, topology, task.program.of(clips).key)
        if one is None or one.fits:
            return one is not None
    return True


def _refuse_unknown(slice_: Slice) -> None:
    """Refuses a slice that the compiler does not know, or counts otherwise than its published description."""
    if tpu_compiler.installed() and (found := tpu_compiler.devices(slice_)) != (slice_.cores, slice_.hosts):
        raise CompilerError(
            f"--topology {slice_.topology}: the TPU compiler counts {found[0]} cores of {found[1]} hosts, expected "
            f"{slice_.cores} of {slice_.hosts}"
        )


def smaller(clips: int) -> list[int]:
    """The powers of two below a number of clips, largest first."""
    return [2**power for power in range((clips - 1).bit_length() - 1, -1, -1)] if clips > 1 else []


def fitting(task: Task) -> Result | None:
    """Of what :func:`prove` wrote, the result with the largest batch that fits; None where none does."""
    results = Results(task.results)
    for clips in (task.program.clips, *smaller(task.program.clips)):
        found = known(results, task.slice_.topology, task.program.of(clips).key)
        if found is not None and found.fits:
            return found
    return None


def is_too_large(result: Result) -> bool:
    """Whether it would fit with fewer clips, and was not refused for another reason."""
    return result.executable is not None or not result.reason.startswith(tpu_compiler.REFUSED)


def _proved(program: Program, task: Task, say: Say) -> Result:
    """The result of a program, found out where it is not known."""
    results = Results(task.results)
    known = current(results, task.slice_.topology, program.key)
    if known is not None:
        return known
    began = time.monotonic()
    say(f"tracing, {program.batch} a core")
    compiles = _on_tpu if tpu_compiler.installed() else _on_cpu
    hlo, executable, reason = compiles(program, task.slice_, lambda: say(f"compiling, {program.batch} a core"))
    result = Result(
        key=program.key,
        topology=task.slice_.topology,
        compiler=tpu_compiler.installed() or ON_THE_CPU,
        estimated=compiles is _on_cpu,
        fits=not reason,
        reason=reason,
        executable=executable,
        program=programs.described(program),
        versions=dict(programs.versions()),
        hlo=hashlib.sha256(hlo).hexdigest(),
        seconds=round(time.monotonic() - began, 1),
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    results.write(result)
    return result


def _on_tpu(program: Program, slice_: Slice, traced: Callable[[], None]) -> tuple[bytes, Executable | None, str]:
    """What was compiled, what the TPU compiler says of it, and why it cannot run, empty where it can."""
    from harness.accelerators import lower

    hlo = lower.lower(program)
    traced()
    try:
        cores = program.cores if program.kind == "train" else 1
        return hlo, tpu_compiler.compile_for(hlo, slice_, cores), ""
    except (TooLargeError, RefusedError) as error:
        return hlo, None, str(error)


def _on_cpu(program: Program, slice_: Slice, traced: Callable[[], None]) -> tuple[bytes, Executable | None, str]:
    """The same without the TPU compiler: XLA compiles it for the CPU, and what a core needs is estimated."""
    from harness.accelerators import estimating, lower

    hlo = lower.lower(dataclasses.replace(program, cores=1), compiled=True)
    found = estimating.estimate(hlo)
    memory = Memory(found.arguments, found.outputs, found.aliased, found.temporaries, code=0)
    needed, room = memory.needed, slice_.generation.usable
    reason = f"needs about {needed / 1e9:.1f} GB of memory, a core gives {room / 1e9:.1f} GB" if needed > room else ""
    return hlo, Executable(memory, found.flops, found.bytes_moved), reason
