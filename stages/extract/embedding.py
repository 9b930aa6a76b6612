"""A few images through the teacher, without a store."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.teachers import ImportedTeacher
from egapipe.pipeline.errors import UsageError
from egapipe.stages.extract.workers.forward.inference import Arrays, cpu_threads, open_inference
from egapipe.stages.extract.workers.forward.tuned import open_teacher


def embed(config: Config, images: Sequence[Image.Image]) -> dict[str, npt.NDArray[np.float32]]:
    """The teacher's outputs for clean RGB images: name -> float32 [n, *shape].

    Raises UsageError for a teacher whose embeddings were imported: it cannot be run here, and
    TeacherError if it cannot be loaded.
    """
    if isinstance(config.teacher, ImportedTeacher):
        raise UsageError(
            f"config {config.name} has imported embeddings: there is no teacher to run on an image"
        )
    teacher = open_teacher(config)
    clean = np.stack([teacher.preprocessing.clean(image) for image in images])
    gpu = torch.cuda.is_available() and config.extract.device != "cpu"
    device = torch.device("cuda" if gpu else "cpu")
    with closing(open_inference(teacher, device, cpu_threads())) as inference:
        parts = torch.from_numpy(clean).split(config.extract.usual_batch)
        batches: list[Arrays] = [inference.submit(part).result() for part in parts]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in teacher.outputs}
