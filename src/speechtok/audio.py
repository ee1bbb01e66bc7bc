"""Audio as a value, its files, and its one resampler.

Everything is mono float32, nominally in [-1, 1]; values outside are kept as they are until a file format
clips them. Files go through libsndfile (soundfile), rates through soxr at its HQ setting.
"""

import operator
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from speechtok import containers
from speechtok.errors import AudioError, OutputError
from speechtok.files import StrPath, atomic_path, refuse_special

_QUALITY = "HQ"
_CHUNK = 1 << 17  # samples over all channels held at once while reading and writing
_UNKNOWN_LENGTH = 1 << 62
_MP3_FRAME = 1152  # samples; decoders and encoders disagree by up to one frame about where an MP3 ends
_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


@dataclass(frozen=True, eq=False)
class Audio:
    """A mono signal: `samples` float32 [T], read-only, with `rate` in Hz.

    `samples` is copied unless it is a read-only float32 array already. Integer samples are refused, because
    nothing says which number is full scale. Raises AudioError when it is not 1-D, empty, or not finite.
    """

    samples: np.ndarray
    rate: int
    source_channels: int = 1

    def __post_init__(self) -> None:
        samples = checked_samples(self.samples)
        if not len(samples):
            raise AudioError("audio holds no samples; at least one is needed")
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "rate", _positive_int("the sample rate", self.rate))
        object.__setattr__(self, "source_channels", _positive_int("the channel count", self.source_channels))

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"Audio({self.seconds:.3f} s, {len(self)} samples at {self.rate} Hz)"

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def resample(self, rate: int) -> "Audio":
        """The same signal at `rate` Hz: exactly ceil(T * rate / self.rate) samples.

        soxr delivers that number or one sample less; the difference is made up with a zero at the end.
        """
        rate = _positive_int("the sample rate", rate)
        if rate == self.rate:
            return self
        resampled = soxr.resample(self.samples, self.rate, rate, quality=_QUALITY)
        length = resampled_length(len(self), self.rate, rate)
        return Audio(_owned(_fit(resampled, length)), rate, self.source_channels)


class AudioInfo(NamedTuple):
    """What a file's header says: rate in Hz, channels, frames (samples per channel), container and coding."""

    rate: int
    channels: int
    frames: int
    format: str

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


class RateStream:
    """`Audio.resample` piece by piece: what `push` and `finish` give, joined, is the same, bit for bit.

    soxr carries its filter over the seams, so an answer comes some hundreds of samples late.
    """

    def __init__(self, source: int, target: int) -> None:
        self.source = _positive_int("the sample rate", source)
        self.target = _positive_int("the sample rate", target)
        self.taken = self.made = 0
        same = source == target
        self._soxr = None if same else soxr.ResampleStream(source, target, 1, dtype="float32", quality=_QUALITY)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """What can be said once float32 `samples` [n] have been heard, n >= 0."""
        self.taken += len(samples)
        if self._soxr is None or not len(samples):
            return samples
        piece = self._soxr.resample_chunk(samples)
        self.made += len(piece)
        return piece

    def finish(self) -> np.ndarray:
        """The rest: in all `resampled_length` samples have been given then."""
        if self._soxr is None:
            return np.empty(0, np.float32)
        rest = self._soxr.resample_chunk(np.empty(0, np.float32), last=True)
        return _fit(rest, resampled_length(self.taken, self.source, self.target) - self.made)


