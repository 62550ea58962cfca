"""A harness for ablation and scaling studies of video models on the TensorFlow Model Garden.

A file of your own needs no more than this module and the toggles that ship with the project:

    from ablations.toggles import DSTEM, LS, TABLE_2
    from harness import VALUE, Row, Study, Toggle

    RATE = Toggle("rate", "LR", "", "learning rate", {"trainer.…initial_learning_rate": VALUE}, default=0.05)
    STUDY = Study("stems", "What does the stem add?", TABLE_2, (Row(1, "R3D-50", (LS.at(),)), ...))

One line runs through the project, and data only ever move to the right along it: a toggle becomes settings, settings
become a run, a run a record, records numbers with intervals, and numbers the cells of a table or the points of a
figure. The science is data and stands apart, in the package `ablations`. The machinery stands in rooms, each of which
imports from the rooms below it alone:

    NAME.py        the commands, `python -m harness.NAME`: flags in, one call, exit code out
    cli            what commands share: flags, errors and exit codes, the text of a plan
    sweep          the Optuna search of scales
    reporting      numbers to text and pictures; it computes no statistic
    scheduler      who trains what, now: the queue, its workers, their progress
    analysis       records to numbers; it draws nothing
    tracking       mirrors of runs: W&B
    accelerators   whether a run would compile and fit, and what it costs
    planning       which runs are wanted, and which of them are missing
    training       trains and evaluates; runs in a process of its own, which loads TensorFlow
    store          what runs left: records, attempts, predictions
    data           videos to clips
    config         what a run is, as plain data
    system         the machine: paths (local or in a bucket), files, processes, errors
"""

import os

from harness.config.experiment import Profile
from harness.config.stages import Stage
from harness.config.studies import Row, Study
from harness.config.toggles import VALUE, Toggle

__all__ = ["VALUE", "Profile", "Row", "Stage", "Study", "Toggle"]

# TensorFlow reads it when it is loaded, which happens after this. It would take oneDNN's convolutions by itself only on
# processors with AVX-512 VNNI; on all others its own gradients of 3D convolutions cost ten times as much.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
