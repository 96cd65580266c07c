"""The page of ``cg show --html``: complete, closed to what a graph's names say, and it works in a browser."""

import base64
import hashlib
import html as html_module
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cg import Graph, GraphBuilder, GraphSet
from cg.cli import build
from cg.page import html
from evo_search import get_space

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00\x1b\ud800 ]]>"


def sample(space: str, seed: int = 3) -> Graph:
    s = get_space(space)
    return s.to_graph(s.sample(np.random.default_rng(seed)))


def transformer(blocks: int, name: str = "vit") -> Graph:
    """Blocks with two constants each beside a class token: several sources, equal blocks."""
    b = GraphBuilder(name=name)
    shape = (1, 197, 64)

    def constant(*size: int) -> int:
        return b.op("Constant", [], size)

    x = b.concat([constant(1, 1, 64), b.input((1, 196, 64))], axis=1)
    for _ in range(blocks):
        y = b.op("Gemm", [b.op("LayerNormalization", [x], shape)], shape, (64, 64), True)
        x = b.relu(b.mul(b.add(x, b.mul(y, constant(*shape))), constant(64)))
    return b.build(b.op("Gemm", [x], (1, 197, 10), (10, 64), True))


def hostile() -> Graph:
    b = GraphBuilder(name=EVIL, family=EVIL)
    x = b.input((1, 3, 8, 8))
    x = b.op("Unknown", [x], (1, 3, 8, 8), name=EVIL, other=EVIL)
    return b.build(b.relu(x)).with_(meta={EVIL: EVIL})


def facts(page: str) -> Any:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def script(page: str) -> str:
    found = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(found) == 1
    return str(found[0])


@pytest.mark.parametrize("g", [sample("nasbench301"), transformer(5)], ids=["nasbench301", "transformer"])
def test_every_node_is_in_the_facts_and_in_the_full_picture(g: Graph) -> None:
    text = html(g)
    d = facts(text)
    specs = [d["specs"][i] for i in d["nodes"]]
    assert len(specs) == g.n_nodes
    assert [s["op"] for s in specs] == g.ops
    assert sum(s["macs"] for s in specs) == g.macs
    assert sum(s["params"] for s in specs) == g.params
    assert sum(s["bytes"] for s in specs) == g.activation_bytes
    assert list(zip(d["src"], d["dst"], strict=True)) == list(zip(g.src.tolist(), g.dst.tolist(), strict=True))
    full = re.search(r'<svg class="cgd" id="full".*?</svg>', text, re.S)
    assert full is not None
    assert sorted(map(int, re.findall(r'data-i="(\d+)"', full[0]))) == list(range(g.n_nodes))
    assert full[0].count('class="e"') == len(d["views"]["full"]["edges"])
    assert g.digest in text


def test_folded_picture_stands_for_every_node() -> None:
    g = transformer(6)
    v = facts(html(g))["views"]["folded"]
    assert v["times"] == [6]
    drawn = {i for c in v["chains"] for i in c}
    assert len(drawn) == g.n_nodes - 5 * 8  # two constants and six others a block
    assert set(v["shown"]) == drawn
    assert all(v["shown"][i] == i for i in drawn)
    assert all(g.spec[i] == g.spec[twin] for i, twin in enumerate(v["shown"]))
    for s, t in zip(g.src.tolist(), g.dst.tolist(), strict=True):  # twins feed twins, or the start of the same block
        assert v["shown"][t] in drawn
        assert v["shown"][s] in drawn


def test_graph_without_repeats_has_one_picture() -> None:
    b = GraphBuilder(name="small")
    text = html(b.build(b.relu(b.input((1, 4)))))
    assert list(facts(text)["views"]) == ["full"]


def test_nothing_that_a_graph_says_becomes_markup() -> None:
    text = html(hostile())
    assert text.count("<script") == 2
    assert text.count("</script") == 2
    assert "<img" not in text
    assert not re.search("[\x00\x1b\ud800]", text)
    text.encode()
    unknown = next(s for s in facts(text)["specs"] if s["op"].startswith("Unknown"))
    assert "alert(1)" in unknown["op"]  # kept as text


def test_policy_allows_this_script_and_nothing_else() -> None:
    text = html(sample("nasbench201"))
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]*)"', text)
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256(script(text).encode()).digest()).decode()
    assert policy[1].startswith(f"default-src 'none'; script-src 'sha256-{digest}'; style-src")
    assert "http" not in text.replace("http-equiv", "")


def test_unknown_operators_are_flagged() -> None:
    assert 'id="unknown"' in html(hostile())
    assert 'id="unknown"' not in html(sample("nasbench201"))


def test_page_of_a_large_network_is_small() -> None:
    g = transformer(420)
    assert g.n_nodes > 2900
    assert len(html(g).encode()) < 3e6


@pytest.mark.parametrize(("args", "file"), [(["--html"], "a_net_v1.html"), (["--html", "--full"], "a_net_v1.html"),
                                            (["--html", "x.HTM"], "x.HTM"), (["--html=odd"], "odd")])
