"""Core-hours in a study's tables, against hand counts from results written by hand. Nothing is compiled or trained.

Table 2 by the paper's recipe: 215,570 videos in batches of 1,024 are 42,104 steps in 200 epochs and 73,682 in 350. To
evaluate 17,706 videos, one on each of 128 cores, takes 139 steps. A core of a TPU v3 does 61.5e12 operations and moves
450e9 bytes a second.
"""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import figure2, table2, table3
from harness.accelerators import core_hours, programs, tpu_compiler
from harness.accelerators.core_hours import RunCost
from harness.accelerators.results import Executable, Memory, Result, Results
from harness.analysis import evidence
from harness.cli import synthetic
from harness.config import slices
from harness.config.devices import Devices
from harness.config.experiment import Overrides
from harness.planning import workspace
from harness.planning.workspace import Workspace
from harness.reporting import layouts, render, writers
from harness.store import records
from harness.store.run_store import RECORD, Store

POD, CORES = "v3:8x8", 128
BY = "libtpu 9.9.9"
HALF_A_SECOND = {"operations": 30_750_000_000_000, "bytes_moved": 1_000_000}
A_SECOND = {"operations": 61_500_000_000_000, "bytes_moved": 1_000_000}
A_QUARTER_BY_MEMORY = {"operations": 1_000_000, "bytes_moved": 112_500_000_000}
# Core-hours with half a second a step and a second an evaluation step.
EPOCHS_200, EPOCHS_350 = ((steps * 0.5 + 139) * 128 / 3600 for steps in (42_104, 73_682))


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(tpu_compiler, "installed", lambda: BY)


def made(root):
    """The paper's training of the paper's data sets."""
    first, *further = workspace.papers()
    return Workspace(
        workspace.profile("paper"), first, Overrides(), CORES, Store(root), Devices(), further=tuple(further)
    )


def write(place, cell, kind, does=None, topology=POD, **changes):
    """The result of compiling one program of a row; without what it does, one that does not fit."""
    train, evaluation = programs.of_run(place.complete(cell), slices.slice_of(topology).cores)
    program = train if kind == "train" else evaluation
    memory = Memory(arguments=1, outputs=1, aliased=1, temporaries=1, code=1)
    result = Result(
        key=program.key,
        topology=topology,
        compiler=BY,
        estimated=False,
        fits=does is not None,
        reason="" if does else "needs 20.1 GB of memory, a core has 17.2 GB",
        executable=Executable(memory, **does) if does else None,
        program=programs.described(program),
        versions={},
        hlo="",
        seconds=1.0,
        made="2026-01-01T00:00:00+00:00",
    )
    return Results(place.store.root).write(dataclasses.replace(result, **changes))


def preflighted(place, study=table2.STUDY, **changes):
    """Rows 1 and 4 to 6 take half a second a step and a second an evaluation step; the others are not known."""
    for number in (1, 4):
        write(place, study.rows[number - 1].cell(0), "train", HALF_A_SECOND, **changes)
    write(place, study.rows[0].cell(0), "evaluation", A_SECOND, **changes)


def measured(place, row, topology=POD, evaluated=None):
    """A record of a row: two seconds a step, and 120 seconds for 240 videos, perhaps elsewhere."""
    (run_id,) = synthetic.write_synthetic(
        place, [dataclasses.replace(table2.STUDY, rows=(table2.STUDY.rows[row - 1],))], 1
    )
    path = place.store.folder(run_id) / RECORD
    record = place.store.read(run_id)
    where = {"commit": "by hand", "topology": topology}
    there = {**where, "topology": evaluated or topology}
    evaluations = {
        name: dataclasses.replace(one, seconds=120.0, provenance=there) for name, one in record.evaluations.items()
    }
    cost = {**record.cost, "train_steps": 42_104, "train_seconds": 84_208.0}
    record = dataclasses.replace(record, cost=cost, evaluations=evaluations, provenance=where)
    path.write_text(json.dumps(records.to_json(record)))


def table(place, study=table2.STUDY, seeds=1):
    plan = place.plan([study], range(seeds))
    return layouts.layout_of(study).table(evidence.summary(study, plan, evidence.evidence(place, plan)))


def column(drawn, head=f"core-hours, TPU {POD}"):
    return list(render.cells(drawn)[head])


def test_hours_of_a_row_are_the_compilers_count_at_the_published_peaks(tmp_path):
    place = made(tmp_path)
    preflighted(place)
    drawn = table(place)
    assert list(drawn.data[f"core_hours_{POD}"])[:6] == pytest.approx(
        [EPOCHS_200, math.nan, math.nan, EPOCHS_200, EPOCHS_350, EPOCHS_350], nan_ok=True
    )
    assert column(drawn) == ["≥ 753", "–", "–", "≥ 753", "≥ 1,315", "≥ 1,315", "–", "–", "–", "–"]
    assert not drawn.data[f"measured_{POD}"].any()
    assert drawn.caption.endswith(
        "Core-hours: of training and the reported evaluation on that slice, all seeds of a row together; ≥: the least "
        "that is possible, by the counts of libtpu 9.9.9 and published peaks."
    )


