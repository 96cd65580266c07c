"""``primitive``: a torch operator that stands for any operator of the vocabulary, for what torch itself does not have.

The interpreters of other frameworks' files are written in torch operators, because the recorder watches those. Where there
is none (NonMaxSuppression, Hardmax, a pool with uneven padding), they call this one: it returns a tensor of the given shape
without values, and the recorder writes down the node that it names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from extract.torch_recorder import Recorder, Ref

_LIBRARY: Final = torch.library.Library("cgtransfer", "FRAGMENT")
_LIBRARY.define("primitive(Tensor[] inputs, Tensor?[] weights, str spec, SymInt[] shape, ScalarType dtype) -> Tensor")
_LIBRARY.impl("primitive", lambda inputs, weights, spec, shape, dtype: torch.empty(shape, dtype=dtype, device="meta"),
              "CompositeExplicitAutograd")


def primitive(op: str, inputs: Sequence[Tensor], shape: Sequence[int], weights: Sequence[Tensor | None] = (),
              weight_shape: Sequence[int] = (), bias: bool = False, dtype: torch.dtype = torch.float32,
              **attrs: Any) -> Tensor:
    """The result of the node ``op(inputs)`` with the trained ``weights`` inside; attributes as ``NodeSpec`` has them.

    ``op`` is in ``cg.vocabulary.OPS``; for ``Unknown`` give ``name=``. Returns a meta tensor of ``shape``.
    """
    spec = json.dumps({"op": op, "weight_shape": list(weight_shape), "bias": bias, "attrs": attrs}, sort_keys=True)
    return torch.ops.cgtransfer.primitive(list(inputs), list(weights), spec, list(shape), dtype)


def primitive_node(r: Recorder, out: Tensor, inputs: Sequence[Tensor], weights: Sequence[Tensor | None], spec: str,
                   *rest: Any) -> Ref:
    """Handler of the operator in the table ``extract.torch_ops``."""
    said = json.loads(spec)
    attrs = {k: _tuples(v) for k, v in said["attrs"].items()}
    return r.node(said["op"], inputs, out.shape, weights, tuple(said["weight_shape"]), said["bias"], attrs)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
