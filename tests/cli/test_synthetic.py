"""Made-up runs are read like real ones, and are those that the studies want."""

import numpy as np
import pytest

from harness.cli import synthetic
from harness.config import network
from harness.store.run_store import Store
from tests.reporting.test_sections import SHORT, made


def test_they_are_the_runs_that_the_study_wants(tmp_path):
    own = made(tmp_path)
    written = synthetic.write_synthetic(own, [SHORT], 7)
    plan = own.plan([SHORT], range(3))
    wanted = plan.wanted["table2"]
    # By hand: three rows in turns, seed by seed.
    assert written == [wanted[row][seed] for seed, row in [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1)]]
    assert [one.done for one in plan.runs].count(True) == 7
    assert plan.faulty == ()


def test_a_records_accuracy_is_that_of_its_predictions(tmp_path):
    own = made(tmp_path)
    store = Store(tmp_path)
    for run_id in synthetic.write_synthetic(own, [SHORT], 3):
        record = store.checked(run_id)
        table = store.predictions(record, "10x3@32")
        hits = np.array([list(row) for row in table["top_class"]]) == table["label"].to_numpy()[:, None]
        assert record.evaluations["10x3@32"].top1 == hits[:, 0].mean()
        assert record.evaluations["10x3@32"].top5 == hits.any(axis=1).mean()
        assert 0.4 < hits[:, 0].mean() < 1
        assert record.cost["params"] == network.count(record.settings).params


def test_a_folder_that_is_there_is_not_written_to(tmp_path):
    with pytest.raises(FileExistsError):
        synthetic.results(tmp_path)
