"""A landscape made of numbers: materials with smooth spectra, laid out as fields, a river, roads, a town and trees.

It exists so that the demo has a scene whose truth is known. Everything follows from one random generator.
Lengths are in pixels of the finished scene; maps are drawn on a grid `FINE` times finer and averaged, so edges
are mixed pixels as in a real image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating[Any]]

FINE = 2
SUN_ELEVATION, SUN_AZIMUTH = np.deg2rad(44.0), np.deg2rad(152.0)

MATERIALS = (
    "leaf", "grass", "conifer", "flower", "straw", "soil", "clay", "gravel",
    "water", "asphalt", "concrete", "tile", "metal", "membrane",
)  # fmt: skip


def spectra(wavelength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflectance of each of `MATERIALS`: sums of Gaussians and logistics, smooth from 350 to 2500 nm.

    Parameters
    ----------
    wavelength
        Band centres in nm, shape ``(B,)``.

    Returns
    -------
    ndarray
        ``(len(MATERIALS), B)``, between 0 and 1. Red edge, leaf water (970, 1190, 1450, 1930 nm), cellulose
        (2100 nm), iron (530 and 870 nm), clay (2205 nm), carbonate (2340 nm) and C-H (1725, 2310 nm) features
        stand at their textbook places; depths are plausible, not measured.
    """
    nm = np.asarray(wavelength, float)

    def bump(centre: float, width: float) -> NDArray[np.float64]:
        return np.exp(-0.5 * ((nm - centre) / width) ** 2)

    def rise(centre: float, width: float) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-(nm - centre) / width))

    leaf_water = 0.07 * bump(970, 28) + 0.16 * bump(1190, 42) + 0.95 * bump(1450, 60) + 1.2 * bump(1935, 75)
    leaf_water += 0.42 * rise(1345, 40) + 0.45 * rise(1880, 45) + 0.6 * rise(2400, 70)

    def foliage(plateau: float, green: float, edge: float, water: float) -> NDArray[np.float64]:
        visible = 0.028 + green * bump(552, 34) + 0.3 * green * bump(610, 45)
        return visible * (1 - rise(edge, 14)) + plateau * rise(edge, 13) * np.exp(-water * leaf_water)

    bound_water = 0.03 * bump(1415, 40) + 0.06 * bump(1930, 60)
    hydroxyl = bump(2205, 24) + 0.35 * bump(2180, 50)
    drawn = {
        "leaf": foliage(0.50, 0.065, 716, 1.0),
        "grass": foliage(0.40, 0.075, 710, 0.75) + 0.03 * rise(1500, 400),
        "conifer": foliage(0.27, 0.030, 719, 1.25),
        "flower": foliage(0.46, 0.060, 713, 0.85) + 0.26 * bump(625, 85) * rise(525, 14),
        "straw": 0.07 + 0.27 * rise(640, 95) + 0.08 * bump(1650, 260) - bound_water
        - 0.06 * bump(2100, 55) - 0.05 * bump(2310, 60),
        "soil": 0.035 + 0.27 * rise(900, 320) - 0.012 * bump(870, 80) - bound_water - 0.035 * hydroxyl,
        "clay": 0.06 + 0.22 * rise(575, 45) + 0.16 * rise(1200, 300) - 0.035 * bump(875, 75) - 1.3 * bound_water
        - 0.11 * hydroxyl,
        "gravel": 0.20 + 0.17 * rise(650, 200) - 0.5 * bound_water - 0.045 * bump(2340, 35),
        "water": 0.004 + 0.035 * bump(470, 90) + 0.045 * bump(565, 55) + 0.012 * bump(690, 30),
        "asphalt": 0.065 + 0.055 * rise(900, 400) - 0.006 * bump(2310, 30),
        "concrete": 0.20 + 0.13 * rise(600, 150) - 0.4 * bound_water - 0.04 * bump(2340, 40),
        "tile": 0.05 + 0.23 * rise(592, 24) + 0.14 * rise(1150, 260) - 0.045 * bump(865, 80) - 0.03 * bump(530, 28),
        "metal": 0.25 + 0.10 * bump(465, 55) - 0.07 * bump(640, 80) + 0.14 * rise(1300, 350),
        "membrane": 0.64 * rise(405, 14) - 0.10 * bump(1725, 22) - 0.10 * bump(2310, 45) - 0.16 * rise(2000, 220),
    }
    return np.stack([drawn[name] for name in MATERIALS]).clip(0.002, 0.95)


