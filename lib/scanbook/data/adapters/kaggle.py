"""Datasets from Kaggle, with the user's own credentials, through kagglehub, an extra."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from scanbook.config import Study
from scanbook.errors import DataError

_COMPETITION = "competitions/"
_CREDENTIALS = (
    "create a token at https://www.kaggle.com/settings and set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, "
    "or put kaggle.json in ~/.kaggle"
)


def fetch(study: Study) -> Path:
    """Downloads a study's dataset into its folder in the data folder, whole or not at all.

    Where the platform has the dataset already, as Kaggle's and Colab's notebooks have, the folder is a link to it.

    Args:
        study: The study; its `dataset.kaggle` names what to download. It may be large: see the dataset's page.

    Returns:
        The folder, `study.location`. A folder that is there already is left as it is.

    Raises:
        DataError: The study names no dataset of Kaggle, kagglehub is missing, the credentials or the consent to the
            competition's rules are, the network is down, or the disk is full.
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
        # Make reads what the planning command prints; kagglehub's progress must not be part of it
        with contextlib.redirect_stdout(sys.stderr):
            found = Path(_download(name, work / "data"))
        if not found.is_dir() or not any(found.iterdir()):
            raise DataError(f"Kaggle gave no files for {name}; correct dataset.kaggle in the study")
        if target.is_symlink():  # to a platform's copy that is gone
            target.unlink()
        if found.is_relative_to(work):
            shutil.rmtree(found / ".complete", ignore_errors=True)  # kagglehub's own mark
            os.rename(found, target)
        else:
            target.symlink_to(found.resolve(), target_is_directory=True)
    except OSError as error:
        raise DataError(f"cannot write {target} ({error.strerror or type(error).__name__}); make room there") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _download(name: str, folder: Path) -> str:
    """Where kagglehub put the files. No message quotes kagglehub's: it could hold what the user's token opens."""
    try:
        import kagglehub
        from kagglehub.exceptions import DataCorruptionError, KaggleApiHTTPError, UnauthenticatedError
        from requests.exceptions import RequestException
    except ImportError:
        raise DataError('DATA=kaggle needs kagglehub: pip install "scanbook[kaggle]"') from None
    competition = name.startswith(_COMPETITION)
    page = f"https://www.kaggle.com/{name if competition else f'datasets/{name}'}"
    try:
        if competition:
            return kagglehub.competition_download(name.removeprefix(_COMPETITION), output_dir=str(folder))
        return kagglehub.dataset_download(name, output_dir=str(folder))
    except UnauthenticatedError:
        raise DataError(f"Kaggle asks who you are before it gives {name}; {_CREDENTIALS}") from None
    except KaggleApiHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status == 401:
            raise DataError(f"Kaggle refuses the credentials given for {name} (401); {_CREDENTIALS}") from None
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
        raise DataError(f"the download of {name} from Kaggle was damaged on its way; try again") from None
    except RequestException as error:
        raise DataError(
            f"cannot reach Kaggle for {name} ({type(error).__name__}); connect, or get it at {page} and pass DATA=path"
        ) from None
    except ValueError:
        raise DataError(
            f"Kaggle's credentials file or the name {name!r} is malformed; {_CREDENTIALS}, or correct dataset.kaggle"
        ) from None
