"""python -m harness.check_statistics: checks intervals, tests and forecasts against simulated studies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.analysis.simulated_checks import Check, CheckResult
    from harness.analysis.simulated_methods import MethodResult

_EXAMPLES = """
\b
Examples:
  python -m harness.check_statistics             the table of docs/statistics.md, in minutes
  python -m harness.check_statistics --fast      few studies, in seconds

Exit codes: 0 every figure is within its target; 1 one is not; 2 wrong usage; 130 stopped.
"""
FAST = 100


@click.command(epilog=_EXAMPLES)
@click.option("--studies", type=click.IntRange(min=50), default=2000, show_default=True, metavar="N",
              help="Simulated studies behind a figure; cheap ones are simulated several times as often.")  # fmt: skip
@click.option("--fast", is_flag=True, help=f"{FAST} studies, and three standard errors allowed beyond every target.")
@options.one_line_errors
def main(studies: int, fast: bool) -> None:
    """Simulates studies whose truth is known and counts how often the statistics of this package are right.

    The same numbers of studies give the same table. With fewer than 2,000, three standard errors of the simulation are
    allowed beyond every target.
    """
    from rich.console import Console
    from rich.progress import track

    from harness.analysis import simulated_checks, simulated_methods

    studies = FAST if fast else studies
    screen, checks = Console(stderr=True), list(enumerate(simulated_checks.checks()))
    results = [
        simulated_checks.run(check, number, studies, widen=studies < 2000)
        for number, check in track(checks, "simulating", console=screen, disable=not screen.is_terminal, transient=True)
    ]
    click.echo(f"{table(results)}\n\n{methods(list(simulated_methods.tried(studies)))}")
    missed = [result for result in results if not result.within]
    for result in missed:
        click.echo(f"not within its target: {result.check.what}: {result.check.case}", err=True)
    raise SystemExit(1 if missed else 0)


def table(found: Sequence[CheckResult]) -> str:
    """Returns the results of the checks as a Markdown table."""
    lines = ["| what | case | studies | found | target |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {result.check.what} | {result.check.case} | {_studies(result)} | {_figure(result)} | "
        f"{_target(result.check)} |"
        for result in found
    ]
    return "\n".join(lines)


def methods(tried: Sequence[MethodResult]) -> str:
    """Returns how methods for several seeds fared, as a Markdown table."""
    counts = list(tried[0].coverage)
    lines = [
        f"| method | seeds of the two rows | {' | '.join(f'{seeds} seeds' for seeds in counts)} |",
        f"|---|---|{'---:|' * len(counts)}",
    ]
    lines += [
        f"| {row.method} | {row.scenario} | {' | '.join(f'{row.coverage[seeds]:.1f} %' for seeds in counts)} |"
        for row in tried
    ]
    return "\n".join(lines)


def _studies(result: CheckResult) -> str:
    return f"{result.studies:,}" if result.studies else "exact"


def _figure(result: CheckResult) -> str:
    text = f"{result.figure:.1f} {result.check.unit}" if result.check.chance else f"{result.figure:.0e}"
    return text if result.within else f"**{text}**"


def _target(check: Check) -> str:
    low, high = check.target
    if not check.chance:
        return f"at most {high:.0e}"
    if (low, high) == (0.0, 100.0):
        return "none"
    if high == 100.0:
        return f"at least {low:g} %"
    if low == 0.0:
        return f"at most {high:g} %"
    return f"{low:g} to {high:g} {check.unit}"


if __name__ == "__main__":
    main()
