"""Speech from text: the prompt is heard and cut off, voices and texts that cannot be are refused, the command."""

import json

import numpy as np
import pytest
import soundfile
import torch

import speechtok
from speechtok.audio import Audio, write
from speechtok.chain.saved import tokens_section
from speechtok.chain.synthesis import Speaker, load_speaker, tokenizer_of
from speechtok.chain.t2s import Sampling, save_t2s
from speechtok.errors import AudioError, CheckpointError, ConfigError
from tiny import HOP, RATE, signal, tiny_tokenizer

pytest.importorskip("transformers", reason="the speaker's network is that of transformers")
pytest.importorskip("tokenizers", reason="its text is that of tokenizers")

from tiny_speaking import tiny_s2a, tiny_speaker, tiny_t2s, tiny_vocabulary

TEXT = "that cat sat"


@pytest.fixture(scope="module")
def speaker(model):
    """Of the session's tiny tokenizer, with room for a prompt of 3 s at 200 frames a second."""
    return Speaker(model, tiny_t2s(positions=1500), tiny_vocabulary(), tiny_s2a())


def test_speech_is_seeded_and_begins_after_the_prompt(speaker):
    voice = signal(1.2)
    spoken = speaker.say(TEXT, voice, seed=1)
    assert spoken.rate == RATE and len(spoken.samples) % HOP == 0
    assert np.array_equal(spoken.samples, speaker.say(TEXT, voice, seed=1).samples)
    other = speaker.say(TEXT, voice, seed=2).samples
    assert other.shape != spoken.samples.shape or not np.array_equal(other, spoken.samples)


def test_the_sound_is_the_codecs_without_the_prompt(speaker, model):
    prompt = speaker.prompt(signal(1.0))
    assert prompt.shape == (4, 200)
    semantic = np.arange(20) % 32
    sound = speaker.sound(semantic, prompt)
    assert len(sound.samples) == 20 * HOP
    codes = model.encode(Audio(signal(1.0).samples, RATE)).codes
    assert np.array_equal(prompt, codes)


def test_of_a_long_voice_the_beginning_counts(speaker):
    long = signal(5.0)
    assert np.array_equal(speaker.prompt(long), speaker.prompt(Audio(long.samples[: 3 * RATE], RATE)))


@pytest.mark.parametrize(
    ("text", "seconds", "error", "message"),
    [
        (TEXT, 0.9, AudioError, "a voice of 0.90 s is too short; give at least 1 s"),
        ("", 1.2, ConfigError, "has no word"),
        ("  ?!  ", 1.2, ConfigError, "has no word"),
        ("Wörter", 1.2, ConfigError, "unknown symbols"),
        ("that cat sat " * 40, 1.2, ConfigError, "room for 1500; give shorter ones"),
    ],
)
def test_what_cannot_be_spoken_is_refused(speaker, text, seconds, error, message):
    with pytest.raises(error, match=message):
        speaker.say(text, signal(seconds), sampling=Sampling(ratio=20.0))


def test_what_ships_is_half_as_large_and_belongs_together(model, tmp_path):
    from speechtok.chain import release
    from speechtok.chain.recogniser import load_recogniser, save_recogniser
    from speechtok.chain.text import TextVocabulary
    from tiny_chain import tiny_recogniser

    folder, tokens, out = tiny_speaker(tmp_path / "speaker", model), tokens_section(model), tmp_path / "out"
    text, asr = tiny_vocabulary(), tmp_path / "asr"
    save_recogniser(tiny_recogniser(text.size, sizes=(32,)), text, asr, tokens, {"steps": 3})
    (tmp_path / "card.yaml").write_text("licence: CC0\n")
    parts = ["--asr", asr, "--t2s", folder / "t2s", "--s2a", folder / "s2a"]
    command = [*map(str, parts), "-o", str(out), "--card", str(tmp_path / "card.yaml")]
    assert release.main(command) == 0
    shipped, _, header = load_recogniser(out / "asr")
    assert header["card"] == {"licence": "CC0", "steps": 3} and header["tokens"] == tokens
    before, _, _ = load_recogniser(asr)
    for key, value in before.state_dict().items():
        assert torch.equal(shipped.state_dict()[key], value.half().float() if value.is_floating_point() else value)
    assert len(load_speaker(out, model).say(TEXT, signal(1.2)).samples)
    assert (out / "asr/model.safetensors").stat().st_size < 0.7 * (asr / "model.safetensors").stat().st_size
    save_recogniser(tiny_recogniser(text.size, sizes=(32,)), text, asr, tokens | {"fingerprint": "other"})
    with pytest.raises(ConfigError, match="different tokenizers"):
        release.main(command)
    other = TextVocabulary.train(["quite another text"], text.size)
    save_recogniser(tiny_recogniser(other.size, sizes=(32,)), other, asr, tokens)
    with pytest.raises(ConfigError, match="different text vocabularies"):
        release.main(command)


