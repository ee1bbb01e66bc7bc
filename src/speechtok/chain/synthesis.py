"""Speech from text in the voice of a recording: text -> semantic tokens -> acoustic tokens -> codec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speechtok.audio import Audio
from speechtok.chain.s2a import KIND, load_s2a
from speechtok.chain.saved import known_tokenizer, read_header, require_tokens
from speechtok.chain.t2s import Sampling, TextToSemantic, load_t2s
from speechtok.chain.text import TextVocabulary
from speechtok.errors import AudioError, CheckpointError
from speechtok.nn.soundstorm import SoundStorm
from speechtok.nn.unmasking import UnmaskingConfig, unmask
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import Tokens

T2S, S2A = "t2s", "s2a"
"""Folders of the two models inside that of a speaker."""
BUNDLED = Path(__file__).parents[1] / "models" / "tokenchain"
SHORTEST_PROMPT = 1.0
"""Seconds of a reference from which a voice can be told."""
LONGEST_PROMPT = 3.0
"""Seconds of a reference that are heard, from its beginning, as in training."""


@dataclass
class Speaker:
    """Models that speak together; see ``load_speaker``."""

    tokenizer: Tokenizer
    t2s: TextToSemantic
    vocabulary: TextVocabulary
    s2a: SoundStorm

    def say(
        self,
        text: str,
        voice: Audio,
        seed: int = 0,
        sampling: Sampling | None = None,
        unmasking: UnmaskingConfig | None = None,
    ) -> Audio:
        """Speak ``text`` as ``voice`` sounds, without repeating it.

        The semantic tokens of the reference are the prefix of those of the text, its acoustic ones the prompt of the
        acoustic model. What is said in the reference is not asked for: the prefix is marked as speech of another text,
        as a share of the training's are (``prefix.other``; without any, a model does not know this mark). So it passes
        on how somebody speaks (rate, rhythm, accent), while no model can align its words with text; a transcript would
        make it a plain continuation, and more faithful.

        Args:
            voice: of any rate; of long recordings the first seconds count.
            seed: of all draws.

        Raises:
            AudioError: the reference is too short to tell a voice.
            ConfigError: the text has no word, unknown symbols, or is too long.
        """
        written, prompt = self.written(text), self.prompt(voice)
        semantic = self.t2s.generate([written], [prompt[0]], True, sampling, seed)[0]
        return self.sound(semantic, prompt, seed, unmasking)

    def written(self, text: str) -> np.ndarray:
        """Numbers of a text; raises ConfigError where it has no word or unknown symbols."""
        return np.array(self.vocabulary.encode(text), np.int64)

    def prompt(self, voice: Audio) -> np.ndarray:
        """Codes ``[Q, P]`` of a reference.

        Raises:
            AudioError: it is too short to tell a voice.
        """
        require_voice(voice)
        heard = voice.resample(self.tokenizer.sample_rate).samples
        heard = heard[: round(LONGEST_PROMPT * self.tokenizer.sample_rate)]
        return self.tokenizer.encode(Audio(heard, self.tokenizer.sample_rate), self.s2a.levels).codes.astype(np.int64)

    def sound(
        self, semantic: np.ndarray, prompt: np.ndarray, seed: int = 0, unmasking: UnmaskingConfig | None = None
    ) -> Audio:
        """Sound of semantic codes ``[N]`` in the voice of ``prompt[Q, P]``, which is cut off again."""
        device = next(self.s2a.parameters()).device
        given = (torch.tensor(part, device=device)[None] for part in (semantic, prompt))
        codes = unmask(self.s2a, *given, config=unmasking, seed=seed)[0].cpu().numpy()
        # decoded together, so that the first frames have their past
        samples = self.tokenizer.decode(self._tokens(codes)).samples
        return Audio(samples[prompt.shape[1] * self.tokenizer.hop :], self.tokenizer.sample_rate)

    def _tokens(self, codes: np.ndarray) -> Tokens:
        own = self.tokenizer
        return Tokens(
            codes=codes,
            codebook_sizes=own.codebook_sizes[: len(codes)],
            sample_rate=own.sample_rate,
            hop=own.hop,
            num_samples=codes.shape[1] * own.hop,
            semantic_levels=tuple(level for level in own.semantic_levels if level < len(codes)),
            tokenizer=own.name,
            fingerprint=own.fingerprint,
        )


def require_voice(voice: Audio, name: str = "the reference") -> None:
    """Raise AudioError where a voice cannot be told from a reference, because it is too short."""
    if voice.seconds < SHORTEST_PROMPT:
        raise AudioError(
            f"{name}: a voice of {voice.seconds:.2f} s is too short; give at least {SHORTEST_PROMPT:g} s of speech,"
            f" better {LONGEST_PROMPT:g}"
        )


def tokenizer_of(folder: str | Path, load: Callable[[str], Tokenizer]) -> Tokenizer:
    """The tokenizer whose codes a speaker's models know, loaded by its name.

    Raises:
        CheckpointError: there is no speaker, or its tokenizer is not found by that name.
    """
    part = _parts(folder)[1]
    return known_tokenizer(read_header(part, KIND), part, load)


def load_speaker(folder: str | Path, tokenizer: Tokenizer) -> Speaker:
    """The speaker of a folder that holds the folders ``t2s`` and ``s2a``.

    Args:
        tokenizer: whose codes both know, and which makes the sound.

    Raises:
        CheckpointError: a model is missing, damaged, or was trained on other codes than ``tokenizer`` makes.
    """
    first, second = _parts(folder)
    t2s, vocabulary, about_t2s = load_t2s(first)
    s2a, about_s2a = load_s2a(second)
    require_tokens(about_t2s, tokenizer, first)
    require_tokens(about_s2a, tokenizer, second)
    sizes = (t2s.config.semantic, *s2a.config.codebook_sizes)
    if sizes != (tokenizer.codebook_sizes[0], *tokenizer.codebook_sizes[: s2a.levels]):
        raise CheckpointError(f"{folder}: its models know codebooks {sizes}, not {tokenizer.name}'s; train them again")
    return Speaker(tokenizer, t2s, vocabulary, s2a)


def _parts(folder: str | Path) -> tuple[Path, Path]:
    parts = Path(folder) / T2S, Path(folder) / S2A
    for part in parts:
        if not part.is_dir():
            raise CheckpointError(
                f"{part}: no such folder; a speaker is a folder with the models of 'speechtok train {T2S}' and"
                f" '{S2A}' in {T2S}/ and {S2A}/"
            )
    return parts
