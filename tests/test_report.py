"""Reports of fabricated scenes: numbers against direct computation, pages against an HTML parser."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scenes import write_envi, write_tiff
from scipy.ndimage import gaussian_filter

from hsidenoise import metrics, report
from hsidenoise.bands import Bands
from hsidenoise.cube import Cube, Geo
from hsidenoise.errors import NoiseKindWarning, OutputExistsError, UsageError, WriteError
from hsidenoise.run import run

GEO = Geo(crs="EPSG:32633", transform=(30.0, 0.0, 5e5, 0.0, -30.0, 4e6))
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def cube(pixels, name="scene.tif", *, wavelength=(), good=(), nodata=None, reads=None, **more):
    """A Cube over an array; `reads` collects how many rows each read asked for."""

    def read(window, bands):
        if reads is not None:
            reads.append((len(list(bands)), window.row_stop - window.row_start))
        return pixels[list(bands), window.row_start : window.row_stop, window.col_start : window.col_stop].copy()

    n = pixels.shape[0]
    info = Bands(n, tuple(wavelength), (), tuple(good))
    more = {"geo": GEO, "tags": {}, **more}
    return Cube(
        name=name, format="GTiff", shape=pixels.shape, dtype=pixels.dtype.name, bands=info, nodata=(nodata,) * n,
        scale=(1.0,) * n, offset=(0.0,) * n, read_raw=read, **more,
    )  # fmt: skip


def truth(bands=24, rows=64, cols=72, seed=0):
    """Digital numbers of fields with sharp borders, their spectra smooth."""
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.standard_normal((4, rows, cols)), (0, 3, 3))
    abundance = (fields == fields.max(axis=0)) * 0.8 + 0.2 * gaussian_filter(rng.random(fields.shape), (0, 1, 1))
    spectra = 500 + 2500 * gaussian_filter(rng.random((4, bands)), (0, 2), mode="nearest")
    return np.einsum("mb,mrc->brc", spectra, abundance)


def whole(values):
    return np.rint(values).clip(-32000, 32000).astype(np.int16)


def a_run(shape, passed=(), **more):
    tiles = [
        {"row": r, "col": c, "rows": 32, "cols": 36, "iterations": 9 + (r + c) % 4, "residual": 7e-4, "converged": True}
        for r in range(0, shape[1], 32)
        for c in range(0, shape[2], 36)
    ]
    return {
        "options": {"model": "auto", "tile": 0, "co": ["COMPRESS=ZSTD"], "reference": None},
        "model": {"name": "compact", "sha256": "ab" * 32, "card": {"licence": "Apache-2.0"}},
        "device": "cpu", "seconds": 12.5, "started": "2026-01-02T03:04:05Z",
        "tiles": tiles, "versions": {"torch": "2.13.0"},
        "normalisation": {"method": "percentile", "windows": [[0, 23, 1.0, 2.0]]},
        "bands_denoised": [b for b in range(shape[0]) if b not in passed],
        "bands_passed": {str(b): "flagged bad (bbl)" for b in passed},
    } | more  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    """Before, after (the truth but for a corner without data and two bands passed through) and the truth."""
    rng = np.random.default_rng(1)
    clean = truth()
    noisy = clean + rng.uniform(20, 120, 24)[:, None, None] * rng.standard_normal(clean.shape)
    before, after = whole(noisy), whole(clean)
    for pixels in (before, after):
        pixels[:, :20, :15] = -9999
    after[[5, 6]] = before[[5, 6]]
    good = [b not in (5, 6) for b in range(24)]
    about = {"wavelength": np.linspace(400, 900, 24), "good": good, "nodata": -9999.0}
    return before, after, whole(clean), about


@pytest.fixture(scope="module")
def full(scenes):
    before, after, clean, about = scenes
    return report.collect(
        cube(before, "scene.tif", **about), cube(after, "clean.tif", **about),
        reference=cube(clean, "truth.tif"), run=a_run(before.shape, passed=(5, 6)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def html(full):
    return full.to_html()


class Page(HTMLParser):
    """Checks that tags nest, and gathers what tests ask about."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.images, self.ids, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"repeated attribute in <{tag}>"
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "img":
            self.images.append(attributes)
        for value in ("src", "href"):
            assert attributes.get(value, "data:").startswith("data:"), f"<{tag}> points outside of the page"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def check_page(html):
    assert html.startswith("<!DOCTYPE html>")
    assert len(html.encode()) < 2_000_000
    assert "<script" not in html
    page = Page(html)
    assert page.tags[:2] == ["html", "head"]
    assert len(page.ids) == len(set(page.ids))
    assert all(image["alt"] for image in page.images)
    for image in page.images:
        kind, data = re.fullmatch(r"data:image/([a-z+]+);base64,(.*)", image["src"]).groups()
        start = base64.b64decode(data)[:8]
        assert start.startswith({"png": b"\x89PNG", "jpeg": b"\xff\xd8", "svg+xml": b"<?xml"}[kind])
    return page


