"""How one call of a PyTorch operator is recorded: it runs, and what the table ``torch_ops`` says of it becomes nodes.

An operator in no list is split into its parts, and what then still is in no list becomes ``Unknown``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from extract import torch_bounds as bounds
from extract.torch_complex import COMPLEX
from extract.torch_ops import BOUNDS, HANDLED, IGNORED, SHAPE_ONLY, UNSUPPORTED
from extract.torch_recorder import NO_PARAMS, Ref, shows_all, tensors_in

if TYPE_CHECKING:
    from extract.torch_recorder import Recorder


class Plan(NamedTuple):
    """What is to be done with the calls of one operator.

    ``name`` and ``full_name`` are those of the table: without ``aten::``, the latter with its overload; other namespaces keep
    theirs (``torchvision::nms``). ``kind`` is one of handled, ignored, constant, copy, unknown. ``parts`` is a written
    decomposition into other operators.
    """

    name: str
    full_name: str
    in_place: bool
    kind: str
    handler: Callable[..., Any] | None
    bound: Callable[..., Any] | None
    splits: bool
    parts: Callable[..., Any] | None


_PLANS: dict[Any, Plan] = {}  # operator -> plan, for the whole process
_SYNONYMS: Final = {"__and__": "logical_and", "__or__": "logical_or", "__xor__": "logical_xor",
                    "__lshift__": "bitwise_left_shift", "__rshift__": "bitwise_right_shift"}


def plan(func: Any) -> Plan:
    """What the table says of an operator."""
    known = _PLANS.get(func)
    if known is None:
        known = _PLANS[func] = _plan(func)
    return known


def _plan(func: Any) -> Plan:
    name = func._schema.name.removeprefix("aten::")
    in_place = name.endswith("_") and not name.endswith("__")
    name = name[:-1] if in_place else _SYNONYMS.get(name, name)
    for plain in (name.removesuffix("_copy"), name.removeprefix("prims::")):  # e.g. ``view_copy``, with memory of its own
        if name not in HANDLED and name not in IGNORED and (plain in HANDLED or plain in IGNORED):
            name = plain
    if name not in HANDLED and name not in IGNORED:
        name = name.removeprefix("prims::")
    full_name = f"{name}.{func._overloadname}"
    handler = HANDLED.get(full_name) or HANDLED.get(name)
    unsupported = full_name in UNSUPPORTED or name in UNSUPPORTED
    kind = ("copy" if name == "copy" else "constant" if name in SHAPE_ONLY
            else "ignored" if name in IGNORED and full_name not in HANDLED else "unknown" if handler is None else "handled")
    same = getattr(getattr(torch.ops.aten, name, None), func._overloadname, None) if in_place else func
    parts = None if unsupported or same is None else decomposition_table.get(same)
    return Plan(name, full_name, in_place, kind, handler, BOUNDS.get(full_name) or BOUNDS.get(name),
                not unsupported and func._can_decompose(), parts)


def record(r: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one operator, and write down what it is."""
    name, _, in_place, kind, handler, bound, splits, parts = plan(func)
    if name == "index":
        args = (args[0], bounds.without_masks(r, args[1]))
    out = None if bound is None else bound(r, args, kwargs)
    tensors = list(tensors_in((args, kwargs)))
    original = args
    args, kwargs = r.on_one_device(tensors, args, kwargs)
    if args is not original:
        tensors = list(tensors_in((args, kwargs)))
    if not any(r.is_live(t) for t in tensors):
        out = run(func, args, kwargs, tensors) if out is None else out
        params = NO_PARAMS if kind == "constant" else NO_PARAMS.union(*(r.params_in(t) for t in tensors))
        for t in tensors_in(out):
            for same in [t, *r.on_storage(t)] if in_place else [t]:
                r.make_constant(same, params | r.params_in(same) if in_place else params)
        if name == "scalar_tensor":
            r.scalars[id(out)] = args[0]
        return out
    if kind == "copy":
        return _copy(r, func, args, kwargs)
    if kind == "constant":
        out = func(*args, **kwargs)
        return _write_constant(r, out) if in_place else _all_constant(r, out)
    if kind == "ignored":
        source = r.ref(tensors[0])
        out = func(*args, **kwargs)
        r.ignored[name] += 1
        for t in tensors_in(out):
            r.make_live(t, source.node)
        return out
    if any(t.dtype.is_complex for t in tensors):
        handler, parts = COMPLEX.get(name), None
    target = kwargs.pop("out", None) if "out" in kwargs and isinstance(kwargs["out"], Tensor) else None
    if handler is None and out is None:
        done = _in_parts(r, func, args, kwargs, splits, parts)
        if done is not None and in_place:
            _write(r, run(func, args, kwargs, tensors), r.ref(done))
            return args[0]
        if done is not None and target is None:
            return done
    if out is None:
        out = run(func, args, kwargs if target is None else {**kwargs, "out": target}, tensors)
    refs = _unknown(r, func, tensors, out) if handler is None else handler(r, out, *args, **kwargs)
    if in_place or target is not None:
        _write(r, out, refs if isinstance(refs, Ref) else refs[0])
        return out
    values = [refs] if isinstance(refs, Ref) else refs
    for i, t in enumerate(tensors_in(out)):
        value = values[i] if i < len(values) else None
        if value is None:  # an output that ONNX does not know; it is pruned if nobody reads it
            value = r.node("Unknown", tensors[:1], t.shape, name=name, output=i)
        r.make_live(t, value.node)
    return out


