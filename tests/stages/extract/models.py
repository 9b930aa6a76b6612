"""Small models of real classes with random weights, in folders laid out as on the hub."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from egapipe.pipeline.config.teachers import TransformersTeacher as Settings
from egapipe.pipeline.machine.quiet import quiet

SIDE, PATCH = 16, 4
PATCHES = (SIDE // PATCH) ** 2
# Wide enough that embeddings of different images are far apart.
_TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
    "initializer_range": 0.3,
}
_MLP = {**_TRANSFORMER, "intermediate_size": 32}
_SQUARE = {"height": SIDE, "width": SIDE}

# As in the repositories of google/vit, openai/clip, facebook/dinov2, google/siglip and convnext.
PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": _SQUARE, "resample": 2},
    "clip": {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_center_crop": True,
        "crop_size": SIDE,
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": SIDE,
    },
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "crop_size": _SQUARE,
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 20},
    },
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": _SQUARE, "resample": 3},
    "convnext": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_pct": 0.875,
        "resample": 3,
    },
}


def save(model: nn.Module, folder: Path, processor: str | None) -> Path:
    """A model's folder; `processor` names one of PROCESSORS."""
    with quiet():
        model.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[processor]))
    return folder


def vit(folder: Path, seed: int = 0) -> Path:
    """A ViT with its pooler."""
    return save(vit_model(seed), folder, "vit")


def wide_vit(folder: Path) -> Path:
    """As wide as a ViT-B, and as many patches as it has of an image of 224 x 224 by 14 x 14."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 768, "image_size": 64, "patch_size": 4, "num_hidden_layers": 1}
    config = transformers.ViTConfig(**{**_MLP, **sizes})
    model = transformers.ViTModel(config)
    square = {**PROCESSORS["vit"], "size": {"height": 64, "width": 64}}
    save(model, folder, None)
    (folder / "preprocessor_config.json").write_text(json.dumps(square))
    return folder


def vit_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return transformers.ViTModel(transformers.ViTConfig(**_MLP))


def clip(folder: Path) -> Path:
    """CLIP, both towers."""
    torch.manual_seed(0)
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    vision = {**_MLP, "initializer_factor": 10.0, "projection_dim": 12}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    return save(transformers.CLIPModel(config), folder, "clip")


def clip_vision(folder: Path) -> Path:
    """CLIP's image tower alone, with its projection."""
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(**_MLP, projection_dim=12, initializer_factor=10.0)
    return save(transformers.CLIPVisionModelWithProjection(config), folder, "clip")


def dinov2(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.Dinov2Config(**_TRANSFORMER)
    return save(transformers.Dinov2Model(config), folder, "dinov2")


def dinov2_with_registers(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.Dinov2WithRegistersConfig(**_TRANSFORMER, num_register_tokens=4)
    return save(transformers.Dinov2WithRegistersModel(config), folder, "dinov2")


def siglip(folder: Path) -> Path:
    """SigLIP's image tower: no class token, pooling by attention."""
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(
        **{k: v for k, v in _MLP.items() if k != "initializer_range"}
    )
    return save(transformers.SiglipVisionModel(config), folder, "siglip")


def vit_mae(folder: Path) -> Path:
    """A masked autoencoder's encoder, which drops three of four patches unless told otherwise."""
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(**_MLP, mask_ratio=0.75)
    return save(transformers.ViTMAEModel(config), folder, "vit")


def convnext(folder: Path) -> Path:
    """A convolutional network: maps instead of tokens."""
    torch.manual_seed(0)
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], initializer_range=0.3
    )
    return save(transformers.ConvNextModel(config), folder, "convnext")


def settings(folder: Path, **fields: Any) -> Settings:
    return Settings(backend="transformers", model=str(folder), **fields)