def test_memory_may_be_what_takes_longer(tmp_path):
    place = made(tmp_path)
    write(place, table2.STUDY.rows[0].cell(0), "train", A_QUARTER_BY_MEMORY)
    write(place, table2.STUDY.rows[0].cell(0), "evaluation", A_SECOND)
    assert table(place).data[f"core_hours_{POD}"][1] == pytest.approx((42_104 * 0.25 + 139) * 128 / 3600)


def test_all_seeds_of_a_row_are_in_its_sum(tmp_path):
    place = made(tmp_path)
    preflighted(place)
    drawn = table(place, seeds=3)
    assert drawn.data[f"core_hours_{POD}"][1] == pytest.approx(3 * EPOCHS_200)
    assert column(drawn)[0] == "≥ 2,260"


def test_what_was_measured_there_takes_the_place_of_the_bound(tmp_path):
    place = made(tmp_path)
    preflighted(place)
    measured(place, 4)
    drawn = table(place)
    long, short = ((steps * 2 + 17_706 * 0.5) * 128 / 3600 for steps in (73_682, 42_104))
    # The train steps of rows 4 to 6 are one program, whatever the schedule. Row 6 jitters the scale of its clips: how
    # fast they are made was not measured. All have row 1's evaluation.
    bound = (73_682 * 0.5 + 17_706 * 0.5) * 128 / 3600
    assert list(drawn.data[f"core_hours_{POD}"])[3:6] == pytest.approx([short, long, bound])
    assert column(drawn)[3:6] == ["3,309", "5,554", "≥ 1,625"]
    assert list(drawn.data[f"measured_{POD}"]) == [False] * 3 + [True] * 2 + [False] * 5
    assert column(drawn)[0].startswith("≥ ")
    assert drawn.caption.endswith("and published peaks; without a sign: as measured on recorded runs.")


def test_what_is_measured_of_its_training_alone_is_a_bound_of_the_whole(tmp_path):
    place = made(tmp_path)
    preflighted(place)
    measured(place, 4, evaluated="v3:2x2")
    drawn = table(place)
    assert drawn.data[f"core_hours_{POD}"][4] == pytest.approx((42_104 * 2 + 139) * 128 / 3600)
    assert column(drawn)[3] == "≥ 2,999"


def test_what_was_measured_shows_where_nothing_was_compiled(tmp_path):
    place = made(tmp_path)
    measured(place, 4)
    drawn = table(place)
    assert not (tmp_path / "preflight").exists()
    assert column(drawn)[3:5] == ["3,309", "5,554"]
    assert column(drawn)[0] == "–", "of its train step nothing is known"
    assert list(drawn.data[f"measured_{POD}"]) == [False] * 3 + [True] * 2 + [False] * 5


def test_what_was_measured_elsewhere_is_no_measure(tmp_path):
    place = made(tmp_path)
    preflighted(place)
    measured(place, 4, topology="v5e:8x16")
    assert column(table(place))[3] == "≥ 753"


def test_a_table_of_measured_rows_speaks_of_no_bound(tmp_path):
    place = made(tmp_path)
    only = dataclasses.replace(table2.STUDY, rows=table2.STUDY.rows[3:4])
    preflighted(place)
    measured(place, 4)
    assert table(place, only).caption.endswith(
        "all seeds of a row together; without a sign: as measured on recorded runs."
    )


@pytest.mark.parametrize("kind", ["train", "evaluation"])
def test_a_program_that_does_not_fit_is_said(tmp_path, kind):
    place = made(tmp_path)
    other = {"train": "evaluation", "evaluation": "train"}[kind]
    write(place, table2.STUDY.rows[0].cell(0), kind)
    assert column(table(place))[0] == "does not fit", "whatever becomes of the other one"
    write(place, table2.STUDY.rows[0].cell(0), other, A_SECOND)
    drawn = table(place)
    assert column(drawn)[0] == "does not fit"
    assert math.isnan(drawn.data[f"core_hours_{POD}"][1])
    assert drawn.caption.endswith("all seeds of a row together.")


def test_a_program_that_the_compiler_refuses_is_not_too_large(tmp_path):
    place = made(tmp_path)
    write(place, table2.STUDY.rows[0].cell(0), "train", reason=f"{tpu_compiler.REFUSED}: what is this")
    assert column(table(place))[0] == "does not compile"


