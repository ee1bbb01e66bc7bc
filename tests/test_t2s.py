"""Text to semantic tokens: sequences, losses, soft rows, generation, folders."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from speechtok.chain.t2s import Sampling, T2SConfig, Utterances, load_t2s, save_t2s
from speechtok.errors import CheckpointError, ConfigError

pytest.importorskip("transformers", reason="the speaker's network is that of transformers")
pytest.importorskip("tokenizers", reason="its text is that of tokenizers")

from tiny_speaking import tiny_t2s, tiny_vocabulary

TOKENS = {"tokenizer": "tiny", "fingerprint": "0123456789abcdef"}


@pytest.fixture
def said():
    """Three utterances of other lengths: without a prefix, with another's, with their own beginning."""
    draws = np.random.default_rng(0)
    text, prefix, semantic = (
        [draws.integers(low, high, size) for size in sizes]
        for low, high, sizes in ((2, 34, (4, 6, 3)), (0, 32, (0, 3, 5)), (0, 32, (9, 4, 7)))
    )
    return text, prefix, semantic, [False, True, False]


def test_sequences_are_text_mark_prefix_and_targets(said):
    model, (text, prefix, semantic, _) = tiny_t2s(), said
    ids, wanted = model.layout(Utterances.of(*said))
    assert (model.first, model.say, model.turn, model.end) == (34, 66, 67, 68)
    assert ids[0, :15].tolist() == [*text[0], 66, *(semantic[0] + 34), 68]
    assert ids[1, :15].tolist() == [*text[1], 66, *(prefix[1] + 34), 67, *(semantic[1] + 34)]
    assert ids[2, :17].tolist() == [*text[2], 66, *(prefix[2] + 34), *(semantic[2] + 34), 68]
    assert wanted.sum(1).tolist() == [10, 5, 8] and wanted[2].nonzero()[:, 0].tolist() == [*range(9, 17)]


def test_the_loss_is_that_of_the_targets(said):
    model = tiny_t2s()
    batch = Utterances.of(*said)
    ids, wanted = model.layout(batch)
    logits = model.network(input_ids=ids).logits[:, :-1]
    each = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")[wanted[:, 1:]]
    losses = model.losses(batch)
    assert losses["t2s/semantic"].item() == pytest.approx(each.mean().item(), abs=1e-5)
    assert 0 <= losses["accuracy/top-1"] <= losses["accuracy/top-10"] <= 1


