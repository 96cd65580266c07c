"""The command line, each command on small real data: results, JSON, errors, and help that can be pasted."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cg.cli import build
from cg.graphset import GraphSet
from evo_search import get_space, tables

APP = build()
COMMANDS = sorted(c.name for c in APP.registered_commands if c.name is not None)
CELL = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"


def cg(*args: Any, app: typer.Typer = APP, code: int = 0) -> Any:
    """Run a command; the exit code must be ``code``."""
    result = CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == code, f"{args}: exit {result.exit_code}\n{result.stderr}\n{result.stdout}"
    return result


def cg_json(*args: Any) -> Any:
    """Standard output as JSON: it must hold nothing else."""
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not strict JSON")

    return json.loads(cg(*args, "--json").stdout, parse_constant=refuse)


def cg_error(*args: Any, match: str) -> None:
    """One line on stderr with exit code 2, nothing on stdout."""
    result = cg(*args, code=2)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert match in lines[0]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 NAS-Bench-201 graphs with labels, 30 of them in a CSV, and 20 DARTS graphs."""
    folder = tmp_path_factory.mktemp("cli")
    cg("export", "nasbench201", "-o", folder / "g.parquet", "--n", 80, "--labels-csv", folder / "labels.csv",
       "--n-labels", 30)
    cg("export", "nasbench301", "-o", folder / "darts.parquet", "--n", 20)
    return folder


@pytest.fixture(scope="module")
def encoder(data: Path) -> Path:
    """An encoder after two steps: enough to have the right form."""
    cg("pretrain", data / "g.parquet", data / "darts.parquet", "-o", data / "encoder", "--steps", 2)
    return data / "encoder"


@pytest.fixture(scope="module")
def predictor(data: Path, encoder: Path) -> Path:
    cg("finetune", "--encoder", encoder, "--graphs", data / "g.parquet", "--labels", data / "labels.csv", "-o",
       data / "predictor", "--sources", "none")
    return data / "predictor"


# -- the frame ---------------------------------------------------------------------------------------------------


def test_all_commands_are_there() -> None:
    assert {"spaces", "export", "show", "pretrain", "finetune", "predict", "evaluate", "search", "demo"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_parses(name: str) -> None:
    last = [line.strip() for line in cg(name, "--help").stdout.splitlines() if line.strip()][-1]
    assert last.startswith("Example: cg ")
    words = shlex.split(last.removeprefix("Example: cg "))
    assert words[0] == name
    command = typer.main.get_command(APP).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, words[1:])  # raises on an option or argument that does not exist
    with pytest.raises(Exception, match="no-such-option"):
        command.make_context(name, [*words[1:], "--no-such-option"])


