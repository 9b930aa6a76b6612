"""A teacher of which a view takes a known amount of memory, and a process that has a known one."""

import resource
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

MIB = 2**20
VIEW_BYTES = 24 * MIB


class Hungry(nn.Module):
    """Needs 24 MiB for each image of a batch, all at once."""

    def forward(self, x: Tensor) -> Tensor:
        means = x.flatten(1).mean(dim=1)[:, None]
        wide = torch.empty(len(x), VIEW_BYTES // 4)
        # In pages that are really there.
        wide[:] = means
        return wide[:, :4] * torch.arange(1.0, 5.0)


def build() -> nn.Module:
    return Hungry()


def extract_within(limit: int, options: list[str]) -> None:
    """Extract a split in this process, which gets so many bytes more from the start on."""
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.terminal.progress import open_progress
    from egapipe.stages import extract

    [extraction] = extract.prepare(load_config("quickstart", options), ["train"])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + limit
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    extraction.run(local=True, progress=open_progress)


if __name__ == "__main__":
    extract_within(int(sys.argv[1]), sys.argv[2:])
