"""Spectral nearest neighbours against a sort of all distances."""

from __future__ import annotations

import numpy as np
import pytest

from contrastive.positives import spectral_neighbours


@pytest.mark.parametrize(("n", "k"), [(5, 2), (40, 7), (300, 16)])
def test_neighbours_against_brute_force(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    spectra, family = rng.random((n, 11)), rng.integers(0, 2, n)
    family[:2], family[2:4] = 0, 1
    found = spectral_neighbours(spectra, family, k)
    assert found.shape == (n, k)
    for i in range(n):
        others = [j for j in range(n) if j != i and family[j] == family[i]]
        nearest = sorted(others, key=lambda j: float(np.linalg.norm(spectra[i] - spectra[j])))[:k]
        assert found[i].tolist() == [nearest[q % len(nearest)] for q in range(k)]


def test_never_the_row_itself_even_among_many_equal_ones() -> None:
    spectra = np.repeat(np.arange(3.0)[:, None], 30, 0) * np.ones(11)
    found = spectral_neighbours(spectra, np.zeros(90, int), 8)
    assert not (found == np.arange(90)[:, None]).any()
    assert (spectra[found] == spectra[:, None]).all()  # each has 29 equal ones
    assert all(len(set(row)) == 8 for row in found.tolist())


def test_families_do_not_mix() -> None:
    """The nearest graph of all is of another family, and is not taken."""
    spectra = np.array([[0.0], [0.01], [5.0], [5.01]]) * np.ones((1, 11))
    assert spectral_neighbours(spectra, np.array([0, 1, 0, 1]), 1)[:, 0].tolist() == [2, 3, 0, 1]


def test_small_families_repeat_their_members() -> None:
    spectra = np.arange(4.0)[:, None] * np.ones((1, 11))
    found = spectral_neighbours(spectra, np.array([0, 0, 0, 1]), 5)
    assert found[0].tolist() == [1, 2, 1, 2, 1]
    assert found[3].tolist() == [3] * 5  # alone: itself
