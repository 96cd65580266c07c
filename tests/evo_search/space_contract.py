"""What every search space must do, as checks of one space: the built-in ones, and the one that docs/spaces.md writes.

Used by the tests of spaces; not a test itself.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from cg.errors import CGError
from evo_search.spaces import SearchSpace


def meta_net(space: SearchSpace, a: object):
    import torch

    with torch.device("meta"):
        return space.to_torch(a).eval()


def n_params(net) -> int:
    return sum(p.numel() for p in net.parameters())


def genomes_survive_text_and_pickle(space: SearchSpace, rng: np.random.Generator) -> None:
    for _ in range(200):
        a = space.sample(rng)
        assert space.is_valid(a)
        assert space.decode(space.encode(a)) == a
        assert hash(pickle.loads(pickle.dumps(a))) == hash(a)
    assert type(pickle.loads(pickle.dumps(space))) is type(space)


def same_seed_gives_same_genomes(space: SearchSpace) -> None:
    def run(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        a, b = space.sample(rng), space.sample(rng)
        return [space.encode(v) for v in (a, b, space.mutate(a, rng), space.crossover(a, b, rng))]

    assert run(3) == run(3)
    assert run(3) != run(4)


def edits_give_valid_genomes(space: SearchSpace, rng: np.random.Generator) -> None:
    """Mutants differ from their parent; some children from both of theirs; all are drawn from more than one."""
    mutants, new = set(), 0
    for _ in range(100):
        a, b = space.sample(rng), space.sample(rng)
        mutant, child = space.mutate(a, rng), space.crossover(a, b, rng)
        assert mutant != a
        assert space.is_valid(mutant)
        assert space.is_valid(child)
        assert space.crossover(a, a, rng) == a
        mutants.add(space.encode(mutant))
        new += child not in (a, b)
    assert len(mutants) > 90
    assert new > 50


def native_rows_tell_networks_apart(space: SearchSpace, rng: np.random.Generator) -> None:
    genomes = [space.sample(rng) for _ in range(200)]
    rows = np.stack([space.native(a) for a in genomes])
    assert rows.dtype == np.float32
    assert len(np.unique(rows, axis=0)) == len({space.key(a) for a in genomes})


def trace_equals_build(space: SearchSpace, count: int, rng: np.random.Generator) -> None:
    """Law 3, and the parameters of the module."""
    import torch

    from extract import from_torch

    for _ in range(count):
        a = space.sample(rng)
        net, x = meta_net(space, a), torch.empty(space.input_shape_of(a), device="meta")
        assert from_torch(net, x).graph == space.to_graph(a), space.encode(a)
        assert n_params(net) == space.count_params(a)


def refuses(space: SearchSpace, genome: object, message: str) -> None:
    """Edits and builders raise for what is invalid, with the broken rule."""
    assert not space.is_valid(genome)
    for use in (space.to_graph, space.to_torch, lambda a: space.mutate(a, np.random.default_rng(0))):
        with pytest.raises(CGError, match=message):
            use(genome)
