"""Figure 2: which axis is worth its multiply-adds: depth, frames or resolution?

Question: R3D-RS from 50 to 300 layers; from 200 layers on, 48 and 64 frames, and crops of 256 and 288 pixels. Each row
  is compared with the one that it scales, on the same videos.
Command: python -m harness.study figure2 (the points of the figure), python -m harness.scaling_sweep (a search among
  more of them); the paper's training with --profile paper --data DIR --tpu NAME.
Cost: `--plan` prints it; ten runs, of which four are Table 3's and one Table 2's row 9.
Result: the paper's: 78.2, 79.5, 79.9, 80.4 % at 50, 101, 152, 200 layers; 0.5 and 0.7 points less than that at 270 and
  300; 80.7 % with 48 frames at 200 layers; larger resolutions drop, by how much is only in the picture.
Paper: Du et al., 2021, "Revisiting 3D ResNets for Video Recognition", Figure 2 and Section 4.4. It does not say which
  depth the points @f64, @i256 and @i288 have; 200, the depth of @f48, is our choice.
"""

from ablations.toggles import DEPTH, FRAMES, R3D_RS, RESOLUTION, TABLE_2
from harness.config.studies import Row, Study
from harness.config.toggles import ToggleValue

# Every point has the recipe of R3D-RS, row 8 of Table 2.
BASE = R3D_RS
# Values to search by default. The figure also has 64 frames and 288 pixels, which cost most and are left out here.
SCALES = {DEPTH.key: (50, 101, 152, 200, 270, 300), FRAMES.key: (32, 48), RESOLUTION.key: (224, 256)}


def _row(number: int, model: str, *scale: ToggleValue, follows: int | None = None) -> Row:
    return Row(number, model, (*BASE, *scale), published=number, follows=follows)


_200 = DEPTH.at(200)

STUDY = Study(
    name="figure2",
    title="Scaling by depth, frames and resolution",
    toggles=TABLE_2,
    rows=(
        _row(1, "RS-50"),
        _row(2, "RS-101", DEPTH.at(101), follows=1),
        _row(3, "RS-152", DEPTH.at(152), follows=2),
        _row(4, "RS-200", _200, follows=3),
        _row(5, "RS-270", DEPTH.at(270), follows=4),
        _row(6, "RS-300", DEPTH.at(300), follows=4),
        _row(7, "RS-200@f48", _200, FRAMES.at(48), follows=4),
        _row(8, "RS-200@f64", _200, FRAMES.at(64), follows=4),
        _row(9, "RS-200@i256", _200, RESOLUTION.at(256), follows=4),
        _row(10, "RS-200@i288", _200, RESOLUTION.at(288), follows=4),
    ),
    published="figure2",
    layout="scaling",
    crops_differ=True,
)
