"""Node specifications: everything that is known of one operator instance, interned once for the whole process.

Networks repeat themselves, so a graph stores one small integer per node (an index into the table here) and every
quantity that depends on the node alone (costs, features, hashes) is computed once per distinct node, not per node.
The integers are private to a process: files and pickles carry the JSON text of a spec instead.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from cg.errors import GraphError
from cg.vocabulary import CATEGORY_OF, OP_INDEX, arity

Shape = tuple[int, ...]
_WINDOW: Final = frozenset({"kernel_shape", "strides", "dilations", "pads"})


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One operator instance.

    Attributes:
        op: operator name, a member of ``cg.vocabulary.OPS``.
        in_shapes: shape of every tensor argument, ONNX layout with the batch axis first, e.g. ``((1, 3, 32, 32),)``.
        out_shape: shape of the one output tensor.
        weight_shape: shape of the main trained weight, ``()`` if there is none (Conv: out, in / group, kh, kw).
        bias: whether a bias vector is added.
        attrs: the remaining attributes by ONNX name, sorted: ``(("kernel_shape", (3, 3)), ("strides", (1, 1)))``.
        extra_params: trained scalars beside weight and bias (normalisation offsets, recurrent weights, …).
    """

    op: str
    in_shapes: tuple[Shape, ...]
    out_shape: Shape
    weight_shape: Shape = ()
    bias: bool = False
    attrs: tuple[tuple[str, Any], ...] = ()
    extra_params: int = 0

    def __post_init__(self) -> None:
        if self.op not in OP_INDEX:
            raise GraphError(f"operator {self.op!r} is not in the vocabulary; use 'Unknown' and keep its name in attrs")
        low, high = arity(self.op)
        if len(self.in_shapes) < low or (high is not None and len(self.in_shapes) > high):
            wanted = f"{low}" if high == low else f"{low} to {'any number' if high is None else high}"
            raise GraphError(f"{self.op} takes {wanted} tensors, got {len(self.in_shapes)}")
        for shape in (*self.in_shapes, self.out_shape):
            if any(d < 0 for d in shape):
                raise GraphError(f"{self.op} has a negative dimension in shape {shape}")
        for name, value in self.attrs:
            if name in _WINDOW and not (isinstance(value, tuple) and value):
                raise GraphError(f"{self.op}: attribute {name} must be a tuple with a number for each axis, got {value!r}")
        if self.op == "Gemm" and len(self.weight_shape) != 2:
            raise GraphError(f"Gemm needs a weight_shape (out, in), got {self.weight_shape}")

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute ``name``, or ``default`` where the node has none."""
        return dict(self.attrs).get(name, default)

    @property
    def category(self) -> int:
        """Index into ``cg.vocabulary.CATEGORIES``."""
        return CATEGORY_OF[self.op]

    @property
    def params(self) -> int:
        """Trained scalars: weight, bias (one per output channel) and ``extra_params``."""
        weight = prod(self.weight_shape) if self.weight_shape else 0
        return weight + (self._bias_size() if self.bias else 0) + self.extra_params

    def _bias_size(self) -> int:
        if not self.weight_shape:
            return 0
        if self.op == "ConvTranspose":
            return self.weight_shape[1] * int(self.attr("group", 1))
        return self.weight_shape[0]

    def to_json(self) -> str:
        """Canonical text: equal specs give equal text on every machine."""
        fields: dict[str, Any] = {"op": self.op, "in": self.in_shapes, "out": self.out_shape}
        if self.weight_shape:
            fields["w"] = self.weight_shape
        if self.bias:
            fields["bias"] = True
        if self.extra_params:
            fields["extra"] = self.extra_params
        if self.attrs:
            fields["attrs"] = dict(self.attrs)
        return json.dumps(fields, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> NodeSpec:
        """Inverse of ``to_json``. Raises ``GraphError`` naming the missing field."""
        try:
            f = json.loads(text)
            attrs = tuple(sorted((k, _freeze(v)) for k, v in f.get("attrs", {}).items()))
            return cls(f["op"], tuple(map(tuple, f["in"])), tuple(f["out"]), tuple(f.get("w", ())),
                       bool(f.get("bias", False)), attrs, int(f.get("extra", 0)))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise GraphError(f"bad node description {text[:120]!r}: {error!r}") from None


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, list | tuple) else value


class SpecTable:
    """Append-only table of the distinct node specs seen by this process; thread-safe."""

    def __init__(self) -> None:
        self.specs: list[NodeSpec] = []
        self.out_shapes: list[Shape] = []
        self.texts: list[str] = []
        self._by_spec: dict[NodeSpec, int] = {}
        self._by_text: dict[str, int] = {}
        self._lock = threading.Lock()

    def intern(self, spec: NodeSpec) -> int:
        """Index of ``spec``, added if it is new."""
        index = self._by_spec.get(spec)
        if index is not None and repr(spec.attrs) != repr(self.specs[index].attrs):
            return self._intern_twin(spec)
        if index is None:
            with self._lock:
                index = self._by_spec.get(spec)
                if index is None:
                    index = self._append(spec, spec.to_json())
                    self._by_spec[spec] = index
        return index

    def _intern_twin(self, spec: NodeSpec) -> int:
        """Index of a spec that Python calls equal to a known one although its text differs: ``True == 1 == 1.0``."""
        text = spec.to_json()
        with self._lock:
            index = self._by_text.get(text)
            if index is None:
                index = self._append(spec, text)
        return index

    def _append(self, spec: NodeSpec, text: str) -> int:
        index = len(self.specs)
        self.out_shapes.append(spec.out_shape)
        self.texts.append(text)
        self.specs.append(spec)
        self._by_text[text] = index
        return index

    def intern_text(self, text: str) -> int:
        """Index of the spec written as ``text`` (see ``NodeSpec.to_json``)."""
        index = self._by_text.get(text)
        return self.intern(NodeSpec.from_json(text)) if index is None else index

    def stable_hash(self, index: int) -> int:
        """64-bit hash of the spec's text, equal on every machine."""
        return int.from_bytes(hashlib.blake2b(self.texts[index].encode(), digest_size=8).digest(), "little")

    def __len__(self) -> int:
        return len(self.specs)


TABLE: Final = SpecTable()
