"""What a preflight shows: two tables and sentences, from forecasts made of made-up results of compiling.

Numbers of the tables are held against hand counts, words by what must be said.
"""

import dataclasses
import math

import pytest

from ablations import table2, table3
from ablations.toggles import DEPTH, DSTEM, EP, FRAMES, LS, R3D_RS, SD, SE, SJ, WD
from harness.accelerators import forecasts, tpu_compiler
from harness.accelerators.forecasts import Measured, Total
from harness.data.input_speed import InputSpeed
from harness.reporting import preflight_tables, render
from tests.accelerators.test_forecasts import HALF, SECOND, V3, looked_up
from tests.accelerators.test_programs import made, pair
from tests.accelerators.test_results import BY, MEMORY, SHORT, result

DEEP = (*R3D_RS, DEPTH.at(200), FRAMES.at(48))
T1, T2, T3, T4, T5, T6, T7 = (
    pair(*changes)[0]
    for changes in (
        (), (LS.at(),), (LS.at(), SD.at()), (LS.at(), SD.at(), WD.at()), (*R3D_RS[:-1],), R3D_RS, DEEP,
    )
)  # fmt: skip
E1, E2, E3, E4 = (pair(*changes)[1] for changes in ((), R3D_RS[:-1], R3D_RS, DEEP))
REFUSED = f"{tpu_compiler.REFUSED}: unknown custom call"
# T5 and E3 were not compiled, T6 could not be.
RESULTS = {
    T1.key: result(T1, **HALF),
    T2.key: result(T2, reason=SHORT),
    T3.key: result(T3, reason=SHORT),
    T4.key: result(T4, reason=REFUSED),
    T7.key: result(T7, **HALF, estimated=True, compiler="XLA on the CPU"),
    E1.key: result(E1, **SECOND),
    E2.key: result(E2, reason=SHORT),
    E4.key: result(E4, **SECOND),
}
FITTING = {T2.key: result(T2.of(4), **HALF), T3.key: None, E2.key: None}


def planned(root, *studies, seeds=1):
    return made(root).plan(studies or [table2.STUDY], range(seeds))


def forecast(plan, lookup=lambda program: RESULTS.get(program.key), measured=Measured()):  # noqa: B008
    return forecasts.forecasts(plan.runs, V3, lookup, measured)


def shown(drawn, head):
    """The cells of the one column whose head begins so."""
    cells = render.cells(drawn)
    (column,) = (name for name in cells if name.startswith(head))
    return list(cells[column])


@pytest.fixture
def programs(tmp_path):
    return preflight_tables.programs(
        forecast(planned(tmp_path)), V3, FITTING, {T6.key: "the process that compiled it died"}
    )


def test_programs_are_named_in_the_order_of_the_rows(tmp_path):
    names = preflight_tables.letters(forecast(planned(tmp_path)))
    assert names == {
        **{one.key: f"T{number}" for number, one in enumerate((T1, T2, T3, T4, T5, T6, T7), 1)},
        **{one.key: f"E{number}" for number, one in enumerate((E1, E2, E3, E4), 1)},
    }


def test_a_line_for_each_program_and_its_rows(programs):
    assert list(programs.data.index) == ["T1", "T2", "T3", "T4", "T5", "T6", "T7", "E1", "E2", "E3", "E4"]
    assert list(programs.data["rows"]) == [
        ("1",), ("2",), ("3",), ("4", "5", "6"), ("7",), ("8",), ("9", "10"),
        ("1", "2", "3", "4", "5", "6"), ("7",), ("8",), ("9", "10"),
    ]  # fmt: skip
    assert shown(programs, "rows")[3] == "4, 5, 6"
    assert list(programs.data["key"])[:2] == [T1.key, T2.key]


def test_seeds_do_not_name_a_row_twice(tmp_path):
    drawn = preflight_tables.programs(forecast(planned(tmp_path, seeds=3)), V3, {}, {})
    assert drawn.data.loc["T4", "rows"] == ("4", "5", "6")


def test_many_programs_keep_their_order(tmp_path):
    plan = planned(tmp_path, table2.STUDY, table3.STUDY)
    drawn = preflight_tables.programs(forecast(plan), V3, {}, {})
    assert list(drawn.data.index) == [f"T{one}" for one in range(1, 11)] + [f"E{one}" for one in range(1, 8)]
    assert drawn.data.loc["T1", "rows"] == ("table2 1", "table3 1")


