"""Whether a file ends where its container does, of formats whose header states no length to be trusted.

MPEG streams may end with any packet, so that a copy cut between two packets is as good as a whole one; raw
streams have not even packets.
"""

from __future__ import annotations

import os

# How much of a file's beginning and end to look at.
_HEAD_BYTES, _TAIL_BYTES = 2**16, 2**17
# Where an MPEG-TS packet may begin, and how far the next one is.
_TS_PACKETS = ((0, 188), (4, 192), (0, 204))
# What an ASF file's properties and a NUT file's index begin with.
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_NUT_INDEX = b"NX\xdd\x67\x2f\x23\xe6\x4e"


def has_end(format_name: str) -> bool:
    """Whether a file of a format without a stated length shows by its last bytes that it is whole."""
    return format_name in {"ogg", "nut", "asf"}


def is_whole(path: str, format_name: str) -> bool:
    """Whether a file of MPEG-TS, program stream, Ogg, NUT or ASF ends where it should; true of others."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
        if format_name == "nut":  # it ends with its index, whose last words say how long that is
            file.seek(max(0, size - int.from_bytes(tail[-12:-4])))
            return file.read(len(_NUT_INDEX)) == _NUT_INDEX
    if format_name == "mpegts":
        steps = [step for first, step in _TS_PACKETS if head[first : first + 2 * step : step] == b"GG"]
        return not steps or size % steps[0] == 0
    if format_name == "ogg":
        return _ends_ogg(tail)
    if format_name == "asf":
        return size >= _stated_asf_size(head)
    start = tail.rfind(b"\0\0\1\xba") if format_name == "mpeg" else -1
    return start < 0 or _ends_program_stream(tail[start:])


def is_tiny_transport_stream(path: str) -> bool:
    """Whether a file is MPEG-TS of some ten packets, which FFmpeg takes for something else."""
    if not os.path.isfile(path) or not 0 < os.path.getsize(path) <= 16 * 204:
        return False
    with open(path, "rb") as file:
        content = file.read()
    return any(
        len(content) % step == 0 and set(content[first::step]) == {0x47} for first, step in _TS_PACKETS
    )


def _stated_asf_size(head: bytes) -> int:
    """The size in bytes by the header; 0 where that was written before it was known, as of a broadcast."""
    place = head.find(_ASF_PROPERTIES)
    properties = head[place : place + 92] if place >= 0 else b""
    if len(properties) < 92 or properties[88] & 1:
        return 0
    return int.from_bytes(properties[40:48], "little")


def _ends_ogg(tail: bytes) -> bool:
    """Whether the last page is whole, and marked as its stream's last."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    body = sum(page[27 : 27 + page[26]])
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + body


def _ends_program_stream(pack: bytes) -> bool:
    """Whether the packets of an MPEG program stream's last pack are all whole."""
    if len(pack) < 14:
        return False
    place = 14 + (pack[13] & 7) if pack[4] >> 6 == 1 else 12
    while place + 6 <= len(pack) and pack[place : place + 3] == b"\0\0\1" and pack[place + 3] != 0xB9:
        place += 6 + int.from_bytes(pack[place + 4 : place + 6], "big")
    return place <= len(pack)
