"""Inference over whole scans: which cases, sliding windows, ensembles, output paths, and measuring the predictions."""
