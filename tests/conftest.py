"""What every test file may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib, also in subprocesses

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real sample files, kept outside the project; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("the folder of sample files is not beside the project")
    return SHARED


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo scene and its truth (96 x 112 pixels, 24 bands); do not write into it."""
    from hsidenoise.demo import demo

    folder = tmp_path_factory.mktemp("demo")
    demo(folder, size=(96, 112), bands=24)
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weight file of an untrained network small enough to run in milliseconds."""
    import tiny

    return str(tiny.weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained network takes some image away with the noise; here it is let do so."""
    monkeypatch.setattr("hsidenoise.probe.HARMFUL", np.inf)
