"""``TensorFlowProgram``: a TensorFlow graph as an ``nn.Module`` that runs it with torch operators.

It is made to be run once on meta tensors under the recorder of ``from_torch``. Small constants have values, so the shape
arithmetic of a graph computes and conditions on it are plain Python; nothing that depends on an input has a value. What
each operator does is in ``tensorflow_ops``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from extract.extraction import ExtractionError, first_line
from extract.tensorflow_consts import LARGEST, MOST_VALUES, constant, dtype_of
from extract.tensorflow_fusion import Step, plan
from extract.tensorflow_graph import Library, Net, Node, Out
from extract.tensorflow_values import DEAD, TensorList, Value, Variable, align, known
from extract.torch_primitive import primitive
from extract.torch_recorder import Recorder

_MOST_STEPS: Final = 100_000  # operators run, loops included


class Call:
    """One operator that runs: its node, its arguments, and what handlers need to know of the program."""

    def __init__(self, program: TensorFlowProgram, node: Node, args: list[Any], named: dict[str, Any]) -> None:
        self.program, self.node, self.args, self.named = program, node, args, named

    def __len__(self) -> int:
        return len(self.args)

    def value(self, place: int | str) -> Value:
        """Argument by number or name; must be a tensor."""
        found = self.named[place] if isinstance(place, str) else self.args[place] if place < len(self.args) else None
        if isinstance(found, Variable):
            return Value.of(found.tensor)
        if not isinstance(found, Value):
            kind = "missing" if found is None else type(found).__name__
            raise ExtractionError(f"{self.node}: argument {place!r} should be a tensor, it is {kind}")
        return found

    def maybe(self, name: str) -> Value | None:
        return self.value(name) if self.named.get(name) is not None else None

    def list_(self, place: int) -> TensorList:
        found = self.args[place] if place < len(self.args) else None
        if not isinstance(found, TensorList):
            raise ExtractionError(f"{self.node}: argument {place} should be a list of tensors")
        return found

    def numbers(self, place: int | str) -> Any:
        """The values of an argument, as numbers in lists."""
        value = self.value(place)
        numbers = known(value.plain() if value.rank > 1 else value.tensor)
        if numbers is None:
            raise ExtractionError(f"{self.node}: the value of argument {place!r} must be known, but it depends on an input or "
                                  "on a variable; give input_shapes for every dynamic axis, or take the decision from shapes")
        return numbers

    def ints(self, place: int | str) -> list[int]:
        numbers = self.numbers(place)
        flat = numbers if isinstance(numbers, list) else [numbers]
        return [int(n) for row in flat for n in (row if isinstance(row, list) else [row])]

    def int_(self, place: int | str) -> int:
        values = self.ints(place)
        if len(values) != 1:
            raise ExtractionError(f"{self.node}: argument {place!r} should be one number, it is {values[:9]}")
        return values[0]

    def pairs(self, place: int | str) -> list[tuple[int, int]]:
        """A table of two columns, such as paddings."""
        flat = self.ints(place)
        return list(zip(flat[::2], flat[1::2], strict=True))

    def attr(self, name: str, default: Any = None) -> Any:
        return self.node.attr(name, default)

    def axis(self, place: int, rank: int) -> int:
        axis = self.int_(place)
        if not -rank <= axis < rank:
            raise ExtractionError(f"{self.node}: axis {axis} is not one of {rank} axes")
        return axis % rank

    def shape(self, place: int | str) -> list[int]:
        """Sizes for a tensor to be made; refuses impossible ones."""
        sizes = self.ints(place)
        total = 1
        for size in sizes:
            total *= max(size, 1)
        if len(sizes) > 16 or total > LARGEST or any(s < -1 for s in sizes):
            raise ExtractionError(f"{self.node}: {sizes[:17]} is not a possible tensor shape")
        return sizes

    def device(self, *counts: int) -> str:
        """Where a constant of that many elements lives: with its values only if it is small."""
        return "cpu" if sum(counts) <= MOST_VALUES else "meta"

    def aligned(self, *values: Value) -> tuple[list[torch.Tensor], tuple[int, ...]]:
        return align(values)

    def note(self, text: str) -> None:
        self.program.note(text)

    def emit(self, op: str, inputs: Sequence[torch.Tensor], shape: Sequence[int], dtype: torch.dtype = torch.float32,
             **attrs: Any) -> torch.Tensor:
        """A node that no torch operator stands for."""
        return primitive(op, inputs, shape, dtype=dtype, **attrs)


class TensorFlowProgram(nn.Module):
    """The network ``net``, whose variables are ``variables`` (by the name of the node that stands for each).

    ``table`` maps operators to handlers, ``Call -> Value | list``. ``layouts[i]`` tells whether input ``i`` is given as
    (N, C, …) although TensorFlow has it as (N, …, C). Trained variables are parameters of the module, so the
    recorder counts them.
    """

    may_be_exported = False  # the graph is given, so ``torch.export`` has nothing to add

    def __init__(self, net: Net, library: Library, inputs: Sequence[str], layouts: Sequence[bool],
                 variables: Mapping[str, Variable], table: Mapping[str, Callable[..., Any]],
                 trained_constants: bool = False) -> None:
        super().__init__()
        self.net, self.library, self.table = net, library, dict(table)
        self.inputs, self.layouts = list(inputs), list(layouts)
        self.variables = dict(variables)
        self.known_notes: list[str] = []
        self._constants: dict[Node, Any] = {}
        self._plans: dict[Any, tuple[Net, list[Step]]] = {}
        self._steps = 0
        self._shared: list[torch.Tensor] = []
        for variable in self.variables.values():
            if isinstance(variable.tensor, nn.Parameter):
                name = unique = variable.name.replace("/", ".")
                while unique in self._parameters:  # names of variables need not differ
                    unique = f"{name}_{len(self._parameters)}"
                self._parameters[unique] = variable.tensor
        if trained_constants:
            states = {o.node for n in net.nodes if n.op in ("While", "StatelessWhile") for o in self._states(n)}
            for node in net.nodes:
                self._trained_constant(node, node in states)
        self._main = plan(net, self.table)

    def _states(self, loop: Node) -> list[Out]:
        """What the variables of a loop begin with; its invariants are handed on as they are."""
        body = self.library.function(str(loop.attr("body")), [True] * len(loop.inputs))
        return [given for given, arg, out in zip(loop.inputs, body.args, body.outputs, strict=False) if out.node is not arg]

    def _trained_constant(self, node: Node, state: bool) -> None:
        """In a frozen graph the weights are constants. Zeros that a loop begins with are none."""
        if node.op != "Const" or "value" not in node.attrs:
            return
        proto = node.attrs["value"].tensor
        if proto.dtype in (1, 2, 14, 19) and len(proto.tensor_shape.dim):
            value = constant(node)
            if value is not None and not (state and not value.is_meta and not value.any()):
                weight = nn.Parameter(torch.empty(value.shape, dtype=value.dtype, device="meta"), requires_grad=False)
                self._parameters[node.name.replace("/", ".")] = weight
                self._constants[node] = Value.of(weight)

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        self._steps = 0
        feeds = {name: (Value.first(t) if first else Value.of(t))
                 for name, t, first in zip(self.inputs, inputs, self.layouts, strict=True)}
        results = self._run(self.net, self._main, feeds, {})
        return [r.tensor for r in results if isinstance(r, Value)]

    def call(self, name: str, args: Sequence[Any], changing: Sequence[bool] = ()) -> list[Any]:
        """Run a function of the library (a branch, or the body of a loop). ``changing``: arguments that a loop updates."""
        recorder = self.recorder()
        live = tuple(isinstance(a, Value | TensorList) and ((i < len(changing) and changing[i]) or _is_live(a, recorder))
                     for i, a in enumerate(args))
        net, steps = self.function(name, live)
        if len(net.args) != len(args):
            raise ExtractionError(f"function {name!r} takes {len(net.args)} arguments, it is given {len(args)}")
        return self._run(net, steps, {}, dict(zip(net.args, args, strict=True)))

    def function(self, name: str, live: Sequence[bool]) -> tuple[Net, list[Step]]:
        key = (name, tuple(live))
        if key not in self._plans:
            net = self.library.function(name, live)
            self._plans[key] = net, plan(net, self.table)
        return self._plans[key]

    def _run(self, net: Net, steps: list[Step], feeds: Mapping[str, Value], args: dict[Node, Any]) -> list[Any]:
        done: dict[Node, Any] = dict(args)

        def get(out: Out) -> Any:
            made = done[out.node]
            if not isinstance(made, list):
                return made if out.number == 0 or made is DEAD else None
            return made[out.number] if out.number < len(made) else None

        for step in steps:
            node = step.node
            if node.name in feeds and node.live:
                done[node] = feeds[node.name]
                continue
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise ExtractionError(f"{node}: more than {_MOST_STEPS} operators were run; a loop of the graph is too long")
            inputs = [get(o) for o in step.inputs]
            if any(v is DEAD for v in inputs) and node.op != "Merge":
                done[node] = DEAD
                continue
            named = {k: get(v) if isinstance(v, Out) else v for k, v in step.named.items()}
            done[node] = self._guarded(step, inputs, named)
        results = [get(o) for o in net.outputs]
        for out, result in zip(net.outputs, results, strict=True):
            if result is None:
                raise ExtractionError(f"{out.node}: output {out.number} is needed, but the operator has fewer, or it is no "
                                      "tensor that a network computes with")
        return results

    def _guarded(self, step: Step, inputs: list[Any], named: dict[str, Any]) -> Any:
        call = Call(self, step.node, [_without_values(v) for v in inputs], named)
        try:
            made = unknown(call) if step.handler is None else step.handler(call)
        except ExtractionError:
            raise
        except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError,
                AssertionError, StopIteration) as error:
            shapes = [v.shape for v in inputs if isinstance(v, Value)]
            raise ExtractionError(f"{step.node} with arguments of shapes {shapes}: {first_line(error)}; check input_shapes, "
                                  "and that TensorFlow itself runs the graph") from error
        if isinstance(made, torch.Tensor):
            made = Value.of(made)
        if isinstance(made, Value):
            made = _without_values(made, MOST_VALUES)
        if step.channels_first and isinstance(made, Value) and made.is_plain and made.rank > 2:
            made = Value.first(made.channels_first())
        return made

    def constant(self, node: Node) -> Any:
        if node not in self._constants:
            value = constant(node)
            self._constants[node] = None if value is None else Value.of(value)
        return self._constants[node]

    def variable(self, node: Node) -> Variable:
        """The variable of a placeholder or handle; one without a value becomes a frozen one if its shape is known."""
        found = self.variables.get(node.name)
        if found is None:
            raise ExtractionError(f"{node} is neither an input nor a variable of the network; give it a value before saving")
        return found

    # ---- the recorder that runs us ---------------------------------------------------------------------------------

    def recorder(self) -> Recorder | None:
        return next((m for m in reversed(_get_current_dispatch_mode_stack()) if isinstance(m, Recorder)), None)

    def note(self, text: str) -> None:
        recorder = self.recorder()
        if recorder is not None:
            recorder.note(text)


def _without_values(value: Any, most: int = 64) -> Any:
    """Values are for shape arithmetic: constant images and large results lose them, so that no operator fills the memory."""
    if not isinstance(value, Value) or value.tensor.is_meta or value.tensor.numel() <= most or (most == 64 and value.rank < 3):
        return value
    return Value(value.tensor.to("meta"), value.order)


def _is_live(value: Any, recorder: Recorder | None) -> bool:
    tensors = [v.tensor for v in value.items if v is not None] if isinstance(value, TensorList) else [value.tensor]
    return any(recorder is None or recorder.is_live(t) for t in tensors)


def unknown(call: Call) -> list[Any]:
    """An operator outside the table: ``Unknown`` nodes with the shapes that TensorFlow inferred for it."""
    from extract.tensorflow_ops import UNSUPPORTED

    node = call.node
    inputs = [v.tensor for v in call.args if isinstance(v, Value)]
    reason = UNSUPPORTED.get(node.op, "it is not in the table of operators")
    protos = node.attrs["_output_shapes"].list.shape if "_output_shapes" in node.attrs else []
    batch = next((v.shape[0] for v in call.args if isinstance(v, Value) and v.rank and v.tensor.is_meta), 1)
    outputs = []
    for i, proto in enumerate(protos or [None]):
        if proto is not None and not proto.unknown_rank:
            sizes = [int(d.size) for d in proto.dim]
            if sizes and sizes[0] < 0:
                sizes[0] = batch
        else:
            sizes = [*next((v.shape for v in call.args if isinstance(v, Value)), ())]
        if len(sizes) > 16 or any(s < 0 for s in sizes):
            raise ExtractionError(f"{node} is not known ({reason}), and TensorFlow does not know its output shape; remove "
                                  "it or give input_shapes for every dynamic axis")
        kind = node.attr("T", 1)
        dtype = dtype_of(kind, repr(node)) if isinstance(kind, int) and kind else torch.float32
        attrs: dict[str, Any] = {"name": node.op, **({"output": i} if i else {})}
        outputs.append(Value.of(primitive("Unknown", inputs, sizes, dtype=dtype, **attrs)))
    call.note(f"{node} became an Unknown node: {reason}")
    return outputs
