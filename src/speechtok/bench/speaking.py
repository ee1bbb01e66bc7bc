"""How well text is spoken: words understood, voice taken over, pace kept, by sentence of a manifest.

python -m speechtok.bench.speaking --model DIR --data MANIFEST.tsv --split test --sentences 20 -o result.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import speechtok
from speechtok.audio import Audio, probe, read, write
from speechtok.bench.conversion import Tools, table
from speechtok.bench.judge import POCKETSPHINX, error_scores, load_judge
from speechtok.bench.metrics import UNREADABLE, Score
from speechtok.bench.recognition import NORMALISER, Item, choose_utterances
from speechtok.bench.reconstruction import versions
from speechtok.bench.scoring import score_row
from speechtok.bench.statistics import summarize
from speechtok.bench.voice import RESEMBLYZER, Remembered, load_encoder, voice_cosine
from speechtok.chain.decoding import SearchConfig, recognise
from speechtok.chain.saved import digest_of
from speechtok.chain.synthesis import S2A, SHORTEST_PROMPT, T2S, Speaker, load_speaker, tokenizer_of
from speechtok.chain.t2s import Sampling
from speechtok.chain.transcriber import Transcriber
from speechtok.errors import AudioError, ConfigError, SpeechtokError, run_module
from speechtok.files import make_folder, write_text_atomic
from speechtok.guidance.verification import UNNAMED
from speechtok.guidance.writing import plain
from speechtok.nn.unmasking import UnmaskingConfig
from speechtok.train.data import evenly, read_manifest

FORMAT, VERSION = "speechtok.speaking", 1
SPOKEN, REVOICED, RESYNTHESIS, RECORDING = "spoken", "revoiced", "resynthesis", "recording"
"""The text as it was spoken; the semantic tokens of the recording of that text with the acoustic model's levels in the
other voice, which is what a perfect text-to-semantic model would give; the recording from its own tokens; itself."""
ROLES = (SPOKEN, REVOICED, RESYNTHESIS, RECORDING)
MEASURES = {
    "judge_wer": "judge WER ↓",
    "judge_cer": "judge CER ↓",
    "asr_wer": "token recogniser WER ↓",
    "asr_cer": "token recogniser CER ↓",
    "voice_cosine": "voice cosine to reference ↑",
    "duration_ratio": "duration over the recording's",
    "ran_on": "share without an end ↓",
}


class Sentence(NamedTuple):
    """What is said, and in whose voice: another utterance of the same speaker."""

    said: Item
    voice: Item


class Bench(NamedTuple):
    """What speaks and what listens."""

    speaker: Speaker
    tools: Tools
    asr: Transcriber | None
    sampling: Sampling
    unmasking: UnmaskingConfig


def choose_sentences(manifest: Path, split: str, count: int, seed: int = 0) -> list[Sentence]:
    """Transcribed utterances spread evenly over a split, each with a voice that is drawn; the same in every run.

    Raises:
        ConfigError: the manifest cannot be read, no named speaker has two utterances of which one is long enough, or
            ``count`` is below 1.
    """
    if count < 1:
        raise ConfigError(f"{count} sentences cannot be spoken; give --sentences a number above 0")
    items = [item for item in choose_utterances(manifest, split) if item[1].speaker.lower() not in UNNAMED]
    voices = [item for item in items if _seconds(item) >= SHORTEST_PROMPT]
    choices = []
    for item in items:
        others = [other for other in voices if other[1].speaker == item[1].speaker and other[0] != item[0]]
        if plain(item[1].text) and others:
            choices.append((item, others))
    if not choices:
        raise ConfigError(
            f"{manifest}: speaking needs a named speaker of {split!r} with a text and another utterance of at least"
            f" {SHORTEST_PROMPT:g} s"
        )
    draws = np.random.default_rng(seed)
    chosen = [choices[place] for place in evenly(len(choices), count)]
    return [Sentence(item, others[draws.integers(len(others))]) for item, others in chosen]


def _seconds(item: Item) -> float:
    try:
        return probe(item[1].path).seconds
    except AudioError:
        return 0.0


def load_listener(folder: str | Path, speaker: Speaker) -> Transcriber:
    """A recogniser that hears the speaker's semantic tokens.

    Raises:
        CheckpointError: it cannot be read, or knows other codes.
        ConfigError: it hears acoustic levels, too.
    """
    asr = Transcriber.load(folder, SearchConfig(), speaker.tokenizer)
    levels = len(asr.model.config.sizes)
    if levels != 1:
        raise ConfigError(f"{folder}: hears {levels} levels; semantic tokens are one, train a recogniser with levels=1")
    return asr


def evaluate(bench: Bench, sentences: Sequence[Sentence], seed: int, audio: Path | None) -> dict[str, Any]:
    """Speak and rate every sentence; plain types: ``n``, ``summary`` (a row per role and measure) and ``sentences``."""
    scores: dict[str, list[dict[str, Score]]] = {role: [] for role in ROLES}
    rows = []
    for place, sentence in enumerate(tqdm(sentences, desc="speaking", unit="sentence", disable=None)):
        found, sounds = rated(bench, sentence, seed + place)
        for role, one in found.items():
            scores[role].append(one)
            who = {"said": sentence.said[0], "voice": sentence.voice[0], "text": plain(sentence.said[1].text)}
            rows.append(who | {"role": role} | score_row(one))
        if audio is not None:
            for role, sound in sounds.items():
                write(audio / f"{place + 1:03d}-{role}.wav", sound)
    summary = [
        {"measure": measure, "role": role} | summarize(one[measure] for one in found if measure in one).to_dict()
        for role, found in scores.items()
        for measure in MEASURES
        if any(measure in one for one in found)
    ]
    return {"n": len(sentences), "summary": summary, "sentences": rows}


def rated(bench: Bench, sentence: Sentence, seed: int) -> tuple[dict[str, dict[str, Score]], dict[str, Audio]]:
    """Scores by role and measure, and what was heard; whatever cannot be spoken fails with its reason."""
    own = bench.speaker.tokenizer
    try:
        recording, voice = (read(item[1].path).resample(own.sample_rate) for item in sentence)
    except AudioError:
        return {role: _failed(bench, UNREADABLE, role) for role in ROLES}, {}
    text, tokens = sentence.said[1].text, own.encode(recording)
    sounds = {RESYNTHESIS: own.decode(tokens), RECORDING: recording}
    found = {role: heard(bench, text, sound, voice) for role, sound in sounds.items()}
    found[RECORDING] |= understood(bench, text, tokens.codes[0])
    try:
        written, prompt = bench.speaker.written(text), bench.speaker.prompt(voice)
        revoiced = bench.speaker.sound(tokens.codes[0], prompt, seed, bench.unmasking)
        semantic = bench.speaker.t2s.generate([written], [prompt[0]], True, bench.sampling, seed)[0]
        spoken = bench.speaker.sound(semantic, prompt, seed, bench.unmasking)
    except SpeechtokError as error:
        return {role: _failed(bench, str(error), role) for role in (SPOKEN, REVOICED)} | found, sounds
    found[SPOKEN] = heard(bench, text, spoken, voice) | understood(bench, text, semantic)
    found[SPOKEN]["duration_ratio"] = Score("duration_ratio", spoken.seconds / recording.seconds)
    ran_on = len(semantic) >= bench.speaker.t2s.room(written, prompt[0], True, bench.sampling)
    found[SPOKEN]["ran_on"] = Score("ran_on", float(ran_on))
    found[REVOICED] = heard(bench, text, revoiced, voice)
    return found, {SPOKEN: spoken, REVOICED: revoiced, **sounds}


def heard(bench: Bench, text: str, sound: Audio, voice: Audio) -> dict[str, Score]:
    """What the judge and the speaker network hear."""
    wer, cer = error_scores(text, bench.tools.judge.transcribe(sound))
    return {"judge_wer": wer, "judge_cer": cer, "voice_cosine": voice_cosine(bench.tools.encoder, sound, voice)}


def understood(bench: Bench, text: str, semantic: np.ndarray) -> dict[str, Score]:
    """What the token recogniser reads from semantic codes ``[N]``; nothing without one."""
    if bench.asr is None:
        return {}
    read_text = bench.asr.vocabulary.decode(recognise(bench.asr.model, semantic[None], bench.asr.search))
    return dict(zip(("asr_wer", "asr_cer"), error_scores(text, read_text), strict=True))


def _failed(bench: Bench, reason: str, role: str) -> dict[str, Score]:
    left = set() if role == SPOKEN else {"duration_ratio", "ran_on"}
    left |= {"asr_wer", "asr_cer"} if bench.asr is None or role in (REVOICED, RESYNTHESIS) else set()
    return {name: Score(name, None, reason) for name in MEASURES if name not in left}


def markdown(document: dict[str, Any]) -> str:
    """The table for people."""
    settings = document["settings"]
    known = settings["speakers_in_train"]
    seen = f"voices that the train rows have, too: {', '.join(known) or 'none'}"
    return (
        f"{document['n']} sentences of {settings['data']}, split {settings['split']}, each in the voice of another"
        f" utterance of its speaker; {seen}. Judge {settings['judge']}, voices {settings['encoder']}. Mean [95 %"
        f" interval over sentences].\n\n{table(document['summary'], MEASURES, 'speech')}\n`{REVOICED}` is what the"
        " acoustic model makes of the recording's semantic tokens in the other voice: the best that it could say of"
        f" any text. `{RESYNTHESIS}` is the recording decoded from all its own levels, `{RECORDING}` the recording.\n"
    )


def speakers_in_train(manifest: Path, sentences: Sequence[Sentence]) -> list[str]:
    """Voices that a model trained on the manifest has heard."""
    try:
        trained = {utterance.speaker for utterance in read_manifest(manifest, "train")}
    except ConfigError:  # a manifest of tests alone
        trained = set()
    return sorted({sentence.voice[1].speaker for sentence in sentences} & trained)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: writes the JSON file and prints the table."""
    options = _parser().parse_args(arguments)
    sentences = choose_sentences(options.data, options.split, options.sentences, options.seed)
    tools = Tools(load_judge(options.judge), Remembered(load_encoder(options.encoder)))
    error_scores("a", "a")  # a missing package is said before any work
    own = speechtok.load(options.tokenizer) if options.tokenizer else tokenizer_of(options.model, speechtok.load)
    speaker = load_speaker(options.model, own)
    asr = load_listener(options.asr, speaker) if options.asr else None
    audio = make_folder(options.audio) if options.audio else None
    bench = Bench(speaker, tools, asr, Sampling(), UnmaskingConfig((options.passes,)))
    found = evaluate(bench, sentences, options.seed, audio)
    settings = {
        "data": options.data.name, "split": options.split, "sentences": options.sentences, "seed": options.seed,
        "passes": options.passes,
        "judge": tools.judge.name, "encoder": tools.encoder.name, "normaliser": NORMALISER, "confidence": 0.95,
        "speakers_in_train": speakers_in_train(options.data, sentences),
    }  # fmt: skip
    models = {part: digest_of(options.model / part) for part in (T2S, S2A)}
    models |= {"asr": digest_of(options.asr)} if options.asr else {}
    document = {"format": FORMAT, "version": VERSION, "settings": settings, "models": models}
    document |= {"tokenizer": speaker.tokenizer.describe(), "versions": versions(), **found}
    write_text_atomic(options.output, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(markdown(document))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.speaking", description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="folder with models in t2s/ and s2a/")
    parser.add_argument("--tokenizer", metavar="MODEL", help="name or folder (default: the one that the models know)")
    parser.add_argument("--data", required=True, type=Path, help="manifest with the columns path, split, speaker, text")
    parser.add_argument("--split", default="test")
    parser.add_argument("--sentences", type=int, default=20, metavar="N", help="spread over the split (default: 20)")
    parser.add_argument("--judge", default=POCKETSPHINX, help="pocketsphinx[:MANIFEST:SPLIT], or one of transformers")
    parser.add_argument("--encoder", default=RESEMBLYZER, help="resemblyzer, or an ECAPA-TDNN: file, folder or Hub id")
    parser.add_argument(
        "--passes", type=int, default=16, metavar="N", help="over the first acoustic level (default: 16)"
    )
    parser.add_argument("--asr", type=Path, metavar="DIR", help="a token recogniser that reads the semantic tokens")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="keeps everything that is heard as WAV files")
    parser.add_argument("--seed", type=int, default=0, help="of voices and of what is drawn")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="JSON with every sentence")
    return parser


if __name__ == "__main__":
    run_module(main)