# -------------------------------------------------------------------------------------------- numbers


def test_numbers_agree_with_metrics_computed_directly(scenes, full):
    before, after, clean, _ = scenes
    numbers = full.to_json()
    valid = before != -9999
    low, high = float(clean.min()), float(np.percentile(clean.astype(float), 99.95))
    quality = numbers["quality"]
    assert (quality["black"], quality["white"]) == pytest.approx((low, high), rel=1e-6)
    x, span = clean.astype(np.float64) - low, high - low
    good = np.array([not str(band["reason"]).startswith("flagged bad") for band in numbers["bands"]])
    for name, pixels in (("before", before), ("after", after)):
        y = np.where(valid, pixels, 0).astype(np.float64) - low
        truth, seen, known = x[good], y[good], valid[good]
        assert quality[name]["psnr"] == pytest.approx(metrics.psnr(truth, seen, span, known), rel=1e-5)
        assert quality[name]["ssim"] == pytest.approx(metrics.ssim(truth, seen, span, known), rel=1e-5)
        assert quality[name]["sam"] == pytest.approx(metrics.sam(truth + low, seen + low, known), rel=1e-5)
        assert quality[name]["ergas"] == pytest.approx(metrics.ergas(truth + low, seen + low, valid=known), rel=1e-5)
        psnr = [band[f"psnr_{name}"] for band in numbers["bands"]]
        np.testing.assert_allclose(psnr, metrics.psnr_bands(x, y, span, valid), rtol=1e-5)
    removed = [np.sqrt(np.mean((p.astype(float) - q)[v] ** 2)) for p, q, v in zip(before, after, valid, strict=True)]
    np.testing.assert_allclose([band["removed_rms"] for band in numbers["bands"]], removed, rtol=1e-5)
    assert numbers["sam_to_input"] == pytest.approx(metrics.sam(before, after, valid), rel=1e-5)
    assert numbers["valid_fraction"] == pytest.approx(valid.mean())


def test_profiles_are_means_of_valid_pixels(scenes, full):
    before, _, _, _ = scenes
    for entry in full.numbers["profiles"]:
        pixels = np.where(before == -9999, np.nan, before)[entry["band"] - 1]
        np.testing.assert_allclose(entry["row"]["before"], np.nanmean(pixels, axis=1), rtol=1e-5)
        np.testing.assert_allclose(entry["column"]["before"], np.nanmean(pixels, axis=0), rtol=1e-5)
        assert set(entry["row"]) == {"at", "step", "before", "after", "reference"}


def test_spectra_are_those_of_the_files(scenes, full):
    before, after, _, _ = scenes
    assert len(full.numbers["spectra"]) == 4
    for pixel in full.numbers["spectra"]:
        at = np.s_[:, pixel["row"] - 1, pixel["column"] - 1]
        assert pixel["before"] == before[at].tolist()
        assert pixel["after"] == after[at].tolist()


def test_noise_is_estimated_or_taken_from_the_run(scenes, full):
    before, after, _, about = scenes
    sigma = np.array([band["sigma_before"] for band in full.numbers["bands"]])
    true = np.random.default_rng(1).uniform(20, 120, 24)
    keep = [b for b in range(24) if b not in (5, 6)]
    assert np.median(sigma[keep] / true[keep]) == pytest.approx(1, abs=0.1)
    given = [float(s) for s in range(24)]
    run = a_run(before.shape, sigma_before=given)
    told = report.collect(cube(before, **about), cube(after, **about), run=run)
    assert [band["sigma_before"] for band in told.numbers["bands"]] == given


