"""What a preflight shows: two tables and sentences, from forecasts made of made-up results of compiling.

Numbers of the tables are held against hand counts, words by what must be said.
"""

import dataclasses
import math

import pytest
from test_tpu_forecasts import HALF, SECOND, V3, looked_up
from test_tpu_programs import made, pair
from test_tpu_results import BY, MEMORY, SHORT, result

from ablations import table2, table3
from ablations.toggles import DEPTH, DSTEM, EP, FRAMES, LS, R3D_RS, SD, SE, SJ, WD
from harness import rendering
from harness.input_speed import InputSpeed
from harness.tpu import compiler, forecasts, showing
from harness.tpu.forecasts import Measured, Total

DEEP = (*R3D_RS, DEPTH.at(200), FRAMES.at(48))
T1, T2, T3, T4, T5, T6, T7 = (
    pair(*changes)[0]
    for changes in (
        (), (LS.at(),), (LS.at(), SD.at()), (LS.at(), SD.at(), WD.at()), (*R3D_RS[:-1],), R3D_RS, DEEP,
    )
)  # fmt: skip
E1, E2, E3, E4 = (pair(*changes)[1] for changes in ((), R3D_RS[:-1], R3D_RS, DEEP))
REFUSED = f"{compiler.REFUSED}: unknown custom call"
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
    cells = rendering.cells(drawn)
    (column,) = (name for name in cells if name.startswith(head))
    return list(cells[column])


@pytest.fixture
def programs(tmp_path):
    return showing.programs(forecast(planned(tmp_path)), V3, FITTING, {T6.key: "the process that compiled it died"})


def test_programs_are_named_in_the_order_of_the_rows(tmp_path):
    names = showing.letters(forecast(planned(tmp_path)))
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
    drawn = showing.programs(forecast(planned(tmp_path, seeds=3)), V3, {}, {})
    assert drawn.data.loc["T4", "rows"] == ("4", "5", "6")


def test_many_programs_keep_their_order(tmp_path):
    plan = planned(tmp_path, table2.STUDY, table3.STUDY)
    drawn = showing.programs(forecast(plan), V3, {}, {})
    assert list(drawn.data.index) == [f"T{one}" for one in range(1, 11)] + [f"E{one}" for one in range(1, 8)]
    assert drawn.data.loc["T1", "rows"] == ("table2 1", "table3 1")


def test_a_verdict_says_what_became_of_it(programs):
    verdicts = programs.data["verdict"]
    assert verdicts["T1"] == verdicts["E1"] == verdicts["E4"] == "fits"
    assert verdicts["T2"].startswith("does not fit") and "4 clips a core" in verdicts["T2"]
    assert verdicts["T3"].startswith("does not fit") and "one clip" in verdicts["T3"]
    assert verdicts["E2"].startswith("does not fit") and "one video" in verdicts["E2"]
    assert verdicts["T4"] == "refused"
    assert verdicts["T5"] == verdicts["E3"] == "not compiled"
    assert verdicts["T6"] == "failed"
    assert verdicts["T7"].startswith("fits") and "estimate" in verdicts["T7"]
    assert shown(programs, "verdict") == list(verdicts)
    assert list(programs.data["fitting"])[:3] == pytest.approx([math.nan, 4, 0], nan_ok=True)


def test_a_single_clip_is_one(tmp_path):
    plan = planned(tmp_path)
    verdict = showing.programs(forecast(plan), V3, {T2.key: result(T2.of(1))}, {}).data.loc["T2", "verdict"]
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
    heads = {"arguments": "2.00", "temporaries": "9.00", "code": "0.00", "of 17.2 GB": "65 %", "moved": "45.0"}
    assert {head: shown(programs, head)[0] for head in heads} == heads
    assert float(shown(programs, "multiply-adds")[0]) == pytest.approx(15.375, abs=0.006)
    assert shown(programs, "step, at least (ms)")[7] == "1,000.0"
    assert shown(programs, "bound by")[:1] + shown(programs, "bound by")[7:8] == ["compute", "memory"]


