"""Law 1 across frameworks: networks of keras.applications and the same networks in PyTorch have one fingerprint.

Where the two published networks really differ, the PyTorch one is changed in exactly that, and the table says in what.
Both sides are built without weights and at their published input size, Keras' without its softmax at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import MethodType
from typing import Any

import pytest

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
if find_spec("timm") is None or find_spec("torchvision") is None:
    pytest.skip("needs timm and torchvision", allow_module_level=True)

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from extract import from_tensorflow, from_torch  # noqa: E402
from extract.comparison import difference  # noqa: E402
from extract.zoo import import_torchvision  # noqa: E402

pytestmark = pytest.mark.slow


def torchvision(name: str, **settings: Any) -> Any:
    return getattr(import_torchvision().models, name)(weights=None, **settings)


def timm(name: str, **settings: Any) -> Any:
    import_torchvision()
    import timm as library

    return library.create_model(name, **settings)


# ---- real differences -------------------------------------------------------------------------------------------


def padded_like_tensorflow(model: nn.Module, size: int) -> nn.Module:
    """Each convolution of stride 2 pads below and right only, as 'SAME' does at even sizes."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and module.kernel_size != (1, 1):
            total = module.kernel_size[0] - 2
            before = total // 2
            module.padding = (0, 0)
            pad = (before, total - before, before, total - before)
            module.forward = MethodType(_pad_first(pad), module)  # type: ignore[method-assign]
    return model


