"""A command, or a call, in a process group of its own: it ends in time, with all that it started, or it is ended.

A command's output goes to files, not through pipes, so that a child that keeps them open cannot hold anyone up. POSIX only.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

GRACE_S = 3.0
_RUNNING = "running.json"
_INTERRUPTS: set[threading.Event] = set()


def interrupt_all() -> None:
    """End the evaluations that run in any thread of this process; those calls raise ``KeyboardInterrupt``.

    For the main thread, which alone is told of Ctrl-C; commands do not share its terminal's process group.
    """
    for event in list(_INTERRUPTS):
        event.set()


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that ``interrupt_all`` sets during the block."""
    event = threading.Event()
    _INTERRUPTS.add(event)
    try:
        yield event
    finally:
        _INTERRUPTS.discard(event)


def run_group(command: str | Sequence[str], folder: Path, *, timeout_s: float | None, env: Mapping[str, str],
              cwd: str | Path | None, shell: bool) -> int | None:
    """Run a command, its output in ``folder/stdout.txt`` and ``folder/stderr.txt``; its exit status, or ``None`` at the limit.

    Whatever of its process group is left afterwards is ended: by SIGTERM and 3 s later by SIGKILL at the limit, by SIGINT
    first if this process was interrupted (which is then raised again). A group that an earlier, killed owner of ``folder``
    left running is ended before the start. A process that makes a session of its own is not reached.

    Raises ``OSError`` if the command cannot be started.
    """
    _end_left_over(folder)
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=dict(env), cwd=cwd,
                                   shell=shell, start_new_session=True)
    how = signal.SIGTERM
    end = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        (folder / _RUNNING).write_text(json.dumps({"pid": process.pid, "host": socket.gethostname(),
                                                   "start": _start_time(process.pid)}))
        with interruptible() as interrupted:
            while end is None or time.monotonic() < end:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(0.2 if end is None else max(0.0, min(0.2, end - time.monotonic())))
                if interrupted.is_set():
                    raise KeyboardInterrupt
            return None
    except KeyboardInterrupt:
        how = signal.SIGINT
        raise
    finally:
        if process.returncode is None:
            _signal(process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        _signal(process.pid, signal.SIGKILL)  # children that outlived the command, and the command if it did not listen
        process.wait()
        (folder / _RUNNING).unlink(missing_ok=True)


class ProcessEnded(Exception):
    """The process of a call ended without an answer, or was ended at its limit; the message says which."""


def call_apart(fn: Callable[..., Any], *args: Any, limit_s: float | None = None) -> Any:
    """``fn(*args)`` in a fresh process: what it returns, or raises; everything must be picklable.

    The process ends with this one, and at an interrupt. Raises ``ProcessEnded`` if it crashed or took longer than ``limit_s``.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, fn, args))
    process.start()
    sender.close()
    end = None if limit_s is None else time.monotonic() + limit_s
    try:
        with receiver, interruptible() as interrupted:
            while not receiver.poll(0.2):
                if interrupted.is_set():
                    raise KeyboardInterrupt
                if end is not None and time.monotonic() > end:
                    raise ProcessEnded(f"the process was ended after {limit_s:g} s")
            try:
                ok, value = receiver.recv()
            except EOFError:
                process.join()
                code = process.exitcode or 0
                how = f"signal {-code}" if code < 0 else f"exit status {code}"
                raise ProcessEnded(f"the process ended with {how}") from None
    finally:
        if process.pid is not None:
            _signal(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        process.close()
    if ok:
        return value
    raise value


def _answer(sender: Any, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """In the new process."""
    os.setsid()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        answer = (True, fn(*args))
    except BaseException as error:
        answer = (False, error)
    sender.send(answer)
    sender.close()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _start_time(pid: int) -> str | None:
    """When a process began, in the kernel's own count; tells it from a later one of the same number. ``None`` off Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _end_left_over(folder: Path) -> None:
    """End the command of an owner that was killed, if it still runs on this machine."""
    try:
        left = json.loads((folder / _RUNNING).read_text())
        if left["host"] == socket.gethostname() and left["start"] and _start_time(int(left["pid"])) == left["start"]:
            _signal(int(left["pid"]), signal.SIGKILL)
            while _start_time(int(left["pid"])) == left["start"] and not _is_zombie(int(left["pid"])):
                time.sleep(0.01)
    except (OSError, ValueError, KeyError, TypeError):
        return


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return True
