"""Members of a zip, read in place by threads and forked processes alike.

`zipfile` reads through one file position, which forked processes would share.
"""

import struct
import zipfile
import zlib
from pathlib import Path

from egapipe.pipeline.datasets.decoding.reading import read_slice
from egapipe.pipeline.disk.files import open_regular
from egapipe.pipeline.errors import ImageError, UsageError, one_line

_HEADER = struct.Struct("<4s22xHH")
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 1


class Zip:
    """The directory of a zip file, read once."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError if it is not a zip, or truncated."""
        self.path = path
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                files = (i for i in archive.infolist() if not i.filename.endswith("/"))
                self._members = {i.filename: i for i in files}
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise UsageError(f"zip {path} cannot be read: {one_line(error)}") from None
        self.names = list(self._members)

    def read(self, name: str) -> bytes:
        """The content of a member, its CRC checked.

        Raises ImageError if it is not there, damaged, encrypted or of a rare compression.
        """
        member = self._members.get(name)
        if member is None:
            raise ImageError(f"the zip has no member {name}")
        if member.flag_bits & _ENCRYPTED:
            raise ImageError("the zip's member is encrypted")
        header = read_slice(self.path, member.header_offset, _HEADER.size)
        signature, name_size, extra_size = _HEADER.unpack(header)
        if signature != _SIGNATURE:
            raise ImageError("the zip is damaged: no header where its directory says")
        offset = member.header_offset + _HEADER.size + name_size + extra_size
        data = _inflated(member, read_slice(self.path, offset, member.compress_size))
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise ImageError("the zip is damaged: the member's checksum does not fit")
        return data


def _inflated(member: zipfile.ZipInfo, data: bytes) -> bytes:
    if member.compress_type == zipfile.ZIP_STORED:
        return data
    if member.compress_type != zipfile.ZIP_DEFLATED:
        raise ImageError("the zip's member is neither stored nor deflated")
    try:
        # No more than the directory promises, whatever the data would grow to.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.file_size + 1)
    except zlib.error:
        raise ImageError("the zip is damaged: its data cannot be inflated") from None
