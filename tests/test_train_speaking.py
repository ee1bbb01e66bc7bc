"""The trainers of the chain's speaker and acoustic levels in miniature: resuming, prefixes, refusals, recipes."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from speechtok.chain.s2a import load_s2a
from speechtok.chain.t2s import load_t2s
from speechtok.config import from_yaml
from speechtok.errors import CheckpointError, ConfigError
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.train import s2a, t2s
from test_train import assert_same, weights
from tiny import tiny_codec

pytest.importorskip("transformers", reason="the speaker's network is that of transformers")
pytest.importorskip("tokenizers", reason="its text is that of tokenizers")

LOOP = "steps: 4\nlog_every: 1\nvalidate_every: 2\ncheckpoint_every: 2\n"
CONFORMER = "{width: 8, heads: 2, blocks: 1, feed_forward: 12, feed_forward_kernel: 1, kernel: 5, positions: rotary}"
RECIPES = {
    t2s: f"""{LOOP}
vocabulary_size: 32
network: {{width: 16, layers: 1, heads: 2, feed_forward: 24, positions: 200, dropout: 0.1}}
data: {{batch: 2, validation_files: 2}}
prefix: {{seconds: 0.2}}
""",
    s2a: f"""{LOOP}
network: {{code_dimension: 16, conformer: {CONFORMER}}}
data: {{batch: 2, seconds: 0.3, validation_files: 2, gain_db: [0, 0]}}
""",
}
KINDS = {t2s: t2s.T2SRecipe, s2a: s2a.S2ARecipe}
LOADERS = {t2s: load_t2s, s2a: load_s2a}
BOTH = pytest.mark.parametrize("trainer", [t2s, s2a], ids=["t2s", "s2a"])


def make_recipe(trainer, corpus, *overrides):
    """Of the tiny codec in ``corpus / codec``, which is written where it is missing."""
    (corpus / "recipe.yaml").write_text(RECIPES[trainer])
    if not (corpus / "codec").exists():
        save_codec(tiny_codec("frame"), corpus / "codec")
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache", f"tokenizer={corpus}/codec"]
    return from_yaml(KINDS[trainer], corpus / "recipe.yaml", [*places, *overrides])


@BOTH
def test_stop_and_resume_equals_never_stopping_bit_for_bit(trainer, corpus):
    trainer.train(make_recipe(trainer, corpus), corpus / "straight")
    trainer.train(make_recipe(trainer, corpus), corpus / "broken", stop_at=2)
    trainer.train(make_recipe(trainer, corpus), corpus / "broken")
    assert_same(weights(corpus / "straight"), weights(corpus / "broken"))
    rows = [json.loads(line) for line in (corpus / "straight/log.jsonl").read_text().splitlines()]
    wanted = {"t2s/semantic", "accuracy/top-10"} if trainer is t2s else {"s2a/level", "s2a/level-4", "accuracy/level-2"}
    assert wanted <= set(rows[-1]) and all(math.isfinite(rows[-1][name]) for name in wanted)


@BOTH
def test_the_export_is_the_average_and_may_be_where_another_run_begins(trainer, corpus):
    learner = trainer.train(make_recipe(trainer, corpus), corpus / "run")
    model, header = (LOADERS[trainer](corpus / "run/model")[place] for place in (0, -1))
    assert_same(dict(model.state_dict()), dict(learner.average.state_dict()))
    assert header["tokens"]["fingerprint"] == learner.tokenizer.fingerprint
    learner_class = t2s.T2SLearner if trainer is t2s else s2a.S2ALearner
    begun = learner_class(make_recipe(trainer, corpus, f"begin={corpus}/run/model"))
    assert_same(dict(begun.model.state_dict()), dict(model.state_dict()))
    with pytest.raises(ConfigError, match="another shape than network"):
        size = "network.layers=2" if trainer is t2s else "network.conformer.blocks=2"
        learner_class(make_recipe(trainer, corpus, f"begin={corpus}/run/model", size))


@BOTH
def test_codes_of_another_tokenizer_are_refused(trainer, corpus):
    trainer.train(make_recipe(trainer, corpus), corpus / "run", stop_at=2)
    save_codec(tiny_codec("frame", seed=7), corpus / "codec")
    with pytest.raises(ConfigError, match="on other speech, codes of another tokenizer, or from other models"):
        trainer.train(make_recipe(trainer, corpus), corpus / "run")
    with pytest.raises(CheckpointError, match=r"was trained on codes of codec \(.*\), not of codec \(.*\); load it"):
        trainer.train(make_recipe(trainer, corpus, f"begin={corpus}/run/model"), corpus / "new")


@BOTH
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["tokenizer="], "tokenizer is empty"),
        (["tokenizer=logmel-soft"], "needs codes"),
        (["data.manifests=[]"], r"data\.manifests is empty"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(trainer, corpus, changes, message):
    with pytest.raises(ConfigError, match=message):
        trainer.train(make_recipe(trainer, corpus, *changes), corpus / "run")


def test_levels_and_starts_that_cannot_be_are_refused(corpus):
    for changes, message in [
        (["levels=1"], "at least one acoustic level"),
        (["levels=9"], "has 4 levels"),
        (["network.code_dimension=8"], "start=random"),
        (["data.gain_db=[-3, 0]"], "gain_db must be"),
    ]:
        with pytest.raises(ConfigError, match=message):
            s2a.S2ALearner(make_recipe(s2a, corpus, *changes))
    assert s2a.S2ALearner(make_recipe(s2a, corpus, "levels=2", "start=random", "network.code_dimension=8"))


def test_a_vocabulary_may_be_another_models(corpus):
    learner = t2s.train(make_recipe(t2s, corpus), corpus / "run", stop_at=1)
    (corpus / "elsewhere.json").write_text(learner.vocabulary.to_json())
    for place in (corpus / "elsewhere.json", corpus / "run/model"):
        again = t2s.T2SLearner(make_recipe(t2s, corpus, f"vocabulary={place}"))
        assert again.vocabulary.digest == learner.vocabulary.digest
    with pytest.raises(CheckpointError, match=r"text\.json: cannot be read"):
        t2s.T2SLearner(make_recipe(t2s, corpus, f"vocabulary={corpus}"))


# -- prefixes -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(2, 60), min_size=1, max_size=6), st.integers(0, 99), st.booleans(), st.floats(0, 1))
def test_prefixes_lie_inside_what_the_same_speaker_said(lengths, seed, vary, other):
    random = np.random.default_rng(seed)
    speakers = [str(random.integers(0, 3)) for _ in lengths]
    config = t2s.PrefixConfig(vary=vary, other=other)
    prefixes = t2s.Prefixes(np.array(lengths), speakers, 20, config)
    for pick, length in enumerate(lengths):
        source, start, taken = prefixes(pick, random.random(4))
        assert speakers[source] == speakers[pick] and taken <= 20
        if source == pick:
            assert start == 0 and taken <= length // 2
            assert vary or taken == min(20, length // 2)
        else:
            assert taken >= 1 and 0 <= start <= lengths[source] - taken


def test_no_seconds_of_prefix_are_none():
    prefixes = t2s.Prefixes(np.array([9, 9]), ["s", "s"], 0, t2s.PrefixConfig(seconds=0, other=1.0))
    assert prefixes(0, np.full(4, 0.5)) == (0, 0, 0)


def test_targets_begin_after_an_own_prefix_and_are_whole_after_anothers(corpus):
    learner = t2s.T2SLearner(make_recipe(t2s, corpus, "prefix.other=0", "prefix.vary=false"))
    draws = [np.full(4, 0.5)]
    batch = t2s.batch_of(learner.pairs, learner.prefixes, np.array([1]), draws)
    whole = learner.pairs.codes[1][0]
    assert batch.prefix[0].tolist() == whole[:40].tolist() and batch.semantic[0].tolist() == whole[40:].tolist()
    learner.prefixes.config.other = 1.0
    batch = t2s.batch_of(learner.pairs, learner.prefixes, np.array([1]), draws)
    assert batch.foreign.item() and batch.semantic[0].tolist() == whole.tolist()
    assert batch.prefix[0].tolist() == learner.pairs.codes[2][0][30:70].tolist()


def test_codes_of_a_crop_are_those_of_its_utterance(corpus):
    speech = s2a.S2ALearner(make_recipe(s2a, corpus, "data.seconds=0.7")).speech
    codes, lengths = speech.batch(0)
    picks, starts = speech.crops.places(0)
    assert codes.shape == (2, 4, 140) and lengths.tolist() == [100, 100]  # half a second has 100 frames
    for row, pick, start in zip(codes, picks, starts, strict=True):
        assert start == 0 and torch.equal(row[:, :100], torch.from_numpy(speech.codes[pick].astype(np.int64)).T)


# -- recipes --------------------------------------------------------------------------------------------------------

TINY = {
    t2s: [
        *("vocabulary_size=32", "network.width=16", "network.layers=1", "network.heads=2", "network.feed_forward=24"),
        *("data.batch=2", "data.validation_files=2"),
    ],
    s2a: [
        *("network.code_dimension=16", "network.conformer.width=16", "network.conformer.heads=2"),
        *("network.conformer.blocks=1", "network.conformer.feed_forward=12"),
        *("data.batch=2", "data.seconds=0.3", "data.validation_files=2"),
    ],
}


@pytest.mark.parametrize("name", ["t2s-words", "t2s-sentences", "t2s-mini", "t2s-paper", "s2a-mini", "s2a-paper"])
def test_recipe_runs_in_miniature(name, corpus):
    trainer = {"t2s": t2s, "s2a": s2a}[name[:3]]
    save_codec(tiny_codec("frame"), corpus / "codec")
    changes = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache", f"tokenizer={corpus}/codec"]
    changes += ["steps=2", "validate_every=2", "checkpoint_every=2", "log_every=1", "precision=fp32"]
    recipe = from_yaml(KINDS[trainer], ROOT / f"recipes/{name}.yaml", [*changes, *TINY[trainer]])
    assert recipe.name == name
    trainer.train(recipe, corpus / "run")
    rows = [json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines()]
    assert math.isfinite(rows[-1]["t2s/semantic" if trainer is t2s else "s2a/level"])


def test_papers_recipes_are_full_size():
    shape = yaml.safe_load((ROOT / "recipes/s2a-paper.yaml").read_text())["network"]["conformer"]
    assert (shape["width"], shape["blocks"], shape["heads"], shape["feed_forward"]) == (1024, 12, 8, 4096)
    shape = yaml.safe_load((ROOT / "recipes/t2s-paper.yaml").read_text())["network"]
    assert (shape["width"], shape["layers"]) == (768, 12)
