"""The Once-for-All supernet: official names and shapes, sub-networks against the supernet, statistics, accuracy, the oracle.

Names, shapes and slices are written out here after the files of mit-han-lab/once-for-all, not taken from the code under test.
"""

from __future__ import annotations

import math
import pickle
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cg.errors import CGError, StorageError
from evo_search import Study, get_space, get_strategy
from evo_search.ofa import SubNet
from evo_search.oracles import EvaluationFailed, Oracle, OracleError
from evo_search.supernet import (
    ImageFolder,
    OFAMobileNetV3Supernet,
    SupernetOracle,
    evaluate,
    read_checkpoint,
    recalibrate,
    supernet_oracle,
    top1,
)

CHANNELS = {1.0: (16, 16, 24, 40, 80, 112, 160, 960, 1280), 1.2: (24, 24, 32, 48, 96, 136, 192, 1152, 1536)}
SE = (False, True, False, True, True)  # of the five stages
SMALL = SubNet.of([3] * 20, [3] * 20, [2] * 5, 128)


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{k}": (channels,) for k in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()}


def eighths(channels: float) -> int:
    """Multiple of 8 nearest to a number that is far from the limits of the official rule."""
    return max(8, int(channels + 4) // 8 * 8)


def official_shapes(width: float, classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Names and shapes of ``ofa_mbv3_d234_e346_k357_w1.0`` and ``_w1.2`` as the released files spell them."""
    stem, first, *stages, expand, features = CHANNELS[width]
    out: dict[str, tuple[int, ...]] = {"first_conv.conv.weight": (stem, 3, 3, 3)} | norm_shapes("first_conv.bn", stem)
    name = "blocks.0.mobile_inverted_conv"
    out |= {f"{name}.depth_conv.conv.weight": (stem, 1, 3, 3)} | norm_shapes(f"{name}.depth_conv.bn", stem)
    out |= {f"{name}.point_linear.conv.weight": (first, stem, 1, 1)} | norm_shapes(f"{name}.point_linear.bn", first)
    c_in = first
    for s, c in enumerate(stages):
        for j in range(4):
            name, mid = f"blocks.{1 + 4 * s + j}.mobile_inverted_conv", 6 * c_in
            out |= {f"{name}.inverted_bottleneck.conv.conv.weight": (mid, c_in, 1, 1)}
            out |= norm_shapes(f"{name}.inverted_bottleneck.bn.bn", mid)
            out |= {f"{name}.depth_conv.conv.conv.weight": (mid, 1, 7, 7), f"{name}.depth_conv.conv.7to5_matrix": (25, 25),
                    f"{name}.depth_conv.conv.5to3_matrix": (9, 9)} | norm_shapes(f"{name}.depth_conv.bn.bn", mid)
            if SE[s]:
                hidden = eighths(mid // 4)
                out |= {f"{name}.depth_conv.se.fc.reduce.weight": (hidden, mid, 1, 1),
                        f"{name}.depth_conv.se.fc.reduce.bias": (hidden,),
                        f"{name}.depth_conv.se.fc.expand.weight": (mid, hidden, 1, 1),
                        f"{name}.depth_conv.se.fc.expand.bias": (mid,)}
            out |= {f"{name}.point_linear.conv.conv.weight": (c, mid, 1, 1)} | norm_shapes(f"{name}.point_linear.bn.bn", c)
            c_in = c
    out |= {"final_expand_layer.conv.weight": (expand, c_in, 1, 1)} | norm_shapes("final_expand_layer.bn", expand)
    return out | {"feature_mix_layer.conv.weight": (features, expand, 1, 1), "classifier.linear.weight": (classes, features),
                  "classifier.linear.bias": (classes,)}


def random_state(width: float, classes: int = 1000, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in official_shapes(width, classes).items():
        t = torch.randn(shape, generator=g)
        if name.endswith("num_batches_tracked"):
            t = torch.tensor(7)
        elif name.endswith("running_var"):
            t = 0.5 + t.abs()
        elif "bn." in name and name.endswith("weight"):
            t = 1 + 0.2 * t
        elif name.endswith("matrix"):
            t = torch.eye(shape[0]) + 0.1 * t
        elif len(shape) > 1:
            t = t / math.sqrt(math.prod(shape[1:]))
        state[name] = t
    return state


@pytest.fixture(scope="module")
def states() -> dict[float, dict[str, torch.Tensor]]:
    return {width: random_state(width) for width in CHANNELS}


@pytest.fixture(scope="module")
def small_file(tmp_path_factory) -> Path:
    """A checkpoint of width 1.0 and 3 classes, as the official code saves it."""
    path = tmp_path_factory.mktemp("weights") / "ofa_mbv3_d234_e346_k357_w1.0"
    torch.save({"state_dict": random_state(1.0, 3), "epoch": 4, "best_acc": 0.5}, path, _use_new_zipfile_serialization=False)
    return path


def loaded(state: dict[str, torch.Tensor], width: float) -> OFAMobileNetV3Supernet:
    with torch.device("meta"):
        net = OFAMobileNetV3Supernet(width, len(state["classifier.linear.bias"]))
    net.load_official(state, assign=True)
    return net.eval()


# ---- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", list(CHANNELS))
def test_official_names_and_shapes_load_strictly(width: float, states) -> None:
    """Besides the parameters of the largest sub-network the supernet has 20 matrices of 25 x 25 and of 9 x 9."""
    state = states[width]
    assert len(state) == 475
    params = sum(math.prod(s) for k, s in official_shapes(width).items() if "running" not in k and "tracked" not in k)
    net = loaded(state, width)
    assert sum(p.numel() for p in net.parameters()) == params
    assert get_space(net.space.name).count_params(SubNet((7,) * 20, (6,) * 20, (4,) * 5, 224)) == params - 20 * (625 + 81)
    got = net.state_dict()
    for name, t in state.items():
        assert torch.equal(got[name.replace("mobile_inverted_conv", "conv")], t), name


def test_files_and_spellings_give_the_same_supernet(tmp_path, small_file) -> None:
    from safetensors.torch import save_file

    state = random_state(1.0, 3)
    first = OFAMobileNetV3Supernet.from_checkpoint(small_file)
    assert (first.width, first.num_classes, first.training) == (1.0, 3, False)
    later = {"module." + k.replace("mobile_inverted_conv", "conv"): v for k, v in state.items()}
    torch.save(later, tmp_path / "later.pth")
    bare = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    save_file(bare, tmp_path / "w.safetensors")
    (tmp_path / "no_suffix").write_bytes((tmp_path / "w.safetensors").read_bytes())
    for name in ("later.pth", "w.safetensors", "no_suffix"):
        assert OFAMobileNetV3Supernet.from_checkpoint(tmp_path / name).digest() == first.digest(), name
    state["classifier.linear.bias"][0] += 1
    assert loaded(state, 1.0).digest() != first.digest()
    into = OFAMobileNetV3Supernet(1.0, 3)
    into.load_official(random_state(1.0, 3))
    assert into.digest() == first.digest()


def test_what_does_not_fit_is_named(tmp_path, states, small_file) -> None:
    state = random_state(1.0, 3)
    del state["blocks.7.mobile_inverted_conv.depth_conv.conv.7to5_matrix"], state["classifier.linear.bias"]
    state["blocks.21.mobile_inverted_conv.x"] = torch.zeros(1)
    torch.save(state, tmp_path / "holes")
    said = (r"holes: tensors do not fit .* missing: 2 \(blocks\.7\.mobile_inverted_conv\.depth_conv\.conv\.7to5_matrix, "
            r"classifier\.linear\.bias\); unexpected: 1 \(blocks\.21\.mobile_inverted_conv\.x\)")
    with pytest.raises(StorageError, match=said):
        OFAMobileNetV3Supernet.from_checkpoint(tmp_path / "holes")
    with torch.device("meta"):
        net = OFAMobileNetV3Supernet(1.2)
    with pytest.raises(CGError, match=r"first_conv\.conv\.weight has shape \[16, 3, 3, 3\], must be \[24, 3, 3, 3\]"):
        net.load_official(states[1.0])
    name = "blocks.3.mobile_inverted_conv.point_linear.bn.bn.running_var"
    with pytest.raises(CGError, match=f"{name} holds values that are not finite"):
        loaded({**states[1.0], name: torch.full((24,), torch.nan)}, 1.0)
    with pytest.raises(CGError, match=r"blocks\.3\.conv\.point_linear.* is in the state dict twice"):
        loaded({**states[1.0], name.replace("mobile_inverted_conv", "conv"): torch.ones(24)}, 1.0)
    with pytest.raises(CGError, match=r"width must be one of 1\.0, 1\.2, got 1\.1"):
        OFAMobileNetV3Supernet(1.1)


def test_files_that_are_no_weights_are_one_clear_error_and_run_nothing(tmp_path) -> None:
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful")
    with pytest.raises(StorageError, match=r"harmful holds more than tensors .* not loaded"):
        read_checkpoint(tmp_path / "harmful")
    assert not (tmp_path / "touched").exists()
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("weights")
    torch.save([1, 2], tmp_path / "list")
    for name in ("cut.safetensors", "empty", "text", "list", "nowhere"):
        with pytest.raises(StorageError, match=name):
            read_checkpoint(tmp_path / name)


# ---- sub-networks ------------------------------------------------------------------------------------------------


def expected_kernel(state: dict[str, torch.Tensor], name: str, kernel: int) -> np.ndarray:
    """Out of the kernel of 7: centre, row by row, times the matrix; by loops over its entries."""
    w = state[f"{name}.conv.weight"].double().numpy()[:, 0]
    for size in (5, 3):
        if kernel > size:
            break
        matrix = state[f"{name}.{size + 2}to{size}_matrix"].double().numpy()
        out = np.zeros((len(w), size, size))
        for i in range(size * size):
            for j in range(size * size):
                out[:, i // size, i % size] += matrix[i, j] * w[:, 1 + j // size, 1 + j % size]
        w = out
    return w


@pytest.mark.parametrize("width", list(CHANNELS))
def test_sub_networks_take_first_blocks_first_channels_and_transformed_kernels(width: float, states) -> None:
    state, net = states[width], loaded(states[width], width)
    a = net.space.sample(np.random.default_rng(4))
    assert {k for *_, k, _ in a.blocks()} == {3, 5, 7}
    assert {e for *_, e in a.blocks()} == {3, 4, 6}
    sub, widths = net.subnet(a), CHANNELS[width][1:7]
    assert len(sub.blocks) == 1 + sum(a.d)
    assert not sub.training
    for block, (s, j, kernel, expand) in zip(sub.blocks[1:], a.blocks(), strict=True):
        name, c_in, c_out = f"blocks.{1 + 4 * s + j}.mobile_inverted_conv", widths[s + (j > 0)], widths[s + 1]
        mid, got = c_in * expand, block.conv.state_dict()
        whole = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        assert torch.equal(got["inverted_bottleneck.conv.weight"], whole["inverted_bottleneck.conv.conv.weight"][:mid])
        assert torch.equal(got["point_linear.conv.weight"], whole["point_linear.conv.conv.weight"][:, :mid])
        for layer, channels in (("inverted_bottleneck", mid), ("depth_conv", mid), ("point_linear", c_out)):
            for part in ("weight", "bias", "running_mean", "running_var"):
                assert torch.equal(got[f"{layer}.bn.{part}"], whole[f"{layer}.bn.bn.{part}"][:channels])
        np.testing.assert_allclose(got["depth_conv.conv.weight"][:, 0],
                                   expected_kernel(whole, "depth_conv.conv", kernel)[:mid], atol=1e-5)
        assert ("depth_conv.se.fc.reduce.bias" in got) == SE[s]
        if SE[s]:
            hidden = eighths(mid // 4)
            for part, rows, columns in (("reduce", hidden, mid), ("expand", mid, hidden)):
                prefix = f"depth_conv.se.fc.{part}"
                assert torch.equal(got[f"{prefix}.weight"], whole[f"{prefix}.weight"][:rows, :columns])
                assert torch.equal(got[f"{prefix}.bias"], whole[f"{prefix}.bias"][:rows])


def test_the_supernet_and_its_sub_networks_give_the_same_outputs(states) -> None:
    rng = np.random.default_rng(1)
    x = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    for width, state in states.items():
        net = loaded(state, width)
        genomes = [SMALL, *(net.space.sample(rng) for _ in range(2))]
        with torch.no_grad():
            outs = [net.active(a)(x) for a in genomes]
            for a, out in zip(genomes, outs, strict=True):
                assert torch.allclose(net.subnet(str(a))(x), out, rtol=0, atol=1e-5)
            net, a = net.double(), genomes[-1]
            assert torch.equal(net.active(a)(x.double()), net.subnet(a)(x.double()))
            assert (net.active(a)(x.double()).float() - outs[-1]).abs().max() < 1e-3 * outs[-1].std()
        assert min((p - q).abs().max() for p, q in pairwise(outs)) > 0.1 * outs[-1].std()


def test_a_sub_network_has_the_graph_of_the_space_and_weights_of_its_own(states) -> None:
    from extract import from_torch

    net = loaded(states[1.0], 1.0)
    a = net.space.sample(np.random.default_rng(5))
    sub = net.subnet(a)
    assert list(sub.state_dict()) == list(net.space.to_torch(a).state_dict())
    before = net.digest()
    with torch.no_grad():
        for t in sub.state_dict().values():
            t.zero_()
    assert net.digest() == before
    assert from_torch(sub.to("meta"), torch.empty(net.space.input_shape_of(a), device="meta")).graph == net.space.to_graph(a)
    with pytest.raises(CGError, match="it has 6 stages"):
        net.subnet(get_space("ofa-proxyless").sample(np.random.default_rng(0)))


def test_training_a_sub_network_reaches_its_shared_weights_alone(states) -> None:
    net = loaded(states[1.0], 1.0).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.active(SMALL)(torch.randn(2, 3, 32, 32)).square().sum().backward()
    conv = net.blocks[1].conv
    grad = conv.inverted_bottleneck["conv"].conv.weight.grad
    assert grad[:48].abs().min() > 0 or grad[:48].abs().sum() > 0
    assert grad[48:].abs().sum() == 0
    assert conv.depth_conv["conv"].get_parameter("5to3_matrix").grad.abs().sum() > 0
    assert net.blocks[3].conv.depth_conv["conv"].conv.weight.grad is None  # third block of a stage with two
    mean = "blocks.1.conv.depth_conv.bn.bn.running_mean"
    changed = net.state_dict()[mean] != before[mean]
    assert changed[:48].all()
    assert not changed[48:].any()


@pytest.mark.slow
@pytest.mark.parametrize("width", list(CHANNELS))
def test_names_outputs_and_statistics_are_those_of_the_official_package(width: float, states) -> None:
    from extract import zoo

    if find_spec("ofa") is None or find_spec("torchvision") is None:
        pytest.skip("the authors' package is not installed (pip install ofa)")
    zoo.import_torchvision()
    networks = pytest.importorskip("ofa.imagenet_classification.elastic_nn.networks")
    utils = pytest.importorskip("ofa.imagenet_classification.elastic_nn.utils")
    official = networks.OFAMobileNetV3(dropout_rate=0, width_mult=width, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6],
                                       depth_list=[2, 3, 4])
    shapes = {k.replace("mobile_inverted_conv", "conv"): s for k, s in official_shapes(width).items()}
    assert {k: tuple(v.shape) for k, v in official.state_dict().items()} == shapes
    official.load_state_dict(states[width])
    official, net, rng = official.double().eval(), loaded(states[width], width).double(), np.random.default_rng(3)
    x = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    for _ in range(3):
        a = net.space.sample(rng)
        official.set_active_subnet(ks=[k or 3 for k in a.ks], e=[e or 3 for e in a.e], d=list(a.d))
        theirs, ours = official.get_active_subnet().eval().double(), net.subnet(a)  # theirs went through float32
        for (name, t), other in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
            if t.ndim:
                torch.testing.assert_close(other, t, rtol=1e-5, atol=1e-6, msg=name)
        theirs.load_state_dict(ours.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(net.active(a)(x), official(x))
            utils.set_running_statistics(theirs, [(x[:4], 0), (x[4:], 0)])
            recalibrate(ours, [(x[:4], 0), (x[4:], 0)])
            torch.testing.assert_close(ours(x), theirs(x))
        for name, t in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], t, msg=name)


# ---- statistics and accuracy -------------------------------------------------------------------------------------


def test_recalibration_averages_the_batches_own_statistics() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.9), nn.Conv2d(4, 5, 1),
                        nn.BatchNorm2d(5))
    net.train()
    net[2].eval()
    x = torch.randn(11, 3, 6, 6)
    assert recalibrate(net, x, 10, batch=6) == 10
    assert [m.training for m in net] == [True, True, False, True, True, True]
    with torch.no_grad():
        parts, seconds = [net[0](x[:6]), net[0](x[6:10])], []
        for y in parts:
            mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), keepdim=True, correction=0)
            y = (y - mean) / (var + 1e-5).sqrt() * net[1].weight.view(-1, 1, 1) + net[1].bias.view(-1, 1, 1)
            seconds.append(net[4](y.relu()))
    for norm, (first, second) in ((net[1], parts), (net[5], seconds)):
        mean = (6 * first.mean((0, 2, 3)) + 4 * second.mean((0, 2, 3))) / 10
        var = (6 * first.var((0, 2, 3), correction=0) + 4 * second.var((0, 2, 3), correction=0)) / 10
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)
    kept = net[1].running_mean.clone()
    assert recalibrate(net, [(x[:4], 0), (x[4:8], 0)], 6) == 6  # batches of pairs, the last one cut
    assert not torch.equal(net[1].running_mean, kept)


def test_a_recalibration_that_fails_changes_nothing(states) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    recalibrate(net, torch.randn(4, 3, 6, 6))
    kept = {k: v.clone() for k, v in net.state_dict().items()}

    def broken():
        yield torch.randn(2, 3, 6, 6)
        raise StorageError("a broken image")

    with pytest.raises(StorageError, match="a broken image"):
        recalibrate(net, broken())
    with pytest.raises(CGError, match="no images"):
        recalibrate(net, torch.zeros(0, 3, 6, 6))
    assert all(torch.equal(v, kept[k]) for k, v in net.state_dict().items())
    assert not net[1]._forward_pre_hooks
    with pytest.raises(CGError, match=r"recalibrate what subnet\(genome\) gives"):
        recalibrate(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)), Unused()), torch.randn(2, 3, 6, 6))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Colours(nn.Module):
    """Logits: mean of red, green and blue."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def write_images(folder: Path, per_class: int, side: int = 150, seed: int = 0) -> Path:
    """Noisy images of three colours, one folder for each; sides differ."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for c, name in enumerate(("blue", "green", "red")):
        for i in range(per_class):
            pixels = rng.integers(0, 120, (side + 10 * i, side + 7 * c, 3))
            pixels[..., 2 - c] += 100
            file = folder / name / "deeper" / f"{i}.{('png', 'JPEG')[i % 2]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


def test_accuracy_on_a_folder_is_the_share_of_right_answers(tmp_path) -> None:
    folder = write_images(tmp_path, 3, 40)
    images = ImageFolder(folder, ["red", "green", "blue"])  # the order of the outputs
    assert evaluate(Colours(), images, 32, batch=4)["top1"] == 100
    assert top1(Colours(), images, 32, workers=2) == 100
    values = evaluate(Colours(), folder, 32)  # alphabetical: red and blue change places
    assert (values["top1"], values["top5"], values["images"]) == (pytest.approx(100 / 3), 100, 9)
    assert values["loss"] > evaluate(Colours(), images, 32)["loss"] > 0
    x, y = torch.eye(3)[[0, 1, 2, 2]][:, :, None, None].expand(4, 3, 5, 5), torch.tensor([0, 1, 2, 0])
    assert top1(Colours(), (x, y)) == 75
    assert top1(Colours(), [(x[:2], y[:2]), (x[2:], y[2:])]) == 75
    four = ImageFolder(folder, ["red", "green", "blue", "grey"])
    for data, message in (((x, y + 1), "classes are 1 to 3, the network has outputs 0 to 2"), (x, "needs classes"),
                          ((x * torch.inf, y), "not finite"), (four, "has 4 classes, the network has 3 outputs")):
        with pytest.raises(CGError, match=message):
            top1(Colours(), data, 32)


def test_the_middle_of_a_scaled_image_is_cut_out(tmp_path) -> None:
    """Colours tell the place: the shorter side becomes 74 pixels, of which 64 stay."""
    from PIL import Image

    for height, width in ((148, 220), (220, 148)):
        rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "b").mkdir(exist_ok=True)
        pixels = np.stack([rows, columns, np.full_like(rows, 255)], 2).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a" / "0.png")

        x = next(ImageFolder(tmp_path).batches(64))[0][0] * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        x = (x + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) * 255
        for channel, side in ((0, height), (1, width)):
            first = (side // 2 - 64) / 2  # in scaled pixels, each two wide
            seen = x[channel][:, 0] if channel == 0 else x[channel][0]
            expected = 2 * (first + torch.arange(64)) + 0.5
            assert (seen - expected).abs().max() < 1.01
        assert (x[2] - 255).abs().max() < 0.01


@pytest.mark.slow
def test_images_are_scaled_as_torchvision_does(tmp_path) -> None:
    from PIL import Image

    from extract import zoo

    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    transforms = zoo.import_torchvision().transforms
    images = ImageFolder(write_images(tmp_path, 2, 90))
    theirs = transforms.Compose([transforms.Resize(math.ceil(64 / 0.875)), transforms.CenterCrop(64), transforms.ToTensor(),
                                 transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    x, y = next(images.batches(64))
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    for ours, (file, _) in zip(x, images.files, strict=True):
        with Image.open(file) as image:
            torch.testing.assert_close(ours, theirs(image.convert("RGB")))


def test_training_views_are_random_by_seed_alone(tmp_path) -> None:
    images = ImageFolder(write_images(tmp_path, 4, 40))
    one, again, other = ([torch.cat(p) for p in zip(*images.batches(32, 5, train=True, seed=s, workers=w), strict=True)]
                         for s, w in ((0, 0), (0, 3), (1, 0)))
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    assert one[0].shape == (12, 3, 32, 32)
    assert sorted(one[1].tolist()) == sorted(other[1].tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    assert one[1].tolist() != other[1].tolist()
    drawn, rest = images.drawn(5, 0)
    assert sorted(drawn.files + rest.files) == sorted(images.files)
    assert (len(drawn), len(rest)) == (5, 7)
    (images.files[2][0]).write_bytes(b"no image")
    with pytest.raises(StorageError, match=r"cannot read image .*2\.png"):
        list(images.batches(32, workers=2))
    with pytest.raises(CGError, match="'blue' is not among them"):
        ImageFolder(tmp_path, ["red", "green"])


# ---- the oracle --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", 2, seed=1)
    write_images(root / "val", 2, seed=2)
    return root


def test_the_oracle_cuts_recalibrates_and_classifies(folder, small_file) -> None:
    oracle = SupernetOracle(small_file, folder, recalibrate_with=6, batch=4)
    assert isinstance(oracle, Oracle)
    values = oracle(SMALL)
    assert set(values) == {"top1", "top5", "loss", "eval_s"}
    net = OFAMobileNetV3Supernet.from_checkpoint(small_file).subnet(SMALL)
    recalibrate(net, folder / "train", 6, size=128, batch=4)
    expected = evaluate(net, folder / "val", 128)
    assert (values["top1"], values["loss"]) == (expected["top1"], pytest.approx(expected["loss"], rel=1e-5))
    raw = SupernetOracle(small_file, folder, recalibrate_with=0, batch=4, metric="loss")
    assert raw(SMALL) != pytest.approx(values["loss"], rel=1e-3)
    copy = pickle.loads(pickle.dumps(oracle))
    assert len(pickle.dumps(oracle)) < 10_000
    assert copy.describe() == oracle.describe() != raw.describe()
    assert copy(str(SMALL))["loss"] == values["loss"]


def test_the_oracle_labels_a_study_and_its_failures_are_recorded(tmp_path, small_file) -> None:
    write_images(tmp_path, 3, 130)
    oracle = SupernetOracle(small_file, tmp_path, 4, 3, batch=3)
    assert len(oracle.images) == 4
    assert len(oracle.calibration) == 3
    assert not set(oracle.images.files) & set(oracle.calibration.files)
    space = type(get_space("ofa-mbv3"))(resolutions=(128,))
    study = Study(space, get_strategy("random"), objectives="top1", seed=0)
    study.run(oracle, 1)
    assert study.history.best is not None
    oracle.images.files[1][0].write_bytes(b"")
    with pytest.raises(EvaluationFailed, match="cannot read image"):
        oracle(SMALL)
    with pytest.raises(OracleError, match=r"genomes of ofa-mbv3 only.*6 stages"):
        oracle(get_space("ofa-proxyless").sample(np.random.default_rng(0)))


def test_settings_of_the_oracle_that_cannot_be(tmp_path, folder, small_file) -> None:
    with pytest.raises(CGError, match=r"train holds 6 images, not 2000"):
        SupernetOracle(small_file, folder)
    with pytest.raises(CGError, match=r"holds 6 images; 4 for statistics and 3 others"):
        SupernetOracle(small_file, folder / "val", 3, 4)
    torch.save(random_state(1.0, 5), tmp_path / "five")
    with pytest.raises(CGError, match="3 classes, the supernet 5 outputs"):
        SupernetOracle(tmp_path / "five", folder, recalibrate_with=2)
    named = SupernetOracle(tmp_path / "five", folder, recalibrate_with=2, classes=["grey", "red", "green", "blue", "black"])
    assert named.images.files[0][1] == 1
    with pytest.raises(CGError, match="metric must be one of top1"):
        SupernetOracle(small_file, folder, metric="top2")
    with pytest.raises(OracleError, match=r"is a supernet of ofa-mbv3, not of ofa-mbv3-w12"):
        supernet_oracle("ofa-mbv3-w12", small_file, folder, recalibrate_with=2)
    with pytest.raises(OracleError, match="no supernet of space 'ofa-proxyless'"):
        supernet_oracle("ofa-proxyless", small_file, folder)
    assert supernet_oracle("ofa-mbv3", small_file, folder, recalibrate_with=2).describe()["name"] == "ofa-mbv3"
