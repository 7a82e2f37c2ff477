"""Thousands of damaged files through the package: what the fuzz tests draw, for longer.

    python benchmarks/fuzz.py [--cases 10000] [--what envi,tiff,mat] [--seed 0] [--keep FOLDER]

Each failure is printed by its last lines, and its file written to FOLDER. The exit code is 1 if there is any.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import test_fuzz_envi
import test_fuzz_mat
import test_fuzz_tiff
from fuzzing import Worker


def fuzz(what: str, cases: int, number: int, keep: Path | None) -> int:
    """Draw and check; how many failed."""
    module = {"envi": test_fuzz_envi, "tiff": test_fuzz_tiff, "mat": test_fuzz_mat}[what]
    worker = Worker()
    found: Counter[str] = Counter()
    drawn = 0

    @seed(number)
    @settings(
        max_examples=cases, phases=[Phase.generate], deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(module.CASES)
    def every(case: Any) -> None:
        nonlocal drawn
        drawn += 1
        try:
            test_fuzz_mat.check(case) if module is test_fuzz_mat else module.check(case, worker)
        except Exception:
            text = traceback.format_exc().strip()
            last = "\n".join(text.splitlines()[-4:])
            found[last] += 1
            if keep and found[last] == 1:
                stem = keep / f"{what}-{number}-{len(found)}"
                stem.with_suffix(".data").write_bytes(case.data)
                stem.with_suffix(".txt").write_text(f"{text}\n\n{case!r}\n")
                if what == "envi":
                    stem.with_suffix(".hdr").write_bytes(case.header)

    start = time.monotonic()
    every()
    worker.close()
    print(f"{what}: {drawn} cases, {sum(found.values())} failures, {time.monotonic() - start:.0f} s", flush=True)
    for text, count in found.most_common():
        print(f"--- {count} times\n{text}", flush=True)
    return sum(found.values())


def main() -> None:
    """Parse, draw, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000, help="in all, divided evenly")
    parser.add_argument("--what", default="envi,tiff,mat")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    given_ = parser.parse_args()
    if given_.keep:
        given_.keep.mkdir(parents=True, exist_ok=True)
    kinds = given_.what.split(",")
    sys.exit(sum(fuzz(what, given_.cases // len(kinds), given_.seed, given_.keep) for what in kinds) > 0)


if __name__ == "__main__":
    main()
