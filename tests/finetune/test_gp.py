"""The Gaussian process against naive linear algebra and refits."""

from __future__ import annotations

import numpy as np

from finetune.gp import GaussianProcess, Standardizer


def _data(n: int = 30, f: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, f))
    return x, np.sin(x[:, 0]) + 0.5 * x[:, 1] + 0.1 * rng.normal(size=n)


def _kernel(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    out = np.empty((len(a), len(b)))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            r = np.sqrt(((p - q) ** 2).sum() / a.shape[1]) / length
            out[i, j] = (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r)
    return out


def test_prediction_equals_the_textbook_formula() -> None:
    x, z = _data()
    gp = GaussianProcess().fit(x[:20], z[:20])
    k = _kernel(x[:20], x[:20], gp.setting) + gp.noise * np.eye(20)
    cross = _kernel(x[20:], x[:20], gp.setting)
    mean, std = gp.predict(x[20:])
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(k, z[:20]), atol=1e-9)
    variance = 1 + gp.noise - np.array([c @ np.linalg.solve(k, c) for c in cross])
    np.testing.assert_allclose(std, np.sqrt(gp.signal * variance), atol=1e-9)


def test_leave_one_out_equals_refitting_without_the_point() -> None:
    x, z = _data(15)
    gp = GaussianProcess().fit(x, z)
    means, density = gp.leave_one_out()
    expected, log_density = [], []
    for i in range(15):
        keep = np.arange(15) != i
        k = _kernel(x[keep], x[keep], gp.setting) + gp.noise * np.eye(14)
        c = _kernel(x[i:i + 1], x[keep], gp.setting)[0]
        m = c @ np.linalg.solve(k, z[keep])
        v = gp.signal * (1 + gp.noise - c @ np.linalg.solve(k, c))
        expected.append(m)
        log_density.append(-0.5 * np.log(2 * np.pi * v) - 0.5 * (z[i] - m) ** 2 / v)
    np.testing.assert_allclose(means, expected, atol=1e-8)
    np.testing.assert_allclose(density, np.mean(log_density), atol=1e-8)


def test_chosen_hyper_parameters_have_the_highest_posterior_on_the_grid() -> None:
    x, z = _data()
    gp = GaussianProcess().fit(x, z)

    def evidence(length: float, noise: float) -> float:
        k = _kernel(x, x, length) + noise * np.eye(len(z))
        signal = z @ np.linalg.solve(k, z) / len(z)
        (l0, ls), (n0, ns) = gp.LIKELY
        prior = -0.5 * (np.log(length / l0) / ls) ** 2 - 0.5 * (np.log(noise / n0) / ns) ** 2
        return float(-0.5 * np.linalg.slogdet(signal * k)[1] + prior)

    best = max((evidence(a, b), a, b) for a in gp.LENGTHS for b in gp.NOISES)
    assert (gp.setting, gp.noise) == best[1:]


def test_standardizer_drops_constant_columns_and_clips() -> None:
    x = np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 1.0], [5.0, 5.0, 2.0]])
    s = Standardizer(x, np.array([2.0, 9.0, 1.0]))
    out = s(x)
    assert out.shape == (3, 2)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose((s.weights**2).mean(), 1.0)
    np.testing.assert_allclose(s(np.array([[1e9, 5.0, 1.0]]))[0, 0], 4 * s.weights[0])
