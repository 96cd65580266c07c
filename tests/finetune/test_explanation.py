"""``explain``, ``novelty``, ``doubts``: effects that are true differences, distances that tell families apart, plain words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cg import GraphSet
from cg.errors import CGError
from cg.global_statistics import GROUPS, STATISTICS, statistics
from evo_search import get_space, targets
from finetune import CGPredictor
from finetune.explanation import FAR


@pytest.fixture(scope="module")
def pool() -> GraphSet:
    full = targets.pool("nasbench201")
    return full.take(np.random.default_rng(11).permutation(len(full))[:300].tolist())


@pytest.fixture(scope="module")
def fitted(pool: GraphSet) -> CGPredictor:
    return CGPredictor(None, ["nasbench101"]).fit(pool.graphs[:40], pool.label()[:40])


def test_effects_are_what_the_score_loses(pool: GraphSet, fitted: CGPredictor) -> None:
    graph = pool.graphs[60]
    found = fitted.explain(graph, effects=5)
    score, std = fitted.predict([graph], return_std=True)
    assert found.score == pytest.approx(score[0])
    assert found.std == pytest.approx(std[0])
    assert len(found.statistics) == 5
    effects = [abs(e.effect) for e in found.statistics]
    assert effects == sorted(effects, reverse=True)
    first = found.statistics[0]
    row = statistics([graph]).astype(np.float64)
    column = STATISTICS.index(first.name)
    assert row[0, column] == pytest.approx(first.value)
    row[0, column] = first.typical
    assert fitted.scale_ is not None
    without = fitted.scale_.to_labels(fitted.score_rows(row, graph)[0])[0]
    assert first.effect == pytest.approx(score[0] - without)
    assert {e.name for e in found.groups} <= set(GROUPS)


def test_neighbours_are_the_nearest_and_bear_their_labels(pool: GraphSet, fitted: CGPredictor) -> None:
    found = fitted.explain(pool.graphs[60], neighbours=4)
    assert len(found.labelled) == len(found.known) == 4
    assert [n.distance for n in found.labelled] == sorted(n.distance for n in found.labelled)
    assert {n.family for n in found.known} == {"nasbench101"}
    by_name = {g.name: y for g, y in zip(pool.graphs[:40], pool.label()[:40], strict=True)}
    assert all(by_name[n.name] == n.label for n in found.labelled)
    assert found.novelty == pytest.approx(fitted.novelty([pool.graphs[60]])[0])
    itself = fitted.explain(pool.graphs[3])
    assert itself.labelled[0].name == pool.graphs[3].name
    assert itself.novelty == pytest.approx(0.0, abs=1e-3)


def test_explanation_can_be_read_and_stored(pool: GraphSet, fitted: CGPredictor) -> None:
    found = fitted.explain(pool.graphs[60])
    text = str(found)
    assert "nearest labelled" in text
    nearest = found.known[0]
    below = 100 * float((fitted.sources_[0].scores < nearest.label).mean())
    (line,) = (row for row in text.splitlines() if row.endswith(f"{nearest.distance:.2f}  {nearest.family} {nearest.name}"))
    assert float(line.split("%")[0]) == pytest.approx(below, abs=1)
    assert found.statistics[0].name in text
    assert json.loads(json.dumps(found.to_dict()))["score"] == found.score


def test_novelty_tells_other_families_from_the_labelled_one(pool: GraphSet, fitted: CGPredictor) -> None:
    own = fitted.novelty(pool.graphs[40:])
    assert 0.5 < np.median(own) < 1.5
    assert (own > FAR).mean() < 0.03
    space, rng = get_space("ofa-mbv3"), np.random.default_rng(0)
    assert (fitted.novelty([space.to_graph(space.sample(rng)) for _ in range(20)]) > FAR).all()
    assert (fitted.novelty(targets.pool("nasbench301").graphs[:20]) > FAR).all()


def test_nothing_is_doubted_where_labels_agree_and_networks_are_near(pool: GraphSet, fitted: CGPredictor) -> None:
    near = [g for g, n in zip(pool.graphs[40:], fitted.novelty(pool.graphs[40:]), strict=True) if n < FAR]
    assert fitted.doubts(near) == []


def test_doubts_name_what_is_wrong(pool: GraphSet) -> None:
    graphs, y = list(pool.graphs[:40]), pool.label()[:40].copy()
    rng = np.random.default_rng(3)
    noise = CGPredictor(None, ()).fit(graphs, rng.permutation(y)).doubts()
    assert any("40 labels are not enough" in d for d in noise)
    twin = graphs[0].with_(name="twin")
    double = CGPredictor(None, ()).fit([*graphs, twin], [*y, y[0] - 3 * y.std()]).doubts()
    assert any("contradict" in d and "'twin'" in d for d in double)
    assert not any("contradict" in d for d in CGPredictor(None, ()).fit([*graphs, twin], [*y, y[0]]).doubts())
    space = get_space("ofa-mbv3")
    stranger = space.to_graph(space.sample(rng)).with_(name="stranger")
    far = CGPredictor(None, ()).fit(graphs, y).doubts([graphs[1], stranger])
    assert any("1 of 2" in d and "'stranger'" in d for d in far)


def test_without_labels_the_expected_agreement_is_told(pool: GraphSet) -> None:
    model = CGPredictor(None, ["nasbench301"]).fit([], [], unlabelled=pool.graphs)
    assert "there are no labels" in model.doubts(pool.graphs)[0]
    with pytest.raises(CGError, match="without labels"):
        model.explain(pool.graphs[0])
    with pytest.raises(CGError, match="there are none"):
        model.novelty(pool.graphs[:1])


def test_unfitted_predictor_explains_nothing(pool: GraphSet) -> None:
    with pytest.raises(CGError, match="not been fitted"):
        CGPredictor().explain(pool.graphs[0])


def test_fast_leaves_the_default_sources_out(pool: GraphSet) -> None:
    model = CGPredictor(fast=True).fit(pool.graphs[:30], pool.label()[:30])
    assert model.sources_ == []
    assert len(CGPredictor(sources=["nasbench101"], fast=True).fit(pool.graphs[:30], pool.label()[:30]).sources_) == 1
