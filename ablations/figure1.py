"""Figure 1: what accuracy does R3D-RS reach for its multiply-adds, beside SlowFast and the baseline?

Question: top-1 on Kinetics-400 against the multiply-adds of one view, for the models of Table 3.
Command: python -m harness.study figure1 (the paper's training: --profile paper --data DIR --tpu NAME).
Cost: printed by `--plan`; six runs, all of them Table 3's.
Result: `plots/figure1-quick.png` and `results/tables/figure1-quick.md`.
Paper: Du et al., 2021, "Revisiting 3D ResNets for Video Recognition", Figure 1.
"""

from ablations import table3
from harness.config.studies import Row, Study

_PUBLISHED = {"R3D-50": 1, "R3D-RS-50": 4, "R3D-RS-101": 5, "R3D-RS-152": 6, "R3D-RS-200": 7}
_LAST = table3.STUDY.rows[-1]

STUDY = Study(
    name="figure1",
    title="Accuracy against the multiply-adds of one view",
    toggles=table3.STUDY.toggles,
    rows=(
        *(Row(row.number, row.model, row.applied, _PUBLISHED[row.model]) for row in table3.STUDY.rows[:-1]),
        Row(_LAST.number, "R3D-RS-200*", _LAST.applied, published=8),
    ),
    published="figure1",
    layout="accuracy",
)
