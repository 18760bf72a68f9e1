"""Records and results of comparisons whose runs were drawn from normal distributions."""

import numpy as np

from modelsgenesis.metrics.significance import analyse, label_efficiency

LEVELS = {5: (0.70, 0.02), 10: (0.77, 0.012), 20: (0.81, 0.008)}  # mean and spread of scratch, by label count


def draw_records(gains, counts=(5, 10, 20), runs=5, seed=0):
    """Runs of arms that lie a share of the way to 1 above scratch."""
    random = np.random.default_rng(seed)
    records = []
    for arm, gain in gains.items():
        for labels in counts:
            mean, spread = LEVELS[labels]
            for run in range(runs):
                value = mean + gain * (1 - mean) + random.normal(0, spread)
                test = {"dice": value, "dice organ": value, "hausdorff95": 10 * (1 - value)}
                records.append({"arm": arm, "labels": labels, "seed": run, "test": test})
    return records


def results_of(records, *, tuning=(), resample=False):
    """What `results.json` says of records."""
    arms = list(dict.fromkeys(record["arm"] for record in records))
    pairs = [(arm, arms[0]) for arm in arms[1:]]
    equal = {"settings": [], "dims": 3, "parameters": 1_200_000, "steps": 400, "batch_size": 4}
    patients = {"training": 140, "validation": 16, "test": 39}
    return {
        "metric": "dice",
        "data": {
            "name": "Hippocampus",
            "task": "segmentation",
            "classes": ["background", "organ"],
            "patients": patients,
        },
        "resample_labels": resample,
        "seeds": sorted({record["seed"] for record in records}),
        "arms": {arm: {"init": arm if index else None, **equal} for index, arm in enumerate(arms)},
        "labels": analyse(records, pairs, "dice", {}),
        "efficiency": label_efficiency(records, pairs, "dice"),
        "tuning": list(tuning),
    }