def test_a_missing_number_is_a_dash(programs):
    without = [name in ("T2", "T3", "T4", "T5", "T6", "E2", "E3") for name in programs.data.index]
    heads = ("arguments", "temporaries", "code", "of 17.2 GB", "multiply-adds", "moved", "step", "bound by")
    for head in heads:
        assert [cell == "–" for cell in shown(programs, head)] == without, head
    assert programs.data.loc["T5", ["needed", "step_seconds"]].isna().all()
    assert "nan" not in rendering.markdown(programs).lower()


def test_an_estimate_that_does_not_fit_shows_what_it_needs(tmp_path):
    large = dataclasses.replace(MEMORY, temporaries=32 * 2**30 - 2_100_000_007)
    counted = dataclasses.replace(result(T1).executable, memory=large)
    found = forecast(planned(tmp_path), lambda program: result(program, reason="too much", executable=counted))
    line = showing.programs(found, V3, {}, {})
    assert line.data.loc["T1", "needed"] == 32 * 2**30
    assert shown(line, "of 17.2 GB")[0] == "200 %"
    assert line.data.loc["T1", "verdict"].startswith("does not fit")
    assert math.isnan(line.data.loc["T1", "step_seconds"])


def test_the_caption_names_compilers_and_peaks(programs, tmp_path):
    assert BY in programs.caption and "XLA on the CPU" in programs.caption
    assert "estimate" in programs.caption
    assert "61.5" in programs.caption and "450" in programs.caption
    assert all(text in programs.title for text in ("v3:8x8", "64 chips", "128 cores", "16 hosts"))
    compiled = showing.programs(forecast(planned(tmp_path), looked_up(HALF, SECOND)), V3, {}, {})
    assert BY in compiled.caption and "estimate" not in compiled.caption


def table(root, *studies, price=None, speed=None, lookup=None, measured=Measured(), seeds=1):  # noqa: B008
    plan = planned(root, *studies, seeds=seeds)
    found = forecast(plan, lookup or looked_up(HALF, SECOND), measured)
    return showing.rows(found, plan.studies, price, speed)


SHORTER, LONGER = ((steps * 0.5 + 139) / 3600 for steps in (42_104, 73_682))


def test_a_line_for_each_run_with_raw_hours(tmp_path):
    drawn = table(tmp_path)
    data = drawn.data
    assert len(data) == 10 and data.index.name == "run"
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


def test_a_bound_has_its_sign(tmp_path):
    drawn = table(tmp_path)
    assert shown(drawn, "hours")[0] == "≥ 5.89"  # (42,104 / 2 + 139) / 3,600
    assert shown(drawn, "core-hours")[0] == "≥ 753"
    assert shown(drawn, "clips/s")[0] == "≤ 128"
    assert shown(drawn, "steps")[4] == "73,682"
    assert shown(drawn, "programs")[9] == "T7, E4"
    assert not [head for head in rendering.cells(drawn) if head.startswith(("price", "measured"))]


def test_what_was_measured_has_none(tmp_path):
    measured = Measured({T1.shape: 2.0}, {E1.shape: 0.5})
    drawn = table(tmp_path, measured=measured)
    hours = (42_104 * 2 + 17_706 / 2) / 3600
    assert list(drawn.data["measured"]) == [True] + [False] * 9
    assert shown(drawn, "hours")[0] == f"{hours:.2f}"
    assert shown(drawn, "clips/s")[0] == "32"
    assert all(cell.startswith("≥") for cell in shown(drawn, "hours")[1:])
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
    assert list(data["fits"]) == [True, False, False, False, False, False, False, None, True, True]
    assert list(data["hours"].notna()) == [True] + [False] * 7 + [True] * 2
    assert shown(drawn, "hours")[1] == "does not fit"
    assert shown(drawn, "hours")[7] == "–"
    for head in ("core-hours", "price", "clips/s"):
        assert {shown(drawn, head)[place] for place in (1, 7)} == {"–"}, head
    assert "nan" not in rendering.markdown(drawn).lower()


