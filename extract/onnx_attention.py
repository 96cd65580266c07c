"""ONNX attention and rotary positions (version 23 on) as torch calls. See ``onnx_layers`` for what a handler is."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extract.onnx_node import Call, meta


def attention(call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, past_key: Tensor | None = None,
              past_value: Tensor | None = None, *rest: Any) -> Any:
    """Attention of version 23: heads are split from tensors of three axes; past keys and values are joined on."""
    flat = q.ndim == 3
    heads, kv_heads = call.integer("q_num_heads", 0), call.integer("kv_num_heads", 0)
    if flat:
        if heads < 1 or kv_heads < 1:
            raise call.fail("inputs of three axes need the attributes q_num_heads and kv_num_heads")
        q, k, v = (t.reshape(*t.shape[:2], n, -1).transpose(1, 2) for t, n in ((q, heads), (k, kv_heads), (v, kv_heads)))
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    scale = call.real("scale", 0.0) or 1 / sqrt(q.shape[-1])
    grouped = q.shape[1] != k.shape[1]
    if mask is not None and mask.shape[-1] < k.shape[-2]:  # keys behind the end of the mask are not seen
        mask = F.pad(mask, (0, k.shape[-2] - mask.shape[-1]), value=0 if mask.dtype is torch.bool else float("-inf"))
    cap, causal = call.real("softcap", 0.0), bool(call.integer("is_causal", 0))
    if cap or call.n_outputs > 3 or (causal and mask is not None):
        if grouped:
            k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
        scores = torch.matmul(q, k.transpose(-1, -2)) * scale
        scores = torch.tanh(scores / cap) * cap if cap else scores
        if mask is not None:
            scores = torch.where(mask, scores, float("-inf")) if mask.dtype is torch.bool else scores + mask
        if causal:
            scores = scores + torch.empty(scores.shape[-2:], device="meta")
        y = torch.matmul(torch.softmax(scores, -1), v)
    else:
        scores = q
        y = F.scaled_dot_product_attention(q, k, v, None if mask is None else meta(mask), 0.0,
                                           causal, scale=scale, enable_gqa=grouped)
    if flat:
        y = y.transpose(1, 2).flatten(2)
    return (y, k, v, scores)


def rotary(call: Call, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
    """RotaryEmbedding of version 23. Source: arXiv 2104.09864."""
    flat = x.ndim == 3
    if flat:
        heads = call.integer("num_heads")
        x = x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)
    if positions is not None:
        cos, sin = F.embedding(positions, cos), F.embedding(positions, sin)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    width = call.integer("rotary_embedding_dim", 0) or x.shape[-1]
    rotated, rest = x[..., :width], x[..., width:]
    if call.integer("interleaved", 0):
        a, b = rotated[..., 0::2], rotated[..., 1::2]
        parts: Sequence[Tensor] = (a * cos - b * sin, a * sin + b * cos)
        y = torch.stack(list(parts), -1).flatten(-2)
    else:
        a, b = rotated.chunk(2, -1)
        y = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
    if width != x.shape[-1]:
        y = torch.cat([y, rest], -1)
    return y.transpose(1, 2).flatten(2) if flat else y
