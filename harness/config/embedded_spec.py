"""The specification of the data set that is drawn: all that decides it. :mod:`harness.data.embedded` draws it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

CLASSES = ("up", "down", "sideways", "diagonal_up", "diagonal_down", "circling", "bouncing", "swinging")
OTHER_CLASSES = (
    "rising_steeply", "rising_gently", "sinking_gently", "sinking_steeply", "waving", "looping", "rocking",
    "figure_eight", "still",
)  # fmt: skip
PATHS: Mapping[str, tuple[str, ...]] = MappingProxyType({"first": CLASSES, "other": OTHER_CLASSES})

# Part of a set's identity: raise it with any change to the drawing, or old folders would pass for new ones.
_DRAWING = 1


@dataclass(frozen=True)
class EmbeddedSpec:
    """All that decides the data set.

    Sizes are in pixels and frames, ranges are (least, most). `speed` is in pixels per frame; `period`, that of the
    periodic paths, in frames; `sprite` is the side of a digit; `contrast` and `noise` (a standard deviation) are
    fractions of full brightness; `jpeg_quality` is Pillow's, 1 to 95; `paths` is one of :data:`PATHS`: the classes;
    `alike` is whether all videos have one background and one tint, and those of a split one scan, by which they could
    otherwise be told apart.
    """

    name: str = "embedded"
    train_videos: int = 512
    validation_videos: int = 240
    frames: int = 40
    height: int = 40
    width: int = 54
    seed: int = 0
    digits: int = 6
    speed: tuple[float, float] = (1.0, 3.0)
    period: tuple[float, float] = (10.0, 16.0)
    sprite: tuple[int, int] = (10, 16)
    contrast: tuple[float, float] = (0.6, 1.0)
    noise: float = 0.01
    jpeg_quality: int = 95
    paths: str = "first"
    alike: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, naming the field."""
        for field in ("train_videos", "validation_videos", "frames", "height", "width", "digits"):
            self._require(field, getattr(self, field) >= 1, "at least 1")
        for field in ("speed", "period", "sprite", "contrast"):
            least, most = getattr(self, field)
            self._require(field, 0 < least <= most, "(least, most) with 0 < least <= most")
        side = min(self.height, self.width)
        self._require("sprite", self.sprite[1] <= side, f"at most the {side} pixels of the frame's shorter side")
        self._require("seed", self.seed >= 0, "at least 0")
        self._require("noise", self.noise >= 0, "at least 0")
        self._require("jpeg_quality", 1 <= self.jpeg_quality <= 95, "1 to 95")
        self._require("paths", self.paths in PATHS, f"one of {', '.join(PATHS)}")
        plain = self.name.replace("-", "").replace("_", "")
        self._require("name", plain.isascii() and plain.isalnum(), "letters, digits, '-' and '_'")

    def _require(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{field} is {getattr(self, field)!r}; expected {expected}")

    def count(self, split: str) -> int:
        """Number of videos of a split."""
        return {"train": self.train_videos, "validation": self.validation_videos}[split]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        return PATHS[self.paths]

    @property
    def digest(self) -> str:
        """Hash of the specification and of the way of drawing it; 64 hexadecimal digits."""
        stated = {"drawing": _DRAWING, **asdict(self)}
        # As before there were others: folders that were drawn then are found.
        if self.paths == "first":
            del stated["paths"]
        if not self.alike:
            del stated["alike"]
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
