"""`python -m scanbook.serving [serve] [bundle]`: serves a bundle, in a container too."""

from __future__ import annotations

import argparse
import sys

from scanbook.errors import ScanbookError
from scanbook.serving.settings import add_options, chosen, find_bundle


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(
        prog="python -m scanbook.serving",
        description="Serve an exported bundle. Each option can be given as a variable, such as SCANBOOK_PORT, too.",
    )
    parser.add_argument(
        "bundle",
        nargs="?",
        default="",
        help="folder of the bundle (default: SCANBOOK_BUNDLE, /opt/ml/model, the folder of this code, or here)",
    )
    add_options(parser)
    given = sys.argv[1:]
    options = parser.parse_args(given[1:] if given[:1] == ["serve"] else given)  # SageMaker says `serve`
    try:
        from scanbook.serving.server import serve

        serve(find_bundle(options.bundle), chosen(options))
    except (ScanbookError, OSError) as error:  # an OSError is the machine's: port taken, no place for temporary files
        sys.exit(str(error))


if __name__ == "__main__":
    main()
