"""The sample files outside the project: which they are, what opening them takes, and which hold nothing to denoise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FILES = Path(__file__).parents[1].parent / "shared" / "files"

#: Folders of one file a band, each a scene.
FOLDERS = ("good/geotiff/landsat5_bands", "synth/hyperion_L1T")
SIDECARS = (".aux.xml", ".csv", ".j2w", ".prj", ".rpb", ".rpc", ".tab", ".tfw", ".txt", ".xml")

#: What has to be said to open a file that leaves something open.
OPTIONS: dict[str, dict[str, Any]] = {
    "good/hdf4/MOD09GA.A2008296.h14v17.006.2015181011753.hdf": {"variable": "SensorZenith_1"},
    "good/hdf4/ref_chunked.hdf4": {"variable": "ElevationCoarse"},
    "good/hdf4/sds_compressed.hdf": {"variable": "SDSgzip"},
    "good/hdf5/CSK_DGM.h5": {"variable": "S01/SBI"},
    "good/hdf5/CSK_GEC.h5": {"variable": "S01/QLK"},
    "good/hdf5/dimension_labels_with_null.h5": {"axes": "byx"},
    "good/hdf5/groups.h5": {"variable": "dset1"},
    "good/hdf5/metadata.h5": {"variable": "Dataset with spaces"},
    "good/hdf5/two-subs.h5": {"variable": "data2"},
    "good/mat/big_endian.mat": {"axes": "yx"},
    "good/mat/bundles.mat": {"shape": "12x12"},
    "good/mat/little_endian.mat": {"axes": "yx"},
    "good/mat/mat73_testfile1.mat": {"variable": "data.arr_two_three", "axes": "yx"},
    "good/mat/mat73_testfile14.mat": {"axes": "yxb0"},
    "good/mat/nasty_duplicate_fieldnames.mat": {"variable": "Summary.Track", "axes": "yx"},
    "good/mat/testmatrix_4.2c_SOL2.mat": {"axes": "yx"},
    "good/hdf5/single_char_varname.h5": {"variable": "e"},
    "good/netcdf/PLANET_SCOPE_3D.nc": {"variable": "blue"},
    "good/netcdf/foo_5dimensional.nc": {"axes": "yx0b0"},
    "good/netcdf/lut.nc": {"variable": "rhoatm", "axes": "byx0"},
    "good/netcdf/netcdf-4d.nc": {"axes": "b0yx"},
    "good/netcdf/oddly_indexed_extra_dims.nc": {"axes": "00byx"},
    "good/netcdf/sentinel_2_L1C_geographic.nc": {"variable": "red"},
    "good/netcdf/two_vars_scale_offset.nc": {"variable": "z"},
    "good/netcdf/veris.nc": {"variable": "Red"},
    "synth/aviris_classic/f970619t01p02_r02_sc04_noheader.img": {
        "header": FILES / "synth/aviris_classic/f970619t01p02_r02_sc03.a.img.hdr"
    },
    "synth/mat/hsi_two_cubes.mat": {"variable": "noisy"},
    "synth/mat/hsi_v4_2d.mat": {"shape": "20x30"},
}

def _by_name(reasons: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {f"good/{name}": reason for reason, names in reasons.items() for name in names}


#: Files that hold a raster and cannot be read, and why; docs/formats.md has the same table.
UNSUPPORTED = _by_name({
    "HDF4 raster images (GR, RI8)": (
        "hdf4/General_RImages.hdf", "hdf4/Image_with_Palette.hdf", "hdf4/skull.hdf", "hdf4/star.hdf",
    ),
    "files of an HDF5 family": ("hdf5/test_family_0.h5",),
    "JPEG XL in TIFF": ("geotiff/rgbsmall_JXL.tif",),
    "subsampled YCbCr of 12 bits in TIFF": ("geotiff/int12_ycbcr_contig.tif",),
})  # fmt: skip

#: Rasters that are refused on purpose: their numbers are no measurements that noise is taken from.
REFUSED = _by_name({
    "complex integers of 32 bits, complex numbers in HDF5 and netCDF": (
        "geotiff/cint32_big_endian.tif", "hdf5/complex.h5", "netcdf/complex.nc",
    ),
    "class numbers": ("envi/testenviclasses",),
})  # fmt: skip

#: Files that hold no raster at all, a word each; sidecars are told by their suffix.
NO_RASTER = {
    "good/envi/speclib.sli": "spectra",
    "good/envi_sli/a.sli": "spectra",
    "good/envi_sli/vegSpec.sli": "spectra",
    "good/geotiff/LC08_L2SP_023032_20210622_20210629_02_T1.tar": "archive",
    "good/hdf4/SDS.hdf": "unwritten",
    "good/hdf4/sds1_dim1_samename.hdf": "list",
    "good/hdf4/sds_empty_many.hdf": "empty",
    "good/hdf5/FillValue_of_different_type.h5": "number",
    "good/hdf5/FillValue_of_different_type_not_in_range.h5": "number",
    "good/hdf5/recursive_groups.h5": "groups",
    "good/hdf5/test_family_1.h5": "part",
    "good/hdf5/test_family_2.h5": "part",
    "good/mat/mat73_testfile11.mat": "cells",
    "good/mat/mat73_testfile12.mat": "structs",
    "good/mat/mat73_testfile13.mat": "sparse",
    "good/mat/mat73_testfile5.mat": "structs",
    "good/mat/mat73_testfile6.mat": "cells",
    "good/mat/mat73_testfile8.mat": "text",
    "good/mat/miuint32_for_miint32.mat": "list",
    "good/mat/one_by_zero_char.mat": "text",
    "good/mat/parabola.mat": "function",
    "good/mat/some_functions.mat": "functions",
    "good/mat/test_mat4_le_floats.mat": "list",
    "good/mat/testbool_8_WIN64.mat": "flags",
    "good/mat/testcellnest_7.4_GLNX86.mat": "cells",
    "good/mat/testcomplex_7.4_GLNX86.mat": "list",
    "good/mat/testdouble_4.2c_SOL2.mat": "list",
    "good/mat/testobject_7.4_GLNX86.mat": "object",
    "good/mat/testsparse_7.4_GLNX86.mat": "sparse",
    "good/mat/teststructarr_7.4_GLNX86.mat": "structs",
    "good/mat/testunicode_7.4_GLNX86.mat": "text",
    "good/netcdf/ubyte.nc": "list",
    "good/other/8s": "part",
    "good/other/tm4628_96.bil": "truncated",
    "synth/mat/hsi_no_cube.mat": "text",
}


def scenes() -> list[str]:
    """Names of good files and look-alikes below `FILES`: data files of pairs, folders of bands, no sidecars."""
    names = []
    for path in (p for top in ("good", "synth") for p in sorted((FILES / top).rglob("*")) if p.is_file()):
        name = path.relative_to(FILES).as_posix()
        beside = {Path(str(path)[:-4]), *(p for p in path.parent.glob(f"{path.stem}.*") if p != path)}
        if path.parent.relative_to(FILES).as_posix() in FOLDERS or name.lower().endswith(SIDECARS):
            continue
        if path.suffix == ".hdr" and any(p.is_file() and not p.name.endswith(SIDECARS) for p in beside):
            continue
        names.append(name)
    return names + [folder for folder in FOLDERS if (FILES / folder).is_dir()]
