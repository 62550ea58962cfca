"""Table 4: how accurate is R3D-RS-200 on Kinetics-600, trained from scratch?

Question: R3D-RS at 200 layers, with 32 and with 48 frames.
Command: python -m harness.study table4 (the paper's training: --profile paper --data DIR --tpu NAME).
Cost: printed by `--plan`; two runs. On the quick profile the generated clips stand in for Kinetics-600 as well.
Result: `results/tables/table4-quick.md`, beside the other systems as they were published.
Paper: Du et al., 2021, "Revisiting 3D ResNets for Video Recognition", Table 4. It does not say whether RandAugment was
used: Table 3 names it where it was, so these two rows have none.
"""

from ablations.toggles import DEPTH, FRAMES, R3D_RS, TABLE_2
from harness.config.studies import Row, Study

STUDY = Study(
    name="table4",
    title="Models trained from scratch on Kinetics-600",
    toggles=TABLE_2,
    rows=(
        Row(1, "R3D-RS-200", (*R3D_RS, DEPTH.at(200)), published=6),
        Row(2, "R3D-RS-200", (*R3D_RS, DEPTH.at(200), FRAMES.at(48)), published=7),
    ),
    published="table4",
    dataset="Kinetics-600",
    layout="comparison",
)
