"""Learned gains begin as the formulas they correct, learn, and leave alone what stands far above the noise."""

from __future__ import annotations

import pytest
import torch

from hsidenoise.model import networks
from hsidenoise.model.dct import THRESHOLD, Dct, dct_threshold, local_wiener
from hsidenoise.model.decsc import build
from hsidenoise.model.gains import Gains
from hsidenoise.model.shrinkage import Shrinkage, ShrinkageConfig


def images(count: int = 5, edge: int = 40, strength: float = 20.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and noisy images of blocks and slopes, noise of unit variance, (1, count, edge, edge)."""
    random = torch.Generator().manual_seed(3)
    blocks = torch.rand(1, count, edge // 8, edge // 8, generator=random)
    clean = strength * blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    clean += torch.linspace(0, strength, edge)
    return clean, clean + torch.randn(clean.shape, generator=random)


def unsettled(width: int = 16) -> Gains:
    """Gains whose networks say something."""
    torch.manual_seed(1)
    gains = Gains(width)
    for part in (gains.threshold, gains.first, gains.second):
        torch.nn.init.normal_(part.layers[-1].weight, std=0.3)
    return gains


def test_fresh_gains_are_the_weight_free_model():
    _, noisy = images()
    network = networks.build("shrinkage")
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(noisy)[0], Dct()(noisy)[0], rtol=0, atol=2e-3)


def test_a_fresh_network_of_codes_is_as_good_as_the_weight_free_model():
    clean, noisy = images()
    with torch.no_grad():
        found, plain = (model(noisy)[0] - clean for model in (networks.build("compact").eval(), Dct()))
    assert found.square().mean() < 1.2 * plain.square().mean() < 0.3


def test_fewer_images_are_as_if_the_others_were_empty():
    _, noisy = images(3)
    network = build("compact", bands=5, shared=40, local=8, gains=16).eval()
    torch.nn.init.normal_(network.shared["reconstruction"], std=0.02)
    with torch.no_grad():
        few = network(noisy)[0]
        filled = network(torch.nn.functional.pad(noisy, (0, 0, 0, 0, 0, 2)))[0][:, :3]
    torch.testing.assert_close(few, filled, rtol=0, atol=0.02)


@pytest.mark.parametrize("strength", [1e3, 1e5])
def test_what_stands_far_above_the_noise_stays(strength):
    """White images, no sparse ones: all coefficients are strong, none is to be touched whatever the networks say."""
    strong = strength * torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    gains = unsettled()
    with torch.no_grad():
        found = [
            dct_threshold(strong, THRESHOLD, learned=gains.threshold),
            local_wiener(strong, strong, learned=gains.first),
        ]
    for x in found:
        assert (x - strong).square().mean().sqrt() < 1.5


def test_gains_can_be_weakened_to_the_formulas():
    _, noisy = images()
    network = Shrinkage(ShrinkageConfig(gains=16)).eval()
    network.gains = unsettled()
    with torch.no_grad():
        plain, full = Dct()(noisy)[0], network(noisy)[0]
        network.gains.weaken(0.5)
        half = network(noisy)[0]
        network.gains.weaken(0)
        torch.testing.assert_close(network(noisy)[0], plain, rtol=0, atol=2e-3)
    assert 0.1 < (half - plain).norm() / (full - plain).norm() < 0.9


def test_gains_learn():
    clean, noisy = images()
    network = Shrinkage(ShrinkageConfig(gains=16)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(12):
        loss = (network.solve(noisy).x - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(("field", "value"), [("bands", 0), ("bands", 65), ("gains", 0), ("gains", 2.0)])
def test_shapes_that_no_network_has_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        ShrinkageConfig(**{field: value})
