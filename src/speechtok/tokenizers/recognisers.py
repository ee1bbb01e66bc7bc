"""Speech to text: the first half of scheme D. PocketSphinx works offline; ``transformers`` brings all others."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.frames import FrameLaw
from speechtok.guidance.phones import pcm16
from speechtok.pretrained import load_network, load_part, settings_of
from speechtok.tokenizers.codec import torch_device
from speechtok.tokenizers.fingerprint import fingerprint_of

STEP = 0.01
"""Seconds of one frame of PocketSphinx."""
QUIET = 0.2
"""Seconds of the stretch whose loudness decides where long audio is cut."""

VOCABULARY_SETTINGS = (
    "special_tokens_map", "word_delimiter_token", "replace_word_delimiter_char", "do_lower_case",
    "clean_up_tokenization_spaces", "target_lang",
)  # fmt: skip
"""Attributes of a slow tokenizer of ``transformers`` that change its ids or texts."""


class Transcript(NamedTuple):
    """What was said: words separated by single spaces, and their first and past-the-last samples, ``[W, 2]``."""

    text: str
    times: np.ndarray | None


class Recogniser(Protocol):
    """Anything that hears words."""

    sample_rate: int

    @property
    def facts(self) -> Any:
        """What decides the words, as JSON values, for the fingerprint."""

    def section(self) -> dict[str, Any]:
        """The part of ``config.json`` from which it is made again."""

    def transcribe(self, samples: np.ndarray) -> Transcript:
        """``samples[T]`` at ``sample_rate``; an empty text where there are no words."""


class PocketSphinx:
    """The English model that comes with PocketSphinx: no download, word times, many more errors than neural ones."""

    sample_rate = 16000

    def __init__(self, **search: Any) -> None:
        """
        Args:
            search: settings of its decoder, such as ``fwdflat=False``.

        Raises:
            ConfigError: PocketSphinx is not installed, or refuses the settings.
        """
        try:
            import pocketsphinx
        except ImportError as error:
            raise ConfigError("this recogniser needs pocketsphinx; pip install 'speechtok[text]'") from error
        # live normalisation would carry the level of one utterance into the next
        fixed = {"samprate": self.sample_rate, "cmn": "batch", "loglevel": "FATAL"}
        try:
            self._decoder: Any = pocketsphinx.Decoder(**fixed, **search)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"pocketsphinx refuses the search settings {search} ({error}); mend them") from error
        self._search = {"search": search} if search else {}
        self._expected: dict[str, str] = {}

    def phones(self, word: str) -> str | None:
        """How its dictionary says a word, phones between spaces; None where it does not know it."""
        return self._decoder.lookup_word(word)

    def expect(self, words: Mapping[str, str], grams: str) -> None:
        """Understand by another language model from now on.

        Args:
            words: phones of words that the dictionary lacks.
            grams: the model in the ARPA format.

        Raises:
            ConfigError: it refuses the model.
        """
        for word, phones in words.items():
            self._decoder.add_word(word, phones, False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "expected.arpa"
            path.write_text(grams, encoding="utf-8")
            try:
                self._decoder.add_lm_file("expected", str(path))
                self._decoder.activate_search("expected")
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(f"pocketsphinx refuses the language model ({error}); mend it") from error
        digest = hashlib.sha256(json.dumps([dict(words), grams]).encode()).hexdigest()[:16]
        self._expected = {"expected": digest}

    @property
    def facts(self) -> Any:
        return ["pocketsphinx", version("pocketsphinx"), *self._search.values(), *self._expected.values()]

    def section(self) -> dict[str, Any]:
        return {"kind": "pocketsphinx", **self._search}

    def transcribe(self, samples: np.ndarray) -> Transcript:
        self._decoder.reinit_feat()  # or the front end carries something of the last utterance into this one
        self._decoder.start_utt()
        self._decoder.process_raw(pcm16(samples), full_utt=True)
        self._decoder.end_utt()
        # pronunciations are numbered, as in "read(2)"; silence and noises stand in brackets
        found = [
            (part.word.partition("(")[0], part.start_frame, part.end_frame + 1) for part in self._decoder.seg() or ()
        ]
        words = [(word, start, end) for word, start, end in found if word and word[0] not in "<["]
        times = np.array([span[1:] for span in words], np.int64).reshape(-1, 2) * round(STEP * self.sample_rate)
        return Transcript(" ".join(word for word, *_ in words), times.clip(max=len(samples)))


class TransformersRecogniser:
    """A CTC or sequence-to-sequence recogniser of ``transformers``; a CTC one gives word times."""

    def __init__(self, network: Any, processor: Any, reference: str, device: str = "cpu"):
        """
        Args:
            network: ``AutoModelForCTC`` or ``AutoModelForSpeechSeq2Seq``.
            processor: its feature extractor and tokenizer.
            reference: folder or Hub id that both were loaded from.
            device: anything torch understands.
        """
        self.network = network.float().eval().requires_grad_(False).to(torch_device(device))
        self.processor, self.reference = processor, reference
        self.sample_rate = processor.feature_extractor.sampling_rate
        self.generates = network.can_generate()
        kernels, strides = (getattr(network.config, key, ()) for key in ("conv_kernel", "conv_stride"))
        self.shortest = FrameLaw.of_convolutions(self.sample_rate, kernels, strides).window

    @classmethod
    def load(cls, name: str, reference: str | None = None, device: str = "cpu") -> TransformersRecogniser:
        """From a folder or a Hub id.

        Raises:
            CheckpointError: ``transformers`` is not installed, or it is no recogniser that it can load; see
                ``pretrained.load_network``.
        """
        what = "recogniser"
        config = load_part("AutoConfig", name, what)
        kind = "CTC" if any(one.endswith("CTC") for one in config.architectures or ()) else "SpeechSeq2Seq"
        network = load_network(f"AutoModelFor{kind}", name, what, config=config)
        return cls(network, load_part("AutoProcessor", name, what), reference or name, device)

    @property
    def facts(self) -> Any:
        network, processor = self.network, self.processor
        settings = [settings_of(network.config), settings_of(processor.feature_extractor)]
        settings += [settings_of(network.generation_config)] if self.generates else []
        weights = fingerprint_of(settings, network.state_dict())
        return ["transformers", self.sample_rate, weights, vocabulary_facts(processor.tokenizer)]

    def section(self) -> dict[str, Any]:
        return {"kind": "transformers", "model": self.reference}

    @torch.inference_mode()
    def transcribe(self, samples: np.ndarray) -> Transcript:
        samples_heard = len(samples)
        samples = np.pad(samples, (0, max(0, self.shortest - len(samples))))  # or the convolutions give no frame
        heard = self.processor.feature_extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        heard = heard.to(self.network.device)
        if self.generates:
            ids = self.network.generate(**heard)[0]
            return Transcript(" ".join(self.processor.tokenizer.decode(ids, skip_special_tokens=True).split()), None)
        ids = self.network(**heard).logits[0].argmax(-1)
        said = self.processor.tokenizer.decode(ids, output_word_offsets=True)
        step = self.network.config.inputs_to_logits_ratio
        spans = [(part["start_offset"] * step, part["end_offset"] * step) for part in said.word_offsets]
        times = np.array(spans, np.int64).reshape(-1, 2).clip(max=samples_heard)
        return Transcript(" ".join(part["word"] for part in said.word_offsets), times)


def vocabulary_facts(tokenizer: Any) -> list[Any]:
    """All that decides the ids and texts of a tokenizer of ``transformers``, as JSON values, for fingerprints."""
    if hasattr(tokenizer, "backend_tokenizer"):  # merges and normaliser included
        return [type(tokenizer).__name__, tokenizer.backend_tokenizer.to_str()]
    settings = {key: getattr(tokenizer, key, None) for key in VOCABULARY_SETTINGS}
    with tempfile.TemporaryDirectory() as folder:  # its own files tell of merges where there are any
        written = sorted(Path(one) for one in tokenizer.save_vocabulary(folder) if one)
        files = [[path.name, path.read_text(encoding="utf-8")] for path in written]
    return [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), settings, files]


def load_recogniser(section: dict[str, Any], device: str = "cpu") -> Recogniser:
    """The recogniser that ``section`` of ``config.json`` describes, whose ``model`` is a folder or Hub id.

    Raises:
        CheckpointError: it describes none, or it cannot be loaded.
        ConfigError: a package is missing.
    """
    if section.get("kind") == "pocketsphinx":
        torch_device(device)
        search = section.get("search", {})
        if not isinstance(search, dict):
            raise CheckpointError(f"recogniser {section!r}: search must be a mapping of settings; restore it")
        return PocketSphinx(**search)
    if section.get("kind") == "transformers" and isinstance(section.get("model"), str):
        return TransformersRecogniser.load(section["model"], device=device)
    raise CheckpointError(f"recogniser {section!r}: kind must be pocketsphinx, or transformers with a model")


def pieces(samples: np.ndarray, rate: int, longest: float) -> Iterator[slice]:
    """Stretches of at most ``longest`` seconds that cover ``samples[T]``, each cut where its second half is quietest.

    Recognisers keep all of an utterance in memory, and Whisper hears no more than 30 s; a cut in a pause costs no word.
    """
    longest_piece, stretch = max(2, round(longest * rate)), max(1, round(QUIET * rate))
    start = 0
    while len(samples) - start > longest_piece:
        low = start + longest_piece // 2
        power = np.cumsum(np.square(samples[low : start + longest_piece], dtype=np.float64))
        width = min(stretch, len(power) - 1)
        cut = low + int(np.argmin(power[width:] - power[:-width])) + width // 2 + 1 if width else low
        yield slice(start, cut)
        start = cut
    yield slice(start, len(samples))
