"""Gates: what they read, in which units, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hsidenoise.errors import UsageError
from hsidenoise.gates import met, parse

MEASURED: dict[str, Any] = {
    "sam_to_input": math.radians(3), "quality": {"after": {"psnr": 31.5, "ssim": 0.91}},
    "summary": {"denoised": 40, "structure_found": 10, "median_removed_over_noise": 1.2, "median_snr_after_fine": 33.0},
    "convergence": {"tiles": 8, "not_converged": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("sam>2deg", True), ("sam>4deg", False), ("sam > 0.05 rad", True), ("sam>0.06", False),
        ("structure>=25%", True), ("structure>25%", False), ("structure>0.2", True), ("unconverged>20%", True),
        ("psnr<32dB", True), ("psnr<31", False), ("ssim<0.9", False), ("removed>1.1", True), ("snr<=33dB", True),
    ],
)  # fmt: skip
def test_gates_compare_in_the_units_they_are_given(text: str, hit: bool) -> None:
    assert met(parse([text]), MEASURED) == ([text] if hit else [])


def test_what_was_not_measured_meets_no_gate() -> None:
    unknown = {"sam_to_input": None, "quality": None, "summary": {"denoised": 0, "structure_found": 0},
               "convergence": {"tiles": 0, "not_converged": 0}}  # fmt: skip
    assert met(parse(["sam>0", "psnr<99", "structure>0%", "unconverged>0%", "removed>0"]), unknown) == []


NONSENSE = ["sam", "sam>", "sam=2", "beauty>1", "sam>2dB", "psnr<30deg", "removed>5%", "sam>1e9x", ""]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-on"):
        parse([text])
