"""Studies: which dataset, backbones and hyper-parameters, as validated YAML with three profiles and overrides.

A study file holds the values of the `quick` profile; its `profiles:` block says what `smoke` and `full` change. The
resolved `Study` is frozen and travels through every stage.
"""

from scanbook.study.blocks import KAGGLE, Parts, Study
from scanbook.study.data import DrawnData, FolderData, MedMnistData, StandIn, TableData
from scanbook.study.loading import PROFILES, load, studies, studies_dir
from scanbook.study.reporting import Published
from scanbook.study.training import FineTuning, Head, Schedule, Segmentation, Sweep, Training

__all__ = [
    "KAGGLE",
    "PROFILES",
    "DrawnData",
    "FineTuning",
    "FolderData",
    "Head",
    "MedMnistData",
    "Parts",
    "Published",
    "Schedule",
    "Segmentation",
    "StandIn",
    "Study",
    "Sweep",
    "TableData",
    "Training",
    "load",
    "studies",
    "studies_dir",
]