def test_padding_changes_no_loss(said):
    model = tiny_t2s()
    single = [model.score(Utterances.of(*([part[i]] for part in said))).loss for i in range(3)]
    assert torch.allclose(model.score(Utterances.of(*said)).loss, torch.cat(single), atol=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
def test_one_hot_rows_equal_their_symbols_exactly(said, bf16):
    model, batch = tiny_t2s(), Utterances.of(*said)
    rows = F.one_hot(batch.text, 34).float()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        assert torch.equal(model.score(batch._replace(text=rows)).loss, model.score(batch).loss)


def test_gradients_reach_soft_rows_inside_the_text_alone(said):
    model, batch = tiny_t2s(), Utterances.of(*said)
    rows = torch.randn(3, 6, 34).softmax(-1).requires_grad_()
    model.losses(batch._replace(text=rows))["t2s/semantic"].backward()
    reached = rows.grad.abs().sum(2) > 0
    assert torch.equal(reached, torch.arange(6) < batch.text_lengths[:, None])


def test_the_gradient_of_a_soft_row_is_its_slope(said):
    model, batch = tiny_t2s().double(), Utterances.of(*said)
    model.vectors = lambda ids, batch: _mixed(model, ids, batch)
    rows = torch.randn(3, 6, 34).softmax(-1).double()
    direction = torch.randn_like(rows)
    rows.requires_grad_()
    model.score(batch._replace(text=rows)).loss.mean().backward()
    with torch.no_grad():
        there, back = (model.score(batch._replace(text=rows + h * direction)).loss.mean() for h in (3e-3, -3e-3))
    assert (rows.grad * direction).sum().item() == pytest.approx((there - back).item() / 6e-3, rel=1e-2)


def _mixed(model, ids, batch):
    """``vectors`` in float64."""
    table = model.network.model.embed_tokens.weight
    mixed = F.pad(batch.text @ table[:34], (0, 0, 0, ids.shape[1] - 6))
    return torch.where((torch.arange(ids.shape[1]) < batch.text_lengths[:, None])[..., None], mixed, table[ids])


def test_rows_of_another_vocabulary_are_refused(said):
    batch = Utterances.of(*said)
    with pytest.raises(ConfigError, match="give recogniser and speaker one vocabulary"):
        tiny_t2s().score(batch._replace(text=torch.zeros(3, 6, 33)))


def test_it_learns_to_spell(said):
    model, (text, _, _, foreign) = tiny_t2s().train(), said
    batch = Utterances.of(text, [[], [1], []], [np.repeat(one % 32, 2) for one in text], foreign)
    optimiser = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(80):
        loss = model.losses(batch)["t2s/semantic"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1
    spoken = model.eval().generate([text[0]], [[]], sampling=Sampling(temperature=0.0))[0]
    assert spoken.tolist() == np.repeat(text[0] % 32, 2).tolist()


def test_what_was_said_is_forgotten_in_training_alone(said):
    batch = Utterances.of(*said)
    model, plain = tiny_t2s(forget=0.6), tiny_t2s()
    with torch.no_grad():
        assert torch.equal(model.score(batch).loss, plain.score(batch).loss)
        torch.manual_seed(0)
        ids, wanted = model.train().layout(batch)
        vectors = torch.ones(*ids.shape, 16)
        kept = model._forgotten(vectors, wanted)
        assert kept[~wanted].eq(1).all() and {0.0, 16.0} == set(kept[wanted].sum(-1).tolist())
        first = model.score(batch).loss
        # of every utterance, the first target is told by text and prefix alone
        places = np.cumsum([0, *(len(one) + 1 for one in said[2][:-1])])
        assert torch.allclose(first[places], plain.score(batch).loss[places], atol=1e-6)
        assert not torch.equal(first, model.score(batch).loss)
    with pytest.raises(ConfigError, match=r"network\.forget"):
        tiny_t2s(forget=1.0)


def test_generation_is_seeded_batched_and_semantic_only(said):
    model, (text, prefix, *_) = tiny_t2s(), said
    drawn = model.generate(text, prefix, seed=1)
    assert all(np.array_equal(*pair) for pair in zip(drawn, model.generate(text, prefix, seed=1), strict=True))
    assert any(not np.array_equal(*pair) for pair in zip(drawn, model.generate(text, prefix, seed=2), strict=True))
    assert all(((one >= 0) & (one < 32)).all() and 1 <= len(one) <= 120 for one in drawn)
    greedy = Sampling(temperature=0.0)
    together = model.generate(text, prefix, sampling=greedy)
    alone = [model.generate([t], [p], sampling=greedy)[0] for t, p in zip(text, prefix, strict=True)]
    assert all(np.array_equal(*pair) for pair in zip(together, alone, strict=True))
    state = torch.get_rng_state()
    model.generate(text[:1], prefix[:1])
    assert torch.equal(state, torch.get_rng_state())


def test_the_longest_speech_goes_with_the_text():
    model = tiny_t2s()
    torch.nn.init.zeros_(model.network.lm_head.weight)
    with torch.no_grad():
        model.network.lm_head.weight[model.end] = -9 * model.network.model.norm.weight
    text = np.arange(2, 7)
    spoken = model.generate([text], [np.zeros(2)], sampling=Sampling(top_k=5, ratio=12.0))[0]
    assert len(spoken) <= 60
    with pytest.raises(ConfigError, match=r"this speaker has room for 400; give shorter ones"):
        model.generate([np.full(45, 3)], [np.zeros(2)])


def test_a_folder_gives_the_model_again(said, tmp_path):
    model, vocabulary = tiny_t2s(), tiny_vocabulary()
    save_t2s(model, vocabulary, tmp_path / "t2s", TOKENS)
    again, text, header = load_t2s(tmp_path / "t2s")
    batch = Utterances.of(*said)
    assert torch.equal(again.score(batch).loss, model.score(batch).loss)
    assert text.digest == vocabulary.digest and header["tokens"] == TOKENS


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "is no whole model"),
        (lambda folder: (folder / "text.json").unlink(), r"text\.json: cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{}"), r"no configuration of a speechtok\.t2s model"),
        (lambda folder: rewrite(folder, text="other"), "not the vocabulary of this model"),
        (lambda folder: rewrite(folder, version=2), "upgrade speechtok"),
        (lambda folder: rewrite(folder, tokens=None), "does not say whose codes"),
        (lambda folder: rewrite(folder, network={"text": 34, "width": 15}), "is no whole model"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, damage, message):
    save_t2s(tiny_t2s(), tiny_vocabulary(), tmp_path, TOKENS)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_t2s(tmp_path)


def rewrite(folder, **changes):
    """Change entries of a header."""
    header = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(header | changes))


@pytest.mark.parametrize("change", [{"width": 6}, {"layers": 0}, {"semantic": 1}, {"dropout": 1.0}])
def test_shapes_that_cannot_be_are_refused(change):
    with pytest.raises(ConfigError, match=f"network.{next(iter(change))}"):
        T2SConfig(**change)


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "does not"])
def test_what_the_text_is_worth_shows_whether_it_is_read(said, reads):
    pytest.importorskip("accelerate", reason="the trainer's devices are those of accelerate")
    from speechtok.train.devices import Devices
    from speechtok.train.pairs import Pairs
    from speechtok.train.spoken import PrefixConfig, Prefixes
    from speechtok.train.t2s import batch_of, figures

    text = said[0]
    codes = [np.repeat(one % 32, 2)[None] if reads else np.full((1, 8), 3) for one in text]
    pairs = Pairs(50.0, "tiny", tiny_vocabulary(), ["a", "b", "c"], [""] * 3, [""] * 3, codes, text)
    prefixes, model = Prefixes.of(pairs, PrefixConfig(seconds=0)), tiny_t2s().train()
    batch = batch_of(pairs, prefixes, np.arange(3), [np.zeros(4)] * 3)
    optimiser = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(60):
        optimiser.zero_grad()
        model.losses(batch)["t2s/semantic"].backward()
        optimiser.step()
    with torch.inference_mode():
        found = figures(model.eval(), pairs, prefixes, 3, Devices())
    assert found["t2s/semantic"] < 0.5 and (found["text/gain"] > 1 if reads else abs(found["text/gain"]) < 0.3)
