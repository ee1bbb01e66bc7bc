"""The closed chain: gradients through the text, balance, replay, unpaired data, exact resuming, refusals."""

import json
import re
import shutil
from functools import partialmethod

import numpy as np
import pytest
import torch

from speechtok.chain.balance import DynamicWeights
from speechtok.chain.closed import CHAIN, Chain
from speechtok.chain.interface import ESTIMATORS, st_argmax
from speechtok.chain.recogniser import load_recogniser
from speechtok.chain.t2s import Utterances, load_t2s
from speechtok.config import from_mapping
from speechtok.errors import CheckpointError, ConfigError
from speechtok.train import asr, t2s
from speechtok.train.batches import Batches
from speechtok.train.chain import Balance, ChainLearner, train, with_replay
from speechtok.train.chain_recipe import BalanceConfig, ChainRecipe
from speechtok.train.devices import Devices
from speechtok.train.snapshot import load_snapshot
from test_train import assert_same
from test_train_asr import make_recipe as asr_recipe
from test_train_asr import rows_of, spoken, train_apart  # noqa: F401 - a fixture
from test_train_processes import finish, start_two
from tiny_chain import tiny_recogniser
from tiny_speaking import tiny_t2s

pytest.importorskip("tokenizers", reason="text vocabularies are made by tokenizers")
pytest.importorskip("transformers", reason="the speaker is transformers' Llama")

T2S = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 24, "positions": 400}


@pytest.fixture
def trained(spoken, folder):  # noqa: F811
    """A recogniser and a speaker of one vocabulary, hardly trained."""
    first = asr_recipe(spoken, folder, steps=1, levels=1, keep="last")
    asr.train(first, spoken / "asr")
    settings = {
        "steps": 1, "tokenizer": str(folder), "vocabulary": str(spoken / "asr/model"), "network": T2S,
        "data": {"manifests": first.data.manifests, "cache": first.data.cache, "batch": 2},
    }  # fmt: skip
    t2s.train(from_mapping(t2s.T2SRecipe, settings, "the test"), spoken / "t2s")
    return spoken


def make_recipe(place, folder, **changes) -> ChainRecipe:
    data = {"manifests": [str(place / "corpus.tsv")], "cache": str(place / "cache"), "batch": 2}
    settings = {
        "epochs": 3, "log_every": 1, "checkpoint_every": 1, "tokenizer": str(folder),
        "asr": str(place / "asr/model"), "t2s": str(place / "t2s/model"),
        "optimisation": {"rate": 3e-3, "warmup": 1, "ema": 0.5}, "data": data | changes.pop("data", {}),
    }  # fmt: skip
    return from_mapping(ChainRecipe, settings | changes, "the test")


def chain_and_batch() -> tuple[Chain, tuple[torch.Tensor, ...], Utterances]:
    chain = Chain(tiny_recogniser(34, sizes=(32,)), tiny_t2s())
    draws = np.random.default_rng(0)
    codes = [draws.integers(32, size=length) for length in (9, 12)]
    text = [draws.integers(2, 34, size=length) for length in (3, 4)]
    batch = (
        torch.zeros(2, 1, 12, dtype=torch.long), torch.tensor([9, 12]), torch.zeros(2, 4, dtype=torch.long),
        torch.tensor([3, 4]),
    )  # fmt: skip
    for row, (one, other) in enumerate(zip(codes, text, strict=True)):
        batch[0][row, 0, : len(one)], batch[2][row, : len(other)] = torch.tensor(one), torch.tensor(other)
    empty = [np.zeros(0, np.int64)] * 2
    return chain, batch, Utterances.of(text, empty, codes, [False, False])


