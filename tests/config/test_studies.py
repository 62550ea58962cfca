"""The studies of the paper, and those of the user: what they ask, on which data, and what they share."""

import dataclasses
import itertools

import pandas as pd
import pytest
from click.testing import CliRunner

from ablations.toggles import DEPTH, FRAMES, R3D_RS, RA, RESOLUTION
from harness import report, study
from harness.analysis import published
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides, SettingsError
from harness.config.studies import Study
from harness.config.toggles import ToggleError
from harness.planning import catalog, workspace
from harness.reporting import layouts
from harness.store.run_store import Store

PAPERS = ["table2", "table3", "table4", "figure1", "figure2"]


@pytest.fixture
def planned(tmp_path):
    def of(*names, profile="quick"):
        chosen = workspace.profile(profile)
        first, *further = workspace.papers()
        if chosen.embedded:
            first, further = workspace.data_set(None, chosen, tmp_path), []
        made = workspace.Workspace(
            chosen, first, Overrides(), chosen.replicas, Store(tmp_path), Devices(), further=tuple(further)
        )
        return made.plan([catalog.study(name) for name in names], [0])

    return of


def test_every_study_of_the_paper_is_there_and_says_what_it_is():
    assert set(PAPERS) <= set(catalog.studies())
    for name in PAPERS:
        module = __import__(f"ablations.{name}", fromlist=["__doc__"])
        for part in ("Question:", "Command:", "Cost:", "Result:", "Paper:"):
            assert part in module.__doc__, (name, part)
        layouts.layout_of(catalog.study(name))


def test_rows_answer_to_the_papers_own_models():
    for name in ("table3", "table4"):
        frame = published.load(name)
        ours = {row.published for row in catalog.study(name).rows}
        assert ours == set(frame.index[frame["family"] == "ours"])
    drawn = published.load("figure1")
    rows = {row.published: row.model for row in catalog.study("figure1").rows}
    assert rows == drawn.loc[drawn["series"] != "SlowFast", "model"].to_dict()
    assert {row.published for row in catalog.study("figure2").rows} == set(published.load("figure2").index)


@pytest.mark.parametrize("name", ["table3", "table4", "figure2"])
def test_rows_have_the_scale_that_the_paper_names(name):
    frame = published.load(name)
    for row in catalog.study(name).rows:
        own = {one.toggle.key: one.value for one in row.applied}
        for axis in (DEPTH, FRAMES, RESOLUTION):
            if axis.key in frame and not pd.isna(frame.loc[row.published, axis.key]):
                assert own.get(axis.key, axis.default) == frame.loc[row.published, axis.key]


def test_studies_share_their_runs(planned):
    # By hand: Table 3 has six runs, Figure 1 the same; Table 4 shares one with Table 3 on one data set; Figure 2 has
    # ten, four of them Table 3's and one Table 4's.
    found = planned("table3", "table4", "figure1", "figure2")
    assert (found.count, len(found.runs), found.shared) == (24, 12, 12)
    shared = next(one for one in found.runs if "figure2 4" in one.rows)
    assert set(shared.rows) == {"table3 5", "table4 1", "figure1 5", "figure2 4"}


def test_on_the_papers_data_table_4_shares_nothing(planned):
    found = planned(*PAPERS, profile="paper")
    assert {one.run.data.name for one in found.runs if any("table4" in row for row in one.rows)} == {"Kinetics-600"}
    by_name = {name: {one.run.id for one in found.runs if any(row.startswith(name) for row in one.rows)}
               for name in PAPERS}  # fmt: skip
    for other in set(PAPERS) - {"table4"}:
        assert not by_name["table4"] & by_name[other]
    assert by_name["figure1"] == by_name["table3"]
    assert len(by_name["table2"] & by_name["table3"]) == 3
    for one, other in itertools.combinations(found.runs, 2):
        assert one.run.identity != other.run.identity


def test_the_published_sizes_and_costs_are_met(planned):
    for name in ("table3", "table4"):
        frame, found = published.load(name), planned(name, profile="paper")
        for row in catalog.study(name).rows:
            one = next(one for one in found.runs if str(row.number) in one.rows)
            assert round(one.params / 1e6, 1) == frame.loc[row.published, "params_m"]
            assert one.multiply_adds / 1e9 == pytest.approx(frame.loc[row.published, "gflops"], rel=0.01)


def test_figure_2_differs_from_its_neighbours_by_one_axis():
    rows = {row.number: row for row in catalog.study("figure2").rows}
    for row in rows.values():
        if row.follows is not None:
            changed = set(row.applied) ^ set(rows[row.follows].applied)
            assert len({one.toggle.key for one in changed}) == 1, row


