"""What dictionaries start from: the paper's draw, or a tight frame of cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .dct import dct


def kaiming(atoms: int, channels: int, size: int) -> nn.Parameter:
    """The paper's draw for a dictionary (atoms, channels, k, k)."""
    kernel = torch.empty(atoms, channels, size, size)
    nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
    return nn.Parameter(kernel)


def dct_atoms(atoms: int, channels: int, size: int) -> Tensor:
    """The `atoms` smoothest atoms of the 3-D DCT-II, unit norm; (atoms, channels, k, k).

    Smooth means a small sum of spatial radius and weighted spectral frequency: spectra vary less than pictures.
    """
    if atoms > channels * size * size:
        raise ValueError(f"{atoms} atoms do not fit in {channels} x {size} x {size}")
    spectral, spatial = dct(channels), dct(size)
    b, i, j = torch.meshgrid(torch.arange(channels), torch.arange(size), torch.arange(size), indexing="ij")
    roughness = (i**2 + j**2).double().sqrt() + 1.5 * b
    order = roughness.flatten().argsort(stable=True)[:atoms]
    b, i, j = (axis.flatten()[order] for axis in (b, i, j))
    return torch.einsum("ab,ai,aj->abij", spectral[b], spatial[i], spatial[j]).float()


def image_atoms(atoms: int, channels: int, size: int) -> Tensor:
    """The smoothest atoms of the 2-D DCT-II in each of the channels alone, unit norm; (atoms, channels, k, k).

    An equal number for each channel; the first channels get one more where they do not divide.
    """
    if atoms > channels * size * size:
        raise ValueError(f"{atoms} atoms do not fit in {channels} x {size} x {size}")
    kernel = torch.zeros(atoms, channels, size, size)
    for channel in range(channels):
        mine = range(channel, atoms, channels)
        kernel[mine.start :: channels, channel] = dct_atoms(len(mine), 1, size)[:, 0]
    return kernel


def own_channel(atoms: int, channels: int, first: int = 0) -> Tensor:
    """One where an atom may have weight: each in one channel, in turn from `first`; (atoms, channels, 1, 1)."""
    index = (torch.arange(atoms) + first) % channels
    return torch.nn.functional.one_hot(index, channels).float()[:, :, None, None]