def test_help_imports_nothing_heavy() -> None:
    code = ("import sys\nfrom cg.cli import build\nbuild()\n"
            "print([m for m in ('torch', 'numba', 'pyarrow', 'sklearn', 'scipy', 'plotly', 'faiss') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    heavy = subprocess.run([sys.executable, "-c", f"import pyarrow\n{code}"], capture_output=True, text=True, check=True)
    assert heavy.stdout.strip() == "['pyarrow']"  # the check can fail


def test_version() -> None:
    from cg import __version__

    assert cg("--version").stdout.strip() == f"cgtransfer {__version__}"


def test_broken_plug_in_is_one_line_and_breaks_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("x", "no_such_package.cli:register", "cg.commands")
    good = EntryPoint("graphs", "cg.commands:register", "cg.commands")

    def half(app: typer.Typer) -> None:
        app.command("half")(lambda: None)
        raise RuntimeError("lost\nits way")

    app = build([broken, half, good])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "no_such_package.cli:register" in lines[0]
    assert "RuntimeError: lost its way" in lines[1]
    assert [c.name for c in app.registered_commands] == ["show"]


def test_name_that_is_taken_stays_with_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    def first(app: typer.Typer) -> None:
        @app.command()
        def same_name() -> None:
            print("first")

    def second(app: typer.Typer) -> None:
        @app.command("same-name")
        def other() -> None:
            print("second")

    app = build([first, second])
    assert "'same-name' exists already" in capsys.readouterr().err
    assert cg("same-name", app=app).stdout == "first\n"


def test_unexpected_error_keeps_its_traceback() -> None:
    def register(app: typer.Typer) -> None:
        @app.command()
        def crash() -> None:
            raise KeyError("a bug")

    result = CliRunner().invoke(build([register]), ["crash"])
    assert isinstance(result.exception, KeyError)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from cg.errors import CGError

    monkeypatch.setenv("CG_DEBUG", "1")
    assert isinstance(CliRunner().invoke(APP, ["show", "nothing.parquet"]).exception, CGError)


@pytest.mark.parametrize("args", [["no-such-command"], ["export", "nasbench201"], ["spaces", "--no-such-option"],
                                  ["export", "nasbench201", "-o", "x", "--n", "many"]])
def test_usage_error_exits_with_2(args: list[str]) -> None:
    assert cg(*args, code=2).stderr


@pytest.mark.parametrize(("package", "command"), [("cg", "search"), ("contrastive", "pretrain"), ("finetune", "predict"),
                                                  ("evo_search", "evaluate")])
def test_packages_run_as_modules(package: str, command: str) -> None:
    done = subprocess.run([sys.executable, "-m", package, "--help"], capture_output=True, text=True, check=True)
    assert command in done.stdout
    assert package == "cg" or "Show one graph" not in done.stdout


# -- graphs ------------------------------------------------------------------------------------------------------


def test_spaces() -> None:
    found = {r["name"]: r for r in cg_json("spaces")}
    assert found["nasbench201"]["table_rows"] == 15625
    assert found["nasbench101"]["table_rows"] == 423624
    assert found["nasbench201-imagenet16"]["input_shape"] == [1, 3, 16, 16]
    assert "nasbench301" in cg("spaces").stdout


def test_export_gives_table_rows_with_their_labels(data: Path) -> None:
    found = GraphSet.read(data / "g.parquet")
    table = tables.load("nasbench201")
    assert len(found) == 80
    assert set(found.families) == {"nasbench201"}
    np.testing.assert_array_equal(found.labels["test_acc"], [table.lookup(i) for i in found.ids])
    with (data / "labels.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "test_acc"]
    assert [(i, float(v)) for i, v in rows[1:]] == [(i, table.lookup(i)) for i in found.ids[:30]]


def test_export_depends_on_the_seed_alone(tmp_path: Path) -> None:
    ids = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert cg_json("export", "nasbench101", "-o", tmp_path / name, "--n", 5, "--seed", seed)["graphs"] == 5
        ids.append(GraphSet.read(tmp_path / name).ids)
    assert ids[0] == ids[1] != ids[2]


def test_export_errors_leave_nothing_behind(tmp_path: Path) -> None:
    cg_error("export", "nasbench2O1", "-o", tmp_path / "g.parquet", match="did you mean 'nasbench201'?")
    (tmp_path / "file").write_text("x")
    cg_error("export", "nasbench201", "-o", tmp_path / "file" / "g.parquet", "--n", 2, match="cannot write")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size gives the write error of a full disk, in a process of its own."""
    code = ("import resource, sys; from cg.cli import main\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "sys.argv = ['cg', 'export', 'nasbench201', '-o', 'g.parquet', '--n', '300']\nmain()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stderr
    assert "error: cannot write g.parquet" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_show_gives_the_totals_of_the_graph(data: Path, tmp_path: Path) -> None:
    graphs = GraphSet.read(data / "g.parquet")
    for text, g in ((data / "g.parquet", graphs[0]), (f"{data / 'g.parquet'}:7", graphs[7])):
        found = cg_json("show", text)
        assert (found["fingerprint"], found["macs"], found["params"]) == (g.digest, g.macs, g.params)
        assert sum(r["macs"] for r in found["ops"]) == g.macs
    out = cg("show", f"nasbench201:{CELL}", "--html", tmp_path / "n.html", "--svg", tmp_path / "n.svg").stdout
    space = get_space("nasbench201")
    assert f"{space.to_graph(space.decode(CELL)).macs:,}" in out
    assert "Conv" in out
    assert (tmp_path / "n.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "n.svg").read_text().count("×5</text>") == 3


@pytest.mark.parametrize(("text", "match"), [
    ("nothing.parquet", "neither a file"), ("nasbench201:|what~0|", "parts joined"), ("nospace:abc", "neither a file")])
def test_show_errors(text: str, match: str) -> None:
    cg_error("show", text, match=match)


def test_show_refuses_a_row_that_is_not_there_and_a_file_of_something_else(data: Path, tmp_path: Path) -> None:
    cg_error("show", f"{data / 'g.parquet'}:80", match="80 graphs, so no row 80")
    (tmp_path / "x.parquet").write_bytes((data / "g.parquet").read_bytes()[:2000])
    cg_error("show", tmp_path / "x.parquet", match="x.parquet cannot be read")


# -- learning ----------------------------------------------------------------------------------------------------


def test_pretrain_writes_an_encoder(encoder: Path) -> None:
    from contrastive import load_encoder

    assert load_encoder(encoder).config.name == "default"


def test_pretrain_errors(data: Path, tmp_path: Path) -> None:
    cg_error("pretrain", data / "missing.parquet", "-o", tmp_path / "e", match="no such file")
    cg_error("pretrain", data / "g.parquet", "-o", tmp_path / "e", "--config", "papr", match="'papr'")
    assert list(tmp_path.iterdir()) == []


def test_predictor_ranks_what_it_has_not_seen(data: Path, predictor: Path, tmp_path: Path) -> None:
    from scipy.stats import spearmanr

    graphs = GraphSet.read(data / "g.parquet")
    found = cg_json("predict", "--predictor", predictor, "--graphs", data / "g.parquet", "-o", tmp_path / "s.csv", "--std")
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows] == list(graphs.ids)
    assert [(r["id"], float(r["score"]), float(r["std"])) for r in rows] == [
        (s["id"], s["score"], s["std"]) for s in found["scores"]]
    assert all(float(r["std"]) >= 0 for r in rows)
    scores = np.array([float(r["score"]) for r in rows])
    assert spearmanr(scores[30:], graphs.labels["test_acc"][30:]).statistic > 0.6


def test_predict_prints_the_best_first(data: Path, predictor: Path) -> None:
    found = cg_json("predict", "--predictor", predictor, "--graphs", data / "g.parquet")["scores"]
    best = max(found, key=lambda r: float(r["score"]))["id"]
    assert f"│ 1    │ {best}" in cg("predict", "--predictor", predictor, "--graphs", data / "g.parquet", "--top", 1).stdout


@pytest.mark.parametrize(("text", "match"), [
    ("", "the first line must be 'id,<metric>'"),
    ("name,acc\nA,1\n", "the first line must be 'id,<metric>'"),
    ("id,acc\n", "no labels"),
    ("id,acc\nA,1\nB,nan\n", "line 3: the value of id 'B' is 'nan'"),
    ("id,acc\nA,1\nB,\n", "line 3: the value of id 'B' is ''"),
    ("id,acc\nA,1\nA,2\n", "line 3: id 'A' occurs twice"),
    ("id,acc\nA,1\nnobody,2\n", "line 3: id 'nobody' is not among the 80 graphs"),
    ("id,acc\nA,1\nB\n", "line 3: 1 columns where the header has 2"),
    ("id,acc,loss\nA,1,2\n", "say which one is meant"),
    ("id,acc\nA,1\n", ""),
])
def test_bad_labels_are_refused_by_line_and_id(data: Path, encoder: Path, tmp_path: Path, text: str, match: str) -> None:
    ids = GraphSet.read(data / "g.parquet").ids
    for short, full in (("A", ids[0]), ("B", ids[1])):
        text = text.replace(f"\n{short}", f"\n{full}")
        match = match.replace(f"'{short}'", repr(full))
    (tmp_path / "l.csv").write_text(text)
    cg_error("finetune", "--encoder", encoder, "--graphs", data / "g.parquet", "--labels", tmp_path / "l.csv", "-o",
             tmp_path / "p", "--sources", "none", match=match)
    assert not (tmp_path / "p").exists()


def test_no_label_is_enough_where_other_families_have_some(data: Path, tmp_path: Path) -> None:
    cg("finetune", "--graphs", data / "g.parquet", "-o", tmp_path / "p", "--sources", "nasbench101")
    cg("predict", "--predictor", tmp_path / "p", "--graphs", data / "g.parquet", "-o", tmp_path / "scores.csv")
    scores = [float(line.split(",")[1]) for line in (tmp_path / "scores.csv").read_text().splitlines()[1:]]
    assert len(set(scores)) > 60
    cg_error("finetune", "--graphs", data / "g.parquet", "-o", tmp_path / "q", "--sources", "none", match="other families")


def test_suggest_names_different_networks_without_a_label(data: Path, tmp_path: Path) -> None:
    out = cg_json("suggest", "--graphs", data / "g.parquet", "--labels", data / "labels.csv", "--n", 12, "-o",
                  tmp_path / "next.csv")
    ids = (tmp_path / "next.csv").read_text().splitlines()
    labelled = {line.split(",")[0] for line in (data / "labels.csv").read_text().splitlines()[1:]}
    assert ids[0] == "id"
    assert len(set(ids[1:]) - labelled) == 12
    assert out["ids"] == ids[1:]
    cg_error("suggest", "--graphs", data / "g.parquet", "--n", 500, "-o", tmp_path / "x.csv", match="cannot suggest 500")


def test_explain_says_where_a_score_comes_from_and_predict_what_to_doubt(data: Path, tmp_path: Path) -> None:
    made = cg_json("finetune", "--graphs", data / "g.parquet", "--labels", data / "labels.csv", "-o", tmp_path / "p",
                   "--sources", "nasbench101")
    assert not any("not enough" in d or "contradict" in d for d in made["doubts"])
    one = GraphSet.read(data / "g.parquet").ids[40]
    found = cg_json("explain", "--predictor", tmp_path / "p", "--graphs", data / "g.parquet", "--id", one)
    scores = cg_json("predict", "--predictor", tmp_path / "p", "--graphs", data / "g.parquet")["scores"]
    assert found["score"] == pytest.approx(next(s["score"] for s in scores if s["id"] == one))
    text = cg("explain", "--predictor", tmp_path / "p", "--graphs", data / "g.parquet", "--id", one).stdout
    assert "nearest labelled" in text
    assert found["statistics"][0]["name"] in text
    cg_error("explain", "--predictor", tmp_path / "p", "--graphs", data / "g.parquet", "--id", "no such", match="'no such'")
    strange = cg("predict", "--predictor", tmp_path / "p", "--graphs", data / "darts.parquet")
    assert "20 of 20 networks" in strange.stderr


def test_finetune_errors(data: Path, tmp_path: Path) -> None:
    same = ("--graphs", data / "g.parquet", "-o", tmp_path / "p")
    cg_error("finetune", *same, "--labels", tmp_path / "none.csv", match="none.csv: No such file")
    cg_error("finetune", *same, "--labels", data / "labels.csv", "--encoder", "defualt", match="'defualt'")
    cg_error("predict", "--predictor", tmp_path / "p", "--graphs", data / "g.parquet", match=str(tmp_path / "p"))
    assert list(tmp_path.iterdir()) == []


def test_evaluate_errors() -> None:
    cg_error("evaluate", "--target", "nasbench999", match="nasbench999")
    cg_error("evaluate", "--target", "nasbench201", "--methods", "params,magic", match="unknown method 'magic'")


def test_evaluate_writes_every_result(tmp_path: Path) -> None:
    found = cg_json("evaluate", "--target", "nasbench201", "--draws", 2, "--methods", "params,macs", "-o", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == found
    assert {r["draw"] for r in found["rows"]} == {0, 1}
    assert all(0.3 < r["spearman"] < 0.95 and 3900 < r["n_test"] <= 4056 for r in found["rows"])
    assert found["rows"][0]["n_labels"] == 40
    line = next(s for s in found["summary"] if s["method"] == "params")
    mine = [r["spearman"] for r in found["rows"] if (r["method"], r["target"]) == ("params", line["target"])]
    assert line["spearman"] == pytest.approx(np.mean(mine))


# -- search ------------------------------------------------------------------------------------------------------


def test_search_continues_where_it_stopped(tmp_path: Path) -> None:
    whole = cg_json("search", "nasbench201", "--budget", 40, "--seed", 3)
    part = cg_json("search", "nasbench201", "--budget", 25, "--seed", 3, "--history", tmp_path / "h.sqlite")
    result = cg("search", "nasbench201", "--budget", 40, "--seed", 3, "--history", tmp_path / "h.sqlite", "--json")
    rest = json.loads(result.stdout)
    assert "resumed" in result.stderr
    assert "25 queries" in result.stderr
    assert part["curve"] == whole["curve"][:25]
    assert rest["curve"] == whole["curve"]
    assert len(whole["curve"]) == whole["queries"] == 40
    assert whole["best_value"] == tables.load("nasbench201").lookup(whole["best"]) == max(whole["curve"])
    assert whole["best_possible"] == pytest.approx(94.3733, abs=1e-3)
    cg_error("search", "nasbench201", "--budget", 40, "--seed", 4, "--history", tmp_path / "h.sqlite", match="seed")


def test_random_search_and_other_metric() -> None:
    found = cg_json("search", "nasbench201-cifar100", "--budget", 5, "--random", "--metric", "test_acc_e12")
    assert found["oracle"]["metric"] == "test_acc_e12"
    assert found["curve"] == sorted(found["curve"])
    assert "best network" in cg("search", "nasbench201", "--budget", 3, "--random").stdout


def test_search_with_a_predictor(predictor: Path) -> None:
    found = cg_json("search", "nasbench201", "--budget", 25, "--predictor", predictor)
    assert found["queries"] == 25
    assert found["best_value"] > 93


@pytest.mark.parametrize(("args", "match"), [
    (["nasbench301"], "--oracle surrogate"), (["nospace"], "no search space 'nospace'"),
    (["nasbench201", "--metric", "loss"], "no metric 'loss'"), (["nasbench201", "--oracle", "wise"], "--oracle is"),
    (["nasbench201", "--history", "/no/such/folder/h.sqlite"], "does not exist")])
def test_search_errors(args: list[str], match: str) -> None:
    cg_error("search", *args, match=match)


def test_search_on_the_live_surrogate() -> None:
    shared = Path(os.environ.get("CGTRANSFER_SHARED", Path(__file__).parents[2] / "shared"))
    if not (shared / "data/nasbench301/surrogate_yahpo.onnx").is_file():
        pytest.skip("the NAS-Bench-301 surrogate is not here (CGTRANSFER_SHARED)")
    pytest.importorskip("onnxruntime")
    found = cg_json("search", "nasbench301", "--oracle", "surrogate", "--budget", 22)
    assert found["failed"] == 0
    assert 85 < found["best_value"] < 97