def test_where_nothing_fits_every_row_says_so(tmp_path):
    drawn = table(tmp_path, lookup=lambda one: result(one, reason=SHORT))
    assert shown(drawn, "hours") == ["does not fit"] * 10
    assert table(tmp_path, lookup=lambda _: None).data["fits"].isna().all()


def test_the_rate_of_this_machine_stands_beside_the_need(tmp_path):
    drawn = table(tmp_path, speed=InputSpeed(40.0, 24.0, 2))
    # 16 frames for rows 1 to 8, 24 for rows 9 and 10, and row 10 with RandAugment.
    assert list(drawn.data["clips_per_second_here"]) == pytest.approx([40.0] * 8 + [40 * 16 / 24, 16.0])
    cells = shown(drawn, "measured here")
    assert cells[0].startswith("40") and "3.2" in cells[0]  # 128 needed
    assert cells[9].startswith("16") and "8.0" in cells[9]
    assert "2 CPU cores" in drawn.caption


def test_a_machine_that_reads_more_than_is_needed_is_enough(tmp_path):
    cell = shown(table(tmp_path, speed=InputSpeed(1280.0, 640.0, 96)), "measured here")[0]
    assert cell.startswith("1,280") and "0.1" not in cell


def test_rows_of_several_studies_are_named_by_both(tmp_path):
    drawn = table(tmp_path, table2.STUDY, table3.STUDY)
    assert len(drawn.data) == 13
    assert drawn.data["rows"].iloc[0] == ("table2 1", "table3 1")
    assert "table2" in drawn.title and "table3" in drawn.title


@pytest.mark.parametrize("price", [None, 1.25])
def test_both_tables_as_markdown(tmp_path, programs, price):
    for drawn, lines in ((programs, 11), (table(tmp_path, price=price, speed=InputSpeed(40.0, 24.0, 2)), 10)):
        text = rendering.markdown(drawn)
        body = [line for line in text.splitlines() if line.startswith("|")]
        assert len(body) == lines + 2
        assert len({line.count("|") for line in body}) == 1
        assert text.startswith(f"**{rendering.markdown_text(drawn.title)}**")
        assert text.rstrip().endswith(rendering.markdown_text(drawn.caption))


def test_raw_numbers_in_a_csv_file(programs):
    head, *lines = rendering.csv(programs).splitlines()
    first = dict(zip(head.split(","), lines[0].split(","), strict=True))
    assert float(first["needed"]) == 11_100_000_007
    assert (first["program"], first["rows"], first["estimated"]) == ("T1", "1", "0")
    assert lines[3].split(",")[head.split(",").index("rows")] == "4;5;6"


def test_totals_in_sentences():
    own, naive = Total(1234.56, 158_023.7, 0), Total(2000.0, 256_000.0, 0)
    first, second = showing.totals(own, naive, 13, 16, V3, None)
    assert all(text in first for text in ("13 runs", "1,234.6 hours", "158,024 core-hours", "at least"))
    assert all(text in second for text in ("16", "2,000.0 hours", "256,000 core-hours"))
    assert "chip" not in first + second


def test_a_total_price_is_of_all_chips():
    first, second = showing.totals(Total(100.0, 12_800.0, 0), Total(200.0, 25_600.0, 0), 1, 2, V3, 1.5)
    assert "9,600" in first and "1.5" in first
    assert "19,200" in second


def test_a_total_says_what_is_not_in_it():
    (known,) = showing.totals(Total(1.0, 128.0, 0), Total(1.0, 128.0, 0), 10, 10, V3, None)
    (some,) = showing.totals(Total(1.0, 128.0, 3), Total(1.0, 128.0, 3), 10, 10, V3, None)
    assert "without 3" in some and "without" not in known


def test_the_rows_of_the_study_are_those_named_here():
    assert table2.STUDY.rows[6].applied == R3D_RS[:-1] == tuple(one.at() for one in (LS, SD, WD, EP, SJ, SE))
    assert table2.STUDY.rows[7].applied == R3D_RS and R3D_RS[-1] == DSTEM.at()
