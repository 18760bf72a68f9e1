"""Inference over whole scans, metrics, statistics."""
