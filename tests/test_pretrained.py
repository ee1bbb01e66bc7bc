"""Networks of transformers: no code of theirs, and no weights that nobody trained."""

from __future__ import annotations

import json

import pytest
import torch

from speechtok.errors import CheckpointError
from speechtok.guidance.semantic import SemanticTeacher
from speechtok.pretrained import load_network, settings_of
from tiny_teachers import tiny_hubert

transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")


@pytest.fixture
def folder(tmp_path):
    return tiny_hubert(tmp_path / "teacher")


def weights_of(folder):
    return safetensors.load_file(folder / "model.safetensors")


def store(state, folder):
    safetensors.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_good_folder_loads(folder):
    assert SemanticTeacher.load(folder).dimension == 8


def test_no_code_of_a_repository_is_run_or_asked_for(folder, monkeypatch):
    def asked(*_):
        raise AssertionError("nobody must be asked")

    monkeypatch.setattr("builtins.input", asked)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(folder)
    with pytest.raises(CheckpointError, match="cannot load this teacher") as caught:
        SemanticTeacher.load(folder)
    assert "\n" not in str(caught.value) and not (folder / "ran").exists()


class Evil:
    """Unpickling it would leave a file."""

    def __reduce__(self):
        return open, ("ran", "w")


def test_an_old_file_of_weights_is_read_and_none_of_its_code_is_run(folder, monkeypatch):
    state = weights_of(folder)
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    network = load_network("AutoModel", folder, "teacher")
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    with pytest.raises(CheckpointError, match="safetensors"):
        load_network("AutoModel", folder, "teacher", only_safetensors=True)
    monkeypatch.chdir(folder)
    torch.save(state | {"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot load this teacher"):
        SemanticTeacher.load(folder)
    assert not (folder / "ran").exists()


def test_missing_weights_are_not_drawn_at_random(folder):
    state = weights_of(folder)
    del state["encoder.layers.0.attention.k_proj.weight"]
    store(state, folder)
    with pytest.raises(CheckpointError, match=r"lacks 1 weights.*k_proj"):
        SemanticTeacher.load(folder)


def test_a_head_that_is_not_there_is_missing(folder):
    with pytest.raises(CheckpointError, match="lm_head"):
        load_network("AutoModelForCTC", folder, "recogniser")


def test_weights_that_are_no_numbers_are_refused(folder):
    state = weights_of(folder)
    state["encoder.layer_norm.weight"][0] = float("nan")
    store(state, folder)
    with pytest.raises(CheckpointError, match="is not finite"):
        SemanticTeacher.load(folder)


def test_settings_hold_what_differs_from_the_defaults():
    settings = settings_of(transformers.HubertConfig(hidden_act="relu"))
    assert settings == ["HubertConfig", {"hidden_act": "relu"}]
