"""``GraphSet``: what is written is read, by us and by plain pyarrow; what is damaged is refused; nothing half-written stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cg import Graph, GraphBuilder, GraphSet, NodeSpec
from cg.errors import CGError, LabelError, StorageError
from cg.graphset import concat

FIELDS = ("spec", "src", "dst", "arg", "outputs")


def same(a: GraphSet, b: GraphSet) -> bool:
    return (a.ids == b.ids and a.provenance == b.provenance and list(a.labels) == list(b.labels)
            and all(np.array_equal(a.labels[k], b.labels[k], equal_nan=True) for k in a.labels)
            and all((x.digest, x.name, x.family) == (y.digest, y.name, y.family)
                    and all(np.array_equal(getattr(x, f), getattr(y, f)) for f in FIELDS) for x, y in zip(a, b, strict=True)))


def small_set() -> GraphSet:
    b = GraphBuilder(name="naïve ☃", family="f")
    x = b.input((1, 3, 8, 8))
    y = b.op("Sub", [b.relu(x), x])
    graphs = [b.build(y), b.build(b.linear(y, 3)), b.build(b.global_avg_pool(y), y),
              Graph.make([NodeSpec("Input", (), (2,))], [])]
    return GraphSet(graphs, ["a", "b", "c", "d"], {"acc": [0.5, np.nan, -1e300, 3], "time": [1, 2, 3, 4]},
                    {"source": "test", "seed": 3})


def test_round_trip(tmp_path: Path) -> None:
    s = small_set()
    assert s.write(tmp_path / "s.parquet") == tmp_path / "s.parquet"
    back = GraphSet.read(tmp_path / "s.parquet")
    assert same(s, back)
    assert [g.validate().ops for g in back] == [g.ops for g in s]
    assert [g.permuted(range(g.n_nodes)).digest for g in back] == [g.digest for g in s]
    assert [p.name for p in tmp_path.iterdir()] == ["s.parquet"]


def test_round_trip_of_networks(tmp_path: Path, nas_graphs: list[Graph]) -> None:
    s = GraphSet(nas_graphs, labels={"y": np.arange(len(nas_graphs))})
    assert same(s, GraphSet.read(s.write(tmp_path / "s.parquet")))


def test_round_trip_over_several_row_groups(tmp_path: Path) -> None:
    tiny = small_set()
    s = GraphSet([tiny[i % 4] for i in range(20_050)], labels={"y": np.arange(20_050.0)})
    path = s.write(tmp_path / "s.parquet")
    assert pq.ParquetFile(path).num_row_groups == 2
    assert same(s, GraphSet.read(path))


def test_same_content_same_bytes(tmp_path: Path) -> None:
    a, b = small_set().write(tmp_path / "a"), small_set().write(tmp_path / "b")
    assert a.read_bytes() == b.read_bytes()


def test_empty_set(tmp_path: Path) -> None:
    s = GraphSet([], labels={"acc": []})
    back = GraphSet.read(s.write(tmp_path / "s.parquet"))
    assert len(back) == 0
    assert back.labels["acc"].shape == (0,)
    assert back.take([]).ids == ()


def test_overwriting(tmp_path: Path) -> None:
    small_set().write(tmp_path / "s.parquet")
    small_set()[:2].write(tmp_path / "s.parquet")
    assert len(GraphSet.read(tmp_path / "s.parquet")) == 2


def test_read_graphs_are_frozen(tmp_path: Path) -> None:
    g = GraphSet.read(small_set().write(tmp_path / "s.parquet"))[0]
    for field in FIELDS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(g, field)[0] = 9


def test_plain_pyarrow_reads_it(tmp_path: Path) -> None:
    """Everything a graph is, from the documented columns and a JSON parser alone."""
    s = small_set()
    rows = pq.read_table(s.write(tmp_path / "s.parquet")).to_pylist()
    assert [r["id"] for r in rows] == list(s.ids)
    assert [r["fingerprint"] for r in rows] == [g.digest for g in s]
    assert rows[0]["name"] == "naïve ☃"
    assert rows[3]["label.time"] == 4
    for r, g in zip(rows, s, strict=True):
        nodes = [json.loads(t) for t in r["nodes"]]
        assert [n["op"] for n in nodes] == g.ops
        specs = [NodeSpec.from_json(t) for t in r["nodes"]]
        rebuilt = Graph.make(specs, list(zip(r["src"], r["dst"], r["arg"], strict=True)), r["outputs"])
        assert rebuilt.digest == r["fingerprint"]


def test_reads_in_a_process_that_numbers_specs_differently(tmp_path: Path) -> None:
    path = small_set().write(tmp_path / "s.parquet")
    code = ("import sys\nfrom cg import GraphBuilder, GraphSet\nb = GraphBuilder()\n"
            "b.build(b.conv2d(b.input((1, 9, 9, 9)), 11))\n"
            "for g in GraphSet.read(sys.argv[1]):\n    print(g.validate().permuted(range(g.n_nodes)[::-1]).digest, g.params)")
    out = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True,
                         cwd=Path(__file__).parents[2]).stdout
    assert out.split() == [str(v) for g in small_set() for v in (g.digest, g.params)]


@pytest.mark.parametrize("step", range(12))
def test_truncated_file_is_refused(tmp_path: Path, step: int) -> None:
    path = small_set().write(tmp_path / "s.parquet")
    data = path.read_bytes()
    for keep in range(step * len(data) // 12, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:keep])
        with pytest.raises(StorageError, match=r"s\.parquet"):
            GraphSet.read(path)


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    s = small_set()
    path = s.write(tmp_path / "s.parquet")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        message = ""
        try:
            back = GraphSet.read(path)
        except StorageError as error:
            message = str(error)
            refused += 1
        assert "s.parquet" in message if message else same(s, back), f"byte {at}"
    assert refused > 0.5 * len(data) / 7


def rewritten(path: Path, meta: dict[str, str] | None = None, **columns: Any) -> Path:
    """The file as another tool would write it, with some metadata and columns replaced."""
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))
    old = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items() if k != b"cg.checksum"}
    pq.write_table(table.replace_schema_metadata({**old, **(meta or {})}), path)
    return path


def test_file_written_by_another_tool_is_read(tmp_path: Path) -> None:
    path = rewritten(small_set().write(tmp_path / "s.parquet"))
    assert same(small_set(), GraphSet.read(path))


@pytest.mark.parametrize(("meta", "message"), [
    ({"cg.format": "2"}, r"s\.parquet is not a graph table of format 1 \(cg\.format is '2'\)"),
    ({"cg.vocabulary": "99"}, r"s\.parquet uses operator vocabulary 99, this version has 1"),
    ({"cg.checksum": "0" * 32}, r"s\.parquet is corrupt: its content does not match its checksum"),
    ({"cg.provenance": "{"}, r"s\.parquet cannot be read"),
])
def test_other_version_is_refused(tmp_path: Path, meta: dict[str, str], message: str) -> None:
    path = rewritten(small_set().write(tmp_path / "s.parquet"), meta)
    with pytest.raises(StorageError, match=message):
        GraphSet.read(path)


@pytest.mark.parametrize("columns", [
    {"src": [[0, 1], [0, 0, 7], [0, 0, 1], []]}, {"src": [[0, -1, 0], [0] * 4, [0] * 4, []]}, {"outputs": [[2], [3], [3], [1]]},
    {"outputs": [[2], [3], [3], []]}, {"dst": [[1, 2, 0], [1, 2, 2, 3], [1, 2, 2, 3], []]},
    {"outputs": [[2], [3], [-1], [0]]},
])
def test_edges_and_outputs_outside_of_the_graph_are_refused(tmp_path: Path, columns: dict[str, list]) -> None:
    path = rewritten(small_set().write(tmp_path / "s.parquet"), **columns)
    with pytest.raises(StorageError, match=r"s\.parquet, row \d \(id '[abcd]'\): edges or outputs do not fit"):
        GraphSet.read(path)


def test_unknown_node_text_is_refused(tmp_path: Path) -> None:
    table = pq.read_table(small_set().write(tmp_path / "s.parquet"))
    nodes = [[t.replace("Relu", "Rely") for t in row] for row in table.column("nodes").to_pylist()]
    table = table.set_column(4, "nodes", pa.array(nodes, pa.list_(pa.string())))
    meta = {k: v for k, v in table.schema.metadata.items() if k != b"cg.checksum"}
    pq.write_table(table.replace_schema_metadata(meta), tmp_path / "s.parquet")
    with pytest.raises(StorageError, match=r"s\.parquet cannot be read .*'Rely' is not in the vocabulary"):
        GraphSet.read(tmp_path / "s.parquet")


def test_column_of_another_type_is_refused(tmp_path: Path) -> None:
    path = small_set().write(tmp_path / "s.parquet")
    table = pq.read_table(path)
    for kind in (pa.list_(pa.float64()), pa.list_(pa.string())):
        column = pa.array([[str(v) for v in row] for row in table.column("src").to_pylist()]).cast(kind)
        pq.write_table(table.set_column(5, "src", column), path)
        with pytest.raises(StorageError, match=r"s\.parquet: column 'src' holds list<.*, wanted lists of integers"):
            GraphSet.read(path)


@pytest.mark.parametrize("missing", [None, [0, None, 1]])
def test_missing_values_are_refused(tmp_path: Path, missing: list | None) -> None:
    src = [g.src.tolist() for g in small_set()]
    path = rewritten(small_set().write(tmp_path / "s.parquet"), src=[missing, *src[1:]])
    with pytest.raises(StorageError, match=r"s\.parquet: column 'src' has missing values"):
        GraphSet.read(path)


def test_what_is_no_graph_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no such file: .*none\.parquet"):
        GraphSet.read(tmp_path / "none.parquet")
    for name, write in (("text", lambda p: p.write_text("hello")), ("empty", lambda p: p.write_bytes(b"")),
                        ("folder", lambda p: p.mkdir()), ("other", lambda p: pq.write_table(pa.table({"a": [1]}), p))):
        write(tmp_path / name)
        with pytest.raises(StorageError, match=name):
            GraphSet.read(tmp_path / name)


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_graphset import small_set
from cg.errors import StorageError
s = small_set()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # every write beyond 1,000 bytes fails
try:
    s.write({path!r})
except StorageError as error:
    print("refused", error)
"""


