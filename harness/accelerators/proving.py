"""Compiles one program for a slice and, if it does not fit, finds the largest batch that does.

It runs in its own process.
"""

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
    """One program to compile for a slice.

    Attributes:
      program: the program.
      slice_: the slice.
      results: the results folder, from which earlier results are read and to which new ones are written.
    """

    program: Program
    slice_: Slice
    results: Path


def known_result(results: Results, topology: str, key: str) -> Result | None:
    """Returns the result of a program from whichever compiler, or None; a damaged file counts as none."""
    with contextlib.suppress(ResultError):
        return results.read(topology, key)
    return None


def current(results: Results, topology: str, key: str) -> Result | None:
    """Returns the result of a program if it is up to date, or None.

    A result is up to date if it is from the installed compiler, or from any if none is installed.
    """
    result = known_result(results, topology, key)
    compiler = tpu_compiler.installed()
    return result if result is not None and (compiler is None or result.compiler == compiler) else None


def prove(task: Task, say: Say) -> None:
    """Compiles a program and, if it does not fit, ever smaller batches until one does; writes each result.

    Args:
      task: the task.
      say: is called with the present activity, in a few words.

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


def searched(task: Task, found: Found = known_result) -> bool:
    """Returns whether smaller batches were tried until one fitted or none was left; False if size is not the problem.

    Args:
      task: the task.
      found: the results that count, :func:`known` or :func:`current`.
    """
    results, topology = Results(task.results), task.slice_.topology
    result = found(results, topology, task.program.key)
    if result is None or result.fits or not is_too_large(result):
        return False
    for clips in smaller(task.program.clips):
        smaller_result = found(results, topology, task.program.of(clips).key)
        if smaller_result is None or smaller_result.fits:
            return smaller_result is not None
    return True


def _refuse_unknown(slice_: Slice) -> None:
    """Refuses a slice that the compiler does not know, or whose cores and hosts it counts differently."""
    if tpu_compiler.installed() and (counted := tpu_compiler.devices(slice_)) != (slice_.cores, slice_.hosts):
        raise CompilerError(
            f"--topology {slice_.topology}: the TPU compiler counts {counted[0]} cores of {counted[1]} hosts, expected "
            f"{slice_.cores} of {slice_.hosts}"
        )


def smaller(clips: int) -> list[int]:
    """Returns the powers of two below a number of clips, largest first."""
    return [2**power for power in range((clips - 1).bit_length() - 1, -1, -1)] if clips > 1 else []


def fitting(task: Task) -> Result | None:
    """Returns the result with the largest batch that fits, of those that :func:`prove` wrote; None if none fits."""
    results = Results(task.results)
    for clips in (task.program.clips, *smaller(task.program.clips)):
        result = known_result(results, task.slice_.topology, task.program.of(clips).key)
        if result is not None and result.fits:
            return result
    return None


def is_too_large(result: Result) -> bool:
    """Returns whether a program that does not fit is too large, rather than refused for another reason."""
    return result.executable is not None or not result.reason.startswith(tpu_compiler.REFUSED)


def _proved(program: Program, task: Task, say: Say) -> Result:
    """Returns the result of a program, compiling it if there is no result that is up to date."""
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
    """Compiles a program with the TPU compiler; returns the HLO, the executable, and why it cannot run, or ""."""
    from harness.accelerators import lower

    hlo = lower.lower(program)
    traced()
    try:
        cores = program.cores if program.kind == "train" else 1
        return hlo, tpu_compiler.compile_for(hlo, slice_, cores), ""
    except (TooLargeError, RefusedError) as error:
        return hlo, None, str(error)


def _on_cpu(program: Program, slice_: Slice, traced: Callable[[], None]) -> tuple[bytes, Executable | None, str]:
    """Compiles a program with XLA for the CPU and estimates what a core needs; returns the same as `_on_tpu`."""
    from harness.accelerators import estimating, lower

    hlo = lower.lower(dataclasses.replace(program, cores=1), compiled=True)
    estimate = estimating.estimate(hlo)
    memory = Memory(estimate.arguments, estimate.outputs, estimate.aliased, estimate.temporaries, code=0)
    needed, room = memory.needed, slice_.generation.usable
    reason = f"needs about {needed / 1e9:.1f} GB of memory, a core gives {room / 1e9:.1f} GB" if needed > room else ""
    return hlo, Executable(memory, estimate.flops, estimate.bytes_moved), reason