def test_blocks_make_no_difference(scenes, full, monkeypatch):
    before, after, clean, about = scenes
    monkeypatch.setattr("hsidenoise.measure.BLOCK_SAMPLES", 1)
    reads = []
    blocks = report.collect(
        cube(before, reads=reads, **about), cube(after, **about), reference=cube(clean), run=a_run(before.shape, (5, 6))
    )
    assert max(rows for bands, rows in reads if bands == 24) == 16 + 2 * metrics.SSIM_RADIUS
    for name in ("before", "after"):
        for key, value in full.numbers["quality"][name].items():
            assert blocks.numbers["quality"][name][key] == pytest.approx(value, rel=1e-5), key
    for a, b in zip(blocks.numbers["bands"], full.numbers["bands"], strict=True):
        assert a["removed_rms"] == b["removed_rms"]
        assert a["stripes_before"] == pytest.approx(b["stripes_before"], rel=0.1)
    assert blocks.numbers["spectra"] == full.numbers["spectra"]


# -------------------------------------------------------------------------------------------- verdicts


def test_a_good_result_is_called_good(full):
    verdict = full.numbers["verdict"]
    assert verdict["level"] == "good"
    assert "in 22 bands" in verdict["text"]
    assert "2 bands were left untouched" in verdict["text"]
    assert "no image structure was found" in verdict["text"]
    assert all(check["ok"] for check in full.numbers["checks"])


def test_without_a_reference_the_noise_is_the_headline(scenes):
    before, after, _, about = scenes
    result = report.collect(cube(before, **about), cube(after, **about), run=a_run(before.shape, (5, 6)))
    assert result.numbers["quality"] is None
    text = result.numbers["verdict"]["text"]
    assert text.startswith("Noise fell: the median signal-to-noise ratio rose from")
    assert "at least" in text


def test_a_blurred_result_is_called_out(scenes):
    before, _, _, about = scenes
    blurred = np.where(before == -9999, before, whole(gaussian_filter(before.astype(float), (0, 1, 1))))
    result = report.collect(cube(before, **about), cube(blurred, **about), run=a_run(before.shape))
    assert result.numbers["verdict"]["level"] == "fault"
    assert "Image structure was removed" in result.numbers["verdict"]["text"]


def test_changed_bands_and_lost_pixels_are_called_out(scenes):
    before, after, _, about = scenes
    spoiled = after.copy()
    spoiled[5, 40, 40] += 1  # a band that was to pass through
    spoiled[0, 0, 0] = 7  # a sample without data
    spoiled[2, 50, 50] = -9999  # a measurement lost
    result = report.collect(cube(before, **about), cube(spoiled, **about), run=a_run(before.shape, (5, 6)))
    verdict = result.numbers["verdict"]
    assert verdict["level"] == "fault"
    for name in ("Bands passed through are identical", "Samples without data are identical", "No measurement was lost"):
        assert any(reason.startswith(f"{name}: no (1 samples") for reason in verdict["reasons"]), name


def test_tiles_that_did_not_converge_are_called_out(scenes):
    before, after, _, about = scenes
    run = a_run(before.shape, (5, 6))
    run["tiles"][1] |= {"iterations": 20, "residual": 0.01, "converged": False}
    run["tiles"][2] |= {"iterations": 0, "residual": 0.0, "converged": True}  # nothing valid there
    result = report.collect(cube(before, **about), cube(after, **about), run=run)
    assert result.numbers["verdict"]["level"] == "check"
    assert result.numbers["convergence"]["not_converged"] == 1
    assert result.numbers["convergence"]["tiles"] == len(run["tiles"]) - 1
    check_page(result.to_html())


def test_dropped_metadata_is_called_out(scenes):
    before, after, _, about = scenes
    bare = {**about, "wavelength": ()}
    result = report.collect(cube(before, **about), cube(after, geo=Geo(), **bare), run=a_run(before.shape, (5, 6)))
    failed = [check["name"] for check in result.numbers["checks"] if not check["ok"]]
    assert failed == ["Georeferencing kept", "Wavelengths and bad-band flags kept"]
    assert result.numbers["verdict"]["level"] == "check"


def test_an_untouched_scene_is_not_called_denoised(scenes):
    before, _, _, about = scenes
    result = report.collect(cube(before, **about), cube(before, **about), run={})
    assert result.numbers["verdict"]["text"].startswith("Nothing was removed")


def test_another_shape_is_refused(scenes):
    before, _, _, about = scenes
    with pytest.raises(UsageError, match="same grid"):
        report.collect(cube(before, **about), cube(before[:, :-1], "cut.tif", **about), run={})


# ------------------------------------------------------------------------------------------------ page


