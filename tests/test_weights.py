"""The weights that ship: verified, described, and better than nothing on a scene nobody trained on."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import tiny

from hsidenoise import metrics
from hsidenoise import run as verb
from hsidenoise.errors import WeightsError
from hsidenoise.model import dct, weights
from hsidenoise.noise import PATTERNS, add_noise

SHIPPED = weights.shipped()


def test_the_default_is_there():
    assert weights.find("auto").name in weights.available()


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_verified_has_a_card_and_fits_its_network(name):
    file = weights.find(name)
    assert weights.digest(file.path) == file.sha256
    assert file.path.stat().st_size < 20e6
    network, card = weights.load(file)
    assert card.name == name
    assert card.licence
    assert card.training["hours"] > 0
    assert set(card.noise) <= set(card.validation) == set(PATTERNS)
    assert card.halo > 0
    assert 0 <= card.floor < 0.05
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", SHIPPED)
def test_no_validation_scene_was_trained_on(name, shared):
    from hsidenoise.patches import load_scenes

    trained = set(weights.read_card(weights.find(name)).training["scenes"].values())
    assert len(trained) > 10
    assert not trained & {scene.digest for scene in load_scenes(shared / "data" / "val.h5")}


@pytest.fixture(scope="module")
def truth(demo_folder):
    """The demo's truth in [0, 1]: textures and spectra that exist nowhere else, without border and bad bands."""
    with rasterio.open(demo_folder / "truth.tif") as file:
        pixels = file.read()[:7, 8:-8, 8:-8].astype(np.float32)
    pixels -= pixels.min()
    return pixels / np.percentile(pixels, 99.9)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("model", ["auto", "dct"])
def test_the_default_denoises_a_generated_scene(model, pattern, truth, tmp_path):
    noisy = add_noise(truth, pattern, np.random.default_rng(0))
    scene = tiny.geotiff(tmp_path / "scene.tif", noisy)
    verb.run(scene, tmp_path / "clean.tif", quiet=True, model=model)
    before, after = metrics.psnr(truth, noisy), metrics.psnr(truth, tiny.pixels(tmp_path / "clean.tif"))
    assert after > before + (3 if before < 25 else 1)


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(WeightsError, match="compact"):
        weights.find("enormous")


def test_an_altered_file_is_refused(tmp_path, monkeypatch):
    file = weights.find("compact")
    data = bytearray(file.path.read_bytes())
    data[-1] ^= 1
    (tmp_path / file.path.name).write_bytes(data)
    (tmp_path / "index.toml").write_text((file.path.parent / "index.toml").read_text(encoding="utf-8"))
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match="sha256"):
        weights.load(weights.find("compact"))


def test_the_built_in_model_reaches_as_far_as_its_card_says() -> None:
    assert weights.BUILT_IN_CARD.halo == 3 * dct.EDGE


@pytest.mark.parametrize(("bands", "model"), [(3, "dct"), (4, "shrinkage")])
def test_auto_goes_by_the_number_of_usable_bands(tmp_path, bands, model):
    scene = tiny.geotiff(tmp_path / "scene.tif", tiny.cube(bands, 40, 44))
    assert verb.run(scene, tmp_path / "clean.tif", quiet=True)["model"]["name"] == model
