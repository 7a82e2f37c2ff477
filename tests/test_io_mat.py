"""MATLAB files of all versions: which array is the cube, what describes its bands, and copies with other pixels."""

from __future__ import annotations

import errno
import resource
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from matfiles import element, header, matrix, packed, struct, write5, write73
from numpy.typing import NDArray
from scenes import copy

from hsidenoise.cube import Window
from hsidenoise.errors import (
    GuessedUnitsWarning,
    MetadataWarning,
    ReadError,
    SceneTooLargeError,
    UnsupportedError,
    UsageError,
)
from hsidenoise.io import create_cube, open_cube

ROWS, COLS, BANDS = 5, 7, 4
NM = np.array([500.5, 550.25, 600.0, 650.125])


def cube(dtype: str = "uint16", seed: int = 0) -> NDArray[Any]:
    """Pixels as MATLAB holds them: rows, columns, bands."""
    return np.random.default_rng(seed).integers(0, 200, (ROWS, COLS, BANDS)).astype(dtype)


def write(path: Path, version: str, arrays: dict[str, Any]) -> Path:
    """A file of a version, by scipy where it can, with a spectrum that says its unit."""
    if version == "7.3":
        return write73(path, arrays)
    if version == "7.3 packed":
        return write73(path, arrays, chunks=(1, 3, 5), compression="gzip", shuffle=True)
    if version == "big-endian":
        return write5(path, *(matrix(k, np.asarray(v), order=">") for k, v in arrays.items()), order=">")
    scipy.io.savemat(path, arrays, do_compression=version == "7")
    return path


