"""Write the tables and drawings of README and docs from the committed results, so that no figure in them is typed by hand.

    python benchmarks/readme_tables.py            # rewrites PAGES between their markers, and docs/figures
    python benchmarks/readme_tables.py --check    # exits with 1 if anything is not current

A table stands between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->`` in one of ``PAGES``. Tables of the modules in
``MODULES`` read what these say; the rows of the others come from every file ``benchmarks/results/NAME*.csv`` or
``NAME*.json`` (a list of objects, or an object with the list ``rows``), one row a measurement:

``few_shot``  target, method, n_labels, draw, spearman, kendall       (what ``cg evaluate -o`` writes, too)
``speed``     the ``parts`` of ``benchmarks/speed.py`` instead of rows
``encoders``  no file: read from the config.json of the shipped encoders
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from _spread import spread

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/protocol.md", "docs/extracting.md", "docs/results.md", "docs/search_results.md",
         "docs/transfer.md", "docs/cgspace.md")
# A module here has TABLES, name -> function(folder of results) -> (header, lines), and may have FIGURES, name -> (alternative
# text, function(folder of results) -> SVG); without results there are no lines, and the SVG is empty.
MODULES = ("_extract_tables", "_rivals_tables", "_published_tables", "_proxies_tables", "_neural_predictor_tables",
           "_brp_tables", "_latency_tables", "_surgery_tables", "_search_tables", "_transfer_tables")
FIGURES_IN = "docs/figures"
_BLOCK = re.compile(r"(<!-- results:(\w+) -->\n)(.*?)(<!-- /results:\2 -->)", re.DOTALL)
Row = dict[str, Any]


def rows(results: Path, name: str) -> list[Row]:
    """All measurements of one table. Raises ``ValueError`` naming a file of another form."""
    found: list[Row] = []
    for path in sorted(results.glob(f"{name}*")):
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                found += list(csv.DictReader(file))
        elif path.suffix == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
            data = data.get("rows") if isinstance(data, dict) else data
            if not isinstance(data, list):
                raise ValueError(f"{path} holds neither a list of rows nor an object with one")
            found += data
    return found


def few_shot(results: Path) -> str:
    """Mean and standard deviation over the label draws, best method first."""
    lines = []
    for (target, labels, method), group in _groups(rows(results, "few_shot"), "target", "n_labels", "method"):
        rho, tau = _floats(group, "spearman"), _floats(group, "kendall")
        lines.append((str(target), int(labels), -rho.mean(),
                      (target, labels, method, spread(rho), spread(tau), str(len(rho)))))
    return _table(("target", "labels", "method", "Spearman ρ", "Kendall τ", "draws"), [x[-1] for x in sorted(lines)])


# Target -> (Spearman rho aimed at, figure of arXiv 2302.10835, Table 1).
AIMS = {"nasbench101": (0.85, 0.553), "nasbench201": (0.945, 0.917), "nasbench301": (0.87, 0.892)}


def goals(results: Path) -> str:
    """What was aimed at, beside what ``CGPredictor`` measures and what the paper printed."""
    lines = []
    for (target, labels, method), group in _groups(rows(results, "few_shot"), "target", "n_labels", "method"):
        if method == "default" and target in AIMS:
            rho = _floats(group, "spearman")
            aim, published = AIMS[target]
            lines.append((target, labels, spread(rho), f"≥ {aim}", "yes" if rho.mean() >= aim else "**no**", published))
    return _table(("target", "labels", "`CGPredictor`, ρ", "aimed at", "reached", "paper"), sorted(lines))


def speed(results: Path) -> str:
    """What ``benchmarks/speed.py`` measured, beside its peers and what was aimed at."""
    parts: dict[str, Any] = {}
    # a file of one part is newer than the file of all
    for path in sorted(results.glob("speed*.json"), key=lambda p: (p.name != "speed.json", p.name)):
        parts |= json.loads(path.read_text(encoding="utf-8"))["parts"]
    lines: list[tuple[str, str, str, str]] = []
    for name, r in parts.get("build", {}).items():
        lines.append((f"genome → graph, features, spectrum; one core; {name}", f"{_number(r['graphs_per_s'])} graphs/s",
                      f"tracing the module {_number(r['traced_per_s'])}/s", "–" if name == "nasbench301" else "≥ 1,000"))
    for name, r in parts.get("spectrum", {}).items():
        lines.append((f"spectrum; one core; {name}", f"{_number(r['per_s'])} graphs/s",
                      f"dense solver {_number(r['dense_per_s'])}/s", "–"))
    for name, r in parts.get("statistics", {}).items():
        lines.append((f"`cg.statistics`; one core; {name}", f"{_number(r['graphs_per_s'])} graphs/s",
                      f"{r['nodes']:.0f} nodes each", "≥ 5,000"))
    for name, r in parts.get("few", {}).items():
        lines.append((f"fit on 50 labels, predict {r['graphs']:,}; 2 threads; {name}", f"{_number(r['seconds'])} s", "–",
                      "≤ 2" if name.endswith("fast") else "≤ 20"))
    for name, r in parts.get("predict", {}).items():
        lines.append((f"`CGPredictor.predict`; 2 threads; {name}", f"{_number(r['graphs_per_s'])} graphs/s",
                      f"fit {_number(r['fit_s'])} s", "≥ 2,000"))
    for name, r in parts.get("pretrain", {}).items():
        lines.append((f"pre-training; 2 threads; {name}", f"{_number(r['graphs_per_s'])} graphs/s", "–",
                      "≥ 300" if name.startswith("paper") else "≥ 800"))
    for name, value in parts.get("memory", {}).items():
        lines.append((f"60,000 graphs, {name.split(':')[0]} configuration, peak memory", f"{_number(value)} GB", "–", "≤ 6"))
    if "import" in parts:
        lines.append(("`import cg`", f"{_number(parts['import']['import_cg_s'])} s", "–", "≤ 0.3"))
    return _table(("what", "measured", "beside it", "aimed at"), lines)


def encoders(_: Path) -> str:
    """The shipped encoders and how they came to be."""
    lines = []
    for path in sorted((ROOT / "contrastive" / "encoders").glob("*/config.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        made, config = record["provenance"], record["config"]
        labels = f"{made['labelled']:,}" if config["ranking_weight"] else "–"
        lines.append((f"`{path.parent.name}`", ", ".join(made["families"]), f"{made['graphs']:,}", labels,
                      f"{config['steps']:,}", round(made["seconds"] / 60)))
    return _table(("name", "pre-trained on", "graphs", "labels", "steps", "minutes, one thread"), lines)


def _of_modules() -> dict[str, Callable[[Path], str]]:
    def as_text(make: Callable[[Path], Any]) -> Callable[[Path], str]:
        return lambda results: _table(*make(results))

    def as_image(name: str, says: str, drawing: Callable[[Path], str]) -> Callable[[Path], str]:
        return lambda results: f"![{says}](figures/{name}.svg)\n" if drawing(results) else ""

    found: dict[str, Callable[[Path], str]] = {}
    for module in map(import_module, MODULES):
        found |= {name: as_text(make) for name, make in module.TABLES.items()}
        for name, (says, drawing) in getattr(module, "FIGURES", {}).items():
            FIGURES[name] = drawing
            found[f"figure_{name}"] = as_image(name, says, drawing)
    return found


FIGURES: dict[str, Callable[[Path], str]] = {}
TABLES: dict[str, Callable[[Path], str]] = {
    "goals": goals, "few_shot": few_shot, "speed": speed, "encoders": encoders, **_of_modules()}


def render(text: str, results: Path) -> str:
    """``text`` with every marked table made again. Raises ``ValueError`` on a marker without a table or without its end."""
    opened = re.findall(r"<!-- results:(\w+) -->", text)
    found = [m.group(2) for m in _BLOCK.finditer(text)]
    for name in opened:
        if name not in TABLES:
            raise ValueError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
    if opened != found:
        raise ValueError(f"markers {opened} are opened, but only {found} are closed by <!-- /results:NAME -->")
    return _BLOCK.sub(lambda m: m.group(1) + (TABLES[m.group(2)](results) or "*Not measured yet.*\n") + m.group(4), text)


def _groups(items: Sequence[Row], *keys: str) -> Iterable[tuple[tuple[str, ...], list[Row]]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for r in items:
        found.setdefault(tuple(str(r[k]) for k in keys), []).append(r)
    return found.items()


def _floats(group: Sequence[Row], name: str) -> np.ndarray:
    return np.array([float(r[name]) for r in group])


def _number(value: Any) -> str:
    x = float(value)
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def _table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    if not lines:
        return ""
    out = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(out + ["| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is not current")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args()
    made = {page: render((ROOT / page).read_text(encoding="utf-8"), args.results) for page in PAGES}
    made |= {f"{FIGURES_IN}/{name}.svg": drawing(args.results) for name, drawing in FIGURES.items()}
    stale = []
    for page, new in made.items():
        path = ROOT / page
        if new != (path.read_text(encoding="utf-8") if path.exists() else ""):
            stale.append(page)
            if not args.check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(new, encoding="utf-8")
    print(f"{'not current' if args.check else 'rewritten'}: {', '.join(stale)}" if stale else "all tables are current")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
