"""Child process of ``hostile.Jail``: imports the adapters once, then handles every file in a fork with limits of its own.

Reads one JSON task a line from standard input and writes one JSON result a line. A fork that dies, hangs or takes too much
memory is a result like any other. An audit hook notes what Python opens, runs and starts; it cannot be taken off again.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 10.0  # on one core
PATIENCE_S = 40.0  # by the clock
LIMIT_MB = 2048
ROGUE_LIMIT_MB = 256  # some machines need seconds to hand out gigabytes
_TRUSTED = tuple({os.path.realpath(p) + os.sep for p in (sys.prefix, sys.base_prefix, ROOT / "cg", ROOT / "extract",
                                                          ROOT / "tests", "/usr/lib", "/usr/share/zoneinfo", "/lib",
                                                          "/proc", "/sys")})
_DEVICES = {"/dev/null", "/dev/urandom"}
_STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn", "socket.connect",
           "socket.bind", "socket.getaddrinfo", "urllib.Request", "pickle.find_class", "os.remove", "os.rename", "os.mkdir",
           "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "shutil.rmtree", "shutil.unpack_archive",
           "ctypes.dlopen", "webbrowser.open")


def adapter(kind: str) -> Any:
    """What turns a path into an extraction. Raises ``ImportError`` if the framework is not installed."""
    if kind == "onnx":
        from extract.onnx_frontend import from_onnx

        return from_onnx
    if kind == "tensorflow":
        import keras  # noqa: F401
        import tensorflow  # noqa: F401

        from extract.tensorflow_frontend import from_tensorflow

        return from_tensorflow
    if kind == "rogue":  # does what the file says, to see whether the jail notices
        return lambda path: exec(compile(Path(path).read_text(), "<rogue>", "exec"), {"path": path})
    from extract.torch_frontend import from_torch

    return lambda path: from_torch(path, (1, 3, 8, 8))


def audit(given: str, scratch: str) -> list[str]:
    """From now on: what Python does outside the given path, as sentences in the list that is returned."""
    found: list[str] = []
    inside = (given + os.sep, scratch + os.sep)
    busy = threading.local()

    def trusted(path: str) -> bool:
        return path.startswith(_TRUSTED) or path in _DEVICES

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            if not isinstance(path, str | bytes | os.PathLike):
                return
            path = os.path.realpath(os.fsdecode(path))
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)) if isinstance(
                flags, int) else bool(mode and set(mode) & set("wax+"))
            if path.startswith(inside[1]) or path == "/dev/null":
                return
            if writes or not (path == given or path.startswith(inside[0]) or trusted(path)):
                found.append(f"opened {path} ({mode or flags})")
        elif event == "ctypes.dlopen" or event in ("os.remove", "os.mkdir", "os.rename", "os.rmdir", "shutil.rmtree"):
            path = os.path.realpath(os.fsdecode(args[0])) if args and isinstance(args[0], str | bytes) else ""
            if path and not (path + os.sep).startswith((*_TRUSTED, inside[1])) and "/" in os.fsdecode(args[0]):
                found.append(f"{event} {path}")
        elif event in _STARTS:
            found.append(f"{event} {str(args)[:100]}")
        elif event == "exec" or event == "function.__new__":
            code = args[0]
            name = str(getattr(code, "co_filename", ""))
            if not name.startswith("<") and not trusted(os.path.realpath(name)):
                found.append(f"ran code of {name!r}")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if getattr(busy, "now", False):
            return
        busy.now = True
        with contextlib.suppress(Exception):
            look(event, args)
        busy.now = False

    sys.addaudithook(hook)
    return found


def handle(run: Any, task: dict[str, Any]) -> dict[str, Any]:
    """One file, in the fork."""
    from extract import ExtractionError

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * LIMIT_MB * 2**20,) * 2)  # twice: mapped is not used
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(LIMIT_S) + 1,) * 2)
    os.environ["TMPDIR"] = task["scratch"]
    os.chdir(task["scratch"])
    path = os.path.realpath(task["path"])
    breaches = audit(path, os.path.realpath(task["scratch"]))
    try:
        graph = run(path).graph
        result = {"kind": "graph", "text": f"{graph.n_nodes} nodes"}
    except ExtractionError as error:
        text = str(error)
        short = any(t in text for t in ("MemoryError", "allocate memory", "bad_alloc", "out of memory"))
        result = {"kind": "memory" if short else "refused", "text": text[:3000]}
    except MemoryError:
        result = {"kind": "memory", "text": "MemoryError"}
    except BaseException as error:
        trace = [line for line in traceback.format_exception(error) if "extract" in line][-2:]
        result = {"kind": "other", "text": f"{type(error).__name__}: {str(error)[:300]}", "trace": "".join(trace)}
    if breaches:
        result |= {"kind": "breach", "text": "; ".join(dict.fromkeys(breaches))[:2000]}
    return result


def in_fork(run: Any, task: dict[str, Any]) -> dict[str, Any]:
    """``handle`` in a fork that is killed after ten seconds.

    Time is that of the processor, so that other programs do not decide what is too slow; ``rss_mb`` is the peak beyond what
    importing took.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        with contextlib.suppress(BaseException):
            warnings.simplefilter("ignore")
            quiet = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(quiet, number)
            text = json.dumps(handle(run, task)).encode()
            while text:
                text = text[os.write(write, text):]
        os._exit(0)
    os.close(write)
    data, end, late = bytearray(), time.monotonic() + PATIENCE_S, False
    while True:
        late = not select.select([read], [], [], max(0.0, end - time.monotonic()))[0]
        part = b"" if late else os.read(read, 65536)
        if not part:
            break
        data += part
    os.close(read)
    if late:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    rss, seconds = usage.ru_maxrss / 1024 - FLOOR_MB, usage.ru_utime + usage.ru_stime
    late = late or seconds > LIMIT_S
    try:
        result: dict[str, Any] = json.loads(bytes(data))
    except ValueError:
        why = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        result = {"kind": "crash", "text": why}
    result["seconds"] = round(seconds, 3)
    if late:
        result |= {"kind": "timeout", "text": f"more than {LIMIT_S} s of one core; {result['text']}"}
    elif rss > LIMIT_MB and result["kind"] in ("graph", "refused"):
        result |= {"kind": "memory", "text": f"peak {rss:.0f} MB: {result['text']}"}
    return result | {"rss_mb": round(rss, 1)}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def bare_fork_mb() -> float:
    """Peak of a fork that does nothing: code of libraries that it shares and never touches does not count."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.wait4(pid, 0)[2].ru_maxrss / 1024


def main() -> None:
    """Arguments: the adapter, and files that are extracted once so that what is imported late is there."""
    global FLOOR_MB, LIMIT_MB
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # frameworks that print do not disturb the results
    if sys.argv[1] == "rogue":
        LIMIT_MB = ROGUE_LIMIT_MB
    try:
        run = adapter(sys.argv[1])
    except ImportError as error:
        print(json.dumps({"ready": False, "text": str(error)}), file=out, flush=True)
        return
    base_mb = resident_mb()
    for path in sys.argv[2:]:
        run(path)
    gc.collect()
    gc.freeze()
    FLOOR_MB = bare_fork_mb() - (resident_mb() - base_mb)
    print(json.dumps({"ready": True, "base_mb": round(base_mb)}), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(in_fork(run, json.loads(line))), file=out, flush=True)


FLOOR_MB = 0.0  # what a fork that does nothing takes, less what the warm-up added to it
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
