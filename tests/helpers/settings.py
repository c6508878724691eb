"""A user whose machine has settings of their own for nearly every library that scanbook uses."""

from __future__ import annotations

import json
from pathlib import Path

KERAS = {"floatx": "float16", "epsilon": 0.01, "backend": "torch", "image_data_format": "channels_first"}
MATPLOTLIBRC = """
text.usetex: True
axes.facecolor: black
axes.prop_cycle: cycler(color=['white'])
figure.dpi: 30
font.family: monospace
image.cmap: hot
text.color: white
savefig.bbox: tight
savefig.dpi: 20
savefig.transparent: True
svg.fonttype: none
"""
STARTUP = "import numpy\nnumpy.random.seed = None\nraise RuntimeError('a startup file')\n"
VARIABLES = {
    "FORCE_COLOR": "1",
    "JUPYTER_DEFAULT_PROVISIONER_NAME": "remote",
    "KERAS_BACKEND": "openvino",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "2",
    "MPLBACKEND": "module://backend_interagg",
    "NPY_PROMOTION_STATE": "weak_and_warn",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "OPENCV_IO_MAX_IMAGE_PIXELS": "1000",
    "PANDAS_FUTURE": "upcoming",
    "PYTHONIOENCODING": "ascii",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "SCIPY_ARRAY_API": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "TQDM_MININTERVAL": "often",
}
"""Variables of libraries, each of which changed a number or a page, or stopped a run, or could."""


def all_at_once(home: Path) -> dict[str, str]:
    """Write every file of settings below a home folder; return the variables of a process that has them all."""
    profile = home / ".ipython" / "profile_default"
    template = home / ".local" / "share" / "jupyter" / "nbconvert" / "templates" / "base"
    files = {
        home / ".keras" / "keras.json": json.dumps(KERAS),
        home / ".config" / "matplotlib" / "matplotlibrc": MATPLOTLIBRC,
        home / "matplotlibrc": MATPLOTLIBRC,
        home / ".pythonrc": STARTUP,
        profile / "startup" / "00.py": STARTUP,
        profile / "ipython_kernel_config.py": "c = get_config()\nc.InteractiveShellApp.exec_lines = ['1 / 0']\n",
        home / ".jupyter" / "jupyter_nbconvert_config.py": "raise RuntimeError('a setting of nbconvert')\n",
        template / "conf.json": "{}",
        template / "display_priority.j2": "a template of the user's own",
        home / ".local" / "share" / "jupyter" / "kernels" / "python3" / "kernel.json": json.dumps(
            {"argv": ["/no/such/python"], "display_name": "Python 3", "language": "python"}
        ),
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    named = {
        "IPYTHONDIR": str(home / ".ipython"),
        "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
        "JUPYTER_PATH": str(home / ".local" / "share" / "jupyter"),
        "MATPLOTLIBRC": str(home / "matplotlibrc"),
        "PYTHONSTARTUP": str(home / ".pythonrc"),
    }
    return VARIABLES | named