def fractal(rng: np.random.Generator, shape: tuple[int, int], slope: float, stretch: float = 1.0) -> Map:
    """Noise of zero mean and unit variance whose power falls as frequency to the power ``-slope``.

    `stretch` > 1 draws it out along the columns. Spectral synthesis: filtered white noise.
    """
    white = np.fft.rfft2(rng.standard_normal(shape))
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None] * stretch
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf
    drawn = np.fft.irfft2(white * radius ** (-slope / 2), s=shape)
    return np.asarray(drawn / drawn.std(), np.float32)


class Canvas:
    """The finished materials per pixel, the height of what stands on the ground, and the grid they share."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.shape = (size[0] * FINE, size[1] * FINE)
        axes = [(np.arange(n, dtype=np.float32) + 0.5) / FINE for n in self.shape]
        self.y, self.x = np.meshgrid(*axes, indexing="ij")
        self.share = np.zeros((len(MATERIALS), *self.shape), np.float32)
        self.height = np.zeros(self.shape, np.float32)

    def rotated(self, angle: float) -> tuple[Map, Map]:
        """Coordinates along and across a direction, `angle` radians clockwise from the x axis."""
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return cos * self.x + sin * self.y, cos * self.y - sin * self.x

    def paint(self, cover: Map | NDArray[np.bool_], **mixture: Map | float) -> None:
        """Lay `mixture` (shares that sum to 1) over what is there, where and as far as `cover` (0..1) says."""
        cover = np.asarray(cover, np.float32)
        self.share *= 1 - cover
        for name, part in mixture.items():
            self.share[MATERIALS.index(name)] += cover * part

    def line(self, distance: Map, width: Map | float) -> Map:
        """Cover of a stroke `width` pixels wide, soft over half a pixel, from the distance to its axis."""
        return np.clip((width / 2 - np.abs(distance)) * FINE + 0.5, 0, 1)


def landscape(size: tuple[int, int], rng: np.random.Generator) -> tuple[Map, Map]:
    """Draw the scene.

    Returns
    -------
    sunlit, skylit
        Each ``(materials, rows, cols)``: share of a material in a pixel times the direct, or the diffuse, light it
        gets; 1 in total on open level ground. Reflectance as a sensor product would give it is
        ``(1 - sky) * spectra.T @ sunlit + sky * spectra.T @ skylit``, with ``sky`` the diffuse part of each band.
    """
    canvas = Canvas(size, rng)
    _fields(canvas)
    river = _river(canvas)
    _roads(canvas, river)
    _woods(canvas, river)
    _town(canvas)
    direct, diffuse = _light(canvas)
    texture = 1 + 0.035 * fractal(rng, canvas.shape, 1.2) + 0.04 * fractal(rng, canvas.shape, 2.4)
    direct *= texture
    diffuse *= texture
    return _average(canvas.share * direct), _average(canvas.share * diffuse)


def _average(fine: Map) -> Map:
    m, rows, cols = fine.shape
    return np.asarray(fine.reshape(m, rows // FINE, FINE, cols // FINE, FINE).mean((2, 4)), np.float32)


def _parcels(canvas: Canvas, angle: float, area: float) -> tuple[NDArray[np.int32], list[float]]:
    """Cut the plane, again and again across its longer side, into parcels of about `area` pixels."""
    rng, labels, directions = canvas.rng, np.zeros(canvas.y.size, np.int32), list[float]()
    u, v = (c.ravel() for c in canvas.rotated(angle))
    stack = [np.arange(labels.size)]
    while stack:
        part = stack.pop()
        along = bool(np.ptp(u[part]) > np.ptp(v[part]))
        if part.size < area * FINE**2 * rng.uniform(0.7, 2.2):
            labels[part] = len(directions)
            directions.append(angle if along else angle + np.pi / 2)
            continue
        tilt = rng.uniform(-0.12, 0.12)
        key = (u[part] + tilt * v[part]) if along else (v[part] + tilt * u[part])
        cut = np.quantile(key, rng.uniform(0.34, 0.66))
        stack += [part[key <= cut], part[key > cut]]
    return labels.reshape(canvas.shape), directions


def _fields(canvas: Canvas) -> None:
    """Farmland: one crop a parcel, sown in rows, denser here and thinner there; grass margins between."""
    from scipy import ndimage

    rng = canvas.rng
    labels, directions = _parcels(canvas, 0.32, 1500)
    crops: tuple[tuple[str, str, float, float], ...] = (
        ("leaf", "soil", 0.88, 0.08), ("leaf", "soil", 0.50, 0.20), ("leaf", "clay", 0.70, 0.12),
        ("grass", "straw", 0.85, 0.05), ("grass", "soil", 0.75, 0.06), ("straw", "soil", 0.75, 0.12),
        ("straw", "grass", 0.60, 0.10), ("soil", "straw", 0.93, 0.05), ("clay", "soil", 0.80, 0.10),
        ("flower", "leaf", 0.45, 0.08), ("leaf", "grass", 0.65, 0.05), ("soil", "grass", 0.70, 0.08),
        ("leaf", "straw", 0.60, 0.10), ("grass", "clay", 0.60, 0.08),
    )  # cover, what shows through, mean share of the cover, depth of its rows  # fmt: skip
    vigour, patches = fractal(rng, canvas.shape, 2.6), fractal(rng, canvas.shape, 1.7)
    order = rng.permutation(np.resize(np.arange(len(crops)), len(directions)))
    for parcel, direction in enumerate(directions):
        cover, below, mean, rows = crops[order[parcel]]
        here = labels == parcel
        _, across = canvas.rotated(direction + rng.uniform(-0.06, 0.06))
        period, phase = rng.uniform(2.6, 5.5), rng.uniform(0, 2 * np.pi)
        swing = rows * np.cos(2 * np.pi * across[here] / period + phase + 0.25 * vigour[here])
        dense = np.clip(mean * rng.uniform(0.85, 1.1) + 0.09 * vigour[here] + 0.04 * patches[here] + swing, 0.02, 1)
        canvas.share[MATERIALS.index(cover)][here] = dense
        canvas.share[MATERIALS.index(below)][here] += 1 - dense
        # fields differ by sowing date and tillage, not only by crop
        canvas.share[:, here] *= rng.uniform(0.82, 1.12)
    edge = ndimage.distance_transform_edt(ndimage.maximum_filter(labels, 3) == ndimage.minimum_filter(labels, 3))
    margin = np.asarray(edge, np.float32) / FINE
    kind = fractal(rng, canvas.shape, 3.0)
    canvas.paint(canvas.line(margin, 1.3) * np.clip((0.7 - kind) * 4, 0, 1), grass=0.75, straw=0.25)
    canvas.paint(canvas.line(margin, 1.6) * np.clip((kind - 0.6) * 4, 0, 1), gravel=0.25, soil=0.4, grass=0.35)


def _river(canvas: Canvas) -> Map:
    """A meandering river with gravel bars; returns the distance to its axis."""
    rng, (rows, cols) = canvas.rng, canvas.size
    t = canvas.y[:, :1]
    bend = 0.062 * cols * np.sin(2 * np.pi * t / (0.72 * rows) + 0.6) + 0.024 * cols * np.sin(2 * np.pi * t / 83 + 2.0)
    centre = 0.30 * cols + 0.16 * (t - rows / 2) + bend
    slope = np.gradient(centre, 1 / FINE, axis=0)
    distance = np.asarray((canvas.x - centre) / np.sqrt(1 + slope**2), np.float32)
    width = 10 + 1.6 * np.sin(2 * np.pi * t / 61) + 0.5 * fractal(rng, canvas.shape, 2.5)
    curve = np.gradient(slope, 1 / FINE, axis=0)
    inner = np.clip(np.abs(curve) * 150 - 1.1 + 0.45 * fractal(rng, canvas.shape, 2.6), 0, 1)
    bar = canvas.line(distance - 5.5 * np.sign(curve), 6.0 * inner)
    bank = canvas.line(distance, width + 5 + 1.2 * fractal(rng, canvas.shape, 2.0))
    canvas.paint(bank, grass=0.6, soil=0.25, leaf=0.15)
    stones = np.clip(0.7 + 0.12 * fractal(rng, canvas.shape, 1.0), 0.3, 1)
    canvas.paint(bar, gravel=stones, soil=1 - stones)
    stir = np.clip(0.06 + 0.02 * fractal(rng, canvas.shape, 2.2), 0, 0.2)
    shallow = np.clip(np.abs(distance) / width * 0.25 - 0.04, 0, 0.3)
    canvas.paint(canvas.line(distance, width) * (1 - 0.9 * bar), water=1 - stir * 0.5 - shallow, soil=stir * 0.5,
                 gravel=shallow)
    return distance


def _roads(canvas: Canvas, river: Map) -> None:
    """Two roads with verges, one over a bridge; wheel tracks along field edges are part of the margins."""
    rows, cols = canvas.size
    first = canvas.y - (0.60 * rows + 0.10 * (canvas.x - cols / 2) + 7 * np.sin(canvas.x / 60))
    second = canvas.x - (0.79 * cols - 0.26 * (canvas.y - rows / 2) + 5 * np.sin(canvas.y / 47))
    wet = np.abs(river) < 8
    for distance, width in ((first, 3.4), (second, 2.2)):
        canvas.paint(canvas.line(distance, width + 2.4) * ~wet, grass=0.7, straw=0.3)
        canvas.paint(canvas.line(distance, width), asphalt=0.9, concrete=0.1)
        canvas.paint(canvas.line(distance, 0.35), concrete=0.5, asphalt=0.5)
    canvas.paint(canvas.line(first, 4.2) * wet, concrete=0.8, asphalt=0.2)
    canvas.height[wet & (np.abs(first) < 2.1)] = 1.5


def _crowns(canvas: Canvas, wanted: Map, spacing: float, conifers: Map | float) -> None:
    """Trees on a jittered grid, as likely as `wanted` says, conifers as `conifers` says; crowns add to the height."""
    from scipy.spatial import cKDTree

    rng = canvas.rng
    gy, gx = np.meshgrid(*(np.arange(0, n, spacing) for n in canvas.size), indexing="ij")
    seeds = np.stack([gy.ravel(), gx.ravel()], 1) + rng.uniform(-0.48, 0.48, (gy.size, 2)) * spacing
    seeds = np.clip(seeds, 0, np.array(canvas.size) - 0.01)
    kind, vigour = rng.random(len(seeds)), rng.uniform(0.75, 1.0, len(seeds))
    radius = spacing * rng.uniform(0.42, 0.74, len(seeds))
    at = tuple((seeds * FINE).astype(int).T)
    kind -= np.broadcast_to(conifers, canvas.shape)[at]
    keep = rng.random(len(seeds)) < wanted[at]
    if not keep.any():
        return
    seeds, kind, vigour, radius = seeds[keep], kind[keep], vigour[keep], radius[keep]
    distance, nearest = cKDTree(seeds).query(np.stack([canvas.y, canvas.x], -1), distance_upper_bound=spacing)
    found = np.minimum(nearest, len(seeds) - 1)
    inside = np.where(np.isfinite(distance), distance, 1e3) / radius[found]
    crown = np.clip((1 - inside) * 4, 0, 1).astype(np.float32)
    dark = np.asarray(kind[found] < 0, np.float32)
    green = vigour[found].astype(np.float32)
    canvas.paint(crown, conifer=dark * green, leaf=(1 - dark) * green, soil=1 - green)
    dome = np.sqrt(np.clip(1 - inside**2, 0, 1)) * radius[found] * (1.0 + 0.5 * dark)
    canvas.height = np.maximum(canvas.height, dome.astype(np.float32))


def _woods(canvas: Canvas, river: Map) -> None:
    """A wood on the hill, trees along the banks, a few in the open."""
    rows, cols = canvas.size
    rough = fractal(canvas.rng, canvas.shape, 3.0)
    hill = 1.25 - np.hypot((canvas.y - 0.20 * rows) / (0.24 * rows), (canvas.x - 0.70 * cols) / (0.25 * cols))
    wood = np.clip((hill - 0.15 + 0.34 * rough) * 6, 0, 1)
    canvas.paint(wood, soil=0.35, conifer=0.2, grass=0.45)
    stands = np.clip(0.45 + 0.6 * fractal(canvas.rng, canvas.shape, 3.2), 0.05, 0.95)
    _crowns(canvas, wood * 0.94, 3.3, conifers=stands)
    bank = np.clip(1 - np.abs(np.abs(river) - 9.5) / 3, 0, 1) * (fractal(canvas.rng, canvas.shape, 2.5) > -0.1)
    _crowns(canvas, np.asarray(bank * 0.8, np.float32), 3.4, conifers=0.05)
    _crowns(canvas, np.asarray((np.abs(river) > 12) * 0.012, np.float32), 4.0, conifers=0.1)


def _town(canvas: Canvas) -> None:
    """Streets, houses with gable roofs in gardens, and a yard with a few halls with flat bright roofs."""
    rng, (rows, cols) = canvas.rng, canvas.size
    angle = 0.10
    u, v = canvas.rotated(angle)
    du, dv = u - (0.70 * cols * np.cos(angle) + 0.78 * rows * np.sin(angle)), v - (
        0.78 * rows * np.cos(angle) - 0.70 * cols * np.sin(angle))
    half = (0.20 * cols, 0.155 * rows)
    ragged = 0.10 * fractal(rng, canvas.shape, 3.0)
    inside = np.maximum(np.abs(du) / half[0], np.abs(dv) / half[1]) + ragged < 1
    canvas.height[inside] = 0
    lawn = np.clip(0.62 + 0.2 * fractal(rng, canvas.shape, 1.6), 0.1, 0.95)
    canvas.paint(inside, grass=lawn, soil=(1 - lawn) * 0.6, concrete=(1 - lawn) * 0.4)
    block = (26.0, 17.0)
    street = np.minimum(np.abs((du + block[0] / 2) % block[0] - block[0] / 2),
                        np.abs((dv + block[1] / 2) % block[1] - block[1] / 2))
    garden = np.asarray(inside & (street > 2), np.float32)
    _crowns(canvas, garden * 0.28, 2.9, conifers=0.2)
    canvas.paint(canvas.line(street, 3.4) * inside, concrete=0.6, grass=0.4)
    canvas.paint(canvas.line(street, 2.0) * inside, asphalt=0.92, concrete=0.08)
    canvas.height[inside & (street < 1.7)] = 0
    roofs = ({"tile": 1.0}, {"tile": 0.8, "asphalt": 0.2}, {"tile": 0.55, "concrete": 0.45}, {"metal": 1.0},
             {"asphalt": 0.7, "metal": 0.3})
    for iu in range(int(-half[0] // block[0]) - 1, int(half[0] // block[0]) + 2):
        for iv in range(int(-half[1] // block[1]) - 1, int(half[1] // block[1]) + 2):
            corner = (iu * block[0], iv * block[1])
            if iu >= 1 and iv >= 0:  # the yard with the halls
                length, width = rng.uniform(14, 20), rng.uniform(8, 11)
                centre = (corner[0] + block[0] / 2, corner[1] + block[1] / 2)
                yard = (np.abs(du - centre[0]) < 11.5) & (np.abs(dv - centre[1]) < 7) & inside
                canvas.paint(yard, concrete=0.55, asphalt=0.45)
                canvas.height[yard] = 0
                roof: Mapping[str, float] = ({"membrane": 1.0}, {"metal": 1.0}, {"concrete": 0.7, "asphalt": 0.3})[
                    (iu + iv) % 3]
                _house(canvas, du - centre[0], dv - centre[1], (length, width), 2.6, 0.0, roof, inside)
                continue
            for k in range(4):
                for side in (4.9, block[1] - 4.9):
                    centre = (corner[0] + 4.4 + 5.8 * k + rng.uniform(-0.5, 0.5), corner[1] + side)
                    size = (rng.uniform(2.6, 4.2), rng.uniform(2.2, 3.2))
                    roof = roofs[rng.choice(5, p=(0.45, 0.2, 0.15, 0.08, 0.12))]
                    if rng.random() < 0.88:
                        _house(canvas, du - centre[0], dv - centre[1], size, 1.6, 0.45, roof, inside)


def _house(
    canvas: Canvas, du: Map, dv: Map, size: tuple[float, float], eaves: float, pitch: float,
    roof: Mapping[str, float], inside: NDArray[np.bool_],
) -> None:  # fmt: skip
    """One building: a rectangle with a ridge along its longer side."""
    within = (np.abs(du) < size[0] / 2) & (np.abs(dv) < size[1] / 2)
    if not within.any() or not inside[within].all():
        return
    age = canvas.rng.uniform(0.0, 0.25)
    mixture: dict[str, Any] = {name: part * (1 - age) for name, part in roof.items()}
    mixture["asphalt"] = mixture.get("asphalt", 0.0) + age
    canvas.paint(within, **mixture)
    canvas.height[within] = eaves + pitch * (size[1] / 2 - np.abs(dv[within]))


def _light(canvas: Canvas) -> tuple[Map, Map]:
    """Direct and diffuse light, 1 on open level ground: hill shading, crown and roof facets, cast shadows."""
    from scipy import ndimage

    hills = 11.0 * fractal(canvas.rng, canvas.shape, 4.2)
    relief = ndimage.gaussian_filter(hills, 8 * FINE) + canvas.height
    gy, gx = (np.clip(g, -0.9, 0.9) for g in np.gradient(relief, 1 / FINE))
    east, north = np.sin(SUN_AZIMUTH), np.cos(SUN_AZIMUTH)
    facing = np.sin(SUN_ELEVATION) - np.cos(SUN_ELEVATION) * (gx * east - gy * north)
    direct = np.clip(facing / np.sqrt(1 + gx**2 + gy**2), 0.12, None) / np.sin(SUN_ELEVATION)
    shadow = np.zeros(canvas.shape, bool)
    for step in range(1, 5 * FINE):
        reach = step / FINE
        shift = (round(north * step), round(-east * step))  # what stands towards the sun
        tower = np.roll(canvas.height, shift, (0, 1)) - reach * np.tan(SUN_ELEVATION)
        shadow |= tower > canvas.height + 0.2
    lit = 1 - 0.85 * ndimage.gaussian_filter(shadow.astype(np.float32), 0.4 * FINE)
    crowded = ndimage.gaussian_filter(canvas.height, 2 * FINE) - canvas.height
    open_sky = np.clip(1 - 0.16 * np.clip(crowded, 0, None), 0.4, 1)
    return np.asarray(direct * lit, np.float32), np.asarray(open_sky, np.float32)
