"""Which deformations help? Pretrains with each scheme of the 2019 ablation and compares the starts on labelled data.

Run it: python docs/recipes/compare_schemes.py DATA OUTPUT [SCHEME …]
"""

import argparse
from pathlib import Path

from modelsgenesis import compare, describe_comparison, pretrain
from modelsgenesis.configs import SegmentationConfig, pretraining_recipe
from modelsgenesis.data.labelled import LabelledData, read_labelled
from modelsgenesis.training.splits import split_cases


def compare_schemes(data: LabelledData, output: Path, schemes: list[str], pretraining: list[str], **options) -> str:
    """Return the table of a comparison of schemes with scratch; what has finished is not repeated."""
    split = split_cases(data, SegmentationConfig())
    files = {case.name: case.images[0].path for case in data.cases}
    inits = ["scratch"]
    for scheme in schemes:
        run = output / "pretrained" / scheme
        # On the scans of everyone but the test patients: a network that has restored them could not be held to them.
        pretrain(
            [files[name] for name in split.training],
            run,
            config=pretraining_recipe("small", scheme=scheme, settings=pretraining),
            modality=data.modality or "auto",
            validation_source=[files[name] for name in split.validation],
            resume=(run / "run.json").exists(),
        )
        inits.append(f"{scheme}={run}")
    comparison = describe_comparison(inits, labels=["10%"], runs=options.pop("runs", 10))
    return compare(data, output / "compared", comparison=comparison, split=split, **options).table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("schemes", nargs="*", default=["I+II", "III+IV", "V"])
    arguments = parser.parse_args()
    print(compare_schemes(read_labelled(arguments.data), arguments.output, arguments.schemes, ["steps=2000"]))
