"""Studies: dataset, backbones and hyper-parameters, as validated YAML with three profiles and overrides.

A study file holds the values of the `quick` profile; its `profiles:` block holds the changes of `smoke` and `full`. The
resolved `Study` is frozen and travels through every stage.
"""

from scanbook.config.blocks import KAGGLE, Splits, Study
from scanbook.config.data import FolderData, MedMnistData, StandIn, SyntheticData, TableData
from scanbook.config.loading import PROFILES, load, studies, studies_dir
from scanbook.config.pretraining import Pretraining
from scanbook.config.reporting import Published
from scanbook.config.training import FineTuning, Head, Schedule, Sweep, Training
