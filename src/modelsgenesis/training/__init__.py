"""One loop; pretraining and fine-tuning are thin on top."""
