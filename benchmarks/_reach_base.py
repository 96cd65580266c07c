"""What the sets behind ``extract_reach.py`` share: the row of one model, and its parameters counted by PyTorch.

``params_used`` counts the parameters that an output depends on by autograd, not by this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from _workers import Answer


def row(found: Any, seconds: float, **more: Any) -> Answer:
    """What is kept of an ``Extraction``."""
    g = found.graph
    return {"seconds": seconds, "nodes": g.n_nodes, "edges": g.n_edges, "macs": g.macs, "params": g.params,
            "unknown": dict(found.unknown), "way": getattr(found, "way", "run on meta"), "notes": found.notes,
            "ignored": sum(found.ignored.values()), "fingerprint": g.digest, **more}


def torch_start() -> None:
    import torch

    from extract import from_torch

    torch.set_num_threads(1)
    from_torch(torch.nn.Linear(2, 2), (1, 2))  # first use of the recorder imports and registers


def model_of(spec: str) -> tuple[Callable[[], Any], Any]:
    """A function that builds the model, and its inputs: as ``extract.zoo.load``, transformers as in ``zoo_transformers``."""
    prefix, _, name = spec.partition(":")
    if prefix == "hf":
        from zoo_transformers import ARCHITECTURES

        return ARCHITECTURES[name]()
    from extract import zoo

    model = zoo.load(spec)
    return model.factory, model.inputs


def params_used(module: Any, inputs: Any, device: str = "meta") -> int:
    """Scalars of the parameters that an output depends on, by PyTorch's autograd at inference: those in the graph of the
    backward pass.
    """
    import torch

    from extract.torch_model import inputs_on_meta

    args, kwargs = inputs_on_meta(inputs)
    if device == "cpu":
        torch.manual_seed(0)
        args, kwargs = with_values(args, inputs), with_values(kwargs, inputs)
        hollow(module)
    params = [p.requires_grad_() for p in module.to(device).eval().parameters() if p.dtype.is_floating_point]
    with torch.enable_grad():
        outputs = [t for t in tensors_of(module(*args, **kwargs)) if t.requires_grad]
    reached: set[int] = set()
    seen: set[Any] = set()
    todo = [t.grad_fn for t in outputs]
    while todo:  # the graph of the backward pass; nothing is computed
        step = todo.pop()
        if step is not None and step not in seen:
            seen.add(step)
            reached.add(id(getattr(step, "variable", None)))
            todo += [before for before, _ in step.next_functions]
    return sum(p.numel() for p in params if id(p) in reached)


def hollow(module: Any) -> None:
    """Put one number in the place of each parameter, seen in the parameter's shape: billions of them cost no memory."""
    import torch

    made: dict[int, Any] = {}
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                if id(p) not in made:
                    made[id(p)] = torch.nn.Parameter(torch.full((), 0.02, dtype=p.dtype).expand(p.shape), p.requires_grad)
                part._parameters[name] = made[id(p)]


def with_values(value: Any, given: Any) -> Any:
    """Meta tensors as real ones: those that were given with values as they were, else ones and random numbers."""
    import torch

    if isinstance(value, torch.Tensor):
        if isinstance(given, torch.Tensor) and not given.is_meta:
            return given
        if value.dtype.is_floating_point:
            return torch.rand(value.shape).to(value.dtype)
        return torch.ones_like(value, device="cpu")
    if isinstance(value, dict):
        return {k: with_values(v, given[k] if isinstance(given, dict) else None) for k, v in value.items()}
    if isinstance(value, list | tuple):
        same = isinstance(given, list | tuple) and len(given) == len(value)
        return type(value)(with_values(v, given[i] if same else given) for i, v in enumerate(value))
    return value


def params_used_with_values(spec: str) -> Answer:
    """``params_used`` of a model that reads values, with random weights. In a worker of its own: it needs memory."""
    factory, inputs = model_of(spec)
    return {"params_used": params_used(factory(), inputs, "cpu")}


def tensors_of(value: Any) -> Iterator[Any]:
    """All tensors in the result of a model."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors_of(v)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from tensors_of(v)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from tensors_of(getattr(value, name))
