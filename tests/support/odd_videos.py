"""Writes real video files, good and odd, small enough for a test; each frame says by its grey which it is."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICKS = 1000


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Grey in steps that JPEG and the codec leave apart, with the top left quarter white."""
    image = np.full((height, width, 3), 20 + 10 * (number % 16), np.uint8)
    image[: height // 2, : width // 2] = 250
    return image


def write(
    path: Path,
    frames: int = 40,
    width: int = 64,
    height: int = 48,
    times: list[int] | None = None,
    codec: str = "libx264",
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of `frames` at 25 frames per second, or at `times` in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p" if width % 2 == 0 else "yuv444p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.codec_context.gop_size = 12
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.codec_context.options = {"crf": "10"}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), "rgb24")
            frame.pts, frame.time_base = (times[number] if times else number * 40), Fraction(1, TICKS)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_audio(path: Path) -> Path:
    """A second of sound in a file named like a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, quarters: int) -> Path:
    """Sets the rotation flag of an MP4: so many quarter turns clockwise for whoever shows it."""
    content = bytearray(path.read_bytes())
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    at = content.index(b"tkhd") + 4 + 40  # past version, times, id, duration, layer and volume
    content[at : at + 36] = struct.pack(">9i", *(v << 16 for v in (cos, sin, 0, -sin, cos, 0, 0, 0)), 1 << 30)
    path.write_bytes(content)
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    """Keeps the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def damage(path: Path, share: float = 0.5, count: int = 60) -> Path:
    """Overwrites bytes in the middle of an MP4's pictures."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat")
    size = struct.unpack(">I", content[start - 4 : start])[0]
    at = start + int(size * share)
    content[at : at + count] = np.random.default_rng(0).integers(0, 256, count, np.uint8).tobytes()
    path.write_bytes(content)
    return path