def test_the_page_is_whole_and_says_it_all(full, html):
    page = check_page(html)
    words = page.words
    for text in ("scene.tif", "flagged bad (bbl)", "6–7 (509–530 nm)", "ab" * 32, "COMPRESS=ZSTD",
                 "2026-01-02T03:04:05Z", "Against the reference", "Convergence", "what they cannot tell"):  # fmt: skip
        assert text in words
    assert full.numbers["verdict"]["text"] in words
    for title in ("The scene", "The noisiest band", "The median band"):
        assert [i["alt"] for i in page.images if i["alt"].startswith(title)] == [
            f"{title}: {panel}" for panel in ("before", "after", "removed", "reference")
        ]


def test_the_same_report_is_the_same_page(full, html):
    assert full.to_html() == html


def test_names_and_tags_are_escaped(scenes):
    before, after, _, about = scenes
    name = '<b>&"x'
    run = a_run(before.shape, model={"name": "<i>m"}, bands_denoised=list(range(20)), bands_passed={"21": "<u>why"})
    html = report.collect(cube(before, name, **about), cube(after, **about), run=run).to_html()
    page = check_page(html)
    assert {"b", "i", "u"} & set(page.tags) == {"b"}  # <b> only in captions
    assert f"<title>{name}" not in html
    for text in (name, "<i>m", "<u>why"):
        assert text in page.words


CASES = {
    "one band": (1, 50, 50, ()),
    "two bands": (2, 40, 50, ()),
    "four bands": (4, 50, 60, ()),
    "single row": (12, 1, 80, ()),
    "single column": (12, 80, 1, ()),
    "single pixel": (5, 1, 1, ()),
    "many bands": (420, 24, 24, np.linspace(380, 2510, 420)),
    "tall": (4, 900, 40, (470, 550, 660, 860)),
    "wide": (4, 30, 1300, (np.nan, 550, 660, 860)),
}


@pytest.mark.parametrize("case", CASES)
def test_odd_shapes(case, tmp_path):
    bands, rows, cols, wavelength = CASES[case]
    clean = truth(bands, rows, cols)
    noisy = clean + 60 * np.random.default_rng(2).standard_normal(clean.shape)
    about = {"wavelength": wavelength}
    result = report.collect(cube(whole(noisy), **about), cube(whole(clean), **about), run={})
    result.write(tmp_path / "page.html")
    check_page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "page.json").read_text(encoding="utf-8")) == result.to_json()


@pytest.mark.parametrize("empty", ["no data", "not a number", "constant", "no band chosen"])
def test_scenes_with_nothing_in_them(empty):
    pixels = np.full((5, 40, 50), np.nan if empty == "not a number" else 7, np.float32)
    nodata = 7.0 if empty == "no data" else None
    run = {"bands_denoised": []} if empty == "no band chosen" else {}
    result = report.collect(cube(pixels, nodata=nodata), cube(pixels, nodata=nodata), run=run)
    assert result.numbers["verdict"]["level"] == "check"
    assert result.numbers["verdict"]["text"].startswith("Nothing was")
    check_page(result.to_html())


def test_noise_everywhere_still_fits_two_megabytes():
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 65535, (3, 900, 800), dtype=np.uint16)
    result = report.collect(cube(pixels), cube(pixels[:, ::-1]), run={})
    check_page(result.to_html())


def test_pictures_give_way_when_the_page_grows(full, html, monkeypatch):
    monkeypatch.setattr(report, "SIZE_LIMIT", 0)
    page = check_page(full.to_html())
    assert "What it looks like" not in page.words


def test_removed_is_grey_where_nothing_changed_and_no_data_is_pale(scenes, full):
    panels = {panel.label: panel.pixels for panel in full.plates[0].panels}
    assert (panels["Removed"][:20, :15] == (238, 234, 226)).all()
    assert abs(panels["Removed"][20:].mean() - 128) < 3
    before, _, _, about = scenes
    still = report.collect(cube(before, **about), cube(before, **about), run={})
    assert set(np.unique(still.plates[0].panels[2].pixels[20:])) == {128}


def test_colours_follow_wavelengths_or_the_file(scenes):
    before, after, _, about = scenes
    caption = report.collect(cube(before, **about), cube(after, **about), run={}).plates[0].caption
    assert caption.startswith("Natural colours (band 13 (660.9 nm), band 8 (552.2 nm), band 4 (465.2 nm))")
    tags = {"ENVI": {"default_bands": "{3, 2, 9}"}}
    caption = report.collect(cube(before, tags=tags), cube(after), run={}).plates[0].caption
    assert caption.startswith("The file's default bands (band 3, band 2, band 9)")


