"""Whole runs on real files from outside the project: what was no noise is still there, in the same words.

The network is tiny and untrained, its floor 0 and the check for harm off, so that every band changes that may.
What a file says is read with rasterio and spectral, and from the header's text; never with the package.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import spectral.io.envi as spy
import tiny
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from scenes import everything, quiet

from hsidenoise.errors import HSIDenoiseWarning, UsageError
from hsidenoise.probe import HARMFUL
from hsidenoise.run import run

ROOT = Path(__file__).parents[1]
GOOD = ROOT.parent / "shared" / "files" / "good"
pytestmark = pytest.mark.skipif(not GOOD.is_dir(), reason="the folder of sample files is not beside the project")


@dataclass(frozen=True)
class Scene:
    """A sample, and what is known of it from its documentation.

    `changed` counts the bands that may change, `passed` says why the others do not. `said` is the one warning to
    expect, `envi` the one when it is written as ENVI, `refused` why that is impossible.
    """

    name: str
    changed: int
    passed: str = ""
    beside: tuple[str, ...] = ()
    said: str = ""
    envi: str = ""
    refused: str = ""
    masked: bool = False

    @property
    def is_envi(self) -> bool:
        return self.name.startswith("envi/")


ENVI = "envi/"
TIFF = "geotiff/"
SCENES = {
    "EMIT": Scene(
        ENVI + "emit20250324t221005_jpl_unmix_ex", 244, "flagged bad", ("emit20250324t221005_jpl_unmix_ex.hdr",),
        said="wavelengths without a unit.*taken as nm",
    ),
    "corn kernel": Scene(
        ENVI + "corn-kernel-hyperspectral.raw", 580, beside=("corn-kernel-hyperspectral.hdr",),
        said="lacks 'byte order'; taken as little",
    ),
    # One pixel has no noise to estimate: it comes back as it is, and the record says why.
    "AVIRIS-3 pixel": Scene(
        ENVI + "AV320250308t200738_rdn.img", 0, "constant", ("AV320250308t200738_rdn.hdr",)
    ),
    # One line of 384 pixels is denoised along the line.
    "Fenix line": Scene(
        ENVI + "fenix_Radiometric_8x2_1x1.dat", 363, beside=("fenix_Radiometric_8x2_1x1.hdr",),
        said="wavelengths without a unit.*taken as nm",
    ),
    "EnMAP": Scene(TIFF + "enmap_potsdam_tile_64_0.tif", 218, "flagged bad", envi="not carried: start_time"),
    "Landsat": Scene(TIFF + "L7_ETMs.tif", 6),
    "Sentinel-2": Scene(TIFF + "sent2_L2A_2024-08-24.tif", 4),
    "control points": Scene(TIFF + "byte_gcp_pixelispoint.tif", 1),
    "RPC": Scene(TIFF + "test_rpcs.tif", 1, envi="not carried: METADATATYPE"),
    "RPC beside": Scene(
        TIFF + "md_ge_rgb_0010000.tif", 3, beside=("md_ge_rgb_0010000_rpc.txt", "md_ge_metadata.txt"),
        envi="not carried",
    ),
    "rotated": Scene(TIFF + "geomatrix.tif", 1),
    "rotated, oblong": Scene(TIFF + "rio_rotated.tif", 1, refused="oblong"),
    "int8": Scene(TIFF + "int8_rgb.tif", 3, refused="ENVI has no int8"),
    "uint16": Scene(TIFF + "uint16.tif", 1),
    "float64": Scene(TIFF + "float64.tif", 1),
    "mask": Scene(TIFF + "test3_with_mask_8bit.tif", 0, "constant", envi="ENVI has no masks"),
    "Landsat, masked": Scene(TIFF + "L7_ETMs.tif", 6, envi="ENVI has no masks", masked=True),
    "JP2": Scene("jp2/gtsmall_11_int16.jp2", 1),
    "JP2, alpha": Scene("jp2/stefan_full_rgba.jp2", 3, "alpha band, no measurement", envi="ENVI has no masks"),
    "VRT": Scene("vrt/RGB.byte.gcp.vrt", 3, beside=("RGB.byte.tif",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Weights by whether a scene has many bands."""
    folder = tmp_path_factory.mktemp("weights")
    size = {"shared": 8, "local": 4, "evaluations": 2}
    return {
        True: tiny.weights(folder / "many.safetensors", **size),
        False: tiny.weights(folder / "few.safetensors", bands=3, **size),
    }


