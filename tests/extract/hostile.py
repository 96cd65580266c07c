"""Files that mean harm, and a jail to open them in: time and memory limited, every file access and start of code noticed.

    with Jail("onnx") as jail:
        jail.open(path)      # Outcome("refused", "model.onnx: node 'a' …", seconds, rss_mb)

A ``Case`` writes one hand-made file; what is worth protecting lies in a folder that the kernel watches (``Watch``).
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("hostile_worker.py")
GOOD = ("graph", "refused")


@dataclass(frozen=True)
class Case:
    """A hand-made file.

    Attributes:
        name: what is wrong with it.
        write: makes it in the folder given first and returns its path; the second folder holds files it must not touch.
        says: a pattern that the refusal must fit; ``None`` where a graph is as good.
    """

    name: str
    write: Callable[[Path, Path], Path]
    says: str | None = None


@dataclass(frozen=True)
class Outcome:
    """``kind``: graph, refused (an ``ExtractionError``), or what must not be: timeout, memory, crash, other, breach."""

    kind: str
    text: str
    seconds: float
    rss_mb: float
    trace: str = ""

    @property
    def good(self) -> bool:
        return self.kind in GOOD


class Unavailable(Exception):
    """The framework, or its adapter, is not installed."""


class Jail:
    """A worker process with one adapter ("onnx", "tensorflow" or "torch"); see ``hostile_worker``."""

    def __init__(self, adapter: str, warm_up: Sequence[str | os.PathLike[str]] = ()) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="jail-"))
        self.secrets = self.scratch / "secrets"
        (self.scratch / "tmp").mkdir()
        self.secrets.mkdir()
        for name in ("weights.bin", "secret.txt", "passwd"):
            (self.secrets / name).write_bytes(b"\0" * 4096)
        self.watch = Watch(self.secrets)
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS",
                             "TF_NUM_INTEROP_THREADS"), "1")
        environment = os.environ | one | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "MALLOC_ARENA_MAX": "2"}
        self._log = (self.scratch / "stderr.txt").open("w+")
        self.process = subprocess.Popen([sys.executable, WORKER, adapter, *map(str, warm_up)], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, stderr=self._log, env=environment)
        try:
            hello = self._read()
            if not hello["ready"]:
                raise Unavailable(hello["text"])
        except Exception:
            self.close()
            raise
        self.base_mb = hello["base_mb"]

    def open(self, path: str | os.PathLike[str]) -> Outcome:
        """Extract the file in a fork of the worker."""
        scratch = self.scratch / "tmp"
        assert self.process.stdin is not None
        print(json.dumps({"path": str(path), "scratch": str(scratch)}), file=self.process.stdin, flush=True)
        found = self._read()
        touched = self.watch.events()
        if touched:
            found |= {"kind": "breach", "text": f"touched {', '.join(touched)}; {found['text']}"}
        if any(scratch.iterdir()):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(exist_ok=True)
        return Outcome(**found)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the worker died:\n{self._log.read()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        self.watch.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> Jail:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Watch:
    """Notices every access to a folder and the files in it, by whatever library (Linux inotify; elsewhere nothing)."""

    _EVENTS = 0x1 | 0x2 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200  # access, modify, open, moved from and to, create, delete

    def __init__(self, folder: Path) -> None:
        self._fd = -1
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd >= 0 and libc.inotify_add_watch(self._fd, os.fsencode(folder), self._EVENTS) < 0:
                raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def events(self) -> list[str]:
        """Names of what was touched since the last call."""
        try:
            data = os.read(self._fd, 65536) if self._fd >= 0 else b""
        except BlockingIOError:
            return []
        names, at = list[str](), 0
        while at < len(data):
            size = struct.unpack_from("iIII", data, at)[3]
            names.append(data[at + 16:at + 16 + size].rstrip(b"\0").decode() or "the folder")
            at += 16 + size
        return sorted(set(names))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
