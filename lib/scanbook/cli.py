"""The `scanbook` command behind the Makefile.

Only what a subcommand needs is imported, so that `scanbook plan` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from scanbook import runtime, study
from scanbook.errors import RunError, ScanbookError
from scanbook.runner import order
from scanbook.runner.freshness import METRICS, Batch
from scanbook.serving import settings


def _batch(options: argparse.Namespace) -> Batch:
    return Batch(study.load(options.study, options.profile, options.data, options.set), options.set)


def _plan(options: argparse.Namespace) -> None:
    """Rules for Make on stdout, what they will do on stderr."""
    batch = _batch(options)
    rules = batch.makefile()
    stale, where = batch.stale(), f"{batch.study.study}/{batch.study.profile}"
    if stale:
        print(f"{where}: {len(stale)} of {len(order.NOTEBOOKS)} notebooks to run: {', '.join(stale)}", file=sys.stderr)
    else:
        page = runtime.reports_dir() / "index.html"
        print(f"{where}: all {len(order.NOTEBOOKS)} reports are fresh: {page}", file=sys.stderr)
    print(rules, end="")


def _run(options: argparse.Namespace) -> None:
    batch = _batch(options)
    order.path(options.notebook)
    from scanbook.runner import execute

    execute.run(batch, options.notebook)


def _index(options: argparse.Namespace) -> None:
    from scanbook.runner import index

    print(index.write())


def _studies(options: argparse.Namespace) -> None:
    for name in study.studies():
        each = study.load(name)
        here = each.dataset.adapter == "drawn" or each.location.exists()
        state = "on drawn stand-ins" if each.on_stand_in else "ready" if here else f"no data at {each.location}"
        print(f"{name:16} {each.title} ({state})")


def _export(options: argparse.Namespace) -> None:
    chosen = study.load(options.study, options.profile, options.data, options.set)
    from scanbook import bundle, export

    usual = bundle.of_study(chosen.study, chosen.profile)
    folder = Path(options.to).expanduser().resolve() if options.to else usual
    made = export.make(chosen, folder)
    if folder == usual:  # what the notebook reported there was another export
        (folder.parent / METRICS).unlink(missing_ok=True)
    print(f"{chosen.study}/{chosen.profile}: exported to {folder}. {export.said(made.bundle)}")


def _serve(options: argparse.Namespace) -> None:
    from scanbook import bundle, serving

    if options.bundle:
        folder = Path(options.bundle).expanduser().resolve()
    else:
        chosen = study.load(options.study, options.profile)
        folder = bundle.of_study(chosen.study, chosen.profile)
    if not folder.is_dir():
        raise RunError(
            f"no bundle at {folder}; export one with make reports STUDY={options.study}, "
            "or name another folder with make serve BUNDLE=path"
        )
    serving.serve(folder, settings.chosen(options))


def _bench(options: argparse.Namespace) -> None:
    from scanbook.performance import running

    rows = [name for name in options.rows.replace(",", " ").split() if name]
    data = Path(options.data).expanduser().resolve() if options.data else None
    print(running.bench(rows, pairs=options.pairs, quick=options.quick, data=data))


def _pretrain(options: argparse.Namespace) -> None:
    from scanbook import pretraining

    pretraining.pretrain()


def _latency(options: argparse.Namespace) -> None:
    from scanbook.benchmark import client, latency

    files = [Path(name).expanduser() for name in options.image]
    asked = client.target(options.url, files, options.field, options.header)
    plan = latency.Plan(
        requests=options.requests,
        interval=options.interval,
        warm_up=options.warm_up,
        concurrency=latency.counts(options.concurrency),
        seconds=options.seconds,
        price=options.price,
    )
    latency.run(asked, plan, Path(options.output) if options.output else None)


def _latency_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("url", help="where a prediction is asked for, such as http://127.0.0.1:8080/predict")
    command.add_argument("--requests", type=int, default=25, help="sequential requests; 0 for none (default: 25)")
    command.add_argument("--interval", type=float, default=5, help="seconds between them (default: 5)")
    command.add_argument("--price", type=float, help="what an hour of the service's machine costs, in USD")
    command.add_argument(
        "--concurrency", default="", metavar="1,2,4,8", help="load test: clients at a time (default: no load test)"
    )
    command.add_argument("--seconds", type=float, default=10, help="of a window of the load test (default: 10)")
    command.add_argument(
        "--image", nargs="+", default=[], metavar="FILE", help="posted in turn (default: one that scanbook draws)"
    )
    command.add_argument("--field", default="", help="form field that takes the file (default: the file is the body)")
    command.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header more; can be repeated"
    )
    command.add_argument("--warm-up", type=int, default=3, help="requests before, which do not count (default: 3)")
    command.add_argument("--output", default="", metavar="FILE.json", help="file for the figures")
    command.set_defaults(do=_latency)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error came from")
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--study", default="drawn", help="a file of notebooks/studies, without .yaml (default: drawn)")
    which.add_argument(
        "--profile", default="", help=f"{', '.join(study.PROFILES)} (default: SCANBOOK_PROFILE, else quick)"
    )
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", default="", help="folder or file of the dataset (default: its folder in data/)")
    data.add_argument("--set", default="", metavar="'KEY=VALUE …'", help="overrides, such as fine_tuning.epochs=3")

    parser = argparse.ArgumentParser(
        prog="scanbook", description="Notebook research suite for medical image classification."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "plan", parents=[common, which, data], help="rules of Make for the notebooks whose reports are stale"
    )
    command.set_defaults(do=_plan)
    command = commands.add_parser("run", parents=[common, which, data], help="run one notebook into its report")
    command.add_argument("notebook", help=f"one of {', '.join(order.NOTEBOOKS)}")
    command.set_defaults(do=_run)
    command = commands.add_parser("index", parents=[common], help="write reports/index.html anew")
    command.set_defaults(do=_index)
    command = commands.add_parser("studies", parents=[common], help="list the studies")
    command.set_defaults(do=_studies)
    command = commands.add_parser(
        "export", parents=[common, which, data], help="write a study's model as a bundle, which runs alone"
    )
    command.add_argument("--to", default="", help="folder of the bundle (default: that of notebook 07_export_flask)")
    command.set_defaults(do=_export)
    command = commands.add_parser("serve", parents=[common, which], help="serve an exported model over HTTP")
    command.add_argument(
        "bundle", nargs="?", default="", help="folder of the bundle (default: that of the study and profile)"
    )
    settings.add_options(command)
    command.set_defaults(do=_serve)
    command = commands.add_parser(
        "latency", parents=[common], help="how fast a service answers, and what a prediction costs there"
    )
    _latency_options(command)
    command = commands.add_parser("bench", parents=[common], help="measure scanbook against the usual practice")
    command.add_argument("--rows", default="", metavar="NAME,…", help="rows of the table to measure (default: all)")
    command.add_argument("--pairs", type=int, default=0, help="measurements of each side (default: 3)")
    command.add_argument("--quick", action="store_true", help="tiny sizes, whose figures mean nothing")
    command.add_argument("--data", default="", help="folder with JPEG files to decode (default: drawn ones)")
    command.set_defaults(do=_bench)
    command = commands.add_parser("pretrain", parents=[common], help="train the weights that come with scanbook")
    command.set_defaults(do=_pretrain)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Words after `scanbook`; None for those of the process.

    Returns:
        Exit status: 0 when all went well, 1 after a line on stderr that says what did not, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        options.do(options)
    except KeyboardInterrupt:
        print("scanbook: interrupted", file=sys.stderr)
        return 130
    except (ScanbookError, OSError) as error:  # an OSError is the machine's: disk full, port taken, folder read-only
        if options.traceback or os.environ.get("SCANBOOK_TRACEBACK"):
            traceback.print_exc()
        print(f"scanbook: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
