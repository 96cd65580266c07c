"""Example inputs for models of ``transformers``, worked out from the configuration and the signature of ``forward``.

Token numbers and masks are real tensors (a few hundred integers), because some models read them; the rest are shapes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch

from extract.extraction import ExtractionError

TEXT = 32  # tokens
SAMPLES = 16_000  # of sound, one second as most of these models take it
FRAMES = 8  # of video


def model_class(config: Any) -> Any:
    """The class that the configuration names under ``architectures``, or the plain one (``AutoModel``) of its type."""
    import transformers

    for name in config.architectures or ():
        cls = getattr(transformers, name, None)
        if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
            return cls
    try:
        cls = transformers.MODEL_MAPPING[type(config)]
    except KeyError:
        raise ExtractionError(f"transformers has no model class for the type {config.model_type!r}; name one in the field "
                              "architectures of its configuration") from None
    return cls[0] if isinstance(cls, tuple) else cls


def build(cls: Any, config: Any) -> Any:
    """The model without weights: nothing is initialised. Experts are computed by the one form that reads no values."""
    from transformers.initialization import no_init_weights

    config = copy.deepcopy(config)
    config.use_cache = False
    with no_init_weights():
        try:
            return cls._from_config(config, experts_implementation="batched_mm")
        except (ValueError, TypeError):  # no experts
            return cls._from_config(copy.deepcopy(config))


def field(config: Any, *names: str, default: Any = None) -> Any:
    """The first of the fields that is set, in the configuration or in that of its text, vision or audio part."""
    parts = [config, *(getattr(config, part, None) for part in (
        "text_config", "vision_config", "audio_config", "encoder", "decoder", "backbone_config", "thinker_config"))]
    for name in names:
        for part in parts:
            value = part.get(name) if isinstance(part, dict) else getattr(part, name, None)
            if value is not None:
                return value
    return default


def tokens(config: Any, n: int = TEXT, part: str = "") -> torch.Tensor:
    """``(1, n)`` token numbers of the vocabulary, none of them special as far as the configuration tells."""
    limit = field(config, "max_position_embeddings", "n_positions", default=n)
    n = min(n, limit) if isinstance(limit, int) and limit > 4 else n
    size = field(config, "vocab_size", default=1000)
    special = {v for k, v in config.to_dict().items() if k.endswith(("token_id", "token_index")) and isinstance(v, int)}
    plain = [i for i in range(3, min(size, 4 * n + 64)) if i not in special] or [0]
    return torch.tensor([[plain[i % len(plain)] for i in range(n)]])


def image_shape(config: Any) -> tuple[int, ...]:
    """``(1, channels, height, width)``."""
    size = field(config, "image_size", "img_size", "input_size", default=224)
    if isinstance(size, dict):
        size = (size.get("height", 224), size.get("width", 224))
    if isinstance(size, int | float):
        size = (int(size), int(size))
    return (1, int(field(config, "num_channels", "in_channels", "in_chans", default=3)), int(size[0]), int(size[-1]))


def mel_shape(config: Any) -> tuple[int, ...]:
    """``(1, bins, frames)`` of a spectrogram, as Whisper's encoder takes it."""
    bins = field(config, "num_mel_bins", "feature_size", default=80)
    positions = field(config, "max_source_positions", default=1500)
    return (1, int(bins), 2 * int(positions))


