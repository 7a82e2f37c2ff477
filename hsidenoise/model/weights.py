"""Weights: safetensors files that carry their own card; found by name, verified, loaded.

Files that ship with the package are listed in ``weights/index.toml`` with their sha256. There is no download.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import OutputExistsError, UsageError, WeightsError

if TYPE_CHECKING:  # finding and verifying weights does without torch, which takes seconds to import
    from .dct import Dct
    from .networks import Network

#: A safetensors header beyond this is not a card but an attack (the largest of ours has 10 kB).
MOST_HEADER_BYTES = 1_000_000


#: The weights that ``auto`` stands for, and the fewest bands from which on they are better than the model without.
DEFAULT = "shrinkage"
FEWEST = 4
WINDOWS_NORMALISATION = "each window of bands: 0.1 and 99.9 percentiles of 4 x 4 block medians to [0, 1]"
EIGEN_NORMALISATION = "each band: mean removed, divided by noise sigma; rotated to the eigenvectors of the covariance"


@dataclass(frozen=True)
class Card:
    """What a weight file says about itself; JSON in the safetensors header.

    Parameters
    ----------
    name, arch
        Of the weights, and of the configuration they started from.
    config
        The network's `Config` as a dictionary.
    normalisation
        How scenes are scaled to what the network sees.
    noise
        Patterns it was trained on.
    sigma_range
        Noise sigmas it was trained on, of the scaled scene.
    floor
        Error it makes on a clean scene, sigma of the scaled scene: bands with less noise than that are left alone.
    halo
        Pixels of context a tile needs on each side.
    training
        Steps, hours, options, and names and digests of the scenes.
    validation
        MPSNR, MSSIM and SAM by scene and pattern.
    licence, citation
        Of the weights, and of the method.
    """

    name: str
    arch: str
    config: dict[str, Any]
    normalisation: str = WINDOWS_NORMALISATION
    noise: tuple[str, ...] = ()
    sigma_range: tuple[float, float] = (0.0, 95 / 255)
    floor: float = 0.0
    halo: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    licence: str = "Apache-2.0"
    citation: str = (
        "J. Ye, J. Wang, F. Xiong, J. Chen and Y. Qian, Deep Equilibrium Convolutional Sparse Coding for "
        "Hyperspectral Image Denoising, IEEE TGRS, 2025"
    )


@dataclass(frozen=True)
class WeightFile:
    """A weight file on disk; `sha256` is known for files that ship with the package. A built-in model has no `path`."""

    name: str
    path: Path | None
    sha256: str = ""


#: What runs in an engine.
Model: TypeAlias = "Network | Dct"

#: The model that has no weights.
BUILT_IN = WeightFile("dct", None)
BUILT_IN_CARD = Card(
    "dct", "dct", {}, normalisation=EIGEN_NORMALISATION, noise=("gaussian",), halo=24,  # of dct.STEPS and SHARED
    citation="O. Guleryuz, Weighted averaging for denoising with overcomplete dictionaries, IEEE TIP, 2007",
)  # fmt: skip


def folder() -> Path:
    """Where the shipped weights are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights"
    return inside if (inside / "index.toml").exists() else package.parent / "weights"


def shipped() -> dict[str, WeightFile]:
    """The weights that come with the package, by name."""
    index = folder() / "index.toml"
    if not index.exists():
        return {}
    entries = tomllib.loads(index.read_text(encoding="utf-8"))
    return {name: WeightFile(name, folder() / e["file"], e["sha256"]) for name, e in entries.items()}


def available() -> dict[str, WeightFile]:
    """All models that can be named: what is shipped, and the built-in one."""
    return shipped() | {BUILT_IN.name: BUILT_IN}


def find(name: str, bands: int = FEWEST) -> WeightFile:
    """The weights called `name`, or the file of that name; ``auto`` is what suits a scene of so many usable bands.

    Raises
    ------
    WeightsError
        No such weights.
    """
    known = available()
    if name == "auto":
        name = DEFAULT if bands >= FEWEST else BUILT_IN.name
    if name in known:
        return known[name]
    if name.endswith(".safetensors") and Path(name).is_file():
        return WeightFile(Path(name).stem, Path(name))
    raise WeightsError(f"--model {name}: no such weights; shipped: {', '.join(known)}; or give a .safetensors file")


def digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_card(file: WeightFile) -> Card:
    """The card of a weight file, its sha256 verified first when it is known.

    Raises
    ------
    WeightsError
        The file is missing, was altered, or is no hsidenoise weight file.
    """
    if file.path is None:
        return BUILT_IN_CARD
    try:
        if file.sha256 and digest(file.path) != file.sha256:
            raise WeightsError(f"{file.path}: sha256 differs from weights/index.toml; reinstall hsidenoise")
        size = file.path.stat().st_size
        with file.path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MOST_HEADER_BYTES, size - 8):
                raise WeightsError(f"{file.path}: not a safetensors file (or truncated)")
            header = json.loads(stream.read(length))
        fields = json.loads(header["__metadata__"]["hsidenoise"])
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        card = Card(**values)
        if type(card.halo) is not int or not 0 <= card.halo <= 1024 or not 0 <= float(card.floor) < math.inf:
            raise WeightsError(f"{file.path}: the card's halo {card.halo!r} or floor {card.floor!r} makes no sense")
        if not isinstance(card.training, dict) or not isinstance(card.noise, tuple):
            raise WeightsError(f"{file.path}: the card's training or noise entry makes no sense")
        return card
    except OSError as error:
        raise WeightsError(f"{file.path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{file.path}: a safetensors file without an hsidenoise card") from error


def load(file: WeightFile) -> tuple[Model, Card]:
    """The network in evaluation mode, in float32, and its card; or the built-in model.

    Raises
    ------
    WeightsError
        As `read_card`; or the tensors do not fit the card's configuration.
    """
    import safetensors
    import safetensors.torch

    from .dct import Dct
    from .networks import shaped

    card = read_card(file)
    if file.path is None:
        return Dct(), card
    try:
        model = shaped(card.arch, card.config)
        state = {k: v.float() for k, v in safetensors.torch.load_file(file.path).items()}
        model.load_state_dict(state)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{file.path}: truncated or damaged ({error}); fetch it again") from error
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{file.path}: tensors do not fit the card's network ({reason})") from error
    return model.eval().requires_grad_(False), card


def check_target(output: Path, *, overwrite: bool) -> None:
    """Refuse a place where weights cannot or must not be written.

    Raises
    ------
    UsageError, OutputExistsError
        Another suffix or no such folder; the file exists.
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: weights are written as .safetensors")
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent}: no such folder")
    if output.exists() and not overwrite:
        raise OutputExistsError(f"{output}: exists and won't be overwritten without --overwrite")


def save(model: Network, card: Card, path: Path) -> str:
    """Write weights as float16 with their card, atomically; returns the sha256.

    float16 halves the file and costs less than 0.02 dB.
    """
    import safetensors.torch
    import torch

    state = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in model.state_dict().items()}
    part = path.with_name(f".{path.name}.part")
    safetensors.torch.save_file(state, part, metadata={"hsidenoise": json.dumps(asdict(card))})
    # The library keeps its files to their owner; these are to be read by everyone the folder's owner lets in.
    mask = os.umask(0)
    os.umask(mask)
    part.chmod(0o666 & ~mask)
    os.replace(part, path)
    return digest(path)
