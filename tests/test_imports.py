"""The only allowed arrows between the packages, and what a light import must not pull in."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "cg": set(),
    "extract": {"cg"},
    "contrastive": {"cg"},
    "finetune": {"cg", "contrastive", "extract"},  # extract: only for proxies of untrained networks
    "evo_search": {"cg", "extract", "contrastive", "finetune"},
}
_MODULE = re.compile(rf"({'|'.join(ALLOWED)})(\.\w+)*")


def imported(tree: ast.AST) -> set[str]:
    """Absolute modules that a file names in an import anywhere in it, or in a text such as ``import_module`` takes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            found.add("." * node.level + (node.module or ""))  # may climb out of its package, so it is not wanted at all
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE.fullmatch(node.value) \
                and "." in node.value:
            found.add(node.value)
    return found


def violations(root: Path) -> list[str]:
    """``file: module`` for every import that points in a direction that is not allowed."""
    bad = []
    for package, allowed in ALLOWED.items():
        for path in sorted((root / package).rglob("*.py")):
            for module in sorted(imported(ast.parse(path.read_text(encoding="utf-8")))):
                top = module.split(".")[0]
                if module.startswith(".") or (top in ALLOWED and top != package and top not in allowed):
                    bad.append(f"{path.relative_to(root)}: {module}")
    return bad


def test_every_package_is_there_to_be_checked() -> None:
    assert all(len(list((ROOT / package).rglob("*.py"))) > 1 for package in ALLOWED)


def test_imports_follow_the_allowed_arrows() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(("file", "text", "module"), [
    ("cg/a.py", "import extract", "extract"),
    ("cg/sub/a.py", "def f():\n    from evo_search.spaces import get_space", "evo_search.spaces"),
    ("extract/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from contrastive.loss import x",
     "contrastive.loss"),
    ("contrastive/a.py", "from importlib import import_module\nimport_module('extract.cli')", "extract.cli"),
    ("contrastive/a.py", "import numpy, finetune.gp as g", "finetune.gp"),
    ("contrastive/a.py", "try:\n    import extract.cli\nexcept ImportError:\n    pass", "extract.cli"),
    ("finetune/a.py", "from evo_search import tables", "evo_search"),
    ("finetune/sub/a.py", "from ...extract import cli", "...extract"),
])
def test_the_check_can_fail(tmp_path: Path, file: str, text: str, module: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert violations(tmp_path) == [f"{file}: {module}"]


def test_the_check_lets_allowed_imports_pass(tmp_path: Path) -> None:
    (tmp_path / "evo_search").mkdir()
    (tmp_path / "evo_search/a.py").write_text("import cg, extract, finetune\nfrom contrastive import x\nfrom . import b\n"
                                              "import cgroup\n'see evo_search'\n'cg'\n")
    (tmp_path / "cg").mkdir()
    (tmp_path / "cg/a.py").write_text("from cg.b import c\nimport extractor, cgi\n\"\"\"extract it\"\"\"\n")
    assert violations(tmp_path) == []


def fresh(code: str) -> str:
    """What ``code`` prints in a new interpreter."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def test_import_cg_is_quick_and_pulls_in_nothing_heavy() -> None:
    code = ("import sys, time\nt = time.perf_counter()\nimport cg\nt = time.perf_counter() - t\n"
            "print(t, *sorted({m.split('.')[0] for m in sys.modules}))")
    seconds = []
    for _ in range(3):
        first, *modules = fresh(code).split()
        seconds.append(float(first))
        assert not {"torch", "numba", "scipy", "pyarrow", "pandas", "sklearn", "faiss", "onnx", "tensorflow"} & set(modules)
    assert min(seconds) <= 0.3, f"import cg took {min(seconds):.2f} s"


@pytest.mark.parametrize("package", ["extract", "contrastive", "finetune", "evo_search"])
def test_import_of_a_package_leaves_the_frameworks_alone(package: str) -> None:
    modules = set(fresh(f"import sys, {package}\nprint(*sys.modules)").split())
    assert package in modules
    assert not {"torch", "torch_geometric", "onnx", "tensorflow"} & modules


def test_every_name_a_package_promises_exists() -> None:
    code = ("import cg, contrastive\nfor m in (cg, contrastive):\n    for n in m.__all__:\n"
            "        assert getattr(m, n) is not None\n    assert not hasattr(m, 'no_such_name')\nprint('done')")
    assert fresh(code).strip() == "done"
