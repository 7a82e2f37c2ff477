"""ENVI headers with anything wrong in them: one of the package's own errors, or pixels and a true copy; never more.

`CASES` draws files and `check` examines one; a longer run gives `given(CASES)` more examples.
"""

from __future__ import annotations

import gzip
from typing import Any, NamedTuple

import numpy as np
from fuzzing import Worker, examine, mutations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PIXELS = np.arange(5 * 8 * 10, dtype="<i2").tobytes()
UTM = "{UTM, 1, 1, 500000, 4000000, 30, 30, 33, North, WGS-84, units=Meters}"
WKT = '{PROJCS["WGS_1984_UTM_Zone_33N",GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137.0,' \
      '298.257223563]],PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],' \
      'PARAMETER["Central_Meridian",15.0],UNIT["Meter",1.0]]}'  # fmt: skip
LINES = [
    ("description", "{ made up\n  by hand }"), ("samples", "10"), ("lines", "8"), ("bands", "5"),
    ("header offset", "0"), ("file type", "ENVI Standard"), ("data type", "2"), ("interleave", "bil"),
    ("byte order", "0"), ("sensor type", "Unknown"), ("map info", UTM), ("coordinate system string", WKT),
    ("projection info", "{3, 6378137.0, 6356752.3, 0.0, 15.0, 500000.0, 0.0, 0.9996, WGS-84, UTM, units=Meters}"),
    ("wavelength units", "Micrometers"), ("wavelength", "{0.45, 0.46, 0.47, 0.48,\n 0.49}"),
    ("fwhm", "{0.01, 0.01, 0.01, 0.01, 0.01}"), ("bbl", "{1, 1, 0, 1, 1}"),
    ("band names", "{a, b (450), c, d, e}"), ("default bands", "{3, 2, 1}"), ("data ignore value", "-9999"),
    ("data gain values", "{1, 1, 1, 1, 0.5}"), ("data offset values", "{0, 0, 0, 0, 1}"),
    ("geo points", "{1.0, 1.0, 45.1, 15.2, 10.0, 1.0, 45.1, 15.4, 1.0, 8.0, 45.0, 15.2, 10.0, 8.0, 45.0, 15.4}"),
    ("rpc info", "{" + ", ".join(["1.0"] * 93) + "}"), ("reflectance scale factor", "10000"), ("x start", "3"),
    ("pixel size", "{30, 30, units=Meters}"), ("file compression", "0"), ("major frame offsets", "{0, 0}"),
    ("acquisition time", "2024-06-01T10:00:00Z"), ("cloud cover", "3.5"),
]  # fmt: skip
NEEDED = [line for line in LINES if line[0] in ("samples", "lines", "bands", "data type", "interleave", "byte order")]
VALUES = ["", "0", "-0", "-1", "1", "2", "3.0", "5", "10", "12", "4", "6", "99", "1e1", "1e99", "1e400", "-1e99", "nan",
          "inf", "0x10", "65535", "65536", "2147483647", "2147483648", "99999999999999999999", "1_0", "\u0663",
          "\uff11", "{}", "{", "}", "{{1}}", "{1}", "{,}", "{1, 2}", "{5\n}", "{ }", "1, 2", "bsq", "BIP", "xyz",
          "=", "a = b", "; 1", "\u00fc", "\x00", "\x1b[31m", "\u2028", "nm", "Wavenumber", "GHz", "Index",
          "ENVI Spectral Library", "ENVI Classification", "TIFF", "{Arbitrary, 1, 1, 0, 0, 1, 1}",
          "{UTM, 1, 1, 5e5, 4e6, 30, 30, 99, North, WGS-84}", "{Geographic Lat/Lon, 1, 1, 10, 50, 1e-3, 1e-3}",
          "{UTM, 1.5, 1.5, 5e5, 4e6, 30, 20, 33, North, WGS-84, rotation=30}", "{PROJCS[}",
          "{Nope, nan, 1, inf, 0, 0, 1e999}", "{" + "9" * 400 + "}", "{" + "1, " * 70_000 + "1}",
          "1" * 5000]  # fmt: skip
OPTIONS: list[dict[str, Any]] = [{}, {}, {}, {"nodata": "0"}, {"nodata": "1e99"}, {"allow_large": True}]


class Case(NamedTuple):
    """A header, its data, and what is done with them."""

    header: bytes
    data: bytes
    name: str
    options: dict[str, Any]
    output: str


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Header text with some values, keys, lines, ends of lines or bytes replaced."""
    lines = [list(line) for line in draw(st.sampled_from([LINES, NEEDED]))]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        other = draw(st.sampled_from(LINES))
        match draw(st.sampled_from(["value", "value", "value", "text", "key", "lose", "add", "move"])):
            case "value":
                lines[at][1] = draw(st.sampled_from(VALUES))
            case "text":
                lines[at][1] = draw(st.text(max_size=30))
            case "key":
                lines[at][0] = draw(st.sampled_from([other[0], "", ";", "SAMPLES", " bands ", "wave\tlength", "="]))
            case "lose" if len(lines) > 1:
                del lines[at]
            case "add":
                lines.insert(at, [other[0], draw(st.sampled_from([other[1], *VALUES]))])
            case "move":
                lines[0], lines[at] = lines[at], lines[0]
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    equals = draw(st.sampled_from([" = ", " = ", "=", "\t=  "]))
    text = draw(st.sampled_from(["ENVI", "ENVI", "ENVI ", "\ufeffENVI", "\n\nENVI", "envi", "ENVI = 1"])) + end
    text += end.join(key + equals + value for key, value in lines) + draw(st.sampled_from([end, "", "\x00\x00"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "latin-1", "gb2312", "utf-16"]))
    data = text.encode(encoding, "replace")
    return draw(mutations(data, 2)) if draw(st.booleans()) else data


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A header with data that fit it when nothing is wrong, or nearly."""
    data = draw(st.sampled_from([PIXELS, PIXELS, PIXELS, PIXELS * 4, PIXELS[:-1], b"", b"\0", gzip.compress(PIXELS)]))
    name = draw(st.sampled_from(["a.img", "a.hdr"]))
    output = draw(st.sampled_from(["", "b.img", "b.img", "b.tif", "b.bsq"]))
    return Case(draw(headers()), data, name, draw(st.sampled_from(OPTIONS)), output)


CASES = cases()


def check(case: Case, worker: Worker | None = None) -> None:
    """Examine one case, in this process or the worker's."""
    files = {"a.img": case.data, "a.hdr": case.header}
    (worker.examine if worker else examine)(files, case.name, case.options, case.output)


@settings(
    max_examples=300, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip
@given(CASES)
def test_damaged_headers_raise_nothing_of_their_own(case: Case) -> None:
    check(case)
