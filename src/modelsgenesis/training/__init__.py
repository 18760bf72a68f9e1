"""One loop; pretraining and fine-tuning are thin on top."""

from modelsgenesis.reporting import Reporter
from modelsgenesis.training.finetuning import Split, finetune_network, split_cases
from modelsgenesis.training.loop import Objective, Progress, Trainer
from modelsgenesis.training.pretraining import pretrain_network
from modelsgenesis.training.run import Run

__all__ = [
    "Objective",
    "Progress",
    "Reporter",
    "Run",
    "Split",
    "Trainer",
    "finetune_network",
    "pretrain_network",
    "split_cases",
]
