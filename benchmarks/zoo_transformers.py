"""Architectures of ``transformers`` built from configurations, to measure how many of them can be extracted.

``ARCHITECTURES[name]()`` gives ``(factory, inputs)`` for ``from_torch``. Each is the model that its configuration class
describes by default, at full size, since no weight is allocated. :data:`SETTINGS` changes what does not build by default.
Nothing is downloaded. Left out: dbrx, which transformers 5.23 cannot build, and mra, whose attention is a CUDA kernel.

    python -m benchmarks.zoo_transformers [name …]
"""

from __future__ import annotations

import functools
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from extract import ExtractionError, ExtractionWarning, from_torch
from extract.zoo import read_config

KINDS: dict[str, str] = {
    "text encoder": "albert bert bert-generation big_bird bros camembert canine convbert data2vec-text deberta deberta-v2 "
                    "distilbert electra ernie esm flaubert fnet funnel ibert layoutlm lilt longformer luke markuplm "
                    "megatron-bert mobilebert modernbert mpnet nomic_bert nystromformer rembert roberta "
                    "roberta-prelayernorm roc_bert roformer splinter squeezebert tapas xlm xlm-roberta xlnet xmod yoso",
    "text decoder": "apertus arcee bamba biogpt bloom codegen cohere cohere2 ctrl deepseek_v3 diffllama doge dots1 "
                    "ernie4_5 exaone4 falcon falcon_h1 falcon_mamba gemma gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neo "
                    "gpt_neox gpt_oss gptj granite granitemoe helium jamba jetmoe lfm2 llama mamba mamba2 minimax mistral "
                    "mixtral modernbert-decoder mpt nemotron olmo olmo2 olmoe openai-gpt opt persimmon phi phi3 phimoe qwen2 "
                    "qwen2_moe qwen3 qwen3_moe qwen3_next recurrent_gemma reformer rwkv seed_oss smollm3 stablelm starcoder2 "
                    "xglm zamba zamba2",
    "seq2seq": "bart bigbird_pegasus blenderbot blenderbot-small fsmt led longt5 m2m_100 marian mbart mt5 mvp nllb-moe "
               "pegasus pegasus_x plbart prophetnet switch_transformers t5 t5gemma umt5",
    "vision": "beit bit conditional_detr convnext convnextv2 cvt d_fine dab-detr data2vec-vision deformable_detr deit "
              "depth_pro detr dinov2 dinov2_with_registers dinov3_convnext dinov3_vit donut-swin dpt "
              "efficientnet focalnet glpn hgnet_v2 hiera ijepa imagegpt levit mask2former maskformer-swin mgp-str "
              "mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 poolformer pvt pvt_v2 regnet resnet rt_detr rt_detr_v2 sam "
              "segformer swiftformer swin swin2sr swinv2 table-transformer textnet timesformer videomae vit vit_mae "
              "vit_msn vitdet vivit vjepa2 yolos",
    "audio": "audio-spectrogram-transformer clap dac data2vec-audio encodec hubert mimi moonshine parakeet_ctc sew "
             "sew-d speech_to_text speecht5 unispeech unispeech-sat univnet vits wav2vec2 wav2vec2-bert wav2vec2-conformer "
             "wavlm whisper",
    "multimodal": "align altclip blip blip-2 bridgetower chinese_clip clip clipseg flava git groupvit instructblip kosmos-2 "
                  "layoutlmv3 llava lxmert owlv2 owlvit paligemma perceiver qwen2_5_vl qwen2_vl qwen3_vl seamless_m4t siglip "
                  "vilt vipllava visual_bert xclip",
    "time series, other": "autoformer decision_transformer informer patchtsmixer patchtst time_series_transformer",
}

_QWEN: dict[str, Any] = {"hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}
_SERIES: dict[str, Any] = {"prediction_length": 24, "context_length": 48, "num_time_features": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "autoformer": _SERIES, "informer": _SERIES, "time_series_transformer": _SERIES,
    "blip-2": {"image_token_index": 50_000}, "instructblip": {"image_token_index": 50_000},
    "depth_pro": {"image_size": 1536},
    "dots1": {"n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1},
    "nemotron": {"num_key_value_heads": 8},
    "esm": {"vocab_size": 33, "pad_token_id": 1}, "xmod": {"default_language": "en_XX"},
    "qwen2_vl": {"vision_config": {"hidden_size": 3584}, "text_config": _QWEN},
    "qwen2_5_vl": {"text_config": _QWEN}, "qwen3_vl": {"text_config": {"hidden_size": 3584}},
}


def build(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """The factory and the inputs of one architecture. Raises ``ExtractionError`` if its configuration does not build."""
    from extract.zoo_transformers import build as build_model
    from extract.zoo_transformers import inputs_of, model_class

    config = read_config(name)
    if name in SETTINGS:
        config = type(config)(**SETTINGS[name])
    cls = model_class(config)
    return functools.partial(build_model, cls, config), inputs_of(config, cls)


ARCHITECTURES: dict[str, Callable[[], tuple[Callable[[], Any], dict[str, Any]]]] = {
    name: functools.partial(build, name) for names in KINDS.values() for name in names.split()}


def main(names: list[str]) -> None:
    """Extract the named architectures, or all; one line each."""
    from extract.zoo import import_torchvision

    import_torchvision()  # transformers imports it
    import transformers

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore", ExtractionWarning)
    done = 0
    for name in names or ARCHITECTURES:
        started = time.perf_counter()
        try:
            factory, inputs = ARCHITECTURES[name]()
            e = from_torch(factory, inputs, name=name)
        except (ExtractionError, ImportError) as error:
            print(f"{name:30} failed: {str(error)[:400]}", flush=True)
            continue
        done += 1
        seconds = time.perf_counter() - started
        way = e.way + (" with values" if any(n.startswith("run with the values") for n in e.notes) else "")
        print(f"{name:30} {seconds:6.2f} s {e.graph.n_nodes:6} nodes, {way} {dict(e.unknown) or ''}", flush=True)
    print(f"{done} of {len(names or ARCHITECTURES)}")


if __name__ == "__main__":
    main(sys.argv[1:])
