"""Which output of an encoder is the embedding."""

from typing import Any

from torch import Tensor, nn

# What a family was trained with, where it isn't the pooled output that the model itself gives: the
# pooler of a ViT or DeiT is a head for classification, that of an I-JEPA is untrained.
FAMILIES = {
    "vit": "cls",
    "deit": "cls",
    "vit_msn": "cls",
    "vit_mae": "cls",
    "dinov2": "cls",
    "dinov2_with_registers": "cls",
    "dinov3_vit": "cls",
    "ijepa": "mean",
}
"""Model type in `transformers` -> pooling that `auto` stands for."""


def resolve_pooling(
    asked: str, family: str, hidden: Any, patches: int | None, projection: nn.Module | None
) -> str:
    """The pooling that `asked` stands for: cls, mean, pooler or projection.

    hidden: the model's output for one image. patches: patch tokens of an input. `auto` takes the
    projection into the shared space of a text-and-image model, else what the family was trained
    with, else the model's pooled output, else the mean. Raises ValueError if there is none such.
    """
    pooled = getattr(hidden, "pooler_output", None) is not None
    tokens = hidden.last_hidden_state.shape[1] if hidden.last_hidden_state.ndim == 3 else 0
    token = patches is not None and tokens > patches
    possible = {"mean": True, "cls": token, "pooler": pooled, "projection": projection is not None}
    if asked == "auto":
        asked = FAMILIES.get(family, "pooler" if pooled else "mean")
        asked = "projection" if projection is not None else asked
    if not possible[asked]:
        valid = ", ".join(name for name, there in possible.items() if there)
        raise ValueError(f"{family} models have no {asked} output: set teacher.pooling to {valid}")
    return asked


def embed(pooling: str, hidden: Any, patches: int | None, projection: nn.Module | None) -> Tensor:
    """Pool a model's output for B images into [B, D].

    patches: patch tokens of the input; tokens before them (class, registers) are not averaged.
    """
    if pooling == "projection" and projection is not None:
        return projection(hidden.pooler_output)  # type: ignore[no-any-return]
    if pooling == "pooler":
        return hidden.pooler_output.flatten(1)  # type: ignore[no-any-return]
    last = hidden.last_hidden_state
    if pooling == "cls":
        return last[:, 0]  # type: ignore[no-any-return]
    if last.ndim == 4:
        return last.mean(dim=(2, 3))  # type: ignore[no-any-return]
    return last[:, before_patches(last, patches) :].mean(dim=1)  # type: ignore[no-any-return]


def before_patches(last: Tensor, patches: int | None) -> int:
    """Tokens (class, registers) before the patch tokens of a model's last layer [B, T, D].

    patches: patch tokens of the input, None for a network that has none.
    """
    return max(0, last.shape[1] - patches) if patches is not None and last.ndim == 3 else 0
