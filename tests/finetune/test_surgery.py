"""``benchmarks/surgery.py``: sets tested, stages, resuming, tables; and the rankers that it measures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.baselines.pairs import pair_hinge

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import _record  # scripts, not a package
import _surgery_tables
import surgery

from evo_search import get_space, tables
from finetune import metrics
from finetune.baselines import CostScore


@pytest.fixture(scope="module")
def space() -> surgery.Space:
    return surgery.Space()


def test_pair_hinge_equals_brute_force_and_leaves_ties_out() -> None:
    rng = np.random.default_rng(0)
    s, y = rng.normal(size=12) / 5, rng.integers(0, 4, 12).astype(float)
    losses = [max(0.0, 0.1 - (s[i] - s[j])) for i in range(12) for j in range(12) if y[i] > y[j]]
    found = pair_hinge(torch.tensor(s), torch.tensor(y), 0.1)
    assert float(found) == pytest.approx(np.mean(losses))
    assert float(pair_hinge(torch.tensor(s), torch.ones(12), 0.1)) == 0


def test_multiply_adds_are_those_of_the_graph_where_every_operation_is_live(space: surgery.Space) -> None:
    where, table = get_space("nasbench201"), tables.load("nasbench201")
    cells = [where.cell(where.decode(table.encoded(i))) for i in range(table.n)]
    known = [(cell, int(macs), g.macs) for cell, macs, g in zip(cells, space.macs, space.graphs, strict=True) if g]
    live = [(macs, exact) for cell, macs, exact in known if "none" not in cell.ops]
    assert len(live) == 4**6
    assert all(macs == exact for macs, exact in live)
    assert all(macs >= exact for _, macs, exact in known)
    assert len(set(space.macs.tolist())) == 28
    full = cells[int(np.argmax(space.macs))].ops
    assert full.count("nor_conv_3x3") == 6


def test_all_architectures_are_there_and_those_without_a_path_are_one_class(space: surgery.Space) -> None:
    assert (space.n, int(space.valid.sum())) == (15_625, 15_284)
    assert len(set(space.isomorphic[~space.valid])) == 1
    assert not np.isin(space.isomorphic[space.valid], space.isomorphic[~space.valid]).any()
    assert (space.y[~space.valid] == 10).all()
    assert np.isfinite(space.y).all()


def test_new_leaves_out_the_labelled_and_whatever_computes_the_same(space: surgery.Space) -> None:
    where, table = get_space("nasbench201"), tables.load("nasbench201")

    def row(*ops: int) -> int:
        return table.row(where.encode(ops))

    # EDGES are 01 02 12 03 13 23: a convolution on the way 0-1-3 or 0-2-3, the other edge of the way a skip
    twins = [row(3, 0, 0, 0, 1, 0), row(0, 3, 0, 0, 0, 1), row(1, 0, 0, 0, 3, 0), row(0, 0, 0, 3, 0, 0)]
    other = row(2, 0, 0, 0, 1, 0)
    new = space.new(np.array(twins[:1]))
    assert not new[twins].any()
    assert new[other]
    assert not space.new(np.flatnonzero(~space.valid)[:1])[~space.valid].any()
    assert set(space.draw(39, 7)) < set(space.draw(78, 7))


def test_judge_on_the_truth_and_on_its_opposite(space: surgery.Space) -> None:
    labelled = np.flatnonzero(space.valid)[::400]
    best, worst = surgery.judge(space, labelled, space.y), surgery.judge(space, labelled, -space.y)
    assert best["all"]["n"] == 15_625
    assert best["new"]["n"] == space.new(labelled).sum() > best["valid"]["n"]
    for name in surgery.SETS:
        assert best[name]["kendall"] == pytest.approx(1)
        assert best[name]["p@0.001"] == pytest.approx(1)
        assert best[name]["br@0.001"] == pytest.approx(1 / best[name]["n"])
        assert worst[name]["spearman"] == pytest.approx(-1)
        assert worst[name]["p@0.05"] == 0
    assert best["valid"]["kendall_equal_macs"] == pytest.approx(1)
    assert sum(g["n"] for g in best["groups"]) == best["valid"]["n"]
    assert max(abs(g["rank_difference"]) for g in best["groups"]) < 1e-12
    by_cost = surgery.judge(space, labelled, space.macs.astype(float))
    assert by_cost["valid"]["kendall_equal_macs"] == 0
    sizes = [g["rank_difference"] for g in by_cost["groups"]]
    assert sizes[0] < 0 < sizes[-1]  # cost over-estimates the dear and under-estimates the cheap


@pytest.mark.parametrize("first", [True, False])
def test_scores_for_graphs_only_are_judged_on_graphs_only(space: surgery.Space, first: bool) -> None:
    """Whether or not the labelled ones happen to leave only graphs to test."""
    p = np.where(space.valid, space.y, np.nan)
    found = surgery.judge(space, np.flatnonzero(space.valid == first)[:1], p)
    assert {*surgery.SETS} & {*found} == {"valid"}
    assert found["valid"]["kendall"] == pytest.approx(1)


def test_stages_take_the_best_scored_and_each_class_once(space: surgery.Space) -> None:
    labelled = space.draw(16, 3)
    p = np.full(space.isomorphic.max() + 1, -np.inf)
    np.maximum.at(p, space.isomorphic, space.y)
    p = p[space.isomorphic]  # equal networks have equal scores
    chosen = surgery.pick(space, labelled, p, 2000)  # the very best have no twins
    classes = space.isomorphic[chosen]
    assert len(set(classes)) == 2000
    assert not np.isin(classes, space.isomorphic[labelled]).any()
    left = space.new(labelled) & ~np.isin(space.isomorphic, classes)
    assert p[chosen].min() >= p[left].max()
    only_graphs = surgery.pick(space, labelled, np.where(space.valid, space.y, np.nan), 5000)
    assert (~space.valid[only_graphs]).sum() <= 1  # no score comes last, and all without a path are one class


def test_oracle_finds_the_best_in_its_second_stage(space: surgery.Space, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def oracle(s: surgery.Space, labelled: np.ndarray, seed: int) -> surgery.Scores:
        seen.append(len(labelled))
        return s.y.copy(), 1.0, 2.0

    monkeypatch.setitem(surgery.PREDICTORS, "oracle", oracle)
    row = surgery.by_stages(space, "oracle", 78, 5)
    assert seen == [s["n_labels"] for s in row["stages"]] == [16, 31, 47, 62, 78]
    assert (row["fit_s"], row["predict_s"]) == (5, 10)
    first, second, *rest = row["stages"]
    assert first["best_accuracy"] == space.y[space.draw(16, 5)].max()
    assert second["best_rank"] == 1
    assert second["best_accuracy"] == space.y.max()
    means = [s["mean_accuracy"] for s in (second, *rest)]
    assert means == sorted(means, reverse=True)


def test_learned_scores_follow_the_labels_they_were_given(space: surgery.Space) -> None:
    p, fit_s, predict_s = surgery.PREDICTORS["native-ridge"](space, space.draw(100, 11), 0)
    assert np.isfinite(p).all()
    assert metrics.spearman(space.y, p) > 0.6
    assert fit_s > 0
    assert predict_s > 0


def test_graph_predictors_learn_from_graphs_only(space: surgery.Space) -> None:
    class Cost(CostScore):
        def fit(self, graphs: Any, y: Any) -> Cost:
            seen.extend(zip(graphs, y, strict=True))
            return self

    seen: list[Any] = []
    labelled = np.concatenate([space.draw(20, 0), np.flatnonzero(~space.valid)[:3]])
    p, _, _ = surgery._learned("graphs", lambda seed: Cost("macs"))(space, labelled, 0)
    np.testing.assert_array_equal(np.isfinite(p), space.valid)
    kept = labelled[space.valid[labelled]]
    assert [g.name for g, _ in seen] == [space.cells[i].name for i in kept]
    assert [y for _, y in seen] == space.y[kept].tolist()
    assert all(p[i] == g.macs for i, g in enumerate(space.graphs) if g)


def test_a_killed_run_goes_on_and_the_tables_read_it(space: surgery.Space, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def random(s: surgery.Space, labelled: np.ndarray, seed: int) -> surgery.Scores:
        calls.append(f"{len(labelled)} {seed}")
        return np.random.default_rng(seed).random(s.n), 0.5, 0.25

    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    monkeypatch.setattr(_record, "ROOT", tmp_path)
    monkeypatch.setattr(_record, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(surgery, "Space", lambda: space)
    monkeypatch.setitem(surgery.PREDICTORS, "random", random)
    command = ["surgery.py", "--predictor", "random", "--predictor", "macs", "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--part", "labels", "--labels", "39,390"])
    threads = torch.get_num_threads()
    surgery.main()
    assert calls == ["39 1000", "39 1001", "390 1000", "390 1001"]
    store = tmp_path / "runs" / "surgery.jsonl"
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[:-1]) + lines[-1][:40])  # killed while it wrote the last row
    calls.clear()
    surgery.main()
    assert calls == []  # the last row is one of "macs"
    assert [json.loads(line)["seed"] for line in store.read_text().splitlines()] == [1000, 1001] * 4
    monkeypatch.setattr(sys, "argv", [*command, "--part", "labels", "--part", "stages", "--labels", "39,390"])
    surgery.main()
    torch.set_num_threads(threads)
    assert len(calls) == 20

    results = tmp_path / "benchmarks" / "results"
    body = json.loads((results / "surgery.json").read_text())
    assert len(body["rows"]) == 16
    made = {name: make(results) for name, make in _surgery_tables.TABLES.items()}
    for name, (header, found) in made.items():
        assert all(len(line) == len(header) for line in found), name
        assert bool(found) == (name not in ("surgery_top_78", "surgery_top_781")), name
    header, (first, second) = made["surgery_kendall"]
    assert header[:3] == ("predictor", "39 labels", "390 labels")
    taus = [r["valid"]["kendall"] for r in body["rows"]
            if (r["part"], r["predictor"], r["n_labels"]) == ("labels", "macs", 390)]
    assert first[0] == "`macs`"
    assert first[2] == f"{np.mean(taus):.3f} ± {np.std(taus, ddof=1):.3f}"
    assert second[-2:] == ("0.5", "0.25")
    _, found = made["surgery_groups"]
    assert found[0][0] in ("`macs`", "`random`")
    assert made["surgery_stages"][1][0][0] == 39


def test_no_results_no_table(tmp_path: Path) -> None:
    for make in _surgery_tables.TABLES.values():
        found: Any = make(tmp_path)[1]
        assert found == []
