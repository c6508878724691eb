"""The `scanbook` command behind the Makefile.

Only what a subcommand needs is imported, so that `scanbook plan` answers at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from scanbook import runtime, study, usage
from scanbook.errors import NotebookError, RunError, ScanbookError
from scanbook.runner import order, planning
from scanbook.runner.freshness import METRICS, Batch, at_hand, check_data
from scanbook.serving import settings
from scanbook.study import KAGGLE


def _batches(options: argparse.Namespace) -> list[Batch]:
    """The studies that a command names; says which of all are left out."""
    found, left_out = planning.batches(options.study, options.profile, options.data, options.set)
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})", file=sys.stderr)
    return found


def _planned(options: argparse.Namespace) -> list[Batch]:
    """The same, their data checked; says what is to be run."""
    from scanbook.runner import making

    found = _batches(options)
    for batch in found:
        check_data(batch.study)
    if options.data == KAGGLE:  # what was downloaded just now counts
        found = _batches(options)
    making.announce(found)
    return found


def _plan(options: argparse.Namespace) -> None:
    """Rules for Make on stdout, what they will do on stderr."""
    print(planning.makefile(_planned(options), options.launch), end="")


def _reports(options: argparse.Namespace) -> int:
    from scanbook.runner import making

    return 0 if making.make(_planned(options), options.jobs, options.launch) else 1


def _status(options: argparse.Namespace) -> None:
    from scanbook.runner import status

    for batch in _batches(options):
        print("\n".join(status.lines(batch)))


def _run(options: argparse.Namespace) -> None:
    order.path(options.notebook)
    chosen = study.load(options.study, options.profile, options.data, options.set)
    check_data(chosen)
    from scanbook.runner import execute

    execute.run(Batch(chosen, options.set), options.notebook, options.if_stale)


def _cache(options: argparse.Namespace) -> None:
    from scanbook.runner import cache

    if options.all or options.prune or options.to:
        print(cache.prune(0 if options.all else cache.size(options.to) if options.to else runtime.store_limit()))
    print("\n".join(cache.lines()))


def _index(options: argparse.Namespace) -> None:
    from scanbook.runner import index

    print(index.write())


def _studies(options: argparse.Namespace) -> None:
    for name in study.studies():
        each = study.load(name)
        ready = "ready" if at_hand(each) else f"no data at {each.location}"
        state = "on drawn stand-ins" if each.on_stand_in else ready
        print(f"{name:16} {each.title} ({state})")


def _reference(options: argparse.Namespace) -> None:
    from scanbook.study import reference

    print(reference.markdown(), end="")


def _lint(options: argparse.Namespace) -> None:
    from scanbook.authoring import contract

    given = [Path(each) for each in options.paths] or [runtime.project_root() / "notebooks"]
    found = [path for each in given for path in (sorted(each.glob("*.ipynb")) if each.is_dir() else [each])]
    lines = contract.lint([Path(os.path.relpath(path)) for path in found])
    print("".join(f"{line}\n" for line in lines), end="")
    if lines:
        raise NotebookError(f"{len(lines)} findings in {len(found)} notebooks; mend them as the lines above say")


def _new_notebook(options: argparse.Namespace) -> None:
    from scanbook.authoring import notebooks

    print(f"{notebooks.create(options.name)}: a notebook that runs; open it with make lab, check it with make lint")


def _new_study(options: argparse.Namespace) -> None:
    from scanbook.authoring import studies

    made = studies.create(options.name, options.data)
    found = made.manifest.frame["label"].value_counts()
    counts = ", ".join(f"{label}: {found[label]}" for label in made.manifest.classes)
    aside = f", none from {', '.join(made.unread)}" if made.unread else ""
    place = f" DATA={shlex.quote(options.data)}" if options.data else ""
    print(
        f"{made.path}: {len(made.manifest.frame)} images ({counts}){aside}; "
        f"run it with make reports STUDY={options.name}{place}"
    )


def _export(options: argparse.Namespace) -> None:
    chosen = study.load(options.study, options.profile, options.data, options.set)
    from scanbook import bundle, export

    usual = bundle.of_study(chosen.study, chosen.profile)
    folder = Path(options.to).expanduser().resolve() if options.to else usual
    from scanbook.runner import locks

    with locks.hold(folder.parent / ".lock") if folder == usual else nullcontext():
        made = export.make(chosen, folder)
        if folder == usual:  # what the notebook reported there was another export
            (folder.parent / METRICS).unlink(missing_ok=True)
    print(f"{chosen.study}/{chosen.profile}: exported to {folder}. {export.said(made.bundle)}")


def _train(options: argparse.Namespace) -> None:
    from scanbook import jobs

    chosen = study.load(options.study, options.profile, options.data, options.set)
    check_data(chosen)
    addresses = [each for each in options.addresses.split(",") if each]
    if addresses and not 0 <= options.process < len(addresses):
        raise RunError(f"--process is {options.process}, expected 0 to {len(addresses) - 1}, its place in --addresses")
    wanted = jobs.Wanted(options.backbone, options.from_scratch, options.policy, options.seed)
    record = Path(options.record).expanduser().resolve() if options.record else None
    if jobs.distribution(options.distribute, addresses) == "none":
        if options.prepare:
            jobs.networks(chosen, wanted)
        else:
            jobs.train(chosen, wanted, record)
        return
    command = [sys.executable, "-m", "scanbook.cli", "train", options.study, "--distribute", "none"]
    for key in ("profile", "data", "set", "backbone", "policy", "seed", "record"):
        value = getattr(options, key)
        command += [] if value in ("", None) else [f"--{key}={value}"]
    command += ["--from-scratch"] if options.from_scratch else []
    jobs.train_together(chosen, command, wanted, addresses=addresses, process=options.process if addresses else None)


def _sweep(options: argparse.Namespace) -> int:
    from scanbook import sweeps

    chosen = study.load(options.study, options.profile, options.data, options.set)
    check_data(chosen)
    return 0 if sweeps.run(Batch(chosen, options.set), options.jobs, options.launch) else 1


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


def _projection(options: argparse.Namespace) -> None:
    from scanbook.performance import projecting

    machines = [name for name in options.machines.split(",") if name]
    plan = projecting.Plan(
        options.studies, machines, options.nodes, options.network, price=options.price, quick=options.quick
    )
    print(projecting.project(plan))


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


def _parser() -> argparse.ArgumentParser:
    profile = argparse.ArgumentParser(add_help=False)
    profile.add_argument(
        "--profile", default="", help=f"{', '.join(study.PROFILES)} (default: SCANBOOK_PROFILE, else quick)"
    )
    which = argparse.ArgumentParser(add_help=False, parents=[profile])
    which.add_argument("--study", default="drawn", help="a file of notebooks/studies, without .yaml (default: drawn)")
    several = argparse.ArgumentParser(add_help=False, parents=[profile])
    several.add_argument("--study", default="drawn", help="such files, as in a,b,c, or all (default: drawn)")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", default="", help="folder or file of the dataset (default: its folder in data/)")
    data.add_argument("--set", default="", metavar="'KEY=VALUE …'", help="overrides, such as fine_tuning.epochs=3")

    parser = argparse.ArgumentParser(
        prog="scanbook", description="Notebook research suite for medical image classification."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, do, shared, options, about in (
        ("reports", _reports, (several, data), usage.reports, "run every notebook whose report is stale"),
        ("status", _status, (several, data), usage.none, "say which reports are fresh, stale, failed or missing"),
        ("plan", _plan, (several, data), usage.launch, "rules of Make for the notebooks whose reports are stale"),
        ("run", _run, (which, data), usage.run, "run one notebook into its report"),
        ("cache", _cache, (), usage.cache, "list what the store holds, and make it smaller"),
        ("index", _index, (), usage.none, "write reports/index.html anew"),
        ("studies", _studies, (), usage.none, "list the studies"),
        ("reference", _reference, (), usage.none, "print every key of a study, as Markdown"),
        ("lint", _lint, (), usage.lint, "check notebooks against their contract"),
        ("new-notebook", _new_notebook, (), usage.new_notebook, "write a notebook to go on from"),
        ("new-study", _new_study, (), usage.new_study, "write a study of a folder of images"),
        ("export", _export, (which, data), usage.export, "write a study's model as a bundle, which runs alone"),
        (
            "train",
            _train,
            (profile, data),
            usage.train,
            "train a study's networks, by several processes or GPUs, too",
        ),
        (
            "sweep",
            _sweep,
            (which, data),
            usage.reports,
            "train a study's grid of networks, each as a run of its own",
        ),
        ("serve", _serve, (which,), usage.serve, "serve an exported model over HTTP"),
        ("latency", _latency, (), usage.latency, "how fast a service answers, and what a prediction costs there"),
        ("bench", _bench, (), usage.bench, "measure scanbook against the usual practice"),
        (
            "projection",
            _projection,
            (),
            usage.projection,
            "project what whole studies would take on other machines",
        ),
        ("pretrain", _pretrain, (), usage.none, "train the weights that come with scanbook"),
    ):
        command = commands.add_parser(name, parents=list(shared), help=about)
        command.add_argument("--traceback", action="store_true", help="show where an error came from")
        options(command)
        command.set_defaults(do=do)
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
        return options.do(options) or 0
    except KeyboardInterrupt:
        print("scanbook: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads our output has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere, without a word
        return 1
    except (ScanbookError, OSError) as error:  # an OSError is the machine's: disk full, port taken, folder read-only
        if options.traceback or os.environ.get("SCANBOOK_TRACEBACK"):
            traceback.print_exc()
        print(f"scanbook: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
