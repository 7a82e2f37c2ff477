"""The spectral axis: units, conventions, repairs and runs of bands."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsidenoise.bands import Bands, from_envi, from_gtiff, to_envi, to_gtiff
from hsidenoise.errors import GuessedUnitsWarning, MetadataWarning


def envi(count: int = 3, **keys: str) -> Bands:
    return from_envi({k.replace("_", " "): v for k, v in keys.items()}, count, "scene")


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ("{400, 500.5, 600}", "Nanometers", (400, 500.5, 600)),
        ("{400, 500.5, 600}", "nm", (400, 500.5, 600)),
        ("{0.4, 0.4268, 0.6}", "Micrometers", (400, 426.8, 600)),
        ("{0.4, 0.4268, 0.6}", "um", (400, 426.8, 600)),
        ("{0.4, 0.4268, 0.6}", "µm", (400, 426.8, 600)),
        ("{20000, 12500, 10000}", "Wavenumber", (500, 800, 1000)),
        ("{\n 400,\n 500,\n 600,\n}", "nanometers", (400, 500, 600)),
        ("{4.0e2, 5.0E+02, 6e2}", "nm", (400, 500, 600)),
    ],
)
def test_units_become_nanometres(values: str, unit: str, expected: tuple[float, ...]) -> None:
    assert envi(wavelength=values, wavelength_units=unit).wavelength == expected


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ("{400, 500, 600}", "", (400, 500, 600)),  # EMIT
        ("{0.4, 0.5, 0.6}", "", (400, 500, 600)),
        ("{400, 500, 600}", "Unknown", (400, 500, 600)),
        ("{0.46, 0.5, 0.6}", "Nanometers", (460, 500, 600)),  # a stale sidecar's unit
        ("{400, 500, 600}", "n", (400, 500, 600)),
    ],
)
def test_missing_or_impossible_unit_is_guessed_with_a_warning(
    values: str, unit: str, expected: tuple[float, ...]
) -> None:
    with pytest.warns(GuessedUnitsWarning, match="taken as"):
        bands = envi(wavelength=values, wavelength_units=unit, fwhm="{0.01, 0.01, 0.01}")
    assert bands.wavelength == expected


def test_index_is_no_wavelength() -> None:
    assert envi(wavelength="{1, 2, 3}", wavelength_units="Index").wavelength == ()


@pytest.mark.parametrize("key", ["wavelength", "fwhm", "bbl", "band_names"])
@pytest.mark.parametrize("items", ["{1, 2}", "{1, 2, 3, 4}"])
def test_lists_of_the_wrong_length_are_dropped_with_a_warning(key: str, items: str) -> None:
    with pytest.warns(MetadataWarning, match="for 3 bands"):
        bands = envi(**{key: items}, **({} if key == "wavelength" else {"wavelength": "{400,500,600}"}),
                     wavelength_units="nm")  # fmt: skip
    assert len(bands.wavelength) == (0 if key == "wavelength" else 3)
    assert (bands.fwhm, bands.good, bands.names) == ((), (), ())


def test_absent_bands_have_no_wavelength() -> None:
    with pytest.warns(MetadataWarning, match="no numbers"):
        bands = envi(4, wavelength="{400, 0, red, 600}", wavelength_units="nm")
    assert [math.isnan(w) for w in bands.wavelength] == [False, True, True, False]


def test_flags_may_be_floats_and_one_is_good() -> None:
    assert envi(bbl="{1.000, 0.000, 1}").good == (True, False, True)


def test_usable_leaves_out_bad_and_alpha_bands() -> None:
    assert Bands(3, good=(True, False, True), roles=("", "", "alpha")).usable() == (True, False, False)


def test_select_keeps_what_belongs_to_each_band() -> None:
    bands = Bands(3, (400.0, 500.0, 600.0), (), (True, False, True), ("a", "b", "c"))
    assert bands.select([2, 0]) == Bands(2, (600.0, 400.0), (), (True, True), ("c", "a"))


# Conventions in GeoTIFF tags, as met in real files.

PLAIN = [{"": {"wavelength": str(w), "wavelength_units": "Nanometers", "fwhm": "7", "bbl": b}}
         for w, b in ((418.24, "1"), (423.874, "0"))]  # fmt: skip


@pytest.mark.parametrize(
    ("tags", "band_tags", "descriptions"),
    [
        ({}, [{"IMAGERY": {"CENTRAL_WAVELENGTH_UM": t}} for t in ("0.41824", "0.423874")], [None, None]),
        ({}, PLAIN, [None, None]),
        (
            {},
            [{"ENVI": {"wavelength": t, "wavelength units": "nm", "bbl": "1"}} for t in ("418.24", "423.874")],
            [None, None],
        ),
        ({"ENVI": {"wavelength": "418.24,423.874", "wavelength units": "nm"}}, [{}, {}], [None, None]),
        ({"ENVI": {"wavelength": "{418.24, 423.874}", "wavelength_units": "nm"}}, [{}, {}], [None, None]),
        ({}, [{}, {}], ["band 1 (418.24 Nanometers)", "band 2 (423.874 Nanometers)"]),
        ({}, [{}, {}], ["0.41824 Micrometers", "0.423874 Micrometers"]),
    ],
    ids=["IMAGERY", "band", "ENVI band", "ENVI dataset", "ENVI braces", "description", "bare description"],
)
def test_six_conventions(tags: dict, band_tags: list, descriptions: list) -> None:
    assert from_gtiff(tags, band_tags, descriptions, "scene").wavelength == (418.24, 423.874)


def test_imagery_wins_unless_it_is_the_band_tag_rounded() -> None:
    rounded = [b | {"IMAGERY": {"CENTRAL_WAVELENGTH_UM": t}} for b, t in zip(PLAIN, ("0.418", "0.424"), strict=True)]
    assert from_gtiff({}, rounded, [None, None], "scene").wavelength == (418.24, 423.874)
    other = [b | {"IMAGERY": {"CENTRAL_WAVELENGTH_UM": t}} for b, t in zip(PLAIN, ("0.5", "0.6"), strict=True)]
    assert from_gtiff({}, other, [None, None], "scene").wavelength == (500, 600)


def test_names_lose_what_a_library_appended() -> None:
    bands = from_gtiff({}, [{}, {}], ["red (650.5 Nanometers)", "Resize (x:y) (0.5 Micrometers)"], "scene")
    assert bands.names == ("red", "Resize (x:y)")
    assert from_gtiff({}, [{}], ["NDVI (v2)"], "scene").names == ("NDVI (v2)",)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(200, 20_000), min_size=1, max_size=5), st.data())
def test_round_trip_through_both_conventions(centres: list[float], data: st.DataObject) -> None:
    count = len(centres)
    widths = data.draw(st.lists(st.floats(0.1, 100), min_size=count, max_size=count))
    good = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    bands = Bands(count, tuple(centres), tuple(widths), tuple(good))
    assert from_gtiff({}, to_gtiff(bands), [None] * count, "scene") == bands
    assert from_envi(to_envi(bands), count, "scene") == bands


def test_imagery_has_at_least_six_decimals() -> None:
    tags = to_gtiff(Bands(1, (450.1,), (10.5,)))[0]["IMAGERY"]
    assert tags == {"CENTRAL_WAVELENGTH_UM": "0.450100", "FWHM_UM": "0.010500"}


def test_unknown_wavelengths_write_nothing_to_tiff_and_zero_to_envi() -> None:
    bands = Bands(2, (450.0, math.nan))
    assert to_gtiff(bands)[1] == {}
    assert to_envi(bands)["wavelength"] == "{450.0, 0}"


# Runs for spectral windows.


def grid(*parts: np.ndarray, good: tuple[bool, ...] = ()) -> Bands:
    values = np.concatenate(parts)
    return Bands(len(values), tuple(float(v) for v in values), good=good)


def test_one_detector_is_one_run() -> None:
    assert grid(np.arange(400, 1000, 5.0)).groups() == [list(range(120))]


def test_descending_wavelengths_come_out_ascending() -> None:
    assert grid(np.arange(1000, 900, -10.0)).groups() == [list(range(10))[::-1]]


def test_a_run_ends_where_detectors_overlap() -> None:
    vnir, swir = np.arange(400, 1000, 6.0), np.arange(900, 2500, 10.0)
    groups = grid(vnir, swir).groups()
    assert groups == [list(range(100)), list(range(100, 260))]
    # PRISMA: both descending.
    groups = grid(vnir[::-1], swir[::-1]).groups()
    assert [len(g) for g in groups] == [100, 160]
    assert groups[0][0] == 99


def test_a_run_ends_at_a_gap_and_at_a_lost_water_window_but_not_at_one_lost_band() -> None:
    bands = grid(np.arange(400, 1300, 10.0), np.arange(1400, 1800, 10.0))
    assert [len(g) for g in bands.groups()] == [90, 40]
    good = [True] * 130
    good[50] = False
    assert [len(g) for g in grid(np.arange(400, 1700, 10.0), good=tuple(good)).groups()] == [129]
    good[95:105] = [False] * 10
    assert [len(g) for g in grid(np.arange(400, 1700, 10.0), good=tuple(good)).groups()] == [94, 25]


def test_multispectral_bands_form_one_run() -> None:
    sentinel = np.array([443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190.0])
    assert grid(sentinel).groups() == [list(range(13))]


def test_unsorted_bands_are_sorted_not_split() -> None:
    order = np.random.default_rng(0).permutation(40)
    groups = grid(np.arange(400, 800, 10.0)[order]).groups()
    assert len(groups) == 1
    assert list(order[groups[0]]) == list(range(40))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 30).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.one_of(st.just(math.nan), st.floats(300, 2500)), min_size=n, max_size=n) | st.just([]),
            st.lists(st.booleans(), min_size=n, max_size=n) | st.just([]),
        )
    )
)
def test_every_usable_band_is_in_exactly_one_run(case: tuple[int, list[float], list[bool]]) -> None:
    count, centres, good = case
    bands = Bands(count, tuple(centres), good=tuple(good))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = bands.groups()
    assert sorted(b for g in groups for b in g) == [i for i, ok in enumerate(bands.usable()) if ok]
    assert all(groups)
