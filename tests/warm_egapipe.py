"""`egapipe` for the shells of tests: forked from their process that has its libraries."""

import sys

from tests import warm

if __name__ == "__main__":
    files = {"stdout": sys.stdout, "stderr": sys.stderr}
    sys.exit(warm.Process("egapipe.pipeline.cli", sys.argv[1:], **files).wait())
