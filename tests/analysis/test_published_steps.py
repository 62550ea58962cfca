"""p-values that printed accuracies allow, against enumeration of small tables, SciPy's binomial test, hand counts."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

from harness import paper_significance
from harness.analysis import published, published_steps

DOCS = Path(__file__).parents[2] / "docs" / "paper-significance.md"


def tables_of(videos):
    """Every two-by-two table: right in both, flipped to right, flipped to wrong, wrong in both."""
    for both, won, lost in itertools.product(range(videos + 1), repeat=3):
        if both + won + lost <= videos:
            yield both, won, lost, videos - both - won - lost


def mcnemar(won, lost):
    return stats.binomtest(won, won + lost).pvalue if won + lost else 1.0


def by_enumeration(before, after, step, videos, alpha):
    """The bounds from all tables whose margins are printed so, the step subtracted before or after rounding."""
    found = []
    for both, won, lost, _ in tables_of(videos):
        first, last = 100 * (both + lost) / videos, 100 * (both + won) / videos
        printed = abs(first - before) <= 0.05 + 1e-9 and abs(last - after) <= 0.05 + 1e-9
        if printed and (abs(last - first - step) <= 0.05 + 1e-9 or round(after - before, 1) == step):
            found.append((won - lost, won + lost, mcnemar(won, lost)))
    insignificant = [flipped for _, flipped, p in found if p > alpha]
    surely = [flipped for _, flipped, p in found if flipped < min(insignificant, default=videos + 1)]
    return {
        "net_low": min(net for net, _, _ in found),
        "net_high": max(net for net, _, _ in found),
        "p_low": min(p for _, _, p in found),
        "p_high": max(p for _, _, p in found),
        "surely": max(surely, default=0),
        "at_most": max((flipped for _, flipped, p in found if p <= alpha), default=0),
        "flipped_high": max(flipped for _, flipped, _ in found),
    }


@pytest.mark.parametrize(
    ("before", "after", "step"),
    [
        (40.0, 60.0, 20.0),
        (60.0, 62.0, 2.0),
        (50.0, 50.0, 0.0),
        (80.0, 60.0, -20.0),
        (0.0, 12.0, 12.0),
        (2.0, 98.0, 96.0),
    ],
)
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_bounds_agree_with_the_enumeration_of_fifty_videos(before, after, step, alpha):
    expected = by_enumeration(before, after, step, 50, alpha)
    assert published_steps.bounds(before, after, step, 50, alpha) == pytest.approx(expected)


def test_flips_are_those_of_the_tables_with_these_margins():
    for before, after in itertools.product(range(13), repeat=2):
        possible = {won + lost for both, won, lost, _ in tables_of(12) if both + lost == before and both + won == after}
        assert set(published_steps.flips(before, after, 12)) == possible


@pytest.mark.parametrize(
    ("net", "flipped"), [(0, 0), (0, 8), (5, 5), (6, 6), (-6, 10), (35, 301), (36, 302), (196, 8700)]
)
def test_p_value_is_scipys_binomial_test(net, flipped):
    won = (flipped + net) // 2
    assert published_steps.p_value(net, flipped) == pytest.approx(mcnemar(won, flipped - won))


def test_p_value_by_hand():
    # Six flips, all to right: twice one chance in 64; five are not enough at 5 %.
    assert published_steps.p_value(6, 6) == 2 / 64
    assert published_steps.p_value(-5, 5) == 2 / 32
    assert published_steps.largest_significant(5, range(5, 100, 2), 0.05) == 0
    assert published_steps.largest_significant(6, range(6, 7), 0.05) == 6


@pytest.mark.parametrize("net", [35, 70])
def test_the_next_count_of_flips_is_no_longer_significant(net):
    largest = published_steps.largest_significant(net, range(net, 10_000, 2), 0.05)
    assert mcnemar((largest + net) // 2, (largest - net) // 2) <= 0.05
    assert mcnemar((largest + net) // 2 + 1, (largest - net) // 2 + 1) > 0.05


@pytest.mark.parametrize("percent", [0.0, 74.4, 80.7, 100.0])
def test_counts_are_those_that_are_printed_so(percent):
    expected = [count for count in range(17_707) if f"{100 * count / 17_706:.1f}" == f"{percent:.1f}"]
    assert list(published_steps.correct(percent, 17_706)) == expected


def test_a_step_that_was_subtracted_before_rounding_narrows_the_counts():
    # 74.4 and 74.9 print a step of 0.5 or, subtracted first, 0.4 to 0.6: then only some counts fit.
    wide = set(published_steps.pairs(74.4, 74.9, 0.5, 17_706))
    narrow = set(published_steps.pairs(74.4, 74.9, 0.6, 17_706))
    assert narrow < wide
    assert all(0.55 <= 100 * (after - before) / 17_706 <= 0.65 for before, after in narrow)


@pytest.mark.parametrize(
    ("before", "after", "step", "videos", "message"),
    [(74.4, 74.9, 0.8, 17_706, "give a step of \\+0.8"), (50.1, 60.0, 9.9, 50, "top-1 50.1: no number of 50 videos")],
)
def test_numbers_that_cannot_be_are_named(before, after, step, videos, message):
    with pytest.raises(published_steps.PublishedError, match=message):
        published_steps.bounds(before, after, step, videos)


def test_rows_without_a_step_have_no_numbers():
    table = pd.DataFrame({"top1": [50.0, 60.0, 70.0], "delta": [float("nan"), 10.0, float("nan")]}, index=[1, 2, 3])
    found = published_steps.steps(table, {1: None, 2: 1, 3: 2}, 50)
    assert list(found.index) == [2, 3]
    assert found.loc[2, "p_low"] == 2 / 2**5
    assert found.loc[3].isna().all()


def test_the_papers_steps():
    follows = {1: None, **{row: row - 1 for row in range(2, 9)}, 9: None, 10: 9}
    found = published_steps.steps(published.load("table2"), follows, 17_706)
    assert found["step"].dropna().tolist() == [0.5, 1.2, 0.2, 0.1, 1.0, 0.5, 0.3, 0.3]
    # A net of 0.1 points is at most 35 videos: (35 / 1.96) ** 2 is about 319, less the discreteness of the test.
    assert 280 < found.loc[5, "at_most"] <= 319
    assert found.loc[5, "p_high"] == 1.0
    # Stochastic depth alone is significant whichever videos flipped.
    assert found.index[found["p_high"] <= 0.05].tolist() == [3]


def test_the_page_is_what_the_command_prints():
    result = CliRunner().invoke(paper_significance.main)
    assert result.exit_code == 0
    _, page = DOCS.read_text().split("    python -m harness.paper_significance\n\n")
    assert page == result.output
    assert "The variance over seeds is unknown" in page


def test_another_level_moves_the_bars():
    strict = CliRunner().invoke(paper_significance.main, ["--alpha", "0.00625"])
    assert "at 0.625 %" in strict.output
    assert "Significant whichever videos flipped: no step." in strict.output
    assert CliRunner().invoke(paper_significance.main, ["--alpha", "0"]).exit_code == 2
