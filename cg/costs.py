"""Cost of one node: multiply-adds, parameters, and the bytes of the activation it writes.

One multiply-add counts as 1 MAC (the convention of fvcore and of the NAS papers; ``torch.utils.flop_counter`` counts 2).
Element-wise work, pooling and normalisation cost no MACs: they do no multiply-adds with trained or computed matrices.
"""

from __future__ import annotations

from math import prod

from cg.spec import NodeSpec

BYTES_PER_VALUE = 4  # float32


def node_macs(spec: NodeSpec) -> int:
    """Multiply-adds of one forward pass at the recorded shapes (batch included; batch is 1 unless the user gave more)."""
    op, out = spec.op, spec.out_shape
    if op == "Conv" or op == "DeformConv":
        return prod(out) * prod(spec.weight_shape[1:])
    if op == "ConvTranspose":
        return prod(spec.in_shapes[0]) * prod(spec.weight_shape[1:])
    if op == "Gemm":
        return prod(out) * spec.weight_shape[1]
    if op == "MatMul":
        inner = spec.weight_shape[1] if len(spec.in_shapes) == 1 and spec.weight_shape else spec.in_shapes[0][-1]
        return prod(out) * inner
    if op == "Einsum":
        return int(spec.attr("macs", 0))
    if op in ("LSTM", "GRU", "RNN"):
        steps = prod(spec.in_shapes[0][:-1])
        return steps * int(spec.attr("macs_per_step", 0))
    return 0


def node_activation_bytes(spec: NodeSpec) -> int:
    """Bytes of the output tensor in float32."""
    return prod(spec.out_shape) * BYTES_PER_VALUE
