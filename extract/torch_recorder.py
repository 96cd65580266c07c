"""``Recorder``: watches a PyTorch model run once and writes down one graph node per operator.

What an operator means is in ``torch_ops``, which tensors are which values in ``torch_tensors``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cg.builder import GraphBuilder
from cg.spec import TABLE, NodeSpec, Shape
from cg.vocabulary import COMMUTATIVE
from extract.torch_tensors import NO_PARAMS, KnownTensors, Ref, shows_all, tensors_in

if TYPE_CHECKING:
    from extract.torch_values import Values

__all__ = ["NO_PARAMS", "Recorder", "Ref", "shows_all", "tensors_in"]


class SliceOf(NamedTuple):
    """What a ``Slice`` node cuts out, so that a slice of a slice is one node: ``ranges[axis] = (start, end, step)``."""

    base: Ref
    ranges: dict[int, tuple[int, int, int]]


class Recorder(KnownTensors, TorchDispatchMode):
    """Records the operators that run while it is active in this thread, under ``torch.inference_mode``.

    In that mode composite operators arrive here whole (``linear``, ``scaled_dot_product_attention``, ``lstm``); see
    docs/adr/0003-tracing.md. All tensors seen are kept alive until the recorder goes, so that identities stay unique.
    """

    def __init__(self, builder: GraphBuilder, model: torch.nn.Module) -> None:
        from extract.torch_detection import prepare

        KnownTensors.__init__(self)
        TorchDispatchMode.__init__(self)
        self.builder = builder
        self.ignored: Counter[str] = Counter()
        self.slices: dict[int, SliceOf] = {}
        self.distinct: list[torch.Tensor] = []  # each holds the different values of another tensor
        self._charged: set[int] = set()  # parameters that some node already counts
        self._users: dict[int, list[int]] = {}  # parameter -> nodes that hold it, first the one that counts it
        self.scalars: dict[int, float] = {}  # id of a tensor without axes -> its value, where the model wrote a number
        self._values: Values | None = None
        self.has_guessed = False
        self._on_meta: dict[int, torch.Tensor] = {}  # id of a stray tensor on another device -> its meta double
        self._double_of: dict[Any, torch.Tensor] = {}  # storage and format of such a tensor -> the double of the first
        self._keep: list[Any] = [model]
        for path, module in model.named_modules():
            prepare(module, self.notes)
            self._modules[id(module)] = path
            for name, p in module._parameters.items():
                if p is not None and id(p) not in self._parameters:
                    self._parameters[id(p)] = (f"{path}.{name}".lstrip("."), p.numel())
                    self._remember(p)

    def ref(self, tensor: torch.Tensor) -> Ref:
        """``tensor`` as an argument of a node; a constant gets its ``Constant`` node here."""
        shape = tuple(tensor.shape)
        node = self.node_of(tensor)
        if tensor.dtype.is_complex:  # real and imaginary part along a last axis, unless it has only the former
            shape = (*shape, 1 if node is not None and prod(self.builder.shape(node)) == prod(shape) else 2)
        if node is None:
            node = self._constants.get(id(tensor))
        if node is None and shows_all(tensor):  # the same values in another shape, such as one more axis, are one node
            known = (t for t in self.on_storage(tensor) if id(t) in self._constants and t.dtype == tensor.dtype)
            node = next((self._constants[id(t)] for t in known if shows_all(t)), None)
        if node is None:
            extra = self.charge(self.params_in(tensor))
            node = self.builder.add_node(NodeSpec("Constant", (), shape, extra_params=extra), ())
            self._constants[id(tensor)] = node
            self._keep.append(tensor)
        return Ref(node, shape)

    def constant(self, shape: Sequence[int], params: frozenset[int] = NO_PARAMS) -> Ref:
        """A constant that no tensor stands for; it counts those of ``params`` that no earlier node does."""
        spec = NodeSpec("Constant", (), tuple(shape), extra_params=self.charge(params))
        return Ref(self.builder.add_node(spec, ()), spec.out_shape)

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
        params = frozenset().union(*(self.params_in(w) for w in present)) if present else NO_PARAMS
        again = params & self._charged
        if again:
            self.note(f"{op} uses {', '.join(sorted(self._parameters[p][0] for p in again))} again: a shared parameter "
                      "counts once, where its argument is largest")
        extra = self.charge(params) - spec.params
        if extra:
            spec = NodeSpec(op, spec.in_shapes, spec.out_shape, weight_shape, bias, spec.attrs, extra)
        made = self.builder.add_node(spec, [r.node for r in refs])
        for p in params:
            if p not in again or p in self._users:  # a parameter that a Constant node counts stays there
                self._users.setdefault(p, []).append(made)
        return Ref(made, tuple(out_shape))

    def settle_shared(self) -> None:
        """A parameter that several nodes use counts in the one with the largest argument, the first of those.

        The order in which parallel branches run differs between frameworks; so far the first that ran counts it.
        """
        for p, users in self._users.items():
            if len(users) > 1:
                specs = [TABLE.specs[self.builder._spec[n]] for n in users]
                sizes = [prod(s.in_shapes[0]) if s.in_shapes else 0 for s in specs]
                best = sizes.index(max(sizes))
                for place, change in ((0, -1), (best, 1)) if best else ():
                    spec = TABLE.specs[self.builder._spec[users[place]]]
                    changed = replace(spec, extra_params=spec.extra_params + change * self._parameters[p][1])
                    self.builder._spec[users[place]] = TABLE.intern(changed)

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
        made = self.node("Slice", [base], out, **attrs)  # the same part twice is two nodes, as search spaces count them
        self.slices[made.node] = SliceOf(base, ranges)
        return made

    def guess(self, text: str) -> None:
        """Note that a size was taken at its largest because it depends on values."""
        self.has_guessed = True
        self.note(text)

    # ---- dispatch ----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        from extract.torch_calls import record

        if self._values is None:
            return record(self, func, args, kwargs or {})
        return self._values.call(lambda f, a, k: record(self, f, a, k), func, args, kwargs or {})

    def use_values(self, values: Values) -> None:
        """Work out the values of small tensors beside the run, and tell where one that depends on the inputs is read."""

        def told(tensor: torch.Tensor) -> None:
            if self.is_live(tensor):
                self.note(f"{self.where()} reads the value of a tensor that depends on the inputs; the graph holds for the "
                          "values of these example inputs")

        self._values = values
        values.on_read = told

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The numbers in ``tensor`` where they are known (see ``torch_values``); they are about to be looked at."""
        return None if self._values is None else self._values.read(tensor)

    def know(self, tensor: torch.Tensor, real: torch.Tensor | None) -> None:
        """``tensor`` has the values of ``real``."""
        if self._values is not None and real is not None:
            self._values.know(tensor, real)

    def on_one_device(self, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Where meta tensors meet others (an index table made on the CPU in ``forward``), the others become meta.

        A constant stays a constant, and its values are not needed: only shapes are recorded.
        """
        on_meta = [t.is_meta for t in tensors]
        if all(on_meta) or not any(on_meta) or all(m or t.ndim == 0 for m, t in zip(on_meta, tensors, strict=True)):
            return args, kwargs  # torch itself lets a zero-dimensional CPU tensor take part, and its value is known
        return self._to_meta(args), self._to_meta(kwargs)

    def _new_double(self, value: torch.Tensor) -> torch.Tensor:
        """A view of the double of an earlier tensor, if both show the same storage in full and in one order."""
        if not (value.is_contiguous() and shows_all(value)):
            return torch.empty_like(value, device="meta")
        key = value.untyped_storage()._cdata, value.dtype
        double = self._double_of.get(key)
        if double is None:
            double = self._double_of[key] = torch.empty_like(value, device="meta")
        return double.view(value.shape)

    def _to_meta(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.is_meta or value.ndim == 0:
                return value
            double = self._on_meta.get(id(value))
            if double is None:
                double = self._new_double(value)
                self._on_meta[id(value)] = double
                self._keep.append(value)
                self.make_constant(double, self.params_in(value))
                if self._values is not None:
                    self.know(double, value.clone())
            return double
        if isinstance(value, list | tuple):
            return type(value)(self._to_meta(v) for v in value)
        if isinstance(value, dict):
            return {k: self._to_meta(v) for k, v in value.items()}
        return value
