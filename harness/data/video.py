"""Decodes a video file to JPEG frames with PyAV, or says why it cannot be used.

Frames look as a player shows them: turned by the file's rotation flag, and with square pixels. FFmpeg's bicubic scaler
makes them smaller, never larger; it averages over the pixels it merges, and is told to give the same bits on every
processor. Nothing that the decoder had to guess is kept: a video with one damaged frame is refused.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from harness.system.errors import HarnessError

# FFmpeg's SWS_ACCURATE_RND and SWS_BITEXACT, for which PyAV has no names.
_SCALER = Interpolation.BICUBIC | 0x40000 | 0x80000
# Containers only: a playlist named video.mp4 would make FFmpeg open whatever it lists.
_CONTAINERS = (
    "3g2,3gp,aac,asf,avi,flac,flv,gif,h264,hevc,m4a,m4v,matroska,mj2,mov,mp3,mp4,mpeg,mpegts,mpegvideo,ogg,wav,webm"
)
# A video becomes one record, a protocol buffer, which holds less than 2 GiB; and a worker holds all of it in memory.
MOST_BYTES = 2**30
KINDS = (
    "missing", "unreadable", "empty", "no video stream", "not a video", "cut short", "corrupt", "too short", "too large"
)  # fmt: skip


class VideoError(HarnessError):
    """A video that cannot be used: `kind` is one of `KINDS`, the message one line with what was found."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Decoding:
    """How videos become frames.

    Attributes:
      short_side: most pixels of the shorter side; smaller videos keep their size.
      quality: JPEG quality, 1 to 95, as Pillow counts it.
      rate: frames per second, resampled by timestamps; None keeps every frame of the video.
      min_frames: a video with fewer is refused.
    """

    short_side: int = 256
    quality: int = 95
    rate: Fraction | None = None
    min_frames: int = 64


@dataclass(frozen=True)
class Decoded:
    """A video: its JPEG frames in order, and their size in pixels."""

    frames: tuple[bytes, ...]
    height: int
    width: int


@dataclass(frozen=True)
class _Timed:
    """A JPEG frame and the times in seconds at which a player starts and stops showing it."""

    start: Fraction
    end: Fraction
    jpeg: bytes


def versions() -> str:
    """Returns the libraries that determine the bytes of a frame, with their versions."""
    import PIL

    return f"PyAV {av.__version__}, Pillow {PIL.__version__}"


def decode(path: Path, how: Decoding) -> Decoded:
    """Decodes the frames of a video file.

    Raises:
      VideoError: it cannot be used; any other exception is a mistake of ours.
    """
    _check_file(path)
    av.logging.set_level(None)  # the error's reason says what FFmpeg would print about damage
    try:
        # With the scheme, no file name is taken for an address; and an opened file may not make FFmpeg open others.
        options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
        with av.open(f"file:{path.absolute()}", options=options, metadata_errors="replace") as container:
            return _decode(container, how)
    except VideoError:
        raise
    except MemoryError:
        raise VideoError("too large", "its frames do not fit into memory") from None
    except (av.error.FFmpegError, OSError, ValueError, ArithmeticError) as error:
        raise VideoError("not a video", _reason(error)) from None


def _check_file(path: Path) -> None:
    try:
        if not path.is_file():
            raise VideoError("missing", "no such file")
        with path.open("rb") as file:
            if not file.read(1):
                raise VideoError("empty", "the file has 0 bytes")
    except OSError as error:
        raise VideoError("unreadable", error.strerror or str(error)) from None


def _decode(container: Any, how: Decoding) -> Decoded:
    # The cover of a piece of music is a video stream of one picture, which is not meant.
    pictures = av.stream.Disposition.attached_pic
    stream = next((candidate for candidate in container.streams.video if not candidate.disposition & pictures), None)
    if stream is None:
        kinds = ", ".join(sorted({candidate.type for candidate in container.streams})) or "nothing"
        raise VideoError("no video stream", f"holds {kinds}")
    shape = _Shape(how, stream.sample_aspect_ratio)
    timed = list(_at_rate(_timed(container, stream, shape), how))
    if len(timed) < how.min_frames:
        raise VideoError("too short", f"has {len(timed)} frames; expected at least {how.min_frames}")
    return Decoded(tuple(timed), shape.size[1], shape.size[0])


def _frame_length(stream: Any) -> Fraction:
    """Returns how long a frame is shown if it does not say so itself, in seconds."""
    rate = stream.average_rate or stream.guessed_rate
    return 1 / Fraction(rate) if rate and rate > 0 else Fraction(1, 25)


