"""One loop; pretraining and fine-tuning are thin on top."""

from modelsgenesis.reporting import Reporter
from modelsgenesis.training.finetuning import finetune_network
from modelsgenesis.training.loop import Objective, Progress, Trainer
from modelsgenesis.training.pretraining import pretrain_network
from modelsgenesis.training.run import Run
from modelsgenesis.training.splits import Split, split_cases

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
