"""Sub-networks of Once-for-All (arXiv 1908.09791) and the published surrogates that say how good and how fast they are.

    net = SubNet.parse("3-5-7-0-3-7-7-0-3-5-7-0-3-7-3-3-5-7-0-0-7-0-0-0,4-4-6-0-6-6-6-0-6-3-3-0-6-3-3-3-4-6-0-0-3-0-0-0,"
                       "3-3-3-4-2-1,192")
    AutoBuildOracle("pn", "top1")(net)                # 74.6253, percent on ImageNet
    AutoBuildOracle("pn", "latency_cpu").many(nets)   # milliseconds

Two families: ``mbv3`` (MobileNetV3, five stages of 2 to 4 blocks) and ``pn`` (ProxylessNAS, the same five and a last stage of
one block). The oracles are *surrogates*, fitted to measured sub-networks, and read their weights from the folder ``data/ofa``
of the public files (``$CGTRANSFER_SHARED``). Must not import torch; how a sub-network is built comes elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from cg.cells import Cell
from cg.errors import CGError, StorageError
from evo_search.oracles import OracleError, shared_folder

FAMILIES: Mapping[str, int] = MappingProxyType({"mbv3": 5, "pn": 6})
"""Name -> number of stages."""
KERNELS, EXPANDS, DEPTHS, MAX_DEPTH = (3, 5, 7), (3, 4, 6), (2, 3, 4), 4
LAST_DEPTH = 1  # of the sixth stage
METRICS = ("top1", "latency_cpu", "latency_gpu", "latency_npu")
_CHUNK = 256  # networks at a time: the arrays stay in the cache


@dataclass(frozen=True, slots=True)
class SubNet:
    """One sub-network. Equal ones are the same network: entries of absent blocks are 0.

    Attributes:
        ks, e: kernel size and expand ratio of block j of stage s at ``4 s + j``.
        d: depth of every stage; five of them for ``mbv3``, six for ``pn``.
        r: side of the input image, pixels.
    """

    ks: tuple[int, ...]
    e: tuple[int, ...]
    d: tuple[int, ...]
    r: int

    def __post_init__(self) -> None:
        if len(self.d) not in FAMILIES.values():
            raise CGError(f"OFA sub-network: d = {self.d} has {len(self.d)} stages; mbv3 has 5 and pn has 6")
        for s, depth in enumerate(self.d):
            allowed = DEPTHS if s < 5 else (LAST_DEPTH,)
            if depth not in allowed:
                raise CGError(f"OFA sub-network: d[{s}] = {depth}, must be one of {allowed}")
        for what, values, allowed in (("ks", self.ks, KERNELS), ("e", self.e, EXPANDS)):
            if len(values) != MAX_DEPTH * len(self.d):
                raise CGError(f"OFA sub-network: {what} has {len(values)} entries, {len(self.d)} stages need "
                              f"{MAX_DEPTH * len(self.d)}")
            for i, value in enumerate(values):
                if i % MAX_DEPTH >= self.d[i // MAX_DEPTH]:
                    allowed_here: tuple[int, ...] = (0,)
                else:
                    allowed_here = allowed
                if value not in allowed_here:
                    raise CGError(f"OFA sub-network: {what}[{i}] = {value}, must be one of {allowed_here}")
        if not (128 <= self.r <= 224 and self.r % 4 == 0):
            raise CGError(f"OFA sub-network: r = {self.r}, must be a multiple of 4 from 128 to 224")

    @property
    def family(self) -> str:
        """``mbv3`` or ``pn``."""
        return next(name for name, stages in FAMILIES.items() if stages == len(self.d))

    @classmethod
    def of(cls, ks: Sequence[int], e: Sequence[int], d: Sequence[int], r: int) -> SubNet:
        """From lists that may hold any value where a block is absent."""
        def kept(values: Sequence[int]) -> tuple[int, ...]:
            return tuple(int(v) if i // MAX_DEPTH >= len(d) or i % MAX_DEPTH < d[i // MAX_DEPTH] else 0
                         for i, v in enumerate(values))

        return cls(kept(ks), kept(e), tuple(map(int, d)), int(r))

    @classmethod
    def parse(cls, text: str) -> SubNet:
        """Inverse of ``str``: ``<ks>,<e>,<d>,<r>`` with ``-`` between the numbers of a list."""
        try:
            ks, e, d, r = text.strip().split(",")
            lists = [[int(v) for v in part.split("-")] for part in (ks, e, d)]
            size = int(r)
        except ValueError:
            raise CGError(f"OFA sub-network {text!r} is not '<ks>,<e>,<d>,<r>' with '-' inside the lists") from None
        return cls.of(lists[0], lists[1], lists[2], size)

    def __str__(self) -> str:
        return ",".join(["-".join(map(str, v)) for v in (self.ks, self.e, self.d)] + [str(self.r)])

    def blocks(self) -> list[tuple[int, int, int, int]]:
        """``(stage, place in the stage, kernel, expand)`` of the blocks that are there, in order."""
        return [(s, j, self.ks[MAX_DEPTH * s + j], self.e[MAX_DEPTH * s + j]) for s, depth in enumerate(self.d)
                for j in range(depth)]

    def cell(self) -> Cell:
        """A chain of the blocks that are there, named such as ``stage2_mbconv_k5_e6``, between ``input`` and ``output``.

        The resolution is not in it: compare networks of one resolution.
        """
        return _chain(["input", *(f"stage{s}_mbconv_k{k}_e{e}" for s, _, k, e in self.blocks()), "output"], str(self))

    def positions(self) -> Cell:
        """A chain of one node for every place a block can have (20 for ``mbv3``, 21 for ``pn``), ``mbconv_k5_e6`` or ``skip``.

        The form in which Wen et al. (arXiv 1912.00848) read their ProxylessNAS space: what stage a block is in follows from
        its distance from the ends.
        """
        places = [(s, j) for s in range(len(self.d)) for j in range(MAX_DEPTH if s < 5 else LAST_DEPTH)]
        there = {(s, j): f"mbconv_k{k}_e{e}" for s, j, k, e in self.blocks()}
        return _chain([there.get(place, "skip") for place in places], str(self))


def _chain(ops: list[str], name: str) -> Cell:
    return Cell(tuple(ops), tuple((i, i + 1) for i in range(len(ops) - 1)), name)


class _Surrogate:
    """What both oracles share: weights from a file, one value or many, a name for histories."""

    resolutions: tuple[int, ...]

    def __init__(self, family: str, file: str, folder: str | Path | None) -> None:
        self.family = family
        path = (shared_folder() / "data" / "ofa" if folder is None else Path(folder)) / file
        if not path.is_file():
            raise StorageError(f"no surrogate at {path}; set CGTRANSFER_SHARED to the folder that holds data/ofa, or pass "
                               "folder=")
        try:
            with np.load(path) as npz:
                self._w = {name: npz[name].astype(np.float64) for name in npz.files}
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot read {path}: {error}") from error

    def __call__(self, genome: Any) -> float:
        return float(self.many([genome])[0])

    def many(self, genomes: Sequence[SubNet | str]) -> np.ndarray:
        """Values ``[B]`` of many sub-networks or texts at once. Raises ``OracleError`` naming one that it does not know."""
        nets = [SubNet.parse(g) if isinstance(g, str) else g for g in genomes]
        for net in nets:
            if not isinstance(net, SubNet) or net.family != self.family:
                raise OracleError(f"this oracle knows sub-networks of the family {self.family}; {net!s} is none")
            if net.r not in self.resolutions:
                raise OracleError(f"r = {net.r} of {net!s}: this oracle knows {', '.join(map(str, self.resolutions))} only")
        parts = [self._values(nets[i:i + _CHUNK]) for i in range(0, len(nets), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _values(self, nets: Sequence[SubNet]) -> np.ndarray:
        raise NotImplementedError

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        bias = self._w.get(f"{name}.bias")
        out: np.ndarray = x @ self._w[f"{name}.weight"].T + (0 if bias is None else bias)
        return out


class AutoBuildOracle(_Surrogate):
    """A graph network on the chain of blocks: ImageNet top-1 in percent, or latency in milliseconds (batch 1).

    Source: weights of Ascend-Research/AutoBuild (MIT), fitted to 3,000 measured sub-networks of width 1.2 each; latency on a
    2990WX (``cpu``), a 2080 Ti (``gpu``) and a Kirin 9000 (``npu``).

    Args:
        family: ``mbv3`` or ``pn``.
        metric: one of ``METRICS``.
        folder: where the weights lie; ``data/ofa`` of the public files if None.
    """

    resolutions = (192, 208, 224)

    def __init__(self, family: str, metric: str = "top1", folder: str | Path | None = None) -> None:
        if family not in FAMILIES:
            raise OracleError(f"there is no OFA family {family!r}; there are {', '.join(FAMILIES)}")
        if metric not in METRICS:
            raise OracleError(f"there is no metric {metric!r}; there are {', '.join(METRICS)}")
        self.metric = metric
        super().__init__(family, f"oracle_autobuild_ofa_{family}_{'acc' if metric == 'top1' else metric}.npz", folder)

    def describe(self) -> dict[str, Any]:
        """JSON values that tell this oracle from another."""
        return {"kind": "surrogate", "name": "autobuild-ofa", "family": self.family, "metric": self.metric}

    def _values(self, nets: Sequence[SubNet]) -> np.ndarray:
        blocks = [net.blocks() for net in nets]
        first = np.cumsum([0] + [len(b) for b in blocks[:-1]])
        stage, place, kernel, expand = np.array([row for b in blocks for row in b]).T
        size = (np.array([[net.r] for net in nets]) - 192) / 32
        size = self._linear(self._linear(size, "embed_layer.res_mlp.0"), "embed_layer.res_mlp.1")[:, 0]
        kind = np.full(len(stage), int(self.family == "mbv3"))
        x = np.abs(np.stack([self._scalar("stage", stage), self._scalar("block", place), self._scalar("mbconv", kind),
                             self._scalar("exp", np.searchsorted(EXPANDS, expand)), self._scalar("kernel", (kernel - 3) // 2),
                             np.repeat(size, [len(b) for b in blocks])], 1))
        for i in range(4):  # x [blocks of all networks, width]
            name = f"encoder.gnn_layers.{i}"
            before = np.roll(x, 1, axis=0)
            before[first] = 0
            out = _leaky(self._norm(self._linear(before, f"{name}.lin_rel") + self._linear(x, f"{name}.lin_root"), i))
            x = out + x if i else out
        v = np.add.reduceat(x, first, axis=0)
        v = np.maximum(self._linear(self._linear(v, "post_proj.0"), "post_proj.1"), 0)
        v = _leaky(self._linear(self._linear(v, "post_proj.3"), "post_proj.4"))
        value: np.ndarray = self._linear(v, "regressor")[:, 0]
        return value * 100 if self.metric == "top1" else value

    def _scalar(self, name: str, number: np.ndarray) -> np.ndarray:
        """One number for every value of a field: rows of a table through a linear layer."""
        table = self._linear(self._w[f"embed_layer.{name}_embed.weight"], f"embed_layer.{name}_mlp")[:, 0]
        found: np.ndarray = table[number]
        return found

    def _norm(self, x: np.ndarray, i: int) -> np.ndarray:
        w = {k: self._w[f"encoder.bns.{i}.module.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
        out: np.ndarray = (x - w["running_mean"]) / np.sqrt(w["running_var"] + 1e-5) * w["weight"] + w["bias"]
        return out


class AutoBuildValues:
    """Several metrics of ``AutoBuildOracle`` by name, ``{"top1": percent, "latency_cpu": milliseconds, ...}``: for fronts."""

    def __init__(self, family: str, metrics: Sequence[str] = METRICS, folder: str | Path | None = None) -> None:
        self.oracles = {metric: AutoBuildOracle(family, metric, folder) for metric in metrics}

    def __call__(self, genome: Any) -> dict[str, float]:
        return {metric: oracle(genome) for metric, oracle in self.oracles.items()}

    def describe(self) -> dict[str, Any]:
        """JSON values that tell this oracle from another."""
        return {**next(iter(self.oracles.values())).describe(), "metric": ", ".join(self.oracles)}


class TutorialOracle(_Surrogate):
    """The perceptron of the Once-for-All tutorial: ImageNet top-1 in percent.

    Source: weights of mit-han-lab/once-for-all (MIT). ``pn`` has 20 places for blocks in its input, so the last stage, of one
    block, is not in it.

    Args:
        family: ``mbv3`` or ``pn``.
        folder: where the weights lie; ``data/ofa`` of the public files if None.
    """

    resolutions = (160, 176, 192, 208, 224)

    def __init__(self, family: str = "mbv3", folder: str | Path | None = None) -> None:
        if family not in FAMILIES:
            raise OracleError(f"there is no OFA family {family!r}; there are {', '.join(FAMILIES)}")
        super().__init__(family, f"oracle_ofa_{'mbv3' if family == 'mbv3' else 'proxyless'}_acc_mlp.npz", folder)

    def describe(self) -> dict[str, Any]:
        """JSON values that tell this oracle from another."""
        return {"kind": "surrogate", "name": "ofa-tutorial", "family": self.family, "metric": "top1"}

    def _values(self, nets: Sequence[SubNet]) -> np.ndarray:
        x = np.zeros((len(nets), 128))
        for row, net in zip(x, nets, strict=True):
            for s, j, k, e in net.blocks():
                if s < 5:
                    place = 3 * (MAX_DEPTH * s + j)
                    row[place + (k - 3) // 2] = 1
                    row[60 + place + EXPANDS.index(e)] = 1
            row[120 + (net.r - 112) // 16] = 1
        for layer in (0, 2, 4):
            x = np.maximum(self._linear(x, str(layer)), 0)
        value: np.ndarray = self._linear(x, "6")[:, 0]
        return value * 100 if self.family == "mbv3" else value


def _leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)