def test_resolutions_may_share_a_study_that_says_so(planned):
    found = planned("figure2")
    found.refuse_mixed_protocols()
    assert set(found.protocols.values()) == {"10x3@32", "10x3@36", "10x3@40"}


def data(name, classes):
    return workspace.DataSet(DatasetInfo(name, classes, 100, 50, name * 4), None, None, ready=True)


def assigned(sets, *names):
    first, *further = sets
    profile = workspace.profile("paper")
    made = workspace.Workspace(profile, first, Overrides(), 128, Store("nowhere"), Devices(), further=tuple(further))
    return {name: one.facts.name for name, one in made.assigned([catalog.study(name) for name in names]).items()}


def test_each_study_takes_the_data_set_with_as_many_classes_as_its_own():
    both = [data("six", 600), data("four", 400)]
    assert assigned(both, "table3", "table4") == {"table3": "four", "table4": "six"}
    assert assigned([data("mine", 101)], "table3", "figure2") == {"table3": "mine", "figure2": "mine"}


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([("four", 400)], "table4: is asked on Kinetics-600, 600 classes; none of --data has as many: four (400"),
        ([("a", 400), ("b", 400), ("c", 600)], "table3: is asked on Kinetics-400, 400 classes; several of --data"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(sets, said):
    with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
        assigned([data(*one) for one in sets], "table3", "table4")


OWN = """
from ablations.toggles import DSTEM, TABLE_2
from harness.config.studies import Row, Study

STUDY = Study("stems", "What does the stem add?", TABLE_2, (Row(1, "", ()), Row(2, "", (DSTEM.at(),), follows=1)))
"""


def test_a_study_of_the_users_is_planned_by_its_path(tmp_path):
    file = tmp_path / "stems.py"
    file.write_text(OWN)
    found = CliRunner().invoke(study.main, [str(file), "--plan", "--results", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "What does the stem add?: 2 rows, profile quick." in found.output
    assert "Wanted 2 runs" in found.output


def test_a_users_study_may_not_take_a_name_that_there_is(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN.replace('"stems"', '"table3"'))
    with pytest.raises(ToggleError, match="the name 'table3' is taken by"):
        catalog.study(str(file))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table9"], "unknown study 'table9': did you mean table"),
        (["nope.py"], "nope.py: no such file"),
        ([], "name a study, such as table3"),
        (["table3", "--profile", "nope", "--plan"], "unknown profile 'nope'"),
        (["table3", "--seeds", "0"], "0 is not in the range"),
    ],
)
def test_what_there_is_not_is_one_line(tmp_path, arguments, said):
    found = CliRunner().invoke(study.main, [*arguments, "--results", str(tmp_path)])
    assert found.exit_code == 2
    assert said in found.output


def test_a_file_without_a_study_is_refused(tmp_path):
    file = tmp_path / "empty.py"
    file.write_text("X = 1\n")
    with pytest.raises(ToggleError, match="defines no STUDY"):
        catalog.study(str(file))
    file.write_text("raise ValueError('broken')\n")
    with pytest.raises(ToggleError, match="ValueError: broken"):
        catalog.study(str(file))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "follows=1",
            'follows=1, dataset="Kinetics-500"',
            "stems, row 2: dataset 'Kinetics-500': did you mean Kinetics-",
        ),
        ("follows=1),)", 'follows=1),), dataset="K400"', "stems: dataset 'K400': "),
        ("follows=1),)", 'follows=1),), stand_in="embeded"', "stems: stand_in 'embeded': did you mean embedded"),
    ],
)
def test_data_sets_that_there_are_not_are_refused_when_a_study_is_loaded(tmp_path, old, new, said):
    file = tmp_path / "stems.py"
    file.write_text(OWN.replace("follows=1))", "follows=1),)").replace(old, new))
    for command, words in ((study.main, [str(file), "--plan"]), (report.main, [str(file)])):
        found = CliRunner().invoke(command, [*words, "--results", str(tmp_path)])
        assert found.exit_code == 2
        assert f"stems.py: {said}" in found.output
        assert "Traceback" not in found.output


def test_a_layout_that_there_is_not_is_refused():
    with pytest.raises(ToggleError, match="layout 'pie'"):
        layouts.layout_of(Study("s", "", (), (), layout="pie"))
    of_none = dataclasses.replace(catalog.study("table3"), published=None)
    assert layouts.layout_of(of_none)


def test_the_recipe_is_table_2s_without_randaugment():
    assert [one.toggle.key for one in R3D_RS] == ["ls", "sd", "wd", "ep", "sj", "se", "dstem"]
    assert RA.at() not in R3D_RS
    assert catalog.study("table2").rows[7].applied == R3D_RS
