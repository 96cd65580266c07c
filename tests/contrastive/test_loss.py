"""The contrastive loss and its weights against naive loops written from the formulas, and in closed-form cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from contrastive.loss import spectral_weights, supcon_loss


def naive_weights(spectra: np.ndarray, family: list[int], temperature: float) -> np.ndarray:
    n = len(spectra)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j and family[i] == family[j]]
    distance = {(i, j): math.dist(spectra[i], spectra[j]) for i, j in pairs}
    scale = sum(distance.values()) / len(pairs) if pairs else 1.0
    out = np.zeros((n, n))
    for i, j in pairs:
        mine = [p for p in pairs if p[0] == i]
        out[i, j] = 1 / sum(math.exp((distance[i, j] - distance[p]) / scale / temperature) for p in mine)
    return out


def naive_loss(z: np.ndarray, w: np.ndarray, tau: float) -> float:
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    rows = []
    for i in range(len(z)):
        if w[i].sum() > 0:
            total = sum(math.exp(z[i] @ z[a] / tau) for a in range(len(z)) if a != i)
            rows.append(-sum(w[i, p] * math.log(math.exp(z[i] @ z[p] / tau) / total) for p in range(len(z)) if p != i))
    return float(np.mean(rows))


@pytest.mark.parametrize("n", [2, 3, 7, 40])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_weights_against_the_formula(n: int, temperature: float) -> None:
    rng = np.random.default_rng(n)
    spectra, family = rng.random((n, 11)), [0, 0, *rng.integers(0, 3, n - 2).tolist()]
    found = spectral_weights(torch.tensor(spectra), torch.tensor(family), temperature).numpy()
    assert found == pytest.approx(naive_weights(spectra, family, temperature), rel=1e-6, abs=1e-12)


def test_weights_of_near_twins_are_exact_in_large_batches() -> None:
    """Distances far below the values themselves: the fast product formula for distances would lose them in rounding."""
    rng = np.random.default_rng(0)
    spectra = (1.0 + 1e-4 * rng.random((64, 11))).astype(np.float32)
    found = spectral_weights(torch.from_numpy(spectra), torch.zeros(64, dtype=torch.long), 0.5).numpy()
    assert found == pytest.approx(naive_weights(spectra.astype(float), [0] * 64, 0.5), rel=1e-2)


def test_weights_are_a_distribution_over_the_rest_of_the_family() -> None:
    family = torch.tensor([0, 1, 0, 2, 1, 0])
    w = spectral_weights(torch.rand(6, 11, generator=torch.Generator().manual_seed(0)), family)
    assert torch.allclose(w.sum(1), torch.tensor([1.0, 1, 1, 0, 1, 1]))  # row 3 is alone in its family
    assert not w[family[:, None] != family[None, :]].any()
    assert not w.diagonal().any()


def test_weights_do_not_depend_on_the_scale_of_the_spectra() -> None:
    spectra, family = torch.rand(8, 11, dtype=torch.double, generator=torch.Generator().manual_seed(1)), torch.zeros(8)
    assert torch.allclose(spectral_weights(spectra, family), spectral_weights(1000 * spectra, family))


def test_equal_spectra_get_equal_weights() -> None:
    w = spectral_weights(torch.ones(5, 11), torch.zeros(5))
    assert torch.allclose(w, 0.25 * (1 - torch.eye(5)))


def test_nearer_graphs_weigh_more() -> None:
    w = spectral_weights(torch.tensor([[0.0], [0.1], [0.5], [2.0]]), torch.zeros(4), 0.5)
    assert w[0, 1] > w[0, 2] > w[0, 3] > 0


@pytest.mark.parametrize("n", [2, 5, 16])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_loss_against_the_formula(n: int, tau: float) -> None:
    rng = np.random.default_rng(n)
    z, family = rng.normal(size=(n, 6)), [0, 0, *rng.integers(0, 3, n - 2).tolist()]
    w = naive_weights(rng.random((n, 11)), family, 0.3)
    assert float(supcon_loss(torch.tensor(z), torch.tensor(w), tau)) == pytest.approx(naive_loss(z, w, tau), rel=1e-9)


@pytest.mark.parametrize("n", [2, 4, 33])
def test_equal_projections_cost_log_of_the_others(n: int) -> None:
    w = (1 - torch.eye(n)) / max(n - 1, 1)
    assert float(supcon_loss(torch.ones(n, 3), w)) == pytest.approx(math.log(n - 1), abs=1e-5)


def test_two_tight_opposite_families_cost_what_they_must() -> None:
    """Within a family cosine 1, across -1; each row has m - 1 positives and m negatives."""
    m, tau = 4, 0.5
    z = torch.cat([torch.ones(m, 2), -torch.ones(m, 2)])
    family = torch.arange(2).repeat_interleave(m)
    w = spectral_weights(torch.zeros(2 * m, 11), family)
    assert float(supcon_loss(z, w, tau)) == pytest.approx(math.log((m - 1) + m * math.exp(-2 / tau)), abs=1e-5)


def test_length_of_projections_does_not_matter() -> None:
    g = torch.Generator().manual_seed(0)
    z, w = torch.randn(6, 4, generator=g), (1 - torch.eye(6)) / 5
    assert torch.allclose(supcon_loss(z, w), supcon_loss(z * torch.rand(6, 1, generator=g) * 100, w), atol=1e-5)


@pytest.mark.parametrize("z", [torch.zeros(6, 4), torch.ones(6, 4), 1e20 * torch.ones(6, 4), torch.eye(6, 4)])
@pytest.mark.parametrize("tau", [0.01, 0.1])
def test_gradient_is_finite(z: torch.Tensor, tau: float) -> None:
    z = z.clone().requires_grad_()
    w = spectral_weights(torch.rand(6, 11, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1, 1, 2]), 1e-4)
    loss = supcon_loss(z, w, tau)
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_gradient_is_the_derivative() -> None:
    g = torch.Generator().manual_seed(3)
    z = torch.randn(5, 3, dtype=torch.double, generator=g, requires_grad=True)
    w = spectral_weights(torch.rand(5, 11, dtype=torch.double, generator=g), torch.tensor([0, 0, 0, 1, 1]))
    assert torch.autograd.gradcheck(lambda v: supcon_loss(v, w, 0.3), (z,))


@pytest.mark.parametrize("n", [1, 3])
def test_families_of_one_member_cost_nothing(n: int) -> None:
    z = torch.randn(n, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    w = spectral_weights(torch.rand(n, 11), torch.arange(n))
    assert not w.any()
    loss = supcon_loss(z, w)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert z.grad is not None
    assert not z.grad.any()


def test_training_on_the_loss_pulls_a_family_together() -> None:
    family = torch.arange(3).repeat_interleave(4)
    w = spectral_weights(torch.zeros(12, 11), family)
    z = torch.randn(12, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([z], 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        supcon_loss(z, w).backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(z.detach(), dim=1)
    cosine, same = unit @ unit.T, family[:, None] == family[None, :]
    assert cosine[same].min() > cosine[~same].max() + 0.5