THREE_D = ["5", "7", "big-endian", "7.3", "7.3 packed"]


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file in MATLAB's axes, by another reader."""
    if not h5py.is_hdf5(path):
        return {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    with h5py.File(path) as file:
        return {k: v[()].T for k, v in file.items() if isinstance(v, h5py.Dataset)}


@pytest.mark.parametrize("version", THREE_D)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_the_3d_array_is_the_cube_with_bands_last(tmp_path, version, dtype):
    data = cube(dtype)
    path = write(tmp_path / "a.mat", version, {"map": np.ones((ROWS, COLS)), "img": data, "wavelength_nm": NM[None]})
    with open_cube(path) as scene:
        assert scene.shape == (BANDS, ROWS, COLS)
        assert scene.dtype == dtype
        assert scene.bands.wavelength == tuple(NM)
        assert np.array_equal(scene.raw(), data.transpose(2, 0, 1))
        part = scene.raw(Window(1, 4, 2, 7), [3, 0])
        assert part.dtype == np.dtype(dtype)
        assert np.array_equal(part, data.transpose(2, 0, 1)[[3, 0], 1:4, 2:7])


@pytest.mark.parametrize("version", THREE_D)
def test_a_copy_has_other_pixels_and_nothing_else_changed(tmp_path, version):
    others = {"map": np.arange(6.0).reshape(2, 3), "wavelength_nm": NM[None], "n": np.array([[3]], "int8")}
    first = write(tmp_path / "a.mat", version, {"map": others["map"], "img": cube(), "wavelength_nm": NM[None],
                                                "n": others["n"]})  # fmt: skip
    before = first.read_bytes()
    new = cube(seed=1)
    with open_cube(first) as scene, create_cube(tmp_path / "b.mat", scene, provenance={"software": "x 1"}) as out:
        for row in range(0, ROWS, 2):
            out.write(row, new.transpose(2, 0, 1)[:, row : row + 2])
    found = arrays(tmp_path / "b.mat")
    assert list(found) == list(arrays(first))
    assert np.array_equal(found.pop("img"), new)
    for name, array in others.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype.newbyteorder("=") == array.dtype
    assert first.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mat", "b.mat"]


@pytest.mark.parametrize("version", THREE_D)
def test_a_copy_of_the_same_pixels_twice_holds_the_same(tmp_path, version):
    first = write(tmp_path / "a.mat", version, {"img": cube("float32"), "wavelength_nm": NM[None]})
    one = Path(copy(first, tmp_path / "b.mat", provenance={"software": "hsidenoise 1.0", "model": "dct"}))
    two = Path(copy(one, tmp_path / "c.mat", provenance={"software": "hsidenoise 1.0", "model": "dct"}))
    if "7.3" not in version:  # HDF5 moves an attribute that is replaced
        assert one.read_bytes() == two.read_bytes()
    with open_cube(first) as a, open_cube(two) as b:
        assert (a.shape, a.dtype, a.bands) == (b.shape, b.dtype, b.bands)
        assert np.array_equal(a.raw(), b.raw())


def test_other_elements_of_version_5_are_copied_byte_by_byte(tmp_path):
    odd = matrix("odd", np.arange(9.0).reshape(3, 3), stored="u1") + matrix("c", np.ones((2, 2)), flags=0x800)
    tight = packed(matrix("tight", np.arange(99.0)[None]))
    path = write5(tmp_path / "a.mat", odd, packed(matrix("img", cube())), tight)
    out = Path(copy(path, tmp_path / "b.mat"))
    data = out.read_bytes()
    assert data[: 128 + len(odd)] == header() + odd
    assert data.endswith(tight)
    inner = zlib.decompress(data[128 + len(odd) + 8 : -len(tight)])
    assert inner == matrix("img", cube())


@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_doubles_stored_as_small_integers_are_doubles(tmp_path, order, tight):
    data = cube("float64")
    inner = matrix("img", data, stored="u1", order=order)
    after = matrix("after", np.ones((2, 2)), order=order)
    path = write5(tmp_path / "a.mat", packed(inner, order) if tight else inner, after, order=order)
    with open_cube(path) as scene, create_cube(tmp_path / "b.mat", scene) as out:
        assert scene.dtype == "float64"
        assert np.array_equal(scene.raw(), data.transpose(2, 0, 1))
        out.write(0, scene.raw() + 0.25)
    found = scipy.io.loadmat(tmp_path / "b.mat")
    assert np.array_equal(found["img"], data + 0.25)
    assert np.array_equal(found["after"], np.ones((2, 2)))


def test_singles_stored_as_doubles_may_be_beyond_their_range(tmp_path):
    data = np.full((2, 2, 2), 1e300)
    as_single = bytearray(matrix("img", data))
    as_single[16] = 7  # the class, behind the tags of the matrix and of its flags
    with open_cube(write5(tmp_path / "a.mat", bytes(as_single))) as scene:
        assert scene.dtype == "float32"
        assert np.isinf(scene.raw()).all()
        assert not scene.read()[1].any()


def test_a_cube_so_small_that_it_lies_in_its_tag(tmp_path):
    data = np.array([[[1, 2, 3, 4]]], "uint8")
    path = write5(tmp_path / "a.mat", matrix("img", data))
    with open_cube(path) as scene, create_cube(tmp_path / "b.mat", scene) as out:
        assert scene.raw().ravel().tolist() == [1, 2, 3, 4]
        out.write(0, scene.raw() + np.uint8(1))
    assert scipy.io.loadmat(tmp_path / "b.mat")["img"].ravel().tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_cube_inside_structs(tmp_path, order, tight):
    data = cube("float64")
    inner = struct("", {"before": matrix("", np.ones((3, 1)), order=order),
                        "data": matrix("", data, stored="i2", order=order),
                        "wl_um": matrix("", NM[:, None] / 1000, order=order)}, order)  # fmt: skip
    outer = struct("s", {"a": inner, "note": matrix("", np.full((1, 2), 7.0), order=order)}, order)
    last = matrix("last", np.eye(2), order=order)
    path = write5(tmp_path / "a.mat", packed(outer, order) if tight else outer, last, order=order)
    with open_cube(path) as scene, create_cube(tmp_path / "b.mat", scene) as out:
        assert scene.layout["variable"] == "s.a.data"
        assert scene.bands.wavelength == tuple(NM)
        out.write(0, scene.raw() / 3)
    found = scipy.io.loadmat(tmp_path / "b.mat", simplify_cells=True)
    assert np.array_equal(found["s"]["a"]["data"], data / 3)
    assert np.array_equal(found["s"]["a"]["before"], np.ones(3))
    assert np.array_equal(found["s"]["note"], [7, 7])
    assert np.array_equal(found["last"], np.eye(2))
    with open_cube(tmp_path / "b.mat", variable="s/a/data") as scene:
        assert np.array_equal(scene.raw(), data.transpose(2, 0, 1) / 3)


def test_a_cube_inside_a_struct_of_version_7_3(tmp_path):
    path = write73(tmp_path / "a.mat", {"s/data": cube(), "s/lambda": NM[None] / 1000, "other": NM[None]})
    with h5py.File(path, "r+") as file:
        file["s"].attrs["MATLAB_class"] = np.bytes_("struct")
    out = tmp_path / "b.mat"
    with pytest.warns(GuessedUnitsWarning, match="taken as um"):
        scene = open_cube(path)
    with scene, create_cube(out, scene) as writer:
        assert scene.layout["variable"] == "s.data"
        assert scene.bands.wavelength == tuple(NM)
        writer.write(0, scene.raw() * np.uint16(2))
    with h5py.File(out) as file:
        assert np.array_equal(file["s/data"][()].T, cube() * 2)
        assert file["s"].attrs["MATLAB_class"] == b"struct"


def test_version_7_3_keeps_attributes_chunks_and_filters(tmp_path):
    path = write73(tmp_path / "a.mat", {"img": cube("float32")}, chunks=(2, 3, 5), compression="gzip", fletcher32=True)
    out = copy(path, tmp_path / "b.mat", provenance={"software": "hsidenoise 1", "model": "dct"})
    with h5py.File(out) as file:
        data = file["img"]
        assert (data.chunks, data.compression, data.fletcher32) == ((2, 3, 5), "gzip", True)
        assert dict(data.attrs) == {"MATLAB_class": b"single"}
        assert file.attrs["hsidenoise"] == "software: hsidenoise 1, model: dct"
        assert np.array_equal(data[()].T, cube("float32"))
    assert Path(out).read_bytes()[:512] == path.read_bytes()[:512]


@pytest.mark.parametrize("version", ["4", "5", "7", "7.3", "7.3 packed"])
@pytest.mark.parametrize("axes", ["", "byx", "bxy", "yxb", "xyb"])
def test_a_table_of_pixels_is_unfolded_as_matlab_reshapes_it(tmp_path, version, axes):
    data = cube("float64")
    order = axes or "byx"
    unfolded = data.transpose(["yxb".index(letter) for letter in order])
    table = unfolded.reshape((BANDS, -1) if order[0] == "b" else (-1, BANDS), order="F")
    if version == "4":
        scipy.io.savemat(tmp_path / "a.mat", {"Y": table, "m": np.ones((2, 2)), "wl_nm": NM[None]}, format="4")
        path = tmp_path / "a.mat"
    else:
        path = write(tmp_path / "a.mat", version, {"Y": table, "m": np.ones((2, 2)), "wl_nm": NM[None]})
    with open_cube(path, shape=f"{ROWS}x{COLS}", axes=axes) as scene:
        assert scene.shape == (BANDS, ROWS, COLS)
        assert np.array_equal(scene.raw(), data.transpose(2, 0, 1))
        assert np.array_equal(scene.raw(Window(2, 4, 1, 3), [1]), data.transpose(2, 0, 1)[1:2, 2:4, 1:3])
        with create_cube(tmp_path / "b.mat", scene) as out:
            for row in range(ROWS):
                out.write(row, scene.raw(Window(row, row + 1, 0, COLS)) + row)
    found = arrays(tmp_path / "b.mat")
    expected = (data + np.arange(ROWS)[:, None, None]).transpose(["yxb".index(letter) for letter in order])
    assert np.array_equal(found["Y"], expected.reshape(table.shape, order="F"))
    assert np.array_equal(found["m"], np.ones((2, 2)))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "int16", "uint16", "uint8"])
