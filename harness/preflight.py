"""python -m harness.preflight: checks without a TPU whether a study compiles and fits there, and what it would cost."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from harness.cli import options
from harness.system.paths import Folder

_EXAMPLES = """
\b
Examples:
  python -m harness.preflight table2 --topology v3:8x8
  python -m harness.preflight table2 table3 --topology v5e:8x8 --price 1.2
  python -m harness.preflight figure2 --topology v3:8x8 --batch 512 --rows 1-4
  python -m harness.preflight table2 --topology v3:8x8 --cached    only what was compiled before
\b
Exit codes: 0 everything fits; 1 a row does not fit, does not compile or was not compiled; 2 wrong usage or unusable
input; 130, 143 stopped, what was compiled is kept.
"""


@click.command(epilog=_EXAMPLES)
@click.argument("names", nargs=-1, required=True, metavar="STUDY...")
@click.option("--topology", required=True, metavar="NAME",
              help="The slice: generation and sides in chips, v3:8x8, or its accelerator type, v3-128.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), metavar="N",
              help="Another global batch; steps still follow from the epochs.  [default: the profile's]")  # fmt: skip
@click.option("--profile", "profile_name", default="paper", show_default=True, metavar="NAME",
              help="paper: the paper's recipe. quick: small networks on generated clips.")  # fmt: skip
@options.data_sets
@options.pre_training
@click.option("--rows", metavar="LIST", help="Of one study, only these rows, such as 1,3,5-8.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Each row is trained with so many seeds.")  # fmt: skip
@click.option("--price", type=click.FloatRange(min=0), callback=options.finite, metavar="AMOUNT",
              help="What a chip costs in an hour, in any currency.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), metavar="N",
              help="Programs compiled at a time.  [default: one for two cores and 8 GB of memory]")  # fmt: skip
@click.option("--cached", is_flag=True, help="Compile nothing: only what was compiled before.")
@options.folders
@click.option("--json", "as_json", is_flag=True, help="One object with slice, programs, rows and totals.")
@options.one_line_errors
def main(
    names: tuple[str, ...],
    topology: str,
    batch: int | None,
    profile_name: str,
    data: tuple[str, ...],
    pretrain_data: str | None,
    rows: str | None,
    seeds: int,
    price: float | None,
    jobs: int | None,
    cached: bool,
    results: Path,
    runs: Folder | None,
    as_json: bool,
) -> None:
    """Compiles every distinct program of STUDY for a slice of a TPU pod, on a machine that has none.

    A program is the train step of a run, or its evaluation step with all views, as one core executes it. Said of each:
    whether it compiles and fits, the memory it needs, and the least time of a step; of each row hours, core-hours and
    the clips that a host must read. What was compiled is kept under DIR/preflight and not compiled again.

    STUDY is a study of ablations/, such as table2, or the path of a file of yours.
    """
    from harness.cli import preflighting
    from harness.planning import catalog

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends the processes that compile, too
    studies = catalog.studies_named(names)
    options.refuse_idle_pre_training(studies, pretrain_data)
    request = preflighting.PreflightRequest(
        studies=tuple(studies), topology=topology, batch=batch, profile=profile_name, data=data, rows=rows, seeds=seeds,
        price=price, jobs=jobs, cached=cached, results=results,
        runs=runs, pretrain_data=pretrain_data,
    )  # fmt: skip
    if not preflighting.show(request, as_json):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
