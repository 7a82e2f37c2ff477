"""Photographs given spectra: what is read, what comes out, and that it is the same each time."""

from __future__ import annotations

import builtins
import zipfile
from itertools import pairwise

import h5py
import numpy as np
import pytest
import tiny
from PIL import Image

from hsidenoise.eigenpatches import EigenSampler
from hsidenoise.errors import TrainingError
from hsidenoise.mixing import LIGHT, Mixer, smooth, spacing
from hsidenoise.patches import Sampler, Scene
from hsidenoise.photos import load_photos


def picture(rows=150, cols=170, seed=0):
    """A sky, two fields with texture and a dark building: (rows, cols, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :cols]
    colours = np.array([[120, 160, 220], [60, 110, 50], [170, 140, 90], [30, 30, 35]])
    place = np.where(y < rows // 3, 0, np.where(x < cols // 2, 1, 2))
    place[rows // 2 : rows // 2 + 30, cols // 3 : cols // 3 + 60] = 3
    grain = rng.normal(0, 6, (rows, cols, 1)) + 15 * np.sin(x / 5)[..., None] * (place == 1)[..., None]
    return np.clip(colours[place] + grain, 0, 255).astype(np.uint8)


def stored(pixels):
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


@pytest.fixture
def mixer():
    cubes = [tiny.clean(40, 30, 30, seed=i).astype(np.float32) for i in range(2)]
    return Mixer([stored(picture(seed=i)) for i in range(2)], cubes)


@pytest.fixture
def scenes():
    return [Scene("a", tiny.clean(40, 60, 70).astype(np.float32), (slice(0, 40),), "")]


def test_cubes_are_within_their_range_and_no_two_scenes_alike(mixer):
    bands, peaks, dark = set(), [], 0
    for i in range(60):
        mixture = mixer.draw(31, 32, np.random.default_rng(i))
        cube = mixture.cube()
        assert cube.dtype == np.float32
        assert cube.shape == (len(mixture.spectra), 32, 32)
        assert np.isfinite(cube).all()
        assert cube.min() >= 0
        bands.add(len(cube))
        peaks.append(cube.max())
        dark += cube.max() < 0.4
    assert min(bands) >= 31
    assert max(bands) <= 200
    assert len(bands) > 30
    assert max(peaks) < 2  # what the scene's scale was told from is a part of it
    assert 0 < dark < 40


def test_nothing_is_cut_off_at_the_top(mixer):
    """Of what is bright, hardly two pixels are the same."""
    for i in range(20):
        cube = mixer.draw(31, 32, np.random.default_rng(i)).cube()
        assert (cube == cube.max((1, 2), keepdims=True)).mean() < 0.05


def test_edges_are_where_the_photograph_has_them(mixer):
    """One of 66 pixels has a single square of 64 with all its neighbours."""
    photo = picture(rows=66, cols=66, seed=5)
    edges = np.abs(np.diff(np.sqrt(LIGHT[photo]).mean(2), axis=1))[1:-1, 1:-1].ravel()
    one = Mixer([stored(photo)], mixer.cubes)
    alike = []
    for i in range(20):
        cube = one.draw(31, 64, np.random.default_rng(i)).cube()
        found = np.abs(np.diff(np.sqrt(cube), axis=2)).mean(0).ravel()
        alike.append(np.corrcoef(edges, found)[0, 1])
    assert min(alike) > 0.3
    assert np.median(alike) > 0.7


def test_neighbouring_bands_are_alike_and_spectra_differ(mixer):
    alike, ranks = [], []
    for i in range(20):
        flat = mixer.draw(31, 32, np.random.default_rng(i)).cube().reshape(-1, 32 * 32)
        values = np.linalg.svd(flat - flat.mean(1, keepdims=True), compute_uv=False)
        ranks.append(int((values > 1e-3 * values[0]).sum()))
        alike += [np.corrcoef(a, b)[0, 1] for a, b in pairwise(flat) if a.std() > 0 < b.std()]
    assert np.median(alike) > 0.95
    assert np.median(ranks) >= 4  # more than one picture in different brightness


def test_light_is_that_of_srgb():
    """The two ends and the middle, by the standard's own figures."""
    assert LIGHT[0] == 0
    assert LIGHT[255] == 1
    assert LIGHT[10] == pytest.approx(10 / 255 / 12.92)
    assert LIGHT[188] == pytest.approx(0.5, abs=0.005)


def test_spectra_made_up_are_reflectances_and_bands_stand_at_random_distances():
    for i in range(30):
        rng = np.random.default_rng(i)
        axis = spacing(60, rng)
        steps = np.diff(axis)
        assert axis[0] >= 0
        assert axis[-1] <= 1 + 1e-12
        assert (steps >= 0).all()
        assert steps.std() > 0.02 * steps.mean()
        spectra = smooth(5, axis, rng)
        assert spectra.shape == (60, 5)
        assert spectra.min() >= 0
        assert spectra.max() <= 1


