"""Building a model on the meta device without working out its initial weights, which takes most of the time of building.

There is nothing to write to there, but torch checks in Python, for each call, what the result would look like.
"""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor
from torch.overrides import TorchFunctionMode

# They write to their first argument, whose shape and number format stay as they are.
_WRITES: Final = frozenset(getattr(Tensor, name) for name in (
    "normal_", "uniform_", "exponential_", "log_normal_", "cauchy_", "bernoulli_", "fill_", "zero_", "mul_", "add_", "sub_",
    "div_", "clamp_", "clamp_min_", "clamp_max_", "erfinv_", "copy_"))


class SkipInitialisation(TorchFunctionMode):
    """While active in this thread, writes to meta tensors do nothing. To be entered after ``torch.device("meta")``."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        if func in _WRITES and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))