def test_version_4_in_all_its_types_comes_back_byte_by_byte(tmp_path, dtype):
    table = cube(dtype).reshape(-1, BANDS, order="F")
    scipy.io.savemat(tmp_path / "a.mat", {"m": np.eye(2), "Y": table, "text": "hello"}, format="4")
    with open_cube(tmp_path / "a.mat", variable="Y", shape=f"{ROWS}x{COLS}") as scene:
        assert scene.dtype == dtype
        assert scene.format == "MATLAB 4"
        with create_cube(tmp_path / "b.mat", scene, provenance={"software": "x"}) as writer:
            writer.write(0, scene.raw())
    assert (tmp_path / "b.mat").read_bytes() == (tmp_path / "a.mat").read_bytes()


@pytest.mark.parametrize("version", ["5", "7", "7.3"])
def test_one_of_many_cubes_in_four_axes_is_denoised_and_the_others_stay(tmp_path, version):
    data = np.random.default_rng(3).normal(size=(2, BANDS, ROWS, COLS))
    path = write(tmp_path / "a.mat", version, {"many": data})
    with pytest.raises(UnsupportedError, match=r"many \(2x4x5x7 double\) has 4 axes; give --axes"):
        open_cube(path)
    with open_cube(path, axes="1byx") as scene, create_cube(tmp_path / "b.mat", scene) as out:
        assert np.array_equal(scene.raw(), data[1])
        out.write(0, -scene.raw())
    found = arrays(tmp_path / "b.mat")["many"]
    assert np.array_equal(found[0], data[0])
    assert np.array_equal(found[1], -data[1])