def test_a_training_without_its_evaluation_is_not_known(tmp_path):
    place = made(tmp_path)
    write(place, table2.STUDY.rows[0].cell(0), "train", A_SECOND)
    assert "core-hours" not in render.csv(table(place)), "and without a row that is, there is no column"
    write(place, table2.STUDY.rows[6].cell(0), "train")
    assert column(table(place)) == ["–"] * 6 + ["does not fit"] + ["–"] * 3


def test_slices_of_as_many_cores_have_a_column_each(tmp_path):
    place = made(tmp_path)
    preflighted(place)
    preflighted(place, topology="v5e:8x16")
    drawn = table(place)
    faster = (42_104 * 30.75e12 / 197e12 + 139 * 61.5e12 / 197e12) * 128 / 3600
    assert list(render.cells(drawn).columns)[-2:] == [f"core-hours, TPU {POD}", "core-hours, TPU v5e:8x16"]
    assert drawn.data["core_hours_v5e:8x16"][1] == pytest.approx(faster)
    assert (column(drawn)[0], column(drawn, "core-hours, TPU v5e:8x16")[0]) == ("≥ 753", "≥ 235")
    assert drawn.caption.count("Core-hours") == 1


def test_estimates_are_called_estimates(tmp_path, monkeypatch):
    monkeypatch.setattr(tpu_compiler, "installed", lambda: None)
    place = made(tmp_path)
    preflighted(place, estimated=True, compiler="XLA on the CPU")
    assert "by the counts of XLA on the CPU (an estimate) and published peaks." in table(place).caption


def test_another_version_of_the_compiler_says_nothing(tmp_path):
    place = made(tmp_path)
    preflighted(place, compiler="libtpu 0.0.1")
    assert "core-hours" not in render.csv(table(place))


@pytest.mark.parametrize("study", [table2.STUDY, table3.STUDY, figure2.STUDY])
def test_nothing_of_this_slice_leaves_a_table_as_it_was(tmp_path, study):
    before = render.render(table(made(tmp_path / "empty"), study))
    root = tmp_path / "results"
    place = made(root)
    preflighted(place, topology="v3:4x4")  # 32 cores
    for stray in ("notes", "v3-0x8", "v3-8x8-old", "v3-8x08", "v9-8x8"):
        (root / "preflight" / stray).mkdir()
    (root / "preflight" / "v5e-8x16").write_text("no folder")
    assert render.render(table(place, study)) == before
    path = write(place, study.rows[0].cell(0), "train", A_SECOND)
    path.write_text(path.read_text()[:-30])
    assert render.render(table(place, study)) == before, "a damaged file is as good as none"


def test_the_papers_tables_set_ours_beside_theirs(tmp_path):
    place = made(tmp_path)
    preflighted(place)
    for row in table3.STUDY.rows[1:2]:
        write(place, row.cell(0), "train")
    drawn = table(place, table3.STUDY)
    cells = render.cells(drawn)
    own = dict(zip(cells["ours: row"], cells[f"ours: core-hours, TPU {POD}"], strict=True))
    assert (own["1"], own["2"], own["3"]) == ("≥ 753", "does not fit", "–")
    others = cells.loc[cells["ours: row"] == "–", f"ours: core-hours, TPU {POD}"]
    assert (others == "–").all() and len(others) > 3
    assert "≥: the least that is possible" in drawn.caption
    named = drawn.data.set_index("own_row")
    assert named.loc[1, f"core_hours_{POD}"] == pytest.approx(EPOCHS_200)


def test_the_numbers_behind_figure_2_have_them_too(tmp_path):
    place = made(tmp_path)
    row = figure2.STUDY.rows[0]
    write(place, row.cell(0), "train", HALF_A_SECOND)
    write(place, row.cell(0), "evaluation", A_SECOND)
    drawn = table(place, figure2.STUDY)
    assert column(drawn, f"ours: core-hours, TPU {POD}") == ["≥ 1,315"] + ["–"] * 9
    assert drawn.caption.endswith("published peaks.")


def test_the_csv_file_has_numbers(tmp_path):
    place = made(tmp_path)
    preflighted(place)
    measured(place, 4)
    head, *lines = render.csv(table(place)).splitlines()
    names = head.split(",")[-3:]
    assert names == [f"core_hours_{POD}", f"measured_{POD}", f"obstacle_{POD}"]
    first, second, fourth = (lines[place].split(",")[-3:] for place in (0, 1, 3))
    assert (float(first[0]), first[1:]) == (pytest.approx((42_104 * 0.5 + 17_706 * 0.5) * 128 / 3600), ["0", ""])
    assert second == ["", "0", ""]
    assert fourth[1] == "1"


