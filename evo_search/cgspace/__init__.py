"""Search around one network: ``CGSpace``, and the edits of graphs that it is made of.

``net`` (a graph with lasting labels), ``ties`` and ``views`` (widths that must agree), ``dims`` (operator by operator),
``regions`` (blocks), ``layer_edits`` and ``graph_edits``, ``edits`` (by name), ``space``. Must not import torch.
"""

from __future__ import annotations

from evo_search.cgspace.edits import EDITS, edited
from evo_search.cgspace.net import Refused
from evo_search.cgspace.space import CGSpace, GenomeCG

__all__ = ["EDITS", "CGSpace", "GenomeCG", "Refused", "edited"]