@pytest.mark.parametrize("axes", ["byx", "xyb", "ybx"])
def test_axes_say_where_the_bands_are(tmp_path, axes):
    data = cube().transpose(["yxb".index(letter) for letter in axes])
    path = write(tmp_path / "a.mat", "7.3", {"img": data})
    with open_cube(path, axes=axes) as scene:
        assert np.array_equal(scene.raw(), cube().transpose(2, 0, 1))


def test_a_matrix_can_be_one_band(tmp_path):
    path = write(tmp_path / "a.mat", "5", {"img": cube()[:, :, 0]})
    with pytest.raises(UnsupportedError, match=r"img \(5x7 uint16\) is a table.*--shape ROWSxCOLS.*one band --axes yx"):
        open_cube(path)
    with open_cube(path, axes="yx") as scene, create_cube(tmp_path / "b.mat", scene) as out:
        assert scene.shape == (1, ROWS, COLS)
        out.write(0, scene.raw() + np.uint16(1))
    assert np.array_equal(scipy.io.loadmat(tmp_path / "b.mat")["img"], cube()[:, :, 0] + 1)


def test_several_candidates_are_listed_with_the_way_to_choose(tmp_path):
    path = write(tmp_path / "a.mat", "5", {"noisy": cube(), "clean": cube("float32"), "gt": np.ones((5, 7))})
    with pytest.raises(UsageError) as error:
        open_cube(path)
    said = str(error.value)
    assert "noisy (5x7x4 uint16), clean (5x7x4 single)" in said
    assert "--variable" in said
    assert "gt" not in said
    with open_cube(path, variable="clean") as scene:
        assert scene.dtype == "float32"
    with pytest.raises(UsageError, match=r"--variable none: is not in the file; there are noisy \(5x7x4 uint16\)"):
        open_cube(path, variable="none")


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_what_is_no_measurement_is_said_in_one_line(tmp_path, version):
    kinds = {
        "z": cube().astype(complex), "mask": cube() > 9, "empty": np.zeros((0, 3, 4)), "words": "some text",
    }  # fmt: skip
    if version == "5":
        kinds |= {"cell": np.array([cube(), "a"], object), "sp": scipy.sparse.eye_array(3), "st": {"a": 1.0}}
        path = write(tmp_path / "a.mat", version, kinds)
    else:
        del kinds["words"]
        path = write73(tmp_path / "a.mat", kinds, attributes=False)
    with pytest.raises(UnsupportedError, match=r"no cube \(a 3-D array of real numbers\)"):
        open_cube(path)
    words = {"z": "is complex", "mask": "is logical", "empty": "is empty", "words": "is text", "cell": "cell array",
             "sp": "is sparse", "st": "is a struct"}  # fmt: skip
    for name in kinds:
        with pytest.raises(UnsupportedError, match=words[name]) as error:
            open_cube(path, variable=name)
        assert "\n" not in str(error.value)


