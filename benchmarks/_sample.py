"""The 120 models that ``extract_speed.py`` and ``extract_macs.py`` look at, and the 40 that are exported to ONNX.

One model of each of timm 1.0.31's 98 modules, drawn with a seed among those of at most 100 M parameters and 384 pixels
(tools that need real weights and values would not fit otherwise; the smallest where there is none), and 22 of torchvision.
Drawn once, by

    python benchmarks/_sample.py         # prints the list again
"""

from __future__ import annotations

import random
from typing import Any

SEED, MOST_PARAMS, MOST_PIXELS = 0, 100_000_000, 384

TIMM = (
    "beit_base_patch16_384", "lambda_resnet26t", "resnet50x4_clip_gap", "cait_s24_384", "coat_lite_medium_384",
    "convit_tiny", "convmixer_1024_20_ks9_p14", "convnext_femto_ols", "cpubone_b2_bfrobust", "crossvit_tiny_240",
    "csatv2", "cspresnet50w", "cspnext_x", "davit_tiny", "deepseek_vit_412m", "deit_base_patch16_224", "densenet201",
    "dla102x2", "dpn48b", "edgenext_small_rw", "efficientformer_l7", "efficientformerv2_s0", "mobilenetv1_100h",
    "efficientvim_m1", "efficientvit_b3", "efficientvit_m1", "vit_pe_core_base_patch16_224", "fasternet_t2",
    "fastvit_mci0", "focalnet_tiny_srf", "gcvit_tiny", "gemma4_vit_167m_enc", "ghostnetv3_100", "hardcorenas_c",
    "hgnetv2_b4", "hiera_base_abswin_256", "hieradet_small", "hrnet_w18", "iformer_l2_distilled", "inception_next_atto",
    "inception_resnet_v2", "inception_v3", "inception_v4", "lcnetv2_base", "levit_conv_384", "lowformer_e3",
    "mambaout_small_rw", "maxvit_tiny_tf_384", "convformer_m36", "gmlp_ti16_224", "mobilenetv4_conv_medium",
    "mobilenetv5_base", "mobilevitv2_150", "mvitv2_small_cls", "naflexvit_base_patch16_gap", "nasnetalarge", "nest_small",
    "nextvit_large", "eca_nfnet_l3", "pit_ti_distilled_224", "pnasnet5large", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_small",
    "regnetx_080", "repghostnet_058", "repvit_m1", "res2net50d", "resnest200e", "resnetrs50", "resnetv2_50d_gn",
    "rexnetr_200", "selecsls60b", "legacy_seresnext26_32x4d", "sequencer2d_m", "shvit_s2", "skresnet34", "starnet_s100",
    "swiftformer_l1", "swin_tiny_patch4_window7_224", "swinv2_base_window8_256", "swinv2_cr_base_ns_224",
    "tiny_vit_21m_224", "tnt_s_legacy_patch16_224", "tresnet_xl", "twins_svt_large", "vgg11", "visformer_tiny",
    "test_vit3", "vit_tiny_r_s16_p8_384", "vit_srelpos_medium_patch16_224", "samvit_base_patch16_224", "vitamin_base_224",
    "volo_d1_224", "ese_vovnet39b", "legacy_xception", "xception65", "xcit_medium_24_p16_224")

TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet1_0",
    "mobilenet_v3_large", "regnet_y_800mf", "resnet50", "shufflenet_v2_x1_0", "squeezenet1_1", "swin_v2_t", "vgg16_bn",
    "vit_b_16", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large", "r3d_18", "mvit_v2_s", "swin3d_t", "raft_small")

_ALL = [*(f"timm:{m}" for m in TIMM), *(f"torchvision:{m}" for m in TORCHVISION)]
# shuffled, so that the first part of them, where a run is cut short, stands for all
MODELS: tuple[str, ...] = tuple(random.Random(SEED).sample(_ALL, len(_ALL)))
# 30 of timm drawn among those of at most 30 M parameters, 10 of torchvision
EXPORTED: tuple[str, ...] = (*(f"timm:{m}" for m in (
    "convit_tiny", "convnext_femto_ols", "cpubone_b2_bfrobust", "crossvit_tiny_240", "cspresnet50w", "dpn48b",
    "edgenext_small_rw", "efficientformerv2_s0", "efficientvim_m1", "efficientvit_m1", "ese_vovnet39b", "fastvit_mci0",
    "ghostnetv3_100", "gmlp_ti16_224", "hardcorenas_c", "hrnet_w18", "lambda_resnet26t", "lcnetv2_base",
    "legacy_seresnext26_32x4d", "legacy_xception", "mobilenetv4_conv_medium", "repghostnet_058", "repvit_m1",
    "res2net50d", "shvit_s2", "skresnet34", "starnet_s100", "swiftformer_l1", "swin_tiny_patch4_window7_224",
    "vit_tiny_r_s16_p8_384")), *(f"torchvision:{m}" for m in (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mobilenet_v3_large", "resnet50",
    "shufflenet_v2_x1_0", "squeezenet1_1", "swin_v2_t")))


def on_cpu(spec: str) -> tuple[Any, tuple[Any, ...]]:
    """The model with random weights in evaluation mode, and random images of the right shape, for tools that run it."""
    import torch

    from extract import zoo

    model = zoo.load(spec)
    torch.manual_seed(SEED)
    shapes = model.inputs if isinstance(model.inputs, list) else [model.inputs]
    return model.factory().eval(), tuple(torch.rand(shape) for shape in shapes)


def on_meta(spec: str) -> tuple[Any, tuple[Any, ...]]:
    """The same without weights and values."""
    import torch

    from extract import zoo

    model = zoo.load(spec)
    try:
        with torch.device("meta"):
            module = model.factory()
    except (NotImplementedError, RuntimeError):
        module = model.factory().to("meta")  # its constructor reads values
    shapes = model.inputs if isinstance(model.inputs, list) else [model.inputs]
    return module.to("meta").eval(), tuple(torch.empty(shape, device="meta") for shape in shapes)


def draw() -> list[tuple[str, int]]:
    """One model of each module of the installed timm, with its parameters."""
    from extract import zoo

    zoo.import_torchvision()
    import timm

    chosen, rng = [], random.Random(SEED)
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        rng.shuffle(names)
        sizes = []
        for name in names:
            pixels = max(timm.models.get_pretrained_cfg(name).input_size[1:])
            params = sum(p.numel() for p in on_meta(f"timm:{name}")[0].parameters())
            sizes.append((max(pixels, MOST_PIXELS), max(params, MOST_PARAMS), len(sizes), name, params))
            if sizes[-1][:2] == (MOST_PIXELS, MOST_PARAMS):
                break
        chosen.append(min(sizes)[3:])  # a module without a small model gives its smallest
    return chosen


if __name__ == "__main__":
    for name, params in draw():
        print(f"{name}  # {params / 1e6:.1f} M")
