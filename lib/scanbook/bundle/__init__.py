"""The bundle: a folder that holds an exported model and runs alone.

It holds the model in several formats, the class names, the image size, the thresholds, the test metrics, the cards, the
code that serves it, the files of a container, test pictures with the model's answers, and a checksum of every file. The
service and the notebooks read what they must agree on from here.

Each model takes uint8 RGB `(n, h, w, 3)`. It gives calibrated probabilities, float32 `(n, k)`, and one class-activation
map per class, float32 `(n, h', w', k)`, not normalised.
"""

from scanbook.bundle.card import FORMAT_NAMES, LANGUAGES, excluded_sentences, int8_sentence
from scanbook.bundle.container import PACKAGES
from scanbook.bundle.description import FILES, INT8, SUBFOLDER, Bundle, load, read, study_folder
from scanbook.bundle.writing import check_target, write
