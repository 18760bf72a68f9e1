"""One loop; pretraining and fine-tuning are thin on top."""

from modelsgenesis.reporting import Reporter
from modelsgenesis.training.finetuning import finetune_network
from modelsgenesis.training.loop import Objective, Progress, Trainer
from modelsgenesis.training.pretraining import pretrain_network
from modelsgenesis.training.run import Run
from modelsgenesis.training.splits import (
    Split,
    check_split,
    choose_labelled,
    count_split,
    read_split,
    split_cases,
    write_split,
)

__all__ = [
    "Objective",
    "Progress",
    "Reporter",
    "Run",
    "Split",
    "Trainer",
    "check_split",
    "choose_labelled",
    "count_split",
    "finetune_network",
    "pretrain_network",
    "read_split",
    "split_cases",
    "write_split",
]
