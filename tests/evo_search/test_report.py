"""The report: the numbers are what they say, and the page holds all of them and needs nothing else."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from contrastive import EncoderConfig, pretrain
from evo_search import tables
from evo_search._cache import Cache, code_hash
from evo_search.demo import METHOD, DemoConfig, compute, write
from evo_search.export import export
from evo_search.report import Curve, Points, ReportData, Score
from evo_search.report_page import map_figure, page, scatter_figure, score_figure, search_figure


def made_up() -> ReportData:
    """Two methods with two draws, two strategies with two seeds, four networks; means are easy to do in the head."""
    scores = [Score("ours", 0, 0.9, 0.7, 1.0, 2.0), Score("ours", 1, 0.8, 0.6, 3.0, 2.0),
              Score("params", 0, 0.5, 0.4, 0, 0), Score("params", 1, 0.7, 0.5, 0, 0)]
    curves = [Curve("guided evolution", 0, (90.0, 92.0, 94.0), "a", 94.0),
              Curve("guided evolution", 1, (91.0, 91.0, 93.0), "b", 93.0),
              Curve("random search", 0, (90.0, 90.0, 91.0), "c", 91.0),
              Curve("random search", 1, (88.0, 90.0, 90.0), "d", 90.0)]
    points = Points(("a", "b", "</script><b>", "d"), (94.0, 93.0, 91.0, 90.0), (3.0, 2.0, 1.0, 0.0), (0.0, 1.0, 2.0, 3.0),
                    (0.0, 0.0, 1.0, 1.0), (False, True, False, False))
    config = {"target": "toy", "n_labels": 1, "draws": 2, "seed": 0, "sources": ["x"], "budget": 3, "method": "ours"}
    best = {"id": "a", "value": 94.0, "macs": 1, "params": 2, "nodes": 3}
    return ReportData(config, "accuracy, %", 4, (3, 3), tuple(scores), points, "PCA", tuple(curves), 94.0, best, "<svg></svg>",
                      {"graphs": 0.5}, ("graphs",), {"python": "3"})


def test_summary_is_mean_and_sample_deviation_best_first() -> None:
    first, second = made_up().summary()
    assert (first["method"], second["method"]) == ("ours", "params")
    assert first["spearman"] == pytest.approx(0.85)
    assert first["spearman_std"] == pytest.approx(0.1 / np.sqrt(2))  # |0.9 - 0.8| / sqrt 2
    assert first["fit_s"] == 2.0
    assert second["kendall"] == pytest.approx(0.45)
    one = replace(made_up(), scores=made_up().scores[:1]).summary()[0]
    assert one["spearman_std"] == 0.0


def test_search_summary_counts_the_optimum() -> None:
    guided, random = made_up().searches()
    assert (guided["mean"], guided["worst"], guided["best"], guided["optimum_found"], guided["seeds"]) == (93.5, 93, 94, 1, 2)
    assert random["optimum_found"] == 0
    np.testing.assert_allclose(made_up().band("random search"), [[89, 90, 90.5], [88, 90, 90], [90, 90, 91]])


@pytest.mark.parametrize("make", [scatter_figure, score_figure, search_figure, map_figure])
def test_figures_are_valid_plotly(make: object) -> None:
    figure = make(made_up())  # type: ignore[operator]
    json.dumps(figure, allow_nan=False)
    go.Figure(figure)  # raises on a property that does not exist


def test_scatter_shows_every_network_once() -> None:
    seen, labelled = scatter_figure(made_up())["data"]
    assert list(seen["text"]) == ["a", "</script><b>", "d"]
    assert (labelled["x"], labelled["y"]) == ([93.0], [2.0])


def test_map_is_coloured_by_rank() -> None:
    marker = map_figure(made_up())["data"][0]["marker"]
    np.testing.assert_allclose(marker["color"], [100, 200 / 3, 100 / 3, 0])


def test_page_is_whole_and_safe() -> None:
    text = page(made_up())
    body = re.sub(r"<script>/\*.*?</script>", "", text, count=1, flags=re.S)  # without plotly.js
    assert len(body) < 60_000
    assert "</script><b>" not in body
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", body)
    assert 'name="viewport"' in body
    assert "prefers-color-scheme:dark" in body
    assert "0.850 ± 0.071" in body
    assert "1 of 2" in body
    for name in ("fig-scores", "fig-scatter", "fig-search", "fig-map"):
        assert f'id="{name}"' in body
        assert f'"{name}": {{' in body
    figures = json.loads(re.search(r"const FIGURES=(\{.*\});\n", body).group(1))  # type: ignore[union-attr]
    assert len(figures["fig-scatter"]["data"]) == 2


def test_json_holds_everything_but_the_picture(tmp_path: Path) -> None:
    paths = write(made_up(), tmp_path / "out")
    assert [p.name for p in paths] == ["report.html", "report.json"]
    found = json.loads(paths[1].read_text())
    assert found["summary"][0]["spearman"] == pytest.approx(0.85)
    assert found["curves"][1]["values"] == [91.0, 91.0, 93.0]
    assert found["points"]["ids"][3] == "d"
    assert "best_svg" not in found


# -- the cache ---------------------------------------------------------------------------------------------------


def test_cache_is_read_only_when_it_is_whole(tmp_path: Path) -> None:
    def value(cache: Cache, key: str, number: float) -> float:
        return float(cache.arrays("x", (key,), lambda: {"x": np.array([number])})["x"][0])

    assert value(Cache(tmp_path), "k", 1.0) == 1.0
    again = Cache(tmp_path)
    assert value(again, "k", 2.0) == 1.0
    assert (again.reused, again.made) == (["x"], [])
    assert value(Cache(tmp_path, enabled=False), "k", 3.0) == 3.0
    assert value(Cache(tmp_path), "k", 4.0) == 1.0
    file = next(p for p in tmp_path.iterdir() if p.suffix == ".npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    damaged = Cache(tmp_path)
    assert value(damaged, "k", 5.0) == 5.0
    assert damaged.made == ["x"]
    assert value(Cache(tmp_path), "k", 6.0) == 5.0
    assert value(Cache(tmp_path), "another", 7.0) == 7.0
    assert len(list(tmp_path.iterdir())) == 2  # the entry of the old key is gone


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    cache = Cache(tmp_path / "file" / "inside")
    assert cache.arrays("x", (1,), lambda: {"x": np.ones(2)})["x"].sum() == 2


def test_code_hash_follows_the_sources() -> None:
    assert code_hash("cg") == code_hash("cg") != code_hash("evo_search")


# -- the real thing, small ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportData, DemoConfig, Path]:
    folder = tmp_path_factory.mktemp("cache")
    tiny = EncoderConfig(name="tiny", hidden=16, gnn_layers=2, embedding=8, projection=8, batch_graphs=8, steps=3)
    pretrain([export("nasbench101", 20, seed=0)], folder / "encoder", tiny)
    config = DemoConfig(networks=150, draws=1, searches=1, budget=25, drawn=50, n_labels=30, sources=(),
                        encoder=str(folder / "encoder"))
    return compute(config, Cache(folder)), config, folder


def test_small_job_gives_true_numbers(small: tuple[ReportData, DemoConfig, Path]) -> None:
    from scipy.stats import spearmanr

    data, config, _ = small
    table = tables.load("nasbench201")
    assert data.networks == 150
    assert 50 <= len(data.points.ids) <= 80
    assert sum(data.points.labelled) == config.n_labels
    np.testing.assert_allclose(data.points.true, [table.lookup(i) for i in data.points.ids])
    rows = {r["method"]: r for r in data.summary()}
    assert set(rows) == {METHOD, "trees on statistics", "parameters", "MACs"}
    assert rows[METHOD]["spearman"] > 0.6
    unseen = [i for i, known in enumerate(data.points.labelled) if not known]
    shown = spearmanr(np.array(data.points.true)[unseen], np.array(data.points.predicted)[unseen]).statistic
    assert shown == pytest.approx(rows[METHOD]["spearman"], abs=0.15)  # a sample of the same networks
    assert data.unseen[0] <= 120
    for curve in data.curves:
        assert curve.best_value == table.lookup(curve.best) == max(curve.values)
        assert len(curve.values) == 25
    assert data.best["value"] <= data.best_possible == pytest.approx(94.3733, abs=1e-3)


def test_second_run_reuses_and_agrees(small: tuple[ReportData, DemoConfig, Path]) -> None:
    first, config, folder = small
    cache = Cache(folder)
    second = compute(config, cache)
    assert set(second.reused) == {"graphs-nasbench201-150", "embeddings-nasbench201-150"}
    assert first.reused == ()
    assert second.points == first.points
    assert second.curves == first.curves
    assert [(s.method, s.spearman) for s in second.scores] == [(s.method, s.spearman) for s in first.scores]
