"""`python -m scanbook.serving [serve|check] [bundle]`: serve or check a bundle, also in a container."""

from __future__ import annotations

import argparse
import sys

from scanbook.errors import ScanbookError
from scanbook.serving.settings import add_options, find_bundle, from_options


def main() -> None:
    """Read the command line, and serve or check a bundle."""
    parser = argparse.ArgumentParser(
        prog="python -m scanbook.serving",
        description="Serve an exported bundle, or check it and its answers (check, as the first word). "
        "A variable can replace each option, such as SCANBOOK_PORT.",
    )
    parser.add_argument(
        "bundle",
        nargs="?",
        default="",
        help="folder of the bundle (default: SCANBOOK_BUNDLE, /opt/ml/model, or the folder of this code)",
    )
    add_options(parser)
    words = sys.argv[1:]
    options = parser.parse_args(words[1:] if words[:1] in (["serve"], ["check"]) else words)  # SageMaker adds `serve`
    try:
        if words[:1] == ["check"]:
            from scanbook.bundle.checking import check

            print(check(find_bundle(options.bundle)))
            return
        from scanbook.serving.server import serve

        serve(find_bundle(options.bundle), from_options(options))
    except (ScanbookError, OSError) as error:  # OSError: the port is taken, or there is no folder for temporary files
        sys.exit(str(error))


if __name__ == "__main__":
    main()
