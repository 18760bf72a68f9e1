"""The network that a fine-tuning starts from, and its patch."""

import pytest

from labelled_cases import CLASSIFY, SEGMENT, data_of, masked, prepared
from modelsgenesis import __version__
from modelsgenesis.checkpoints import Bundle, load_bundle, save_bundle
from modelsgenesis.configs import CONTRACTS, BundleConfig, GenesisUNetConfig, Provenance, SegmentationConfig
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.networks import build_network
from modelsgenesis.training.task_networks import choose_patch_size, initial_model, resolve_patch_size
from recorded_notes import Notes

CASES = [prepared(index, (index % 2,)) for index in range(2)]
DATA = data_of(CASES, ("none", "square"))
STEM = "encoder.levels.0.0.convolution.weight"


def genesis_of(folder, modality="xray", channels=("image",), **shape):
    config = GenesisUNetConfig(**{"dims": 2, "widths": (4, 8), "norm": "batch", "statistics": "batch", **shape})
    bundle = BundleConfig(
        task="restoration",
        network=config,
        input=CONTRACTS[modality].override(channels=channels),
        patch_size=(16,) * config.dims,
        provenance=Provenance(origin="pretrained", library_version=__version__),
    )
    return save_bundle(folder, Bundle(build_network(config), bundle))


def start(folder, data, config, **options):
    bundle = None if folder is None else load_bundle(folder)
    return initial_model(bundle, data, config, name="genesis", **options)


def test_a_classifier_takes_the_encoder_and_names_what_it_took(tmp_path):
    notes = Notes()
    begun = start(genesis_of(tmp_path / "genesis"), DATA, CLASSIFY, reporter=notes)
    assert (begun.init, begun.network.config.levels) == ("genesis", (0, 1))
    assert begun.network.config.encoder.statistics == "running"
    assert STEM in begun.pretrained
    assert not any(name.startswith("head.") for name in begun.pretrained)
    assert "does not depend on the others" in notes.notes[0]
    assert notes.notes[-1].startswith("genesis: ")


def test_the_control_has_the_shape_and_nothing_else(tmp_path):
    folder = genesis_of(tmp_path / "genesis")
    begun, taken = (start(folder, DATA, CLASSIFY.override(from_scratch=scratch)) for scratch in (True, False))
    assert begun.network.config == taken.network.config
    assert (begun.init, begun.pretrained) == (None, ())
    assert (begun.network.state_dict()[STEM] != taken.network.state_dict()[STEM]).any()


def test_a_network_of_its_own_follows_the_data():
    volumes = data_of(CASES, ("none", "square"), channels=("t1", "t2"))
    begun = start(None, volumes, CLASSIFY.override(network=GenesisUNetConfig(dims=3, widths=(4, 8), norm="instance")))
    assert (begun.network.config.encoder.dims, begun.network.config.encoder.in_channels) == (2, 2)
    assert begun.contract.channels == ("t1", "t2")
    masks = data_of([masked(0)], ("background", "square", "stripe"), "segmentation")
    begun = start(None, masks, SEGMENT)
    assert (begun.network.config.out_channels, begun.network.config.output) == (3, "linear")


@pytest.mark.parametrize(
    ("weights", "named", "taken", "said"),
    [
        ({}, ("t1", "t2"), ("t1", "t2"), "stem of 1 channels repeated to 2"),
        ({"channels": ("t1", "flair")}, ("FLAIR", "T1"), ("t1", "flair"), "channels by name in the order of genesis"),
        ({"channels": ("t1", "flair")}, ("T1", "T2"), ("T1", "T2"), "T1, T2, are not the model's t1, flair"),
    ],
)
def test_channels_are_matched_by_name_and_what_is_done_is_said(tmp_path, weights, named, taken, said):
    notes, folder = Notes(), genesis_of(tmp_path / "genesis", in_channels=1 + bool(weights), **weights)
    begun = start(folder, data_of(CASES, ("none", "square"), channels=named), CLASSIFY, reporter=notes)
    assert begun.contract.channels == taken
    assert STEM in begun.pretrained
    assert any(said in note for note in notes.notes)


def test_weights_of_another_modality_are_warned_of_and_unknown_data_is_prepared_as_they_expect(tmp_path):
    notes = Notes()
    begun = start(genesis_of(tmp_path / "other", modality="ultrasound"), DATA, CLASSIFY, reporter=notes)
    assert begun.contract.modality == "xray"
    assert "trained on ultrasound, the data is xray" in " ".join(notes.notes)
    unknown = data_of(CASES, ("none", "square"))
    object.__setattr__(unknown, "modality", None)
    begun = start(genesis_of(tmp_path / "genesis"), unknown, CLASSIFY, reporter=notes)
    assert begun.contract.modality == "xray"
    assert "squares does not say what its images are: preparing them as xray" in notes.notes
    with pytest.raises(DataError, match="modality is unknown"):
        start(None, unknown, CLASSIFY)


def test_refuses_weights_and_dims_for_other_dimensions(tmp_path):
    folder = genesis_of(tmp_path / "genesis", modality="ct", dims=3)
    with pytest.raises(ConfigurationError, match=r"genesis is for images of 3 dimensions, .* squares have 2: .*dims=2"):
        start(folder, DATA, CLASSIFY)
    with pytest.raises(ConfigurationError, match="dims: received 3, but the images of squares have 2"):
        start(None, DATA, CLASSIFY.override(dims=3))


def test_the_patch_is_the_median_image_in_steps_that_the_network_can_take():
    assert choose_patch_size([(35, 50, 36), (33, 49, 40), (36, 52, 31)]) == (40, 56, 40)
    assert choose_patch_size([(100, 90, 40)], divisor=(32, 32, 16)) == (32, 64, 48)
    assert choose_patch_size([(5, 5, 5)], divisor=(64, 64, 64)) == (64, 64, 64)
    network, notes = build_network(GenesisUNetConfig(dims=2, widths=(4, 8, 16, 32, 64))), Notes()
    assert resolve_patch_size(SegmentationConfig(), network, [masked(0)], notes).patch_size == (16, 16)
    assert notes.notes == ["patch of 16 × 16 pixels, by the median image"]
    for patch, message in (((16, 16, 16), "expected 2 sides"), ((16, 17), r"sides that divide by \(16, 16\)")):
        with pytest.raises(ConfigurationError, match=message):
            resolve_patch_size(SegmentationConfig(patch_size=patch), network, [masked(0)], notes)