@pytest.fixture(autouse=True)
def _nothing_harms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsidenoise.probe.HARMFUL", np.inf)


def fetch(scene: Scene, folder: Path) -> Path:
    """Copy a sample and what lies beside it."""
    folder.mkdir()
    source = GOOD / scene.name
    for name in (source.name, *scene.beside):
        shutil.copyfile(source.parent / name, folder / name)
    path = folder / source.name
    if scene.masked:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), rasterio.open(path, "r+") as file:
            file.write_mask(np.hypot(*np.ogrid[-176:176, -174:175]) < 150)
    return path


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def denoise(path: Path, output: Path, model: Path, said: str = "", **options: Any) -> dict[str, Any]:
    """`run`, which must warn of `said` and of nothing else."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("error")
        warnings.simplefilter("always", HSIDenoiseWarning)
        record = run(path, output, model=str(model), device="cpu", quiet=True, **options)
    texts = [str(w.message) for w in found]
    assert len(texts) <= 2
    assert all(re.search(said, text) for text in texts) if said else not texts, texts
    return record


def header_lines(path: Path) -> list[str]:
    """The header beside an ENVI file, or the header itself, line by line."""
    path = (
        path
        if path.suffix == ".hdr"
        else next(p for p in (Path(f"{path}.hdr"), path.with_suffix(".hdr")) if p.exists())
    )
    return path.read_text(encoding="latin-1").replace("\r\n", "\n").splitlines()


def header_list(path: Path, key: str) -> list[str]:
    """The items of a list in an ENVI header, as text."""
    found = re.search(rf"^{key}\s*=\s*{{(.*?)}}", "\n".join(header_lines(path)), re.DOTALL | re.MULTILINE)
    return [item.strip() for item in found[1].split(",")] if found else []


def unfolded(text: str) -> str:
    """A list on one line, as GDAL joins it."""
    return text.replace("\n", "")


def samples(path: Path) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels, and which of them are measurements: not nodata, not masked, finite."""
    with quiet(), rasterio.open(path) as file:
        pixels = file.read()
        valid = (file.read_masks() != 0) & np.isfinite(pixels)
        valid[[c is ColorInterp.alpha for c in file.colorinterp]] = True
    return pixels, valid


def check_pixels(before: Path, after: Path, changed: list[int]) -> None:
    old, valid = samples(before)
    new, still = samples(after)
    assert new.shape == old.shape
    assert new.dtype == old.dtype
    assert np.array_equal(valid, still)
    assert old[~valid].tobytes() == new[~valid].tobytes()
    for band in range(len(old)):
        if band not in changed:
            assert old[band].tobytes() == new[band].tobytes()
        else:
            share = np.mean(old[band][valid[band]] != new[band][valid[band]])
            assert share > (0.5 if old.dtype.kind == "f" else 0.05), (band, share)


def same_rpcs(before: dict[str, str], after: dict[str, str]) -> bool:
    """Formats write the numbers with 15 digits or more, with or without units, and ENVI no error estimates."""
    names = {k for k in before if k.endswith(("OFF", "SCALE", "COEFF"))}
    numbers = [
        [float(n) for k in sorted(names) for n in re.findall(r"[-+]?\d[\d.]*(?:[eE][-+]?\d+)?", tags.get(k, ""))]
        for tags in (before, after)
    ]
    return len(numbers[0]) == len(numbers[1]) and np.allclose(*numbers, rtol=1e-14, atol=0)


