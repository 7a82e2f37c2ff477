"""What the commands say in words: lists of lines, no printing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model.weights import Card, WeightFile


def describe_run(record: Mapping[str, Any], verbose: bool = False) -> list[str]:
    """A finished run: what was done, what was left alone, how good it is, where it is."""
    lines = [bands_line(record)]
    lines.extend(reasons(record, verbose))
    lines.extend(mended(record))
    if not record["bands_denoised"]:
        lines.append("nothing was denoised: the output holds the input's pixels")
    if odd := record.get("samples_passed"):
        lines.append(f"{count_of(odd, 'sample')} far outside the range of the others passed through unchanged; "
                     "if they mean no data, say so with --nodata")  # fmt: skip
    stuck = [t for t in record["tiles"] if not t["converged"]]
    if stuck:
        worst = max(t["residual"] for t in stuck)
        lines.append(f"{len(stuck)} of {len(record['tiles'])} tiles stopped short of the fixed point "
                     f"(relative residual up to {worst:.1e})")  # fmt: skip
    measured = record.get("measured") or {}
    if quality := measured.get("quality"):
        lines.append("against the reference, before -> after: " + ", ".join(quality_parts(quality)))
    if measured.get("verdict"):
        verdict = measured["verdict"]
        lines.append(verdict if isinstance(verdict, str) else str(verdict.get("text", verdict)))
    lines.append(f"{record['output']}: written in {record['seconds']:.1f} s on {record['device']}")
    if record["options"]["residual"]:
        lines.append(f"{record['options']['residual']}: what was removed")
    if record["options"]["report"]:
        lines.append(f"{record['options']['report']}: report")
    return lines


def quality_parts(quality: Mapping[str, Any]) -> list[str]:
    """PSNR, SSIM and SAM before and after."""
    before, after = quality["before"], quality["after"]
    return [
        f"PSNR {before['psnr']:.2f} -> {after['psnr']:.2f} dB",
        f"SSIM {before['ssim']:.4f} -> {after['ssim']:.4f}",
        f"SAM {before['sam']:.4f} -> {after['sam']:.4f} rad",
    ]


def bands_line(record: Mapping[str, Any]) -> str:
    """How many bands are denoised, by which model."""
    done, left = len(record["bands_denoised"]), len(record["bands_passed"])
    return f"{done} of {done + left} bands denoised with {record['model']['name']}"


def reasons(record: Mapping[str, Any], verbose: bool) -> list[str]:
    """Why bands were passed through: one line each, or one line a reason."""
    passed = {int(b): why for b, why in record["bands_passed"].items()}
    if verbose:
        return [f"band {b + 1} passed through: {why}" for b, why in sorted(passed.items())]
    kinds = Counter(_kind(why) for why in passed.values())
    return [f"{count_of(n, 'band')} passed through unchanged: {why}" for why, n in kinds.items()]


def _kind(why: str) -> str:
    if why.startswith("noise "):
        return "noise below the model's floor"
    return "the model would remove image with the noise" if why.startswith("the model would") else why


def describe_plan(record: Mapping[str, Any]) -> list[str]:
    """A dry run."""
    plan = record["plan"]
    out = plan["output"]
    rows, cols = plan["tile"]
    return [
        f"scene        {record['scene']}",
        f"output       {out['path']} ({out['driver']}, {out['dtype']}, {size(out['bytes'])})",
        f"bands        {bands_line(record)}",
        *(f"             {line}" for line in reasons(record, False)),
        f"tiles        {plan['tiles']} of {rows} x {cols} pixels, halo {plan['halo']}",
        _shown(record),
        f"memory       about {size(plan['memory_bytes'])} beside the libraries",
        f"device       {record['device']}",
        f"model        {_weights(record['model'])}",
    ]


def _weights(model: Mapping[str, Any]) -> str:
    if not model["sha256"]:
        return f"{model['name']} (built in, no weights)"
    return f"{model['name']} ({model['arch']}, {model['parameters']:,} parameters, sha256 {model['sha256'][:12]})"


def _shown(record: Mapping[str, Any]) -> str:
    """What the model is shown of each tile."""
    plan, front = record["plan"], record["normalisation"]
    runs = f"{plan['network_runs']} runs of the model in all"
    if front["frontend"] == "eigen":
        return f"images       {front['rank']} eigen-images above the noise; {runs}"
    return f"windows      {plan['band_windows']} of the model's bands; {runs}"


def mended(record: Mapping[str, Any]) -> list[str]:
    """Defects that were found, in one line, or none."""
    found = record["normalisation"].get("defects") or {}
    parts = []
    if found.get("lost_share"):
        parts.append(f"{100 * found['lost_share']:.2g} % of the samples predicted from other bands")
    if columns := found.get("striped_columns"):
        parts.append(f"{count_of(columns, 'striped column')} moved back")
    return [f"defects mended in {count_of(len(found['bands']), 'band')}: {', '.join(parts)}"] if parts else []


def describe_models(cards: Mapping[str, tuple[WeightFile, Card]]) -> list[str]:
    """The weights that are installed."""
    lines = []
    for name, (file, card) in cards.items():
        if file.path is None:
            lines.append(f"{name}  no weights: DCT threshold of eigen-images, then a Wiener filter of them together")
            continue
        lines.append(f"{name}  {card.arch}, trained on {', '.join(card.noise)}, {card.training.get('steps', 0)} steps, "
                     f"{card.licence}, sha256 {file.sha256[:12]}")  # fmt: skip
        for pattern, scores in card.validation.items():
            psnr, ssim, sam = scores["mean"]
            lines.append(f"  {pattern:8} PSNR {psnr:.2f} dB  SSIM {ssim:.4f}  SAM {sam:.4f} rad")
    return lines


def describe_evaluation(found: Mapping[str, Any]) -> list[str]:
    """A table: cubes, patterns and models, and the means over cubes."""
    rows = list(found["rows"])
    if len({row["cube"] for row in rows}) > 1:
        rows += [row | {"cube": f"mean of {row['cubes']}"} for row in found["means"]]
    wide, tall = (max([len(row[key]) for row in rows] + [5]) for key in ("cube", "model"))
    lines = [f"{'cube':{wide}}  {'noise':8} {'model':{tall}}  PSNR dB    SSIM  SAM rad   ERGAS  seconds"]
    lines.extend(
        f"{row['cube']:{wide}}  {row['pattern']:8} {row['model']:{tall}}  {row['psnr']:7.2f}  {row['ssim']:.4f}  "
        f"{row['sam']:7.4f} {row['ergas']:7.2f}  {row['seconds']:7.1f}"
        for row in rows
    )
    return lines


#: Files of a scene that are named; a folder of bands has hundreds.
MOST_FILES = 4


def describe_info(found: Mapping[str, Any]) -> list[str]:
    """What a file is."""
    return _pairs(found)


def describe_system(found: Mapping[str, Any]) -> list[str]:
    """Versions and devices."""
    return _pairs(found)


def _pairs(found: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    width = max((len(k) for k in found), default=0)
    for key, value in found.items():
        if isinstance(value, Mapping):
            lines.append(f"{indent}{key}")
            lines.extend(_pairs(value, indent + "  "))
        else:
            items = value if isinstance(value, list | tuple) else [value]
            words = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in items if v is not None]
            if len(words) > MOST_FILES and len(runs := [(w, len(list(g))) for w, g in groupby(words)]) < len(words):
                words = [w if n == 1 else f"{w} ({n} times)" for w, n in runs]
            if key == "files" and len(words) > MOST_FILES:
                words[MOST_FILES - 1 :] = [f"and {len(words) - MOST_FILES + 1} more"]
            text = ", ".join(words)
            lines.append(f"{indent}{key:{width}}  {text or 'none'}")
    return lines


def count_of(n: int, thing: str) -> str:
    """``1 band``, ``2 bands``."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def size(count: float) -> str:
    """Bytes for people."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.1f} {units[0]}"


def describe_trouble(found: Mapping[str, Any]) -> list[str]:
    """What went wrong in a batch."""
    lines = [f"gate met: {met['gate']}: {met['source']}" for met in found["gates_met"]]
    return lines + [f"failed: {failure['error']}" for failure in found["failures"]]


def describe_batch(found: Mapping[str, Any]) -> list[str]:
    """What a batch did, or would do."""
    if "todo" in found:
        hours = found["seconds"] / 3600
        time = f"{hours:.1f} hours" if hours >= 1 else f"{found['seconds'] / 60:.1f} minutes"
        return [
            f"scenes       {found['scenes']}, {found['done']} done already, {found['todo']} to do",
            f"input        {size(found['input_bytes'])}",
            f"jobs         {found['jobs']}, about {size(found['memory_bytes'])} of memory",
            f"time         about {time}",
            *(f"unreadable   {f['error']}" for f in found["unreadable"]),
        ]
    counts = ", ".join(f"{found[key]} {key}" for key in ("done", "skipped", "elsewhere", "failed") if found[key])
    lines = [f"{count_of(found['scenes'], 'scene')}: {counts or 'nothing to do'} in {found['seconds']:.1f} s"]
    lines += describe_trouble(found)
    return [*lines, f"{found['report']}: what was done, worst first"] if found["report"] else lines
