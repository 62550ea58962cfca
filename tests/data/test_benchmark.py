"""The benchmark of the reader: what it reads, what it reports."""

import concurrent.futures
import json
import multiprocessing

import pytest
from click.testing import CliRunner

from harness import benchmark
from harness.data import benchmark as benchmark_
from harness.data import reader

LINE = {"case": "training", "ours": 3.0, "garden": 2.0, "decode_only": 4.0, "vs_garden": 1.5, "vs_decode_only": 0.75}


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(benchmark_, "write_shard", lambda path: reader.Source((str(path),), (1,), 8))
    monkeypatch.setattr(benchmark_, "measure", lambda source, rounds: iter([LINE] * 3))


def test_json_is_a_list_of_what_was_measured(measured):
    found = CliRunner().invoke(benchmark.main, ["input", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == [LINE] * 3


def test_the_table_has_a_row_for_each_case(measured):
    lines = CliRunner().invoke(benchmark.main, ["input"]).stdout.splitlines()
    assert len(lines) == 5
    assert lines[2] == "| training | 3 | 2 | 4 | 1.50 | 0.75 |"


def in_short(path):
    """The benchmark on one small video."""
    benchmark_.WIDTHS, benchmark_._VIDEOS, benchmark_._EPOCH = (341,), 1, 6
    benchmark_.CASES = {case: (each, 8 if "train" in case else 1) for case, (each, _) in benchmark_.CASES.items()}
    return list(benchmark_.measure(benchmark_.write_shard(path), rounds=1))


@pytest.mark.slow  # the Garden takes its time: to build RandAugment, and to read thirty views
def test_every_case_is_read_by_all_three(tmp_path):
    # In a process of its own: the Garden's reader cannot run where another test made operations deterministic.
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        found = other.submit(in_short, tmp_path / "shard.tfrecord").result()
    assert [line["case"] for line in found] == ["training", "training with RandAugment", "30-view evaluation"]
    for line in found:
        assert set(line) == set(LINE)
        assert line["vs_garden"] == pytest.approx(line["ours"] / line["garden"])
        assert line["vs_decode_only"] == pytest.approx(line["ours"] / line["decode_only"])