def _pad_first(pad: tuple[int, ...]) -> Callable[..., Any]:
    return lambda self, x: F.conv2d(F.pad(x, pad), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def resnet_v1(name: str) -> nn.Module:
    """Keras: every convolution has a bias, and the stride of a block is in its first 1x1 convolution, not in the 3x3."""
    model = torchvision(name)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
        if hasattr(module, "conv3") and hasattr(module, "conv1"):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    return model


def densenet(name: str) -> nn.Module:
    """Keras: features are joined in pairs, each layer's to all before it; torchvision joins all of them anew for each layer."""
    model = torchvision(name)
    for module in model.features:
        if isinstance(module, nn.ModuleDict):
            module.forward = MethodType(_joined_in_pairs, module)  # type: ignore[method-assign]
    return model


def _joined_in_pairs(self: Any, x: Any) -> Any:
    for layer in self.values():
        x = torch.cat([x, layer(x)], 1)
    return x


def xception() -> nn.Module:
    """Keras: the pool at 74 pixels pads below and right only."""
    model = timm("legacy_xception")
    model.block2.rep[-1] = nn.MaxPool2d(3, 2, 0, ceil_mode=True)
    return model


def inception_v3() -> nn.Module:
    """Keras: batch normalisation without scale; average pools do not count the padding."""
    model = torchvision("inception_v3", aux_logits=False, init_weights=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            scale = module._parameters.pop("weight")
            module.register_buffer("weight", scale.detach())
    return Uncounted(model)


class Uncounted(nn.Module):
    """Runs a model whose calls of ``F.avg_pool2d`` leave the padding out of the mean."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        real = F.avg_pool2d
        F.avg_pool2d = lambda x, kernel_size, stride, padding: real(  # type: ignore[assignment]
            x, kernel_size, stride, padding, count_include_pad=False)
        try:
            return self.model(x)
        finally:
            F.avg_pool2d = real


class Normalised(nn.Module):
    """Keras: the network begins with ``(x / 255 - mean) / deviation``."""

    def __init__(self, model: nn.Module, rescale: bool = True) -> None:
        super().__init__()
        self.model, self.rescale = model, rescale
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("deviation", torch.ones(1, 3, 1, 1))

    def forward(self, x: Any) -> Any:
        x = x * (1 / 255) if self.rescale else x
        return self.model((x - self.mean) / self.deviation)


def convnext(name: str) -> nn.Module:
    """Keras: the last normalisation sees vectors, not images of one pixel; the scale of a block has a batch axis here."""
    model = torchvision(name)
    for module in model.modules():
        if hasattr(module, "layer_scale"):
            module.layer_scale = nn.Parameter(module.layer_scale[None])
    _, flatten, linear = model.classifier
    plain = nn.LayerNorm(linear.in_features)
    model.classifier = nn.Sequential(flatten, plain, linear)
    return model


def mobilenet_v3(name: str) -> nn.Module:
    """Keras: the classifier is a 1x1 convolution."""
    model = timm(name)
    linear = model.classifier
    model.classifier = nn.Identity()
    model.flatten = nn.Identity()
    return nn.Sequential(model, nn.Conv2d(linear.in_features, linear.out_features, 1), nn.Flatten())


# Keras name, its settings, input size, the network in PyTorch, what was changed in it
PAIRS: list[tuple[str, dict[str, Any], int, Callable[[], Any], str]] = [
    ("VGG16", {}, 224, lambda: torchvision("vgg16"), ""),
    ("VGG19", {}, 224, lambda: torchvision("vgg19"), ""),
    ("ResNet50", {}, 224, lambda: resnet_v1("resnet50"), "biases of convolutions, place of the stride"),
    ("ResNet101", {}, 224, lambda: resnet_v1("resnet101"), "biases of convolutions, place of the stride"),
    ("ResNet152", {}, 224, lambda: resnet_v1("resnet152"), "biases of convolutions, place of the stride"),
    ("DenseNet121", {}, 224, lambda: densenet("densenet121"), "features joined in pairs"),
    ("DenseNet169", {}, 224, lambda: densenet("densenet169"), "features joined in pairs"),
    ("DenseNet201", {}, 224, lambda: densenet("densenet201"), "features joined in pairs"),
    ("MobileNetV2", {}, 224, lambda: padded_like_tensorflow(torchvision("mobilenet_v2"), 224), "padding at stride 2"),
    ("Xception", {}, 299, xception, "padding of one pool"),
    ("InceptionV3", {}, 299, inception_v3, "no scale in batch normalisation, mean over the padding"),
    ("EfficientNetB0", {}, 224, lambda: Normalised(timm("tf_efficientnet_b0")), "normalisation of the input"),
    ("EfficientNetB1", {}, 240, lambda: Normalised(timm("tf_efficientnet_b1")), "normalisation of the input"),
    ("EfficientNetV2B0", {"include_preprocessing": False}, 224, lambda: timm("tf_efficientnetv2_b0"), ""),
    ("EfficientNetV2S", {"include_preprocessing": False}, 384, lambda: timm("tf_efficientnetv2_s"), ""),
    ("ConvNeXtTiny", {"include_preprocessing": False}, 224, lambda: convnext("convnext_tiny"), "shapes at the last norm"),
    ("ConvNeXtBase", {"include_preprocessing": False}, 224, lambda: convnext("convnext_base"), "shapes at the last norm"),
    ("MobileNetV3Large", {"include_preprocessing": False, "input_shape": (224, 224, 3)}, 224,
     lambda: mobilenet_v3("tf_mobilenetv3_large_100"), "the classifier is a convolution"),
    ("MobileNetV3Small", {"include_preprocessing": False, "input_shape": (224, 224, 3)}, 224,
     lambda: mobilenet_v3("tf_mobilenetv3_small_100"), "the classifier is a convolution"),
]


@pytest.mark.parametrize(("name", "settings", "size", "build", "changed"), PAIRS, ids=[p[0] for p in PAIRS])
def test_same_network(name: str, settings: dict[str, Any], size: int, build: Callable[[], Any], changed: str) -> None:
    builder = getattr(keras.applications, name)
    ours = from_tensorflow(lambda: builder(weights=None, classifier_activation=None, **settings)).graph
    theirs = from_torch(build, (1, 3, size, size)).graph
    assert difference(ours, theirs) is None
