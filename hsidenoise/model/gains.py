"""Learned gains of the filters of patches: what `hsidenoise.model.dct` decides by formula, corrected by small networks.

A coefficient's gain follows in `dct_threshold` from its own size, in `local_wiener` from the pilot's power at its place
and a product model of it. Both forget what the other coefficients of the patch say: edges put their energy on lines of
frequencies, textures on few. Two hidden layers see all 64 at once, in logarithms, and correct the formula's gain. The
last layer starts at zero, as the formula; what it changes fades where a coefficient stands far above the noise, so that
an image a thousand times as strong as its noise is as safe as without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Coefficients of a patch of 8 x 8 pixels.
SAMPLES = 64
#: Scale of logarithms of power on their way into a network, where unit noise gives about 0 and the strongest image 4.
LOGS = 0.3
#: Power added before the logarithm of a pilot, in units of the noise: below it, how little it is says nothing.
FAINT = 0.1


class ThresholdGains(nn.Module):
    """Corrects the hard threshold of a patch of one image.

    Parameters
    ----------
    width
        Of the hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = _layers(SAMPLES, width, SAMPLES + 1)

    def forward(self, c: Tensor, kept: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Gains, and factors on the patches' weights.

        Parameters
        ----------
        c
            Coefficients of patches in units of the noise, (..., B, 64).
        kept
            Which of them the threshold keeps.
        threshold
            It.

        Returns
        -------
        tuple of Tensor
            (..., B, 64) and (..., B).
        """
        out = self.layers(LOGS * (c.square() + 1).log())
        gain = kept + out[..., :SAMPLES] / (1 + (c / threshold).square())
        return gain, out[..., SAMPLES].exp()


class WienerGains(nn.Module):
    """Corrects the Wiener filter of a patch of all images in its local basis.

    Parameters
    ----------
    width
        Of the hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = _layers(3 * SAMPLES, width, 2 * SAMPLES + 1)

    def forward(self, c: Tensor, pilot: Tensor, separable: Tensor, odds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gains, how much of the pilot to trust where they are low, and factors on the patches' weights.

        Parameters
        ----------
        c, pilot
            Rotated coefficients of the noisy patches and of the pilot's, (..., B, 64).
        separable
            The pilot's power as a product of image and frequency, the same shape.
        odds
            Signal's power over the noise's, by the formula.

        Returns
        -------
        tuple of Tensor
            (..., B, 64) twice and (..., 1), one for all images of a patch.
        """
        powers = ((pilot.square() + FAINT).log(), (separable + FAINT).log(), (c.square() + 1).log())
        out = self.layers(LOGS * torch.cat(powers, -1))
        gain = torch.sigmoid(odds.clamp_min(1e-6).log() + out[..., :SAMPLES])
        return gain, out[..., SAMPLES : 2 * SAMPLES], out[..., 2 * SAMPLES :].mean(-2).exp()


class Gains(nn.Module):
    """Those of a threshold and of two passes of the Wiener filter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.threshold = ThresholdGains(width)
        self.first, self.second = WienerGains(width), WienerGains(width)

    @torch.no_grad()
    def weaken(self, share: float) -> None:
        """Keep this share of all corrections: 0 leaves the formulas alone. What other scenes taught is not sure."""
        for part in (self.threshold, self.first, self.second):
            for parameter in part.layers[-1].parameters():
                parameter.mul_(share)


def _layers(fan_in: int, width: int, fan_out: int) -> nn.Sequential:
    last = nn.Linear(width, fan_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(fan_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)