def test_files_of_a_study_have_the_column(tmp_path):
    place = made(tmp_path / "results")
    preflighted(place)
    plan = place.plan([table2.STUDY], range(1))
    writers.draw_each(place, plan, 1, tmp_path / "plots", 0.5)
    drawn = tmp_path / "results" / "tables" / "table2-paper.{}"
    for suffix, said in (
        ("md", "≥ 1,315"),
        ("html", "≥ 1,315"),
        ("tex", r"$\geq$ 1,315"),
        ("csv", f"core_hours_{POD}"),
    ):
        assert said in drawn.with_suffix(f".{suffix}").read_text("utf-8"), suffix


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (0.00042, "0.0004"),
        (0.001, "0.0010"),
        (0.0123, "0.012"),
        (0.996, "1.0"),
        (2.0, "2.0"),
        (9.94, "9.9"),
        (9.96, "10"),
        (99.6, "100"),
        (1_234.56, "1,235"),
    ],
)
def test_an_amount_has_two_figures_where_it_is_small(value, said):
    assert core_hours.amount(value) == said


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ((), ""),
        (("",), ""),
        (("", "needs 20.1 GB"), "does not fit"),
        (("needs 20.1 GB", "needs 20.2 GB"), "does not fit"),
        (("", f"{tpu_compiler.REFUSED}: odd"), "does not compile"),
        (("needs 20.1 GB", f"{tpu_compiler.REFUSED}: odd"), "does not compile"),
    ],
)
def test_what_is_in_the_way_of_a_run(tmp_path, reasons, said):
    place = made(tmp_path)
    cell = table2.STUDY.rows[0].cell(0)
    programs_ = programs.of_run(place.complete(cell), CORES)
    for kind, reason in zip(("train", "evaluation"), reasons, strict=False):
        write(place, cell, kind, None if reason else A_SECOND, reason=reason)
    found = [Results(tmp_path).read(POD, program.key) for program in programs_]
    assert core_hours.obstacle(one for one in found if one is not None) == said


RUN = RunCost(10.0, measured=False, obstacle="", by=frozenset({"a"}))


@pytest.mark.parametrize(
    ("runs", "row"),
    [
        ((RUN, RUN), (20.0, False, "")),
        ((RUN, dataclasses.replace(RUN, measured=True)), (20.0, False, "")),
        ((dataclasses.replace(RUN, measured=True),) * 2, (20.0, True, "")),
        ((RUN, None), (math.nan, False, "")),
        ((RUN, core_hours.UNKNOWN), (math.nan, False, "")),
        ((RUN, dataclasses.replace(core_hours.UNKNOWN, obstacle="does not fit")), (math.nan, False, "does not fit")),
        ((), (math.nan, False, "")),
    ],
)
def test_a_row_is_known_when_all_of_its_runs_are(runs, row):
    ids = {seed: f"run{seed}" for seed in range(len(runs))}
    known = {f"run{seed}": one for seed, one in enumerate(runs) if one is not None}
    (found,) = core_hours.of_rows({1: ids, 2: {0: "other"}}, {POD: {**known, "other": RUN}})
    assert tuple(found.rows.loc[1]) == pytest.approx(row, nan_ok=True)
    assert found.by == ("a",)


def test_what_is_measured_rests_on_no_compiler():
    rows = {"run1": RUN, "run2": dataclasses.replace(RUN, measured=True, by=frozenset({"b"}))}
    (found,) = core_hours.of_rows({1: {0: "run1"}, 2: {0: "run2"}}, {POD: rows})
    assert (found.by, found.bounded, found.measured) == (("a",), True, True)


def test_a_slice_of_which_no_row_is_known_is_left_out():
    assert core_hours.of_rows({1: {0: "a"}}, {POD: {"a": core_hours.UNKNOWN}}) == ()
    assert core_hours.of_rows({1: {0: "a"}}, {}) == ()


ALONE = """
import sys
from pathlib import Path
from tests.accelerators import test_core_hours as own
own.tpu_compiler.installed = lambda: own.BY
shown = own.table(own.made(Path(sys.argv[1])))
print(*own.column(shown)[:1] if shown.data.columns[-1].startswith("obstacle") else [])
heavy = {"tensorflow", "tf_keras", "official", "jax", "libtpu", "harness.cli.preflighting", "harness.accelerators.gate"}
print(*sorted((heavy | {"harness.accelerators.compilation"}) & set(sys.modules)))
"""


def test_a_table_loads_neither_tensorflow_nor_what_compiles(tmp_path):
    preflighted(made(tmp_path / "compiled"))
    for folder, said in (("compiled", ["≥ 753", ""]), ("empty", ["", ""])):
        done = subprocess.run(
            [sys.executable, "-c", ALONE, str(tmp_path / folder)], cwd=Path(__file__).parents[2], capture_output=True,
            text=True, timeout=120, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines() == said
