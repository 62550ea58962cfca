"""Table 1 must be the paper's, and that of the network that the Garden builds from the same settings."""

import dataclasses
import io
import re

import pandas as pd
import pytest

from ablations.profiles import PAPER, QUICK
from ablations.toggles import DEPTH, DSTEM, EP, FRAMES, LS, RA, RESOLUTION, SD, SE, SJ, WD
from harness.config import experiment
from harness.config.experiment import DatasetInfo
from harness.config.studies import Cell
from harness.reporting import architecture_table, render

KINETICS = DatasetInfo("kinetics400", 400, 215_570, 17_706, "ab" * 32)
RS = (LS.at(), SD.at(), WD.at(), EP.at(), SJ.at(), SE.at(), DSTEM.at())
# The paper's Table 1, typed from its page: stage, output size, operations, repetitions. A stroke is an underline there.
PAPER_TABLE = [
    ("Video clip", "32×224²", "–", ""),
    ("Input", "16×224²", "Downsample", ""),
    ("Stem", "8×112²", "5×3², 32 / 2×2²", ""),
    ("", "", "1×3², 32", ""),
    ("", "", "1×3², 64", ""),
    ("Pool", "8×56²", "1×3² / 1×2²", ""),
    ("C2", "8×56²", "1×1², 64", "×3"),
    ("", "", "1×3², 64", ""),
    ("", "", "1×1², 256", ""),
    ("", "", "SE-SG-SD", ""),
    ("C3", "8×28²", "1×1², 128", "×4"),
    ("", "", "1×3², 128 / 1×2²", ""),
    ("", "", "1×1², 512", ""),
    ("", "", "SE-SG-SD", ""),
    ("C4", "8×14²", "3×1², 256", "×6"),
    ("", "", "1×3², 256 / 1×2²", ""),
    ("", "", "1×1², 1024", ""),
    ("", "", "SE-SG-SD", ""),
    ("C5", "8×7²", "3×1², 512", "×3"),
    ("", "", "1×3², 512 / 1×2²", ""),
    ("", "", "1×1², 2048", ""),
    ("", "", "SE-SG-SD", ""),
    ("Head", "1×1²", "Ave Pool", ""),
    ("", "", "DropOut", ""),
    ("", "", "FC, 400", ""),
]
CASES = {
    "R3D-50": (PAPER, ()),
    "R3D-RS-50": (PAPER, RS),
    "R3D-RS-200, 48 frames": (PAPER, (*RS, DEPTH.at(200), FRAMES.at(48), RA.at())),
    "R3D-RS-50, resolution 256": (PAPER, (*RS, RESOLUTION.at(256))),
    "quick R3D-50": (QUICK, ()),
    "quick R3D-RS-200, 64 frames": (QUICK, (*RS, DEPTH.at(200), FRAMES.at(64))),
    "quick R3D-RS-300, resolution 288": (QUICK, (*RS, DEPTH.at(300), RESOLUTION.at(288))),
}


def planned(*applied, profile=PAPER):
    return experiment.complete(Cell(applied), profile, KINETICS, replicas=1)


def changed(run, **settings):
    return dataclasses.replace(run, settings={**run.settings, **settings})


def table(*applied, profile=PAPER):
    return architecture_table.architecture(planned(*applied, profile=profile))


def operations(made, stage):
    cells = render.cells(made)
    return list(cells.loc[made.data["stage"] == stage, "operations"])


def test_it_is_the_papers_table_1():
    made = table(*RS)
    assert [tuple(line) for line in render.cells(made).to_numpy()] == PAPER_TABLE
    assert (made.name, made.title) == ("table1", "Architecture of R3D-RS-50 (paper profile)")


def test_the_baseline_has_one_convolution_in_its_stem_and_no_se():
    assert operations(table(), "Stem") == ["5×7², 64 / 2×2²"]
    assert operations(table(), "C3")[-1] == "SG"
    assert "SE:" not in table().caption and "SG:" in table().caption and "SD:" not in table().caption


@pytest.mark.parametrize(
    ("applied", "modules"),
    [((SE.at(),), "SE-SG"), ((SD.at(),), "SG-SD"), ((SD.at(), SE.at()), "SE-SG-SD"), ((SE.at(0.0),), "SG")],
)
def test_modules_are_those_that_are_on(applied, modules):
    assert operations(table(*applied), "C2")[-1] == modules


def test_without_any_module_there_is_no_line_for_them():
    run = planned()
    spec = {"temporal_strides": 1, "temporal_kernel_sizes": [1], "use_self_gating": False}
    plain = {f"task.model.backbone.resnet_3d_rs.block_specs[{stage}]": spec for stage in range(4)}
    made = architecture_table.architecture(changed(run, **plain, **{"task.model.dropout_rate": 0.0}))
    assert operations(made, "C4") == ["1×1², 256", "1×3², 256 / 1×2²", "1×1², 1024"]
    assert operations(made, "Head") == ["Ave Pool", "FC, 400"]


@pytest.mark.parametrize(
    ("frames", "clip", "seen"), [(32, 32, 16), (48, 48, 24), (64, 64, 32), ("32x2", 64, 32), ("48x2", 96, 48)]
)
def test_a_clip_is_twice_what_the_network_sees(frames, clip, seen):
    data = table(*RS, FRAMES.at(frames)).data.set_index("stage")
    assert (data.loc["Video clip", "frames"], data.loc["Input", "frames"]) == (clip, seen)


