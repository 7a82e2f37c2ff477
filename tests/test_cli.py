"""The command line as a user or a script meets it: exit codes, what goes to stdout, what to stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from typer.testing import CliRunner

from hsidenoise import __version__
from hsidenoise.cli import app

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture
def scene(tmp_path):
    pixels = (tiny.cube(12) * 10_000).astype(np.int16)
    pixels[:, :4] = -9999
    return tiny.geotiff(tmp_path / "scene.tif", pixels, nodata=-9999, bad=(3,))


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def command(*arguments, cwd):
    """A real process, as a shell starts it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    return subprocess.run([sys.executable, "-m", "hsidenoise", *map(str, arguments)], cwd=cwd, env=environment,
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip


def strict(text):
    """Parse JSON that is JSON: no NaN, no Infinity, nothing after it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# ---- stdout and stderr


def test_stdout_is_empty_unless_something_was_asked(scene, weights, tmp_path):
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "hsidenoise: 11 of 12 bands denoised with tiny" in done.stderr
    assert "hsidenoise: 1 band passed through unchanged: flagged bad" in done.stderr
    assert "denoise: 100 %" in done.stderr
    assert f"hsidenoise: {tmp_path / 'out.tif'}: written in" in done.stderr


def test_quiet_says_nothing(scene, weights, tmp_path):
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights, "-q")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out.tif").exists()


def test_verbose_names_every_band_and_its_reason(scene, weights, tmp_path):
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights, "-v", "--bidx", "1..10")
    assert done.exit_code == 0
    for line in ("band 4 passed through: flagged bad", "band 11 passed through: not selected",
                 "band 12 passed through: not selected"):  # fmt: skip
        assert f"hsidenoise: {line}" in done.stderr.splitlines()


def test_samples_far_off_are_mentioned(weights, tmp_path):
    pixels = tiny.cube(4).astype(np.float32)
    pixels[1, 5, 5] = -9999
    scene = tiny.geotiff(tmp_path / "scene.tif", pixels)
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights)
    assert "hsidenoise: 1 sample far outside the range of the others passed through unchanged" in done.stderr
    assert "--nodata" in done.stderr


def test_json_is_the_record_and_nothing_else(scene, weights, tmp_path):
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights, "--json", "--shifts", "2")
    record = strict(done.stdout)
    assert done.exit_code == 0
    assert record["output"] == str(tmp_path / "out.tif")
    assert record["options"]["shifts"] == 2
    assert record["model"]["name"] == "tiny"
    assert len(record["model"]["sha256"]) == 64
    assert record["bands_denoised"] == [b for b in range(12) if b != 3]
    assert record["tiles"][0]["iterations"] >= 1
    assert set(record["versions"]) >= {"hsidenoise", "torch", "gdal"}
    quiet = invoke("run", scene, "-o", tmp_path / "b.tif", "--model", weights, "--json", "-q")
    assert quiet.stderr == ""
    assert strict(quiet.stdout)["bands_denoised"] == record["bands_denoised"]


def test_json_of_what_is_not_known_is_null(weights, tmp_path):
    scene = tiny.geotiff(tmp_path / "scene.tif", np.full((2, 9, 9), np.nan, np.float32))
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights, "--json")
    assert done.exit_code == 0
    assert strict(done.stdout)["sigma_before"] == [None, None]


def test_a_scene_with_nothing_to_denoise_says_so(weights, tmp_path):
    scene = tiny.geotiff(tmp_path / "scene.tif", np.full((2, 9, 9), 7, np.uint8))
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights)
    assert done.exit_code == 0
    assert "hsidenoise: 2 bands passed through unchanged: constant" in done.stderr
    assert "hsidenoise: nothing was denoised" in done.stderr


def test_a_dry_run_answers_on_stdout(scene, weights, tmp_path):
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights, "--dry-run")
    assert done.exit_code == 0
    assert done.stderr == ""
    for word in ("GTiff", "int16", "11 of 12 bands", "36 x 44 pixels", "halo 16", "cpu", "sha256"):
        assert word in done.stdout
    plan = strict(invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights, "--dry-run", "--json").stdout)
    assert plan["plan"]["tiles"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


def test_version_and_help():
    assert invoke("--version").stdout == f"hsidenoise {__version__}\n"
    text = invoke("run", "--help").stdout
    for option in ("--model", "--tile", "--residual", "--dry-run", "--bidx", "--overwrite"):
        assert option in text


def test_models_lists_what_is_installed(monkeypatch, tmp_path):
    from hsidenoise.model import weights as weights_

    tiny.weights(tmp_path / "small.safetensors")
    digest = weights_.digest(tmp_path / "small.safetensors")
    (tmp_path / "index.toml").write_text(f'[small]\nfile = "small.safetensors"\nsha256 = "{digest}"\n')
    monkeypatch.setattr(weights_, "folder", lambda: tmp_path)
    assert "small" in invoke("models").stdout
    assert strict(invoke("models", "--json").stdout)["small"]["sha256"] == digest
    (tmp_path / "index.toml").write_text("")
    assert invoke("models").stdout.startswith("dct  no weights")


# ---- refusals


def refusals():
    """Arguments that are wrong, the exit code, and what the one line must name."""
    return [
        (["nix.tif", "-o", "out.tif"], 1, "nix.tif"),
        (["scene.tif", "-o", "taken.tif"], 2, "--overwrite"),
        (["scene.tif", "-o", "scene.tif", "--overwrite"], 2, "scene.tif"),
        (["scene.tif", "-o", "."], 2, "directory"),
        (["scene.tif", "-o", "no/where.tif"], 2, "does not exist"),
        (["scene.tif", "-o", "taken.tif/out.tif"], 2, "does not exist"),
        (["scene.tif", "-o", "out.jpg"], 2, ".jpg"),
        (["scene.tif", "-o", "out.tif", "--of", "PNG"], 2, "--of PNG"),
        (["scene.tif", "-o", "out.tif", "--co", "COMPRESS"], 2, "--co COMPRESS"),
        (["scene.tif", "-o", "out.tif", "--co", "NONSENSE=1"], 2, "--co"),
        (["scene.tif", "-o", "out.tif", "--config", "X"], 2, "--config X"),
        (["scene.tif", "-o", "out.tif", "--dtype", "complex64"], 2, "--dtype complex64"),
        (["scene.tif", "-o", "out.tif", "--dtype", "uint8"], 2, "--nodata"),
        (["scene.tif", "-o", "out.tif", "--nodata", "x"], 2, "--nodata x"),
        (["scene.tif", "-o", "out.tif", "--nodata", "70000"], 2, "--nodata 70000"),
        (["scene.tif", "-o", "out.tif", "--bidx", "0"], 2, "--bidx 0"),
        (["scene.tif", "-o", "out.tif", "--bidx", "2..13"], 2, "--bidx 2..13"),
        (["scene.tif", "-o", "out.tif", "--bidx", "2-5"], 2, "--bidx 2-5"),
        (["scene.tif", "-o", "out.tif", "--tile", "-1"], 2, "--tile -1"),
        (["scene.tif", "-o", "out.tif", "--tile", "30"], 2, "--tile 30"),
        (["scene.tif", "-o", "out.tif", "--shifts", "0"], 2, "--shifts 0"),
        (["scene.tif", "-o", "out.tif", "--shifts", "17"], 2, "--shifts 17"),
        (["scene.tif", "-o", "out.tif", "--device", "gpu"], 2, "--device"),
        (["scene.tif", "-o", "out.tif", "--device", "cuda:99"], 2, "--device cuda:99"),
        (["scene.tif", "-o", "out.tif", "--model", "bogus"], 1, "--model bogus"),
        (["scene.tif", "-o", "out.tif", "--model", "bogus.safetensors"], 1, "--model bogus.safetensors"),
        (["scene.tif", "-o", "out.tif", "--residual", "out.tif"], 2, "out.tif"),
        (["scene.tif", "-o", "out.tif", "--residual", "scene.tif", "--overwrite"], 2, "scene.tif"),
        (["scene.tif", "-o", "out.img", "--residual", "out.dat"], 2, "out.hdr"),
        (["scene.tif", "-o", "out.tif", "--residual", "taken.tif"], 2, "taken.tif"),
        (["scene.tif", "-o", "out.tif", "--report", "report.json"], 2, "--report report.json"),
        (["scene.tif", "-o", "out.tif", "--report", "scene.tif", "--overwrite"], 2, "--report scene.tif"),
        (["scene.tif", "-o", "out.tif", "--report", "no/report.html"], 2, "does not exist"),
        (["scene.tif", "-o", "out.tif", "--report", "taken.html"], 2, "--overwrite"),
        (["scene.tif", "-o", "out.tif", "--reference", "nix.tif"], 1, "nix.tif"),
        (["scene.tif", "-o", "out.tif", "--reference", "small.tif"], 2, "--reference"),
        (["text.tif", "-o", "out.tif"], 1, "text.tif"),
        (["empty.tif", "-o", "out.tif"], 1, "empty.tif"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "named"), refusals(), ids=lambda v: " ".join(v) if type(v) is list else ""
)
def test_a_refusal_is_one_line_and_leaves_nothing(scene, weights, tmp_path, monkeypatch, arguments, code, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.tif").write_text("somebody's")
    (tmp_path / "taken.html").write_text("somebody's")
    (tmp_path / "text.tif").write_text("not a raster")
    (tmp_path / "empty.tif").write_text("")
    tiny.geotiff(tmp_path / "small.tif", np.zeros((2, 3, 4), np.uint8))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = [] if "--model" in arguments else ["--model", weights]
    done = invoke("run", *arguments, *model)
    assert done.exit_code == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("hsidenoise: error: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(scene, weights, tmp_path):
    done = invoke("run", scene, "-o", tmp_path / "out.tif", "--model", weights, "--device", "cuda")
    assert done.exit_code == 2
    assert "--device cpu" in done.stderr


@pytest.mark.parametrize("arguments", [["run"], ["run", "a.tif"], ["run", "a.tif", "-o", "b.tif", "--tile", "x"],
                                       ["run", "a.tif", "-o", "b.tif", "--nope"], ["denoise"], ["info"]])  # fmt: skip
def test_usage_errors_exit_with_2(arguments):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr


def test_overwrite_replaces(scene, weights, tmp_path):
    out = tmp_path / "out.tif"
    out.write_text("old")
    (tmp_path / "out.tif.aux.xml").write_text("stale")
    done = invoke("run", scene, "-o", out, "--model", weights, "--overwrite")
    assert done.exit_code == 0
    assert tiny.pixels(out).shape == (12, 36, 44)
    assert {p.name for p in tmp_path.iterdir()} == {"scene.tif", "out.tif"}


# ---- real processes


def test_a_process_that_does_its_job(scene, weights, tmp_path):
    done = command("run", "scene.tif", "-o", "out.img", "--model", weights, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "hsidenoise: warning: out.img: ENVI headers hold no TIFF tags" in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"scene.tif", "out.img", "out.hdr"}


def test_a_process_that_fails(scene, tmp_path):
    done = command("run", "scene.tif", "-o", "scene.tif", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "hsidenoise: error: scene.tif: would replace the input scene.tif; choose another name\n"


def test_a_slip_in_a_name_is_told_before_torch_is_loaded(scene, tmp_path):
    script = "import sys; from hsidenoise import run as verb\ntry: verb.run('scene.tif', 'scene.tif')\n"
    script += "except ValueError: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "False\n"
