"""`finetune`: what it learns from, what it is judged by, and when it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest
import tiny
import torch
from typer.testing import CliRunner

from hsidenoise.cli import app
from hsidenoise.engine import Engine
from hsidenoise.errors import OutputExistsError, TrainingError, UsageError
from hsidenoise.evaluate import denoise_array
from hsidenoise.finetune import finetune, judge
from hsidenoise.io import open_cube
from hsidenoise.model.dct import Dct
from hsidenoise.model.decsc import rebanded
from hsidenoise.model.networks import build
from hsidenoise.model.weights import BUILT_IN, BUILT_IN_CARD, find, load, read_card, save
from hsidenoise.ownpatches import OwnImages, OwnWindows
from hsidenoise.recorruption import INPUT_NOISE, TARGET_NOISE, Strength, recorrupt
from hsidenoise.scenepatches import divide, own_scene
from hsidenoise.train import band_error

FEW = {"steps": 30, "batch": 2, "patch": 16, "lr": 3e-3, "device": "cpu", "quiet": True}


@pytest.fixture
def scene(tmp_path):
    return tiny.geotiff(tmp_path / "scene.tif", tiny.cube(12, 64, 72).astype(np.float32))


@pytest.fixture
def truth(tmp_path):
    return tiny.geotiff(tmp_path / "truth.tif", tiny.clean(12, 64, 72).astype(np.float32))


def test_from_the_noisy_scene_alone(scene, weights, tmp_path):
    out = tmp_path / "mine.safetensors"
    card = finetune([str(scene)], out, model=weights, **FEW)
    found = card.training["held_back"]
    assert found["after"] < found["before"]
    assert found["measure"] == "error left, of the noise's energy"
    assert card.config["bands"] == min(12, load(find(weights))[0].bands)
    written = read_card(find(str(out)))
    assert written.training["from"]["name"] == "tiny"
    assert written.training["scenes"].keys() == {"scene.tif"}
    result = CliRunner().invoke(app, ["run", str(scene), "-o", str(tmp_path / "clean.tif"), "--model", str(out), "-q"])
    assert result.exit_code == 0
    assert tiny.pixels(tmp_path / "clean.tif").shape == (12, 64, 72)


def test_a_scene_is_read_as_told(weights, tmp_path):
    """One array of several, its axes in another order."""
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["noisy"] = tiny.cube(12, 64, 72).astype(np.float32).transpose(1, 2, 0)
        file["other"] = np.zeros((8, 9, 10), np.float32)
    told = {"variable": "noisy", "axes": "yxb", "model": weights, "force": True}
    card = finetune([str(tmp_path / "two.h5")], tmp_path / "mine.safetensors", **FEW | {"steps": 1}, **told)
    assert card.config["bands"] == 12
    with pytest.raises(UsageError, match="several arrays"):
        finetune([str(tmp_path / "two.h5")], tmp_path / "yours.safetensors", model=weights, **FEW)


def test_the_best_of_several_moments_is_kept(scene, weights, tmp_path, monkeypatch):
    scores = iter([0.9, 0.8, 0.3, 0.5, 0.4, 0.7])  # before, at three moments and at the end, of dct
    monkeypatch.setattr("hsidenoise.finetune.judge", lambda *_: next(scores))
    monkeypatch.setattr("hsidenoise.finetune.CHECKS", (1 / 4, 1 / 2, 3 / 4, 1))
    changes = FEW | {"steps": 4}
    card = finetune([str(scene)], tmp_path / "mine.safetensors", model=weights, **changes)
    assert card.training["held_back"]["after"] == 0.3
    assert card.training["steps"] == 2


def test_from_a_cleaner_scene(scene, truth, weights, tmp_path):
    card = finetune([str(scene)], tmp_path / "mine.safetensors", model=weights, reference=truth, **FEW)
    found = card.training["held_back"]
    assert found["measure"] == "MPSNR, dB"
    assert found["after"] > found["before"]
    assert found["dct"] > 25


def test_from_clean_bands(truth, weights, tmp_path):
    rng = np.random.default_rng(0)
    sigma = np.where(np.arange(16) < 14, 5e-4, 0.04)[:, None, None]
    pixels = tiny.clean(16, 64, 72) + rng.standard_normal((16, 64, 72)) * sigma
    scene = tiny.geotiff(tmp_path / "half.tif", pixels.astype(np.float32))
    with open_cube(scene) as cube:
        own = own_scene(cube, "half.tif")
    batch = OwnWindows([own], bands=8, edge=24, seed=0, clean_bands=True).batch(0, 40)
    added = (batch.noisy - batch.clean).std((2, 3))
    np.testing.assert_allclose(added, batch.sigma, rtol=0.15)
    assert added.max() > 0.02 > 0.002 > np.median(added)
    with pytest.raises(TrainingError, match="no window of bands is clean enough"):
        finetune([str(tiny.geotiff(tmp_path / "noisy.tif", tiny.cube(12, 64, 72).astype(np.float32)))],
                 tmp_path / "mine.safetensors", model=weights, clean_bands=True, **FEW)  # fmt: skip


@pytest.fixture
def gains(tmp_path):
    """Weights of eigen-images that do as the model without: their gains are untrained."""
    network = build("shrinkage")
    card = replace(BUILT_IN_CARD, name="plain", arch="shrinkage", config=asdict(network.config))
    save(network, card, tmp_path / "plain.safetensors")
    return str(tmp_path / "plain.safetensors")


@pytest.mark.parametrize("supervised", [False, True])
def test_gains_of_eigen_images_too(scene, truth, gains, tmp_path, supervised):
    out = tmp_path / "mine.safetensors"
    card = finetune([str(scene)], out, model=gains, reference=truth if supervised else None, **FEW)
    found = card.training["held_back"]
    assert found["before"] == pytest.approx(found["dct"], abs=1e-4)
    assert (found["after"] > found["before"]) == supervised
    assert found["after"] != found["before"]
    result = CliRunner().invoke(app, ["run", str(scene), "-o", str(tmp_path / "clean.tif"), "--model", str(out), "-q"])
    assert result.exit_code == 0
    before = np.square(tiny.pixels(scene) - tiny.pixels(truth)).mean()
    assert np.square(tiny.pixels(tmp_path / "clean.tif") - tiny.pixels(truth)).mean() < 0.1 * before


@pytest.mark.parametrize("way", ["reference", "itself", "clean bands"])
def test_eigen_images_are_judged_by_bands(way, tmp_path):
    """What denoises the images comes closer to what is to be learned, of which some is noise that none can know."""
    clean = tiny.clean(12, 64, 72)
    sigma = 3e-4 if way == "clean bands" else 0.03
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    scene = tiny.geotiff(tmp_path / "scene.tif", noisy.astype(np.float32))
    truth = tiny.geotiff(tmp_path / "truth.tif", clean.astype(np.float32))
    with open_cube(scene) as cube, open_cube(truth) as other:
        own = own_scene(cube, "scene.tif", other if way == "reference" else None)
    batch = OwnImages([own], bands=8, edge=24, seed=0, clean_bands=way == "clean bands").batch(0, 6)
    clean, shown, _, back, _ = (torch.from_numpy(part) for part in batch)
    assert shown.shape == (6, 8, 24, 24)
    energy = {"reference": 1, "itself": INPUT_NOISE, "clean bands": 1}[way] * sigma**2
    unknown = TARGET_NOISE * sigma**2 if way == "itself" else 0
    with torch.no_grad():
        before, after = (band_error(x, back, clean).mean().item() - unknown for x in (shown, Dct()(shown)[0]))
    assert 0.1 * energy < before < 1.1 * energy  # noise outside of the images is gone already
    assert after < (0.3 if way != "clean bands" else 0.9) * before  # clean bands are as noisy as what is added to them


@pytest.mark.parametrize(("strength", "energy"), [(0.0, 1.25), (0.5, 0.31), (1.0, 0.01)])
def test_the_measure_without_truth_is_the_error_there_is(monkeypatch, scene, strength, energy):
    """Denoisers that do nothing, half of the work and all of it, by the truth and by recorruption."""

    def partly(noisy, engine):
        return (1 - strength) * noisy + strength * denoise_array(noisy, engine)

    monkeypatch.setattr("hsidenoise.finetune.denoise_array", partly)
    with open_cube(scene) as cube:
        own = own_scene(cube, "scene.tif")
    engine = Engine(*load(BUILT_IN), torch.device("cpu"), 1)
    noisy, _ = recorrupt(own.area.noisy, own.strength.at(own.area.noisy), np.random.default_rng([5, 0]))
    clean = tiny.clean(12, 64, 72)[:, : noisy.shape[1], : noisy.shape[2]]
    error = np.square(partly(noisy, engine) - clean) / own.sigma[:, None, None] ** 2
    true = np.mean([error[:, *here].mean() for here in own.held_back])
    assert true == pytest.approx(energy, abs=0.05)
    # The target's noise has energy 5, over 12 x 32 x 32 samples.
    assert judge([own], engine) == pytest.approx(true, abs=0.1)


def test_recorrupted_pairs_have_independent_noise():
    rng = np.random.default_rng(1)
    sigma = np.array([0.5, 2.0])
    noise = rng.standard_normal((2, 300, 300)).astype(np.float32) * sigma.astype(np.float32)[:, None, None]
    first, second = recorrupt(noise, np.broadcast_to(sigma.astype(np.float32)[:, None, None], noise.shape), rng)
    assert abs((first * second).mean((1, 2)) / sigma**2).max() < 0.03
    np.testing.assert_allclose(second.var((1, 2)) / sigma**2, TARGET_NOISE, rtol=0.03)


@pytest.mark.parametrize("bands", [4, 12, 40])
@pytest.mark.parametrize("photons", [False, True])
def test_noise_that_grows_with_the_signal_is_drawn_so(bands, photons):
    """The strength that is found, against the one that was drawn with: by pixel, and on average."""
    clean = tiny.clean(bands, 96, 96) + 0.05
    variance = 4e-4 * (clean / clean.mean((1, 2), keepdims=True) if photons else np.ones_like(clean))
    rng = np.random.default_rng(3)
    noisy = (clean + rng.standard_normal(clean.shape) * np.sqrt(variance)).astype(np.float32)
    found = np.square(Strength.of(noisy, np.full(bands, 0.02)).at(noisy).astype(np.float64))
    np.testing.assert_allclose(found.mean((1, 2)), 4e-4, rtol=0.05)
    if bands > 4 or not photons:  # four bands may be all signal: then the noise is taken for even
        wrong = np.abs(found - variance).mean((1, 2)) / 4e-4
        assert np.median(wrong) < 0.12
    assert (found > 0).all()


def test_strength_of_bands_without_texture_and_of_few_pixels():
    rng = np.random.default_rng(0)
    for shape in [(3, 16, 16), (50, 16, 32), (1, 16, 32)]:
        noisy = (5 + rng.standard_normal(shape)).astype(np.float32)
        found = Strength.of(noisy, np.ones(shape[0])).at(noisy)
        assert found.shape == shape
        np.testing.assert_allclose(np.square(found).mean((1, 2)), 1, rtol=0.05)


def test_the_measure_holds_where_noise_grows_with_the_signal():
    """A denoiser that keeps all noise where it is strong, and none where it is weak, is not taken for a good one."""
    clean = (tiny.clean(16, 128, 128) + 0.02).astype(np.float32)
    spread = 0.03 * np.sqrt(clean / clean.mean((1, 2), keepdims=True))
    noisy = clean + spread * np.random.default_rng(1).standard_normal(clean.shape, dtype=np.float32)
    sigma = np.sqrt(np.square(spread).mean((1, 2))).astype(np.float64)
    first, target = recorrupt(noisy, Strength.of(noisy, sigma).at(noisy), np.random.default_rng(2))
    bright = clean > np.median(clean, (1, 2), keepdims=True)
    result = np.where(bright, first, clean)
    strength = Strength.of(noisy, sigma).at(noisy)
    error = (np.square(result - target) - TARGET_NOISE * np.square(strength)).mean((1, 2)) / sigma**2
    true = np.square(result - clean).mean((1, 2)) / sigma**2
    assert true.mean() > 0.6
    assert error.mean() == pytest.approx(true.mean(), abs=0.1)


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (200, 200), (700, 300), (2000, 2500)])
def test_what_is_held_back_is_not_learned_from(shape):
    area, held_back, others = divide(*shape)
    seen = np.zeros(shape, int)
    for window in others:
        seen[window.row_start : window.row_stop, window.col_start : window.col_stop] += 1
    assert seen.max() == 1
    assert held_back
    inside = seen[area.row_start : area.row_stop, area.col_start : area.col_stop]
    assert max(inside.shape) <= 256
    for here in held_back:
        assert not inside[here].any()
        assert inside[here].size == np.prod([s.stop - s.start for s in here])


def test_another_number_of_bands():
    network = tiny.network(bands=8)
    same, more = rebanded(network, 8).eval(), rebanded(network, 13).eval()
    y, sigma = torch.rand(1, 8, 24, 24), torch.full((1, 8), 0.1)
    torch.testing.assert_close(same(y, sigma)[0], network.eval()(y, sigma)[0])
    for name, atoms in more.shared.items():  # a flat spectrum finds the same code, but for its greater energy
        torch.testing.assert_close(atoms.mean(1), network.shared[name].mean(1) * (8 / 13) ** 0.5, rtol=0.2, atol=0.02)
    assert more(torch.rand(1, 13, 24, 24), torch.full((1, 13), 0.1))[0].shape == (1, 13, 24, 24)
    assert all(torch.equal(a, b) for a, b in zip(more.net1.parameters(), network.net1.parameters(), strict=True))


def test_weights_that_are_no_better_are_not_written(scene, weights, tmp_path):
    out = tmp_path / "mine.safetensors"
    still = FEW | {"steps": 1, "lr": 1e-12}
    with pytest.raises(TrainingError, match=r"not written.*--force"):
        finetune([str(scene)], out, model=weights, **still)
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]
    finetune([str(scene)], out, model=weights, force=True, **still)
    assert out.exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "dct"}, UsageError, "no weights to adapt"),
        ({"output": "mine.pt"}, UsageError, "written as .safetensors"),
        ({"output": "no/mine.safetensors"}, UsageError, "no such folder"),
        ({"scenes": 2, "reference": "scene.tif"}, UsageError, "belongs to one scene"),
        ({"clean_bands": True, "reference": "scene.tif"}, UsageError, "give one"),
        ({"reference": "other.tif"}, UsageError, "other.tif"),
        ({"output": "there.safetensors"}, OutputExistsError, "--overwrite"),
        ({"small": True}, TrainingError, "too small"),
    ],
)
def test_what_cannot_be_done_is_said(changes, error, message, scene, weights, tmp_path):
    changes = dict(changes)
    tiny.geotiff(tmp_path / "other.tif", tiny.cube(12, 40, 40).astype(np.float32))
    small = tiny.geotiff(tmp_path / "small.tif", tiny.cube(12, 12, 90).astype(np.float32))
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    scenes = [str(small if changes.pop("small", False) else scene)] * changes.pop("scenes", 1)
    output = tmp_path / changes.pop("output", "mine.safetensors")
    if "reference" in changes:
        changes["reference"] = tmp_path / changes["reference"]
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(error, match=message):
        finetune(scenes, output, **({"model": weights} | FEW | changes))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_command_tells_what_was_won(scene, weights, tmp_path):
    out = tmp_path / "mine.safetensors"
    line = ["finetune", str(scene), "-o", str(out), "--model", weights]
    line += ["--steps", "30", "--patch", "16", "--lr", "3e-3"]
    result = CliRunner().invoke(app, [*line, "--json", "-q"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["training"]["held_back"]["dct"] < 0.6
    again = CliRunner().invoke(app, line)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
