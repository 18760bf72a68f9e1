import pytest

from modelsgenesis.configs import ClassificationConfig, FinetuningConfig, SegmentationConfig, apply_settings
from modelsgenesis.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled_patients": "ten"}, "labelled_patients: received 'ten', expected a number"),
        ({"labelled_patients": "0"}, "labelled_patients: received '0'"),
        ({"labelled_patients": "120%"}, "labelled_patients: received '120%'"),
        ({"fold": 1}, "fold: received 1, expected folds=5 too"),
        ({"folds": 5, "fold": 5}, "fold: received 5, expected 0 to 4 of 5 folds"),
        ({"folds": 1}, "folds: received 1, expected 0, or 2 or more"),
        ({"bootstrap": 0}, "bootstrap: received 0, expected above 0"),
        ({"split_seed": -1}, "split_seed: received -1, expected 0 or above"),
        ({"test_fraction": 1.5}, "test_fraction: received 1.5, expected 0 to 1"),
        ({"patch_size": (8,)}, r"patch_size: received \(8,\), expected 2 or 3 positive sides"),
        ({"patch_size": (8, 0)}, "patch_size: received 0, expected above 0"),
        ({"data": {"source": ["a", "b"]}}, "data.source: received 2 data sets, expected one"),
    ],
)
@pytest.mark.parametrize("kind", [FinetuningConfig, SegmentationConfig, ClassificationConfig])
def test_refuses_what_cannot_be(kind, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        kind(**changes)


def test_the_message_names_the_configuration_of_the_task():
    with pytest.raises(ConfigurationError, match=r"SegmentationConfig\.overlap: received 2.0, expected 0 to 0.99"):
        SegmentationConfig(overlap=2)
    with pytest.raises(ConfigurationError, match=r"ClassificationConfig\.hidden: received -1, expected 0 to"):
        ClassificationConfig(hidden=-1)
    with pytest.raises(ConfigurationError, match=r"ClassificationConfig: unknown key 'overlap'"):
        ClassificationConfig().override(overlap=0.5)


def test_a_number_of_patients_may_be_written_without_quotes():
    assert apply_settings(FinetuningConfig(), ["labelled_patients=10"]).labelled_patients == "10"
    assert apply_settings(FinetuningConfig(), ["labelled_patients=12.5%"]).labelled_patients == "12.5%"


def test_two_and_three_sides_are_patches_whatever_the_default_network():
    assert FinetuningConfig(patch_size=(64, 64)).patch_size == (64, 64)
    assert FinetuningConfig(patch_size=(64, 64, 8)).patch_size == (64, 64, 8)
