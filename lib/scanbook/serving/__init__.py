"""The Flask application that runs a bundle; it imports neither TensorFlow nor Keras nor pandas.

Its parts are imported when they are first asked for: a command line that only lists its options needs none of them.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "Prediction": "predictor",
    "Predictor": "predictor",
    "Settings": "settings",
    "create_app": "app",
    "serve": "server",
}
__all__ = ["Prediction", "Predictor", "Settings", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    if name == "app":
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
