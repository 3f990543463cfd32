"""What a JPEG's header says, without decoding it. No TensorFlow."""

from typing import NamedTuple

# Start of frame: all of C0 to CF but C4 (Huffman tables), C8 (reserved) and CC (arithmetic coding tables).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class JpegHeader(NamedTuple):
    """Pixels and colour channels."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG, or None where the bytes are none, or end before its end mark."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] in _START_OF_FRAME:
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            return JpegHeader(height, width, data[place + 9])
        place += 2 + length
    return None
