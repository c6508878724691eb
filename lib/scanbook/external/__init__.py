"""External validation: what a frozen bundle does on labelled images of another source, and how these differ."""

from scanbook.external.labels import map_labels
from scanbook.external.predicting import predict
from scanbook.external.sharing import find_shared
from scanbook.external.shift import feature_distance, find_shifts, fully_labelled, property_differences
from scanbook.external.sources import load_external, load_internal, open_bundle
from scanbook.external.validation import Validation, validate
