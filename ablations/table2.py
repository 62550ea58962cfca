"""Table 2, the additive study: what does each training method and architectural change add?

Question: starting from R3D-50, what do label smoothing, stochastic depth, reduced weight decay, 350 epochs, scale
  jittering, squeeze-and-excitation, the ResNet-D stem and RandAugment add, one after the other?
Command: python -m harness.additive_study [--profile quick|paper]
Cost: `--plan` prints it; about five minutes on two CPU cores for the quick profile.
Result: the paper's: 74.4 to 78.2 % at 50 layers, 81.0 % at 200 layers and 48 frames with RandAugment.
Paper: Du et al., 2021, "Revisiting 3D ResNets for Video Recognition", Table 2.
"""

from ablations.toggles import DEPTH, DSTEM, EP, FRAMES, LS, RA, SD, SE, SJ, TABLE_2, WD
from harness.config.studies import Row, Study, additive

_STEPS = additive(
    steps=[LS.at(), SD.at(), WD.at(), EP.at(), SJ.at(), SE.at(), DSTEM.at()],
    models={1: "R3D-50", 8: "R3D-RS-50"},
)
_SCALED = (*_STEPS[-1].applied, DEPTH.at(200), FRAMES.at(48))

STUDY = Study(
    name="table2",
    title="Additive study of the training methods and architectural changes",
    toggles=TABLE_2,
    rows=(
        *_STEPS,
        # Row 9 changes depth and frames at once, so the paper gives no step for it.
        Row(9, "R3D-RS-200", _SCALED, published=9),
        Row(10, "R3D-RS-200", (*_SCALED, RA.at()), published=10, follows=9),
    ),
    published="table2",
)