def _timed(container: Any, stream: Any, shape: _Shape) -> Iterator[_Timed]:
    """Yields the video's frames in order; refuses damage, and a file that ends before its header says."""
    length, size, number = _frame_length(stream), 0, 0
    first: _Timed | None = None
    last: _Timed | None = None
    for frame in _frames(container, stream):
        start = Fraction(frame.pts) * frame.time_base if frame.pts is not None and frame.time_base else None
        if start is None or (last is not None and start < last.start):
            start = last.end if last is not None else Fraction(0)  # no timestamp, or one that goes backwards
        shown = Fraction(frame.duration) * frame.time_base if frame.duration and frame.time_base else length
        last = _Timed(start, start + shown, shape.jpeg(frame))
        first = first or last
        size, number = size + len(last.jpeg), number + 1
        if size > MOST_BYTES:
            raise VideoError("too large", f"its first {number} frames take {size:,} bytes; expected {MOST_BYTES:,}")
        yield last
    if first is None or last is None:
        raise VideoError("not a video", "no frame in it can be decoded")
    _check_length(container, stream, float(last.end - first.start), number)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    stream.codec_context.thread_count = 1  # processes decode videos in parallel already
    number = 0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise VideoError("cut short", f"the file ends within a picture, {number} frames in")
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise VideoError("corrupt", f"frame {number} is damaged")
                yield frame
                number += 1
    except (av.error.FFmpegError, OSError) as error:
        kind = "corrupt" if number else "not a video"
        raise VideoError(kind, f"{_reason(error)} after frame {number}" if number else _reason(error)) from None


def _check_length(container: Any, stream: Any, seconds: float, frames: int) -> None:
    stated, slack = _stated(container, stream)
    if seconds < stated * (1 - slack) - 2 * float(_frame_length(stream)):
        raise VideoError("cut short", f"ends after {seconds:.1f} s ({frames} frames) of {stated:.1f} s")


def _stated(container: Any, stream: Any) -> tuple[float, float]:
    """Returns the video's length by its header, in seconds, and the share by which that may be wrong; 0 s if unknown.

    Only the containers named here count: for others FFmpeg guesses the length from the size of the file.
    """
    kind = container.format.name.split(",")[0]
    if kind == "avi" and stream.frames and stream.time_base:
        return float(stream.frames * stream.time_base), 0.05  # FFmpeg corrects its duration by the size of the file
    if kind in ("mov", "asf") and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base), 0.05
    clock = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if kind == "matroska" and clock:
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]), 0.05
    if kind in ("mov", "matroska", "asf") and container.duration:
        return container.duration / av.time_base, 0.25  # of its longest stream, which may be the sound
    return 0.0, 0.0


def _at_rate(frames: Iterator[_Timed], how: Decoding) -> Iterator[bytes]:
    """Yields the frames that a player shows at the times 0, 1/rate, 2/rate, ... after the first; all without a rate."""
    if how.rate is None:
        yield from (frame.jpeg for frame in frames)
        return
    due: Fraction | None = None
    last: _Timed | None = None
    size = 0
    for frame in frames:
        due = frame.start if due is None else due
        while last is not None and due < frame.start:
            yield last.jpeg
            due, size = due + 1 / how.rate, size + len(last.jpeg)
            if size > MOST_BYTES:
                raise VideoError("too large", f"takes more than {MOST_BYTES:,} bytes at {how.rate} frames per second")
        last = frame
    while last is not None and due is not None and due < last.end:
        yield last.jpeg
        due += 1 / how.rate


class _Shape:
    """Turns and scales the frames of one video, all to the size of the first."""

    def __init__(self, how: Decoding, aspect: Fraction | None) -> None:
        self._how, self._aspect, self._reformatter = how, aspect, VideoReformatter()
        self._turn: int | None = None
        self.size = (0, 0)  # width, height

    def jpeg(self, frame: Any) -> bytes:
        """Encodes the frame as a JPEG file."""
        if self._turn is None:
            self._turn = round(frame.rotation / 90) % 4
            self.size = _size(_square(frame, self._aspect), self._turn, self._how.short_side)
        width, height = self.size[:: -1 if self._turn % 2 else 1]
        # One thread: with several, pixels depend on how the scaler cuts the picture into strips.
        scaled = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=_SCALER, threads=1)
        image = Image.fromarray(scaled.to_ndarray())
        if self._turn:
            turns = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
            image = image.transpose(turns[self._turn - 1])
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self._how.quality)
        return buffer.getvalue()


def _square(frame: Any, aspect: Fraction | None) -> tuple[int, int]:
    """Returns width and height in square pixels; `aspect` is width over height of one of the frame's pixels."""
    if aspect and Fraction(1, 4) <= aspect <= 4:
        return round(frame.width * aspect), frame.height
    return frame.width, frame.height


def _size(shown: tuple[int, int], turn: int, short_side: int) -> tuple[int, int]:
    width, height = shown[:: -1 if turn % 2 else 1]
    scale = min(Fraction(1), Fraction(short_side, min(width, height)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _reason(error: Exception) -> str:
    with contextlib.suppress(AttributeError):
        return str(error.strerror)  # type: ignore[attr-defined]
    return str(error).splitlines()[0] if str(error) else type(error).__name__