def resampled_length(length: int, source: int, target: int) -> int:
    """ceil(length * target / source), in exact integer arithmetic."""
    return -(-length * target // source)


def probe(path: StrPath) -> AudioInfo:
    """Read only the header of an audio file. Raises AudioError as `read` does, except for the samples'
    faults.
    """
    with _opened(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, f"{file.format} {file.subtype}")


def read(path: StrPath, rate: int | None = None) -> Audio:
    """Read a whole file as mono, resampled to `rate` Hz where one is given.

    Several channels are mixed down by their mean, with a warning. Raises AudioError, in one line, for a file
    that is missing, a folder, empty, cut short (what can be seen of that: `speechtok.containers`), not audio,
    without samples, or with NaN or infinite samples.
    """
    info = probe(path)
    _warn_mixed_down(path, info.channels)
    samples = np.concatenate(list(_chunks(path)))
    audio = Audio(_owned(samples), info.rate, info.channels)
    return audio if rate is None else audio.resample(rate)


def blocks(path: StrPath, seconds: float, rate: int | None = None) -> Iterator[Audio]:
    """The file as consecutive pieces of `seconds`, the last one shorter, in memory that does not grow with
    it.

    Joined, the pieces are `read(path, rate)`. Faults of the header are raised at once, faults of the samples
    when they are reached; so a caller who must not act on half a file collects before acting.
    """
    if not 0 < seconds < float("inf"):
        raise AudioError(f"a block must last more than 0 seconds, got {seconds}")
    info = probe(path)
    target = info.rate if rate is None else _positive_int("the sample rate", rate)
    _warn_mixed_down(path, info.channels)
    chunks = _chunks(path)
    if target != info.rate:
        chunks = _resampled(chunks, info.rate, target)
    size = max(1, round(seconds * target))
    return (Audio(_owned(block), target, info.channels) for block in _regroup(chunks, size))


def write(path: StrPath, audio: Audio, subtype: str | None = None) -> None:
    """Write by the suffix of `path`: .wav and .flac (16-bit unless `subtype` says otherwise), .ogg, .opus,
    .mp3.

    `subtype` is libsndfile's name, for example PCM_24, or FLOAT, which keeps every bit in a .wav. Integer
    formats clip at full scale. The file appears whole or not at all. Raises OutputError: unknown suffix, rate
    or subtype that the format does not hold, or a place that cannot be written.
    """
    # In pieces: the Vorbis encoder crashes on one call with many minutes of sound.
    starts = range(0, len(audio), _CHUNK)
    write_blocks(path, (audio.samples[start : start + _CHUNK] for start in starts), audio.rate, subtype)


def write_blocks(path: StrPath, blocks: Iterable[np.ndarray], rate: int, subtype: str | None = None) -> None:
    """`write` of float32 pieces [n] at `rate` Hz, each written as it comes; memory does not grow with the file.

    What `blocks` raises passes through, and no file appears. Raises OutputError as `write` does, before the
    first block is asked for where name or subtype are at fault.
    """
    name = os.fspath(path)
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise OutputError(f"{name}: unknown audio suffix {suffix!r}; use one of {', '.join(_FORMATS)}")
    container, default = _FORMATS[suffix]
    subtype = default if subtype is None else subtype.upper()
    if not soundfile.check_format(container, subtype):
        known = ", ".join(soundfile.available_subtypes(container))
        raise OutputError(f"{name}: {suffix} does not hold {subtype}; use one of {known}")
    with atomic_path(path) as temporary:
        try:
            with soundfile.SoundFile(temporary, "w", rate, 1, subtype, format=container) as file:
                for block in blocks:
                    for start in range(0, len(block), _CHUNK):
                        file.write(block[start : start + _CHUNK])
        except soundfile.SoundFileError as error:
            raise OutputError(f"{name}: cannot be written: {_reason(error)}") from error


def checked_samples(samples: object) -> np.ndarray:
    """`samples` as a read-only float32 array [n], n >= 0. Raises AudioError when they are not 1-D or not finite."""
    array = _float32(samples)
    if array.ndim != 1:
        raise AudioError(f"audio must be 1-D [T], got shape {array.shape}; pick one channel")
    _check_finite("audio", array, 0)
    return array


def _float32(samples: object) -> np.ndarray:
    """A read-only contiguous float32 array; the given one where it is that already, else a copy."""
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError(f"audio samples must be an array of numbers [T]: {error}") from error
    if array.dtype.kind != "f" and array.size:
        hint = "; divide integer samples by their full scale first" if array.dtype.kind in "iu" else ""
        raise AudioError(f"audio samples must be floating point in [-1, 1], got {array.dtype}{hint}")
    if array.dtype == np.float32 and array.flags.c_contiguous and not array.flags.writeable:
        return array
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused as such
        return _owned(np.array(array, np.float32, order="C"))


def _positive_int(what: str, value: object) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise AudioError(f"{what} must be a positive whole number, got {value!r}")
    return number


def _check_finite(name: str, samples: np.ndarray, offset: int) -> None:
    if not np.isfinite(samples).all():
        first = offset + int(np.argmin(np.isfinite(samples)))
        raise AudioError(f"{name}: sample {first} is NaN or infinite; export the recording again")


def _owned(samples: np.ndarray) -> np.ndarray:
    """Mark an array that nobody else holds read-only, which spares `Audio` its copy."""
    samples.flags.writeable = False
    return samples


def _warn_mixed_down(path: StrPath, channels: int) -> None:
    if channels > 1:
        warnings.warn(f"{os.fspath(path)}: {channels} channels mixed to mono by their mean", stacklevel=3)


@contextmanager
def _opened(path: StrPath) -> Iterator[soundfile.SoundFile]:
    """Open for reading; every fault of the file, here and in the body, is an AudioError that names it."""
    name = os.fspath(path)
    _check_container(path)
    try:
        # As bytes: a name that is not valid UTF-8 is a name all the same.
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.frames >= _UNKNOWN_LENGTH:
                raise AudioError(f"{name}: its header does not say how long it is; convert it to a new file")
            yield file
    except soundfile.SoundFileError as error:
        raise AudioError(f"{name}: not audio, or damaged: {_reason(error)}; export it again") from error


def _check_container(path: StrPath) -> None:
    name = os.fspath(path)
    try:
        refuse_special(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise AudioError(f"{name}: the file is empty (0 bytes); copy or export it again")
            lack = containers.missing(file, size)
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise AudioError(f"{name}: is a folder; name an audio file") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if lack:
        raise AudioError(f"{name}: truncated: {lack}; copy or export the file again")
    if Path(path).suffix.lower() == ".raw":
        raise AudioError(f"{name}: a .raw file does not say its rate; convert it to .wav first")


def _reason(error: Exception) -> str:
    text = str(getattr(error, "error_string", None) or error).removeprefix("Error : ").strip().rstrip(".")
    # libsndfile's words for a decoder that found nothing; the file was opened a moment ago, so it does exist.
    return "no sound found in it" if "does not exist" in text else text or "unknown format"


def _chunks(path: StrPath) -> Iterator[np.ndarray]:
    """Mono float32 pieces of a file at its own rate; the memory follows what is there, not what a header
    claims.
    """
    name = os.fspath(path)
    got = 0
    with _opened(path) as file:
        frames = max(1, _CHUNK // file.channels)
        while len(chunk := file.read(frames, dtype="float32", always_2d=True)):
            mono = chunk[:, 0] if file.channels == 1 else chunk.mean(axis=1, dtype=np.float32)
            _check_finite(name, mono, got)
            got += len(mono)
            yield mono
        slack = _MP3_FRAME if file.format == "MP3" else 0
        if got + slack < file.frames:
            raise AudioError(
                f"{name}: truncated: the header promises {file.frames} samples and {got} are there;"
                " copy or export the file again"
            )
    if not got:
        raise AudioError(f"{name}: holds no samples; record or export it again")


def _fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Trim or zero-extend at the end."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def _resampled(chunks: Iterable[np.ndarray], source: int, target: int) -> Iterator[np.ndarray]:
    stream = RateStream(source, target)
    yield from map(stream.push, chunks)
    yield stream.finish()


def _regroup(chunks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in new arrays of `size`, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    for chunk in chunks:
        while len(chunk):
            part, chunk = chunk[: size - count], chunk[size - count :]
            held.append(part)
            count += len(part)
            if count == size:
                yield np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)
