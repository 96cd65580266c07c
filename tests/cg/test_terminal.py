"""``cg._terminal``: what a bar says while work is going on."""

from __future__ import annotations

import pytest
from numba.core import event

from cg import _terminal as terminal


def test_a_bar_says_that_kernels_are_compiled_until_its_next_step(capsys: pytest.CaptureFixture[str],
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with terminal.progress("working", 3) as step:
        step(note="first")
        event.start_event("numba:compile")
        event.end_event("numba:compile")
    assert "compiling kernels, once on a machine" in capsys.readouterr().err
    with terminal.progress("working", 3) as step:
        event.start_event("numba:compile")
        step()
    assert "compiling" not in capsys.readouterr().err.splitlines()[-1]
    event.start_event("numba:compile")
    assert capsys.readouterr().err == ""


def test_kernels_report_when_they_are_compiled(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import njit

    monkeypatch.setenv("COLUMNS", "200")
    with terminal.progress("working"):
        assert njit(lambda x: x + 1)(1) == 2
    assert "compiling kernels" in capsys.readouterr().err


def test_of_several_bars_the_newest_says_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with terminal.stages() as tell:
        event.start_event("numba:compile")  # no bar yet
        tell("graphs", 1, 3)
        tell("embeddings", 0, 3)
        event.start_event("numba:compile")
    shown = capsys.readouterr().err.splitlines()[-2:]
    assert [("compiling kernels" in line, line.split()[0]) for line in shown] == [(False, "graphs"), (True, "embeddings")]
    with terminal.stages() as tell:
        tell("graphs", 1, 3)
        event.start_event("numba:compile")
        tell("graphs", 2, 3)
    assert "compiling" not in capsys.readouterr().err.splitlines()[-1]
