"""``Recorder``: watches a PyTorch model run once and writes down one graph node per operator.

It knows tensors and values, not operators: what an operator means is in ``torch_ops``.

A tensor is in one of two states. *Live*: it depends on a network input, and a graph node produces it. *Constant*: it
does not, so the computation that made it is folded away (a cast mask, a position table, a normalised weight); all that
is kept is which trained parameters went into it. A constant becomes a ``Constant`` node when it meets a live tensor.

Data movement is contracted by knowing storages: a tensor that shows all values of a storage is the same value as any
other tensor that does. Views of a part (slices) make nodes of their own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cg.builder import GraphBuilder
from cg.spec import NodeSpec, Shape
from cg.vocabulary import COMMUTATIVE

NO_PARAMS: frozenset[int] = frozenset()


class Ref(NamedTuple):
    """A live value: the node that makes it and the shape under which it is used here."""

    node: int
    shape: Shape


class SliceOf(NamedTuple):
    """What a ``Slice`` node cuts out, so that a slice of a slice is one node: ``ranges[axis] = (start, end, step)``."""

    base: Ref
    ranges: dict[int, tuple[int, int, int]]


class Recorder(TorchDispatchMode):
    """Records the operators that run while it is active in this thread, under ``torch.inference_mode``.

    In that mode composite operators arrive here whole (``linear``, ``scaled_dot_product_attention``, ``lstm``); see
    docs/adr/0003-tracing.md. All tensors seen are kept alive until the recorder goes, so that identities stay unique.
    """

    def __init__(self, builder: GraphBuilder, model: torch.nn.Module) -> None:
        super().__init__()
        self.builder = builder
        self.notes: list[str] = []
        self.ignored: Counter[str] = Counter()
        self.slices: dict[int, SliceOf] = {}
        self._modules: dict[int, str] = {}  # dotted name
        self._parameters: dict[int, tuple[str, int]] = {}  # dotted name and size
        self._node_of: dict[int, int] = {}  # id of a live tensor -> node
        self._params_of: dict[int, frozenset[int]] = {}  # id of a constant tensor -> ids of the parameters in it
        self._by_storage: dict[int, list[torch.Tensor]] = {}  # storage -> tensors seen on it
        self._constants: dict[int, int] = {}  # id of a constant tensor -> its Constant node
        self._stale: set[int] = set()  # views of a part, made before their base was written to
        self._charged: set[int] = set()  # parameters that some node already counts
        self._on_meta: dict[int, torch.Tensor] = {}  # id of a stray tensor on another device -> its meta double
        self._keep: list[Any] = [model]
        for path, module in model.named_modules():
            self._modules[id(module)] = path
            for name, p in module._parameters.items():
                if p is not None and id(p) not in self._parameters:
                    self._parameters[id(p)] = (f"{path}.{name}".lstrip("."), p.numel())
                    self._remember(p)

    # ---- values ------------------------------------------------------------------------------------------------

    def make_live(self, tensor: torch.Tensor, node: int) -> None:
        """From now on ``tensor`` is the value of ``node``."""
        key = id(tensor)
        self._stale.discard(key)
        self._node_of[key] = node
        self._params_of.pop(key, None)
        self._remember(tensor)

    def make_constant(self, tensor: torch.Tensor, params: frozenset[int]) -> None:
        """From now on ``tensor`` depends on no input, only on ``params``."""
        key = id(tensor)
        self._node_of.pop(key, None)
        self._constants.pop(key, None)
        self._params_of[key] = params
        self._remember(tensor)

    def _remember(self, tensor: torch.Tensor) -> None:
        seen = self._by_storage.setdefault(tensor.untyped_storage()._cdata, [])
        if not any(t is tensor for t in seen):
            seen.append(tensor)

    def node_of(self, tensor: torch.Tensor) -> int | None:
        """Node of a live tensor, ``None`` for a constant."""
        key = id(tensor)
        node = self._node_of.get(key)
        if key in self._stale:
            self.note(f"{self.where()} reads a view of a tensor that was written to after the view was taken; "
                      "the graph holds the old values")
        if node is None and key not in self._params_of:
            twin = self._twin(tensor)  # e.g. ``x.data``, which no dispatch sees
            node = None if twin is None else self._node_of.get(id(twin))
        return node

    def params_in(self, tensor: torch.Tensor) -> frozenset[int]:
        """Ids of the trained parameters that went into a constant tensor."""
        key = id(tensor)
        if key in self._parameters:
            return frozenset((key,))
        params = self._params_of.get(key)
        if params is None:
            twin = self._twin(tensor)
            params = NO_PARAMS if twin is None else self.params_in(twin)
        return params

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """A known tensor with the values of ``tensor``: both show all of one storage, or both the same part of it."""
        known = [t for t in self.on_storage(tensor) if id(t) in self._node_of or id(t) in self._params_of
                 or id(t) in self._parameters]
        if not known:
            return None
        whole = shows_all(tensor)
        for t in reversed(known):
            if (whole and shows_all(t)) or _view(t) == _view(tensor):
                return t
        if any(id(t) in self._node_of for t in known):
            self.note(f"{self.where()} uses a view that was made behind the dispatcher (.data of a part); it counts as a "
                      "constant")
        return None

    def on_storage(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """All other tensors seen so far that share memory with ``tensor``."""
        return [t for t in self._by_storage.get(tensor.untyped_storage()._cdata, ()) if t is not tensor]

    def ref(self, tensor: torch.Tensor) -> Ref:
        """``tensor`` as an argument of a node; a constant gets its ``Constant`` node here."""
        shape = tuple(tensor.shape)
        node = self.node_of(tensor)
        if node is None:
            node = self._constants.get(id(tensor))
        if node is None:
            extra = self.charge(self.params_in(tensor))
            node = self.builder.add_node(NodeSpec("Constant", (), shape, extra_params=extra), ())
            self._constants[id(tensor)] = node
            self._keep.append(tensor)
        return Ref(node, shape)

    def is_live(self, tensor: torch.Tensor) -> bool:
        return self.node_of(tensor) is not None

    def charge(self, params: Iterable[int]) -> int:
        """Trained scalars in ``params`` that no earlier node counts; they count from now on."""
        new = [p for p in params if p not in self._charged]
        self._charged.update(new)
        return sum(self._parameters[p][1] for p in new)

    # ---- nodes -------------------------------------------------------------------------------------------------

    def node(self, op: str, inputs: Sequence[torch.Tensor | Ref], out_shape: Sequence[int],
             weights: Sequence[torch.Tensor | None] = (), weight_shape: Shape = (), bias: bool = False,
             attrs: Mapping[str, Any] | None = None, **more: Any) -> Ref:
        """One node.

        ``weights`` are the trained tensors inside it (``None`` allowed). ``extra_params`` is set so that the node
        counts exactly those of their scalars that no earlier node counts, whatever ``weight_shape`` would suggest.
        Attributes come as keywords or in ``attrs``.
        """
        refs = [x if isinstance(x, Ref) else self.ref(x) for x in inputs]
        if op in COMMUTATIVE and len(refs) > 1:
            refs.sort(key=lambda r: (len(r.shape), r.shape), reverse=True)  # stable; as GraphBuilder does
        spec = NodeSpec(op, tuple(r.shape for r in refs), tuple(out_shape), weight_shape, bias,
                        tuple(sorted({**(attrs or {}), **more}.items())))
        present = [w for w in weights if w is not None]
        extra = self._charge_weights(op, present) - spec.params
        if extra:
            spec = NodeSpec(op, spec.in_shapes, spec.out_shape, weight_shape, bias, spec.attrs, extra)
        return Ref(self.builder.add_node(spec, [r.node for r in refs]), tuple(out_shape))

    def _charge_weights(self, op: str, weights: Sequence[torch.Tensor]) -> int:
        if not weights:
            return 0
        params = frozenset().union(*(self.params_in(w) for w in weights))
        again = sorted(self._parameters[p][0] for p in params if p in self._charged)
        if again:
            self.note(f"{op} uses {', '.join(again)} again: a shared parameter counts once, where it is used first")
        return self.charge(params)

    def forget_parts(self, tensor: torch.Tensor) -> None:
        """The storage of ``tensor`` was written to: other views of a part of it no longer show what was recorded."""
        self._stale.update(id(t) for t in self.on_storage(tensor) if not shows_all(t))

    def cut(self, x: torch.Tensor | Ref, axis: int, start: int, end: int, step: int = 1) -> Ref:
        """``Slice`` along one axis; nothing if all is kept, and one node for slices of a slice."""
        ref = x if isinstance(x, Ref) else self.ref(x)
        size = ref.shape[axis]
        if start == 0 and end >= size and step == 1:
            return ref
        before = self.slices.get(ref.node)
        base, ranges = ref, {axis: (start, min(end, size), step)}
        if before is not None and ref.shape == self.builder.shape(ref.node):
            old_start, old_end, old_step = before.ranges.get(axis, (0, size, 1))
            if old_step == 1:
                base = before.base
                ranges = {**before.ranges, axis: (old_start + start, min(old_start + end, old_end), step)}
        out = list(base.shape)
        for a, (begin, stop, stride) in ranges.items():
            out[a] = max(0, -(-(stop - begin) // stride))
        axes = tuple(sorted(ranges))
        attrs: dict[str, Any] = {"axes": axes, "ends": tuple(ranges[a][1] for a in axes),
                                 "starts": tuple(ranges[a][0] for a in axes)}
        if any(ranges[a][2] != 1 for a in axes):
            attrs["steps"] = tuple(ranges[a][2] for a in axes)
        made = self.node("Slice", [base], out, **attrs)
        self.slices[made.node] = SliceOf(base, ranges)
        return made

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def where(self) -> str:
        """Dotted name of the innermost module of the model that is running."""
        frame = sys._getframe(1)
        while frame is not None:
            name = self._modules.get(id(frame.f_locals.get("self")))
            if name is not None:
                return name or "the model itself"
            frame = frame.f_back  # type: ignore[assignment]
        return "the model itself"

    # ---- dispatch ----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        from extract.torch_ops import record

        return record(self, func, args, kwargs or {})

    def on_one_device(self, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Where meta tensors meet others (an index table made on the CPU in ``forward``), the others become meta.

        A constant stays a constant, and its values are not needed: only shapes are recorded.
        """
        on_meta = [t.is_meta for t in tensors]
        if all(on_meta) or not any(on_meta) or all(m or t.ndim == 0 for m, t in zip(on_meta, tensors, strict=True)):
            return args, kwargs  # torch itself lets a zero-dimensional CPU tensor take part, and its value is known
        return self._to_meta(args), self._to_meta(kwargs)

    def _to_meta(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.is_meta or value.ndim == 0:
                return value
            double = self._on_meta.get(id(value))
            if double is None:
                double = torch.empty_like(value, device="meta")
                self._on_meta[id(value)] = double
                self._keep.append(value)
                self.make_constant(double, self.params_in(value))
            return double
        if isinstance(value, list | tuple):
            return type(value)(self._to_meta(v) for v in value)
        if isinstance(value, dict):
            return {k: self._to_meta(v) for k, v in value.items()}
        return value


def _view(tensor: torch.Tensor) -> tuple[object, ...]:
    """Which part of its storage a tensor shows."""
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def shows_all(tensor: torch.Tensor) -> bool:
    """Whether every value of the storage appears exactly once in ``tensor`` (a reshape or permutation of it)."""
    if prod(tensor.shape) * tensor.element_size() != tensor.untyped_storage().nbytes():
        return False
    # expanded dimensions have stride 0: they would count one value several times
    return all(s != 0 or d == 1 for s, d in zip(tensor.stride(), tensor.shape, strict=True))
