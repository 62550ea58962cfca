"""Table 3: how accurate is R3D-RS on Kinetics-400, trained from scratch, by its depth?

Question: the baseline and R3D-RS at 50, 101, 152 and 200 layers, and with 48 frames and RandAugment.
Command: python -m harness.study table3 (the paper's training: --profile paper --data DIR --tpu NAME).
Cost: printed by `--plan`; six runs, of which two are rows 1 and 10 of Table 2 and one its row 8.
Result: `results/tables/table3-quick.md`, beside the other systems as they were published.
Paper: Du et al., 2021, "Revisiting 3D ResNets for Video Recognition", Table 3.
"""

from ablations.toggles import DEPTH, FRAMES, R3D_RS, RA, TABLE_2
from harness.config.studies import Row, Study

STUDY = Study(
    name="table3",
    title="Models trained from scratch on Kinetics-400",
    toggles=TABLE_2,
    rows=(
        Row(1, "R3D-50", (), published=8),
        Row(2, "R3D-RS-50", R3D_RS, published=9),
        Row(3, "R3D-RS-101", (*R3D_RS, DEPTH.at(101)), published=10),
        Row(4, "R3D-RS-152", (*R3D_RS, DEPTH.at(152)), published=11),
        Row(5, "R3D-RS-200", (*R3D_RS, DEPTH.at(200)), published=12),
        Row(6, "R3D-RS-200", (*R3D_RS, DEPTH.at(200), FRAMES.at(48), RA.at()), published=13),
    ),
    published="table3",
    layout="comparison",
)
