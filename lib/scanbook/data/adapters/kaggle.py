"""Datasets from Kaggle, downloaded by kagglehub (an optional dependency) with the user's own credentials."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from scanbook.config import Study
from scanbook.errors import DataError
from scanbook.runtime import downloads

_COMPETITION = "competitions/"
_CREDENTIALS = (
    "create a token at https://www.kaggle.com/settings and set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, "
    "or put kaggle.json in ~/.kaggle"
)


def fetch(study: Study) -> Path:
    """Download a study's dataset into its folder in the data folder, completely or not at all.

    Where the platform already has the dataset, as the notebooks of Kaggle and Colab do, the folder is a link to it.

    Args:
        study: The study; its `dataset.kaggle` names the dataset. The download may be large: see the dataset's page.

    Returns:
        The folder, `study.location`. An existing folder is not changed.

    Raises:
        DataError: The study names no dataset of Kaggle, kagglehub, the credentials or the consent to the competition's
            rules are missing, the network is down, or the disk is full.
    """
    target, name = study.location, study.dataset.kaggle
    if target.exists():
        return target
    if not name:
        raise DataError(f"study {study.study} has no dataset.kaggle, so DATA=kaggle cannot fetch it; pass DATA=path")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise DataError(
            f"cannot write {target.parent} ({error.strerror}); set SCANBOOK_DATA to another folder"
        ) from error
    try:
        # Make reads what the planning command prints, so kagglehub's progress goes to standard error
        with contextlib.redirect_stdout(sys.stderr):
            downloaded = Path(_download(name, work / "data"))
        if not downloaded.is_dir() or not any(downloaded.iterdir()):
            raise DataError(f"Kaggle gave no files for {name}; correct dataset.kaggle in the study")
        if target.is_symlink():  # to a platform's copy that no longer exists
            target.unlink()
        if downloaded.is_relative_to(work):
            shutil.rmtree(downloaded / ".complete", ignore_errors=True)  # kagglehub's own marker
            os.rename(downloaded, target)
        else:
            target.symlink_to(downloaded.resolve(), target_is_directory=True)
    except OSError as error:
        raise DataError(f"cannot write {target} ({error.strerror or type(error).__name__}); make room there") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _download(name: str, folder: Path) -> str:
    """Return the folder of kagglehub's download. No message quotes kagglehub's own, which could contain the token."""
    try:
        import kagglehub
        from kagglehub.exceptions import DataCorruptionError, KaggleApiHTTPError, UnauthenticatedError
        from requests.exceptions import RequestException
    except ImportError:
        raise DataError('DATA=kaggle needs kagglehub: pip install "scanbook[kaggle]"') from None
    competition = name.startswith(_COMPETITION)
    page = f"https://www.kaggle.com/{name if competition else f'datasets/{name}'}"
    try:
        with downloads.limited():
            if competition:
                return kagglehub.competition_download(name.removeprefix(_COMPETITION), output_dir=str(folder))
            return kagglehub.dataset_download(name, output_dir=str(folder))
    except UnauthenticatedError:
        raise DataError(f"Kaggle needs credentials for {name}; {_CREDENTIALS}") from None
    except KaggleApiHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status == 401:
            raise DataError(f"Kaggle refuses the credentials for {name} (401); {_CREDENTIALS}") from None
        if status == 403 and competition:
            raise DataError(
                f"Kaggle does not let you download {name} (403); accept the rules at {page}/rules, and {_CREDENTIALS}"
            ) from None
        if status == 403:
            raise DataError(f"Kaggle does not let you download {name} (403); open {page}, and {_CREDENTIALS}") from None
        if status == 404:
            raise DataError(
                f"Kaggle has no {name} (404); correct dataset.kaggle in the study, or pass DATA=path"
            ) from None
        raise DataError(f"Kaggle cannot give {name} now (HTTP {status}); try again later, or pass DATA=path") from None
    except DataCorruptionError:
        raise DataError(f"the download of {name} from Kaggle was damaged in transfer; try again") from None
    except RequestException as error:
        silent = downloads.silent(error)
        reason = f"no answer within {downloads.SILENCE:g} s" if silent else type(error).__name__
        raise DataError(
            f"cannot reach Kaggle for {name} ({reason}); connect, or get it at {page} and pass DATA=path"
        ) from None
    except ValueError:
        raise DataError(
            f"Kaggle's credentials file or the name {name!r} is malformed; {_CREDENTIALS}, or correct dataset.kaggle"
        ) from None