def test_matlabs_own_odd_files_are_one_line(shared):
    for folder in ("good/mat", "bad/mat", "bad/derived/mat"):
        for path in sorted((shared / "files" / folder).glob("*.mat")):
            if path.name in ("test3dmatrix_7.4_GLNX86.mat", "v73_no_userblock.mat"):
                continue
            with pytest.raises(ReadError) as error:
                open_cube(path)
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    ("name", "options", "variable", "axes"),
    [
        ("good/mat/big_endian.mat", {"axes": "yx"}, "floats", None),
        ("good/mat/testmatrix_4.2c_SOL2.mat", {"axes": "xy"}, "testmatrix", (1, 0)),
        ("good/mat/bundles.mat", {"shape": "5x10"}, "bundle", None),
        ("good/mat/mat73_testfile14.mat", {"axes": "y0bx"}, "data", None),
        ("synth/mat/hsi_v4_2d.mat", {"shape": "20x30"}, "Y", None),
        ("synth/mat/hsi_v73.mat", {}, "img", None),
        ("synth/mat/hsi_two_cubes.mat", {"variable": "clean"}, "clean", None),
    ],
)
@pytest.mark.filterwarnings("ignore::hsidenoise.errors.GuessedUnitsWarning")
def test_files_from_elsewhere_read_as_others_read_them_and_come_back(shared, tmp_path, name, options, variable, axes):
    path = shared / "files" / name
    known = arrays(path)[variable]
    with open_cube(path, **options) as scene:
        found = scene.raw()
        if name.endswith("bundles.mat"):  # 144 bands, 50 spectra
            assert np.array_equal(found, known.reshape(144, 5, 10, order="F"))
        elif name.endswith("2d.mat"):
            assert np.array_equal(found, known.reshape(60, 20, 30, order="F"))
        elif known.ndim == 4:
            assert np.array_equal(found, known[:, 0].transpose(1, 0, 2))
        elif known.ndim == 3:
            assert np.array_equal(found, known.transpose(2, 0, 1))
        else:
            assert np.array_equal(found[0], known.transpose(axes) if axes else known)
        with create_cube(tmp_path / "b.mat", scene) as out:
            out.write(0, found)
    after = arrays(tmp_path / "b.mat")
    assert list(after) == list(arrays(path))
    for key, array in arrays(path).items():
        assert repr(after[key]) == repr(array)
        assert np.array_equal(after[key], array)


def test_a_matrix_written_by_matlab_itself(shared, tmp_path):
    path = shared / "files" / "good" / "mat" / "test3dmatrix_7.4_GLNX86.mat"
    known = scipy.io.loadmat(path)["test3dmatrix"]
    with open_cube(path) as scene, create_cube(tmp_path / "b.mat", scene) as out:
        assert scene.dtype == "float64"  # stored as uint8
        assert np.array_equal(scene.raw(), known.transpose(2, 0, 1))
        out.write(0, scene.raw() + 0.5)
    assert np.array_equal(scipy.io.loadmat(tmp_path / "b.mat")["test3dmatrix"], known + 0.5)


@pytest.mark.parametrize("name", ["wavelength", "Wavelengths", "wl", "lambda", "center_wavelengths", "bands_nm"])
@pytest.mark.filterwarnings("ignore::hsidenoise.errors.GuessedUnitsWarning")
def test_wavelengths_by_habit(tmp_path, name):
    path = write(tmp_path / "a.mat", "5", {"img": cube(), name: NM[:, None], "fwhm": np.full((1, 4), 9.5)})
    with open_cube(path) as scene:
        assert scene.bands.wavelength == tuple(NM)
        assert scene.bands.fwhm == (9.5,) * 4


def test_wavelengths_without_a_unit_are_guessed_with_their_own_digits(tmp_path):
    single = np.array([[0.4268, 0.5111, 0.6, 0.7]], "float32")
    path = write(tmp_path / "a.mat", "5", {"img": cube(), "wl": single})
    with pytest.warns(GuessedUnitsWarning, match="taken as um"):
        scene = open_cube(path)
    assert scene.bands.wavelength == (426.8, 511.1, 600.0, 700.0)
    scene.close()


@pytest.mark.parametrize("version", ["4", "5", "7", "7.3"])
@pytest.mark.parametrize("name", ["wl_units", "wavelength_unit", "Units"])
def test_a_text_beside_the_wavelengths_may_say_their_unit(tmp_path, version, name):
    um = NM[None] / 1000
    path = tmp_path / "a.mat"
    if version == "4":
        scipy.io.savemat(path, {"Y": cube("float64").reshape(-1, BANDS), "wl": um, name: "Micrometers"}, format="4")
    elif version == "7.3":
        write73(path, {"img": cube(), "wl": um, name: np.frombuffer(b"um", "u1")[None].astype("u2")})
        with h5py.File(path, "r+") as file:
            file[name].attrs["MATLAB_class"] = np.bytes_("char")
    else:
        write(path, version, {"img": cube(), "wl": um, name: "µm"})
    with open_cube(path, shape=f"{ROWS}x{COLS}" if version == "4" else "") as scene:
        assert scene.bands.wavelength == tuple(NM)


def test_flags_of_bad_bands_may_be_logical(tmp_path):
    path = write(tmp_path / "a.mat", "5", {"img": cube(), "bbl": np.array([[True, False, True, True]])})
    with open_cube(path) as scene:
        assert scene.bands.good == (True, False, True, True)


def test_a_lone_lambda_is_some_parameter(tmp_path):
    path = write(tmp_path / "a.mat", "5", {"img": cube(), "lambda": 0.1})
    with open_cube(path) as scene:
        assert scene.bands.wavelength == ()


def test_odd_hdf5_structures_are_left_alone(tmp_path):
    path = write73(tmp_path / "a.mat", {"img": cube()})
    with h5py.File(path, "r+") as file:
        file["loop"] = file["/"]
        file["soft"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("other.mat", "/img")
        file["null"] = h5py.Empty("f8")
        file["scalar"] = 3.0
        file["line\nbreak"] = cube().astype("f2")
        file["text"] = ["a", "b"]
        file["time"] = np.zeros((2, 2, 2), "f8")
        file["time"].attrs["MATLAB_class"] = np.arange(4)
        file["refs"] = np.array([file["img"].ref] * 8, h5py.ref_dtype).reshape(2, 2, 2)
        file["refs"].attrs["MATLAB_class"] = np.bytes_("double")
        layout = h5py.VirtualLayout((2, 2, 2), "f8")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("away", (2, 2, 2), "f8", external=[("/etc/hostname", 0, 64)])
    with open_cube(path) as scene:
        assert scene.layout["variable"] == "img"
    with pytest.raises(UnsupportedError, match="away is of MATLAB's class array in other files"):
        open_cube(path, variable="away")
    with pytest.raises(UsageError, match=r"line\?break \(4x7x5 float16\)") as error:
        open_cube(path, variable="none")
    assert "\n" not in str(error.value)


def test_numbers_of_the_bands_are_no_wavelengths(tmp_path):
    path = write(tmp_path / "a.mat", "5", {"img": cube(), "bands": np.arange(1.0, 5.0)[None]})
    with open_cube(path) as scene:
        assert scene.bands.wavelength == ()


def test_wavelengths_of_another_axis_hint_at_the_axes(tmp_path):
    path = write(tmp_path / "a.mat", "5", {"img": cube().transpose(2, 0, 1), "wl_nm": NM[None]})
    with pytest.warns(MetadataWarning, match=r"4 numbers in wl_nm for 7 bands; not used.*--axes byx"):
        open_cube(path).close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": "5x8"}, "no array fits --shape 5x8"),
        ({"shape": "wide"}, "--shape wide: give rows and columns"),
        ({"variable": "img", "shape": "5x7"}, "img is 5 x 7 x 4, no table with 35 pixels"),
        ({"variable": "img", "axes": "yx"}, "img has 3 axes"),
        ({"variable": "img", "axes": "byb"}, "--axes byb"),
        ({"axes": "byx0"}, "no array fits --axes byx0"),
    ],
)
def test_options_that_do_not_fit_are_said_so(tmp_path, options, words):
    path = write(tmp_path / "a.mat", "5", {"img": cube()})
    with pytest.raises((UsageError, UnsupportedError), match=words):
        open_cube(path, **options)


