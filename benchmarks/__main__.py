"""Measure scanbook and the usual practice of the field: `python -m benchmarks`, which `make bench` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import runner
from scanbook.errors import ScanbookError


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", default="", metavar="NAME,…", help="what to measure (default: all but streaming)")
    parser.add_argument("--pairs", type=int, default=0, help="measurements of each side (default: 3)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures mean nothing")
    parser.add_argument("--data", default="", help="folder with JPEG files to decode (default: synthetic ones)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print where its page is.

    Args:
        arguments: Words after the command; None for those of the process.

    Returns:
        Exit status: 0 when all went well, 1 after a line on stderr that says what did not.
    """
    options = make_parser().parse_args(arguments)
    rows = [name for name in options.rows.replace(",", " ").split() if name]
    data = Path(options.data).expanduser().resolve() if options.data else None
    try:
        print(runner.bench(rows, pairs=options.pairs, quick=options.quick, data=data))
    except (ScanbookError, OSError) as error:
        print(f"scanbook: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
