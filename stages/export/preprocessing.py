"""From a picture to the input of an exported student: said once, in a file of the folder.

It is what `egapipe predict` does (`decode`, then `clean_view`) for programs that have no egapipe.
ONNX and torch.export files, which may travel alone, have the same inside.
"""

from typing import Any

from egapipe.stages.distill.model.spec import StudentSpec

KEY = "preprocessing"
"""Of the ONNX file's metadata."""


def preprocessing(spec: StudentSpec) -> dict[str, Any]:
    """The steps from an image file to a row of the input, as JSON, in their order."""
    height, width = spec.frame.size
    return {
        "orientation": "turned as EXIF says",
        "transparency": {"laid_on": [255, 255, 255]},
        "grey_of_16_bits": {"divided_by": 257, "rounded": True},
        "colours": "RGB, without colour profiles",
        "crop": "the middle square" if spec.aspect == "keep" else None,
        "resize": {"height": height, "width": width, "resample": "bilinear", "crop": None},
        "input": {"type": "uint8", "shape": ["batch", 3, height, width], "range": [0, 255]},
        "normalisation": "inside the student",
    }


def snippet(file: str) -> list[str]:
    """Lines of Python that read a picture and run an ONNX file, with numpy and Pillow alone."""
    return f'''import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{file}")
about = json.loads(session.get_modelmeta().custom_metadata_map["{KEY}"])
size = about["resize"]["width"], about["resize"]["height"]


def read(path):
    image = Image.open(path)
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (*about["transparency"]["laid_on"], 255))
        image = Image.alpha_composite(paper, image)
    image = image.convert("RGB")
    if about["crop"]:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


batch = np.stack([np.asarray(read("photo.jpg")).transpose(2, 0, 1)])
logits, nodes, features = session.run(None, {{"images": batch}})'''.splitlines()
