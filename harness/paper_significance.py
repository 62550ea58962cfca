"""python -m harness.paper_significance: tests which steps of the paper's Table 2 can be told from chance, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from harness.reporting.render import Column, Line, Table

_EXAMPLES = """
\b
Examples:
  python -m harness.paper_significance
  python -m harness.paper_significance --alpha 0.00625    Holm's bar for the strongest of eight steps
"""


@click.command(epilog=_EXAMPLES)
@click.option("--alpha", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
              help="Level of each test.")  # fmt: skip
@options.one_line_errors
def main(alpha: float) -> None:
    """Prints, for each step of the paper's Table 2, the p-values that its printed accuracies allow.

    The test is McNemar's, exact and two-sided, on the 17,706 validation videos of Kinetics-400. It depends on how many
    videos flipped from wrong to right and back, of which the paper prints the difference alone.
    """
    from ablations.datasets import KINETICS_400
    from ablations.table2 import STUDY
    from harness.analysis import published, published_steps
    from harness.reporting import render

    videos = KINETICS_400.validation_videos
    follows = {row.number: row.follows for row in STUDY.rows}
    steps = published_steps.steps(published.load("table2"), follows, videos, alpha)
    labels = {row.number: row.applied[-1].toggle.label if row.follows else "" for row in STUDY.rows}
    steps.insert(0, "label", [labels[row] for row in steps.index])
    click.echo(render.markdown(_table(steps, videos, alpha)))
    click.echo("\n\n".join(_sentences(steps.dropna(), videos, alpha)))


def _table(steps: pd.DataFrame, videos: int, alpha: float) -> Table:
    from harness.reporting.render import Column, Table
    from harness.reporting.study_tables import signed

    columns = (
        Column("#", lambda line: str(line["row"]), "right"),
        Column("Step", lambda line: line["label"] or "no step: depth and frames change at once"),
        _of_steps("top-1 (%)", lambda line: f"{line['before']:.1f} → {line['after']:.1f}"),
        _of_steps("points", lambda line: signed(line["step"])),
        _of_steps("videos won", lambda line: f"{line['net_low']:.0f} to {line['net_high']:.0f}"),
        _of_steps("p-value", lambda line: f"{line['p_low']:.2g} to {line['p_high']:.2g}"),
        _of_steps("surely significant up to", lambda line: _flipped(line, "surely", videos, alpha)),
        _of_steps("never significant above", lambda line: _flipped(line, "at_most", videos, alpha)),
    )
    caption = (
        f"Exact McNemar tests, two-sided, at {100 * alpha:g} %, on the {videos:,} validation videos of Kinetics-400. A "
        "video flipped if one of the two models is right on it and the other wrong. Videos won: those that flipped to "
        "right less those that flipped to wrong, as far as accuracies rounded to 0.1 tell. The p-value is lowest if no "
        "other videos flipped, highest if as many flipped as the two accuracies allow. The last two columns count "
        "flipped videos, in brackets as a share of all; between the two it depends on digits that are not printed."
    )
    return Table("table2-significance", "The steps of the paper's Table 2", caption, columns, steps)


def _of_steps(head: str, form: Callable[[Line], str]) -> Column:
    """Returns a column that is empty for a row that is no step."""
    from harness.reporting.render import Column
    from harness.reporting.study_tables import NOTHING

    return Column(head, lambda line: form(line) if line["label"] else NOTHING)


def _flipped(line: Line, field: str, videos: int, alpha: float) -> str:
    if line["p_high"] <= alpha:
        return "any number"
    count = int(line[field])
    return f"{count:,} ({100 * count / videos:.1f} %)" if count else "none"


def _sentences(steps: pd.DataFrame, videos: int, alpha: float) -> list[str]:
    """Says what the table means; `steps` must not hold rows that are no step."""
    always = [f"{line.label} ({line.step:+.1f})" for line in steps.itertuples() if line.p_high <= alpha]
    first = f"Significant whichever videos flipped: {', '.join(always) or 'no step'}."
    rest = steps[steps["p_high"] > alpha].sort_values("at_most")
    if len(rest):
        least = rest.iloc[0]
        most = _flipped(least, "at_most", videos, alpha)
        first += (
            f" All others depend on how many flipped, which the paper does not print; {least['label']} "
            f"({least['step']:+.1f}) cannot be significant if more than {most} did."
        )
    return [
        first,
        "How many videos flip between two trainings has to be measured, on predictions for each video: "
        "`python -m harness.plan_seeds` prints it from your records.",
        "The variance over seeds is unknown: the paper reports one training of each row. These p-values speak of other "
        "videos for these very trainings; none says whether a step would come out again with other seeds.",
        f"{len(steps)} steps are tested at once, and nothing here is corrected for that: Holm's procedure holds the "
        f"smallest p-value against {alpha / len(steps):.3g} (`--alpha {alpha / len(steps):.3g}` shows that bar).",
    ]


if __name__ == "__main__":
    main()
