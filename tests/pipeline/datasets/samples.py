"""Small real files to read: encoded images, parquet tables, folders."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from egapipe.pipeline.config.data import FolderSource, ParquetSource


def pixels(seed: int = 0, size: tuple[int, int] = (12, 10)) -> np.ndarray:
    """uint8 [H, W, 3], smooth enough for JPEG to keep and different for every seed."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    slopes = rng.uniform(-6, 6, (2, 3))
    plane = 128 + rows[..., None] * slopes[0] + columns[..., None] * slopes[1]
    return np.clip(plane, 0, 255).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def images(n: int, start: int = 0) -> list[bytes]:
    return [encode(pixels(seed)) for seed in range(start, start + n)]


def write_parquet(
    path: Path,
    data: Sequence[bytes | None],
    paths: Sequence[str | None] | None = None,
    schema_metadata: Mapping[str, str] | None = None,
    **columns: Sequence[Any],
) -> Path:
    """`img` {bytes, path} and further columns, as the hub's image data sets are laid out."""
    paths = paths if paths is not None else [None] * len(data)
    struct = [{"bytes": b, "path": p} for b, p in zip(data, paths, strict=True)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"img": pa.array(struct, kind), **columns})
    pq.write_table(table.replace_schema_metadata(schema_metadata), path)
    return path


def parquet(*files: Path, **fields: Any) -> ParquetSource:
    return ParquetSource(kind="parquet", files=[str(file) for file in files], **fields)


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def folder(path: Path, **fields: Any) -> FolderSource:
    return FolderSource(kind="folder", path=str(path), **fields)


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def write_tar(path: Path, members: Mapping[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            tar.addfile(member(name, len(data)), io.BytesIO(data))
        for info in others:
            tar.addfile(info)
    return path
