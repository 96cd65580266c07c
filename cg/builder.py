"""``GraphBuilder``: write a network as function calls and get its graph, with shapes inferred at once.

Every search space is written with it, so it is made for speed: a call costs about a microsecond, because a node is one
integer (an interned spec) and repeated blocks are traced once. It never imports a framework.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from cg import shapes
from cg.errors import GraphError
from cg.graph import Graph
from cg.spec import TABLE, NodeSpec, Shape
from cg.vocabulary import COMMUTATIVE

_CALLS: dict[tuple[Any, ...], int] = {}  # arguments of a call -> spec index; the same for the whole process
_Trace = tuple[list[int], list[int], list[int], list[int], int]
_TRACES: dict[tuple[Hashable, Shape], _Trace] = {}  # of ``memo``: specs, edges counted from the first node, the result
_MAX_TRACES = 50_000  # some 20 MB


class GraphBuilder:
    """A network under construction; every method takes and returns values, which are plain integers.

    Example:
        >>> b = GraphBuilder(name="tiny")
        >>> x = b.input((1, 3, 32, 32))
        >>> y = b.relu(b.batch_norm(b.conv2d(x, 16, kernel=3)))
        >>> g = b.build(b.linear(b.global_avg_pool(y), 10))
        >>> g.params
        634
    """

    def __init__(self, name: str = "", family: str = "") -> None:
        self.name, self.family = name, family
        self._spec: list[int] = []
        self._src: list[int] = []
        self._dst: list[int] = []
        self._arg: list[int] = []

    def shape(self, x: int) -> Shape:
        """Shape of the value ``x``, batch first."""
        return TABLE.out_shapes[self._spec[x]]

    def _node(self, spec: int, inputs: Sequence[int]) -> int:
        index = len(self._spec)
        self._spec.append(spec)
        for arg, x in enumerate(inputs):
            self._src.append(x)
            self._dst.append(index)
            self._arg.append(arg)
        return index

    def _unary(self, spec: int, x: int) -> int:
        index = len(self._spec)
        self._spec.append(spec)
        self._src.append(x)
        self._dst.append(index)
        self._arg.append(0)
        return index

    def add_node(self, spec: NodeSpec, inputs: Sequence[int]) -> int:
        """Append a node with a ready-made spec. Shapes are checked by ``build``."""
        return self._node(TABLE.intern(spec), inputs)

    def input(self, shape: Sequence[int]) -> int:
        """A network input of shape ``(N, C, H, W)`` (or any other, batch first)."""
        return self._node(TABLE.intern(NodeSpec("Input", (), tuple(shape))), ())

    def conv2d(self, x: int, channels: int, kernel: int | tuple[int, int] = 3, stride: int | tuple[int, int] = 1,
               padding: int | tuple[int, int] | None = None, dilation: int | tuple[int, int] = 1, groups: int = 1,
               bias: bool = False) -> int:
        """2-D convolution. ``padding=None`` means ``dilation * (kernel - 1) // 2``, which keeps the size at stride 1."""
        shape = TABLE.out_shapes[self._spec[x]]
        key = ("Conv", shape, channels, kernel, stride, padding, dilation, groups, bias)
        spec = _CALLS.get(key)
        if spec is None:
            k, d = shapes.pair(kernel), shapes.pair(dilation)
            p = (d[0] * (k[0] - 1) // 2, d[1] * (k[1] - 1) // 2) if padding is None else shapes.pair(padding)
            pads = (p[0], p[1], p[0], p[1])
            s = shapes.pair(stride)
            out, weight = shapes.conv2d(shape, channels, k, s, pads, d, groups)
            attrs = (("dilations", d), ("group", groups), ("kernel_shape", k), ("pads", pads), ("strides", s))
            spec = _CALLS[key] = TABLE.intern(NodeSpec("Conv", (shape,), out, weight, bias, attrs))
        return self._unary(spec, x)

    def batch_norm(self, x: int) -> int:
        """Batch normalisation with scale and offset (running statistics are not parameters)."""
        shape = TABLE.out_shapes[self._spec[x]]
        key = ("BatchNormalization", shape)
        spec = _CALLS.get(key)
        if spec is None:
            spec = _CALLS[key] = TABLE.intern(NodeSpec("BatchNormalization", (shape,), shape, (shape[1],), True))
        return self._unary(spec, x)

    def relu(self, x: int) -> int:
        """Rectified linear unit."""
        return self._same_shape("Relu", x)

    def relu6(self, x: int) -> int:
        """``min(max(x, 0), 6)``, ONNX ``Clip``."""
        return self._same_shape("Clip", x, (("max", 6.0), ("min", 0.0)))

    def hard_swish(self, x: int) -> int:
        """``x * min(max(x + 3, 0), 6) / 6``."""
        return self._same_shape("HardSwish", x)

    def hard_sigmoid(self, x: int) -> int:
        """``min(max(x / 6 + 1/2, 0), 1)``, the slope written with six digits as the tracers do."""
        return self._same_shape("HardSigmoid", x, (("alpha", 0.166667),))

    def _same_shape(self, op: str, x: int, attrs: tuple[tuple[str, Any], ...] = ()) -> int:
        shape = TABLE.out_shapes[self._spec[x]]
        key = (op, shape)  # one operator is always asked for with the same attributes
        spec = _CALLS.get(key)
        if spec is None:
            spec = _CALLS[key] = TABLE.intern(NodeSpec(op, (shape,), shape, attrs=attrs))
        return self._unary(spec, x)

    def max_pool(self, x: int, kernel: int = 2, stride: int | None = None, padding: int = 0,
                 ceil_mode: bool = False) -> int:
        """2-D maximum pooling; ``stride=None`` means ``kernel``."""
        return self._pool("MaxPool", x, kernel, stride, padding, ceil_mode, ())

    def avg_pool(self, x: int, kernel: int = 2, stride: int | None = None, padding: int = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> int:
        """2-D average pooling; ``stride=None`` means ``kernel``. Without padding ``count_include_pad`` has no effect."""
        return self._pool("AveragePool", x, kernel, stride, padding, ceil_mode,
                          (("count_include_pad", bool(count_include_pad and padding)),))

    def _pool(self, op: str, x: int, kernel: int, stride: int | None, padding: int, ceil_mode: bool,
              more: tuple[tuple[str, Any], ...]) -> int:
        shape = TABLE.out_shapes[self._spec[x]]
        key = (op, shape, kernel, stride, padding, ceil_mode, more)
        spec = _CALLS.get(key)
        if spec is None:
            k = shapes.pair(kernel)
            s, p = (k if stride is None else shapes.pair(stride)), shapes.pair(padding)
            pads = (p[0], p[1], p[0], p[1])
            out = shapes.pool2d(shape, k, s, pads, ceil_mode)
            attrs = (("ceil_mode", bool(ceil_mode)), *more, ("kernel_shape", k), ("pads", pads), ("strides", s))
            spec = _CALLS[key] = TABLE.intern(NodeSpec(op, (shape,), out, attrs=tuple(sorted(attrs))))
        return self._unary(spec, x)

    def global_avg_pool(self, x: int) -> int:
        """``(N, C, H, W)`` -> ``(N, C, 1, 1)``."""
        shape = self.shape(x)
        key = ("GlobalAveragePool", shape)
        spec = _CALLS.get(key)
        if spec is None:
            spec = _CALLS[key] = TABLE.intern(NodeSpec("GlobalAveragePool", (shape,), (*shape[:2], 1, 1)))
        return self._unary(spec, x)

    def linear(self, x: int, features: int, bias: bool = True) -> int:
        """Fully connected layer (ONNX ``Gemm``) on the last axis; a 4-D input is flattened first, without a node."""
        shape = self.shape(x)
        key = ("Gemm", shape, features, bias)
        spec = _CALLS.get(key)
        if spec is None:
            flat, out, weight = shapes.linear(shape, features)
            spec = _CALLS[key] = TABLE.intern(NodeSpec("Gemm", (flat,), out, weight, bias))
        return self._unary(spec, x)

    def add(self, x: int, y: int, *more: int) -> int:
        """Sum; more than two values become a chain of binary additions from left to right."""
        total = self._binary("Add", x, y)
        for z in more:
            total = self._binary("Add", total, z)
        return total

    def mul(self, x: int, y: int) -> int:
        """Element-wise product."""
        return self._binary("Mul", x, y)

    def _binary(self, op: str, x: int, y: int) -> int:
        a, b = TABLE.out_shapes[self._spec[x]], TABLE.out_shapes[self._spec[y]]
        if a != b and op in COMMUTATIVE and (len(a), a) < (len(b), b):
            x, y, a, b = y, x, b, a  # larger shape first: equal networks get equal specs
        key = (op, a, b)
        spec = _CALLS.get(key)
        if spec is None:
            spec = _CALLS[key] = TABLE.intern(NodeSpec(op, (a, b), shapes.broadcast((a, b))))
        index = len(self._spec)
        self._spec.append(spec)
        self._src += (x, y)
        self._dst += (index, index)
        self._arg += (0, 1)
        return index

    def concat(self, values: Sequence[int], axis: int = 1) -> int:
        """Values joined along ``axis``; one value is returned as it is."""
        if len(values) == 1:
            return values[0]
        ins = tuple(self.shape(v) for v in values)
        key = ("Concat", ins, axis)
        spec = _CALLS.get(key)
        if spec is None:
            attrs = (("axis", axis % len(ins[0])),)
            spec = _CALLS[key] = TABLE.intern(NodeSpec("Concat", ins, shapes.concat(ins, axis), attrs=attrs))
        return self._node(spec, values)

    def slice(self, x: int, axes: Sequence[int], starts: Sequence[int]) -> int:
        """Drop the first ``starts[i]`` entries of ``axes[i]``."""
        shape = self.shape(x)
        out = list(shape)
        for axis, begin in zip(axes, starts, strict=True):
            out[axis] -= begin
        attrs = (("axes", tuple(axes)), ("ends", tuple(shape[a] for a in axes)), ("starts", tuple(starts)))
        return self._unary(TABLE.intern(NodeSpec("Slice", (shape,), tuple(out), attrs=attrs)), x)

    def op(self, op: str, inputs: Sequence[int], out_shape: Sequence[int] | None = None, weight_shape: Shape = (),
           bias: bool = False, **attrs: Any) -> int:
        """Any operator of the vocabulary; ``out_shape`` defaults to the broadcast shape of the inputs."""
        ins = tuple(self.shape(x) for x in inputs)
        out = tuple(out_shape) if out_shape is not None else shapes.broadcast(ins)
        return self.add_node(NodeSpec(op, ins, out, weight_shape, bias, tuple(sorted(attrs.items()))), inputs)

    def repeat(self, block: Callable[[int], int], x: int, times: int) -> int:
        """``block`` applied ``times`` times in a row.

        Once the block keeps the shape of its input its nodes are copied instead of traced again, so it must do the same
        thing for every input of one shape, and use no values of its own making from earlier applications.
        """
        done = 0
        while done < times:
            start, start_edge = len(self._spec), len(self._src)
            y = block(x)
            done += 1
            if self.shape(y) != self.shape(x) or done == times:
                x = y
                continue
            if y < start:  # the block made no node, or returned a value from outside
                return y
            spec, length = self._spec[start:], len(self._spec) - start
            src, dst, arg = self._src[start_edge:], self._dst[start_edge:], self._arg[start_edge:]
            before = y
            for copy in range(1, times - done + 1):
                shift = copy * length
                self._spec += spec
                self._src += [s + shift if s >= start else (before if s == x else s) for s in src]
                self._dst += [d + shift for d in dst]
                self._arg += arg
                before = y + shift
            return before
        return x

    def memo(self, key: Hashable, block: Callable[[GraphBuilder, int], int], x: int) -> int:
        """``block(self, x)``, traced once in the process for each ``key`` and shape of ``x`` and copied from then on.

        ``key`` must say all that the block depends on, the block itself included. It uses no values but ``x`` and its own.
        """
        known, start = _TRACES.get((key, self.shape(x))), len(self._spec)
        if known is not None:
            spec, src, dst, arg, result = known
            self._spec += spec
            self._src += [s + start if s >= 0 else x for s in src]
            self._dst += [d + start for d in dst]
            self._arg += arg
            return result + start if result >= 0 else x
        edge = len(self._src)
        y = block(self, x)
        src = [s - start if s >= start else -1 for s in self._src[edge:]]
        if any(s < start and s != x for s in [*self._src[edge:], y]):
            raise GraphError(f"graph {self.name!r}: the block of {key!r} uses a value that is neither its argument nor its own")
        if len(_TRACES) >= _MAX_TRACES:
            _TRACES.clear()
        _TRACES[key, self.shape(x)] = (self._spec[start:], src, [d - start for d in self._dst[edge:]], self._arg[edge:],
                                       y - start if y >= start else -1)
        return y

    def build(self, *outputs: int, validate: bool = True) -> Graph:
        """The graph that computes ``outputs``; nodes that they do not need are left out."""
        from cg._hashing import live_nodes

        if not outputs:
            raise GraphError("build needs at least one output value")
        n = len(self._spec)
        src, dst = np.array(self._src, np.int64), np.array(self._dst, np.int64)
        arg, spec = np.array(self._arg, np.int64), np.array(self._spec, np.int64)
        out = np.array(outputs, np.int64)
        if out.min() < 0 or out.max() >= n:
            raise GraphError(f"graph {self.name!r}: outputs {list(outputs)} are not all values of this builder (0..{n - 1})")
        if len(src) and (src.min() < 0 or (src >= dst).any()):
            e = int(np.flatnonzero((src < 0) | (src >= dst))[0])
            raise GraphError(f"graph {self.name!r}, node {dst[e]} ({TABLE.specs[spec[dst[e]]].op}): argument {arg[e]} is value "
                             f"{src[e]}, which was not made before it")
        live = live_nodes(n, src, dst, out)
        if not live.all():
            renumber = np.cumsum(live) - 1
            keep = live[dst] if len(dst) else np.zeros(0, bool)
            src, dst, arg, spec, out = renumber[src[keep]], renumber[dst[keep]], arg[keep], spec[live], renumber[out]
        return Graph._sorted(spec, src, dst, arg, out, self.name, self.family, None, validate)
