"""``CommandOracle``: the value of a network is what a command prints, so any program in any language can be an oracle.

    oracle = CommandOracle("python train.py --arch {arch} --out {out}", space="nasbench201", folder="trained", timeout_s=3600)
    oracle(genome)          # the number in the last line of stdout, or {"acc": 93.1, "latency_ms": 4.2}

The command runs without a shell: what stands for a placeholder arrives as it is, in one piece.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg.errors import CGError
from cg.files import atomic_path, write_json
from evo_search._evaluations import RESULT, Evaluations, graph_of, module_of, name_of, read_result, space_of, tail
from evo_search._process import interrupt_all, run_group
from evo_search.oracles import EvaluationFailed, OracleError

if TYPE_CHECKING:
    from evo_search.spaces._base import SearchSpace

__all__ = ["PLACEHOLDERS", "CommandOracle", "interrupt_all"]
PLACEHOLDERS = ("arch", "graph", "onnx", "seed", "out", "folder")
_HOLE = re.compile(r"\{\{|\}\}|(?<!\$)\{([A-Za-z_]\w*)\}")
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}
_EXPORT = threading.Lock()
Value = float | dict[str, float]


class CommandOracle:
    """Runs a command for each network and reads its value.

    Args:
        command: the words of the command, or one text that is split as a POSIX shell would split it (quotes count, nothing is
            expanded). ``{name}`` in a word stands for one of
            ``arch``, the encoded genome; ``seed``, a number;
            ``graph``, a Parquet file with the network's graph (``cg.GraphSet``); ``onnx``, a file with the untrained network;
            ``out``, a file to which the command may write its values as JSON;
            ``folder``, the network's own folder, in which it may keep what it likes.
            ``{{`` and ``}}`` are braces. The environment has ``CG_ARCH``, ``CG_SEED``, ``CG_OUT`` and ``CG_FOLDER`` too.
        space: a search space or its name; needed for genomes that are not texts, and for ``{graph}`` and ``{onnx}``.
        timeout_s: seconds of one attempt; then the whole process group is ended and the attempt has failed.
        metric: take this one of several values; by default all are returned.
        regex: where in stdout the value is: its first group in its last match, or its named groups as several values.
        folder: one folder for each network is made here with its logs and value; ``None`` keeps nothing.
        env: changes of the environment; ``None`` as a value removes a variable.
        cwd: where the command runs; default: here.
        retries: further attempts after a crash, the time limit or output without a value (not after NaN).
        shell: give the text to ``/bin/sh``; ``{name}`` then becomes one quoted word, and must not stand in quotes.
        seed: for ``{seed}``, and of the weights in ``{onnx}``.

    Calling it returns a number or several by name: from the JSON in ``{out}`` if that was written, else by ``regex``, else from
    the last line of stdout that is not empty, a number or JSON. Of a JSON object, entries that are no numbers are left out. A
    finished evaluation in ``folder`` is not run again; failed ones are. Threads and processes may call at the same time.

    Raises ``EvaluationFailed`` with the end of stdout and stderr: exit status other than 0, time limit, NaN or infinity, no
    value in the output. ``OracleError`` when it is made: unknown placeholder, program not found, placeholder in quotes.
    An interrupt ends the command, too, and is raised again; only the main thread hears of one, ``interrupt_all()`` tells the
    others. Needs POSIX process groups.
    """

    def __init__(self, command: str | Sequence[str], *, space: SearchSpace[Any] | str | None = None,
                 timeout_s: float | None = None, metric: str | None = None, regex: str | None = None,
                 folder: str | Path | None = None, env: Mapping[str, str | None] | None = None, cwd: str | Path | None = None,
                 retries: int = 0, shell: bool = False, seed: int = 0) -> None:
        if timeout_s is not None and not timeout_s > 0:
            raise OracleError(f"timeout_s must be positive, got {timeout_s!r}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise OracleError(f"retries must be a whole number of 0 or more, got {retries!r}")
        self.space, self.seed, self.timeout_s, self.retries = space_of(space), int(seed), timeout_s, retries
        self.command = command if isinstance(command, str) else tuple(map(str, command))
        self.shell, self.metric, self.regex = shell, metric, regex
        self.env, self.cwd = dict(env or {}), None if cwd is None else str(cwd)
        self.words = _shell_text(command) if shell else _words(command)
        self.wants = {m[1] for word in self.words for m in _HOLE.finditer(word) if m[1]}
        _check_regex(regex, metric)
        if self.wants - set(PLACEHOLDERS):
            raise OracleError(f"the command has an unknown placeholder {{{min(self.wants - set(PLACEHOLDERS))}}}; known: "
                              f"{', '.join(PLACEHOLDERS)} (a brace is written {{{{)")
        if not shell and not _HOLE.search(self.words[0]) and not self._program(self.words[0]):
            raise OracleError(f"the program {self.words[0]!r} was not found")
        self.kept = Evaluations(folder, {**self.describe(), "env": self.env})

    def describe(self) -> dict[str, Any]:
        """What decides a value; values of ``env`` are left out, since they may be secret."""
        return {"kind": "command", "command": self.command if isinstance(self.command, str) else list(self.command),
                "space": getattr(self.space, "name", None), "seed": self.seed, "shell": self.shell, "metric": self.metric,
                "regex": self.regex, "cwd": self.cwd, "env": sorted(self.env)}

    def __call__(self, genome: Any) -> Value:
        arch, key = name_of(genome, self.space)
        with self.kept.locked(arch, key) as folder:
            kept = (read_result(folder) or {}).get("value")
            if isinstance(kept, dict | float):
                return kept
            for attempt in range(self.retries + 1):
                try:
                    value = self._attempt(genome, arch, folder)
                    break
                except _NotFinite:
                    raise
                except EvaluationFailed as error:
                    if attempt == self.retries:
                        raise
                    with (folder / "attempts.txt").open("a", encoding="utf-8", errors="replace") as file:
                        file.write(f"attempt {attempt + 1}: {error}\n{error.log}\n")
            if self.kept.folder is not None:
                write_json(folder / RESULT, {"value": value, "arch": arch})
            return value

    def _program(self, name: str) -> bool:
        path = self.env["PATH"] if self.env.get("PATH") is not None else None
        if os.sep in name:
            return shutil.which(os.path.join(self.cwd or "", name)) is not None
        return shutil.which(name, path=path) is not None

    def _attempt(self, genome: Any, arch: str, folder: Path) -> Value:
        values = {"arch": arch, "seed": str(self.seed), "out": str(folder / "out.json"), "folder": str(folder)}
        try:
            if "graph" in self.wants:
                from cg.graphset import GraphSet

                GraphSet([graph_of(genome, self.space)], [arch]).write(folder / "graph.parquet")
                values["graph"] = str(folder / "graph.parquet")
            if "onnx" in self.wants:
                values["onnx"] = str(folder / "model.onnx")
                self._export(genome, folder / "model.onnx")
        except CGError as error:
            raise EvaluationFailed(f"the files for the command cannot be made: {error}") from error
        (folder / "out.json").unlink(missing_ok=True)
        words = [_filled(word, values, shlex.quote if self.shell else str) for word in self.words]
        env: dict[str, str | None] = {**os.environ, **{f"CG_{k.upper()}": values[k] for k in ("seed", "out", "folder")},
                                      "CG_ARCH": arch if len(arch.encode("utf-8", "replace")) < 100_000 else None, **self.env}
        try:
            status = run_group(words[0] if self.shell else words, folder, timeout_s=self.timeout_s, cwd=self.cwd,
                               env={k: v for k, v in env.items() if v is not None}, shell=self.shell)
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the genome
            raise EvaluationFailed(f"the command cannot be started: {error}") from error
        log = "".join(f"--- {name}\n{text.rstrip()}\n" for name in ("stdout", "stderr")
                      if (text := tail(folder / f"{name}.txt")))
        if status is None:
            raise EvaluationFailed(f"the command was ended after {self.timeout_s:g} s", log)
        if status:
            cause = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise EvaluationFailed(f"the command failed with {cause}", log)
        return self._read(folder, log)

    def _read(self, folder: Path, log: str) -> Value:
        text = tail(folder / "stdout.txt", 1 << 20)
        if (folder / "out.json").exists():
            where = "the file {out}"
            found = _from_json((folder / "out.json").read_text(encoding="utf-8", errors="replace"))
        elif self.regex is not None:
            where = f"a match of {self.regex!r} in stdout"
            matches = list(re.finditer(self.regex, text, re.MULTILINE))
            found = None
            if matches:
                named = matches[-1].groupdict()
                found = {k: _from_json(v or "") for k, v in named.items()} if named else _from_json(matches[-1][1] or "")
        else:
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            where = f"the last line of stdout ({lines[-1][:80]!r})" if lines else "stdout, which is empty"
            found = _from_json(lines[-1]) if lines else None
        value: Value
        if isinstance(found, dict):
            value = {str(k): float(v) for k, v in found.items() if _is_number(v)}
            if self.metric is not None and self.metric not in value:
                raise EvaluationFailed(f"there is no {self.metric!r} in {where}; it has {', '.join(value) or 'none'}", log)
            value = value if self.metric is None else value[self.metric]
        elif _is_number(found):
            value = float(found)
        else:
            value = {}
        if value == {}:
            raise EvaluationFailed(f"there is no value in {where}; wanted a number or a JSON object of numbers", log)
        for name, number in value.items() if isinstance(value, dict) else [(self.metric or "value", value)]:
            if not math.isfinite(number):
                raise _NotFinite(f"the {name} is {number}", log)
        return value

    def _export(self, genome: Any, path: Path) -> None:
        """The network with fresh weights as ONNX, batch 1."""
        import torch

        with _EXPORT, torch.random.fork_rng(devices=[]), warnings.catch_warnings(), atomic_path(path) as temporary:
            warnings.simplefilter("ignore")
            torch.manual_seed(self.seed)
            module = module_of(genome, self.space, self.seed).eval()
            if hasattr(module, "example_inputs"):
                inputs = tuple(module.example_inputs(1))
            else:
                inputs = tuple(torch.zeros(n.out_shape) for n in graph_of(genome, self.space).nodes if n.op == "Input")
            names = [f"x{i}" for i in range(len(inputs))]
            try:
                torch.onnx.export(module, inputs, str(temporary), dynamo=False, input_names=names, opset_version=17,
                                  verbose=False)
            except Exception as error:  # each step has error classes of its own, without a common base
                text = " ".join(str(error).split())[:300]
                raise CGError(f"the network cannot be exported to ONNX ({type(error).__name__}: {text})") from error


class _NotFinite(EvaluationFailed):
    """The command answered, but with NaN or infinity: asking again would not help."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _from_json(text: str) -> Any:
    """A number or a JSON value; ``None`` for anything else."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _words(command: str | Sequence[str]) -> list[str]:
    try:
        words = shlex.split(command) if isinstance(command, str) else list(map(str, command))
    except ValueError as error:
        raise OracleError(f"the command {command!r} cannot be split into words: {error}") from None
    if not words or not words[0]:
        raise OracleError("the command is empty")
    for i, word in enumerate(words):
        after = words[i + 1:i + 3]
        if Path(word).name in _SHELLS and len(after) == 2 and re.fullmatch(r"-\w*c\w*", after[0]) and _has_hole(after[1]):
            raise OracleError(f"a placeholder in {after[1]!r} would be read as code by {word}; write \"$CG_ARCH\" there, or "
                              "use shell=True")
    return words


def _has_hole(word: str) -> bool:
    return any(m[1] for m in _HOLE.finditer(word))


def _shell_text(command: str | Sequence[str]) -> list[str]:
    """The text for a shell. Raises ``OracleError`` where a quoted word in place of a placeholder would not be one word."""
    if not isinstance(command, str):
        raise OracleError("with shell=True the command must be one text")
    if not command.strip():
        raise OracleError("the command is empty")
    quote, skip = "", False
    if _has_hole(command) and re.search(r"""`|<<|\(\(|\$'|"[^"']*\$(\(|\{\w*[^\w}])""", command):
        raise OracleError("placeholders cannot be used beside `…`, <<, ((, $' or \"$(…)\"; use \"$CG_ARCH\" instead of {arch}")
    holes = {m.start() for m in _HOLE.finditer(command) if m[1]}
    for i, c in enumerate(command):
        if i in holes and (quote or skip):
            raise OracleError(f"the placeholder at {command[i:i + 12]!r} is in quotes; leave them out, it gets its own")
        if skip:
            skip = False
        elif c == "\\" and quote != "'":
            skip = True
        elif quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
    return [command]


def _filled(word: str, values: Mapping[str, str], quote: Callable[[str], str]) -> str:
    """The word with its placeholders replaced, once: braces in what stands for them mean nothing."""
    return _HOLE.sub(lambda m: quote(values[m[1]]) if m[1] else m[0][0], word)


def _check_regex(regex: str | None, metric: str | None) -> None:
    try:
        compiled = re.compile(regex or "()")
    except re.error as error:
        raise OracleError(f"regex {regex!r} is not valid: {error}") from None
    if not compiled.groups:
        raise OracleError(f"regex {regex!r} needs a group (…) around the value")
    if regex is not None and metric is not None and metric not in compiled.groupindex:
        raise OracleError(f"regex {regex!r} has no group named {metric!r}: (?P<{metric}>…)")
