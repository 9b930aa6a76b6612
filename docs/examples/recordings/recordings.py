"""IUSP on real recordings: what kind of telephone prompt is it? See README.md beside this file."""

import argparse
import re
import sys
import time
import wave
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from networks import FLOOR
from torch import Tensor
from torch.nn.functional import pad

import egapipe
from egapipe.stages.compare.command import table_lines

CONFIG = Path(__file__).with_name("recordings.yaml")
SOUNDS, DATA = Path("/usr/share/asterisk/sounds"), Path("data/recordings")  # DATA: of the YAML
GROUP = re.compile(r"(conf|confbridge|demo|dictate|digits|dir|letters|phonetic|queue|spy|vm)[-/]")
RATE, WINDOW, HOP, BANDS, FRAMES = 16_000, 400, 160, 40, 200
LOUDNESS = 10 ** (-30 / 20)  # of full scale: the teacher knows no quieter voices
MISSING = 3
QUICK = ("distill.epochs=2", "distill.eval_epochs=2", "compare.seeds=[0]")


class Recording(NamedTuple):
    """A prompt in one voice. name: of the prompt, the same in all of them."""

    file: Path
    voice: str
    name: str

    @property
    def group(self) -> str | None:
        """Its folder, or what its name begins with; None where that is a group of few."""
        found = GROUP.match(self.name)
        return found and found[1]

    @property
    def split(self) -> str:
        """Of a prompt, so that no voice says in one split what it says in the other. What has no
        group is learned from without a label."""
        return "test" if self.group and zlib.crc32(self.name.encode()) % 10 < 3 else "train"


def recordings(sounds: Path) -> list[Recording]:
    """All of them below the folders of the voices, which are no links."""
    voices = sorted(place for place in sounds.glob("*_*_*") if not place.is_symlink())
    found = [(file, voice) for voice in voices for file in sorted(voice.rglob("*.wav"))]
    return [Recording(f, v.name, f.relative_to(v).with_suffix("").as_posix()) for f, v in found]


def mel_filters() -> Tensor:
    """[201, 40]: triangles of equal area, their corners linear in Hz to 1 kHz, logarithmic above
    (Slaney's scale)."""
    mels = torch.linspace(0, 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4), BANDS + 2)
    hertz = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    low, middle, high = hertz[:-2], hertz[1:-1], hertz[2:]
    bins = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    slopes = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    return slopes.clamp(min=0) * 2 / (high - low)


def log_mels(file: Path, filters: Tensor) -> np.ndarray | None:
    """float32 [200, 40]: the first two seconds of a file of 16 bits at 8 kHz, or zeros behind its
    end. None for a file that is damaged or empty."""
    try:
        with wave.open(str(file)) as opened:
            numbers = np.frombuffer(opened.readframes(FRAMES * HOP // 2), "<i2")
    except (wave.Error, EOFError, ValueError):
        return None
    if not len(numbers):
        return None
    low = torch.fft.rfft(torch.from_numpy(numbers / 2**15).float())
    sound = 2 * torch.fft.irfft(pad(low, (0, len(numbers) + 1 - len(low))), 2 * len(numbers))
    sound = sound * max(1.0, LOUDNESS / max(sound.square().mean().sqrt().item(), FLOOR))
    sound, window = pad(sound, (0, FRAMES * HOP - len(sound))), torch.hann_window(WINDOW)
    waves = torch.stft(sound, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    return (waves.abs().square().mT[:FRAMES] @ filters + FLOOR).log().numpy()


def write(rows: list[Recording], file: Path) -> None:
    """A parquet file of them: what could not be read has no array, and fails in the extraction."""
    filters = mel_filters()
    mels = [log_mels(row.file, filters) for row in rows]
    lists = pa.array([m if m is None else m.ravel() for m in mels], pa.list_(pa.float32(), 8000))
    kind = pa.fixed_shape_tensor(pa.float32(), (FRAMES, BANDS))
    table = {
        "recording": [f"{row.voice}/{row.name}" for row in rows],
        "group": pa.array([row.group for row in rows], pa.string()),
        "mels": pa.ExtensionArray.from_storage(kind, lists),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), file, row_group_size=100)


def main() -> int:
    """Write the arrays, extract, compare; 3 where something has to be installed first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, to see that it runs")
    parser.add_argument("--sounds", type=Path, default=SOUNDS, help="the folder of the voices")
    options = parser.parse_args()
    found = recordings(options.sounds)[:: 10 if options.quick else 1]
    if not found:
        print(f"no voice in {options.sounds}: apt install asterisk-core-sounds-en-wav (es, fr ...)")
        return MISSING
    if find_spec("resemblyzer") is None:
        print("no package resemblyzer: pip install --no-deps resemblyzer")
        return MISSING
    began, sets = time.perf_counter(), QUICK if options.quick else ()
    for split in ("train", "test"):
        write([row for row in found if row.split == split], DATA / f"{split}.parquet")
    print(f"{len(found)} recordings as log-mels in {time.perf_counter() - began:.0f} s")
    for report in egapipe.extract(CONFIG, sets, local=True).report:
        print(
            f"{report.split}: {report.rows} rows, {report.failures} failed, {report.seconds:.0f} s"
        )
    print(*table_lines(egapipe.compare(CONFIG, sets).report), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
