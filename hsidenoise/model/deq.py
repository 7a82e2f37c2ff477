"""Fixed points: Anderson acceleration forwards, the phantom gradient backwards.

A state ``z`` is a tuple of float tensors whose first axis is the sample; samples are solved side by side and each
has its own convergence record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

State = tuple[Tensor, ...]
Map = Callable[[State], State]


@dataclass(frozen=True)
class Convergence:
    """How each sample of a batch came to its fixed point.

    Parameters
    ----------
    evaluations
        Evaluations of f until the best iterate, per sample; shape (N,), int64.
    residual
        ``|f(z) - z| / |f(z)|`` of the best iterate, per sample; shape (N,), float32.
    converged
        Whether `residual` fell below the tolerance, per sample; shape (N,), bool.
    """

    evaluations: Tensor
    residual: Tensor
    converged: Tensor


def _dot(a: State, b: State) -> Tensor:
    """Inner product of each sample; shape (N,)."""
    return sum((torch.linalg.vecdot(x.flatten(1).float(), y.flatten(1).float()) for x, y in zip(a, b, strict=True)),
               start=torch.zeros(a[0].shape[0], device=a[0].device))


def _mix(alpha: Tensor, history: list[State]) -> State:
    """Sum over the history of alpha[:, i] * history[i], sample by sample."""
    mixed = []
    for parts in zip(*history, strict=True):
        shape = (-1,) + (1,) * (parts[0].dim() - 1)
        total = alpha[:, 0].view(shape) * parts[0]
        for i in range(1, len(parts)):
            total.addcmul_(alpha[:, i].view(shape), parts[i])
        mixed.append(total)
    return tuple(mixed)


def _coefficients(gram: Tensor, regularisation: float) -> Tensor:
    """Weights of sum one that minimise the mixed residual; shape (N, m).

    The regularisation is relative to the Gram matrix' mean eigenvalue, so that it means the same at every scale;
    the small system is solved in float64, where it cannot go singular.
    """
    gram = gram.double()
    m = gram.shape[-1]
    scale = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(m, dtype=torch.float64, device=gram.device)
    ones = torch.ones(gram.shape[0], m, 1, dtype=torch.float64, device=gram.device)
    weights: Tensor = torch.linalg.solve(gram / scale.view(-1, 1, 1) + regularisation * eye, ones)[..., 0]
    weights = weights / weights.sum(1, keepdim=True)
    return weights.float()


@torch.no_grad()
def fixed_point(
    f: Map, z0: State, *, evaluations: int = 20, tolerance: float = 1e-3, memory: int = 6, regularisation: float = 1e-4
) -> tuple[State, Convergence]:
    """Solve ``z = f(z)`` by Anderson acceleration with mixing beta = 1 (Walker and Ni, 2011).

    Parameters
    ----------
    f
        The map; must treat samples independently.
    z0
        Where to start; tuple of tensors (N, ...).
    evaluations
        Most evaluations of `f`.
    tolerance
        Stop once every sample's relative residual ``|f(z) - z| / |f(z)|`` is below this.
    memory
        Iterates kept for the acceleration (m).
    regularisation
        Tikhonov term of the small system, relative to the Gram matrix' mean eigenvalue.

    Returns
    -------
    z, convergence
        For every sample the iterate of least residual that was met, and its record.
    """
    values: list[State] = []
    residuals: list[State] = []
    count = z0[0].shape[0]
    device = z0[0].device
    gram = torch.zeros(count, 0, 0, device=device)
    best_residual = torch.full((count,), torch.inf, device=device)
    best_at = torch.zeros(count, dtype=torch.int64, device=device)
    best = tuple(part.clone() for part in z0)
    z = z0
    for step in range(1, evaluations + 1):
        value = f(z)
        residual = tuple(a - b for a, b in zip(value, z, strict=True))
        norm = _dot(value, value).sqrt()
        relative = _dot(residual, residual).sqrt() / norm.clamp_min(1e-12)
        better = relative < best_residual
        if bool(better.all()):
            best = value
        elif bool(better.any()):
            best = tuple(
                torch.where(better.view((-1,) + (1,) * (a.dim() - 1)), a, b) for a, b in zip(value, best, strict=True)
            )
        best_residual = torch.where(better, relative, best_residual)
        best_at = torch.where(better, step, best_at)
        if bool((best_residual < tolerance).all()) or step == evaluations:
            break
        if len(values) == memory:
            values.pop(0)
            residuals.pop(0)
            gram = gram[:, 1:, 1:]
        values.append(value)
        residuals.append(residual)
        row = torch.stack([_dot(residual, other) for other in residuals], 1)
        m = len(residuals)
        grown = torch.empty(count, m, m, device=device)
        grown[:, :-1, :-1] = gram
        grown[:, -1, :] = row
        grown[:, :, -1] = row
        gram = grown
        z = _mix(_coefficients(gram, regularisation), values) if m > 1 else value
    return best, Convergence(best_at, best_residual, best_residual < tolerance)


def phantom(
    f: Map, z: State, *, steps: int = 5, damping: float = 0.9, floor: float = 0.0
) -> tuple[State, Tensor]:
    """Attach a gradient to a fixed point by a few damped, unrolled steps (Geng et al., NeurIPS 2021).

    ``z <- (1 - damping) z + damping f(z)``, `steps` times from the detached `z`; at a fixed point the value stays and
    the gradient is a truncated Neumann series of the implicit one.

    Returns
    -------
    z, drift
        The state, and ``|f(z) - z| / |f(z)|`` of the last step for each sample, (N,), with its gradient: training that
        keeps it small keeps f a contraction. `floor` is the rms that a state is taken to have at least.
    """
    z = tuple(part.detach() for part in z)
    drift = torch.zeros(z[0].shape[0], device=z[0].device)
    for _ in range(steps):
        value = f(z)
        change = tuple(new - old for old, new in zip(z, value, strict=True))
        least = floor**2 * sum(part[0].numel() for part in value) + 1e-12
        drift = (_dot(change, change) / _dot(value, value).detach().clamp_min(least)).clamp_min(1e-12).sqrt()
        z = tuple(torch.lerp(old, new, damping) for old, new in zip(z, value, strict=True))
    return z, drift
