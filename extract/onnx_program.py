"""``OnnxProgram``: an ONNX graph as a ``torch.nn.Module`` that walks the nodes and calls torch operators.

It runs on meta tensors under the recorder of ``from_torch``. What depends on no input and is small is a real tensor on the
CPU and is simply computed, so shape arithmetic, constant conditions and loops need no rules of their own.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from math import prod
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from cg.vocabulary import OP_INDEX as OPS
from extract.extraction import ExtractionError, first_line
from extract.onnx_file import LONGEST_AXIS, MOST_KNOWN, OnnxFile, check_dims, subgraphs, tensor_of
from extract.onnx_node import Call, NeedsValue, is_known, meta, unseen

_FREELY: Final = 512  # known arguments with so few values cannot make a large result by broadcasting
_MOST_RESULT: Final = 2**18
_DEEPEST: Final = 40
_MOST_STEPS: Final = 40_000

Values = MutableMapping[str, Any]


class _Progress:
    """How many nodes have run, and how deep graphs are nested now."""

    steps = 0
    depth = 0


class OnnxProgram(nn.Module):
    """Runs the graph of ``file``; ``forward`` takes the inputs by name and returns the outputs in order."""

    may_be_exported = False  # the graph is given, so ``torch.export`` has nothing to add

    def __init__(self, file: OnnxFile) -> None:
        from extract import onnx_ops  # which needs ``type_of`` from here

        super().__init__()
        self._table = onnx_ops
        self.file = file
        self.notes: list[str] = []
        self.ignored: Counter[str] = Counter()
        self.input_names: list[str] = []
        self._fixed: dict[str, Any] = {}
        self._orders: dict[tuple[int, int], tuple[Any, list[onnx.NodeProto]]] = {}  # the graph and its nodes
        self._ran = _Progress()  # not an attribute of its own for each count: those are slow to set on a module
        self._types: dict[str, onnx.TypeProto] = {}
        for t in file.proto.graph.initializer:
            if t.name in self._fixed:
                raise ExtractionError(f"{file.source}: two initializers are named {t.name!r}")
            self._fixed[t.name] = self._initializer(t)
        for s in file.proto.graph.sparse_initializer:
            shape = check_dims(s.dims, f"{file.source}: sparse initializer {s.values.name!r}")
            self._fixed[s.values.name] = self._parameter(s.values.name, shape)

    def _initializer(self, t: onnx.TensorProto) -> Tensor:
        what = f"{self.file.source}: initializer {t.name!r}"
        if t.name in self.file.trained:
            return self._parameter(t.name, check_dims(t.dims, what))
        return tensor_of(t, what)

    def _parameter(self, name: str, shape: Sequence[int]) -> Tensor:
        p = nn.Parameter(torch.empty(tuple(shape), device="meta"), requires_grad=False)
        self._parameters[name or f"parameter {len(self._parameters)}"] = p  # its name may hold dots
        return p

    def trained_results(self) -> None:
        """Make parameters of the results of nodes that are trained tensors (see ``onnx_trained``)."""
        made = {n.output[0]: n for n in self.file.proto.graph.node if n.output and n.output[0] in self.file.trained}
        for name, n in made.items():
            if name in self._fixed:
                continue
            value = next((a.t for a in n.attribute if a.name == "value"), None)
            source = self._fixed.get(n.input[0]) if n.input else None
            if n.op_type == "Constant" and value is not None:
                dims: Sequence[int] = value.dims
            elif n.op_type == "Identity" and source is not None:
                dims = source.shape
            elif source is not None and is_known(source) and source.numel() < 32:
                dims = source.reshape(-1).tolist()
            else:
                continue
            self._fixed[name] = self._parameter(name, check_dims(dims, f"{self.file.source}: constant {name!r}"))

    def forward(self, **inputs: Tensor) -> list[Any]:
        graph = self.file.proto.graph
        return self._run(graph, {**self._fixed, **inputs}, {}, "")

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    # ---- graphs ------------------------------------------------------------------------------------------------

    def _run(self, graph: Any, values: Values, outer_attributes: Mapping[str, onnx.AttributeProto], within: str,
             wanted: int | None = None) -> list[Any]:
        """Values of the graph's (or function's) outputs, or of the first ``wanted``. ``values`` holds what is known by name,
        and is added to.
        """
        self._ran.depth += 1
        if self._ran.depth > _DEEPEST:
            raise ExtractionError(f"{self.file.source}{within}: graphs and functions are nested more than {_DEEPEST} deep")
        names = [o if isinstance(o, str) else o.name for o in graph.output][:wanted]
        for node in self._in_order(graph, values, names, within):
            for i, value in enumerate(self._run_node(node, values, outer_attributes, within)):
                if i < len(node.output) and node.output[i]:
                    values[node.output[i]] = value
        self._ran.depth -= 1
        for name in names:
            if name not in values:
                raise ExtractionError(f"{self.file.source}{within}: output {name!r} is made by no node")
        return [values[name] for name in names]

    def _in_order(self, graph: Any, values: Values, wanted: Sequence[str], within: str) -> list[onnx.NodeProto]:
        """The nodes that the outputs need, each after what it reads. Raises if one reads itself or what nobody makes."""
        known = self._orders.get((id(graph), len(wanted)))
        if known is not None:
            return known[1]
        maker: dict[str, int] = {}
        nodes = list(graph.node)
        for i, n in enumerate(nodes):
            for out in n.output:
                if out in maker:
                    raise ExtractionError(f"{self._name(n, within)}: its output {out!r} is made by another node "
                                          "too; a value has one maker")
                if out and not (out in self.file.trained and out in values):  # names in functions are their own
                    maker[out] = i
        order: list[onnx.NodeProto] = []
        state = bytearray(len(nodes))  # 0 new, 1 waits for what it reads, 2 done
        for root in wanted:
            stack = [maker[root]] if root in maker else []
            while stack:
                i = stack[-1]
                if state[i]:
                    stack.pop()
                    if state[i] == 1:
                        state[i] = 2
                        order.append(nodes[i])
                    continue
                state[i] = 1
                for name in self._reads(nodes[i]):
                    j = maker.get(name)
                    if j is None:
                        if name not in values and name in nodes[i].input:
                            raise ExtractionError(f"{self._name(nodes[i], within)}: its input {name!r} is neither an input of "
                                                  "the graph, nor an initializer, nor made by a node")
                    elif state[j] == 0:
                        stack.append(j)
                    elif state[j] == 1:
                        raise ExtractionError(f"{self._name(nodes[i], within)}: its input {name!r} depends on its own output "
                                              "(a cycle)")
        self._orders[id(graph), len(wanted)] = (graph, order)
        return order

    def _reads(self, node: onnx.NodeProto) -> list[str]:
        """Names that the node reads, also from inside the graphs in its attributes."""
        names = [n for n in node.input if n]
        graphs = list(subgraphs(node)) if node.attribute else []
        while graphs:
            g = graphs.pop()
            for n in g.node:
                names += n.input
                graphs += subgraphs(n)
            names += [o.name for o in g.output]
        return names

    def _name(self, node: onnx.NodeProto, within: str = "") -> str:
        label = node.name[:200] or (f"that makes {node.output[0][:200]!r}" if node.output else "without a name")
        label = f"node {label!r}" if node.name else f"the node {label}"
        op = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        if len(within) > 400:
            within = f"{within[:150]} … {within[-150:]}"
        return f"{self.file.source}{within}: {label} ({op})"

    # ---- nodes -------------------------------------------------------------------------------------------------

    def _run_node(self, node: onnx.NodeProto, values: Values, outer: Mapping[str, onnx.AttributeProto],
                  within: str) -> list[Any]:
        self._ran.steps += 1
        where = self._name(node, within)
        if self._ran.steps > _MOST_STEPS:
            raise ExtractionError(f"{where}: more than {_MOST_STEPS} nodes have run; the model is too large, or "
                                  "a loop runs too often")
        try:
            inputs = [values[name] if name else None for name in node.input]
        except KeyError as missing:
            raise ExtractionError(f"{where}: its input {missing} has no value here") from None
        attributes: dict[str, onnx.AttributeProto] = {}
        for a in node.attribute:
            if a.name in attributes:
                raise ExtractionError(f"{where}: attribute {a.name!r} is given twice")
            if a.ref_attr_name:
                if a.ref_attr_name in outer:
                    attributes[a.name] = outer[a.ref_attr_name]
            else:
                attributes[a.name] = a
        domain = "" if node.domain == "ai.onnx" else node.domain
        call = Call(node.op_type, where, self._opset(domain), attributes, len(node.output),
                    lambda graph, given: self._run_inner(graph, given, values, outer, where), self.note)
        try:
            return self._result(node, domain, call, inputs)
        except ExtractionError:
            raise
        except RecursionError:
            raise ExtractionError(f"{where}: nested too deep") from None
        except Exception as error:
            if isinstance(error, TypeError) and " positional argument" in str(error):
                raise call.fail(f"it has {len(inputs)} inputs, and {node.op_type} does not take as many") from error
            shapes = ", ".join("left out" if v is None else f"{list(v.shape)}" if isinstance(v, Tensor) else "a sequence"
                               for v in inputs)
            raise ExtractionError(f"{where}: {first_line(error)} (inputs: {shapes}); check "
                                  "the model with onnx.checker, and input_shapes") from error

    def _opset(self, domain: str) -> int:
        opsets = self.file.opsets
        return opsets.get(domain, opsets[""] if domain == "" else 1)

    def _run_inner(self, graph: onnx.GraphProto, given: Sequence[Any], values: Values,
                   outer: Mapping[str, onnx.AttributeProto], where: str) -> list[Any]:
        """A graph in an attribute: it sees the values around it."""
        if len(given) != len(graph.input):
            raise ExtractionError(f"{where}: its graph takes {len(graph.input)} inputs and gets {len(given)}")
        inner: Values = ChainMap({}, values)
        for t in graph.initializer:
            inner[t.name] = tensor_of(t, f"{where}: initializer {t.name!r}")
        inner.update(zip((i.name for i in graph.input), given, strict=True))
        return self._run(graph, inner, outer, f"{where.removeprefix(self.file.source)}, inside")

    def _result(self, node: onnx.NodeProto, domain: str, call: Call, inputs: list[Any]) -> list[Any]:
        table = self._table
        function = self.file.functions.get((node.domain, node.op_type))
        if function is not None:
            return self._call_function(function, call, inputs)
        name = f"{domain}.{node.op_type}" if domain else node.op_type
        if name in table.IGNORED:
            self.ignored[name] += 1
            if not inputs:
                raise call.fail("it has no input")
            return [inputs[0]]
        handler = table.HANDLED.get(name)
        if handler is None:
            body = self._standard_function(node, domain, call, inputs)
            if body is not None:
                return self._call_function(body, call, inputs)
            return table.unknown(call, name, inputs, self._declared(node))
        plain = name not in table.NEVER_KNOWN and not any(isinstance(v, list) for v in inputs)
        if plain and all(is_known(v) for v in inputs):
            return self._compute(handler, call, inputs)
        try:
            return self._checked(call, handler(call, *inputs))
        except NeedsValue:
            declared = self._declared(node)
            if name not in OPS or any(d is None for d in declared):
                raise
            return table.declared(call, inputs, declared)

    def _compute(self, handler: Callable[..., Any], call: Call, inputs: list[Any]) -> list[Any]:
        """A node whose arguments are all known: computed now and not recorded, unless its result would be large."""
        size = sum(v.numel() for v in inputs if v is not None)
        if size > _FREELY:
            tried = handler(call, *[v if v is None or v.numel() < 64 else meta(v) for v in inputs])
            results = self._checked(call, tried)
            if any(isinstance(v, Tensor) and v.numel() > _MOST_RESULT for v in results):
                return results
        with unseen():
            return self._checked(call, handler(call, *inputs))

    def _checked(self, call: Call, result: Any) -> list[Any]:
        results = list(result) if isinstance(result, tuple) else [result]
        for v in results:
            if isinstance(v, Tensor) and (any(d > LONGEST_AXIS for d in v.shape) or prod(v.shape) > 2**50):
                raise call.fail(f"its result has the impossible shape {list(v.shape)[:12]}")
        return [meta(v) if _is_long(v) else v for v in results]

    # ---- functions ---------------------------------------------------------------------------------------------

    def _call_function(self, function: onnx.FunctionProto, call: Call, inputs: list[Any]) -> list[Any]:
        """A function of the model, or the definition of an operator in terms of others."""
        attributes = {a.name: a for a in function.attribute_proto} | call.attributes
        values: dict[str, Any] = dict.fromkeys(function.input)
        if len(inputs) > len(function.input):
            raise call.fail(f"the function takes {len(function.input)} inputs and gets {len(inputs)}")
        values.update(zip(function.input, inputs, strict=False))
        before = self.file.opsets
        self.file.opsets = {**before, **{("" if o.domain == "ai.onnx" else o.domain): int(o.version)
                                         for o in function.opset_import}}
        try:
            return self._run(function, values, attributes, f"{call.where.removeprefix(self.file.source)}, inside",
                             call.n_outputs)
        finally:
            self.file.opsets = before

    def _standard_function(self, node: onnx.NodeProto, domain: str, call: Call,
                           inputs: list[Any]) -> onnx.FunctionProto | None:
        """The definition of a standard operator by simpler ones, where ONNX has one."""
        try:
            schema: Any = onnx.defs.get_schema(node.op_type, call.opset, domain)
        except onnx.defs.SchemaError:
            return None
        for name, attribute in schema.attributes.items():
            if attribute.default_value.name:
                call.attributes.setdefault(name, attribute.default_value)
        if schema.has_function:
            return schema.function_body
        if not schema.has_context_dependent_function or any(isinstance(v, list) for v in inputs):
            return None
        types = [type_of(v) for v in inputs]
        whole = onnx.NodeProto()
        whole.CopyFrom(node)
        del whole.attribute[:]
        whole.attribute.extend(call.attributes.values())
        data = schema.get_context_dependent_function(whole.SerializeToString(), [t.SerializeToString() for t in types])
        return onnx.FunctionProto.FromString(data) if data else None

    def _declared(self, node: onnx.NodeProto) -> list[tuple[int, tuple[int, ...]] | None]:
        """Element type and shape of the node's outputs, where the file or the operator's own inference says so."""
        graph = self.file.proto.graph
        if not self._types:
            self._types = {v.name: v.type for v in (*graph.value_info, *graph.output)}
        infos = self._types
        return [shape_in(infos.get(name), self._name(node)) for name in node.output]


def _is_long(value: Any) -> bool:
    """Whether a known tensor has too many values to go on computing with them; one value shown many times is fine."""
    return (isinstance(value, Tensor) and not value.is_meta and value.numel() > 16 * MOST_KNOWN
            and any(s and d > 1 for s, d in zip(value.stride(), value.shape, strict=True)))


def shape_in(t: onnx.TypeProto | None, where: str) -> tuple[int, tuple[int, ...]] | None:
    """Element type and shape of a tensor type, if it says all of it."""
    if t is None or not t.tensor_type.HasField("shape"):
        return None
    dims = t.tensor_type.shape.dim
    if not all(d.HasField("dim_value") for d in dims):
        return None
    return t.tensor_type.elem_type, check_dims([d.dim_value for d in dims], where)


def type_of(value: Any) -> onnx.TypeProto:
    """The ONNX type of a tensor."""
    if value is None:
        return onnx.TypeProto()
    numbers = {torch.float32: 1, torch.float64: 11, torch.int64: 7, torch.int32: 6, torch.bool: 9, torch.uint8: 2,
               torch.int8: 3, torch.int16: 5, torch.complex64: 14, torch.complex128: 15}
    return onnx.helper.make_tensor_type_proto(numbers[value.dtype], list(value.shape))
