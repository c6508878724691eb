"""External validation by a command: a bundle on a study's images, or a study's model on the source that it names."""

from __future__ import annotations

from pathlib import Path

from scanbook import bundle as bundles
from scanbook.config import Study
from scanbook.errors import RunError
from scanbook.reporting import suite
from scanbook.runner import execute
from scanbook.runner.freshness import Batch, check_data, check_sources


def run(study: Study, overrides: str, bundle: str) -> Path:
    """Run notebook 08 where its report is stale, and return the path of the report.

    Args:
        study: Study of the other source, or one that names another source.
        overrides: The `key=value` pairs that it was resolved with.
        bundle: Folder of a bundle, for which the study's images are the other source; "" for the study's own model.

    Raises:
        RunError: Neither a bundle nor another source is named, or the notebook failed.
        BundleError: The folder is not a whole bundle.
        DataError: Images are missing.
    """
    if not bundle and not study.external.study:
        raise RunError(
            f"study {study.study} names no other source; name a bundle, whose other source its images then are: "
            f"make validate STUDY={study.study} BUNDLE=path, or write external: {{study: name}} into its file"
        )
    folder = ""
    if bundle:
        check_data(study)
        folder = str(bundles.read(Path(bundle).expanduser()).folder)
    else:
        check_sources(study)
    return execute.run(Batch(study, overrides, bundle=folder), suite.EXTERNAL, if_stale=True)
