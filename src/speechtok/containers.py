"""What an audio file's own container promises, against the bytes that are there.

libsndfile shortens a cut WAV, AIFF, AU or Ogg file without a word, so a half-copied corpus would pass for a
corpus of shorter utterances. Each check reads a few hundred bytes and answers only when the container says
something; unknown containers and headers written to a pipe (length unknown) pass.

Seen here: WAV, RF64, AIFF, AU (declared sizes), Ogg Vorbis and Opus (the end-of-stream page), MP3 with an
encoder tag (its byte count, to 1 %). FLAC is seen by its decoder. Not seen: MP3 without an encoder tag, the
last hundredth of an MP3, rare containers (CAF, W64, VOC, NIST), and damage that keeps the length of
uncompressed samples.
"""

from typing import BinaryIO

_MAX_CHUNKS = 1024
_OGG_TAIL = 1 << 17  # a page is at most 65,307 bytes, so the last whole page begins within this
_MP3_TOLERANCE = 0.99  # tags appended after encoding are not in the count; decoders allow the same 1 %


def missing(file: BinaryIO, size: int) -> str | None:
    """Say in a few words what is missing from the file of `size` bytes; None where nothing is known to be."""
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _chunks(file, size, b"data", "big" if head[:4] == b"RIFX" else "little")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _chunks(file, size, b"SSND", "big")
    if head[:4] == b".snd" and len(head) == 12:
        return _short(int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big"), size)
    if head[:4] == b"OggS":
        return _ogg(file, size)
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
        return _mp3(file, size)
    return None


def _short(start: int, length: int, size: int) -> str | None:
    lacking = start + length - size
    return f"{lacking} of its {length} bytes of sound are missing" if lacking > 0 else None


def _is_stream_marker(length: int) -> bool:
    """Writers to a pipe cannot go back to fill in the length; they leave 0 or (nearly) the largest number."""
    return length == 0 or 0x7FFFF000 <= length <= 0x80000000 or length >= 0xFFFFF000


def _chunks(file: BinaryIO, size: int, wanted: bytes, order: str) -> str | None:
    """Walk an IFF chunk list (RIFF and AIFF are both) to the chunk that holds the samples."""
    file.seek(4)
    whole = int.from_bytes(file.read(4), order)  # type: ignore[arg-type]
    long_data = None
    at = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            break
        length = int.from_bytes(header[4:], order)  # type: ignore[arg-type]
        if header[:4] == b"ds64":  # RF64: 64-bit sizes of the whole and of the data chunk
            long_data = int.from_bytes(file.read(16)[8:], "little")
        if header[:4] == wanted:
            if length == 0xFFFFFFFF and long_data is not None:
                return _short(at + 8, long_data, size)
            return None if _is_stream_marker(length) else _short(at + 8, length, size)
        at += 8 + length + length % 2
    return None if _is_stream_marker(whole) else _short(8, whole, size)


def _ogg(file: BinaryIO, size: int) -> str | None:
    """The last page must be whole and carry the end-of-stream flag (RFC 3533, section 6)."""
    file.seek(max(0, size - _OGG_TAIL))
    tail = file.read(_OGG_TAIL)
    at = tail.rfind(b"OggS\0")
    page = tail[at:] if at >= 0 else b""
    if len(page) < 27:
        return "its last Ogg page is cut"
    segments = page[27 : 27 + page[26]]
    if len(segments) < page[26] or len(page) < 27 + len(segments) + sum(segments):
        return "its last Ogg page is cut"
    return None if page[5] & 4 else "its end-of-stream page is missing"


def _mp3(file: BinaryIO, size: int) -> str | None:
    """The encoder's tag in the first frame (Xing or Info) may count the bytes of the whole stream."""
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:  # its length is written in four bytes of seven bits
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    frame = file.read(256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16:
        return None
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    if not flags & 2:
        return None
    field = at + 8 + 4 * (flags & 1)
    promised = int.from_bytes(frame[field : field + 4], "big")
    if size - start >= promised * _MP3_TOLERANCE:
        return None
    return _short(start, promised, size)
