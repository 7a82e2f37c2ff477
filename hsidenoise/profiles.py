"""The figure of row-mean profiles that `hsidenoise.evaluate` draws (Ye et al. 2025, Figs 5 and 7)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"noisy": "#c9ccd1", "clean": "#1c1f23"}
MODELS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


def draw(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One panel for each entry: ``title`` and ``means``, profiles by label; written atomically.

    Parameters
    ----------
    entries
        From `hsidenoise.evaluate.evaluate`.
    path
        Of the PNG.
    """
    from matplotlib.figure import Figure

    columns = min(len(entries), 3)
    rows = -(-len(entries) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.5 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, entry in zip(panels.flat, entries, strict=False):
        models = [label for label in entry["means"] if label not in COLOURS]
        colours = COLOURS | {label: MODELS[i % len(MODELS)] for i, label in enumerate(models)}
        for label in ("noisy", *models, "clean"):
            style = {"linewidth": 0.8, "linestyle": (0, (4, 2))} if label == "clean" else {"linewidth": 1.2}
            axes.plot(entry["means"][label], color=colours[label], label=label, **style)
        axes.set_title(entry["title"], fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels.flat[len(entries) :]:
        axes.set_axis_off()
    figure.supxlabel("row", fontsize=9)
    figure.supylabel("mean of the row, range of the scene = 1", fontsize=9)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, dpi=130, format="png")
    os.replace(part, path)