def test_a_folder_speaks_with_its_own_tokenizer_alone(model, tmp_path):
    folder = tiny_speaker(tmp_path / "speaker", model)
    assert load_speaker(folder, model).vocabulary.digest == tiny_vocabulary().digest
    with pytest.raises(CheckpointError, match="was trained on codes of tiny-frame"):
        load_speaker(folder, tiny_tokenizer("frame", seed=3))
    with pytest.raises(CheckpointError, match="no such folder; a speaker is a folder"):
        load_speaker(tmp_path / "nowhere", model)
    save_t2s(tiny_t2s(semantic=40), tiny_vocabulary(), folder / "t2s", tokens_section(model))
    with pytest.raises(CheckpointError, match="train them again"):
        load_speaker(folder, model)


def test_a_tokenizer_that_its_name_does_not_lead_to_is_asked_for(model, tmp_path):
    """As that of a tokenizer in a folder, whose name is the folder's last part."""
    folder = tiny_speaker(tmp_path / "speaker", model)
    assert tokenizer_of(folder, lambda name: model) is model
    with pytest.raises(CheckpointError, match=r"s2a: was trained on codes of 'tiny-frame' .* with --tokenizer or"):
        tokenizer_of(folder, speechtok.load)


def test_the_command_speaks(cli, model, tmp_path):
    write(tmp_path / "voice.wav", signal(1.1))
    folder = tiny_speaker(tmp_path / "speaker", model)
    options = ["--voice", tmp_path / "voice.wav", "-o", tmp_path / "out.wav", "--model", folder]
    code, out, err = cli("speak", "A cat!", *options, "--seed", 3, "--json")
    assert (code, err) == (0, [])
    fields = json.loads(out)
    wave, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == RATE and len(wave) / rate == pytest.approx(fields["seconds"]) and fields["tokenizer"] == "tiny-frame"


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("", {}, "has no word in it"),
        ("naïve", {}, "unknown symbols"),
        ("a cat", {"--voice": "short.wav"}, "short.wav: a voice of 0.50 s is too short; give at least 1 s"),
        ("a cat", {"--voice": "none.wav"}, "none.wav"),
        ("a cat", {"-o": "out.txt"}, "end the name in .wav"),
        ("a cat", {"--passes": "0"}, "give 1 or more passes"),
        ("a cat", {"-o": "voice.wav"}, "is also an input"),
        ("a cat", {"--model": "nowhere"}, "no such folder; a speaker is a folder"),
    ],
)
def test_bad_input_gives_one_line(cli, model, tmp_path, text, changes, message):
    write(tmp_path / "voice.wav", signal(1.1))
    write(tmp_path / "short.wav", signal(0.5))
    tiny_speaker(tmp_path / "speaker", model)
    options = {"--voice": "voice.wav", "-o": "out.wav", "--model": "speaker"} | changes
    words = {name: value if name == "--passes" else tmp_path / value for name, value in options.items()}
    code, _, err = cli("speak", text, *(word for pair in words.items() for word in pair))
    assert code == 2 and len(err) == 1 and message in err[0]
    assert not (tmp_path / "out.wav").exists()
