"""Small look-alikes of the sensor products in HDF5: their layout, attributes, groups, chunks and fill values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tiny
from netCDF4 import Dataset
from numpy.typing import NDArray
from rasterio.crs import CRS

ROWS, COLS = 20, 24
UTM = CRS.from_epsg(32632)


def scene(bands: int, dtype: str, scale: float, seed: int = 0) -> NDArray[Any]:
    """Noisy numbers (bands, rows, cols), rounded where the type asks for it."""
    cube = tiny.cube(bands, ROWS, COLS, seed=seed) * scale
    return np.rint(cube).astype(dtype) if np.dtype(dtype).kind in "iu" else cube.astype(dtype)


def emit(path: Path, kind: str = "reflectance", bands: int = 30) -> dict[str, Any]:
    """EMIT L1B or L2A by the netCDF library itself; one pixel without data."""
    cube = scene(bands, "float32", 0.5)
    cube[:, 3, 4] = -9999
    nm = (381.0056 + 7.4 * np.arange(bands)).astype("float32")
    good = np.ones(bands, "u1")
    good[[0, 12]] = 0
    with Dataset(path, "w") as file:
        file.setncatts({"instrument": "EMIT", "title": "EMIT look-alike", "flight_line": "emit20220830t065605"})
        file.spatial_ref = CRS.from_epsg(4326).to_wkt()
        file.geotransform = np.array([69.99, 0.00054, 0.0, 30.01, 0.0, -0.00054])
        for name, size in (
            ("downtrack", ROWS),
            ("crosstrack", COLS),
            ("bands", bands),
            ("ortho_y", 26),
            ("ortho_x", 30),
        ):
            file.createDimension(name, size)
        options = {"zlib": True, "chunksizes": (7, COLS, 10), "fill_value": np.float32(-9999)}
        variable = file.createVariable(kind, "f4", ("downtrack", "crosstrack", "bands"), **options)
        variable.setncatts({"long_name": "Surface Reflectance", "units": "unitless"})
        variable[:] = cube.transpose(1, 2, 0)
        group = file.createGroup("sensor_band_parameters")
        for name, values in (("wavelengths", nm), ("fwhm", np.full(bands, 8.6, "f4")), ("good_wavelengths", good)):
            item = group.createVariable(name, values.dtype, ("bands",))
            item.units = "unitless" if name == "good_wavelengths" else "nm"
            item[:] = values
        place = file.createGroup("location")
        for name in ("lat", "lon", "elev"):
            place.createVariable(name, "f8", ("downtrack", "crosstrack"))[:] = np.arange(ROWS * COLS).reshape(
                ROWS, COLS
            )
        for name in ("glt_x", "glt_y"):
            place.createVariable(name, "i4", ("ortho_y", "ortho_x"), fill_value=0)[:] = 1
    return {
        "cubes": (kind,), "axes": "yxb", "pixels": cube, "nodata": -9999.0, "nm": nm, "fwhm": 8.6,
        "good": good.astype(bool), "crs": None, "transform": None,
    }  # fmt: skip


def prisma(path: Path, level: str = "L2D") -> dict[str, Any]:
    """PRISMA: two cubes (line, band, pixel), wavelengths descending, absent bands with wavelength 0."""
    counts = {"VNIR": 16, "SWIR": 26}
    nm = {"VNIR": 972.8 - 9.5 * np.arange(16), "SWIR": 2497.1 - 60.5 * np.arange(26)}
    nm = {k: v.astype("float32") for k, v in nm.items()}
    nm["SWIR"][:] = 2497.1 - 9.0 * np.arange(26)
    nm["VNIR"][:2] = 0
    nm["SWIR"][-1] = 0
    cubes = {k: scene(n, "uint16", 20_000, seed) for seed, (k, n) in enumerate(counts.items())}
    for k in cubes:
        cubes[k][nm[k] == 0] = 0
        cubes[k][:, :2, :3] = 0
    swath = f"HDFEOS/SWATHS/PRS_{level}_HCO"
    with h5py.File(path, "w") as file:
        file.attrs["Product_StartTime"] = np.bytes_("2020-11-07T10:14:04.123")
        file.attrs["Processing_Level"] = np.bytes_(level)
        for k, word in (("VNIR", "Vnir"), ("SWIR", "Swir")):
            file.attrs[f"List_Cw_{word}"] = nm[k]
            file.attrs[f"List_Fwhm_{word}"] = np.where(nm[k] > 0, 11.25, 0).astype("float32")
            file.attrs[f"List_Cw_{word}_Flags"] = (nm[k] > 0).astype("uint8")
            if level == "L1":
                file.attrs[f"ScaleFactor_{word}"] = np.float32(100)
                file.attrs[f"Offset_{word}"] = np.float32(0)
            else:
                file.attrs[f"L2Scale{word}Min"] = np.float32(0)
                file.attrs[f"L2Scale{word}Max"] = np.float32(1)
            stored = np.ascontiguousarray(cubes[k].transpose(1, 0, 2))
            file.create_dataset(f"{swath}/Data Fields/{k}_Cube", data=stored, chunks=(8, 5, COLS), compression="gzip")
            file[f"{swath}/Data Fields/{k}_PIXEL_L2_ERR_MATRIX"] = np.zeros(stored.shape, "uint8")
        file[f"{swath}/Geolocation Fields/Latitude"] = np.full((ROWS, COLS), 45.0, "float32")
        file[f"HDFEOS/SWATHS/PRS_{level}_PCO/Data Fields/Cube"] = np.ones((ROWS * 6, COLS * 6), "uint16")
        file["HDFEOS INFORMATION/StructMetadata.0"] = np.bytes_("GROUP=SwathStructure\nEND\n")
        transform = None
        if level == "L2D":  # centres of the corner pixels
            file.attrs["Epsg_Code"] = np.int64(32632)
            corners = {"ULcorner_easting": 600_015, "LRcorner_easting": 600_015 + 30 * (COLS - 1),
                       "ULcorner_northing": 4_999_985, "LRcorner_northing": 4_999_985 - 30 * (ROWS - 1)}  # fmt: skip
            for key, value in corners.items():
                file.attrs[f"Product_{key}"] = np.float64(value)
            transform = (30.0, 0.0, 600_000.0, 0.0, -30.0, 5_000_000.0)
    both = np.concatenate([nm["VNIR"], nm["SWIR"]])
    return {
        "cubes": (f"{swath}/Data Fields/VNIR_Cube", f"{swath}/Data Fields/SWIR_Cube"), "axes": "ybx",
        "pixels": np.concatenate([cubes["VNIR"], cubes["SWIR"]]), "nodata": None if level == "L1" else 0,
        "nm": np.where(both > 0, both, np.nan), "fwhm": 11.25, "good": both > 0,
        "crs": UTM if transform else None, "transform": transform,
    }  # fmt: skip


def neon(path: Path) -> dict[str, Any]:
    """NEON AOP reflectance: texts as scalars, scale factor and nodata as attributes that are texts."""
    bands = 36
    cube = scene(bands, "int16", 4000)
    cube[:, 0, :5] = -9999
    nm = np.array([381.5 + 5.0074 * i for i in range(bands)])
    with h5py.File(path, "w") as file:
        group = file.create_group("SOAP/Reflectance")
        stored = group.create_dataset(
            "Reflectance_Data", data=cube.transpose(1, 2, 0), chunks=(10, 10, bands), compression="gzip", shuffle=True
        )
        stored.attrs["Scale_Factor"] = "10000.0"
        stored.attrs["Data_Ignore_Value"] = "-9999.0"
        stored.attrs["Spatial_Extent_meters"] = np.array([600_000.0, 600_024.0, 4_999_980.0, 5_000_000.0])
        place = group.create_group("Metadata/Coordinate_System")
        place["Map_Info"] = np.bytes_(
            "UTM, 1.000, 1.000, 600000.000, 5000000.000, 1.0, 1.0, 32, North, WGS-84, units=Meters, 0"
        )
        place["EPSG Code"] = np.bytes_("32632")
        spectral = group.create_group("Metadata/Spectral_Data")
        spectral["Wavelength"] = nm
        spectral["Wavelength"].attrs["Units"] = "nanometers"
        spectral["FWHM"] = np.full(bands, 5.75)
        group["Metadata/to-sensor_Zenith_Angle"] = np.zeros((ROWS, COLS), "float32")
    return {
        "cubes": ("SOAP/Reflectance/Reflectance_Data",), "axes": "yxb", "pixels": cube, "nodata": -9999, "nm": nm,
        "fwhm": 5.75, "good": np.ones(bands, bool), "crs": UTM,
        "transform": (1.0, 0.0, 600_000.0, 0.0, -1.0, 5_000_000.0),
    }  # fmt: skip


def aviris(path: Path, kind: str = "radiance") -> dict[str, Any]:
    """AVIRIS-3 and AVIRIS-NG netCDF: a group with a variable of the same name, bands first."""
    bands = 34
    cube = scene(bands, "float32", 12)
    cube[:, -1, -2:] = -9999
    nm = (389.75 + 7.4375 * np.arange(bands)).astype("float32")
    with Dataset(path, "w") as file:
        file.title = "AVIRIS-3 look-alike"
        for name, size in (("northing", ROWS), ("easting", COLS), ("wavelength", bands)):
            file.createDimension(name, size)
        mapping = file.createVariable("transverse_mercator", "S1")
        mapping.setncatts({"spatial_ref": UTM.to_wkt(), "GeoTransform": "600000 3.4 0.0 5000000 0.0 -3.4"})
        group = file.createGroup(kind)
        options = {"zlib": True, "chunksizes": (9, 8, 8), "fill_value": np.float32(-9999)}
        variable = group.createVariable(kind, "f4", ("wavelength", "northing", "easting"), **options)
        variable.grid_mapping = "transverse_mercator"
        variable[:] = cube
        for name, values in (("wavelength", nm), ("fwhm", np.full(bands, 8.1, "f4"))):
            item = group.createVariable(name, "f4", ("wavelength",))
            item.units = "nm"
            item[:] = values
    return {
        "cubes": (f"{kind}/{kind}",), "axes": "byx", "pixels": cube, "nodata": -9999.0, "nm": nm, "fwhm": 8.1,
        "good": np.ones(bands, bool), "crs": UTM, "transform": (3.4, 0.0, 600_000.0, 0.0, -3.4, 5_000_000.0),
    }  # fmt: skip


def tanager(path: Path, kind: str = "GRIDS") -> dict[str, Any]:
    """Planet Tanager, basic (SWATHS) or ortho (GRIDS): spectral lists are attributes of the cube."""
    bands = 32
    cube = scene(bands, "float32", 40)
    cube[:, :3, 0] = -9999
    nm = (376.44 + 5.0 * np.arange(bands)).astype("float32")
    good = np.arange(bands) != 7
    name = "surface_reflectance" if kind == "GRIDS" else "toa_radiance"
    with h5py.File(path, "w") as file:
        group = file.create_group(f"HDFEOS/{kind}/HYP")
        group.attrs["strip_id"] = "20250514_1"
        stored = group.create_dataset(f"Data Fields/{name}", data=cube, chunks=(4, 8, 24), compression="gzip")
        stored.attrs["wavelengths"] = nm
        stored.attrs["fwhm"] = np.full(bands, 5.5, "float32")
        stored.attrs["good_wavelengths"] = good.astype("uint8")
        stored.attrs["_FillValue"] = np.float32(-9999)
        group["Data Fields/nodata_pixels"] = np.zeros((ROWS, COLS), "uint8")
        words = "GROUP=GridStructure\n"
        if kind == "GRIDS":
            group.attrs["epsg_code"] = np.int64(32632)
            words += (
                f'GROUP=GRID_1\nGridName="HYP"\nXDim={COLS}\nYDim={ROWS}\n'
                f"UpperLeftPointMtrs=(600000.000000,5000000.000000)\n"
                f"LowerRightMtrs=({600_000 + 30 * COLS}.000000,{5_000_000 - 30 * ROWS}.000000)\n"
                "Projection=HE5_GCTP_UTM\nZoneCode=32\nEND_GROUP=GRID_1\n"
            )
        else:  # the grid of a product to be made
            place = group.create_group("Geolocation Fields")
            place.attrs["Planet_Ortho_Framing"] = '{"epsg_code": 32632, "geotransform": [1, 30, 0, 2, 0, -30]}'
            place["Latitude"] = np.full((ROWS, COLS), 45.0)
        file["HDFEOS INFORMATION/StructMetadata.0"] = np.bytes_(words + "END\n")
    ortho = kind == "GRIDS"
    return {
        "cubes": (f"HDFEOS/{kind}/HYP/Data Fields/{name}",), "axes": "byx", "pixels": cube, "nodata": -9999.0, "nm": nm,
        "fwhm": 5.5, "good": good, "crs": UTM if ortho else None,
        "transform": (30.0, 0.0, 600_000.0, 0.0, -30.0, 5_000_000.0) if ortho else None,
    }  # fmt: skip


def pace_l2(path: Path) -> dict[str, Any]:
    """PACE OCI L2: int16 with scale and offset, and several lists of wavelengths."""
    bands = 30
    cube = scene(bands, "int16", 9000)
    cube[:, 5, 5] = -32767
    nm = (339.0 + 5.0 * np.arange(bands)).astype("float32")
    with Dataset(path, "w") as file:
        file.setncatts({"instrument": "OCI", "platform": "PACE", "processing_level": "L2"})
        for name, size in (("number_of_lines", ROWS), ("pixels_per_line", COLS), ("wavelength_3d", bands),
                           ("number_of_bands", bands + 8)):  # fmt: skip
            file.createDimension(name, size)
        group = file.createGroup("sensor_band_parameters")
        group.createVariable("wavelength", "f8", ("number_of_bands",))[:] = np.arange(bands + 8)
        group.createVariable("wavelength_3d", "f4", ("wavelength_3d",))[:] = nm
        group["wavelength_3d"].units = "nm"
        found = file.createGroup("geophysical_data")
        variable = found.createVariable(
            "Rrs", "i2", ("number_of_lines", "pixels_per_line", "wavelength_3d"), zlib=True, fill_value=np.int16(-32767)
        )
        variable.setncatts({"scale_factor": np.float32(2e-6), "add_offset": np.float32(0.05), "units": "sr^-1"})
        variable.set_auto_maskandscale(False)
        variable[:] = cube.transpose(1, 2, 0)
        found.createVariable("l2_flags", "i4", ("number_of_lines", "pixels_per_line"))[:] = 0
    return {
        "cubes": ("geophysical_data/Rrs",), "axes": "yxb", "pixels": cube, "nodata": -32767, "nm": nm, "fwhm": None,
        "good": np.ones(bands, bool), "crs": None, "transform": None, "scale": 2e-6, "offset": 0.05,
    }  # fmt: skip


def pace_l1b(path: Path) -> dict[str, Any]:
    """PACE OCI L1B: three detectors, bands first; the last has few bands, in no order."""
    lists = {
        "blue": (345.0 + 5.0 * np.arange(20)).astype("float32"),
        "red": (435.0 + 5.0 * np.arange(14)).astype("float32"),
        "SWIR": np.array([939.7, 1038.3, 1250.4, 1248.6], "float32"),
    }
    cubes = {k: scene(len(v), "float32", 0.4, seed) for seed, (k, v) in enumerate(lists.items())}
    with Dataset(path, "w") as file:
        file.instrument = "OCI"
        file.createDimension("number_of_scans", ROWS)
        file.createDimension("ccd_pixels", COLS)
        for key, nm in lists.items():
            file.createDimension(f"{key}_bands", len(nm))
            axes = (f"{key}_bands", "number_of_scans", "ccd_pixels")
            for kind, dtype, fill in (("rhot", "f4", np.float32(-32767)), ("qual", "u1", np.uint8(255))):
                variable = file.createVariable(
                    f"observation_data/{kind}_{key}", dtype, axes, zlib=True, fill_value=fill
                )
                variable[:] = cubes[key] if kind == "rhot" else 0
            file.createVariable(f"sensor_band_parameters/{key}_wavelength", "f4", (f"{key}_bands",))[:] = nm
            file[f"sensor_band_parameters/{key}_wavelength"].units = "nm"
    nm = np.concatenate(list(lists.values()))
    return {
        "cubes": tuple(f"observation_data/rhot_{k}" for k in lists), "axes": "byx",
        "pixels": np.concatenate(list(cubes.values())), "nodata": -32767.0, "nm": nm, "fwhm": None,
        "good": np.ones(len(nm), bool), "crs": None, "transform": None,
    }  # fmt: skip


def lookalikes() -> dict[str, tuple[str, Callable[[Path], dict[str, Any]]]]:
    """Each product's name, the suffix of its files, and what writes one and tells what is in it."""
    return {
        "emit_l2a": (".nc", emit),
        "emit_l1b": (".nc", lambda path: emit(path, "radiance")),
        "prisma_l1": (".he5", lambda path: prisma(path, "L1")),
        "prisma_l2c": (".he5", lambda path: prisma(path, "L2C")),
        "prisma_l2d": (".he5", prisma),
        "neon": (".h5", neon),
        "aviris_l1b": (".nc", aviris),
        "aviris_l2a": (".nc", lambda path: aviris(path, "reflectance")),
        "tanager_ortho": (".h5", tanager),
        "tanager_basic": (".h5", lambda path: tanager(path, "SWATHS")),
        "pace_l1b": (".nc", pace_l1b),
        "pace_l2": (".nc", pace_l2),
    }
