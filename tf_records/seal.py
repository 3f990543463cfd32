"""A checksum that a JSON file carries of itself, so that any changed byte of it is noticed. No TensorFlow.

The text's last field is `"sha256"`: the digest of the file's own bytes with that field's 64 hex digits
replaced by zeros.
"""

import hashlib

_END = b'"\n}\n'
_ZEROS = "0" * 64


def seal(text: str) -> str:
    """Adds the checksum to a JSON object that was written with an indent of 1, ending in a line break."""
    head = text.removesuffix("\n}\n") + ',\n "sha256": "'
    return f"{head}{_digest(head.encode(), _END)}{_END.decode()}"


def is_sealed(content: bytes) -> bool:
    """Whether every byte is as `seal` wrote it, white space and the case of the hex digits included."""
    end = len(content) - len(_END)
    start = max(0, end - len(_ZEROS))
    return content[start:end] == _digest(content[:start], content[end:]).encode()


def _digest(head: bytes, end: bytes) -> str:
    return hashlib.sha256(head + _ZEROS.encode() + end).hexdigest()
