"""From a picture to the input of a network, as other libraries say it."""

from typing import Any

from egapipe.stages.distill.model.spec import StudentSpec

_BILINEAR = 2


def processor(spec: StudentSpec) -> dict[str, Any]:
    """The content of transformers' preprocessor_config.json.

    Of students that see the middle square it resizes first and crops then, whose pixels differ by
    less than one from those of training; of a frame that is no square transformers cannot say that,
    and the image is to be cropped before. `pipeline` turns pictures as EXIF says, and drops
    transparency instead of laying it on white.
    """
    height, width = spec.frame.size
    both = {"height": height, "width": width}
    common = {
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.levels.mean),
        "image_std": list(spec.levels.std),
        "do_resize": True,
        "resample": _BILINEAR,
    }
    if cropped(spec):
        return {
            "image_processor_type": "BitImageProcessor",
            **common,
            "size": {"shortest_edge": height},
            "do_center_crop": True,
            "crop_size": both,
        }
    return {"image_processor_type": "ViTImageProcessor", **common, "size": both}


def cropped(spec: StudentSpec) -> bool:
    """Whether a library resizes the shortest side and crops the middle; else it stretches."""
    return spec.aspect == "keep" and spec.frame.size[0] == spec.frame.size[1]


def class_names(spec: StudentSpec) -> list[str]:
    """A name for every class, its number where names are not known; of several equal ones the later
    have their number behind them, for libraries look classes up by name."""
    known = spec.class_names or []
    names: list[str] = []
    taken: set[str] = set()
    for number in range(spec.classes):
        name = known[number] if number < len(known) else str(number)
        name = name if name not in taken else f"{name} ({number})"
        taken.add(name)
        names.append(name)
    return names
