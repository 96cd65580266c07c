"""The wheel holds everything, and runs from another directory in an environment that does not see the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cg", "contrastive", "evo_search", "extract", "finetune")
USE_IT = """
import json, sys
import cg
assert "torch" not in sys.modules
import contrastive, evo_search, extract, finetune
from evo_search.export import export
from evo_search import tables
data = export("nasbench201", 60, seed=1, labels=True)
y = data.label("test_acc")
model = finetune.CGPredictor("default", random_state=0).fit(data.graphs[:30], y[:30])
data.write("graphs.parquet")
print(json.dumps({
    "files": [m.__file__ for m in (cg, contrastive, evo_search, extract, finetune)],
    "rows": {name: tables.load(name).n for name in ("nasbench101", "nasbench201", "nasbench301")},
    "encoders": contrastive.list_encoders(), "sources": finetune.list_sources(),
    "learned_from": len(model.sources_), "scores": len(model.predict(data.graphs[30:])),
    "again": len(cg.GraphSet.read("graphs.parquet")),
}))
"""


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment | {"COLUMNS": "120"}, capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing left over from another build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    unwanted = shutil.ignore_patterns("__pycache__", "training.safetensors")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    (source / "tests").mkdir()
    (source / "tests" / "test_nothing.py").write_text("")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", folder, source, cwd=folder)
    (made,) = folder.glob("cgtransfer-*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel and the dependencies of the running one, but not the repository."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    interpreter = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-index", "--quiet", wheel,
        cwd=folder)
    # Only the folder is added: .pth files in it, such as that of an editable install of the repository, are not read.
    site = Path(run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return interpreter


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(p.relative_to(ROOT)) for package in PACKAGES for p in (ROOT / package).rglob("*.py")}
    benchmarks = ("nasbench101", "nasbench201", "nasbench301")
    wanted |= {"evo_search/data/DATACARD.md", "evo_search/data/LICENSES.md", *(f"evo_search/data/{b}.npz" for b in benchmarks)}
    wanted |= {"cg/page_assets/page.css", "cg/page_assets/page.js"}
    wanted |= {f"finetune/sources/{b}.parquet" for b in benchmarks}
    encoders = [p.parent.name for p in (ROOT / "contrastive" / "encoders").glob("*/config.json")]
    assert "default" in encoders
    wanted |= {f"contrastive/encoders/{e}/{n}" for e in encoders for n in ("config.json", "encoder.safetensors")}
    assert wanted - names == set()
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == set(PACKAGES)
    assert [n for n in names if "training.safetensors" in n or "__pycache__" in n] == []
    assert wheel.stat().st_size < 20e6


def test_library_runs_elsewhere(python: Path, tmp_path: Path) -> None:
    found = json.loads(run(python, "-c", USE_IT, cwd=tmp_path).splitlines()[-1])
    for file in found["files"]:
        assert Path(file).is_relative_to(python.parents[1]), f"{file} is not the installed one"
    assert found["rows"] == {"nasbench101": 423_624, "nasbench201": 15_625, "nasbench301": 12_439}
    assert "default" in found["encoders"]
    assert found["sources"] == ["nasbench101", "nasbench201", "nasbench301"]
    assert (found["learned_from"], found["scores"], found["again"]) == (2, 30, 60)


def test_command_runs_elsewhere(python: Path, tmp_path: Path) -> None:
    command = python.with_name("cg")
    text = run(command, "--help", cwd=tmp_path)
    for name in ("spaces", "export", "show", "pretrain", "finetune", "predict", "evaluate", "search", "demo"):
        assert name in text
    spaces = json.loads(run(command, "spaces", "--json", cwd=tmp_path))
    assert {"nasbench101", "nasbench201", "nasbench301"} <= {s["name"] for s in spaces}
    run(command, "export", "nasbench101", "-o", "g.parquet", "--n", "5", cwd=tmp_path)
    assert json.loads(run(command, "show", "g.parquet:4", "--json", cwd=tmp_path))
