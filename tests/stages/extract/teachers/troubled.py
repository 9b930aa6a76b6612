"""A teacher whose worker runs out of files; that of the command does not."""

import os
import resource
from pathlib import Path
from typing import Any

from torch import nn

from tests.stages.extract.teachers import networks


def without_files(driver: int, while_there: str) -> nn.Module:
    """driver: process that is spared. while_there: a file with a number; as long as it is there, a
    worker opens no other file once it has encoded so many images at once."""
    network = networks.small()

    def exhaust(_: nn.Module, given: Any) -> None:
        marker = Path(while_there)
        if os.getpid() != driver and marker.exists() and len(given[0]) >= int(marker.read_text()):
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            # The lowest numbers are taken, and nothing above them is given.
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))

    network.register_forward_pre_hook(exhaust)
    return network
