"""One `predict(images)` over the engines that run a model: OpenVINO, Keras, TensorFlow and, as extras, ONNX and LiteRT.

An engine is thread-safe and takes uint8 RGB `(n, h, w, 3)`. None of them is imported before it is used: a service that
runs one has none of the others.
"""

from scanbook.models.engines.base import (
    INT8_LOSS,
    PARITY,
    Engine,
    Mode,
    Precision,
    centred_log,
    chunks,
    parity,
    predict_rows,
    rejection_reason,
    size_on_disk,
)
from scanbook.models.engines.keras import KerasEngine, SavedModelEngine, to_saved_model
from scanbook.models.engines.litert import LiteRtEngine, to_litert, to_litert_int8
from scanbook.models.engines.onnx import OnnxEngine, to_onnx
from scanbook.models.engines.opening import open_saved
from scanbook.models.engines.openvino import OpenVinoEngine, save_openvino, to_openvino
from scanbook.models.engines.quantising import quantise
