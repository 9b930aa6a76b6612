"""The student as one function of images, the same in every format."""

from typing import cast

import torch
from torch import Tensor, nn

from egapipe.stages.distill.model.student import Student

INPUT, BATCH = "images", "batch"
"""Name of the input, and of its first dimension."""
OUTPUTS = ("logits", "nodes", "features")
"""Names of the outputs, in order: [B, C], [B, D] and [B, F], all float32."""


class Inference(nn.Module):
    """uint8 RGB images [B, 3, H, W] to logits, nodes and features; normalisation is inside."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `OUTPUTS`."""
        features = self.student.features(images)
        nodes, logits = cast(tuple[Tensor, Tensor], self.student.head(features))
        if nodes is features:
            # Without a node layer they are one tensor, which a graph could give only one name.
            nodes = torch.clone(features)
        return logits, nodes, features