def plain(facts: dict[str, Any]) -> dict[str, Any]:
    """What a file says, less the pixels, what GDAL derives, and what only its own format could hold."""
    facts = {k: v for k, v in facts.items() if k not in ("pixels", "mask", "flags", "rpcs")}
    facts["gcps"] = [p | {"id": ""} for p in facts["gcps"]]  # TIFF and ENVI have no names for them
    facts["crs"] = None if facts["gcps"] else facts["crs"]  # of the grid; that of the points is compared by itself
    # GDAL says Area of every TIFF with a grid, and of no other format. GML is how JP2 says its grid.
    facts["tags"] = {
        ns: {k: v for k, v in items.items() if (k, v) != ("AREA_OR_POINT", "Area") and k != "hsidenoise"}
        for ns, items in facts["tags"].items() if ns != "RPC" and not ns.startswith("xml:")
    }  # fmt: skip
    facts["bands"] = [
        {
            ns: kept for ns, items in band.items()
            if ns not in ("IMAGE_STRUCTURE", "LocationInfo")
            # Statistics of the noisy pixels would be wrong for these.
            and (kept := {k: v for k, v in items.items() if not k.startswith("STATISTICS_")})
        }
        for band in facts["bands"]
    ]  # fmt: skip
    return facts


def gcps_crs(path: Path) -> Any:
    with quiet(), rasterio.open(path) as file:
        return file.gcps[1] if file.gcps[0] else None


@pytest.fixture(params=SCENES)
def done(
    request: pytest.FixtureRequest, tmp_path: Path, models: dict[bool, Path]
) -> tuple[Scene, Path, Path, Path, dict]:
    """A scene denoised into its own format: scene, input, output, weights, record."""
    scene = SCENES[request.param]
    path = fetch(scene, tmp_path / "in")
    before = digests(tmp_path / "in")
    model = models[scene.is_envi or "enmap" in scene.name]
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / ("clean" + path.suffix if scene.is_envi else "clean.tif")
    record = denoise(path, output, model, scene.said, of="ENVI" if scene.is_envi else "")
    assert digests(tmp_path / "in") == before
    return scene, path, output, model, record


def test_a_real_scene_keeps_all_but_its_noise(done: tuple[Scene, Path, Path, Path, dict], tmp_path: Path) -> None:
    scene, path, output, model, record = done
    assert len(record["bands_denoised"]) == scene.changed
    assert set(record["bands_passed"].values()) == ({scene.passed} if scene.passed else set())
    check_pixels(path, output, record["bands_denoised"])
    check_metadata(scene, path, output)
    if scene.is_envi:
        check_spectral(output)
        bad = [i for i, flag in enumerate(header_list(path, "bbl")) if float(flag) == 0]
        assert not set(bad) & set(record["bands_denoised"])
        as_tiff(scene, path, output, model, tmp_path)
    else:
        as_envi(scene, path, output, model, tmp_path)
    # Once more, on the result: nothing is added or worn off.
    again = tmp_path / "again" / output.name
    again.parent.mkdir()
    denoise(output, again, model, scene.said, bidx="1", of="ENVI" if scene.is_envi else "")
    assert plain(everything(again)) == plain(everything(output))
    if scene.is_envi:
        first, second = (
            [line for line in header_lines(p) if not line.startswith("hsidenoise = ")] for p in (output, again)
        )
        assert first == second


def check_metadata(scene: Scene, before: Path, after: Path) -> None:
    old, new = everything(before), everything(after)
    if scene.is_envi:  # a header that lacks it gets what was assumed
        old["tags"]["ENVI"].setdefault("byte_order", "0")
    assert plain(new) == plain(old)
    assert same_rpcs(old["rpcs"], new["rpcs"])
    assert gcps_crs(before) == gcps_crs(after)
    if scene.is_envi:  # the header is the input's, and a line that says what was done
        said = [line for line in header_lines(after) if line not in header_lines(before)]
        assert [line.split(" = ")[0] for line in said] in (["hsidenoise"], ["hsidenoise", "byte order"])
        kept = [line for line in header_lines(after) if line in header_lines(before)]
        assert kept == [line for line in header_lines(before) if line]
    else:
        with quiet(), rasterio.open(after) as file:
            assert file.tags(ns="HSIDENOISE")["source"] == before.name


