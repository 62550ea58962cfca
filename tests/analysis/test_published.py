"""The published numbers must agree with one another, with the paper's text, and with cells typed a second time."""

import csv
import importlib.resources
import io

import numpy as np
import pandas as pd
import pytest

from ablations.toggles import TABLE_2
from harness.analysis import published

# The difference of two numbers printed to 0.1; anything closer is floating-point noise.
TENTH = {"rel": 0, "abs": 1e-6}
TOGGLES = [toggle.key for toggle in TABLE_2]
ROWS = {"table2": 10, "table3": 13, "table4": 7, "table5": 12, "table6": 5, "figure1": 8, "figure2": 10}
NUMBERS = {
    "row", "depth", "frames", "resolution", *TOGGLES,
    "gflops", "clips", "crops", "params_m", "top1", "top5", "delta", "gain",
}  # fmt: skip


def cell(name: str, by: str, label: str, column: str) -> float:
    """Returns the one cell of `column` whose row has `label` in the column `by`."""
    frame = published.load(name)
    (value,) = frame.loc[frame[by] == label, column]
    return float(value)


def resource(filename: str) -> str:
    return importlib.resources.files("ablations.published").joinpath(filename).read_text(encoding="utf-8")


def test_names_are_the_csv_files():
    files = importlib.resources.files("ablations.published").iterdir()
    assert published.names() == tuple(sorted(ROWS))
    assert {file.name for file in files if file.name.endswith(".csv")} == {f"{name}.csv" for name in ROWS}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_frame_holds_every_cell_of_the_file(name):
    head, *body = csv.reader(io.StringIO(resource(f"{name}.csv")))
    frame = published.load(name).reset_index()
    assert list(frame.columns) == head
    assert [len(line) for line in body] == [len(head)] * ROWS[name]
    for line, (_, row) in zip(body, frame.iterrows(), strict=True):
        for column, text in zip(head, line, strict=True):
            if text == "":
                assert np.isnan(row[column])
            else:
                assert row[column] == (float(text) if column in NUMBERS else text)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_numbers_are_numeric_and_in_range(name):
    frame = published.load(name)
    assert frame.index.name == "row"
    assert frame.index.dtype.kind == "i"
    numbers = frame[[column for column in frame if column in NUMBERS]]
    assert all(dtype.kind in "if" for dtype in numbers.dtypes)
    assert np.isfinite(numbers.to_numpy(dtype=float)[numbers.notna().to_numpy()]).all()
    assert frame["top1"].dropna().between(60, 90).all()
    assert (numbers.drop(columns=[*TOGGLES, "delta"], errors="ignore").stack().dropna() > 0).all()


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_table_has_its_provenance(name):
    source = published.source(name)
    assert set(source) - {"said"} == {"title", "table", "dataset", "protocol", "caption", "notes"}
    assert all(isinstance(note, str) and note for note in source["notes"])
    assert all(source[key] for key in source)
    assert source["title"] == published.source("table2")["title"]
    assert source["table"].lower().startswith(f"{name[:-1]} {name[-1]};")


@pytest.mark.parametrize(
    ("name", "row", "column", "value"),
    [
        ("table2", 1, "top1", 74.4),
        ("table2", 3, "delta", 1.2),
        ("table2", 8, "gflops", 58),
        ("table2", 10, "top1", 81.0),
        ("table3", 2, "params_m", 32.8),
        ("table3", 7, "clips", 3),
        ("table3", 7, "gflops", 455),
        ("table3", 11, "params_m", 114.9),
        ("table3", 12, "top5", 94.4),
        ("table4", 5, "params_m", 52.9),
        ("table4", 5, "clips", 5),
        ("table4", 6, "gflops", 205),
        ("table4", 7, "top1", 83.8),
        ("table5", 1, "gflops", 4218),
        ("table5", 5, "crops", 5),
        ("table5", 10, "gflops", 3891),
        ("table5", 12, "top1", 84.3),
        ("table6", 1, "top1", 66.1),
        ("table6", 5, "depth", 270),
        ("figure1", 3, "gflops", 234),
        ("figure1", 8, "top1", 81.0),
        ("figure2", 5, "top1", 79.9),
        ("figure2", 6, "top1", 79.7),
        ("figure2", 7, "frames", 48),
        ("figure2", 10, "resolution", 288),
    ],
)
def test_cells_typed_a_second_time(name, row, column, value):
    assert published.load(name).loc[row, column] == value


