"""One loop; pretraining and fine-tuning are thin on top."""

from modelsgenesis.training.run import Run as Run
from modelsgenesis.training.splits import Split as Split
from modelsgenesis.training.splits import read_split as read_split