def check_spectral(path: Path) -> NDArray[Any]:
    """What spectral finds in an ENVI file is what rasterio finds; returns the pixels (bands, rows, cols)."""
    header = next(p for p in (Path(f"{path}.hdr"), path.with_suffix(".hdr")) if p.exists())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Parameters with non-lowercase names", UserWarning)
        opened = spy.open(str(header), str(path))
    pixels = np.asarray(opened.open_memmap(interleave="bip")).transpose(2, 0, 1)
    with quiet(), rasterio.open(path) as file:
        assert np.array_equal(pixels, file.read(), equal_nan=pixels.dtype.kind == "f")
    assert opened.metadata.get("wavelength", []) == header_list(path, "wavelength")
    assert [float(c) for c in opened.bands.centers or []] == [float(w) for w in header_list(path, "wavelength")]
    return pixels


def as_tiff(scene: Scene, path: Path, output: Path, model: Path, tmp_path: Path) -> None:
    """The same result as GeoTIFF: the header's lists are there, to the letter, where GDAL's own reader puts them."""
    made = tmp_path / "out" / "other.tif"
    denoise(path, made, model, scene.said)
    with quiet(), rasterio.open(made) as tiff, rasterio.open(output) as envi:
        assert tiff.read().tobytes() == envi.read().tobytes()
        assert tiff.dtypes == envi.dtypes
        assert (tiff.crs, tiff.transform, repr(tiff.nodatavals)) == (envi.crs, envi.transform, repr(envi.nodatavals))
        for key in ("wavelength", "fwhm", "bbl", "band_names", "sensor_type", "default_bands"):
            assert unfolded(tiff.tags(ns="ENVI").get(key, "")) == unfolded(envi.tags(ns="ENVI").get(key, ""))


def as_envi(scene: Scene, path: Path, output: Path, model: Path, tmp_path: Path) -> None:
    """The same result as ENVI, where that can hold it."""
    made = tmp_path / "out" / "other.dat"
    if scene.refused:
        with pytest.raises(UsageError, match=scene.refused):
            denoise(path, made, model)
        assert not made.exists()
        return
    denoise(path, made, model, scene.envi)
    with quiet(), rasterio.open(output) as tiff:
        assert check_spectral(made).tobytes() == tiff.read().tobytes()
    old, new = everything(path), everything(made)
    assert same_rpcs(old["rpcs"], new["rpcs"])
    old, new = plain(old), plain(new)
    assert new["transform"].almost_equals(old["transform"], 1e-9)
    for key in ("gcps", "nodata", "dtypes", "scales", "offsets"):
        assert new[key] == old[key], key
    if old["transform"].is_identity:
        assert new["crs"] is None  # GDAL believes in a coordinate system only where there is a grid
    else:
        assert new["crs"] == old["crs"]
    assert gcps_crs(made) == gcps_crs(path)
    if {ColorInterp.red, ColorInterp.green, ColorInterp.blue} <= set(old["colours"]):
        assert new["colours"][:3] == old["colours"][:3]
    given = [band.get("", {}).get("wavelength") for band in old["bands"]]
    if all(given):
        assert [float(w) for w in header_list(made, "wavelength")] == [float(w) for w in given]
        flags = [band[""]["bbl"] for band in old["bands"]]
        assert [float(f) for f in header_list(made, "bbl")] == [float(f) for f in flags]


@pytest.mark.parametrize("key", ["EMIT", "EnMAP", "RPC beside"])
def test_the_command_makes_the_same_file(
    key: str, tmp_path: Path, models: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = SCENES[key]
    path = fetch(scene, tmp_path / "in")
    before = digests(tmp_path / "in")
    model = models[key != "RPC beside"]
    name = f"clean{path.suffix or '.dat'}"
    for folder in ("command", "function"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr("hsidenoise.probe.HARMFUL", HARMFUL)
    denoise(path, tmp_path / "function" / name, model, scene.said)
    ran = subprocess.run(
        [sys.executable, "-m", "hsidenoise", "run", path, "-o", name, "--model", model, "--device", "cpu"],
        capture_output=True, text=True, check=False, cwd=tmp_path / "command",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert all(line.startswith(("hsidenoise: ", "denoise: ")) for line in ran.stderr.splitlines())
    assert bool(scene.said) == bool(re.search(f"hsidenoise: warning: .*{scene.said or '$'}", ran.stderr))
    assert digests(tmp_path / "in") == before
    assert digests(tmp_path / "command") == digests(tmp_path / "function")
