"""Table 6: what does R3D-RS learn without labels, by its depth?

Question: networks pre-trained by CVRL on the videos alone, then a linear classifier on the frozen network: the R3D-50
  baseline and R3D-RS at 50 to 270 layers; and, to know what pre-training adds, a linear classifier on the R3D-50
  baseline as it was initialised. On the quick profile all generated clips have one background and one digit:
  otherwise videos could be told apart by their looks.
Command: python -m harness.study table6 (the paper's training: --profile paper --data DIR --tpu NAME).
Cost: printed by `--plan`; six pre-trainings and seven linear classifiers.
Result: `results/tables/table6-quick.md`, beside the paper's numbers.
Paper: Du et al., 2021, "Revisiting 3D ResNets for Video Recognition", Table 6; the text has R3D-RS 1.4 points above the
  baseline. The paper does not say which parts of R3D-RS's recipe its pre-training keeps: here the network, with its
  stochastic depth; CVRL has a schedule, an augmentation and a weight decay of its own, and no labels to smooth.
"""

from ablations.stages import CVRL, LINEAR
from ablations.toggles import DEPTH, DSTEM, SD, SE
from harness.config.studies import Row, Study

_RS = (SD.at(), SE.at(), DSTEM.at())
_CHAIN = (CVRL, LINEAR)

STUDY = Study(
    name="table6",
    title="Linear evaluation of networks pre-trained without labels",
    toggles=(SD, SE, DSTEM),
    rows=(
        Row(1, "R3D-50, random backbone", (), stages=(LINEAR,)),
        Row(2, "R3D-50", (), follows=1, stages=_CHAIN),
        Row(3, "R3D-RS-50", _RS, published=1, follows=2, stages=_CHAIN),
        Row(4, "R3D-RS-101", (*_RS, DEPTH.at(101)), published=2, follows=3, stages=_CHAIN),
        Row(5, "R3D-RS-152", (*_RS, DEPTH.at(152)), published=3, follows=4, stages=_CHAIN),
        Row(6, "R3D-RS-200", (*_RS, DEPTH.at(200)), published=4, follows=5, stages=_CHAIN),
        Row(7, "R3D-RS-270", (*_RS, DEPTH.at(270)), published=5, follows=6, stages=_CHAIN),
    ),
    published="table6",
    layout="comparison",
    stand_in="embedded-motion",
)
