"""A copy of a model on the meta device, made without reading a weight and without touching the model; its inputs.

Meta tensors have a shape and no values, so a copy costs no memory and a forward pass almost no time.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from extract.extraction import ExtractionError


def on_meta(model: nn.Module | Callable[[], nn.Module], notes: list[str]) -> nn.Module:
    """``model`` (or what the factory builds) in evaluation mode on the meta device. The argument is left as it is.

    Raises ``ExtractionError`` if a factory fails or returns no module, or if the model cannot be copied.
    """
    if isinstance(model, nn.Module):
        inner = getattr(model, "_orig_mod", model)  # torch.compile wraps the module
        return _copy(inner if isinstance(inner, nn.Module) else model).eval()
    built = _build(model, notes)
    strays = any(not t.is_meta for t in (*built.parameters(), *built.buffers()))
    return (_copy(built) if strays else built).eval()


def _build(factory: Callable[[], Any], notes: list[str]) -> nn.Module:
    name = getattr(factory, "__qualname__", repr(factory))
    if not callable(factory):
        raise ExtractionError(f"from_torch needs a torch.nn.Module or a function that returns one, got {factory!r}")
    try:
        with torch.device("meta"):
            built = factory()
    except (NotImplementedError, RuntimeError) as error:
        # some constructors read values (regnet_y of torchvision); those are built with weights, for a moment
        notes.append(f"{name} cannot be built without weights ({first_line(error)}); it was built on the CPU")
        with torch.random.fork_rng(devices=[]):
            built = factory()
    except TypeError as error:
        raise ExtractionError(f"{name}() failed: {error}. A factory is called without arguments; wrap it in a lambda or "
                              "functools.partial that knows them") from error
    if not isinstance(built, nn.Module):
        raise ExtractionError(f"{name}() returned {type(built).__name__}, not a torch.nn.Module")
    return built


class _CopyAsMeta(TorchFunctionMode):
    """While active in this thread, ``copy.deepcopy`` of a tensor gives a meta tensor of the same shape and dtype.

    Also reaches tensors that no module registered, such as a mask kept in a list, and results kept from a computation.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch.Tensor.__deepcopy__:
            return _hollow(args[0])
        return func(*args, **(kwargs or {}))


def _hollow(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor.detach(), device="meta")


def _copy(model: nn.Module) -> nn.Module:
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
                memo[id(b)] = _hollow(b)
    try:
        with _CopyAsMeta():
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


def inputs_on_meta(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for the model, tensors on the meta device.

    ``example_inputs`` is one tensor, one shape (a tuple of integers), a list or tuple of those, or a dict by argument
    name. A shape means float32; for token numbers give an integer tensor. Other values are passed on as they are.
    """
    if isinstance(example_inputs, Mapping):
        return (), {k: _one_input(v) for k, v in example_inputs.items()}
    if isinstance(example_inputs, torch.Tensor) or _is_shape(example_inputs):
        return (_one_input(example_inputs),), {}
    if isinstance(example_inputs, list | tuple) and example_inputs:
        return tuple(_one_input(v) for v in example_inputs), {}
    raise ExtractionError(f"example_inputs is {example_inputs!r}; give a tensor, a shape such as (1, 3, 224, 224), a list "
                          "of those, or a dict by argument name")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(type(d) is int for d in value)


def _one_input(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if _is_shape(value):
        if any(d < 1 for d in value):
            raise ExtractionError(f"input shape {tuple(value)} must have positive sizes; give the batch size too (1)")
        return torch.empty(tuple(value), device="meta")
    if isinstance(value, list | tuple):
        return type(value)(_one_input(v) for v in value)
    return value


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
