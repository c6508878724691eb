"""`python -m scanbook.serving [bundle]`: serves the bundle in the working directory, or another one."""

from __future__ import annotations

import argparse
import sys

from scanbook.errors import ScanbookError
from scanbook.serving import serve


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(prog="python -m scanbook.serving", description="Serve an exported bundle.")
    parser.add_argument("bundle", nargs="?", default=".", help="folder of the bundle (default: here)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=4, help="requests at a time in each process")
    options = parser.parse_args()
    try:
        serve(options.bundle, options.host, options.port, options.workers, options.threads)
    except ScanbookError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
