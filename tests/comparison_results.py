"""Runs and results of comparisons that were never made, for tests."""

import numpy as np

from modelsgenesis.comparison.analysis import analyse
from modelsgenesis.comparison.efficiency import equivalents

LEVELS = {5: (0.70, 0.02), 10: (0.77, 0.012), 20: (0.81, 0.008)}


def make_records(gains, counts=(5, 10, 20), runs=5, seed=0):
    """Runs of arms that lie a share of the way to 1 above scratch."""
    random = np.random.default_rng(seed)
    records = []
    for arm, gain in gains.items():
        for labels in counts:
            mean, spread = LEVELS[labels]
            for run in range(runs):
                value = mean + gain * (1 - mean) + random.normal(0, spread)
                records.append(
                    {
                        "arm": arm,
                        "labels": labels,
                        "seed": run,
                        "settings": [],
                        "learning_rate": 1e-3,
                        "training": ["a"],
                        "test": {"dice": value, "dice organ": value},
                        "validation": {"dice": value},
                        "kept_step": 4,
                        "steps": 8,
                        "seconds": 1.0,
                    }
                )
    return records


def make_results(records, *, tuning=(), resample=False):
    arms = list(dict.fromkeys(record["arm"] for record in records))
    pairs = [(arm, arms[0]) for arm in arms[1:]]
    seeds = sorted({record["seed"] for record in records})
    return {
        "metric": "dice",
        "data": {
            "name": "Hippocampus",
            "task": "segmentation",
            "patients": {"training": 140, "validation": 16, "test": 39},
        },
        "resample_labels": resample,
        "seeds": seeds,
        "training": {"steps": 400, "batch_size": 4},
        "arms": {
            arm: {
                "init": arm if index else None,
                "settings": [],
                "dims": 3,
                "parameters": 1_200_000,
                "steps": 400,
                "batch_size": 4,
            }
            for index, arm in enumerate(arms)
        },
        "labels": analyse(records, arms, pairs, "dice"),
        "efficiency": equivalents(records, pairs, "dice"),
        "tuning": list(tuning),
        "tuning_seeds": [1_000_000, 1_000_001] if tuning else [],
    }
