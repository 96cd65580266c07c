"""The rivals that every result stands beside, each a scikit-learn regressor over graphs or cells.

``fit(networks, y)``, ``predict(networks)``; ``networks`` are ``cg.Graph`` (any computation graph) or ``cg.Cell`` (the form in
which a search space, and most of the papers, write a network). See ``docs/rivals.md`` for what each one is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "CostScore": "simple", "RandomScore": "simple", "TreesOnStatistics": "simple",
    "GATES": "pairs", "LSTMPredictor": "pairs", "MLPPredictor": "pairs", "NeuralPredictor": "neural_predictor",
    "GNNPredictor": "gnn", "NativeEncoding": "native", "ProxyForest": "forests", "RandomForestPredictor": "forests",
    "BRPBinaryRelation": "brp", "BRPLatencyGCN": "brp", "FlopsLatency": "latency", "LayerwiseLatency": "latency",
}
__all__ = ["GATES", "BRPBinaryRelation", "BRPLatencyGCN", "CostScore", "FlopsLatency", "GNNPredictor", "LSTMPredictor",
           "LayerwiseLatency", "MLPPredictor", "NativeEncoding", "NeuralPredictor", "ProxyForest", "RandomForestPredictor",
           "RandomScore", "TreesOnStatistics"]

if TYPE_CHECKING:
    from finetune.baselines.brp import BRPBinaryRelation, BRPLatencyGCN
    from finetune.baselines.forests import ProxyForest, RandomForestPredictor
    from finetune.baselines.gnn import GNNPredictor
    from finetune.baselines.latency import FlopsLatency, LayerwiseLatency
    from finetune.baselines.native import NativeEncoding
    from finetune.baselines.neural_predictor import NeuralPredictor
    from finetune.baselines.pairs import GATES, LSTMPredictor, MLPPredictor
    from finetune.baselines.simple import CostScore, RandomScore, TreesOnStatistics


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'finetune.baselines' has no attribute {name!r}")
    value = getattr(import_module(f"finetune.baselines.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