@pytest.mark.parametrize("form", ["tif", "img"])
def test_bands_of_complex_scenes_are_named_as_the_file_has_them(tmp_path, form):
    rng = np.random.default_rng(4)
    clean = truth(6, 48, 56)
    noise = 40 * rng.standard_normal((2, *clean.shape))
    pixels = (clean + noise[0] + 1j * (clean[::-1] + noise[1])).astype(np.complex64)
    pixels[4] = 0  # constant: passed through
    keys = {"default bands": "{3, 2, 6}"}
    name = tmp_path / f"a.{form}"
    source = write_tiff(name, pixels) if form == "tif" else write_envi(name, pixels, keys=keys)
    with pytest.warns(NoiseKindWarning):
        run(source, tmp_path / f"b.{form}", quiet=True, device="cpu", report=tmp_path / "r.html")
    numbers = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [(numbers[key]["bands"], numbers[key]["dtype"]) for key in ("scene", "output")] == [(6, "complex64")] * 2
    named = [(band["band"], band["part"]) for band in numbers["bands"]]
    assert named == [(b, part) for b in range(1, 7) for part in ("real", "imaginary")]
    for entry in numbers["profiles"]:
        at = named.index((entry["band"], entry["part"]))
        assert entry["label"].startswith(f"Band {entry['band']}, {entry['part']}")
        shown = pixels[at // 2].imag if at % 2 else pixels[at // 2].real
        np.testing.assert_allclose(entry["row"]["before"], shown.mean(axis=1), rtol=1e-4, atol=1e-3)
    assert "in 10 band parts" in numbers["verdict"]["text"]
    assert numbers["checks"][0] == {"name": "Data type kept", "ok": True, "detail": "complex64"}
    words = check_page((tmp_path / "r.html").read_text(encoding="utf-8")).words
    for text in ("6 bands, 48 rows", "complex64", "2 constant 5", "6, imaginary – denoised"):
        assert text in words
    assert "float32" not in words
    if form == "img":
        assert "band 3, real, band 2, real, band 6, real" in words


# ----------------------------------------------------------------------------------------------- files


def test_files_are_written_whole_or_not_at_all(full, tmp_path, monkeypatch):
    monkeypatch.setattr(report.Report, "to_html", lambda self: "<!DOCTYPE html>")
    full.write(tmp_path / "a.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json"]
    json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)  # no NaN
    with pytest.raises(WriteError, match="--report"):
        full.write_html(tmp_path / "missing" / "a.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(WriteError):
        full.write_html(tmp_path / "folder.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json", "folder.html"]


def test_reports_that_cannot_be_written_are_refused_early(tmp_path):
    report.check_report(tmp_path / "r.html")
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(OutputExistsError, match=r"r\.json"):
        report.check_report(tmp_path / "r.html")
    report.check_report(tmp_path / "r.html", overwrite=True)
    with pytest.raises(UsageError, match="suffix"):
        report.check_report(tmp_path / "x.json")
    with pytest.raises(UsageError, match="does not exist"):
        report.check_report(tmp_path / "missing" / "r.html")


def test_memory_does_not_grow_with_height():
    import tracemalloc

    def peak(rows):
        def read(window, bands):
            height, width = window.row_stop - window.row_start, window.col_stop - window.col_start
            rng = np.random.default_rng(window.row_start)
            return rng.integers(100, 200, (len(list(bands)), height, width), dtype=np.int16)

        scene = cube(np.zeros((6, 1, 64), np.int16))
        scene = Cube(**{**vars(scene), "shape": (6, rows, 64), "read_raw": read})
        tracemalloc.start()
        report.collect(scene, scene, run={})
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    import hsidenoise.measure

    samples, hsidenoise.measure.BLOCK_SAMPLES = hsidenoise.measure.BLOCK_SAMPLES, 200_000
    try:
        peak(600)
        short, tall = peak(3000), peak(9000)
    finally:
        hsidenoise.measure.BLOCK_SAMPLES = samples
    assert tall - short < 0.1 * (6 * 64 * 6000 * 4)  # a tenth of what the extra rows hold


def test_reasons_that_differ_in_numbers_share_a_line(scenes):
    before, after, _, about = scenes
    passed = {b: f"noise 0.00{b} below the floor of 0.01" for b in (3, 4, 9)}
    run = a_run(before.shape, passed=tuple(passed), bands_passed=passed)
    words = check_page(report.collect(cube(before, **about), cube(after, **about), run=run).to_html()).words
    assert "3 noise 0.003 below the floor of 0.01, band 4; the others alike 4–5 (465–487 nm), 10 (596 nm)" in words
