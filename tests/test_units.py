"""Units: k-means of streams, the folder of centres, and ``speechtok train units``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.clusters import (
    CentreFit,
    UnitsConfig,
    fit_centres,
    load_centres,
    load_units_config,
    measure_centres,
    save_centres,
)
from speechtok.guidance.frames import FrameLaw
from speechtok.guidance.store import FeatureStore, write_features
from speechtok.guidance.targets import assign_units
from speechtok.nn.quantizers import kmeans
from speechtok.train.loop import CHECKPOINT
from speechtok.train.units import UnitsRecipe, mixed_vectors, train

LAW = FrameLaw(16000, 320, 400)
CORNERS = 10 * torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


def cloud(count: int, seed: int = 0, corners: torch.Tensor = CORNERS) -> torch.Tensor:
    """Vectors near corners of a cube, ``[count, 3]``."""
    generator = torch.Generator().manual_seed(seed)
    places = corners[torch.randint(len(corners), (count,), generator=generator)]
    return places + 0.1 * torch.randn(count, 3, generator=generator)


@pytest.fixture
def store(tmp_path):
    """Feature store of 40 utterances of unequal length; no two utterances are from the same corner in a row."""
    samples = [400 + 320 * (5 + i % 7) for i in range(40)]
    parts = [cloud(LAW.frames(n), i, CORNERS[i % 8 : i % 8 + 1]).numpy() for i, n in enumerate(samples)]
    write_features(tmp_path / "f.safetensors", parts, samples, 3, LAW, "teacher, layer 4")
    return tmp_path / "f.safetensors"


# -- k-means --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_separate_clusters_are_found(kind):
    batches = [cloud(200, seed) for seed in range(6)]
    centres = fit_centres(batches if kind == "tensors" else [b.numpy() for b in batches], 8)
    assert centres.dtype == torch.float32
    assert sorted(assign_units(CORNERS, centres).tolist()) == list(range(8))
    assert torch.cdist(CORNERS, centres).min(1).values.max() < 0.1


def test_centres_that_nothing_comes_near_move_to_where_the_vectors_are():
    """A start on eight places to which no later vector belongs."""
    late = [cloud(300, seed) for seed in range(1, 40)]
    centres = fit_centres([1000 + cloud(8 * 16, 0), *late], 8)
    assert measure_centres(late, centres)["used"] == 1


def test_seeds_decide_and_nothing_else_does():
    batches = [torch.randn(300, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    one = fit_centres(batches, 20, seed=3)
    np.random.seed(5)
    torch.manual_seed(5)
    assert torch.equal(one, fit_centres(iter(batches), 20, seed=3))
    assert not torch.equal(one, fit_centres(batches, 20, seed=4))


def test_it_comes_near_to_lloyds_algorithm_on_everything():
    vectors = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    lloyd = measure_centres([vectors], kmeans(vectors, 50, 30)[0])["inertia"]
    streamed = measure_centres([vectors], fit_centres(list(vectors.split(500)) * 10, 50))["inertia"]
    assert streamed < 1.05 * lloyd


@pytest.mark.parametrize(
    ("batches", "clusters", "error"),
    [
        pytest.param([torch.zeros(3, 2)], 4, "3 vectors cannot make 4 clusters", id="few vectors"),
        pytest.param([], 4, "0 vectors", id="none"),
        pytest.param([torch.zeros(9, 2)], 0, "at least 1", id="no clusters"),
        pytest.param([torch.full((9, 2), torch.nan)], 2, "finite", id="not finite"),
        pytest.param([torch.zeros(2, 3, 4)], 2, r"\[M, D\]", id="three axes"),
        pytest.param([torch.zeros(99, 2), torch.zeros(9, 3)], 2, r"\[M, 2\]", id="another width"),
    ],
)
def test_bad_vectors_are_refused(batches, clusters, error):
    with pytest.raises(ConfigError, match=error):
        fit_centres(batches, clusters)


def test_figures_by_hand():
    centres = torch.tensor([[0.0], [10.0], [99.0]])
    figures = measure_centres([torch.tensor([[1.0], [-1.0]]), torch.tensor([[10.0], [14.0]])], centres)
    # squared distances 1, 1, 0, 16; the mean is 6, so squared distances from it are 25, 49, 16, 64
    assert figures == {
        "vectors": 4,
        "inertia": 4.5,
        "explained": pytest.approx(1 - 18 / 154),
        "used": pytest.approx(2 / 3),
    }


# -- the folder -----------------------------------------------------------------------------------------------------


def test_centres_come_back(tmp_path):
    config = UnitsConfig("a/b", "average", 4, 3, vectors=9, inertia=1.5, explained=0.5, used=1.0, seed=7)
    centres = torch.randn(4, 3)
    save_centres(tmp_path / "units", centres, config)
    assert torch.equal(load_centres(tmp_path / "units"), centres)
    assert load_units_config(tmp_path / "units") == config


@pytest.mark.parametrize("name", ["centres.safetensors", "config.json"])
@pytest.mark.parametrize("harm", ["missing", "cut", "other"])
def test_damaged_folders_are_refused(tmp_path, name, harm):
    config = UnitsConfig("a/b", 9, 4, 3, vectors=9, inertia=1.5, explained=0.5, used=1.0)
    save_centres(tmp_path, torch.randn(4, 3), config)
    path = tmp_path / name
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif name == "config.json":
        path.write_text('{"codec": {}}')
    else:
        save_centres(tmp_path / "other", torch.randn(5, 3), config)
        path.write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(CheckpointError, match=name):
        load_centres(tmp_path)


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_command_makes_units_of_a_feature_store(store, tmp_path, cli):
    (tmp_path / "units.yaml").write_text("clusters: 500\nbatch: 64\n")
    code, out, _ = cli(
        "train", "units", tmp_path / "units.yaml", f"features={store}", "clusters=8", f"out={tmp_path}/units"
    )
    assert (code, "8 units of teacher, layer 4, 100.0% in use" in out) == (0, True)
    config = json.loads((tmp_path / "units/config.json").read_text())
    found = {name: config[name] for name in ("teacher", "layer", "clusters", "dimension", "used")}
    assert found == {"teacher": "teacher", "layer": 4, "clusters": 8, "dimension": 3, "used": 1.0}
    assert config["vectors"] == int(FeatureStore(store).offsets[-1])
    assert config["explained"] > 0.99
    centres = load_centres(tmp_path / "units")
    assert torch.cdist(CORNERS, centres).min(1).values.max() < 0.1


@pytest.mark.parametrize("stop", [2, 5, 9, 13])
def test_a_stopped_fit_goes_on_and_comes_to_the_same_centres(store, tmp_path, monkeypatch, stop):
    """More clusters than corners, so that empty centres are drawn again, which needs the state of the draws."""
    recipe = UnitsRecipe(features=str(store), clusters=30, batch=50, passes=3, checkpoint_every=2)
    undisturbed = train(recipe, tmp_path / "whole")

    feed, fed = CentreFit.feed, []

    def stopping(fit, vectors):
        if len(fed) == stop:
            raise KeyboardInterrupt
        fed.append(len(vectors))
        feed(fit, vectors)

    monkeypatch.setattr(CentreFit, "feed", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped")
    assert (tmp_path / "stopped" / CHECKPOINT).exists() == (stop > 10)  # 480 vectors come before the first centres
    monkeypatch.setattr(CentreFit, "feed", lambda fit, vectors: (fed.append(len(vectors)), feed(fit, vectors)))
    assert train(recipe, tmp_path / "stopped") == undisturbed
    assert torch.equal(load_centres(tmp_path / "stopped"), load_centres(tmp_path / "whole"))
    assert not (tmp_path / "stopped" / CHECKPOINT).exists()
    repeated = stop % 2 if stop > 10 else stop
    assert len(fed) == len(list(mixed_vectors(FeatureStore(store), recipe))) + repeated


@pytest.mark.parametrize("harm", ["clusters", "features", "cut"])
def test_an_unfinished_fit_of_something_else_is_refused(store, tmp_path, monkeypatch, harm):
    recipe = UnitsRecipe(features=str(store), clusters=8, batch=50, checkpoint_every=1)
    monkeypatch.setattr("speechtok.train.units.measure_centres", lambda *_: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        train(recipe, tmp_path / "units")
    checkpoint = tmp_path / "units" / CHECKPOINT
    if harm == "clusters":
        recipe.clusters = 9
    elif harm == "features":
        write_features(tmp_path / "g.safetensors", [cloud(9).numpy()] * 40, [3000] * 40, 3, LAW, "teacher, layer 4")
        recipe.features = str(tmp_path / "g.safetensors")
    else:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    with pytest.raises(CheckpointError if harm == "cut" else ConfigError, match=str(checkpoint)):
        train(recipe, tmp_path / "units")


@pytest.mark.parametrize("batch", [1, 7, 50, 10000])
def test_every_pass_goes_through_every_vector_once_and_mixes_utterances(store, batch):
    recipe = UnitsRecipe(features=str(store), batch=batch, passes=2, clusters=8)
    batches = list(mixed_vectors(FeatureStore(store), recipe))
    everything = torch.cat([FeatureStore(store)[i].float() for i in range(40)])
    assert max(map(len, batches)) <= batch
    ends = np.cumsum([len(part) for part in batches])
    assert sum(len(part) < batch for part in batches) <= 2 and len(everything) in ends  # the last of each pass
    together = torch.cat(batches)
    assert torch.equal(together.sort(0).values, torch.cat([everything, everything]).sort(0).values)
    one, other = together.split(len(everything))
    assert not torch.equal(one, other)
    if batch == 50:
        assert all(len(assign_units(part, CORNERS).unique()) > 2 for part in batches if len(part) == batch)


def test_a_share_of_the_utterances_is_drawn_by_the_seed(store, tmp_path):
    figures = [
        train(UnitsRecipe(features=str(store), clusters=2, utterances=5, seed=seed), tmp_path / "units")
        for seed in (0, 0, 1)
    ]
    assert figures[0] == figures[1]
    assert figures[0].inertia != figures[2].inertia
    assert figures[0].vectors < 5 * 12


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        pytest.param(["clusters=8"], "features names no feature store", id="no features"),
        pytest.param(["features=none.safetensors"], "none.safetensors: missing", id="missing"),
        pytest.param(["features=f.safetensors", "clusters=5000"], "cannot make 5000 clusters", id="too many"),
        pytest.param(["features=f.safetensors", "batch=0"], "batch must be", id="batch"),
        pytest.param(["features=f.safetensors", "--plot"], "--plot", id="plot"),
    ],
)
def test_bad_recipes_are_one_line(store, tmp_path, cli, monkeypatch, settings, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "units.yaml").write_text("name: mine\n")
    code, _, lines = cli("train", "units", tmp_path / "units.yaml", *settings)
    assert code == 2
    assert error in lines[-1]
    assert not (tmp_path / "runs").exists()