@pytest.mark.parametrize("kind", [Sampler, EigenSampler])
def test_a_batch_depends_on_seed_and_step_alone_and_holds_the_share_asked_for(kind, mixer, scenes):
    settings = {"bands": 8, "edge": 16, "patterns": ["g15", "mixture"], "seed": 3, "mixer": mixer}
    calls = []
    draw = mixer.draw
    mixer.draw = lambda *given: calls.append(1) or draw(*given)
    batch = kind(scenes, share=0.5, **settings).batch(5, 60)
    assert 15 < len(calls) < 45
    again = kind(scenes, share=0.5, **settings).batch(5, 60)
    assert all(np.array_equal(a, b) for a, b in zip(batch, again, strict=True))
    assert batch.noisy.shape == (60, 8, 16, 16)
    calls.clear()
    whole = kind(scenes, share=1.0, **settings).batch(1, 10)
    assert len(calls) == 10
    assert all(np.isfinite(part).all() for part in whole)


def test_without_photographs_patches_are_what_they_were(mixer, scenes):
    settings = {"bands": 8, "edge": 16, "patterns": ["g15"], "seed": 3}
    first, again = (Sampler(scenes, **settings, share=share).batch(2, 3) for share in (0.0, 0.4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_synthesised_scenes_are_in_their_eigen_images(mixer, scenes):
    sampler = EigenSampler(scenes, bands=4, edge=16, patterns=["g55"], seed=0, mixer=mixer, share=1.0)
    batch = sampler.batch(0, 24)
    assert batch.noisy[:, 0].std() > 3 * batch.noisy[:, 3].std()  # the first image holds the most
    error = np.einsum("njb,nbhw->njhw", batch.back, batch.noisy) - batch.clean
    assert np.median(error.std((2, 3)) / batch.clean.std((2, 3))) < 0.7


def test_folder_archive_and_h5_give_the_same_photographs(tmp_path):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    names = ["b.png", "deep/a.png"]
    for seed, name in enumerate(names):
        Image.fromarray(picture(40, 50, seed)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no photograph")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in ["notes.txt", *names]:
            archive.write(tmp_path / "photos" / name, name)
    with h5py.File(tmp_path / "photos.h5", "w") as file:
        for seed, name in enumerate(names):
            file[name] = picture(40, 50, seed)
        file["wavelengths"] = np.arange(5)
    folder, archive, h5 = (load_photos(tmp_path / name) for name in ("photos", "photos.zip", "photos.h5"))
    assert [p.name for p in folder] == [p.name for p in archive] == [p.name for p in h5] == names
    assert [p.digest for p in folder] == [p.digest for p in archive] == [p.digest for p in h5]
    assert len({p.digest for p in folder}) == 2
    np.testing.assert_array_equal(folder[1].pixels.transpose(1, 2, 0), picture(40, 50, 1))
    single = load_photos(tmp_path / "photos" / "b.png")
    assert [(p.name, p.digest) for p in single] == [("b.png", folder[0].digest)]


def test_grey_and_transparent_photographs_are_read_as_colour(tmp_path):
    Image.fromarray(picture(40, 50)[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(picture(40, 50)).convert("RGBA").save(tmp_path / "alpha.png")
    assert [p.pixels.shape for p in load_photos(tmp_path)] == [(3, 40, 50)] * 2


def test_a_grey_photograph_and_a_black_one_can_be_mixed(mixer):
    flat = np.zeros((3, 40, 50), np.uint8)
    grey = np.repeat(stored(picture(40, 50))[:1], 3, 0)
    for photo in (flat, grey, flat + np.uint8(255)):
        for i in range(5):
            cube = Mixer([photo], mixer.cubes).draw(31, 48, np.random.default_rng(i)).cube()
            assert np.isfinite(cube).all()
            assert 0 <= cube.min() <= cube.max() < 2


def test_photographs_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    for name, words in [("nowhere", "nowhere"), ("nowhere.h5", "HDF5"), ("empty", "holds no photograph")]:
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(TrainingError, match=words):
            load_photos(tmp_path / name)
    (tmp_path / "bad.zip").write_bytes(b"PK no archive")
    with pytest.raises(TrainingError, match=r"bad\.zip"):
        load_photos(tmp_path / "bad.zip")
    Image.fromarray(picture(20, 90)).save(tmp_path / "empty" / "small.png")
    with pytest.raises(TrainingError, match=r"small\.png has 20 x 90"):
        load_photos(tmp_path / "empty")
    Image.fromarray(picture(64, 64)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    for data in (whole[: len(whole) // 2], b"\xff\xd8 nothing", b""):
        (tmp_path / "empty" / "small.png").write_bytes(data)
        with pytest.raises(TrainingError, match=r"small\.png is not a readable photograph"):
            load_photos(tmp_path / "empty")
    real = builtins.__import__

    def without_pillow(name, *rest, **named):
        if name == "PIL":
            raise ImportError("No module named 'PIL'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(TrainingError, match="pip install pillow"):
        load_photos(tmp_path / "empty")