def test_command_names_the_page_itself_if_asked(args: list[str], file: str, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    GraphSet([transformer(2, name="../a net:v1")]).write("g.parquet")
    for words in (["show", "g.parquet", *args], ["show", *args, "g.parquet"]):
        Path(file).unlink(missing_ok=True)
        result = CliRunner().invoke(build(), words)
        assert result.exit_code == 0, result.output
        assert f"wrote {file}" in result.stderr
        assert Path(file).read_text().startswith("<!doctype html>")
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([file, "g.parquet"])


# -- in a browser -------------------------------------------------------------------------------------------------

ACTIONS = """
window.addEventListener("load", () => setTimeout(async () => {
  const $ = id => document.getElementById(id), out = {}, wait = ms => new Promise(r => setTimeout(r, ms));
  const key = (k, t = document.body, o = {}) => t.dispatchEvent(new KeyboardEvent("keydown", {key: k, bubbles: true, ...o}));
  const world = () => document.querySelector("#stage svg:not([hidden]) .world").getAttribute("transform");
  const chosen = () => $("details").querySelector("h2").textContent;
  const count = () => document.querySelectorAll("#stage svg:not([hidden]) .hit").length;
  const type = t => { $("search").value = t; $("search").dispatchEvent(new Event("input")); return $("found").value; };
  const pointer = (kind, x, y, id, t) => (t || $("stage")).dispatchEvent(new PointerEvent(kind,
    {pointerId: id, clientX: x, clientY: y, bubbles: true, button: 0, pointerType: "touch"}));
  const scale = () => +/scale\\(([\\d.]+)/.exec(world())[1];
  out.rows = document.querySelectorAll("#table .row").length;
  out.conv = type("linear"); out.hits = count();
  key("Enter", $("search")); out.first = chosen(); key("Enter", $("search")); out.second = $("found").value;
  out.number = type("#3"); out.limit = type("macs>1k"); out.shape = type("197x64"); out.none = type("64x5");
  key("Escape", $("search")); out.cleared = $("found").value;
  document.querySelector("#table .row:nth-of-type(5)").click(); await wait(350);
  out.clicked = chosen(); out.picked = document.querySelectorAll("#stage svg:not([hidden]) .pick").length;
  out.hash = location.hash;
  const before = scale(); key("+"); await wait(350); out.zoomed = scale() / before;
  $("stage").dispatchEvent(new WheelEvent("wheel", {deltaY: -100, clientX: 200, clientY: 300, cancelable: true}));
  out.wheel = scale() / before;
  key("f"); await wait(350); const s0 = scale();
  pointer("pointerdown", 300, 300, 1); pointer("pointerdown", 400, 300, 2);
  pointer("pointermove", 500, 300, 2); pointer("pointerup", 500, 300, 2); pointer("pointerup", 300, 300, 1);
  out.pinch = scale() / s0;
  const g = document.querySelector("#stage svg:not([hidden]) .n"), r = g.getBoundingClientRect();
  pointer("pointerdown", r.x + 3, r.y + 3, 1, g); pointer("pointerup", r.x + 3, r.y + 3, 1, g);
  out.node = chosen(); out.row = document.querySelector("#table .pick").dataset.i;
  $("table").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true})); out.down = chosen();
  key("r"); out.full = document.querySelectorAll("#stage svg:not([hidden]) .n").length;
  document.querySelector("#table th:nth-child(7) button").click();
  out.top = document.querySelector("#table .row").cells[6].textContent;
  key("t"); out.theme = document.documentElement.dataset.theme;
  key("Escape"); out.none_chosen = chosen();
  document.body.dataset.out = JSON.stringify(out);
}, 50));
"""


def browse(page: str, folder: Path) -> str:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    (folder / "page.html").write_text(page)
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update",
         "--force-prefers-reduced-motion", f"--user-data-dir={folder / 'profile'}",
         "--window-size=1200,800", "--virtual-time-budget=6000", "--dump-dom", (folder / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120)
    return done.stdout


def test_search_click_keys_zoom_and_pinch(tmp_path: Path) -> None:
    g = transformer(8)
    page = re.sub(r"<meta http-equiv[^>]*>", "", html(g)).replace("</body>", f"<script>{ACTIONS}</script></body>")
    found = re.search(r'data-out="([^"]*)"', browse(page, tmp_path))
    assert found is not None, "the script did not end"
    out = json.loads(html_module.unescape(found[1]))
    linear = [i for i, op in enumerate(g.ops) if op == "Gemm"]
    assert out["rows"] < 60
    assert out["conv"] == f"{len(linear)} found"
    assert out["hits"] == 2  # one in the block that stands for eight, and the classifier
    assert out["first"].startswith(f"#{linear[0]} ")
    assert out["second"] == f"2 of {len(linear)}"
    assert (out["number"], out["none"], out["cleared"]) == ("1 found", "none found", "")
    assert out["limit"] == f"{len(linear)} found"
    assert out["clicked"].startswith("#3 ")
    assert (out["picked"], out["hash"]) == (1, "#n=3")
    assert out["zoomed"] == pytest.approx(1.5, rel=1e-3)
    assert out["wheel"] == pytest.approx(1.5 * np.exp(0.2), rel=1e-3)
    assert out["pinch"] == pytest.approx(2, rel=1e-3)
    assert out["node"].startswith(f"#{out['row']} ")
    assert not out["down"].startswith(f"#{out['row']} ")
    assert out["full"] == g.n_nodes
    assert int(out["top"].replace(",", "")) == max(facts(html(g))["specs"], key=lambda s: s["macs"])["macs"]
    assert out["theme"] in ("light", "dark")
    assert out["none_chosen"] == "Operators"


def test_hostile_names_run_nothing_in_a_browser(tmp_path: Path) -> None:
    dom = browse(html(hostile()), tmp_path)
    assert "<h2>Operators</h2>" in dom  # the page's own script ran
    assert "<img" not in dom
    assert dom.count("<script") == 2