@pytest.mark.parametrize(
    ("profile", "applied", "title"),
    [
        (PAPER, (SE.at(), DSTEM.at(), DEPTH.at(200)), "R3D-RS-200 (paper profile)"),
        (PAPER, (DEPTH.at(101),), "R3D-101 (paper profile)"),
        (PAPER, (SE.at(),), "R3D-50 with SE (paper profile)"),
        (PAPER, (DSTEM.at(),), "R3D-50 with D-stem (paper profile)"),
        (QUICK, RS, "the 14 layers that stand in for R3D-RS-50 (quick profile)"),
    ],
)
def test_title_names_the_network(profile, applied, title):
    assert table(*applied, profile=profile).title == f"Architecture of {title}"


# The paper's own networks take ten seconds each to build; the stand-ins are made of the same blocks.
@pytest.mark.parametrize("case", ["R3D-RS-50", *(case for case in CASES if case.startswith("quick"))])
def test_it_is_the_network_that_the_garden_builds(case):
    import tensorflow as tf
    import tf_keras
    from official.vision.modeling.layers import nn_blocks_3d
    from official.vision.tasks import video_classification

    from harness.training import garden_config

    profile, applied = CASES[case]
    run = planned(*applied, profile=profile)
    network = video_classification.VideoClassificationTask(
        garden_config.build(run.settings, run.bookkeeping).task
    ).build_model()
    data = architecture_table.architecture(run).data

    def convolutions(rows):
        return [
            (int(row.filters), (int(row.kernel_time), *[int(row.kernel_space)] * 2),
             (int(row.stride_time), *[int(row.stride_space)] * 2)) for row in rows.itertuples()
        ]  # fmt: skip

    def built(layers):
        return [(layer.filters, layer.kernel_size, layer.strides) for layer in layers]

    stem = [layer for layer in network.backbone.layers if isinstance(layer, tf_keras.layers.Conv3D)]
    assert convolutions(data[data["stage"] == "Stem"]) == built(stem)
    (pool,) = [layer for layer in network.backbone.layers if isinstance(layer, tf_keras.layers.MaxPool3D)]
    row = data[data["stage"] == "Pool"].iloc[0]
    assert (row["kernel_time"], row["kernel_space"], row["kernel_space"]) == pool.pool_size
    assert (row["stride_time"], row["stride_space"], row["stride_space"]) == pool.strides

    shape = [run.settings[f"task.train_data.feature_shape[{axis}]"] for axis in range(4)]
    traced = tf.function(network.backbone).get_concrete_function(tf.TensorSpec([1, *shape], tf.float32))
    blocks = iter(layer for layer in network._flatten_layers() if isinstance(layer, nn_blocks_3d.BottleneckBlock3D))
    for stage in range(2, 6):
        rows = data[data["stage"] == f"C{stage}"]
        own = [next(blocks) for _ in range(int(rows["blocks"].iloc[0]))]
        first = [own[0]._temporal_conv, own[0]._spatial_conv, own[0]._expand_conv]
        assert convolutions(rows[rows["operation"] == "convolution"]) == built(first)
        assert {(b._temporal_conv.kernel_size, b._filters) for b in own} == {(first[0].kernel_size, own[0]._filters)}
        gated = [bool(block._use_self_gating) for block in own]
        assert gated == [False] * (len(own) - 1) + [True]
        modules = rows.loc[rows["operation"] == "modules"].iloc[0]
        assert ("SE" in modules["modules"]) == bool(own[0]._se_ratio)
        rates = [block._stochastic_depth_drop_rate or 0.0 for block in own]
        assert rates == pytest.approx([modules["amount"]] * len(own))
        assert ("SD" in modules["modules"]) == (rates[0] > 0)
        size = traced.structured_outputs[str(stage)].shape
        assert tuple(size)[1:4] == (rows["frames"].iloc[0], *[rows["size"].iloc[0]] * 2)
    assert next(blocks, None) is None


@pytest.mark.parametrize("case", CASES)
def test_every_format_shows_it_and_the_file_holds_its_numbers(case):
    profile, applied = CASES[case]
    made = table(*applied, profile=profile)
    texts = render.render(made)
    assert set(texts) == set(render.SUFFIXES)
    for suffix in ("md", "html", "csv"):
        assert not re.search(r"\bnan\b", texts[suffix])
    back = pd.read_csv(io.StringIO(texts["csv"]), index_col="line", keep_default_na=True)
    for column in ("frames", "size", "kernel_time", "kernel_space", "stride_time", "stride_space", "filters", "amount"):
        assert back[column].astype(float).equals(made.data[column].astype(float))


def test_in_latex_a_stride_is_an_underline():
    text = render.render(table(*RS))["tex"]
    assert r"& \underline{5}$\times$\underline{3}$^2$, 32 &" in text
    assert r"& 1$\times$\underline{3}$^2$ &" in text
    assert text.count(r"1$\times$\underline{3}$^2$, ") == 3
    assert text.count(r"\addlinespace") == 8
    assert " / " not in text and "underlined" in text and "stroke" not in text


def test_a_stride_that_is_not_2_keeps_its_stroke():
    run = planned()
    field = "task.model.backbone.resnet_3d_rs.stem_conv_temporal_stride"
    text = render.render(architecture_table.architecture(changed(run, **{field: 4})))["tex"]
    assert r"5$\times$7$^2$, 64 / 4$\times$2$^2$" in text
