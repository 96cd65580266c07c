"""REINFORCE on a toy space: its policy, its gradient by definition, and the genomes it writes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import toy_search_space as toy
from toy_strategies import STRATEGIES, last, start

from cg.errors import CGError
from evo_search import get_space
from evo_search.objectives import Constraint
from evo_search.spaces import SearchSpace
from evo_search.strategies.reinforce import Reinforce, ReinforceConfig
from evo_search.study import Study


@pytest.mark.parametrize("name", ["reinforce", "softmax"])
def test_the_policy_moves_to_what_pays(name: str) -> None:
    shares = []
    for seed in range(3):
        study = start(name, seed)
        study.run(lambda a: float(a[3] == 2) + 0.01 * a[0], 72)
        shares.append([np.mean([q.genome[-1] == "2" for q in study.history.queries[i:i + 16]]) for i in (0, 56)])
        assert sum(q.source == "policy" for q in study.history.queries) >= 60
    assert np.mean(shares, 0)[0] < 0.35
    assert np.mean(shares, 0)[1] > 0.7


def test_the_gradient_is_that_of_the_definition() -> None:
    """One step of plain REINFORCE on one choice: the gradient of a softmax, by hand."""
    import torch

    from evo_search.strategies._controllers import Learner

    learner = Learner((3, 2), ReinforceConfig("softmax", entropy_weight=0.0, learning_rate=0.1))
    actions, rewards = np.array([[0, 1], [2, -1]]), np.array([3.0, 1.0])  # baseline 2, deviation 1
    taken: list[np.ndarray] = []
    learner.optimizer.step = lambda: taken.extend(p.grad.numpy().copy() for p in learner.policy.parameters())  # type: ignore
    learner.learn(actions, rewards, np.array([True, True]))
    first = -(np.array([1, 0, 0]) - np.array([0, 0, 1])) / 2  # advantages 1 and -1; the uniform parts cancel
    second = -(np.array([0, 1]) - 0.5) / 2
    np.testing.assert_allclose(taken[0], first, atol=1e-6)
    np.testing.assert_allclose(taken[1], second, atol=1e-6)
    entropy = Learner((4,), ReinforceConfig("softmax"))._score(torch.tensor([[1]]))[1]
    assert entropy[0].item() == pytest.approx(np.log(4))


def test_entropy_keeps_the_policy_open() -> None:
    from evo_search.strategies._controllers import Learner

    def entropy(weight: float) -> float:
        learner = Learner((4, 4), ReinforceConfig("softmax", entropy_weight=weight))
        for _ in range(30):
            learner.learn(np.array([[1, 2], [0, 0], [3, 1]]), np.array([1.0, 0.0, 0.0]), np.ones(3, bool))
        rows = learner.sample(400, np.random.default_rng(0))
        shares = np.bincount(rows[:, 0], minlength=4) / 400
        return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())

    assert entropy(2.0) > entropy(0.0) + 0.3


@pytest.mark.parametrize("controller", ["lstm", "softmax"])
def test_samples_follow_the_policy(controller: str) -> None:
    import torch

    from evo_search.strategies._controllers import Learner

    learner = Learner((3, 2), ReinforceConfig(controller, hidden=8))
    with torch.no_grad():
        for parameter in learner.policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    rows = learner.sample(6000, np.random.default_rng(0))
    grid = np.array(list(itertools.product(range(3), range(2))))
    with torch.no_grad():
        expected = learner._score(torch.from_numpy(grid))[0].exp().numpy()
    assert expected.sum() == pytest.approx(1.0, abs=1e-5)
    shares = np.array([(rows == g).all(1).mean() for g in grid])
    np.testing.assert_allclose(shares, expected, atol=0.03)


def test_the_lstm_sees_its_last_choice() -> None:
    """What pays at the second place depends on the first: the LSTM learns it, separate distributions cannot."""
    import torch

    from evo_search.strategies._controllers import Learner

    grid = np.array(list(itertools.product(range(2), range(2))))
    gaps = {}
    for controller in ("lstm", "softmax"):
        learner = Learner((2, 2), ReinforceConfig(controller, hidden=8, learning_rate=0.05))
        for _ in range(30):
            learner.learn(grid, (grid[:, 0] == grid[:, 1]).astype(float), np.ones(4, bool))
        with torch.no_grad():
            shares = learner._score(torch.from_numpy(grid))[0].exp().numpy().reshape(2, 2)
        gaps[controller] = (shares / shares.sum(1, keepdims=True))[:, 0] @ [1, -1]
    assert gaps["lstm"] > 0.8
    assert gaps["softmax"] == pytest.approx(0.0, abs=1e-5)


def test_the_policy_learns_to_keep_measured_constraints() -> None:
    study = start("softmax", 1, objectives=("acc",), constraints=[Constraint("size", at_most=7.0)])
    study.run(lambda a: {"acc": float(sum(a)), "size": float(sum(a))}, 72)
    kept = [study.is_feasible(q) for q in study.history.queries]
    assert np.mean(kept[-32:]) > np.mean(kept[:16]) + 0.1


def test_a_space_without_choices_is_refused() -> None:
    with pytest.raises(CGError, match="toy has no choices"):
        Study(toy.ToySpace(), STRATEGIES["reinforce"]()).ask()
    space = get_space("nats-size")
    for call in (lambda: SearchSpace.choices(space), lambda: SearchSpace.from_choices(space, ()),
                 lambda: SearchSpace.to_choices(space, ())):
        with pytest.raises(CGError, match="nats-size does not write its genomes as a list of choices"):
            call()


SPACES = ["nasbench101", "nasbench201", "nasbench301", "nats-size", "ofa-mbv3", "ofa-proxyless", "ofa-resnet50", "proxylessnas"]


@pytest.mark.parametrize("name", SPACES)
def test_choices_write_every_genome(name: str) -> None:
    space, rng = get_space(name), np.random.default_rng(3)
    options = np.array(space.choices())
    n_valid = 0
    for _ in range(100):
        a = space.sample(rng)
        choices = np.array(space.to_choices(a))
        assert choices.shape == options.shape
        assert ((choices >= -1) & (choices < options)).all()
        filled = np.where(choices < 0, rng.integers(options), choices)  # what means nothing may be anything
        assert space.key(space.from_choices(filled.tolist())) == space.key(a) or name == "nasbench101"
        if name == "nasbench101" and a.vertices == 7:
            assert space.from_choices(choices.tolist()) == a
        made = space.from_choices(rng.integers(options))
        if space.is_valid(made):
            n_valid += 1
            again = np.array(space.to_choices(made))
            assert space.key(space.from_choices(np.maximum(again, 0).tolist())) == space.key(made)
    assert n_valid > (10 if name == "nasbench101" else 90)


def test_reinforce_runs_on_a_real_space() -> None:
    space = get_space("nasbench201")
    study = Study(space, Reinforce(ReinforceConfig("softmax", batch_size=10)), seed=0, key=space.encode)
    study.run(lambda a: float(a.count(3)), 80)
    assert last(study) > np.mean([q.value for q in study.history.queries[:20] if q.value is not None]) + 0.5
