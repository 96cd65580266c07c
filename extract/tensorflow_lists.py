"""Handlers of lists of tensors (TensorList…) and of the arrays of TensorFlow 1 (TensorArray…V3).

An array of TensorFlow 1 is a handle and a "flow" that orders the calls; both stand for one list here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from extract.extraction import ExtractionError
from extract.tensorflow_consts import MOST_VALUES
from extract.tensorflow_values import TensorList, Value

if TYPE_CHECKING:
    from extract.tensorflow_program import Call


def _length(call: Call, count: int) -> int:
    if not 0 <= count <= MOST_VALUES:
        raise ExtractionError(f"{call.node}: a list of {count} tensors")
    return count


def reserve(call: Call) -> list[Any]:
    return [TensorList([None] * _length(call, call.int_(1)))]


def empty_list(call: Call) -> list[Any]:
    return [TensorList([])]


def from_tensor(call: Call) -> list[Any]:
    x = call.value(0)
    _length(call, x.shape[0])
    return [from_tensor_value(x)]


def from_tensor_value(x: Value) -> TensorList:
    return Rows([Value(t, x.without({0})) for t in (x.tensor.unbind(x.order[0]) if x.shape[0] else ())], x)


class Rows(TensorList):
    """A list that still knows the tensor it was cut from."""

    def __init__(self, items: list[Value | None], whole: Value) -> None:
        super().__init__(items)
        self.whole = whole


def _place(call: Call, items: list[Any]) -> int:
    place = call.int_(1)
    if not 0 <= place < len(items):
        raise ExtractionError(f"{call.node}: place {place} of a list of {len(items)}")
    return place


def get_item(call: Call) -> Any:
    items = call.list_(0).items
    found = items[_place(call, items)]
    if found is not None:
        return found
    other = next((v for v in items if v is not None), None)
    if other is None:
        raise ExtractionError(f"{call.node} reads a place that was never written")
    return Value.of(torch.zeros(other.shape, dtype=other.tensor.dtype))


def set_item(call: Call) -> list[Any]:
    items = list(call.list_(0).items)
    place = call.int_(1)
    if call.attr("resize_if_index_out_of_bounds") and len(items) <= place <= MOST_VALUES:
        items += [None] * (place + 1 - len(items))
    items[_place(call, items)] = call.value(2)
    return [TensorList(items)]


def push(call: Call) -> list[Any]:
    return [TensorList([*call.list_(0).items, call.value(1)])]


def pop(call: Call) -> list[Any]:
    items = call.list_(0).items
    if not items or items[-1] is None:
        raise ExtractionError(f"{call.node} takes from an empty list")
    return [TensorList(items[:-1]), items[-1]]


def stack(call: Call) -> Value:
    found = call.list_(0)
    if isinstance(found, Rows):
        return found.whole
    written = [v for v in found.items if v is not None]
    if len(written) != len(found.items) or not written:
        raise ExtractionError(f"{call.node}: {len(found.items) - len(written)} of {len(found.items)} places were never written")
    return Value.of(torch.stack([v.plain() for v in written]))


def list_length(call: Call) -> Value:
    return Value.of(torch.tensor(len(call.list_(0).items), dtype=torch.int32))


def array(call: Call) -> list[Any]:
    made = TensorList([None] * _length(call, call.int_(0)))
    return [made, made]


def array_read(call: Call) -> Any:
    call.args = [call.args[-1], *call.args[1:]]
    return get_item(call)


def array_write(call: Call) -> Any:
    items = list(call.list_(3).items)
    place = call.int_(1)
    items += [None] * (place + 1 - len(items)) if 0 <= place <= MOST_VALUES else []
    items[_place(call, items)] = call.value(2)
    return TensorList(items)


def array_scatter(call: Call) -> Any:
    """``(array, places, tensor, flow)``"""
    x, items = call.value(2), list(call.list_(3).items)
    places = call.ints(1)
    items += [None] * (max(places, default=-1) + 1 - len(items))
    if places == list(range(len(items))) == list(range(x.shape[0])):
        return from_tensor_value(x)
    for place, t in zip(places, x.tensor.unbind(x.order[0]), strict=True):
        items[place] = Value(t, x.without({0}))
    return TensorList(items)


def array_gather(call: Call) -> Value:
    """``(array, places, flow)``"""
    found = call.list_(2)
    places = call.ints(1)
    if places != list(range(len(found.items))):
        found = TensorList([found.items[p] if 0 <= p < len(found.items) else None for p in places])
    call.args = [found]
    return stack(call)


def array_size(call: Call) -> Value:
    return Value.of(torch.tensor(len(call.list_(1).items), dtype=torch.int32))
