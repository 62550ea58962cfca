"""python -m harness.costs: prints parameters and multiply-adds of the paper's models, beside the published ones."""

from __future__ import annotations

from typing import Any

import click

_EXAMPLES = """
\b
Examples:
  python -m harness.costs
  python -m harness.costs --json
"""


def lines() -> list[dict[str, Any]]:
    """Counts parameters and multiply-adds of each R3D model of Tables 2 to 4.

    Returns:
      One entry for each model: "model", "params", "multiply_adds", "classes", and the published "paper_params_m" (1e6)
      and "paper_gflops" (1e9), None where the paper has none.
    """
    from ablations.models import MODELS
    from ablations.profiles import PAPER
    from harness.config import experiment, network
    from harness.config.studies import Cell

    counted = []
    for model in MODELS:
        data = experiment.DatasetInfo(f"kinetics{model.classes}", model.classes, train_videos=1, validation_videos=1)
        cost = network.count(experiment.complete(Cell(model.applied), PAPER, data, replicas=1).settings)
        counted.append(
            {
                "model": model.name,
                "params": cost.params,
                "multiply_adds": cost.multiply_adds,
                "classes": model.classes,
                "paper_params_m": model.paper_params_m,
                "paper_gflops": model.paper_gflops,
            }
        )
    return counted


@click.command(epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help='A list of objects with "model", "params", "multiply_adds", ...')
def main(as_json: bool) -> None:
    """Prints parameters and multiply-adds of every R3D model of Tables 2 to 4, beside the paper's.

    Multiply-adds are those of convolutions and dense layers, for one view of 256 x 256 pixels.
    """
    import json

    counted = lines()
    if as_json:
        click.echo(json.dumps(counted, indent=1))
        return
    click.echo(f"{'model':44}{'params':>13}{'paper':>9}{'multiply-adds':>18}{'paper':>8}")
    for line in counted:
        params = "-" if line["paper_params_m"] is None else f"{line['paper_params_m']:.1f} M"
        gflops = "-" if line["paper_gflops"] is None else f"{line['paper_gflops']:g} G"
        click.echo(f"{line['model']:44}{line['params']:>13,}{params:>9}{line['multiply_adds']:>18,}{gflops:>8}")


if __name__ == "__main__":
    main()
