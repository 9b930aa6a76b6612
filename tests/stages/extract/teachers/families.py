"""Small models of more real classes with random weights, beside those of all extraction tests."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from tests.stages.extract import models

_VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": models.SIDE,
    "patch_size": models.PATCH,
}
_WIDE = {**_VIT, "initializer_range": 0.3}
_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 9,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


def dinov3_vit(folder: Path) -> Path:
    """DINOv3's ViT: class token, four registers, rotary positions."""
    config = transformers.DINOv3ViTConfig(**_WIDE, num_register_tokens=4)
    return _save(transformers.DINOv3ViTModel, config, folder, "dinov2")


def dinov3_convnext(folder: Path) -> Path:
    """DINOv3's ConvNeXt: the norm of the mean of the last map is its class token."""
    config = transformers.DINOv3ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], initializer_range=0.3, image_size=32
    )
    return _save(transformers.DINOv3ConvNextModel, config, folder, "convnext")


def siglip(folder: Path) -> Path:
    """SigLIP, both towers, as its repositories have it: pooling by attention, no projection."""
    config = transformers.SiglipConfig(text_config=_TEXT, vision_config=_VIT)
    return _save(transformers.SiglipModel, config, folder, "siglip")


def deit(folder: Path) -> Path:
    """DeiT: a class token and one of distillation."""
    return _save(transformers.DeiTModel, transformers.DeiTConfig(**_WIDE), folder, "vit")


def vit_msn(folder: Path) -> Path:
    return _save(transformers.ViTMSNModel, transformers.ViTMSNConfig(**_WIDE), folder, "vit")


def ijepa(folder: Path) -> Path:
    """I-JEPA: patches alone."""
    return _save(transformers.IJepaModel, transformers.IJepaConfig(**_WIDE), folder, "vit")


def _save(kind: type[nn.Module], config: Any, folder: Path, processor: str) -> Path:
    torch.manual_seed(0)
    return models.save(kind(config), folder, processor)
