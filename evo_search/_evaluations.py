"""One folder for each evaluation of a network: who owns it at the moment, what was kept in it, and which network it is.

Used by the oracles that work for minutes or hours on one network. This file must not know how they get their value.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg.errors import CGError, StorageError
from cg.files import write_json
from evo_search.oracles import OracleError

if TYPE_CHECKING:
    from cg.graph import Graph
    from evo_search.spaces._base import SearchSpace

RESULT, ABOUT = "result.json", "evaluation.json"


class Evaluations:
    """The folders of one oracle, ``folder/<start of the key>-<hash of key and settings>``.

    Evaluations with other settings get other folders, so a result is never taken for that of another question.

    Args:
        folder: where they lie, made when first needed; ``None``: temporary ones, of which nothing is kept.
        settings: JSON values that decide the result of an evaluation, apart from the network.
    """

    def __init__(self, folder: str | Path | None, settings: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder).absolute()
        self.settings = dict(settings)

    def path(self, key: str) -> Path:
        """Where the evaluation of this network is kept; ``CGError`` without a folder."""
        if self.folder is None:
            raise CGError("nothing is kept without a folder; give folder=")
        start = re.sub(r"[^A-Za-z0-9._]+", "-", key)[:40].strip("-.")
        text = json.dumps([key, self.settings], sort_keys=True)
        return self.folder / f"{start}-{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=10).hexdigest()}"

    @contextlib.contextmanager
    def locked(self, arch: str, key: str) -> Iterator[Path]:
        """The folder of one evaluation, for this thread of this process alone; waits until others have left it.

        The lock goes with its process, also when that is killed. Raises ``StorageError`` if the folder cannot be made.
        """
        if self.folder is None:
            with tempfile.TemporaryDirectory(prefix="evaluation-") as temporary:
                yield Path(temporary)
            return
        import fcntl

        path = self.path(key)
        try:
            path.mkdir(parents=True, exist_ok=True)
            file = (path / "lock").open("ab")
        except OSError as error:
            raise StorageError(f"cannot use folder {path}: {error.strerror or error}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (path / ABOUT).exists():
                write_json(path / ABOUT, {"arch": arch.encode("utf-8", "replace").decode(), "settings": self.settings})
            yield path


def read_result(folder: Path) -> dict[str, Any] | None:
    """What ``write_json(folder / RESULT, …)`` kept; ``None`` where there is nothing or nothing readable."""
    try:
        found = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def name_of(genome: Any, space: SearchSpace[Any] | None) -> tuple[str, str]:
    """The genome as text, and the text that is equal for equal networks (``space.key``, else the same).

    Without a space a text stands for itself, a graph for its fingerprint, another value for its ``repr``.
    Raises ``OracleError`` for a ``repr`` that is another one in the next process.
    """
    from cg.graph import Graph

    if space is not None:
        if isinstance(genome, str):
            genome = space.decode(genome)
        text = space.encode(genome)
        return text, str(space.key(genome)) if hasattr(space, "key") else text
    if isinstance(genome, str):
        return genome, genome
    if isinstance(genome, Graph):
        return genome.digest, genome.digest
    text = repr(genome)
    if re.search(r" at 0x[0-9a-fA-F]+", text):
        raise OracleError(f"genome {text[:80]} has no lasting name; give space=, or genomes that are texts, numbers, tuples or "
                          "graphs")
    return text, text


def graph_of(genome: Any, space: SearchSpace[Any] | None) -> Graph:
    """The graph of a genome. Raises ``OracleError`` where neither a space nor the genome has one."""
    from cg.graph import Graph

    if space is not None:
        return space.to_graph(space.decode(genome) if isinstance(genome, str) else genome)
    if isinstance(genome, Graph):
        return genome
    raise OracleError(f"a {type(genome).__name__} is no graph and there is no search space to make one of it; give space=")


def module_of(genome: Any, space: SearchSpace[Any] | None, seed: int) -> Any:
    """The network as a torch module: the space's own where it has one, else built from the graph."""
    if space is not None and hasattr(space, "to_torch"):
        return space.to_torch(space.decode(genome) if isinstance(genome, str) else genome)
    from extract import to_torch

    return to_torch(graph_of(genome, space), seed)


def space_of(space: SearchSpace[Any] | str | None) -> SearchSpace[Any] | None:
    """A space by name or as it is."""
    if isinstance(space, str):
        from evo_search.spaces import get_space

        return get_space(space)
    return space


def tail(path: Path, size: int = 4000) -> str:
    """The last ``size`` bytes of a text file, from the start of a line where more was left out; empty if there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - size))
            text = file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
    return text if end <= size else "…\n" + (text.partition("\n")[2] or text)