def test_the_loop_says_what_the_hard_text_says_and_its_gradient_is_that_of_the_soft_one():
    chain, batch, spoken_again = chain_and_batch()
    _, rows = chain.listen(*batch)
    heard = rows.argmax(-1)
    found = chain.repeat(rows, spoken_again, st_argmax)[CHAIN]
    hard = chain.t2s.losses(spoken_again._replace(text=heard))["t2s/semantic"]
    assert torch.allclose(found, hard, atol=1e-5)

    # the estimator's gradient, by finite differences: hard rows stay, and their soft parts move
    weight = chain.asr.decoder.out.weight
    (gradient,) = torch.autograd.grad(found, weight)
    direction = torch.randn_like(weight, generator=torch.Generator().manual_seed(1))
    soft = rows.detach().softmax(-1)
    hard_rows = torch.nn.functional.one_hot(heard, 34).float()

    def moved(step: float) -> float:
        with torch.no_grad():
            weight.add_(step * direction)
            rows = chain.listen(*batch)[1]
            text = hard_rows + rows.softmax(-1) - soft
            loss = chain.t2s.losses(spoken_again._replace(text=text))["t2s/semantic"]
            weight.sub_(step * direction)
        return loss.item()

    step = 1e-2
    numeric = (moved(step) - moved(-step)) / (2 * step)
    assert numeric == pytest.approx((gradient * direction).sum().item(), rel=0.05)  # of float32


def test_without_the_gradient_the_speaker_alone_learns_from_the_loop():
    chain, batch, spoken_again = chain_and_batch()
    for gradient in (True, False):
        chain.zero_grad()
        _, rows = chain.listen(*batch)
        chain.repeat(rows, spoken_again, st_argmax, gradient)[CHAIN].backward()
        reached = [p.grad is not None and p.grad.abs().sum() > 0 for p in chain.asr.decoder.parameters()]
        assert any(reached) == gradient
        assert any(p.grad is not None for p in chain.t2s.parameters())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_loss_of_the_loop_can_be_learned(estimator):
    chain, batch, spoken_again = chain_and_batch()
    optimiser, losses = torch.optim.Adam(chain.parameters(), 1e-2), []
    for step in range(25):
        torch.manual_seed(step)
        _, rows = chain.listen(*batch)
        loss = chain.repeat(rows, spoken_again, ESTIMATORS[estimator])[CHAIN]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"interface": {"estimator": "gumbel", "temperature": {"schedule": "linear", "first": 2.0, "last": 0.1}}},
        {"balance": {"kind": "uncertainty"}, "interface": {"estimator": "argmax", "gradient": False}},
        {"loop": False},
        {"unpaired": {"batch": 2}, "balance": {"kind": "fixed", "asr": 1.0, "chain": 0.5}, "gold": 0.0},
    ],
    ids=["annealed", "uncertain", "supervised", "unpaired"],
)
def test_a_stopped_run_ends_as_if_undisturbed(trained, folder, changes):
    if "unpaired" in changes:
        (trained / "more.txt").write_text("that cat\n\nthe hat\n")
        changes["unpaired"] |= {"speech": [str(trained / "corpus.tsv")], "text": str(trained / "more.txt")}
    straight, stopped = trained / "straight", trained / "stopped"
    learner = train(make_recipe(trained, folder, **changes), straight)
    assert learner.step == 3 * learner.batches.steps_per_epoch == 6
    train(make_recipe(trained, folder, **changes), stopped, stop_at=3)
    train(make_recipe(trained, folder, **changes), stopped)
    one, other = (load_snapshot(place / "checkpoint.safetensors") for place in (straight, stopped))
    assert_same(one, other)
    rows = rows_of(straight)
    assert [row for row in rows if row["kind"] == "train"] == [r for r in rows_of(stopped) if r["kind"] == "train"]
    final = [row for row in rows if row["kind"] == "validation"]
    assert len(final) == 3 and {"cer/attention", "wer/ctc", "t2s/semantic"} <= set(final[-1])
    named = set(next(row for row in rows if row["kind"] == "train"))
    assert (CHAIN in named) == changes.get("loop", True)
    if "unpaired" in changes:
        assert {"unpaired-speech/chain/semantic", "unpaired-text/asr/ctc"} <= named
    for name, load in (("asr", load_recogniser), ("t2s", load_t2s)):
        model, vocabulary, header = load(straight / "model" / name)
        assert vocabulary.digest == learner.vocabulary.digest and header["card"]["epochs"] == 3
        for key, tensor in model.state_dict().items():
            assert tensor.equal(getattr(learner.average, name).state_dict()[key]), key


