"""Records that no run came to: of four videos, on a data set that is nowhere."""

from harness.store.records import Evaluation, RunRecord

IDENTITY = "0123456789abcdef" * 4


def evaluation(protocol="10x3@32", **others):
    """An evaluation under a protocol; others are fields of it."""
    values = {
        "clips": 10,
        "crops": 3,
        "size": 32,
        "videos": 4,
        "videos_in_split": 4,
        "top1": 0.5,
        "top5": 1.0,
        "loss": 1.25,
        "checkpoint": "ckpt-2",
        "seconds": 1.0,
        "predictions": f"predictions-{protocol}.parquet",
        "predictions_sha256": "0" * 64,
        "provenance": {},
    }
    return Evaluation(protocol=protocol, **(values | others))


def record(identity=IDENTITY, *evaluations):
    """A record of those evaluations, or of one."""
    return RunRecord(
        identity=identity,
        profile="quick",
        toggles={"ls": 0.1},
        scale={"depth": 50},
        seed=0,
        settings={"task.train_data.feature_shape[0]": 8, "task.train_data.global_batch_size": 32},
        bookkeeping={},
        identity_content={"clips_per_group": 16},
        data={"name": "embedded", "fingerprint": "ab" * 32},
        cut={},
        parent=None,
        cost={"params": 10, "multiply_adds": 20, "train_steps": 2, "train_seconds": 1.5},
        curve=({"split": "train", "step": 1, "loss": 2.0},),
        evaluations={one.protocol: one for one in evaluations or (evaluation(),)},
        provenance={"device": "1 x CPU"},
    )
