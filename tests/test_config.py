"""Settings: what may stand where, and what is refused in one line that names it."""

import json

import pytest

from speechtok.config import read_yaml
from speechtok.errors import ConfigError
from speechtok.nn.codec import CodecConfig
from speechtok.nn.frame import FrameConfig


@pytest.mark.parametrize("section", ["quantizer", "seanet", "frame"])
def test_a_section_is_never_read_from_another_file(section, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps(CodecConfig().to_dict().get(section, {"width": 8})))
    with pytest.raises(ConfigError, match=f"{section} must be a mapping"):
        CodecConfig.from_dict({section: str(tmp_path / "other.json")})


@pytest.mark.parametrize("value", [None, [1], 3], ids=str)
def test_a_section_is_a_mapping(value):
    with pytest.raises(ConfigError, match="frame must be a mapping") as caught:
        CodecConfig.from_dict({"frame": value})
    assert "\n" not in str(caught.value)


def test_dots_do_not_reach_into_sections():
    with pytest.raises(ConfigError, match=r"frame\.width"):
        CodecConfig.from_dict({"frame.width": 8})


@pytest.mark.parametrize("name", ["dimension", "semantic_dimension", "codebook_size", "n_q", "sample_rate"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_of_a_codec_are_whole_and_positive(name, value):
    with pytest.raises(ConfigError, match=rf"codec\.{name} must be a whole number of at least 1"):
        CodecConfig(**{name: value})


@pytest.mark.parametrize(
    "name, value",
    [
        *((name, 0) for name in ("hop", "n_fft", "stack", "width", "expansion", "kernel_size")),
        *((name, 0) for name in ("encoder_blocks", "decoder_blocks", "floor")),
        *(("hop", -320), ("floor", float("nan")), ("consistency_iterations", -1)),
    ],
)
def test_ranges_of_the_frame_backbone(name, value):
    with pytest.raises(ConfigError, match=rf"frame\.{name} must be"):
        FrameConfig(**{name: value})


def test_recipes_come_with_the_package(tmp_path, monkeypatch):
    """Where somebody works without a checkout; a file of their own of that name comes first."""
    monkeypatch.chdir(tmp_path)
    shipped = read_yaml("recipes/units.yaml")
    assert shipped["name"] == "units"
    with pytest.raises(ConfigError, match=r"recipes/nosuch\.yaml: cannot be read"):
        read_yaml("recipes/nosuch.yaml")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/units.yaml").write_text("name: mine\n")
    assert read_yaml("recipes/units.yaml") == {"name": "mine"}
