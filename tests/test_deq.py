"""The solver against fixed points that are known, and the phantom gradient against the exact one."""

from __future__ import annotations

import pytest
import torch

from hsidenoise.model.deq import fixed_point, phantom


def linear(seed: int, size: int, radius: float):
    """A contraction z -> A z + b and its exact fixed point."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(size, size, generator=generator, dtype=torch.float64)
    a = a * (radius / torch.linalg.eigvals(a).abs().max())
    b = torch.randn(size, generator=generator, dtype=torch.float64)
    exact = torch.linalg.solve(torch.eye(size, dtype=torch.float64) - a, b)
    return a.float(), b.float(), exact.float()


def test_anderson_finds_a_linear_fixed_point_faster_than_iteration():
    a, b, exact = linear(0, 5, 0.95)
    f = lambda z: (z[0] @ a.T + b,)  # noqa: E731
    (z,), record = fixed_point(f, (torch.zeros(3, 5),), evaluations=30, tolerance=1e-5, regularisation=1e-10)
    assert record.converged.all()
    assert (record.evaluations < 15).all()  # plain iteration needs about 200 at this radius
    torch.testing.assert_close(z, exact.expand(3, 5), rtol=1e-3, atol=1e-3)


def test_the_state_may_have_several_parts_of_any_shape():
    a, b, exact = linear(1, 12, 0.8)

    def f(z):
        whole = torch.cat([z[0].flatten(1), z[1].flatten(1)], 1) @ a.T + b
        return whole[:, :8].view(-1, 2, 4), whole[:, 8:].view(-1, 2, 2)

    z, record = fixed_point(f, (torch.zeros(2, 2, 4), torch.zeros(2, 2, 2)), evaluations=60, tolerance=1e-5)
    assert record.converged.all()
    whole = torch.cat([z[0].flatten(1), z[1].flatten(1)], 1)
    torch.testing.assert_close(whole, exact.expand(2, 12), rtol=1e-3, atol=1e-3)


def test_convergence_is_recorded_for_each_sample():
    rate = torch.tensor([[0.1], [0.999]])
    f = lambda z: (z[0] * rate + 1 + 0.3 * torch.sin(5 * z[0]) * (rate > 0.5),)  # noqa: E731
    _, record = fixed_point(f, (torch.zeros(2, 1),), evaluations=4, tolerance=1e-3, memory=2)
    assert record.converged.tolist() == [True, False]
    assert record.residual[0] < 1e-3 <= record.residual[1]


def test_a_diverging_sample_returns_its_best_iterate():
    f = lambda z: (z[0] * torch.tensor([[0.5], [-3.0]]) + torch.tensor([[1.0], [2.0]]),)  # noqa: E731
    start = torch.tensor([[0.0], [0.45]])  # the second fixed point is at 0.5, and repels
    (z,), record = fixed_point(f, (start,), evaluations=6, tolerance=1e-9, memory=1)
    assert record.evaluations.tolist() == [6, 1]
    assert float(z[1, 0]) == pytest.approx(0.65)
    assert float(record.residual[1]) == pytest.approx(0.2 / 0.65)


def test_samples_do_not_influence_each_other():
    a, b, _ = linear(2, 6, 0.9)
    f = lambda z: (torch.tanh(z[0] @ a.T + b),)  # noqa: E731
    starts = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
    together, _ = fixed_point(f, (starts,), evaluations=10, tolerance=0)
    for i in range(3):
        alone, _ = fixed_point(f, (starts[i : i + 1],), evaluations=10, tolerance=0)
        torch.testing.assert_close(together[0][i], alone[0][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_regularisation_means_the_same_at_every_scale(scale):
    a, b, exact = linear(4, 6, 0.9)
    f = lambda z: (z[0] @ a.T + b * scale,)  # noqa: E731
    (z,), record = fixed_point(f, (torch.zeros(1, 6),), evaluations=25, tolerance=1e-5)
    assert record.converged.all()
    torch.testing.assert_close(z[0] / scale, exact, rtol=1e-2, atol=1e-2)


def test_the_phantom_gradient_approaches_the_exact_one():
    a, b, _ = linear(5, 6, 0.5)
    gain = torch.ones(6, requires_grad=True)
    f = lambda z: (torch.tanh((z[0] @ a.T + b) * gain),)  # noqa: E731

    (z,), _ = fixed_point(f, (torch.zeros(1, 6),), evaluations=60, tolerance=1e-7)
    jacobian = torch.autograd.functional.jacobian(lambda x: f((x,))[0], z.detach()).reshape(6, 6)
    (value,) = f((z.detach(),))
    # Implicit function theorem: dL/dtheta = (I - J)^-T dL/dz . df/dtheta, here with L = sum(z).
    adjoint = torch.linalg.solve(torch.eye(6) - jacobian.detach().T, torch.ones(6))
    (exact,) = torch.autograd.grad(value, gain, grad_outputs=adjoint[None])

    errors = []
    for steps in (1, 5, 30):
        (unrolled,), drift = phantom(f, (z,), steps=steps, damping=0.9)
        assert drift.shape == (1,)
        assert float(drift.detach()) < 1e-5
        (found,) = torch.autograd.grad(unrolled.sum(), gain)
        errors.append(float((found - exact).norm() / exact.norm()))
        torch.testing.assert_close(unrolled.detach(), z, rtol=1e-4, atol=1e-5)
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.1
    assert errors[2] < 1e-3