def test_a_verdict_says_what_became_of_it(programs):
    verdicts = programs.data["verdict"]
    assert verdicts["T1"] == verdicts["E1"] == verdicts["E4"] == "fits"
    assert verdicts["T2"].startswith("does not fit") and "4 clips a core" in verdicts["T2"]
    assert verdicts["T3"].startswith("does not fit") and "one clip" in verdicts["T3"]
    assert verdicts["E2"].startswith("does not fit") and "one video" in verdicts["E2"]
    assert verdicts["T4"] == "does not compile"
    assert verdicts["T5"] == verdicts["E3"] == "not compiled"
    assert verdicts["T6"] == "could not be compiled"
    assert verdicts["T7"].startswith("fits") and "estimate" in verdicts["T7"]
    assert shown(programs, "verdict") == list(verdicts)
    assert list(programs.data["fitting"])[:3] == pytest.approx([math.nan, 4, 0], nan_ok=True)


def test_what_does_not_fit_and_was_not_searched_says_no_more(tmp_path):
    verdicts = preflight_tables.programs(forecast(planned(tmp_path)), V3, {}, {}).data["verdict"]
    assert verdicts["T2"] == verdicts["E2"] == "does not fit"
    assert verdicts["T4"] == "does not compile"


def test_a_single_clip_is_one(tmp_path):
    plan = planned(tmp_path)
    verdict = preflight_tables.programs(forecast(plan), V3, {T2.key: result(T2.of(1))}, {}).data.loc["T2", "verdict"]
    assert "1 clip a core" in verdict


def test_raw_numbers_are_bytes_operations_and_seconds(programs):
    line = programs.data.loc["T1"]
    for name in ("arguments", "outputs", "aliased", "temporaries", "code"):
        assert line[name] == getattr(MEMORY, name)
    assert (line["needed"], line["memory"]) == (11_100_000_007, 16 * 2**30)
    assert line["multiply_adds"] == 15_375_000_000_000
    assert line["bytes_moved"] == 45_000_000_000
    assert (line["compute_seconds"], line["memory_seconds"]) == pytest.approx((0.5, 0.1))
    assert (line["step_seconds"], line["bound_by"]) == (pytest.approx(0.5), "compute")
    evaluation = programs.data.loc["E1"]
    assert (evaluation["step_seconds"], evaluation["bound_by"]) == (pytest.approx(1.0), "memory")
    assert (line["clips"], line["views"], line["frames"], line["size"]) == (8, 1, 16, 224)
    assert tuple(evaluation[["clips", "views", "frames", "size"]]) == (1, 30, 16, 256)
    assert tuple(programs.data.loc["E4", ["views", "frames", "size"]]) == (30, 24, 256)
    assert list(programs.data["estimated"]) == [name == "T7" for name in programs.data.index]


def test_cells_are_in_the_units_of_their_heads(programs):
    heads = {"arguments": "2.00", "temporaries": "9.00", "code": "0.00", "needed of 17.2 GB": "65 %", "moved": "45.0"}
    assert {head: shown(programs, head)[0] for head in heads} == heads
    assert float(shown(programs, "multiply-adds")[0]) == pytest.approx(15.375, abs=0.006)
    assert shown(programs, "step, at least (ms)")[7] == "1,000.0"
    assert shown(programs, "bound by")[:1] + shown(programs, "bound by")[7:8] == ["compute", "memory"]


def test_a_missing_number_is_a_dash(programs):
    without = [name in ("T2", "T3", "T4", "T5", "T6", "E2", "E3") for name in programs.data.index]
    heads = ("arguments", "temporaries", "code", "needed of 17.2 GB", "multiply-adds", "moved", "step", "bound by")
    for head in heads:
        assert [cell == "–" for cell in shown(programs, head)] == without, head
    assert programs.data.loc["T5", ["needed", "step_seconds"]].isna().all()
    assert "nan" not in render.markdown(programs).lower()


def test_an_estimate_that_does_not_fit_shows_what_it_needs(tmp_path):
    large = dataclasses.replace(MEMORY, temporaries=32 * 2**30 - 2_100_000_007)
    counted = dataclasses.replace(result(T1).executable, memory=large)
    found = forecast(planned(tmp_path), lambda program: result(program, reason="too much", executable=counted))
    line = preflight_tables.programs(found, V3, {}, {})
    assert line.data.loc["T1", "needed"] == 32 * 2**30
    assert shown(line, "needed of 17.2 GB")[0] == "200 %"
    assert line.data.loc["T1", "verdict"].startswith("does not fit")
    assert math.isnan(line.data.loc["T1", "step_seconds"])


