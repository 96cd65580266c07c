"""The space that docs/spaces.md writes: built as a distribution, installed, and held to what the built-in spaces are held to.

Blocks are taken from the page as they are. Nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import space_contract as contract

from cg import CGError, GraphSet
from evo_search import Study, get_space, get_strategy, list_spaces
from evo_search.history import History
from evo_search.spaces import SearchSpace

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/spaces.md").read_text(encoding="utf-8").partition("## Adding a space")[2]
BLOCKS = re.findall(r"^```(toml|python|bash)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
(PROJECT,), (SPACE, USE), (COMMANDS,) = ([code for kind, code in BLOCKS if kind == k] for k in ("toml", "python", "bash"))
NAME = "spoken-words"
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the installed distribution, on this process's path."""
    folder = tmp_path_factory.mktemp("page")
    package = folder / "project" / "spoken_words"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "space.py").write_text(SPACE, encoding="utf-8")
    (package.parent / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    run(sys.executable, "-c", BUILD, str(folder), cwd=package.parent)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")
        yield folder / "site"
    for module in [m for m in sys.modules if m.partition(".")[0] == "spoken_words"]:
        del sys.modules[module]


@pytest.fixture
def space(installed: Path) -> SearchSpace:
    return get_space(NAME)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def run(*command: str, cwd: Path, site: Path | None = None) -> str:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120",
                        "PYTHONPATH": os.pathsep.join(map(str, (*([site] if site else []), ROOT)))}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_it_is_short_and_found_by_its_name(space: SearchSpace, installed: Path) -> None:
    assert len(SPACE.splitlines()) <= 60
    assert NAME in list_spaces()
    assert (space.name, type(space).__name__, type(space).__module__) == (NAME, "SpokenWords", "spoken_words.space")
    assert Path(sys.modules["spoken_words.space"].__file__).is_relative_to(installed)


def test_its_genomes(space: SearchSpace, rng: np.random.Generator) -> None:
    contract.genomes_survive_text_and_pickle(space, rng)
    contract.same_seed_gives_same_genomes(space)
    contract.edits_give_valid_genomes(space, rng)
    contract.native_rows_tell_networks_apart(space, rng)


@pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_its_builder_equals_the_tracer(count: int, space: SearchSpace, rng: np.random.Generator) -> None:
    contract.trace_equals_build(space, count, rng)


def test_its_parameters(space: SearchSpace) -> None:
    # by hand: 3x3 from 1 to 16 channels, and twice from 16 to 16, each with one block of kernel 3; 16 x 12 + 12 at the end
    stages = sum(9 * c * 16 + 32 + 9 * 16 + 32 + 16 * 16 + 32 for c in (1, 16, 16))
    assert space.count_params(space.decode("1-16-3-1-16-3-1-16-3")) == stages + 204


@pytest.mark.parametrize(("genome", "message"), [((1, 16, 3), "a tuple of 9 numbers"), ([1, 16, 3] * 3, "a tuple of 9"),
                                                 ((1, 16, 3, 1, 17, 3, 1, 16, 3), "number 4 is 17, not one of")])
def test_it_refuses(space: SearchSpace, genome: object, message: str) -> None:
    contract.refuses(space, genome, message)


def test_it_refuses_text(space: SearchSpace) -> None:
    with pytest.raises(CGError, match="'1-x' is not numbers joined by '-'"):
        space.decode("1-x")


def test_it_is_searched(space: SearchSpace, capsys: pytest.CaptureFixture[str]) -> None:
    def value(genome: object) -> float:
        return -abs(space.to_graph(genome).macs - 5e6)

    for strategy in ("aging", "local"):
        study = Study(space, get_strategy(strategy), seed=0)
        study.run(value, 30)
        assert len({space.to_graph(space.decode(q.genome)) for q in study.history.queries}) == 30
        assert study.best().value == max(value(space.decode(q.genome)) for q in study.history.queries)
    exec(compile(USE, "docs/spaces.md", "exec", dont_inherit=True), {"__name__": "example"})
    best, best_value = capsys.readouterr().out.split()
    assert value(space.decode(best)) == float(best_value)


def test_its_commands(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys\nprint(sum(map(int, sys.argv[1].split('-'))))\n")
    out = run("bash", "-euo", "pipefail", "-c", COMMANDS, cwd=tmp_path, site=installed)
    assert re.search(rf"{NAME}\W+{NAME}.*1×40×100\W+12\b", out)
    assert len(set(GraphSet.read(tmp_path / "graphs.parquet"))) == 200
    with History.read(tmp_path / "run.sqlite") as history:
        assert [q.value for q in history.queries] == [sum(map(int, q.genome.split("-"))) for q in history.queries]
        assert len(history) == 30
    assert "torch" not in run(sys.executable, "-c", "import sys, evo_search, numpy as np\n"
                              f"s = evo_search.get_space({NAME!r}); s.to_graph(s.sample(np.random.default_rng(0)))\n"
                              "print(*sys.modules)", cwd=tmp_path, site=installed).split()
