"""What PyTorch itself makes of a model (``torch.export``, ``torch.fx``, ``torch.jit``), as a module that can be watched."""

from __future__ import annotations

import copy
import io
import os
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import nn

from extract.extraction import ExtractionError, first_line
from extract.torch_model import Arguments, inputs_on_meta, on_meta

_ARCHIVES = (".pt", ".pth", ".pt2", ".ckpt", ".bin", ".pkl", ".pickle", ".tar")


def opened(model: Any, example_inputs: Any) -> tuple[Any, Any, str]:
    """``model`` as a module or factory, its inputs, and the word that ``Extraction.way`` has for this kind of model.

    Raises ``ExtractionError`` for a file and where inputs are missing.
    """
    if isinstance(model, str | os.PathLike):
        raise _refused(os.fspath(model))
    if isinstance(model, torch.export.ExportedProgram):
        if example_inputs is None and model.example_inputs is not None:
            example_inputs = Arguments(*model.example_inputs)
        way = "exported program"
        model = named(model.module(), _class_name(model))
    elif isinstance(model, torch.jit.ScriptModule):
        way = "script"
        model = named(script_on_meta(model), model.original_name, is_hollow=True)
    else:
        way = "fx" if isinstance(model, torch.fx.GraphModule) else "dispatch"
    if example_inputs is None:
        raise ExtractionError("example_inputs is missing; give a tensor, a shape such as (1, 3, 224, 224), a list of those, "
                              "or a dict by argument name")
    return model, example_inputs, way


def exported(model: Any, example_inputs: Any) -> nn.Module:
    """``model`` as ``torch.export`` sees it, on meta tensors. Raises ``ExtractionError`` if it cannot be exported."""
    twin = on_meta(model, [])
    args, kwargs = inputs_on_meta(example_inputs)
    try:
        with torch.no_grad(), redirect_stderr(io.StringIO()):  # where it prints the whole graph if it fails
            program = torch.export.export(twin, args, kwargs, strict=False)
    except Exception as error:
        raise ExtractionError(first_line(error)) from error
    return named(program.module(), type(twin).__name__, is_hollow=True)


class Watched(nn.Module):
    """A module of a class that has no telling name; ``is_hollow`` says that it is a copy without weights already."""

    def __init__(self, inner: nn.Module, is_hollow: bool) -> None:
        super().__init__()
        self.inner = inner
        self.is_hollow = is_hollow
        self.notes: list[str] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class WatchedScript(Watched):
    """A TorchScript module. Its optimiser compares constants, which it cannot do while somebody watches.

    A frozen module has constants for weights; the tables of numbers among them count as trained.
    """

    def __init__(self, inner: nn.Module, is_hollow: bool) -> None:
        super().__init__(inner, is_hollow)
        if next(inner.parameters(), None) is None:
            for i, tensor in enumerate(_constants(inner)):
                self._parameters[f"constant_{i}"] = tensor  # type: ignore[assignment]
            if self._parameters:
                self.notes.append(f"the module is frozen; its {len(self._parameters)} constant tensors count as trained")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.jit.optimized_execution(False):
            return self.inner(*args, **kwargs)


def _constants(module: Any) -> list[torch.Tensor]:
    nodes = [n for n in module.graph.findAllNodes("prim::Constant") if n.hasAttribute("value") and n.kindOf("value") == "t"]
    tensors = [n.t("value") for n in nodes]
    return [t for t in tensors if t.numel() > 1 and t.is_floating_point()]


def named(module: nn.Module, name: str, is_hollow: bool = False) -> nn.Module:
    """``module`` inside one whose class has this name, which is what errors and graphs show."""
    base = WatchedScript if isinstance(module, torch.jit.ScriptModule) else Watched
    return type(name, (base,), {})(module, is_hollow)


def _class_name(program: torch.export.ExportedProgram) -> str:
    for node in program.graph.nodes:
        for _, kind in (node.meta.get("nn_module_stack") or {}).values():
            return str(kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
    return "ExportedProgram"


def script_on_meta(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """A copy with meta tensors for parameters and buffers. The module's code is shared, its weights are not read."""
    twin = torch.jit._recursive.wrap_cpp_module(_copied(module._c))
    doubles: dict[int, torch.Tensor] = {}
    keep = []
    for inner in twin.modules():
        for table, is_parameter in ((inner._parameters, True), (inner._buffers, False)):
            for name, tensor in list(table.items()):
                if tensor is not None:
                    keep.append(tensor)
                    double = doubles.get(id(tensor))
                    if double is None:
                        double = torch.empty_like(tensor.detach(), device="meta")
                        doubles[id(tensor)] = double = nn.Parameter(double, requires_grad=False) if is_parameter else double
                    inner._c.setattr(name, double)
    return twin


def _copied(module: Any) -> Any:
    twin = copy.copy(module)  # its fields, which are shared
    for name, part in torch._C.ModuleDict(module).items():
        twin.setattr(name, _copied(part))
    return twin


def _refused(path: str) -> ExtractionError:
    if path.endswith((".onnx", ".onnx.gz")):
        return ExtractionError(f"{path!r} is an ONNX file; use from_onnx")
    if path.endswith(_ARCHIVES):
        return ExtractionError(
            f"{path!r} is not opened: such a file is a Python pickle, which can run any code when it is loaded (a .pt2 file "
            "too). Build the model in code and pass it; its weights are not needed, and if you want them, load them with "
            "torch.load(…, weights_only=True) or safetensors. If you trust the file, pass torch.export.load(…) or "
            "torch.jit.load(…) of it")
    return ExtractionError(f"from_torch takes a model, not the text {path!r}; extract.zoo.load finds models by name, and "
                           "cg extract takes such names")