def test_a_copy_that_would_exceed_the_format_is_refused(tmp_path):
    shape = (1000, 1000, 300)  # stored as bytes 0.3 GB, as doubles more than 2 GiB
    start = matrix("img", np.zeros((1, 1, 16)), stored="u1")
    inner = start[:-24].replace(np.array([1, 1, 16], "<i4").tobytes(), np.array(shape, "<i4").tobytes())
    size = int(np.prod(shape))
    body = inner + np.array([2, size], "<u4").tobytes()
    path = tmp_path / "a.mat"
    with open(path, "wb") as file:
        total = len(body) - 8 + size
        file.write(header() + np.array([14, total], "<u4").tobytes() + body[8:])
        file.truncate(128 + 8 + total)
    with open_cube(path) as scene:
        assert scene.raw(Window(999, 1000, 999, 1000), [299]).item() == 0
        with pytest.raises(UsageError, match=r"img takes 2\.2 GiB as double.*-v7\.3"):
            create_cube(tmp_path / "b.mat", scene).__enter__()
    assert not (tmp_path / "b.mat").exists()


def test_a_bomb_in_compressed_variables_is_refused_quickly(tmp_path):
    size = 2_000_000_000
    inner = matrix("img", np.zeros((1, 1, 16)), stored="u1")[8:-24]
    inner = inner.replace(np.array([1, 1, 16], "<i4").tobytes(), np.array([1000, 1000, 2000], "<i4").tobytes())
    head = np.array([14, len(inner) + 8 + size], "<u4").tobytes() + inner + np.array([2, size], "<u4").tobytes()
    path = write5(tmp_path / "a.mat", packed(head + bytes(10_000)))
    start = time.monotonic()
    with pytest.raises(ReadError, match="damaged"):
        open_cube(path)
    assert time.monotonic() - start < 1


def test_millions_of_empty_elements_are_not_all_looked_at(tmp_path):
    path = write5(tmp_path / "a.mat", np.array([14, 0] * 3_000_000, "<u4").tobytes())
    start = time.monotonic()
    with pytest.raises(UnsupportedError, match="without variables"):
        open_cube(path)
    assert time.monotonic() - start < 3


def test_an_array_that_was_never_written_is_refused_and_allowed_on_demand(tmp_path):
    path = write73(tmp_path / "a.mat", {})
    with h5py.File(path, "r+") as file:
        file.create_dataset("img", (2000, 65535, 65535), "f4", chunks=(1, 64, 64))
    with pytest.raises(SceneTooLargeError, match=r"31999\.0 GiB.*--allow-large"):
        open_cube(path)
    with open_cube(path, allow_large=True) as scene:
        assert scene.raw(Window(0, 2, 0, 2), [1999]).tolist() == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("tight", [False, True])
def test_a_damaged_variable_does_not_hide_the_others(tmp_path, tight):
    broken = element(14, b"\x07" * 64)
    broken = packed(broken) if tight else broken
    path = write5(tmp_path / "a.mat", broken, matrix("img", cube()))
    with pytest.warns(MetadataWarning, match="damaged.*the other variables are read"):
        scene = open_cube(path)
    with scene:
        assert np.array_equal(scene.raw(), cube().transpose(2, 0, 1))
    alone = write5(tmp_path / "b.mat", broken)
    with pytest.raises(ReadError, match="damaged"):
        open_cube(alone)