def _in_parts(r: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], splits: bool,
              parts: Callable[..., Any] | None) -> Any:
    """The operator as those that it is made of, recorded one by one; ``None`` if that is not known."""
    if splits:
        with r:
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
    if parts is not None:
        with suppress(Exception), r:  # written for training compilers; some read values
            return parts(*args, **kwargs)
    return None


# call -> (whether it returns a tuple, shape, strides and dtype of each result); for the whole process
_RESULTS: dict[Any, tuple[bool, list[tuple[Any, ...]]]] = {}
_MANY: Final = 50_000


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    """``func(*args, **kwargs)``; on meta tensors an equal earlier call tells the result (networks repeat themselves).

    Meta kernels are written in Python and take up to milliseconds. Only results that are new, dense tensors are
    remembered: not views, not in-place operators, not lists of parts.
    """
    if not tensors or not all(t.is_meta for t in tensors):
        return func(*args, **kwargs)
    try:
        key = (func, _call_key(args), _call_key(kwargs))
        known = _RESULTS.get(key)
    except TypeError:  # an argument that cannot be hashed
        return func(*args, **kwargs)
    if known is not None:
        made = tuple(torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in known[1])
        return made if known[0] else made[0]
    out = func(*args, **kwargs)
    outs = out if isinstance(out, tuple) else (out,)
    if all(isinstance(t, Tensor) and shows_all(t) for t in outs):
        storages = [t.untyped_storage()._cdata for t in (*outs, *tensors)]
        if len({*storages[:len(outs)]}) == len(outs) and not {*storages[:len(outs)]} & {*storages[len(outs):]}:
            if len(_RESULTS) >= _MANY:
                _RESULTS.clear()
            _RESULTS[key] = isinstance(out, tuple), [(tuple(t.shape), t.stride(), t.dtype) for t in outs]
    return out


def _call_key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Tensor, value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_call_key, value))
    if isinstance(value, dict):
        return tuple((k, _call_key(v)) for k, v in value.items())
    return type(value), value  # 1 == 1.0 == True


def _unknown(r: Recorder, func: Any, tensors: list[Tensor], out: Any) -> list[Ref]:
    """One ``Unknown`` node for each output, fed by every tensor of the call that is live or holds parameters."""
    name, full_name = plan(func)[:2]
    reason = UNSUPPORTED.get(full_name) or UNSUPPORTED.get(name) or "it is not in the table of operators"
    r.note(f"{name} in {r.where()} became an Unknown node: {reason}")
    inputs = [t for t in tensors if r.is_live(t) or r.params_in(t)]
    return [r.node("Unknown", inputs, t.shape, name=name, attrs=({"output": i} if i else {}))
            for i, t in enumerate(tensors_in(out))]


def _all_constant(r: Recorder, out: Any) -> Any:
    for t in tensors_in(out):
        r.make_constant(t, NO_PARAMS)
    return out


def _write(r: Recorder, target: Tensor, value: Ref) -> None:
    """``target`` now is ``value``, and so is, in part or in full, every other tensor on its storage."""
    others = r.on_storage(target)
    r.forget_parts(target)
    if shows_all(target):
        r.make_live(target, value.node)
        for t in others:
            if shows_all(t):
                r.make_live(t, value.node)
        return
    whole = [t for t in others if shows_all(t)]
    if not whole:
        r.make_live(target, value.node)
        r.note(f"{r.where()} writes into a part of a tensor that was never seen as a whole; other parts keep the old values")
        return
    written = r.node("ScatterND", [whole[0], value], whole[0].shape)
    for t in whole:
        r.make_live(t, written.node)
    r.make_live(target, value.node)


def _write_constant(r: Recorder, target: Tensor) -> Tensor:
    """``target.zero_()`` and ``fill_``: a constant if all of it is overwritten."""
    if shows_all(target):
        for t in [target, *r.on_storage(target)]:
            r.make_constant(t, NO_PARAMS)
    else:
        r.make_constant(target, NO_PARAMS)
        _write(r, target, r.ref(target))
    return target


def _copy(r: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``target.copy_(source)``, which is also ``target[…] = source``."""
    target, source = args[0], args[1]
    value = r.ref(source)
    out = func(*args, **kwargs)
    if target.numel() != source.numel():
        value = r.node("Expand", [value], target.shape)
    _write(r, target, Ref(value.node, tuple(target.shape)))
    return out