def test_the_caption_names_compilers_and_peaks(programs, tmp_path):
    assert BY in programs.caption and "XLA on the CPU" in programs.caption
    assert "estimate" in programs.caption
    assert "61.5" in programs.caption and "450" in programs.caption
    assert "gives a program 16.6 GB" in programs.caption  # 15.48 GiB of the 17.2 GB that a core has
    assert all(text in programs.title for text in ("v3:8x8", "64 chips", "128 cores", "16 hosts"))
    compiled = preflight_tables.programs(forecast(planned(tmp_path), looked_up(HALF, SECOND)), V3, {}, {})
    assert BY in compiled.caption and "estimate" not in compiled.caption


def table(root, *studies, price=None, speed=None, lookup=None, measured=Measured(), seeds=1):  # noqa: B008
    plan = planned(root, *studies, seeds=seeds)
    found = forecast(plan, lookup or looked_up(HALF, SECOND), measured)
    return preflight_tables.rows(found, plan.studies, price, speed)


SHORTER, LONGER = ((steps * 0.5 + 139) / 3600 for steps in (42_104, 73_682))


def test_a_line_for_each_row_with_raw_hours(tmp_path):
    drawn = table(tmp_path)
    data = drawn.data
    runs = planned(tmp_path).runs
    assert list(data.index) == [(one.run.id,) for one in runs] and data.index.name == "runs"
    assert list(data["changes"])[:3] == ["baseline", "ls", "ls sd"]
    assert shown(drawn, "toggles and scale") == list(data["changes"])
    assert set(data["obstacle"]) == {""}
    assert list(data["rows"]) == [(str(number),) for number in range(1, 11)]
    assert list(data["train"]) == ["T1", "T2", "T3", "T4", "T4", "T4", "T5", "T6", "T7", "T7"]
    assert list(data["evaluation"]) == ["E1"] * 6 + ["E2", "E3", "E4", "E4"]
    assert list(data["steps"]) == [42_104] * 4 + [73_682] * 6
    assert set(data["batch"]) == {1024} and set(data["evaluation_steps"]) == {139}
    assert list(data["hours"]) == pytest.approx([SHORTER] * 4 + [LONGER] * 6)
    assert list(data["core_hours"]) == pytest.approx([128 * SHORTER] * 4 + [128 * LONGER] * 6)
    assert list(data["clips_per_second"]) == pytest.approx([128.0] * 10)
    assert data["price"].isna().all() and data["clips_per_second_here"].isna().all()
    assert "table2" in drawn.title and "v3:8x8" in drawn.title


def test_seeds_of_a_row_are_one_line_of_all_of_their_hours(tmp_path):
    drawn = table(tmp_path, price=1.25, seeds=3)
    data = drawn.data
    by_row = {}
    for one in planned(tmp_path, seeds=3).runs:
        by_row.setdefault(one.rows, []).append(one.run.id)
    assert list(data.index) == [tuple(own) for own in by_row.values()]
    assert list(data["rows"]) == list(by_row)
    assert shown(drawn, "seeds") == ["3"] * 10
    assert list(data["hours"]) == pytest.approx([3 * SHORTER] * 4 + [3 * LONGER] * 6)
    assert list(data["core_hours"]) == pytest.approx([3 * 128 * SHORTER] * 4 + [3 * 128 * LONGER] * 6)
    assert list(data["price"]) == pytest.approx([3 * SHORTER * 80] * 4 + [3 * LONGER * 80] * 6)
    alone = table(tmp_path, price=1.25).data
    for of_one in ("steps", "step_seconds", "evaluation_seconds", "evaluation_steps", "clips_per_second", "changes"):
        assert list(data[of_one]) == list(alone[of_one]), of_one
    assert not [head for head in render.cells(table(tmp_path)) if head.startswith("seeds")]


def test_a_bound_has_its_sign(tmp_path):
    drawn = table(tmp_path)
    assert shown(drawn, "hours")[0] == "≥ 5.9"  # (42,104 / 2 + 139) / 3,600 = 5.886
    assert shown(drawn, "hours")[4] == "≥ 10"  # (73,682 / 2 + 139) / 3,600 = 10.27
    assert shown(drawn, "core-hours")[0] == "≥ 753"
    assert shown(drawn, "clips/s")[0] == "≤ 128"
    assert shown(drawn, "steps")[4] == "73,682"
    assert shown(drawn, "programs")[9] == "T7, E4"
    assert not [head for head in render.cells(drawn) if head.startswith(("price", "machines", "seeds"))]


