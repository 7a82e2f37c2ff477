"""Tags as netCDF attributes and back: names without collisions, so that they survive any number of passes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import numpy as np

#: Global attributes that are written anew, or that the library writes.
OWN = ("Conventions", "hsidenoise", "_NCProperties")
_PLAIN = re.compile(r"[A-Za-z][\w :.+()@-]*(?<! )$", re.ASCII)
_PROVENANCE = re.compile(r"(?:^|, )(software|model|source|bands|date): ")


def text(value: Any) -> str:
    """An attribute's value as a tag."""
    if isinstance(value, str):
        return value
    return ", ".join(str(v) for v in np.ravel(value))


def to_attributes(tags: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Global attributes: tags of the default namespace by their own name, others as ``NAMESPACE#name``.

    ``/`` and what else netCDF forbids in names is percent-encoded.
    """
    out = {}
    for domain, items in tags.items():
        for key, value in items.items():
            plain = not domain and _PLAIN.match(key) and key not in OWN
            out[key if plain else f"{_quoted(domain) or '_'}#{_quoted(key)}"] = str(value)
    return out


def _quoted(name: str) -> str:
    return re.sub(r"[/%#\x00-\x1f\x7f]| $", lambda found: f"%{ord(found[0]):02X}", name)


def to_tags(attributes: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The opposite of `to_attributes`; ``hsidenoise`` becomes the namespace ``HSIDENOISE``, as in a GeoTIFF."""
    tags: dict[str, dict[str, str]] = {}
    for name, value in attributes.items():
        if name == "hsidenoise":
            parts = _PROVENANCE.split(text(value))[1:]
            tags["HSIDENOISE"] = dict(zip(parts[::2], parts[1::2], strict=True))
        elif name not in OWN:
            domain, sign, key = name.partition("#")
            domain, key = ("" if domain == "_" else unquote(domain), unquote(key)) if sign and key else ("", name)
            tags.setdefault(domain, {})[key] = text(value)
    return {domain: items for domain, items in tags.items() if items}


def provenance(items: Mapping[str, str]) -> str:
    """The text of the global attribute ``hsidenoise``."""
    return ", ".join(f"{k}: {' '.join(str(v).split())}" for k, v in items.items())
