"""Weights that cannot fit are refused before anything is begun; what may fit is not."""

import pytest
from click.testing import CliRunner

from ablations import table5, table6
from ablations.profiles import PAPER, QUICK
from ablations.stages import CVRL, FINETUNE, LINEAR, PRETRAIN
from ablations.toggles import DEPTH, DSTEM, LS, RA, SD, SE, WD
from harness import train
from harness.cli import synthetic
from harness.config import experiment
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides, SettingsError
from harness.config.stages import Stage
from harness.config.studies import Cell, Row, Study
from harness.data import embedded
from harness.planning import checks, workspace
from harness.store.run_store import Store

FACTS = DatasetInfo("d", 8, 64, 16, "ab" * 32)
OTHER = DatasetInfo("o", 9, 64, 16, "cd" * 32)


def settings(*applied, stages=(), profile=QUICK, facts=FACTS):
    return experiment.complete(Cell(applied, 0, stages), profile, facts, replicas=1).settings


@pytest.mark.parametrize("profile", [QUICK, PAPER], ids=["quick", "paper"])
@pytest.mark.parametrize(
    ("applied", "said"),
    [
        ((DEPTH.at(101),), "network.blocks[2] "),
        ((DSTEM.at(),), "stem_type 'v0' instead of 'v1'"),
        ((SE.at(),), "se_ratio 0.0 instead of 0.25"),
        ((SE.at(), DSTEM.at(), DEPTH.at(270)), "network.blocks[2] "),
    ],
)
def test_another_network_is_told_by_what_decides_its_weights(profile, applied, said):
    head = {"stages": (LINEAR,), "profile": profile}
    found = checks.misfit(settings(profile=profile, stages=(CVRL,)), settings(*applied, SD.at(), **head))
    assert found.startswith("its network is another, ")
    assert said in found
    assert found.endswith(": choose a run of the same network")
    assert "stochastic_depth" not in found
    assert "\n" not in found


def test_the_same_network_may_be_trained_otherwise():
    plain = settings()
    assert checks.misfit(plain, settings(LS.at(), SD.at(), WD.at(), RA.at())) == ""
    for first, then in ((CVRL, LINEAR), (PRETRAIN, FINETUNE)):
        assert checks.misfit(settings(SE.at(), stages=(first,), facts=OTHER), settings(SE.at(), stages=(then,))) == ""


def test_another_head_is_told_where_it_would_be_taken():
    for before in (settings(stages=(CVRL,)), settings(facts=OTHER)):
        assert "its head is another, and task.init_checkpoint_modules is 'all'" in checks.misfit(before, settings())
        assert checks.misfit(before, settings(stages=(FINETUNE,))) == ""


def place(root, profile=QUICK, *facts):
    other, target, *further = (workspace.DataSet(one, None, None, ready=True) for one in (OTHER, *(facts or (FACTS,))))
    return workspace.Workspace(
        profile,
        target,
        Overrides(),
        1,
        Store(root),
        Devices(),
        further=tuple(further),
        pre_training=other,
        repeat_short=True,
    )


@pytest.mark.parametrize("study", [table5.STUDY, table6.STUDY], ids=["table5", "table6"])
def test_the_papers_chains_fit(study, tmp_path):
    here = place(tmp_path, PAPER, *(one.facts for one in workspace.papers()))
    checks.refuse_misfits(here.plan([study], [0, 1]), here.store)


def test_a_stage_that_changes_the_network_is_refused(tmp_path):
    wider = Stage("wider", "wider", "", "", {"network.filters[3]": 96, checks.MODULES: "backbone"})
    here = place(tmp_path)
    plan = here.plan([Study("own", "", (), (Row(1, "", (), stages=(PRETRAIN, wider)),))], [0])
    with pytest.raises(SettingsError, match=r"^row 1 \(wider\): baseline: cannot start from run [0-9a-f]{8}: its netw"):
        checks.refuse_misfits(plan, here.store)


def test_a_parent_that_does_not_fit_is_refused_with_and_without_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "content_fingerprint", lambda spec: spec.name.encode().hex().ljust(64, "0"))
    study = Study("own", "", (), (Row(1, "", (), stages=(CVRL, LINEAR)),))
    first, _ = synthetic.write_synthetic(place(tmp_path), [study], 2)
    for how in (["--plan"], []):
        words = ["se", "dstem", "--depth", "101", "--parent", first, "--results", str(tmp_path), *how]
        done = CliRunner().invoke(train.main, words)
        assert done.exit_code == 2
        assert done.output == (
            f"Error: row 1: se dstem depth=101: cannot start from run {first[:8]} (self-supervised pre-training): its "
            "network is another, network.blocks[2] 1 instead of 2, se_ratio 0.0 instead of 0.25, stem_type 'v0' "
            "instead of 'v1': choose a run of the same network\n"
        )
    assert not (tmp_path / "queue.db").exists(), "nothing was tried"
