"""What runs on the cluster: check the folders, then the command as a user would type it."""

import json
import sys
from pathlib import Path

from egapipe.pipeline import cli
from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.extract import ClusterConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.cluster import ray_session
from egapipe.stages.submit.package import CONFIG, ORDER
from egapipe.stages.submit.visible import check_visible


def main() -> None:
    """Run the order in the working directory; the exit code is the command's."""
    order = json.loads(Path(ORDER).read_text("utf-8"))
    configured = Path(CONFIG).is_file()
    cluster = load_config(CONFIG).cluster if configured else ClusterConfig()
    # Joined once: what the command starts finds this process connected.
    with ray_session(cluster):
        try:
            check_visible(order["visible"])
        except UsageError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
        config = ["-c", CONFIG] if configured else []
        sys.argv = ["egapipe", order["command"], *config, *order["arguments"]]
        cli.main()


if __name__ == "__main__":
    main()