def test_what_was_measured_has_none(tmp_path):
    measured = Measured({T1.fed: 2.0}, {E1.fed: 0.5})
    drawn = table(tmp_path, measured=measured)
    hours = (42_104 * 2 + 17_706 / 2) / 3600
    assert list(drawn.data["measured"]) == [True] + [False] * 9
    assert drawn.data["hours"].iloc[0] == pytest.approx(hours)
    assert shown(drawn, "hours")[0] == f"{hours:.0f}" == "26"
    assert shown(drawn, "core-hours")[0] == f"{128 * hours:,.0f}" == "3,309"
    assert shown(drawn, "clips/s")[0] == "32"
    for head, sign in (("hours", "≥"), ("core-hours", "≥"), ("clips/s", "≤")):
        assert all(cell.startswith(f"{sign} ") for cell in shown(drawn, head)[1:]), head
    assert len(drawn.caption) > len(table(tmp_path).caption)


def test_a_price_is_of_chips_and_hours(tmp_path):
    drawn = table(tmp_path, price=1.25)
    assert list(drawn.data["price"]) == pytest.approx([SHORTER * 64 * 1.25] * 4 + [LONGER * 64 * 1.25] * 6)
    assert shown(drawn, "price")[0] == f"≥ {SHORTER * 64 * 1.25:,.0f}"
    assert "1.25" in drawn.caption and "1.25" not in table(tmp_path).caption
    assert list(table(tmp_path, price=0.0).data["price"]) == [0.0] * 10


def test_rows_without_hours(tmp_path):
    drawn = table(tmp_path, price=1.0, speed=InputSpeed(40.0, 24.0, 2), lookup=lambda one: RESULTS.get(one.key))
    data = drawn.data
    # T2 to T4 and E2 do not run, T6 and E3 are not known; T7 and E4 fit, T7 by an estimate.
    obstacles = ["", *["does not fit"] * 2, *["does not compile"] * 3, "does not fit", "", "", ""]
    assert list(data["obstacle"]) == obstacles
    assert list(data["hours"].notna()) == [True] + [False] * 7 + [True] * 2
    assert shown(drawn, "hours")[1:8] == [*obstacles[1:7], "–"]
    for head in ("core-hours", "price", "clips/s"):
        assert {shown(drawn, head)[place] for place in (1, 7)} == {"–"}, head
    assert "nan" not in render.markdown(drawn).lower()


def test_where_nothing_fits_every_row_says_so(tmp_path):
    drawn = table(tmp_path, lookup=lambda one: result(one, reason=SHORT))
    assert shown(drawn, "hours") == ["does not fit"] * 10
    unknown = table(tmp_path, lookup=lambda _: None)
    assert set(unknown.data["obstacle"]) == {""} and shown(unknown, "hours") == ["–"] * 10


def test_the_rate_of_this_machine_stands_beside_the_need(tmp_path):
    drawn = table(tmp_path, speed=InputSpeed(40.0, 24.0, 2))
    # 16 frames for rows 1 to 8, 24 for rows 9 and 10, and row 10 with RandAugment.
    assert list(drawn.data["clips_per_second_here"]) == pytest.approx([40.0] * 8 + [40 * 16 / 24, 16.0])
    # 128 clips a second are needed of every one: 128 / 40, 128 / 26.7 and 128 / 16 such machines.
    assert shown(drawn, "machines like this one a host") == ["3.2"] * 8 + ["4.8", "8.0"]
    assert "2 CPU cores" in drawn.caption and "40 clips/s" in drawn.caption and "24 with RandAugment" in drawn.caption


def test_a_machine_that_reads_more_than_is_needed_is_a_part_of_one(tmp_path):
    cells = shown(table(tmp_path, speed=InputSpeed(1280.0, 640.0, 96)), "machines like this one a host")
    assert cells[0] == "0.10"


def test_rows_of_several_studies_are_named_by_both(tmp_path):
    drawn = table(tmp_path, table2.STUDY, table3.STUDY)
    assert len(drawn.data) == 13
    assert drawn.data["rows"].iloc[0] == ("table2 1", "table3 1")
    assert "table2" in drawn.title and "table3" in drawn.title


