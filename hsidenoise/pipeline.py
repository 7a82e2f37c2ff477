"""Where a training run's batches come from: real cubes, and photographs given spectra."""

from __future__ import annotations

from collections.abc import Sequence

from .eigenpatches import EigenSampler
from .errors import UsageError
from .mixing import Mixer
from .model.networks import Network
from .patches import Draws, Sampler, Scene
from .photos import load_photos
from .settings import TrainOptions


def pipeline(scenes: Sequence[Scene], model: Network, options: TrainOptions) -> tuple[Draws, dict[str, str]]:
    """The sampler of a run, and the digests of the photographs it draws on, by name.

    Raises
    ------
    UsageError
        A share of photographs out of range.
    TrainingError
        Cubes or photographs that cannot be used.
    """
    if not 0 < options.photo_share <= 1:
        raise UsageError(f"--photo-share {options.photo_share:g}: a share of all patches, above 0 and at most 1")
    photos = load_photos(options.photos) if options.photos else []
    mixer = Mixer([p.pixels for p in photos], [s.cube for s in scenes]) if photos else None
    draws = EigenSampler if model.frontend == "eigen" else Sampler
    sampler = draws(
        scenes, bands=model.bands, edge=options.patch, patterns=options.patterns.split(","), seed=options.seed,
        mixer=mixer, share=options.photo_share,
    )  # fmt: skip
    return sampler, {p.name: p.digest for p in photos}
