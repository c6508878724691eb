"""The Flask application that runs a bundle; it imports neither TensorFlow nor Keras nor pandas."""

from scanbook.serving.app import create_app
from scanbook.serving.predictor import Prediction, Predictor
from scanbook.serving.server import serve

__all__ = ["Prediction", "Predictor", "create_app", "serve"]
