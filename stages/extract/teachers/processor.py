"""A teacher's evaluation transform, read from its image processor's configuration."""

from typing import Any

import numpy as np
import transformers
from PIL import Image

from egapipe.pipeline.errors import TeacherError
from egapipe.stages.extract.teachers.preprocessing import Preprocessing

# Tall, wide, and smaller than any input: (height, width).
_TRIALS = ((97, 61), (48, 75), (23, 23))
_TOLERANCE = 1e-4
# DINOv3's resizes in float with torchvision. A plain processor of the same settings resizes bytes,
# as those of all other families do: the same to within a grey level, with or without torchvision.
_PLAIN = ("DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast")


def read_preprocessing(model: str, source: str, where: dict[str, str]) -> Preprocessing:
    """Read `preprocessor_config.json` (or `processor_config.json`) of a model.

    model: as the user wrote it. source: hub name or folder. Raises TeacherError if there is none,
    or if it does something else than resize, crop and normalise: our pixels are compared with the
    processor's own on a few images.
    """
    processor = _processor(model, source, where)
    try:
        preprocessing = translate(processor)
        if agrees(preprocessing, processor):
            return preprocessing
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Processors of other kinds lack the settings, or give something else than pixels.
        reason = f"cannot be used ({error})"
    else:
        reason = "does more than resize, crop and normalise"
    raise TeacherError(
        f"teacher {model}: its {type(processor).__name__} {reason}: use a model with a plain image "
        "processor"
    )


def translate(processor: Any) -> Preprocessing:
    """Our form of a processor's settings. Raises ValueError if they can't be expressed."""
    resize = _resize(processor.size) if processor.do_resize else None
    crop = _size(processor.crop_size) if getattr(processor, "do_center_crop", None) else None
    share = getattr(processor, "crop_pct", None)
    if share is not None and isinstance(resize, int):
        resize, crop = _convnext(resize, share)
    normalise = processor.do_normalize
    return Preprocessing(
        resize=resize,
        crop=crop,
        resample=Image.Resampling(processor.resample).name.lower(),
        rescale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        mean=_triple(processor.image_mean if normalise else 0.0),
        std=_triple(processor.image_std if normalise else 1.0),
    )


def agrees(preprocessing: Preprocessing, processor: Any) -> bool:
    """Whether both turn the same images into the same normalised pixels."""
    mean, std = (np.array(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    for seed, (height, width) in enumerate(_TRIALS):
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(noise)
        theirs = processor(images=image, return_tensors="np")["pixel_values"][0]
        ours = (preprocessing.clean(image) * preprocessing.rescale - mean) / std
        if ours.shape != theirs.shape or np.abs(ours - theirs).max() > _TOLERANCE:
            return False
    return True


def _processor(model: str, source: str, where: dict[str, str]) -> Any:
    # The Pillow backend needs no torchvision and is what the published accuracies were made with.
    major = int(transformers.__version__.split(".")[0])
    pillow: dict[str, Any] = {"backend": "pil"} if major >= 5 else {"use_fast": False}
    try:
        mixin = transformers.image_processing_base.ImageProcessingMixin
        settings, _ = mixin.get_image_processor_dict(source, **where)
        if settings.get("image_processor_type") in _PLAIN:
            plain = "ViTImageProcessorPil" if major >= 5 else "ViTImageProcessor"
            return getattr(transformers, plain).from_dict(settings)
        return transformers.AutoImageProcessor.from_pretrained(
            source, trust_remote_code=False, **pillow, **where
        )
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"teacher {model} has no preprocessor_config.json that can be read, so how its images "
            "are scaled is unknown: save its image processor beside the weights with "
            "save_pretrained"
        ) from error


def _resize(size: Any) -> tuple[int, int] | int:
    shortest = size.get("shortest_edge")
    if shortest and not size.get("longest_edge"):
        return int(shortest)
    return _size(size)


def _size(size: Any) -> tuple[int, int]:
    height, width = size.get("height"), size.get("width")
    if not (height and width):
        raise ValueError(
            f"size {dict(size)} is neither a height and width nor a shortest edge alone"
        )
    return int(height), int(width)


def _convnext(edge: int, share: float) -> tuple[tuple[int, int] | int, tuple[int, int] | None]:
    """ConvNeXt's rule: below 384 crop a share of a larger image, above squeeze the whole."""
    return ((edge, edge), None) if edge >= 384 else (int(edge / share), (edge, edge))


def _triple(value: Any) -> tuple[float, float, float]:
    values = [float(v) for v in np.ravel(value)]
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue
