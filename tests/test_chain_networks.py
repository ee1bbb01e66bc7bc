"""Networks of the recogniser: padding, causality, cached decoding, losses, folders."""

import json

import pytest
import torch

from speechtok.chain.recogniser import (
    EOS,
    Recogniser,
    RecogniserConfig,
    load_recogniser,
    save_recogniser,
    time_masks,
)
from speechtok.chain.saved import require_tokens
from speechtok.chain.text import TextVocabulary
from speechtok.errors import CheckpointError, ConfigError
from speechtok.nn.ebranchformer import EBranchformer, EBranchformerConfig
from speechtok.nn.text_decoder import TextDecoder, TextDecoderConfig
from tiny import tiny_tokenizer
from tiny_chain import ENCODER, tiny_recogniser

TEXTS = ["the cat sat on the mat", "it's the other cat's mat", "that hat"]


def stirred(module: torch.nn.Module) -> torch.nn.Module:
    """With weights that all matter: the gates begin open and would hide what they see."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return module.eval()


@pytest.mark.parametrize("positions", ["relative", "rotary"])
def test_padding_changes_nothing_in_the_encoder(positions):
    encoder = stirred(EBranchformer(EBranchformerConfig(**ENCODER | {"blocks": 2, "positions": positions})))
    x, mask = torch.randn(2, 9, 8), torch.ones(2, 9, dtype=torch.bool)
    mask[1, 5:] = False
    alone, together = encoder(x[1:, :5]), encoder(x, mask)
    assert torch.allclose(together[1, :5], alone[0], atol=1e-5)
    assert torch.allclose(together[0], encoder(x[:1])[0], atol=1e-5)
    x[1, 5:] = 100.0
    assert torch.allclose(encoder(x, mask)[1, :5], alone[0], atol=1e-5)


def test_both_branches_reach_the_result():
    encoder = stirred(EBranchformer(EBranchformerConfig(**ENCODER)))
    encoder(torch.randn(1, 30, 8)).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in encoder.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 10, "heads": 4}, r"encoder\.width=10"),
        ({"kernel": 4}, "must be odd"),
        ({"gated": 7}, r"encoder\.gated=7"),
        ({"dropout": 1.0}, r"encoder\.dropout"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        EBranchformerConfig(**change)


def test_the_decoder_knows_only_what_was_said_and_steps_give_the_same():
    torch.manual_seed(0)
    decoder = TextDecoder(TextDecoderConfig(heads=2, blocks=2, feed_forward=16), 8, 11).eval()
    text, memory = torch.randint(2, 11, (2, 6)), torch.randn(2, 7, 8)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    rows = decoder(text, memory, mask)
    other = text.clone()
    other[:, 4:] = 3
    assert torch.allclose(decoder(other, memory, mask)[:, :4], rows[:, :4], atol=1e-6)
    assert torch.allclose(decoder(text[1:], memory[1:, :4])[0], rows[1], atol=1e-5)
    spoken = decoder.start(memory, mask)
    for place in range(text.shape[1]):
        logits, spoken = decoder.step(text[:, place], spoken)
        assert torch.allclose(logits, rows[:, place], atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"subsampling": 2}, {"subsampling": 4}, {"sizes": (12, 7), "table": 6}])
def test_padding_changes_nothing_in_the_recogniser(settings):
    model = stirred(tiny_recogniser(**settings))
    levels = len(settings.get("sizes", (12,)))
    codes, lengths = torch.randint(0, 7, (3, levels, 13)), torch.tensor([13, 6, 9])
    heard = model.hear(codes, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model.hear(codes[row : row + 1, :, :length], lengths[row : row + 1])
        count = int(alone.lengths[0])
        assert count == -(-length // settings.get("subsampling", 1)) == int(heard.lengths[row])
        assert torch.allclose(heard.states[row, :count], alone.states[0], atol=1e-5)


def test_losses_are_means_over_symbols_and_count_what_ctc_cannot_say():
    model = tiny_recogniser(smoothing=0.0)
    codes, lengths = torch.randint(0, 12, (2, 1, 8)), torch.tensor([8, 2])
    text, text_lengths = torch.tensor([[2, 3, 3, 4], [5, 6, 7, 0]]), torch.tensor([4, 3])
    losses = model.losses(codes, lengths, text, text_lengths)
    rows = model.spell(model.hear(codes, lengths), text).log_softmax(-1)
    said = [(0, [2, 3, 3, 4, EOS]), (1, [5, 6, 7, EOS])]
    nats = [-rows[row, i, symbol] for row, symbols in said for i, symbol in enumerate(symbols)]
    assert losses["asr/attention"].item() == pytest.approx(torch.stack(nats).mean().item(), rel=1e-5)
    assert losses["impossible/ctc"].item() == 0.5  # three symbols in two frames
    alone = model.losses(codes[:1], lengths[:1], text[:1], text_lengths[:1])
    assert losses["asr/ctc"].item() == pytest.approx(alone["asr/ctc"].item(), rel=1e-5)
    short = model.losses(codes[1:, :, :2], lengths[1:], text[1:, :3], text_lengths[1:])
    assert short["asr/ctc"].item() == 0 and short["impossible/ctc"].item() == 1
    sum(short.values()).backward()
    assert model.teacher_forced_logits(codes, lengths, text).equal(model.spell(model.hear(codes, lengths), text)[:, :4])


def test_masks_hide_at_most_their_share_and_only_in_training():
    torch.manual_seed(0)
    config = RecogniserConfig(symbols=9, time_masks=3, time_mask_share=0.1)
    lengths = torch.tensor([100, 40])
    hidden = torch.stack([time_masks(lengths, 100, config) for _ in range(50)])
    assert 0 < hidden[:, 0].sum(-1).max() <= 30 and hidden[:, 1].sum(-1).max() <= 12
    assert not hidden[:, 1, 40:].any()
    model, codes = tiny_recogniser(time_masks=5, time_mask_share=0.5), torch.randint(0, 12, (1, 1, 20))
    assert model.hear(codes, torch.tensor([20])).states.equal(model.hear(codes, torch.tensor([20])).states)
    model.train()
    assert not model.hear(codes, torch.tensor([20])).states.equal(model.hear(codes, torch.tensor([20])).states)


def test_a_folder_gives_the_same_recogniser_and_refuses_what_does_not_belong_to_it(tmp_path):
    pytest.importorskip("tokenizers", reason="text vocabularies are made by tokenizers")
    vocabulary = TextVocabulary.train(TEXTS, 40)
    model = tiny_recogniser(symbols=vocabulary.size, sizes=(12, 7))
    tokens = {"tokenizer": "tiny", "fingerprint": "0123"}
    save_recogniser(model, vocabulary, tmp_path, tokens, {"steps": 3})
    loaded, known, header = load_recogniser(tmp_path)
    assert known.digest == vocabulary.digest and header["tokens"] == tokens and header["card"] == {"steps": 3}
    codes = torch.randint(0, 7, (1, 2, 9))
    assert loaded.hear(codes, torch.tensor([9])).states.equal(model.hear(codes, torch.tensor([9])).states)
    with pytest.raises(CheckpointError, match="codes of tiny"):
        require_tokens(header, tiny_tokenizer(), tmp_path)
    other = TextVocabulary.train([*TEXTS, "zebra zebra"], 41)
    (tmp_path / "text.json").write_text(other.to_json())
    with pytest.raises(CheckpointError, match="is not the vocabulary of this model"):
        load_recogniser(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(about | {"format": "speechtok.t2s"}))
    with pytest.raises(CheckpointError, match=r"no configuration of a speechtok\.asr model"):
        load_recogniser(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_recogniser(tmp_path / "none")


def test_a_recogniser_needs_text_and_settings_in_range():
    with pytest.raises(ConfigError, match=r"network\.symbols=0"):
        Recogniser(RecogniserConfig())
    with pytest.raises(ConfigError, match=r"network\.eta is 2"):
        RecogniserConfig(eta=2)
