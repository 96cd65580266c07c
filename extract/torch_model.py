"""A copy of a model on the meta device, made without reading a weight and without touching the model; its inputs.

Meta tensors have a shape and no values, so a copy costs no memory and a forward pass almost no time.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from traceback import walk_tb
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from extract.extraction import ExtractionError, first_line
from extract.torch_initialisation import SkipInitialisation
from extract.torch_values import PythonReads, Values, Watch


def on_meta(model: nn.Module | Callable[[], nn.Module], notes: list[str], values: Values | None = None) -> nn.Module:
    """``model`` (or what the factory builds) in evaluation mode on the meta device. The argument is left as it is.

    With ``values``, those of small tensors that are no parameters are remembered there.
    Raises ``ExtractionError`` if a factory fails or returns no module, or if the model cannot be copied.
    """
    if isinstance(model, nn.Module):
        inner = getattr(model, "_orig_mod", model)  # torch.compile wraps the module
        if isinstance(inner, nn.Module):
            model = inner
        twin = model if getattr(model, "is_hollow", False) else _copy(model, values)
    else:
        twin = _build(model, notes, values)
        if any(not t.is_meta for t in (*twin.parameters(), *twin.buffers())):
            twin = _copy(twin, values)
    if values is not None:
        for p in twin.parameters():
            values.forget(p)
    return _in_evaluation(twin)


def _in_evaluation(twin: nn.Module) -> nn.Module:
    try:
        return twin.eval()
    except NotImplementedError:  # the module of an exported program: it is in the mode that it was exported in
        return twin


def _build(factory: Callable[[], Any], notes: list[str], values: Values | None = None) -> nn.Module:
    made_by = getattr(factory, "func", factory)  # functools.partial
    name = getattr(made_by, "__qualname__", type(made_by).__name__)
    if not callable(factory):
        raise ExtractionError(f"from_torch needs a torch.nn.Module or a function that returns one, got {factory!r}")
    try:
        try:
            built = _without_weights(factory, values)
        except (NotImplementedError, RuntimeError):
            if values is not None:
                raise
            built = _without_weights(factory, Values())
    except (NotImplementedError, RuntimeError) as error:
        # some constructors read values that take more; those are built with weights, for a moment
        notes.append(f"{name} cannot be built without weights ({first_line(error)}); it was built on the CPU")
        try:
            with torch.random.fork_rng(devices=[]):
                built = factory()
        except Exception as again:
            raise ExtractionError(f"{name}() failed: {first_line(again)}") from again
    except ExtractionError:
        raise
    except Exception as error:
        *_, (innermost, _) = walk_tb(error.__traceback__)
        advice = ". A factory is called without arguments; wrap it in a lambda or functools.partial that knows them"
        is_call = isinstance(error, TypeError) and innermost.f_code is _without_weights.__code__
        raise ExtractionError(f"{name}() failed: {first_line(error)}{advice if is_call else ''}") from error
    if not isinstance(built, nn.Module):
        raise ExtractionError(f"{name}() returned {type(built).__name__}, not a torch.nn.Module")
    return built


def _without_weights(factory: Callable[[], Any], values: Values | None) -> Any:
    with torch.device("meta"), ExitStack() as modes:
        if values is not None:
            modes.enter_context(PythonReads(values))
            modes.enter_context(Watch(values))
        else:
            modes.enter_context(SkipInitialisation())
        return factory()


class _CopyAsMeta(TorchFunctionMode):
    """While active in this thread, ``copy.deepcopy`` of a tensor gives a meta tensor of the same shape and dtype.

    Also reaches tensors that no module registered, such as a mask kept in a list, and results kept from a computation.
    """

    def __init__(self, values: Values | None = None) -> None:
        super().__init__()
        self._values = values

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch.Tensor.__deepcopy__:
            return _hollow(args[0], self._values)
        return func(*args, **(kwargs or {}))


def _hollow(tensor: torch.Tensor, values: Values | None = None) -> torch.Tensor:
    double = torch.empty_like(tensor.detach(), device="meta")
    real = None if values is None or isinstance(tensor, nn.Parameter) else values.get(tensor)
    if values is not None and real is not None:
        values.know(double, real.detach().clone())
    return double


def _copy(model: nn.Module, values: Values | None = None) -> nn.Module:
    memo: dict[int, Any] = {}
    modules = list(model.modules())
    for module in modules:
        for p in module._parameters.values():
            if p is not None and nn.parameter.is_lazy(p):
                raise ExtractionError(f"{type(model).__name__} has lazy layers without a size yet; run it once on real "
                                      "data, then extract it")
            if p is not None and id(p) not in memo:
                memo[id(p)] = nn.Parameter(_hollow(p), requires_grad=False)
        for b in module._buffers.values():
            if b is not None and id(b) not in memo:
                memo[id(b)] = _hollow(b, values)
    try:
        with _CopyAsMeta(values):
            for module in reversed(modules):  # children first
                if id(module) not in memo and _is_plain(type(module)):
                    _copy_plain(module, memo)
            twin: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        raise ExtractionError(f"{type(model).__name__} cannot be copied ({first_line(error)}); pass a function without "
                              "arguments that builds it instead") from error
    return twin


_SETSTATE = {nn.Module.__setstate__, _ConvNd.__setstate__}  # both only read old files
_ATOMIC = {type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.Size, torch.device}


def _is_plain(cls: type) -> bool:
    """Whether a module of this class is no more than its ``__dict__``, so that a copy may go by that."""
    return (getattr(cls, "__deepcopy__", None) is None and cls.__setstate__ in _SETSTATE  # type: ignore[attr-defined]
            and cls.__reduce_ex__ is object.__reduce_ex__ and cls.__reduce__ is object.__reduce__
            and getattr(cls, "__getstate__", None) is getattr(nn.Module, "__getstate__", None))


def _copy_plain(module: nn.Module, memo: dict[int, Any]) -> None:
    """What ``copy.deepcopy`` would do, three times as fast: most of a module is numbers and empty tables of hooks."""
    twin = module.__class__.__new__(module.__class__)
    memo[id(module)] = twin
    state = twin.__dict__
    for key, value in module.__dict__.items():
        kind = type(value)
        if kind in _ATOMIC:
            state[key] = value
        elif kind in (dict, OrderedDict):
            state[key] = memo.setdefault(id(value), kind(
                (k, memo[id(v)] if id(v) in memo else copy.deepcopy(v, memo)) for k, v in value.items()))
        elif kind is set and not value:
            state[key] = set()
        else:
            state[key] = copy.deepcopy(value, memo)


class Arguments(NamedTuple):
    """Example inputs by place and by name at once."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def inputs_on_meta(example_inputs: Any, values: Values | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for the model, tensors on the meta device.

    ``example_inputs`` is one tensor, one shape (a tuple of integers), a list or tuple of those, or a dict by argument
    name. A shape means float32; for token numbers give an integer tensor. Other values are passed on as they are.
    """
    if isinstance(example_inputs, Arguments):
        return tuple(_one_input(v, values) for v in example_inputs.args), {
            k: _one_input(v, values) for k, v in example_inputs.kwargs.items()}
    if isinstance(example_inputs, Mapping):
        return (), {k: _one_input(v, values) for k, v in example_inputs.items()}
    if isinstance(example_inputs, torch.Tensor) or _is_shape(example_inputs):
        return (_one_input(example_inputs, values),), {}
    if isinstance(example_inputs, list | tuple) and example_inputs:
        return tuple(_one_input(v, values) for v in example_inputs), {}
    raise ExtractionError(f"example_inputs is {example_inputs!r}; give a tensor, a shape such as (1, 3, 224, 224), a list "
                          "of those, or a dict by argument name")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(type(d) is int for d in value)


def _one_input(value: Any, values: Values | None = None) -> Any:
    if isinstance(value, torch.Tensor):
        double = torch.empty(value.shape, dtype=value.dtype, device="meta")
        real = None if values is None else values.get(value.detach())
        if values is not None and real is not None:
            values.know(double, real.clone(memory_format=torch.contiguous_format))
        return double
    if _is_shape(value):
        if any(d < 1 for d in value):
            raise ExtractionError(f"input shape {tuple(value)} must have positive sizes; give the batch size too (1)")
        return torch.empty(tuple(value), device="meta")
    if isinstance(value, list | tuple):
        return type(value)(_one_input(v, values) for v in value)
    return value