@pytest.mark.parametrize("version", ["4", "5", "7", "7.3", "7.3 packed"])
def test_files_cut_short_anywhere_are_read_errors(tmp_path, version):
    if version == "4":
        scipy.io.savemat(tmp_path / "a.mat", {"Y": cube("float64").reshape(-1, BANDS)}, format="4")
    else:
        write(tmp_path / "a.mat", version, {"img": cube()})
    data = (tmp_path / "a.mat").read_bytes()
    options = {"shape": f"{ROWS}x{COLS}"} if version == "4" else {}
    for cut in range(30 if version == "4" else 1, len(data), max(1, len(data) // 40)):
        (tmp_path / "b.mat").write_bytes(data[:cut])
        with pytest.raises(ReadError) as error:
            open_cube(tmp_path / "b.mat", **options)
        assert "\n" not in str(error.value)


def test_damage_inside_compressed_numbers_is_found_on_opening(tmp_path):
    data = np.random.default_rng(0).integers(0, 60000, (40, 50, 30)).astype("uint16")
    path = write5(tmp_path / "a.mat", packed(matrix("img", data)))
    raw = bytearray(path.read_bytes())
    raw[60_000:60_050] = bytes(50)
    path.write_bytes(raw)
    with pytest.raises(ReadError, match="damaged"):
        open_cube(path)
    with pytest.raises(ReadError, match="damaged"):
        copy(path, tmp_path / "b.mat")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mat"]


def test_the_header_says_what_wrote_the_copy_and_does_not_grow(tmp_path):
    path = write5(tmp_path / "a.mat", matrix("img", cube()))
    said = {"software": "hsidenoise 9.8", "model": "compact 0123456789ab"}
    for source, target in (("a", "b"), ("b", "c")):
        copy(tmp_path / f"{source}.mat", tmp_path / f"{target}.mat", provenance=said)
        text = (tmp_path / f"{target}.mat").read_bytes()[:116]
        assert text.startswith(b"MATLAB 5.0 MAT-file")
        assert text.rstrip().endswith(b"; hsidenoise 9.8 compact 0123456789ab")
        assert text.count(b"hsidenoise") == 1
    assert path.read_bytes()[:128] == header()


def test_the_place_of_the_subsystem_moves_with_it(tmp_path):
    img, hidden = matrix("img", cube("float64"), stored="u1"), matrix("", np.ones((1, 8), "uint8"))
    path = write5(tmp_path / "a.mat", img, hidden, subsystem=128 + len(img))
    data = Path(copy(path, tmp_path / "b.mat")).read_bytes()
    at = int.from_bytes(data[116:124], "little")
    assert at > 128 + len(img)
    assert data[at:] == hidden


def test_no_room_to_unpack_is_said_with_the_way_out(tmp_path, monkeypatch):
    class Full:
        def __init__(self, **_):
            self.closed = False

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            self.closed = True

    path = write(tmp_path / "a.mat", "7", {"img": cube()})
    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(ReadError, match=r"no room to unpack.*TMPDIR"):
        open_cube(path)


def test_a_copy_is_not_called_another_format(tmp_path):
    path = write(tmp_path / "a.mat", "5", {"img": cube()})
    with open_cube(path) as scene:
        with pytest.raises(UsageError, match="is MATLAB 5; use"):
            create_cube(tmp_path / "b.h5", scene)
        assert create_cube(tmp_path / "b.MAT", scene).path == str(tmp_path / "b.MAT")
        assert create_cube(tmp_path / "b.h5", scene, of="copy").path == str(tmp_path / "b.h5")


def test_the_mark_counts_where_the_text_is_another(tmp_path):
    path = write5(tmp_path / "a.dat", matrix("img", cube()), text="written by hand")
    with open_cube(path) as scene:
        assert scene.format == "MATLAB 5"


def test_compressed_cubes_are_unpacked_into_no_memory(tmp_path):
    data = np.zeros((400, 500, 400), "uint8")
    data[3, 4, 5] = 9
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"img": data}, do_compression=True)
    del data
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_cube(path) as scene:
        assert scene.raw(Window(3, 4, 4, 5), [5]).item() == 9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_run_gives_the_file_back_denoised(tmp_path):
    from hsidenoise.run import run

    rng = np.random.default_rng(0)
    y, x, b = np.mgrid[0:48, 0:40, 0:12]
    clean = 1000 + 300 * np.sin(y / 9 + b / 5) * np.cos(x / 7)
    noisy = np.round(clean + rng.normal(0, 30, clean.shape)).astype("uint16")
    path = write(tmp_path / "a.mat", "7", {"img": noisy, "wl_nm": np.arange(400.0, 520, 10)[None], "gt": np.eye(3)})
    run(path, tmp_path / "b.mat", model="dct")
    found = scipy.io.loadmat(tmp_path / "b.mat")
    assert found["img"].dtype == np.uint16
    assert np.std(found["img"] - clean) < np.std(noisy - clean) / 2
    assert np.array_equal(found["gt"], np.eye(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(path, tmp_path / "b.tif", model="dct")
    with open_cube(tmp_path / "b.tif") as scene:
        assert scene.bands.wavelength == tuple(np.arange(400.0, 520, 10))
        assert np.array_equal(scene.raw().transpose(1, 2, 0), found["img"])