def inputs_of(config: Any, cls: Any) -> dict[str, Any]:
    """Arguments by name for ``cls(config)``, at the sizes that the configuration gives.

    What most models need follows from the names of the arguments; :data:`RECIPES` has the others. Raises ``ExtractionError``
    for an argument that is not known.
    """
    recipe = RECIPES.get(config.model_type)
    takes = inspect.signature(cls.forward).parameters
    made: dict[str, Any] = {}
    if recipe is not None:
        made = dict(recipe(config))
    else:
        needed = [name for name, p in takes.items() if p.default is p.empty and name != "self"
                  and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        main = getattr(cls, "main_input_name", "input_ids")
        is_image_token = any(getattr(config, f"image_token_{end}", None) is not None for end in ("id", "index"))
        also = [name for name in ("input_ids", "pixel_values", "input_features") if name in takes and not is_image_token]
        for name in dict.fromkeys([*needed, *([main] if main in takes else []), *also]):
            made[name] = one(config, name)
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
        made.setdefault("decoder_input_ids", tokens(config))
    if "use_cache" in takes:
        made["use_cache"] = False
    return made


def one(config: Any, name: str) -> Any:
    """An example value of one argument. Raises ``ExtractionError`` if it is not known."""
    if name in ("input_ids", "decoder_input_ids", "qformer_input_ids"):
        return tokens(config)
    if name == "pixel_values":
        return image_shape(config)
    if name == "pixel_values_videos":
        n, c, h, w = image_shape(config)
        return (n, int(field(config, "num_frames", "frames_per_clip", default=FRAMES)), c, h, w)
    if name == "input_features":
        return mel_shape(config)
    if name == "input_values":
        return (1, SAMPLES)
    if name == "attention_mask":
        return torch.ones(1, TEXT, dtype=torch.long)
    if name == "inputs_embeds":
        return (1, TEXT, int(field(config, "hidden_size")))
    raise ExtractionError(f"no example value is known for the argument {name!r} of {config.model_type}; call from_torch with "
                          "inputs of your own")


def _video(config: Any) -> dict[str, Any]:
    n, c, h, w = image_shape(config)
    return {"pixel_values": (n, int(field(config, "num_frames", default=FRAMES)), c, h, w)}


def _wave(config: Any) -> dict[str, Any]:
    return {"input_values": (1, 1, int(field(config, "sampling_rate", default=SAMPLES)))}


def _frames(*names: str, length: int = 200) -> Callable[[Any], dict[str, Any]]:
    """A spectrogram with time before bins; the bins are in the first of the fields."""
    return lambda config: {"input_features": (1, length, int(field(config, *names, "num_mel_bins", default=80)))}


def _patches(config: Any) -> dict[str, Any]:
    """A picture cut into patches beforehand: one row for each, and the numbers of rows and columns."""
    vision = getattr(config, "vision_config", config)
    size, merge = int(vision.patch_size), int(getattr(vision, "spatial_merge_size", 2))
    side = 4 * merge
    width = int(getattr(vision, "in_channels", 3)) * int(getattr(vision, "temporal_patch_size", 1)) * size * size
    return {"hidden_states": (side * side, width), "grid_thw": torch.tensor([[1, side, side]])}


def _picture_and_text(config: Any) -> dict[str, Any]:
    """Tokens that stand for the patches of a picture among those of a text."""
    patches = _patches(config)
    vision = config.vision_config
    n = int(patches["grid_thw"].prod()) // int(getattr(vision, "spatial_merge_size", 2)) ** 2
    return {"input_ids": _with_image(config, n, config.vision_start_token_id), "pixel_values": patches["hidden_states"],
            "image_grid_thw": patches["grid_thw"], "mm_token_type_ids": _is_image(config, n, 1)}


def _is_image(config: Any, n: int, extra: int) -> torch.Tensor:
    return torch.tensor([[0] * (TEXT + extra) + [1] * n])


def _with_image(config: Any, n: int, *before: int) -> torch.Tensor:
    token = field(config, "image_token_id", "image_token_index")
    return torch.cat([tokens(config)[:, :TEXT], torch.tensor([[*before, *[token] * n]])], 1)


def _image_tokens(count: Callable[[int], int] = lambda patches: patches) -> Callable[[Any], dict[str, Any]]:
    """A picture and a text in which ``count(patches)`` tokens stand for it."""

    def recipe(config: Any) -> dict[str, Any]:
        shape = image_shape(config.vision_config)
        patches = (shape[2] // int(config.vision_config.patch_size)) * (shape[3] // int(config.vision_config.patch_size))
        return {"input_ids": _with_image(config, count(patches)), "pixel_values": shape}

    return recipe


def _series(config: Any) -> dict[str, Any]:
    """A time series, its history as long as the lags ask for."""
    length = int(config.context_length or config.prediction_length or 24) + max(getattr(config, "lags_sequence", None) or [0])
    horizon = int(config.prediction_length or 24)
    times = int(config.num_time_features)
    return {"past_values": (1, length), "past_time_features": (1, length, times), "past_observed_mask": (1, length),
            "future_values": (1, horizon), "future_time_features": (1, horizon, times)}


RECIPES: dict[str, Callable[[Any], dict[str, Any]]] = {
    **dict.fromkeys(("videomae", "timesformer", "vivit"), _video),
    **dict.fromkeys(("encodec", "dac", "mimi", "mimi_encoder", "xcodec"), _wave),
    **dict.fromkeys(("parakeet_ctc", "parakeet_encoder", "parakeet_tdt", "lasr_ctc", "lasr_encoder"), _frames("num_mel_bins")),
    **dict.fromkeys(("wav2vec2-bert", "seamless_m4t", "seamless_m4t_v2"), _frames("feature_projection_input_dim")),
    "speech_to_text": _frames("input_feat_per_channel"), "univnet": _frames("num_mel_bins"),
    **dict.fromkeys(("qwen2_5_vl_vision", "qwen2_vl_vision", "qwen3_vl_vision"), _patches),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"), _picture_and_text),
    **dict.fromkeys(("llava", "vipllava", "paligemma"), _image_tokens()),
    "gemma3": lambda c: _image_tokens(lambda patches: int(c.mm_tokens_per_image))(c),
    "internvl": _image_tokens(lambda patches: patches // 4),
    "blip-2": lambda c: {"pixel_values": image_shape(c), "input_ids": _with_image(c, int(c.num_query_tokens))},
    "instructblip": lambda c: {"pixel_values": image_shape(c), "input_ids": _with_image(c, int(c.num_query_tokens)),
                               "qformer_input_ids": tokens(c)},
    **dict.fromkeys(("time_series_transformer", "autoformer", "informer"), _series),
    "patchtst": lambda c: {"past_values": (1, int(c.context_length), int(c.num_input_channels))},
    "patchtsmixer": lambda c: {"past_values": (1, int(c.context_length), int(c.num_input_channels))},
    "audio-spectrogram-transformer": lambda c: {"input_values": (1, int(c.max_length), int(c.num_mel_bins))},
    "clap": lambda c: {"input_ids": tokens(c), "is_longer": torch.zeros(1, 1, dtype=torch.bool), "input_features": (
        1, 1, 1024, int(c.audio_config.num_mel_bins))},
    "xclip": lambda c: {"input_ids": tokens(c), "pixel_values": (1, int(c.vision_config.num_frames), *image_shape(c)[1:])},
    "perceiver": lambda c: {"inputs": (1, TEXT, int(c.d_model))},
    "speecht5": lambda c: dict.fromkeys(("input_values", "decoder_input_values"), (1, TEXT, int(c.hidden_size))),
    "kosmos-2": lambda c: {"input_ids": tokens(c, 2 * TEXT), "pixel_values": image_shape(c), "image_embeds_position_mask": (
        torch.arange(2 * TEXT) < int(c.latent_query_num))[None]},
    "lxmert": lambda c: {"input_ids": tokens(c), "visual_feats": (1, 36, int(c.visual_feat_dim)), "visual_pos": (1, 36, 4)},
    "bros": lambda c: {"input_ids": tokens(c), "bbox": (1, TEXT, 4)},
    "decision_transformer": lambda c: {
        "states": (1, 20, int(c.state_dim)), "actions": (1, 20, int(c.act_dim)), "rewards": (1, 20, 1),
        "returns_to_go": (1, 20, 1), "timesteps": torch.arange(20)[None], "attention_mask": torch.ones(1, 20)},
}
