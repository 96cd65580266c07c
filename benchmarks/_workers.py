"""Measure many models, each where it can do no harm: a worker process that is killed when it hangs, grows or crashes.

A script calls ``serve(handle, start)`` when it is started with ``--serve``, and asks itself through ``Worker``. Answers are
JSON objects. ``sweep`` appends each to a file, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from _record import ROOT

Answer = dict[str, Any]
RUNS = ROOT / "runs"  # not in the repository
START_S = 300.0  # to import a framework on a busy machine


# ---- in the worker -----------------------------------------------------------------------------------------------


def serve(handle: Callable[[Answer], Answer], start: Callable[[], Answer], *, fork: bool = False) -> None:
    """Answer one request a line until stdin closes. ``start`` imports what is needed; its result is the first line.

    With ``fork`` each request is answered by a child that ends after it: every model meets the same fresh process, and
    its peak memory is its own. What the model prints goes to stderr.
    """
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: Answer) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    say({**start(), "rss": rss(), "code": code_version()})
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork() if fork else 0
        if child:
            said = _wait_for(child, request["timeout_s"], request["most_bytes"])
            if said:
                say({"error": said})
            continue
        try:
            answer = handle(request)
        except Exception as error:
            answer = {"error": one_line(error)}
        say(answer)
        if fork:
            os._exit(0)


def _wait_for(child: int, timeout_s: float, most_bytes: int) -> str:
    """Empty if the child ended well (it has then said its answer), otherwise why it did not."""
    end = time.monotonic() + timeout_s
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "" if status == 0 else f"the process died of {_cause(status)}"
        reason = (f"no result within {timeout_s:.0f} s" if time.monotonic() > end else
                  f"more than {most_bytes / 1e9:.0f} GB" if rss(child) > most_bytes else "")
        if reason:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return reason
        time.sleep(0.02)


def _cause(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {os.WEXITSTATUS(status)}"


def rss(pid: int | str = "self") -> int:
    """Resident bytes of a process now; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def peak_rss() -> int:
    """Most resident bytes that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one_line(error: BaseException, length: int = 300) -> str:
    """The error without line breaks and without the folders of this machine."""
    text = " ".join(str(error).split())
    for folder in sorted({str(ROOT), *filter(None, sys.path)}, key=len, reverse=True):
        text = text.replace(f"{folder}/", "")
    return f"{type(error).__name__}: {text}"[:length] if text else type(error).__name__


def code_version() -> str:
    """Changes whenever the code under test does."""
    digest = hashlib.blake2b(digest_size=6)
    for folder in ("cg", "extract"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


# ---- in the script -----------------------------------------------------------------------------------------------


class Worker:
    """A process that answers requests, started when it is first asked and started anew after it was killed."""

    def __init__(self, command: Sequence[str], *, timeout_s: float, most_bytes: int, forks: bool = False) -> None:
        self.command = [sys.executable, *command]
        self.timeout_s, self.most_bytes, self.forks = timeout_s, most_bytes, forks
        self.started: Answer = {}
        self._process: subprocess.Popen[str] | None = None
        self._errors = RUNS / f"worker-{os.getpid()}-{id(self)}.log"

    def ask(self, request: Answer) -> Answer:
        """The worker's answer, or ``{"error": why there is none}``."""
        if self._process is None:
            RUNS.mkdir(exist_ok=True)
            env = os.environ | {"PYTHONPATH": str(ROOT),  # the packages beside this script, also in a copy of the repository
                                "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
                                "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "",
                                "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
            with self._errors.open("w") as log:
                self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                                 text=True, bufsize=1, env=env, start_new_session=True, cwd=ROOT)
            self.started = self._read(START_S)
            if "error" in self.started:
                raise RuntimeError(f"{' '.join(self.command)} does not start: {self.started['error']}\n"
                                   f"{self._errors.read_text()[-3000:]}")
        process = self._process
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps({**request, "timeout_s": self.timeout_s, "most_bytes": self.most_bytes}) + "\n")
            process.stdin.flush()
        answer = self._read(self.timeout_s + (30 if self.forks else 0))
        return {**answer, "code": self.started.get("code", "")}

    def _read(self, timeout_s: float) -> Answer:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        end = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while time.monotonic() < end:
                if ready.select(0.25):
                    line = process.stdout.readline()
                    if line:
                        answer: Answer = json.loads(line)
                        return answer
                    status = process.wait()
                    self.close()
                    return {"error": f"the process died of {f'signal {-status}' if status < 0 else f'exit status {status}'}"}
                if not self.forks and rss(process.pid) > self.most_bytes:
                    self.close()
                    return {"error": f"more than {self.most_bytes / 1e9:.0f} GB"}
        self.close()
        return {"error": f"no result within {timeout_s:.0f} s"}

    def close(self) -> None:
        """End the process and all that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._errors.unlink(missing_ok=True)


def measured(path: Path) -> dict[str, Answer]:
    """Answers in a partial file by key, the last one where a key stands twice. A torn last line is left out."""
    found: dict[str, Answer] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                row = json.loads(line)
                found[row["key"]] = row
    return found


def sweep(path: Path, keys: Iterable[str], measure: Callable[[str], Answer], *, keep: bool = False,
          again: Callable[[Answer], bool] = lambda row: False) -> dict[str, Answer]:
    """``measure(key)`` for every key without an answer in ``path``; each is appended at once. All answers by key.

    An answer of other code (see ``code_version``) is measured again unless ``keep``; so is one for which ``again`` holds.
    """
    keys = list(keys)
    known, code = measured(path), code_version()
    todo = [k for k in keys if k not in known or again(known[k]) or not (keep or known[k].get("code") == code)]
    path.parent.mkdir(exist_ok=True)
    begin = time.monotonic()
    print(f"{path.name}: {len(keys) - len(todo)} of {len(keys)} are there", flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n")  # ends a line that a killed run left torn; an empty line is no answer
        for i, key in enumerate(todo):
            row = {"key": key, **measure(key)}
            known[key] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            left = (time.monotonic() - begin) / (i + 1) * (len(todo) - i - 1)
            said = str(row.get("error") or row.get("unknown") or "")[:90]
            print(f"{i + 1}/{len(todo)} {key} {row.get('seconds', 0):.2f} s {said} (about {left / 60:.1f} min left)",
                  flush=True)
    return {k: known[k] for k in keys}
