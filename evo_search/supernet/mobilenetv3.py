"""``OFAMobileNetV3Supernet``: one set of weights for all sub-networks of the space ``ofa-mbv3``.

    net = OFAMobileNetV3Supernet.from_checkpoint("ofa_mbv3_d234_e346_k357_w1.0")
    small = net.subnet(genome)         # a plain torch module with weights of its own
    net.active(genome)(images)         # the same outputs, computed with the shared weights

Architecture: Cai et al., arXiv 1908.09791, as ``evo_search.spaces.ofa`` describes it. Names and shapes of the weights: files
``ofa/imagenet_classification/elastic_nn/{networks/ofa_mbv3.py,modules/dynamic_layers.py,modules/dynamic_op.py}`` of
mit-han-lab/once-for-all (MIT).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cg.errors import CGError, StorageError
from evo_search.ofa import EXPANDS, KERNELS, MAX_DEPTH, SubNet
from evo_search.spaces._mbconv import HSWISH, Plan
from evo_search.spaces._nets.mbconv import MBConvNet, ResidualBlock, conv_bn_act
from evo_search.spaces.ofa import OFAMobileNetV3, OFAMobileNetV3Wide, OFASpace
from evo_search.supernet._elastic import ElasticBlock, ElasticMBConv
from evo_search.supernet.checkpoints import fitted, read_checkpoint

SPACES: Mapping[float, type[OFASpace]] = {1.0: OFAMobileNetV3, 1.2: OFAMobileNetV3Wide}
STAGES = 5
LARGEST = SubNet((max(KERNELS),) * STAGES * MAX_DEPTH, (max(EXPANDS),) * STAGES * MAX_DEPTH, (MAX_DEPTH,) * STAGES, 224)
"""The sub-network that uses all weights."""


class OFAMobileNetV3Supernet(nn.Module):
    """``[B, 3, r, r]`` -> logits ``[B, num_classes]``, for any r of at least 32, with a sub-network of choice.

    It keeps no choice: ``forward`` takes the genome with the images, so threads may share one supernet.

    Args:
        width: 1.0 or 1.2, as in the names of the official weights.
        num_classes: outputs of the classifier; 1000 in the official weights.

    Attributes:
        space: the search space of its genomes, ``ofa-mbv3`` or ``ofa-mbv3-w12``.

    Raises ``CGError`` for another width.
    """

    def __init__(self, width: float = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        if width not in SPACES:
            raise CGError(f"width must be one of {', '.join(map(str, SPACES))}, got {width!r}")
        if num_classes < 1:
            raise CGError(f"num_classes must be 1 or more, got {num_classes!r}")
        self.width, self.num_classes, self.space = float(width), int(num_classes), SPACES[width]()
        plan = self._plan(LARGEST)
        eps = plan.bn_eps
        self.first_conv = conv_bn_act(3, plan.stem, 3, 2, act=plan.act, eps=eps)
        self.blocks = nn.ModuleList([ResidualBlock(plan.blocks[0], eps), *(ElasticBlock(b, eps) for b in plan.blocks[1:])])
        self.final_expand_layer = conv_bn_act(plan.blocks[-1].c_out, plan.expand, act=HSWISH, eps=eps)
        self.global_avg_pool = nn.AdaptiveAvgPool2d(1)
        self.feature_mix_layer = conv_bn_act(plan.expand, plan.features, act=HSWISH, bn=False)
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(plan.features, num_classes)))

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> OFAMobileNetV3Supernet:
        """The supernet of a file of official weights, in eval mode; width and classes are read off its shapes.

        Args:
            path: what ``read_checkpoint`` reads: a pickled torch file (read without running code from it) or safetensors.

        Raises:
            StorageError: the file cannot be read, or its tensors are not those of such a supernet; names them.
        """
        state = read_checkpoint(path)
        try:
            return cls._from_state(state)
        except CGError as error:
            raise StorageError(f"checkpoint {path}: {error}") from None

    @classmethod
    def _from_state(cls, state: Mapping[str, Tensor]) -> OFAMobileNetV3Supernet:
        sizes = {name.removeprefix("module."): tuple(t.shape) for name, t in state.items()}
        stem, linear = sizes.get("first_conv.conv.weight"), sizes.get("classifier.linear.weight")
        stems = {space()._plan(LARGEST).stem: width for width, space in SPACES.items()}
        width = stems.get(stem[0], 1.0) if stem else 1.0
        with torch.device("meta"):
            net = cls(width, linear[0] if linear else 1000)
        net.load_official(state, assign=True)
        return net.eval()

    def load_official(self, state: Mapping[str, Tensor], assign: bool = False) -> None:
        """Load a state dict by the official names; see ``checkpoints.fitted`` for the spellings that are understood.

        Args:
            state: name -> tensor; all of them, and no others.
            assign: use copies of the tensors (float32) as weights; by default their values are written into those that are
                there.

        Raises ``CGError`` naming tensors that are missing, not wanted, of another shape or not finite.
        """
        self.load_state_dict(fitted(state, {k: tuple(v.shape) for k, v in self.state_dict().items()}), assign=assign)

    def _plan(self, a: SubNet) -> Plan:
        return self.space._plan(a)._replace(num_classes=self.num_classes)

    def _genome(self, genome: SubNet | str) -> SubNet:
        a = SubNet.parse(genome) if isinstance(genome, str) else genome
        self.space.check(a)
        return a

    def forward(self, x: Tensor, genome: SubNet | str | None = None) -> Tensor:
        """Logits of the sub-network ``genome``, of the largest one without; its resolution is not looked at."""
        a = LARGEST if genome is None else self._genome(genome)
        x = self.blocks[0](self.first_conv(x))
        for stage, place, kernel, expand in a.blocks():
            x = self.blocks[1 + MAX_DEPTH * stage + place](x, kernel, expand)
        x = self.feature_mix_layer(self.global_avg_pool(self.final_expand_layer(x)))
        out: Tensor = self.classifier(x.flatten(1))
        return out

    def active(self, genome: SubNet | str) -> Callable[[Tensor], Tensor]:
        """``images -> logits`` of one sub-network, computed with the supernet's own weights (gradients reach them)."""
        return partial(self, genome=self._genome(genome))

    def subnet(self, genome: SubNet | str) -> MBConvNet:
        """The sub-network alone: the module of ``space.to_torch`` with copies of the weights that are its own.

        In eval mode it gives the outputs of ``active(genome)``. Batch-norm statistics are those of the supernet, which were
        measured on other sub-networks: recalibrate before its accuracy is looked at. Raises ``CGError`` for a genome that is
        not of this space.
        """
        a = self._genome(genome)
        state: dict[str, Tensor] = {}
        for name in ("first_conv", "final_expand_layer", "feature_mix_layer", "classifier"):
            state |= {f"{name}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        state |= {f"blocks.0.{k}": v for k, v in self.blocks[0].state_dict().items()}
        for i, (stage, place, kernel, expand) in enumerate(a.blocks(), 1):
            conv = self.blocks[1 + MAX_DEPTH * stage + place].get_submodule("conv")
            assert isinstance(conv, ElasticMBConv)
            state |= {f"blocks.{i}.conv.{k}": v for k, v in conv.part(kernel, expand).items()}
        with torch.device("meta"):
            net = MBConvNet(self._plan(a))
        net.load_state_dict({k: v.detach().clone() for k, v in state.items()}, assign=True)
        return net.eval()

    def digest(self) -> str:
        """16 hex digits: a hash of all weights and statistics, the same for every container they were read from."""
        hashed = hashlib.blake2b(digest_size=8)
        for name, t in sorted(self.state_dict().items()):
            if not name.endswith("num_batches_tracked"):
                hashed.update(name.encode())
                hashed.update(t.detach().cpu().float().contiguous().numpy().tobytes())
        return hashed.hexdigest()

    def extra_repr(self) -> str:
        return f"width={self.width}, num_classes={self.num_classes}"
