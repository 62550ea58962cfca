"""The R3D models of the paper's Tables 2 to 4, with their published size and cost."""

import dataclasses

from ablations.toggles import DEPTH, DSTEM, FRAMES, SE
from harness.config.toggles import ToggleValue


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with its published size and cost.

    Attributes:
      name: as in the tables.
      applied: the toggles and axes that change its architecture.
      classes: 400 or 600, the classes of its Kinetics.
      paper_params_m: published parameters, millions; None where the paper has none.
      paper_gflops: published cost of one view, 1e9; None where the paper has none.
    """

    name: str
    applied: tuple[ToggleValue, ...]
    classes: int
    paper_params_m: float | None
    paper_gflops: float | None


_RS = (SE.at(), DSTEM.at())

MODELS = (
    Model("R3D-50", (), 400, 38.1, 60),
    Model("R3D-50 + SE", (SE.at(),), 400, None, 60),
    Model("R3D-RS-50", _RS, 400, 48.2, 58),
    Model("R3D-RS-101", (*_RS, DEPTH.at(101)), 400, 85.1, 115),
    Model("R3D-RS-152", (*_RS, DEPTH.at(152)), 400, 114.9, 168),
    Model("R3D-RS-200", (*_RS, DEPTH.at(200)), 400, 121.6, 204),
    Model("R3D-RS-200, 48 frames", (*_RS, DEPTH.at(200), FRAMES.at(48)), 400, 121.6, 307),
    Model("R3D-RS-200, 600 classes", (*_RS, DEPTH.at(200)), 600, 122.0, 205),
    Model("R3D-RS-200, 48 frames, 600 classes", (*_RS, DEPTH.at(200), FRAMES.at(48)), 600, 122.0, 307),
)
