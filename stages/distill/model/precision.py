"""The type of the forward pass."""

import torch
from torch.amp.grad_scaler import GradScaler

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Forward passes within it are computed in `precision`; float32 leaves them alone."""
    half = precision != torch.float32
    return torch.autocast(device.type, dtype=precision, enabled=half)


def loss_scaler(device: torch.device, precision: torch.dtype) -> GradScaler:
    """Scales losses whose gradients would vanish in float16; with other types it does nothing."""
    return GradScaler(device.type, enabled=precision == torch.float16)
