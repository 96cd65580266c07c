"""Element-wise operators of torch without a name in the vocabulary, as what they compute in operators that have one.

Each formula is called with a ``Steps``, which makes the nodes, and the arguments of the operator (tensors and numbers).
``acos``, ``asin``, ``atan`` and functions without a closed form (``lgamma``, ``i0``, …) are not here: they are ``Unknown``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log, pi
from typing import Any, Final

import torch
from torch import Tensor

from extract.torch_math import Operand, combine, number, plain, shape_of
from extract.torch_recorder import Recorder, Ref


class Steps:
    """``steps(op, x)`` and ``steps(op, x, y)`` are the nodes ``op(x)`` and ``op(x, y)``; numbers become attributes."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __call__(self, op: str, x: Any, y: Any = None) -> Ref:
        if y is None:
            return self.recorder.node(op, [x], shape_of(x))
        shapes = [shape_of(v) for v in (x, y) if isinstance(v, Tensor | Ref)]
        return combine(self.recorder, op, tuple(torch.broadcast_shapes(*shapes)), x, y)

    def where(self, condition: Ref, then: Operand, otherwise: Operand) -> Ref:
        values = {"then": then, "otherwise": otherwise}
        tensors = [v for v in values.values() if isinstance(v, Tensor | Ref)]
        shape = torch.broadcast_shapes(condition.shape, *(shape_of(v) for v in tensors))
        numbers = {k: number(v) for k, v in values.items() if not isinstance(v, Tensor | Ref)}
        return self.recorder.node("Where", [condition, *tensors], tuple(shape), attrs=numbers)


def _hyperbolic(sign: str) -> Callable[..., Ref]:
    return lambda s, x: s("Mul", s(sign, s("Exp", x), s("Exp", s("Neg", x))), 0.5)


def _inverse_hyperbolic(one: float) -> Callable[..., Ref]:
    return lambda s, x: s("Log", s("Add", x, s("Sqrt", s("Add", s("Pow", x, 2), one))))


def _truncate(s: Steps, x: Any) -> Ref:
    return s("Mul", s("Sign", x), s("Floor", s("Abs", x)))


def _is_nan(s: Steps, x: Any) -> Ref:
    return s("Not", s("Equal", x, x))


def _differ(s: Steps, x: Any, y: Any) -> Ref:
    return s("Not", s("Equal", x, y))


def _soft_shrink(s: Steps, x: Any, limit: float = 0.5) -> Ref:
    return s("Mul", s("Sign", x), s("Relu", s("Sub", s("Abs", x), limit)))


def _hard_shrink(s: Steps, x: Any, limit: float = 0.5) -> Ref:
    return s.where(s("Greater", s("Abs", x), limit), x, 0.0)


def _logit(s: Steps, x: Any, eps: float | None = None) -> Ref:
    if eps is not None:
        x = s.recorder.node("Clip", [x], shape_of(x), max=number(1 - eps), min=number(eps))
    return s("Log", s("Div", x, s("Sub", 1.0, x)))


def _log_of_sum(base: float | None) -> Callable[..., Ref]:
    def formula(s: Steps, x: Any, y: Any) -> Ref:
        if base is None:
            return s("Log", s("Add", s("Exp", x), s("Exp", y)))
        return s("Mul", s("Log", s("Add", s("Pow", base, x), s("Pow", base, y))), 1 / log(base))

    return formula


def _sinc(s: Steps, x: Any) -> Ref:
    angle = s("Mul", x, pi)
    return s("Div", s("Sin", angle), angle)


def _power_of_two(s: Steps, y: Any) -> Any:
    y = plain(s.recorder, y)
    return s("Pow", 2.0, y) if isinstance(y, Tensor) else 2.0 ** y


FORMULAS: Final[dict[str, Callable[..., Ref]]] = {
    "tan": lambda s, x: s("Div", s("Sin", x), s("Cos", x)), "sinh": _hyperbolic("Sub"), "cosh": _hyperbolic("Add"),
    "asinh": _inverse_hyperbolic(1), "acosh": _inverse_hyperbolic(-1),
    "atanh": lambda s, x: s("Mul", s("Sub", s("Log", s("Add", x, 1)), s("Log", s("Sub", 1, x))), 0.5),
    "erfc": lambda s, x: s("Sub", 1, s("Erf", x)), "special_erfcx": lambda s, x: s(
        "Mul", s("Exp", s("Pow", x, 2)), s("Sub", 1, s("Erf", x))),
    "exp2": lambda s, x: s("Pow", 2, x), "sinc": _sinc,
    "log1p": lambda s, x: s("Log", s("Add", x, 1)), "expm1": lambda s, x: s("Add", s("Exp", x), -1),
    "log2": lambda s, x: s("Mul", s("Log", x), 1 / log(2)), "log10": lambda s, x: s("Mul", s("Log", x), 1 / log(10)),
    "trunc": _truncate, "frac": lambda s, x: s("Sub", x, _truncate(s, x)), "sgn": lambda s, x: s("Sign", x),
    "signbit": lambda s, x: s("Less", x, 0), "copysign": lambda s, x, y: s(
        "Mul", s("Abs", x), s("Sign", y) if isinstance(y, Tensor) else (-1.0 if y < 0 else 1.0)),
    "isnan": _is_nan, "isinf": lambda s, x: s("Equal", s("Abs", x), inf), "isposinf": lambda s, x: s("Equal", x, inf),
    "isneginf": lambda s, x: s("Equal", x, -inf), "nan_to_num": lambda s, x, *rest: s.where(_is_nan(s, x), 0.0, x),
    "deg2rad": lambda s, x: s("Mul", x, pi / 180), "rad2deg": lambda s, x: s("Mul", x, 180 / pi),
    "hypot": lambda s, x, y: s("Sqrt", s("Add", s("Pow", x, 2), s("Pow", y, 2))),
    "logaddexp": _log_of_sum(None), "logaddexp2": _log_of_sum(2), "logit": _logit,
    "xlogy": lambda s, x, y: s("Mul", x, s("Log", y) if isinstance(y, Tensor) else log(y)),
    "heaviside": lambda s, x, y: s.where(s("Equal", x, 0), y, s("Greater", x, 0)),
    "fmax": lambda s, x, y: s("Max", x, y), "fmin": lambda s, x, y: s("Min", x, y),
    "logical_xor": _differ, "bitwise_xor": _differ,
    "bitwise_left_shift": lambda s, x, y: s("Mul", x, _power_of_two(s, y)),
    "bitwise_right_shift": lambda s, x, y: s("Floor", s("Div", x, _power_of_two(s, y))),
    "hardshrink": _hard_shrink, "softshrink": _soft_shrink,
}


def _handler(formula: Callable[..., Ref]) -> Callable[..., Ref]:
    return lambda r, out, *args, **kwargs: formula(Steps(r), *args, **kwargs)


HANDLERS: Final = {name: _handler(formula) for name, formula in FORMULAS.items()}
