"""A benchmark survives a model that hangs, dies or grows, and a killed run goes on where it stopped."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import _workers  # noqa: E402  (a script's helper, not a package)

SCRIPT = """
import os, sys, time
sys.path.insert(0, {folder!r})
from _workers import serve
def handle(request):
    key = request["key"]
    if key == "hang": time.sleep(60)
    if key == "die": os.kill(os.getpid(), 9)
    if key == "grow": block = b"x" * 600_000_000; time.sleep(60)
    if key == "raise": raise ValueError("two\\nlines")
    print("what a model prints")
    return {{"pid": os.getpid()}}
serve(handle, lambda: {{}}, fork={fork})
"""


@pytest.fixture(params=[False, True], ids=["one process", "forks"])
def worker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(_workers, "RUNS", tmp_path)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(ROOT / "benchmarks"), fork=request.param))
    with _workers.Worker([str(script)], timeout_s=3, most_bytes=300_000_000, forks=request.param) as made:
        made.forks = request.param
        yield made


def test_a_bad_model_costs_one_entry(worker: Any) -> None:
    first = worker.ask({"key": "well"})["pid"]
    assert worker.ask({"key": "raise"})["error"] == "ValueError: two lines"
    assert "signal 9" in worker.ask({"key": "die"})["error"]
    assert worker.ask({"key": "hang"})["error"].startswith("no result within")
    assert worker.ask({"key": "grow"})["error"].startswith("more than")
    last = worker.ask({"key": "well"})
    assert last["pid"] != first
    assert last["code"] == _workers.code_version()


def test_answers_are_kept_and_those_of_other_code_are_not(tmp_path: Path) -> None:
    path, asked, code = tmp_path / "rows.jsonl", [], _workers.code_version()

    def measure(key: str) -> dict[str, Any]:
        asked.append(key)
        return {"code": "old" if key == "b" else code, "value": len(asked)}

    rows = _workers.sweep(path, ["a", "b"], measure)
    path.write_text(path.read_text() + '{"key": "c", "val')  # killed while it wrote
    again = _workers.sweep(path, ["a", "b", "c"], measure)
    assert asked == ["a", "b", "b", "c"]
    assert again["a"] == rows["a"]
    assert [json.loads(line)["key"] for line in path.read_text().splitlines() if line.endswith("}")] == ["a", "b", "b", "c"]
    _workers.sweep(path, ["a", "b", "c"], measure, keep=True)
    assert len(asked) == 4
    _workers.sweep(path, ["a", "b", "c"], measure, keep=True, again=lambda row: row["key"] == "a")
    assert asked[4:] == ["a"]
