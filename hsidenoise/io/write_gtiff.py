"""GeoTIFF and COG output: the input's layout where it suits row-wise writing, and all of its metadata."""

from __future__ import annotations

import contextlib
import glob
import mmap
import os
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.windows import Window as GdalWindow

from ..bands import to_gtiff
from ..cube import Cube, Window
from ..errors import MetadataWarning, UsageError, WriteError
from . import gdal
from .plan import Plan, temporary

_LOSSLESS = {"DEFLATE", "LZW", "ZSTD", "PACKBITS", "LZMA"}
_STRIP = 256 * 2**10  # bytes of one plane's strip: few seeks, and still small for readers of single rows
_ROWS = 64 * 2**20  # bytes of one row of blocks through all bands, which the writer holds at a time
_PIXEL_BANDS = 16  # beyond these, pixel interleave makes readers of single bands unpack everything

# COG creation drops the band tags of the default domain when told to keep all other domains. They travel in a domain
# of this name, which is then blanked out in place: XML does not mind the spaces.
_COG_DOMAIN = "HSIDENOISE_BAND_TAGS"


def profile(plan: Plan, like: Cube) -> dict[str, Any]:
    """Creation options of the GeoTIFF: `rasterio.open` keywords in lower case."""
    bands, (rows, cols) = len(plan.bands), like.shape[1:]
    layout = like.layout
    tiff = layout.get("driver") == "GTiff"
    options: dict[str, Any] = {
        "driver": "GTiff", "width": cols, "height": rows, "count": bands, "dtype": plan.dtype, "bigtiff": "IF_SAFER",
        "interleave": "pixel" if layout.get("interleave") == "pixel" and bands <= _PIXEL_BANDS else "band",
        "photometric": "RGB" if layout.get("rgb") and plan.bands[:3] == (0, 1, 2) else "MINISBLACK",
    }  # fmt: skip
    if layout.get("stored") and plan.dtype == like.dtype:
        options["dtype"] = layout["stored"]  # complex integers, which NumPy has not
    compress = layout.get("compress", "") if tiff else ""
    if compress:
        # A lossy codec would put its own noise into what was just denoised.
        options["compress"] = compress.lower() if compress in _LOSSLESS else "deflate"
        predictor = layout.get("predictor") if compress in ("DEFLATE", "LZW", "ZSTD") else ""
        if predictor and plan.dtype == like.dtype != "float16":  # GDAL reads predicted float16, but writes none
            options["predictor"] = predictor
    if layout.get("nbits") and tiff and plan.dtype == like.dtype:
        options["nbits"] = layout["nbits"]
    item = np.dtype(plan.dtype).itemsize
    row = cols * item * (bands if options["interleave"] == "pixel" else 1)
    height, width = layout.get("block", (0, 0)) if tiff else (0, 0)
    tiled = width and width < cols and not (width % 16 or height % 16)
    if tiled and bands * height * cols * item <= _ROWS:
        options |= {"tiled": True, "blockxsize": width, "blockysize": height}
    else:
        options["blockysize"] = max(1, min(rows, _STRIP // row, _ROWS // (bands * cols * item)))
    return options | {k.lower(): v for k, v in plan.co.items()}


class GTiffSink:
    """Rows into a temporary GeoTIFF; for a COG that is rearranged at the end, on disk."""

    def __init__(self, plan: Plan, like: Cube, provenance: Mapping[str, str]) -> None:
        self._plan = plan
        self._like = like
        self._cog = plan.driver == "COG"
        self._temporary = temporary(plan.path)
        self._final = temporary(plan.path)
        self._provenance = provenance
        self._target: Any = None
        self._mask = like.layout.get("mask", "") in ("dataset", "band")
        self._waiting = np.empty((len(plan.bands), 0, like.shape[2]), plan.dtype)
        self._row = 0
        self._mask_sum = 0

    def open(self) -> None:
        """Create the file and write what is known before the pixels."""
        plan, like = self._plan, self._like
        options = profile(plan, like)
        if self._cog:
            # The intermediate file is read once and thrown away: plain strips.
            for key in ("compress", "predictor", "tiled", "blockxsize", *map(str.lower, plan.co)):
                options.pop(key, None)
            options["bigtiff"] = "IF_SAFER"
        nodata = next((v for v in plan.nodata if v is not None), None)
        _warn(plan, "TIFF has one nodata value for all bands; the first is kept", len(set(map(repr, plan.nodata))) > 1)
        with gdal.messages() as said:
            self._target = rasterio.open(self._temporary, "w", nodata=nodata, **options)
        self._complain(said)
        _georeference(self._target, like)
        _tag(self._target, plan, like, self._provenance, self._cog)
        # Compressed blocks written in two parts would be stored twice, so rows wait until their block is complete.
        self._align = self._target.block_shapes[0][0] if options.get("compress") else 1

    def _complain(self, said: list[str]) -> None:
        for line in said:
            if "creation option" in line and any(name in line.upper() for name in self._plan.co):
                raise UsageError(f"--co: {' '.join(line.split())}")

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """Queue rows and write the complete blocks."""
        if self._waiting.shape[1]:
            block = np.concatenate([self._waiting, block], axis=1)
        rows = block.shape[1]
        last = self._row + rows == self._like.shape[1]
        ready = rows if last else rows // self._align * self._align
        if ready:
            self._put(block[:, :ready])
        self._waiting = block[:, ready:].copy()

    def _put(self, block: NDArray[Any]) -> None:
        rows, cols = block.shape[1:]
        window = GdalWindow(0, self._row, cols, rows)
        self._target.write(block, window=window)
        if self._mask and self._like.read_mask is not None:
            part = Window(self._row, self._row + rows, 0, cols)
            # A pixel of a dataset mask is valid if any band is; TIFF keeps one mask for all bands.
            valid = self._like.read_mask(part, self._plan.bands).any(axis=0)
            self._mask_sum = zlib.crc32(valid.tobytes(), self._mask_sum)
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"):
                self._target.write_mask(valid, window=window)
        self._row += rows

    def finish(self) -> list[tuple[str, str]]:
        """Close, rearrange for COG, and look whether all blocks arrived on the disk."""
        with gdal.closing():
            self._target.close()
        self._verify(self._temporary)
        made = self._temporary
        if self._cog:
            self._rearrange()
            made = self._final
            self._verify(made)
        pairs = [(made, self._plan.path)]
        if os.path.exists(made + ".aux.xml"):  # what TIFF has no tag for, e.g. unusual coordinate systems
            pairs.insert(0, (made + ".aux.xml", self._plan.path + ".aux.xml"))
        return pairs

    def _rearrange(self) -> None:
        options = {"BIGTIFF": "IF_SAFER", "COPY_SRC_MDD": "YES", "OVERVIEW_RESAMPLING": "AVERAGE",
                   "COMPRESS": "DEFLATE", "PREDICTOR": "YES", "NUM_THREADS": "ALL_CPUS"}  # fmt: skip
        source = self._like.layout.get("compress", "")
        if source in ("LZW", "ZSTD"):
            options["COMPRESS"] = source
        bits = self._like.layout.get("nbits")
        if self._plan.dtype.startswith(("float16", "complex")) or (bits and bits not in ("8", "16", "32", "64")):
            options.pop("PREDICTOR")  # not defined for these
        # A tile holds all bands where the driver knows pixel interleave only: keep that within reason.
        item = np.dtype(self._plan.dtype).itemsize * len(self._plan.bands)
        options["BLOCKSIZE"] = next((str(b) for b in (512, 256) if b * b * item <= 2**24), "128")
        if len(self._plan.bands) > _PIXEL_BANDS:
            options["INTERLEAVE"] = "BAND"  # not known to GDAL before 3.11, which then goes by pixel
        with gdal.messages() as said, gdal.closing():
            rasterio.shutil.copy(self._temporary, self._final, driver="COG", **(options | self._plan.co))
        self._complain(said)
        os.remove(self._temporary)
        _blank_domain(self._final)

    def _verify(self, path: str) -> None:
        from . import tiffcheck

        with rasterio.open(path) as written:
            if (written.count, *written.shape) != (len(self._plan.bands), *self._like.shape[1:]):
                raise WriteError(f"{self._plan.path}: the file came out with another shape")
            sparse = self._plan.co.get("SPARSE_OK", "").upper() in ("YES", "TRUE", "ON", "1")
            tiffcheck.check(path, written, sparse=sparse, allow_large=True)
            # GDAL tells where the blocks of bands are, not those of the mask.
            if self._mask_sum and self._mask_sum != _mask_sum(written):
                raise WriteError(f"{self._plan.path}: the mask did not reach the disk")

    def discard(self) -> None:
        """Close, and remove what was not renamed, GDAL's own temporary files included."""
        with contextlib.suppress(*gdal.FAILURES, OSError):  # it may be unwritable because the disk is full
            if self._target is not None:
                self._target.close()
        for name in (self._temporary, self._final):
            # Its own name, name.aux.xml, name.ovr.tmp, and the .IMD it writes for a domain the TIFF holds anyway.
            for path in glob.glob(glob.escape(name.removesuffix(".part")) + "*"):
                os.remove(path)


def _mask_sum(source: rasterio.DatasetReader) -> int:
    """Checksum of a dataset mask, as the sink computes it row by row."""
    rows, cols = source.shape
    step = source.block_shapes[0][0] * max(1, 2**22 // (source.block_shapes[0][0] * cols))
    found = 0
    for row in range(0, rows, step):
        mask = source.read_masks(1, window=GdalWindow(0, row, cols, min(step, rows - row)))
        found = zlib.crc32((mask != 0).tobytes(), found)
    return found


def _georeference(target: Any, like: Cube) -> None:
    geo = like.geo
    if geo.area_or_point:
        # First of all: GDAL moves grid and control points by half a pixel between the two conventions.
        target.update_tags(AREA_OR_POINT=geo.area_or_point)
    if geo.crs:
        target.crs = CRS.from_wkt(geo.crs)
    if geo.transform:
        # Control points set on top would silently remove the grid, which says more.
        target.transform = Affine(*geo.transform)
    elif geo.gcps:
        shift = _point_shift() if geo.area_or_point == "Point" else 0.0
        points = [GroundControlPoint(p[0] - shift, p[1] - shift, *p[2:5], id=p[5], info=p[6]) for p in geo.gcps]
        target.gcps = points, CRS.from_wkt(geo.gcps_crs) if geo.gcps_crs else CRS()
    if geo.rpcs:
        target.update_tags(ns="RPC", **geo.rpcs)


def _point_shift() -> float:
    """By how much a control point moves when written and read with AREA_OR_POINT=Point.

    GDAL adds half a pixel both ways instead of taking it off in one (seen in 3.10), so ask the GDAL at hand.
    """
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=2, height=2, count=1, dtype="uint8") as target:
            target.update_tags(AREA_OR_POINT="Point")
            target.gcps = [GroundControlPoint(i, i % 2, i, i % 2, 0) for i in range(4)], CRS()
        with memory.open() as source:
            return float(source.gcps[0][0].row)


def _tag(target: Any, plan: Plan, like: Cube, provenance: Mapping[str, str], cog: bool) -> None:
    layout = like.layout
    tiff = layout.get("driver") == "GTiff"
    for domain, items in like.tags.items():
        if domain.startswith("xml:"):
            _xml(target, domain, items, tiff)
        elif items:
            target.update_tags(ns=domain, **items)
    if provenance:
        target.update_tags(ns="HSIDENOISE", **{k: " ".join(str(v).split()) for k, v in provenance.items()})
    # An input that keeps its wavelengths elsewhere (header, sidecar, table) gets the tags TIFF readers look for.
    spectral = to_gtiff(like.bands) if not tiff or layout.get("spectrum") else [{}] * like.shape[0]
    for i, band in enumerate(plan.bands, 1):
        tags = spectral[band] | {k: spectral[band].get(k, {}) | dict(v) for k, v in like.band_tags[band].items()}
        for domain, items in tags.items():
            # Statistics of the noisy pixels would be wrong for these.
            kept = {k: v for k, v in items.items() if not k.startswith("STATISTICS_")}
            if kept:
                target.update_tags(i, ns=_COG_DOMAIN if cog and not domain else domain, **kept)
    names = layout.get("descriptions") or (None,) * like.shape[0]
    for i, band in enumerate(plan.bands, 1):
        if names[band]:
            target.set_band_description(i, names[band])
        if layout.get("units") and layout["units"][band]:
            target.set_band_unit(i, layout["units"][band])
    target.scales = [like.scale[b] for b in plan.bands]
    target.offsets = [like.offset[b] for b in plan.bands]
    if layout.get("colorinterp") and layout.get("nbits") != "1":
        with contextlib.suppress(ValueError):  # combinations only JP2 or VRT can hold
            target.colorinterp = [ColorInterp[layout["colorinterp"][b]] for b in plan.bands]


def _xml(target: Any, domain: str, items: Mapping[str, str], tiff: bool) -> None:
    """XML domains hold one text. rasterio only writes key=value, so the text is cut at its first equals sign."""
    text = items.get(domain, "")
    key, sign, value = text.partition("=")
    if tiff and sign and key:
        target.update_tags(ns=domain, **{key: value})


def _blank_domain(path: str) -> None:
    """Put the parked band tags back into the default domain, without moving a byte of the file."""
    attribute = f' domain="{_COG_DOMAIN}"'.encode()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(b"<GDALMetadata")
        end = content.find(b"</GDALMetadata>", at)
        while (at := content.find(attribute, at, end)) >= 0:
            content[at : at + len(attribute)] = b" " * len(attribute)


def _warn(plan: Plan, text: str, when: bool) -> None:
    if when:
        warnings.warn(f"{plan.path}: {text}", MetadataWarning, stacklevel=5)