@pytest.mark.parametrize(
    ("name", "column", "total"),
    [
        ("table3", "gflops", 16630),
        ("table3", "clips", 836),
        ("table3", "crops", 261),
        ("table3", "params_m", 6821.5),
        ("table3", "top1", 7226.0),
        ("table3", "top5", 7320.4),
        ("table4", "gflops", 6064),
        ("table4", "clips", 235),
        ("table4", "crops", 66),
        ("table4", "params_m", 2178.4),
        ("table4", "top1", 2328.2),
        ("table5", "gflops", 147253),
        ("table5", "clips", 480),
        ("table5", "crops", 264),
        ("table5", "top1", 6566.2),
    ],
)
def test_checksums_of_the_columns_nothing_else_pins(name, column, total):
    # Row number times value, summed over a transcript of the paper made apart from these files: it notices a mistyped
    # digit and two swapped rows alike.
    values = published.load(name)[column]
    assert (values.index * values).sum() == pytest.approx(total, **TENTH)


@pytest.mark.parametrize(
    ("name", "holes"),
    [
        (
            "table2",
            {(row, "model") for row in range(2, 8)} | {(1, "delta"), (9, "delta")},
        ),
        (
            "table3",
            {(row, column) for row in range(1, 8) for column in ("depth", "frames")} | {(3, "params_m"), (13, "top5")},
        ),
        (
            "table4",
            {(row, column) for row in range(1, 6) for column in ("depth", "frames")} | {(1, "params_m")},
        ),
        (
            "table5",
            {(row, column) for row in range(1, 13) for column in ("depth", "frames", "gain")}
            - {(row, column) for row in (7, 12) for column in ("depth", "frames", "gain")},
        ),
        ("table6", {(1, "delta")}),
        ("figure1", set()),
        (
            "figure2",
            {(5, "gflops"), (6, "gflops")}
            | {(row, column) for row in (8, 9, 10) for column in ("depth", "gflops", "top1")},
        ),
    ],
)
def test_what_the_paper_does_not_print_is_nan_and_nothing_else_is(name, holes):
    missing = published.load(name).isna().stack()
    assert set(missing[missing].index) == holes


def test_gains_are_differences_to_the_same_model_from_scratch():
    scratch = {7: published.load("table3").loc[13, "top1"], 12: published.load("table4").loc[7, "top1"]}
    frame = published.load("table5")
    for row, before in scratch.items():
        assert frame.loc[row, "gain"] == pytest.approx(frame.loc[row, "top1"] - before, **TENTH)


@pytest.mark.parametrize("name", ["table2", "table6"])
def test_deltas_are_differences_to_the_row_above(name):
    frame = published.load(name)
    said = frame["delta"].dropna()
    assert list(said) == pytest.approx(list(frame["top1"].diff()[said.index]), **TENTH)


def test_table2_adds_one_toggle_a_row_in_the_order_of_its_columns():
    frame = published.load("table2")
    assert [column for column in frame if column in TOGGLES] == TOGGLES
    on = frame[TOGGLES].to_numpy()
    assert np.isin(on, [0, 1]).all()
    assert (on[:8] == np.tri(8, 8, k=-1, dtype=int)).all()
    assert (np.diff(on[7:], axis=0) == [[0] * 8, [0] * 7 + [1]]).all()


@pytest.mark.parametrize(
    ("in_table3", "in_figure1"),
    [
        ("R3D-50 (baseline)", "R3D-50"),
        ("SlowFast-16x8, R101", "SlowFast-16x8, R101"),
        ("SlowFast-16x8, R101+NL", "SlowFast-16x8, R101+NL"),
        ("R3D-RS-50", "R3D-RS-50"),
        ("R3D-RS-101", "R3D-RS-101"),
        ("R3D-RS-152", "R3D-RS-152"),
        ("R3D-RS-200", "R3D-RS-200"),
        ("R3D-RS-200 + RA (48 frames)", "R3D-RS-200*"),
    ],
)
@pytest.mark.parametrize("column", ["gflops", "top1"])
def test_figure1_draws_table3(in_table3, in_figure1, column):
    assert cell("figure1", "model", in_figure1, column) == cell("table3", "model", in_table3, column)


@pytest.mark.parametrize("depth", [50, 101, 152, 200])
@pytest.mark.parametrize("column", ["depth", "frames", "gflops", "top1"])
def test_figure2_scales_the_depths_of_table3(depth, column):
    assert cell("figure2", "label", f"RS-{depth}", column) == cell("table3", "model", f"R3D-RS-{depth}", column)
    assert cell("figure2", "label", f"RS-{depth}", "depth") == depth


