"""Training: data in, the same weights whether interrupted or not, honest cards."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_noise import textured

from hsidenoise import train as training
from hsidenoise import validation
from hsidenoise.errors import OutputExistsError, TrainingError, UsageError, WeightsError
from hsidenoise.model import configs, decsc
from hsidenoise.model.weights import Card, WeightFile, digest, find, load, read_card, save
from hsidenoise.patches import Prefetch, Sampler, load_scenes
from hsidenoise.photos import load_photos
from hsidenoise.settings import TrainOptions

TINY = configs.Config(
    bands=7, shared=8, local=4, kernel=8, stride=4, depth=1, heads=2, ratio=1, noise_weighted=True, evaluations=3
)


@pytest.fixture(autouse=True)
def tiny_arch(monkeypatch):
    monkeypatch.setitem(configs.CONFIGS, "tiny", TINY)


@pytest.fixture
def cubes(tmp_path) -> Path:
    """Two scenes; the first has two bad bands that split it in runs of 8 and 10."""
    path = tmp_path / "cubes.h5"
    with h5py.File(path, "w") as file:
        first = file.create_dataset("first", data=(textured(20, 48).transpose(1, 2, 0) * 5000).astype(np.int16))
        clean = np.ones(20, bool)
        clean[8:10] = False
        first.attrs["clean_bands"] = clean
        file.create_dataset("second", data=textured(12, 24, seed=1).transpose(1, 2, 0))
        file.create_dataset("not_a_cube", data=np.zeros(5))
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    path = tmp_path / "photos.h5"
    with h5py.File(path, "w") as file:
        for i in range(3):
            image = 255 * textured(3, 48, seed=10 + i)
            file[f"street/{i}"] = np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return path


@pytest.fixture
def val(tmp_path) -> Path:
    path = tmp_path / "val.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("third", data=textured(9, 104, seed=2).transpose(1, 2, 0))
    return path


def options(**changes) -> TrainOptions:
    settings = {"arch": "tiny", "steps": 6, "batch": 2, "patch": 16, "device": "cpu", "validate_every": 100}
    return TrainOptions(**(settings | changes))


def test_scenes_are_scaled_and_split_into_runs(cubes):
    first, second = load_scenes(cubes)
    assert first.cube.shape == (18, 48, 48)
    assert first.runs == (slice(0, 8), slice(8, 18))
    assert first.cube.min() == 0
    assert first.cube.max() == 1
    assert second.runs == (slice(0, 12),)
    assert len({first.digest, second.digest}) == 2


def test_patches_never_cross_bad_bands_and_depend_on_seed_and_step_alone(cubes):
    scenes = load_scenes(cubes)
    sampler = Sampler(scenes, bands=10, edge=16, patterns=["g15", "mixture"], seed=3)
    assert {(s.name, r.start) for s, r in sampler.choices} == {("first", 8), ("second", 0)}
    batch = sampler.batch(5, 4)
    again = Sampler(scenes, bands=10, edge=16, patterns=["g15", "mixture"], seed=3).batch(5, 4)
    for a, b in zip(batch, again, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(batch.clean, sampler.batch(6, 4).clean)
    assert batch.clean.shape == batch.noisy.shape == (4, 10, 16, 16)
    truth = (batch.noisy - batch.clean).std((2, 3))
    assert np.allclose(batch.sigma, truth, rtol=0.5, atol=1e-6)
    assert batch.clean.min() > -1
    assert batch.clean.max() < 3


def test_prefetched_batches_come_in_order(cubes):
    sampler = Sampler(load_scenes(cubes), bands=7, edge=16, patterns=["g55"], seed=0)
    for workers in (0, 1, 5):
        for step, batch in zip(range(3, 9), Prefetch(sampler, 3, 9, 2, workers), strict=True):
            assert np.array_equal(batch.noisy, sampler.batch(step, 2).noisy)


def test_processes_draw_what_threads_draw(cubes):
    """In an interpreter of their own, as in use: processes begun as copies must not inherit other tests' threads."""
    script = """
import sys, numpy as np
from pathlib import Path
from hsidenoise.patches import Batch, Prefetch, Sampler, load_scenes
sampler = Sampler(load_scenes(Path(sys.argv[1])), bands=7, edge=16, patterns=["g55"], seed=0)
batches = list(Prefetch(sampler, 3, 9, 2, 2, processes=True))
assert len(batches) == 6
for step, batch in zip(range(3, 9), batches):
    assert isinstance(batch, Batch)
    for part, expected in zip(batch, sampler.batch(step, 2)):
        assert np.array_equal(part.numpy(), expected)
"""
    subprocess.run([sys.executable, "-c", script, str(cubes)], check=True, timeout=120)