@pytest.mark.parametrize("before", [False, True])
def test_full_disk_leaves_nothing_behind(tmp_path: Path, before: bool) -> None:
    """The old file stays as it was, a new one does not appear, and no temporary file is left."""
    path = tmp_path / "s.parquet"
    if before:
        small_set()[:1].write(path)
    code = FULL_DISK.format(here=str(Path(__file__).parent), path=str(path))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2],
                         env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert out.stdout.startswith(f"refused cannot write {path}"), out.stderr
    assert os.listdir(tmp_path) == (["s.parquet"] if before else [])
    assert not before or len(GraphSet.read(path)) == 1


def test_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table = pq.write_table

    def interrupted(table: pa.Table, where: Any, **options: Any) -> None:
        write_table(table, where, **options)
        raise KeyboardInterrupt
    monkeypatch.setattr(pq, "write_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small_set().write(tmp_path / "s.parquet")
    assert os.listdir(tmp_path) == []


def test_ids_default_to_fingerprints() -> None:
    g, h = small_set()[:2]
    assert GraphSet([g, h]).ids == (g.digest, h.digest)
    assert GraphSet([g, h, g]).ids == (f"{g.digest}-0", f"{h.digest}-1", f"{g.digest}-2")


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"ids": ["x"]}, CGError, "4 graphs but 1 ids"),
    ({"ids": ["x", "y", "z", "y"]}, CGError, "id 'y' occurs twice"),
    ({"labels": {"acc": [1, 2]}}, LabelError, r"label 'acc' has shape \(2,\), wanted \(4,\)"),
    ({"labels": {"acc": [[1]] * 4}}, LabelError, "label 'acc' has shape"),
])
def test_bad_ids_and_labels_are_refused(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GraphSet(list(small_set()), **options)


def test_choosing_rows_keeps_ids_labels_and_provenance_together() -> None:
    s = small_set()
    for part, rows in ((s.take([2, 0]), [2, 0]), (s[1:3], [1, 2]), (s[::-1], [3, 2, 1, 0]), (s[:0], []), (s[-2:], [2, 3])):
        assert part.ids == tuple("abcd"[i] for i in rows)
        assert part.label("time").tolist() == [1 + i for i in rows]
        assert [g.digest for g in part] == [s.graphs[i].digest for i in rows]
        assert part.provenance == s.provenance
    assert s.take(np.array([False, True, False, True])).ids == ("b", "d")
    assert s[-1] == s[3] == s.graphs[3]
    assert s[1] in s
    with pytest.raises(IndexError):
        s[4]


def test_label_by_name_or_the_only_one() -> None:
    s = small_set()
    assert s.label("time").tolist() == [1, 2, 3, 4]
    assert s.take([0]).families == ["f"]
    for metric in (None, "loss"):
        with pytest.raises(LabelError, match=f"no label {metric!r}; there are: acc, time"):
            s.label(metric)
    assert GraphSet(s.graphs, labels={"only": range(4)}).label().tolist() == [0, 1, 2, 3]
    with pytest.raises(LabelError, match="there are: none"):
        GraphSet(s.graphs).label()


def test_joining_sets_keeps_what_each_knows() -> None:
    s = small_set()
    other = GraphSet(s.graphs[:2], ["x", "y"], {"acc": [7, 8], "flops": [1, 2]}, {"source": "other"})
    both = concat([s, other])
    assert both.ids == ("a", "b", "c", "d", "x", "y")
    assert both.labels["acc"][4:].tolist() == [7, 8]
    assert np.isnan(both.labels["flops"][:4]).all()
    assert np.isnan(both.labels["time"][4:]).all()
    assert both.provenance == {"parts": [s.provenance, other.provenance]}
    twice = concat([s, s])
    assert twice.ids == tuple(f"{k}/{i}" for k in (0, 1) for i in "abcd")
