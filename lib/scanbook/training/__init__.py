"""Training: a head on frozen features, a network from scratch, fine-tuning, resumed where a process was killed.

`model_selection` gives a study's models; each trained network is a stage of the store.
"""

from scanbook.training.batches import Batches
from scanbook.training.end_to_end import Plan, set_trainable, train_network
from scanbook.training.exported_model import ExportedModel, train_exported_model
from scanbook.training.final_models import metric_of, score, train_final_model, train_final_models
from scanbook.training.fitting import Clock, optimizer
from scanbook.training.label_check import prepare
from scanbook.training.learning_curve import SizedTraining, train_sized_heads, train_sized_networks
from scanbook.training.model_selection import (
    average,
    end_to_end_training,
    scratch_backbones,
    scratch_training,
    seeded_studies,
    select_base_model,
    train_from_scratch,
    train_head,
)
from scanbook.training.study_models import SplitModels, StudyModels, calibrate, train_every_split, train_split
from scanbook.training.trained_model import TrainedModel, validation_loss