class Slow:
    """Batches that take a while."""

    def batch(self, step, size):
        time.sleep(0.05)
        return step


@pytest.mark.parametrize(("pause", "least", "most"), [(0.0, 0.8, 1.0), (0.2, 0.0, 0.5)])
def test_the_time_spent_waiting_for_batches_is_told(pause, least, most):
    batches = Prefetch(Slow(), 0, 8, 1, workers=1)
    for _ in batches:
        time.sleep(pause)
    assert least < batches.waiting <= most


def test_data_that_cannot_be_used(tmp_path, cubes):
    with pytest.raises(TrainingError, match="nowhere"):
        load_scenes(tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("no cubes here")
    with pytest.raises(TrainingError, match=r"text\.h5"):
        load_scenes(tmp_path / "text.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(TrainingError, match="no 3-D dataset"):
        load_scenes(tmp_path / "empty.h5")
    with pytest.raises(TrainingError, match="40 neighbouring"):
        Sampler(load_scenes(cubes), bands=40, edge=16, patterns=["g15"], seed=0)


@pytest.mark.parametrize("mixed", [False, True], ids=["cubes", "photographs too"])
def test_an_interrupted_run_ends_with_the_same_weights(mixed, cubes, photos, tmp_path, monkeypatch):
    settings = options(photos=photos, photo_share=0.5) if mixed else options()
    straight = tmp_path / "straight.safetensors"
    training.train([cubes], straight, settings, quiet=True)

    resumed = tmp_path / "resumed.safetensors"
    whole = training.Run.advance

    def stop_after_three(self, *batch):
        if self.step == 3:
            raise KeyboardInterrupt
        record = whole(self, *batch)
        self.checkpoint()
        return record

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "advance", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            training.train([cubes], resumed, settings, quiet=True)
    assert not resumed.exists()
    training.train([cubes], resumed, settings, quiet=True)
    a, _ = load(WeightFile("a", straight))
    b, _ = load(WeightFile("b", resumed))
    for one, other in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_card_and_the_log_say_what_happened(cubes, val, tmp_path):
    output = tmp_path / "net.safetensors"
    card = training.train([cubes], output, options(val=val, steps=20, patterns="g15,g55"), quiet=True)
    assert read_card(WeightFile("net", output)) == card
    assert card.noise == ("g15", "g55")
    assert card.training["steps"] == 20
    assert set(card.training["scenes"]) == {"first", "second"}
    assert set(card.validation) == {"g15", "g55"}
    assert set(card.validation["g15"]) == {"third", "mean"}
    assert 0 < card.floor < 1
    lines = [json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines()]
    assert {"step", "loss", "psnr", "residual", "lr", "gradient"} <= set(lines[0])
    assert 0 <= lines[0]["waiting"] <= 1
    assert "photos" not in card.training
    assert "validation" in lines[-1]
    assert len(digest(output)) == 64


def test_the_card_names_the_photographs_and_their_digests(cubes, photos, tmp_path):
    output = tmp_path / "net.safetensors"
    card = training.train([cubes], output, options(steps=2, photos=photos, photo_share=0.7), quiet=True)
    assert set(card.training["photos"]) == {"street/0", "street/1", "street/2"}
    assert card.training["photos"] == {p.name: p.digest for p in load_photos(photos)}
    assert card.training["options"]["photo_share"] == 0.7
    assert read_card(WeightFile("net", output)).training["photos"] == card.training["photos"]


def test_other_photographs_are_another_run_but_may_have_moved(cubes, photos, tmp_path):
    output = tmp_path / "x.safetensors"
    training.train([cubes], output, options(steps=2, photos=photos), quiet=True)
    moved = photos.rename(tmp_path / "moved.h5")
    training.train([cubes], output, options(steps=2, photos=moved), quiet=True)
    for changes, words in [({}, "photo_share, photos"), ({"photos": moved, "photo_share": 0.5}, "photo_share")]:
        with pytest.raises(TrainingError, match=words):
            training.train([cubes], output, options(steps=2, **changes), quiet=True)
    with h5py.File(moved, "a") as file:
        file["street/0"][0, 0, 0] ^= 1
    with pytest.raises(TrainingError, match="photos"):
        training.train([cubes], output, options(steps=2, photos=moved), quiet=True)


def test_training_reduces_the_loss(cubes, tmp_path):
    torch.manual_seed(0)
    network = decsc.build("tiny")
    sampler = Sampler(load_scenes(cubes), bands=7, edge=16, patterns=["g55"], seed=0)
    batch = [torch.from_numpy(part) for part in sampler.batch(0, 4)]
    run = training.Run(network, options(steps=60, lr=3e-3), tmp_path / "x.safetensors", {}, {})
    losses = [run.advance(batch)["loss"] for _ in range(25)]
    assert losses[-1] < losses[0] - 0.2


def test_training_brings_the_solver_to_rest(cubes, tmp_path):
    sampler = Sampler(load_scenes(cubes), bands=7, edge=16, patterns=["g55"], seed=0)
    batch = [torch.from_numpy(part) for part in sampler.batch(0, 4)]
    residual = {}
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        told = options(steps=60, lr=2e-2, evaluations=9, drift=weight)
        run = training.Run(decsc.build("tiny"), told, tmp_path / "x.safetensors", {}, {})
        records = [run.advance(batch) for _ in range(30)]
        assert records[-1]["evaluations"] == 6
        residual[weight] = records[-1]["residual"]
    assert residual[3.0] < 0.9 * residual[0.0]


def test_the_last_filter_can_be_left_out_of_the_loss(cubes, tmp_path, monkeypatch):
    monkeypatch.setitem(configs.CONFIGS, "tiny", replace(TINY, wiener=True))
    sampler = Sampler(load_scenes(cubes), bands=7, edge=16, patterns=["g55"], seed=0)
    batch = [torch.from_numpy(part) for part in sampler.batch(0, 2)]
    psnr = {}
    for unfiltered in (False, True):
        torch.manual_seed(0)
        run = training.Run(decsc.build("tiny"), options(unfiltered=unfiltered), tmp_path / "x.safetensors", {}, {})
        psnr[unfiltered] = run.advance(batch)["psnr"]
    assert psnr[False] > psnr[True] + 1
    for arch in ("decsc", "shrinkage"):
        with pytest.raises(UsageError, match=f"--unfiltered: {arch}"):
            training.train([cubes], tmp_path / "x.safetensors", options(arch=arch, unfiltered=True), quiet=True)


def test_a_network_of_eigen_images_trains_and_says_so(tmp_path, monkeypatch):
    small = {"bands": 4, "frontend": "eigen", "noise_weighted": False, "shrink": 0.7, "wiener": True}
    monkeypatch.setitem(configs.CONFIGS, "tiny", replace(TINY, **small))
    for name, seed in (("train", 0), ("val", 3)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset(name, data=textured(34, 40, seed=seed).transpose(1, 2, 0))
    output = tmp_path / "x.safetensors"
    card = training.train([tmp_path / "train.h5"], output, options(val=tmp_path / "val.h5", patterns="g55"), quiet=True)
    assert card.floor == 0
    assert "eigenvectors" in card.normalisation
    model, _ = load(WeightFile("x", output))
    assert model.frontend == "eigen"
    psnr = card.validation["g55"]["val"][0]
    assert psnr > 25  # a frame's codes, and the weight-free model's filters


def test_codes_are_learned_alone_and_learned_filters_are_taken_over(cubes, tmp_path, monkeypatch):
    """What guides the filter is judged, so that its gains stay what they were: those of weights of another network."""
    small = {"bands": 4, "frontend": "eigen", "noise_weighted": False, "wiener": True, "gains": 64}
    monkeypatch.setitem(configs.CONFIGS, "tiny", replace(TINY, **small))
    output = tmp_path / "x.safetensors"
    told = options(patterns="g55", steps=2, start="shrinkage", unfiltered=True)
    training.train([cubes], output, told, quiet=True)
    learned, taken = (load(find(name))[0].state_dict() for name in (str(output), "shrinkage"))
    for name, tensor in taken.items():
        assert torch.equal(learned[name], tensor) is not name.startswith("gains.threshold")
    assert not torch.equal(learned["shared.analysis"], decsc.build("tiny").state_dict()["shared.analysis"])


def test_a_network_of_gains_trains_runs_and_cannot_start_otherwise(cubes, tmp_path):
    output = tmp_path / "x.safetensors"
    card = training.train([cubes], output, options(arch="shrinkage", patterns="g55", steps=2), quiet=True)
    assert card.config == {"bands": 16, "gains": 64}
    assert card.halo == 24  # three patches of 8 pixels: no seam at all
    model, _ = load(WeightFile("x", output))
    noisy = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert model(noisy)[0].square().mean() < 0.3  # noise is taken for it
    with pytest.raises(UsageError, match="--init kaiming"):
        training.train([cubes], tmp_path / "y.safetensors", options(arch="shrinkage", init="kaiming"), quiet=True)


def test_validation_scenes_in_the_training_data_are_refused(cubes, tmp_path):
    with pytest.raises(TrainingError, match="2 validation scenes"):
        training.train([cubes], tmp_path / "x.safetensors", options(val=cubes), quiet=True)


def test_options_out_of_range_are_refused(cubes, tmp_path):
    for changes, words in [
        ({"arch": "huge"}, "--arch"),
        ({"init": "zeros"}, "--init"),
        ({"loss": "l1"}, "--loss"),
        ({"patterns": "g15,g77"}, "g77"),
        ({"evaluations": -1}, "--evaluations"),
        ({"drift": -1.0}, "--drift"),
        ({"photo_share": 0.0}, "--photo-share"),
        ({"photo_share": 1.5}, "--photo-share"),
    ]:
        with pytest.raises(UsageError, match=words):
            training.train([cubes], tmp_path / "x.safetensors", options(**changes), quiet=True)
    with pytest.raises(UsageError, match="safetensors"):
        training.train([cubes], tmp_path / "x.pt", options(), quiet=True)
    (tmp_path / "there.safetensors").write_bytes(b"keep me")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        training.train([cubes], tmp_path / "there.safetensors", options(), quiet=True)
    assert (tmp_path / "there.safetensors").read_bytes() == b"keep me"


def test_a_checkpoint_of_another_run_is_refused(cubes, val, tmp_path):
    output = tmp_path / "x.safetensors"
    training.train([cubes], output, options(steps=2), quiet=True)
    with pytest.raises(TrainingError, match="lr"):
        training.train([cubes], output, options(steps=2, lr=1.0), quiet=True)
    with pytest.raises(TrainingError, match="scenes"):
        training.train([val], output, options(steps=2), quiet=True)
    output.with_suffix(".checkpoint").write_bytes(b"\x00" * 100)
    with pytest.raises(TrainingError, match="damaged"):
        training.train([cubes], output, options(steps=2), quiet=True)


def test_the_floor_and_the_halo_are_measured(cubes, val):
    network = decsc.build("tiny").eval()
    scenes = load_scenes(cubes)
    assert 0 < validation.measure_floor(network, scenes) < 0.5
    assert validation.measure_halo(network, load_scenes(val)) in range(4, 65, 4)


def test_training_starts_from_weights(cubes, tmp_path):
    """Without a step worth the name, what was there is what is written; other shapes and no weights are refused."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    training.train([cubes], first, options(steps=2, lr=1e-2), quiet=True)
    card = training.train([cubes], second, options(steps=1, lr=0.0, start=str(first)), quiet=True)
    assert card.training["options"]["start"] == "first.safetensors"  # folders are nobody's business
    expected = load(WeightFile("first", first))[0].state_dict()
    for name, tensor in load(WeightFile("second", second))[0].state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(WeightsError, match="of this shape"):
        training.train([cubes], tmp_path / "x.safetensors", options(start=str(first), arch="compact"), quiet=True)
    with pytest.raises(WeightsError, match="has no weights"):
        training.train([cubes], tmp_path / "x.safetensors", options(start="dct"), quiet=True)


def test_weights_of_another_shape_are_refused(cubes, tmp_path):
    output = tmp_path / "x.safetensors"
    training.train([cubes], output, options(steps=1), quiet=True)
    data = output.read_bytes()
    changed = data.replace(b'\\"shared\\": 8', b'\\"shared\\": 6')
    assert changed != data
    (tmp_path / "y.safetensors").write_bytes(changed)
    with pytest.raises(WeightsError, match="do not fit"):
        load(WeightFile("y", tmp_path / "y.safetensors"))


@pytest.mark.parametrize(
    ("card", "words"),
    [({"halo": "x"}, "halo"), ({"halo": -4}, "halo"), ({"floor": -1.0}, "floor"), ({"training": "much"}, "training")],
)
def test_cards_that_make_no_sense_are_refused(tmp_path, card, words):
    network = decsc.build("tiny")
    fields = {"name": "x", "arch": "tiny", "config": asdict(network.config)} | card
    save(network, Card(**fields), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=words):
        read_card(WeightFile("x", tmp_path / "x.safetensors"))


def test_truncated_weights_say_so(tmp_path):
    network = decsc.build("tiny")
    path = tmp_path / "x.safetensors"
    save(network, Card("x", "tiny", asdict(network.config)), path)
    assert path.stat().st_mode & 0o044  # readable for others too
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="truncated"):
        load(WeightFile("x", path))