def test_weights_follow_the_losses_of_whole_epochs(trained, folder):
    recipe = make_recipe(trained, folder, epochs=4, balance={"kind": "dynamic", "temperature": 0.1})
    learner = train(recipe, trained / "run")
    rows = [row for row in rows_of(trained / "run") if row["kind"] == "train"]
    expected = DynamicWeights(("asr", CHAIN), 0.1)
    shares, each = learner.model.asr.config.weights, learner.batches.steps_per_epoch
    for step, row in enumerate(rows):
        for task in ("asr", CHAIN):
            assert row[f"weight/{task}"] == pytest.approx(expected.weights[task])
        expected.observe({"asr": sum(share * row[name] for name, share in shares.items()), CHAIN: row[CHAIN]})
        if (step + 1) % each == 0:
            expected.end_epoch()
    assert rows[-1]["weight/asr"] != 1.0


def test_two_processes_do_what_one_does_with_the_whole_batch(trained, folder):
    recipe = make_recipe(trained, folder, epochs=1, interface={"estimator": "argmax"}, data={"batch": 4})
    for place in ("asr", "t2s"):  # dropout and hidden frames are drawn by each process for its own rows
        path = trained / place / "model" / "config.json"
        about = json.loads(path.read_text())
        for section in (about["network"], *(v for v in about["network"].values() if isinstance(v, dict))):
            section |= {name: 0.0 for name in section if "dropout" in name}
            section |= {"time_masks": 0} if "time_masks" in section else {}
        path.write_text(json.dumps(about))
    recipe.optimisation.rate = 1e-4
    train(recipe, trained / "one")
    (trained / "two").mkdir()
    finish(*start_two(recipe, trained / "two", target=chain_apart))
    first, second = (load_snapshot(trained / "two" / f"rank-{rank}")["model"] for rank in range(2))
    assert_same(first, second)
    for name, tensor in load_snapshot(trained / "one" / "checkpoint.safetensors")["model"].items():
        if not name.endswith("key.bias"):  # see test_train_asr
            assert torch.allclose(first[name], tensor, atol=2e-5), name


def chain_apart(recipe, folder, *place) -> None:
    train_apart(recipe, folder, *place, train=train)


def test_an_epoch_with_replay_hears_all_of_the_domain_and_a_share_of_the_other():
    chosen = [with_replay(30, 100, 0.25, 1, epoch) for epoch in range(2)]
    for one in chosen:
        assert sorted(one[one < 30]) == list(range(30)) and len(one) == 40 and len(set(one)) == 40
    assert set(chosen[0]) != set(chosen[1])
    batches = Batches(np.arange(1, 131), 8, 0, lambda epoch: chosen[epoch])
    for epoch in range(2):
        heard = np.concatenate([batches(epoch * 5 + step) for step in range(5)])
        assert sorted(heard) == sorted(chosen[epoch])


def test_replayed_speech_is_learned_and_its_held_out_part_watched(trained, folder):
    recipe = make_recipe(trained, folder, epochs=1, replay={"manifests": [str(trained / "corpus.tsv")], "share": 0.5})
    learner = ChainLearner(recipe)
    assert learner.batches.steps_per_epoch == 2 * len(learner.pairs) // 2 // 2
    row, _ = learner.validate(counted=False)
    assert row["replay-cer/attention"] == row["cer/attention"]


def test_a_run_from_other_models_is_refused(trained, folder):
    """The same paths, the same vocabulary: without it, the finished run would pass for one of the new models."""
    train(make_recipe(trained, folder, epochs=1), trained / "run")
    asr.train(asr_recipe(trained, folder, steps=2, levels=1, keep="last"), trained / "asr-2")
    for part in ("config.json", "model.safetensors"):
        shutil.copy(trained / "asr-2/model" / part, trained / "asr/model" / part)
    with pytest.raises(ConfigError, match="or from other models"):
        train(make_recipe(trained, folder, epochs=1), trained / "run")


def test_a_corpus_that_is_watched_may_be_named_later_and_be_found_elsewhere(trained, folder):
    train(make_recipe(trained, folder, epochs=1), trained / "run", stop_at=1)
    replay = {"manifests": [str(trained / "corpus.tsv")]}
    assert train(make_recipe(trained, folder, epochs=1, replay=replay), trained / "run").step > 1
    with pytest.raises(ConfigError, match="another replay"):
        train(make_recipe(trained, folder, epochs=1, replay=replay | {"share": 0.5}), trained / "run")