@pytest.mark.parametrize(("row", "other"), [(1, 8), (8, 9), (10, 13)])
@pytest.mark.parametrize("column", ["depth", "frames", "gflops", "top1"])
def test_table2_and_table3_agree(row, other, column):
    assert published.load("table2").loc[row, column] == published.load("table3").loc[other, column]


@pytest.mark.parametrize("column", ["depth", "frames", "gflops", "top1"])
def test_48_frames_without_randaugment_is_the_same_in_table2_and_figure2(column):
    assert cell("figure2", "label", "RS-200@f48", column) == published.load("table2").loc[9, column]


@pytest.mark.parametrize(
    ("after", "before", "column", "said"),
    [
        # Section 4.2: the baseline to R3D-RS-50, and R3D-RS-50 to R3D-RS-200, top-1 and top-5 each.
        (("table3", 9), ("table3", 8), "top1", 3.8),
        (("table3", 9), ("table3", 8), "top5", 2.7),
        (("table3", 12), ("table3", 9), "top1", 2.2),
        (("table3", 12), ("table3", 9), "top5", 0.7),
        # Figure 1's caption: the scaling method.
        (("figure1", 8), ("figure1", 4), "top1", 2.8),
        # Section 4.4: RS-270, RS-300 and 48 frames, all against RS-200.
        (("figure2", 5), ("figure2", 4), "top1", -0.5),
        (("figure2", 6), ("figure2", 4), "top1", -0.7),
        (("figure2", 7), ("figure2", 4), "top1", 0.3),
        # Section 4.5: pre-training, on Kinetics-400 and Kinetics-600.
        (("table5", 7), ("table3", 13), "top1", 2.5),
        (("table5", 12), ("table4", 7), "top1", 0.5),
    ],
)
def test_differences_that_the_text_states(after, before, column, said):
    (name, row), (base, base_row) = after, before
    difference = published.load(name).loc[row, column] - published.load(base).loc[base_row, column]
    assert difference == pytest.approx(said, **TENTH)


@pytest.mark.parametrize("name", ["table3", "table4", "table5"])
def test_models_of_the_paper_are_evaluated_with_30_views(name):
    frame = published.load(name)
    ours = frame[frame["family"] == "ours"]
    assert set(frame["family"]) == {"ours", "other"}
    assert ours["model"].str.startswith("R3D").all()
    assert not frame.loc[frame["family"] == "other", "model"].str.startswith("R3D").any()
    assert (ours["clips"] == 10).all()
    assert (ours["crops"] == 3).all()


def test_table5_covers_both_data_sets():
    frame = published.load("table5")
    assert frame["dataset"].value_counts().to_dict() == {"Kinetics-400": 7, "Kinetics-600": 5}
    assert set(frame["pretrain"]) == {"ImageNet-21K", "JFT", "WVT"}


def test_figure2_says_of_every_row_where_it_comes_from():
    frame = published.load("figure2")
    drawn = frame["source"].str.startswith("only drawn in the picture")
    assert frame["source"].notna().all()
    pd.testing.assert_series_equal(drawn, frame["top1"].isna(), check_names=False)


@pytest.mark.parametrize("function", [published.load, published.source])
@pytest.mark.parametrize("name", ["table1", "Table2", "", "../table2"])
def test_unknown_name_lists_the_known_ones(function, name):
    with pytest.raises(ValueError, match="unknown published table") as caught:
        function(name)
    message = str(caught.value)
    assert repr(name) in message
    assert all(known in message for known in ROWS)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,top1\n1,high\n", "column 'top1' must hold numbers or nothing, not 'high'"),
        ("row,top1\n1,NaN\n", "column 'top1' must hold numbers or nothing, not 'NaN'"),
        ("row,top1\n1,74.4\n3,74.9\n", "column 'row' must count 1, 2, ..., 2"),
        ("row,top1\n1,74.4\n,74.9\n", "column 'row' must count 1, 2, ..., 2"),
        ("model,top1\nR3D-50,74.4\n", "column 'row' must count 1, 2, ..., 1"),
        # A comma without its quotes shifts the cells.
        ("row,model,top1\n1,MViT-B, 32x3,80.2\n", "column 'row' must hold numbers or nothing, not 'MViT-B'"),
    ],
)
def test_malformed_file_is_refused(text, message):
    with pytest.raises(ValueError) as caught:
        published.parse("table2", text)
    assert str(caught.value) == f"table2: {message}"


def test_a_caller_cannot_change_what_the_next_one_reads():
    frame = published.load("table2")
    frame.loc[1, "top1"] = 0.0
    published.source("table2")["notes"].clear()
    assert published.load("table2").loc[1, "top1"] == 74.4
    assert published.source("table2")["notes"]