@pytest.mark.parametrize("price", [None, 1.25])
def test_both_tables_as_markdown(tmp_path, programs, price):
    for drawn, lines in ((programs, 11), (table(tmp_path, price=price, speed=InputSpeed(40.0, 24.0, 2)), 10)):
        text = render.markdown(drawn)
        body = [line for line in text.splitlines() if line.startswith("|")]
        assert len(body) == lines + 2
        assert len({line.count("|") for line in body}) == 1
        assert text.startswith(f"**{render.markdown_text(drawn.title)}**")
        assert text.rstrip().endswith(render.markdown_text(drawn.caption))


def test_raw_numbers_in_a_csv_file(programs):
    head, *lines = render.csv(programs).splitlines()
    first = dict(zip(head.split(","), lines[0].split(","), strict=True))
    assert float(first["needed"]) == 11_100_000_007
    assert (first["program"], first["rows"], first["estimated"]) == ("T1", "1", "0")
    assert lines[3].split(",")[head.split(",").index("rows")] == "4;5;6"


def total(hours, known=13, unknown=0, measured=False):
    return Total(hours, 128 * hours, known, unknown, measured)


def test_totals_in_sentences():
    first, second = preflight_tables.totals(total(1234.56), total(2000.0, 16), True, V3, None)
    assert all(text in first for text in ("13 runs", "at least 1,235 hours", "158,024 core-hours"))
    assert all(text in second for text in ("16 runs", "at least 2,000 hours", "256,000 core-hours"))
    assert "chip" not in first + second


def test_what_was_measured_is_no_bound():
    first, second = preflight_tables.totals(total(100.0, measured=True), total(200.0, 16), True, V3, None)
    assert "at least" not in first and "13 runs, 100 hours" in first
    assert "at least 200 hours" in second


def test_of_nothing_that_is_known_nothing_is_said():
    nothing = Total(0.0, 0.0, 0, 13, True)
    assert preflight_tables.totals(nothing, nothing, True, V3, 1.5) == []


def test_a_total_price_is_of_all_chips():
    first, second = preflight_tables.totals(total(100.0, 1), total(200.0, 2), True, V3, 1.5)
    assert "9,600 at 1.5 for a chip and hour" in first
    assert "19,200" in second


def test_the_whole_is_said_again_only_where_rows_share_runs():
    (line,) = preflight_tables.totals(total(100.0), total(100.0), False, V3, None)
    assert "13 runs" in line


@pytest.mark.parametrize(("hours", "said"), [(0.0123, "0.012 hours, 1.6 core-hours"), (9.5, "9.5 hours, 1,216 core")])
def test_a_few_hours_are_said_in_two_figures(hours, said):
    (line,) = preflight_tables.totals(total(hours), total(hours), False, V3, None)
    assert said in line


@pytest.mark.parametrize(
    ("known", "unknown", "runs", "rest"),
    [
        (1, 0, "1 run,", None),
        (2, 0, "2 runs,", None),
        (1, 1, "1 run,", "; 1 more is not known or does not fit."),
        (2, 3, "2 runs,", "; 3 more are not known or do not fit."),
    ],
)
def test_a_total_says_what_is_not_in_it_in_singular_and_plural(known, unknown, runs, rest):
    of_all = total(1.0, known, unknown)
    (line,) = preflight_tables.totals(of_all, of_all, False, V3, None)
    assert f" {runs}" in line
    assert line.endswith(rest) if rest else "more" not in line


@pytest.mark.parametrize("price", [0.001, 1.5])
def test_a_small_price_is_said_as_in_its_row(tmp_path, price):
    """Of a slice that costs next to nothing, or an hour that is hardly used."""
    drawn = table(tmp_path, price=price)
    alone = Total(SHORTER, 128 * SHORTER, 1, 0, False)
    (line,) = preflight_tables.totals(alone, alone, False, V3, price)
    assert f", {shown(drawn, 'price')[0].removeprefix('≥ ')} at {price:g} for a chip and hour" in line


def test_the_rows_of_the_study_are_those_named_here():
    assert table2.STUDY.rows[6].applied == R3D_RS[:-1] == tuple(one.at() for one in (LS, SD, WD, EP, SJ, SE))
    assert table2.STUDY.rows[7].applied == R3D_RS and R3D_RS[-1] == DSTEM.at()