def test_learned_weights_are_logged(trained, folder):
    train(make_recipe(trained, folder, epochs=2, balance={"kind": "uncertainty"}), trained / "run")
    last = [row for row in rows_of(trained / "run") if row["kind"] == "train"][-1]
    assert last["weight/asr"] < 0.99 and last[f"weight/{CHAIN}"] < 0.99  # both losses are above a nat


def test_a_learned_balance_logs_no_other_weights():
    balance = Balance(from_mapping(BalanceConfig, {"kind": "uncertainty"}, "the test"), {"asr/ctc": 1.0}, {}, True)
    for loss in (2.0, 1.0):
        balance.observe({"asr/ctc": loss, CHAIN: 1.0})
        balance.dynamic.end_epoch()
    assert balance.tasks == {"asr": 1.0, CHAIN: 1.0} != balance.dynamic.weights


def test_unpaired_data_are_known_again_and_shared_evenly_only_where_there_are_any(trained, folder, monkeypatch):
    (trained / "more.txt").write_text("that cat\n")
    unpaired = {"text": str(trained / "more.txt"), "batch": 3}
    learner = ChainLearner(make_recipe(trained, folder, epochs=1, unpaired=unpaired))
    corpus, plain = learner.corpus, ChainLearner(make_recipe(trained, folder, epochs=1)).corpus
    (trained / "more.txt").write_text("that hat\n")
    changed = ChainLearner(make_recipe(trained, folder, epochs=1, unpaired=unpaired)).corpus
    assert len({corpus, plain, changed}) == 3 and plain.startswith(learner.pairs.digest)
    monkeypatch.setattr(Devices, "share_of", partialmethod(of_two, Devices.share_of))
    ChainLearner(make_recipe(trained, folder, epochs=1, unpaired={"batch": 3}))
    with pytest.raises(ConfigError, match=r"unpaired\.batch=3 cannot be shared by 2 processes"):
        ChainLearner(make_recipe(trained, folder, epochs=1, unpaired=unpaired))


def of_two(devices, share_of, *arguments):
    """A share as one of two processes has it."""
    devices.processes = 2
    try:
        return share_of(devices, *arguments)
    finally:
        devices.processes = 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"gold": -1.0}, "gold is -1"),
        ({"balance": {"kind": "fixed", "chain": -0.5}}, "balance.chain is -0.5"),
        ({"balance": {"kind": "fixed", "asr": float("inf")}}, "balance.asr is inf"),
        ({"unpaired": {"text_weight": float("nan")}}, "unpaired.text_weight is nan"),
    ],
)
def test_a_loss_that_would_be_driven_up_is_refused(tmp_path, changes, name):
    with pytest.raises(ConfigError, match=re.escape(name)):
        make_recipe(tmp_path, "speechtok-base", **changes)


def test_models_that_do_not_fit_are_refused_in_one_line(trained, folder):
    with pytest.raises(ConfigError, match="seed must be a whole number of at least 0, not -1"):
        make_recipe(trained, folder, seed=-1)
    with pytest.raises(ConfigError, match="asr is empty; name the folder of a trained model"):
        make_recipe(trained, folder, asr="")
    with pytest.raises(ConfigError, match="asks for speech of another domain"):
        make_recipe(trained, folder, replay={"share": 0.5})
    with pytest.raises(CheckpointError, match="was trained on codes of"):
        train(make_recipe(trained, "speechtok-base"), trained / "run")
    shutil.copytree(trained / "asr", trained / "odd")
    other = asr_recipe(trained, folder, steps=1, levels=1, vocabulary_size=30)
    asr.train(other, trained / "other")
    with pytest.raises(ConfigError, match="has another text vocabulary than"):
        train(make_recipe(trained, folder, asr=str(trained / "other/model")), trained / "run")
    with pytest.raises(ConfigError, match="cannot be one chain"):
        Chain(tiny_recogniser(34, sizes=(12,)), tiny_t2s())
    with pytest.raises(ConfigError, match="the recogniser with levels=1"):
        Chain(tiny_recogniser(34, sizes=(32, 32)), tiny_t2s())
    (trained / "odd.txt").write_text("caf\u00e9 n\u00b0 5\n")
    with pytest.raises(ConfigError, match="unknown symbols"):
        train(make_recipe(trained, folder, unpaired={"text": str(trained / "odd.txt")}), trained / "run")
