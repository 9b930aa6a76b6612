"""JPEG files that every decoder takes for the same image, told by their markers alone."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from egapipe.pipeline.datasets.decoding.images import jpeg_orientation

_START, _END, _SCAN, _APP0, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE
_BASELINE, _PROGRESSIVE = 0xC0, 0xC2
# Other frames (lossless, hierarchical, arithmetic), and a height that comes later.
_REFUSED = {*range(0xC0, 0xD0), 0xDC, 0xDE, 0xDF} - {_BASELINE, _PROGRESSIVE, 0xC4, 0xC8}
# Without a length behind them: they have no place between segments.
_BARE = {0x00, 0x01, *range(0xD0, 0xD9)}
# Behind a scan's data, in which a restart or a stuffed zero may follow what begins like a marker.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_BITS, _YCBCR, _ONCE = 8, 1, 0x11
_FIXED, _PART = 6, 3
"""Bytes of a frame, and further ones for each of its components."""
# How often across and down luminance is sampled, beside chrominance that is sampled once.
_SAMPLED = {0x11, 0x12, 0x21, 0x22, 0x41, 0x42}
_USUAL_IDS = ((1,), (1, 2, 3))
_MOST_SCANS = 64
_FIRST_TURNED = 5
# Comments, and of applications those that say nothing of colours.
_BESIDE = {0xFE, *range(0xE1, 0xF0)} - {_APP14}


class Stored(NamedTuple):
    """An image as it is stored. orientation: of EXIF, 1..8, as which it is turned afterwards."""

    height: int
    width: int
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        turned = self.orientation >= _FIRST_TURNED
        return (self.width, self.height) if turned else (self.height, self.width)


class PlainJpeg(NamedTuple):
    """data: the file without what says nothing of its pixels. That is EXIF among others: some
    decoders turn an image as it says, some do not."""

    stored: Stored
    data: bytes


class _Segment(NamedTuple):
    """whole: with the marker, and the data of a scan behind it."""

    marker: int
    body: bytes
    whole: bytes


class _Frame(NamedTuple):
    """ids, sampled: of each component, a byte each."""

    progressive: bool
    bits: int
    height: int
    width: int
    ids: tuple[int, ...]
    sampled: tuple[int, ...]


def plain_jpeg(data: bytes) -> PlainJpeg | None:
    """What a file says of itself, if it is a plain one; None for any other.

    Plain is grey or YCbCr in 8 bits, baseline of one scan or progressive, in the usual samplings,
    and whole: every segment follows the one before, and the last is the end of the image. Damage
    inside of a scan that makes no marker is not seen.
    """
    segments = list(_segments(data))
    if not segments or segments[-1].marker != _END or {s.marker for s in segments} & _REFUSED:
        return None
    frames = [_frame(s) for s in segments if s.marker in (_BASELINE, _PROGRESSIVE)]
    frame = frames[0] if len(frames) == 1 else None
    if frame is None or not _is_usual(frame) or not _has_usual_colours(frame, segments):
        return None
    scans = [s.body for s in segments if s.marker == _SCAN]
    if frame.progressive:
        usual = 0 < len(scans) <= _MOST_SCANS
    else:
        usual = len(scans) == 1 and scans[0][:1] == bytes((len(frame.ids),))
    orientation = jpeg_orientation(data, (frame.height, frame.width)) if usual else None
    if orientation is None:
        return None
    kept = (s.whole for s in segments if s.marker not in _BESIDE)
    stored = Stored(frame.height, frame.width, orientation)
    return PlainJpeg(stored, b"".join((data[:2], *kept)))


def _segments(data: bytes) -> Iterator[_Segment]:
    """The segments behind the start, up to the end of the image or the first that is none."""
    place = 2 if data[:2] == bytes((0xFF, _START)) else len(data)
    while (segment := _segment(data, place)) is not None:
        yield segment
        place += len(segment.whole)
        if segment.marker == _END:
            return


def _segment(data: bytes, start: int) -> _Segment | None:
    place = start
    while data[place : place + 2] == b"\xff\xff":
        place += 1
    if data[place : place + 1] != b"\xff" or place + 2 > len(data):
        return None
    marker, begin = data[place + 1], place + 2
    if marker == _END:
        return _Segment(marker, b"", data[start:begin])
    stop = begin + int.from_bytes(data[begin : begin + 2], "big")
    if marker in _BARE or stop < begin + 2 or stop > len(data):
        return None
    body = data[begin + 2 : stop]
    if marker == _SCAN:
        found = _MARKER.search(data, stop)
        stop = len(data) if found is None else found.start()
    return _Segment(marker, body, data[start:stop])


def _frame(segment: _Segment) -> _Frame | None:
    body = segment.body
    if len(body) < _FIXED or len(body) != _FIXED + _PART * body[5]:
        return None
    height, width = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
    ids, sampled = tuple(body[_FIXED::_PART]), tuple(body[_FIXED + 1 :: _PART])
    return _Frame(segment.marker == _PROGRESSIVE, body[0], height, width, ids, sampled)


def _is_usual(frame: _Frame) -> bool:
    grey = frame.sampled == (_ONCE,)
    colour = frame.sampled[1:] == (_ONCE, _ONCE) and frame.sampled[0] in _SAMPLED
    return frame.bits == _BITS and frame.height > 0 and frame.width > 0 and (grey or colour)


def _has_usual_colours(frame: _Frame, segments: Sequence[_Segment]) -> bool:
    """Whether three components are YCbCr: Adobe's segment says so, else JFIF's or the usual ids."""
    adobe = [s.body for s in segments if s.marker == _APP14 and s.body.startswith(b"Adobe")]
    if any(body[11:12] != bytes((_YCBCR,)) for body in adobe) and len(frame.ids) > 1:
        return False
    jfif = any(s.marker == _APP0 and s.body.startswith(b"JFIF\0") for s in segments)
    return bool(adobe) or jfif or frame.ids in _USUAL_IDS
