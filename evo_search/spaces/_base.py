"""What every search space can do. This file knows no particular space, and neither it nor a space may import torch.

A genome is a small frozen, hashable value. A space is immutable and holds no random state: every random choice takes
an explicit ``numpy.random.Generator``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from cg.errors import CGError

if TYPE_CHECKING:
    import torch

    from cg.cells import Cell
    from cg.graph import Graph

G = TypeVar("G", bound=Hashable)
T = TypeVar("T")


class SearchSpace(ABC, Generic[G]):
    """A set of genomes, each of which is one network.

    Class attributes:
        name: the name in ``list_spaces()``.
        family: label for grouping graphs that look alike (contrastive families); several spaces may share one.
        input_shape: shape of one input tensor, batch 1 first; the largest one where the genome chooses it.
        num_classes: width of the output layer.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    input_shape: ClassVar[tuple[int, int, int, int]] = (1, 3, 32, 32)
    num_classes: ClassVar[int] = 10

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> G:
        """A random valid genome; the class says from which distribution."""

    @abstractmethod
    def mutate(self, a: G, rng: np.random.Generator) -> G:
        """A valid genome, different from the valid genome ``a`` and one edit away from it."""

    @abstractmethod
    def crossover(self, a: G, b: G, rng: np.random.Generator) -> G:
        """A valid genome made of parts of the valid genomes ``a`` and ``b``; a parent if nothing else is found."""

    @abstractmethod
    def why_invalid(self, a: G) -> str:
        """The first rule of the space that ``a`` breaks, in words; the empty string if it is valid."""

    def is_valid(self, a: G) -> bool:
        """Whether ``a`` is a network of this space."""
        return not self.why_invalid(a)

    def check(self, a: G) -> None:
        """Raise ``CGError`` with the broken rule unless ``a`` is valid."""
        reason = self.why_invalid(a)
        if reason:
            raise CGError(f"{self.name}: {a!r} is not a valid network: {reason}")

    @abstractmethod
    def encode(self, a: G) -> str:
        """One-line text of ``a``; ``decode`` is its inverse."""

    @abstractmethod
    def decode(self, text: str) -> G:
        """The genome that ``text`` writes. Raises ``CGError`` naming the bad part; does not require validity."""

    def key(self, a: G) -> str:
        """Text that is equal for genomes which are the same network, so that a search queries it once."""
        return self.encode(a)

    @abstractmethod
    def native(self, a: G) -> np.ndarray:
        """The space's own one-hot encoding, float32 ``[width]`` with the same width for every genome."""

    def cell(self, a: G) -> Cell:
        """``a`` as a graph of the space's own operations, for predictors that read cells."""
        raise CGError(f"{self.name} has no cells; use to_graph")

    def choices(self) -> tuple[int, ...]:
        """How many options each choice has, for strategies that write a genome as a list of choices of one length."""
        raise CGError(f"{self.name} does not write its genomes as a list of choices, each with a fixed number of options")

    def from_choices(self, options: Sequence[int]) -> G:
        """The genome that takes option ``options[i]`` of choice ``i``; it may be invalid."""
        raise CGError(f"{self.name} does not write its genomes as a list of choices, each with a fixed number of options")

    def to_choices(self, a: G) -> tuple[int, ...]:
        """The choices that make the valid genome ``a``, -1 where a choice means nothing for it."""
        raise CGError(f"{self.name} does not write its genomes as a list of choices, each with a fixed number of options")

    def count_params(self, a: G) -> int:
        """Trained scalars of ``to_torch(a)``: the number that the benchmark publishes. Built-in spaces have a closed form."""
        return self.to_graph(a).params

    def node_counts(self) -> dict[str, int]:
        """Graph nodes that one use of each operation makes; joins (Add, Concat) are not counted."""
        raise CGError(f"{self.name} does not say how many nodes its operations make")

    @abstractmethod
    def to_graph(self, a: G) -> Graph:
        """The computation graph of the valid genome ``a``, built directly (no torch, no tracing)."""

    def input_shape_of(self, a: G) -> tuple[int, int, int, int]:
        """Shape of one input tensor of the network ``a``: ``input_shape`` unless the genome chooses a resolution."""
        return self.input_shape

    @abstractmethod
    def to_torch(self, a: G) -> torch.nn.Module:
        """The network of the valid genome ``a``: maps ``[B, *input_shape_of(a)[1:]]`` to logits ``[B, num_classes]``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def one_of(options: list[T], rng: np.random.Generator) -> T:
    """One of ``options``, uniformly."""
    return options[int(rng.integers(len(options)))]


def nodes_of(block: Callable[..., int], *args: object) -> int:
    """How many graph nodes ``block(builder, x, *args)`` makes out of a value ``x`` of shape (1, 16, 8, 8)."""
    from cg.builder import GraphBuilder

    b = GraphBuilder()
    return b.build(block(b, b.input((1, 16, 8, 8)), *args)).n_nodes - 1
