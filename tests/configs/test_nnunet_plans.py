import json

import pytest

from modelsgenesis.configs import PretrainingConfig, pretraining_of_plans
from modelsgenesis.errors import ConfigurationError
from nnunet_plans import write_plans


@pytest.mark.parametrize(
    ("network", "kind"), [("PlainConvUNet", "plain_unet"), ("ResidualEncoderUNet", "residual_unet")]
)
def test_a_pretraining_has_the_network_the_patch_and_the_axes_of_the_plans(tmp_path, network, kind):
    base = PretrainingConfig(steps=7)
    config = pretraining_of_plans(write_plans(tmp_path / "p.json", network=network, order=(2, 0, 1)), base)
    assert (config.network.kind, config.network.widths, config.network.output) == (kind, (4, 8, 8), "sigmoid")
    assert config.network.strides[2] == (2, 2, 1)
    assert (config.patch_size, config.batch_size, config.steps) == ((8, 16, 12), 2, 7)
    assert (config.data.orientation, config.data.spacing, config.data.modality) == ("LSP", (2.5, 1.0, 1.5), "mri")
    assert config == pretraining_of_plans(f"{tmp_path / 'p.json'}@3d_cascade_fullres", base)


def test_ct_is_clipped_to_the_percentiles_of_the_plans(tmp_path):
    data = pretraining_of_plans(write_plans(tmp_path / "p.json", scheme="CTNormalization")).data
    assert (data.modality, data.window, data.orientation) == ("ct", (-150.0, 250.0), "SPL")


def test_plans_that_cannot_be_followed_are_one_line_with_a_remedy(tmp_path):
    path = write_plans(tmp_path / "p.json")
    with pytest.raises(ConfigurationError, match=r"no configuration '3d_lowres': choose one by .*@NAME; .*3d_fullres"):
        pretraining_of_plans(f"{path}@3d_lowres")
    with pytest.raises(ConfigurationError, match=r"plans the network 'MedNeXt'; expected PlainConvUNet or"):
        pretraining_of_plans(write_plans(tmp_path / "other.json", network="MedNeXt"))
    with pytest.raises(ConfigurationError, match="there is no such file"):
        pretraining_of_plans(tmp_path / "none.json")
    content = json.loads(path.read_text())
    for damaged in ([], {}, {"configurations": {"3d_fullres": {"UNet_class_name": "PlainConvUNet"}}}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(ConfigurationError, match=r"cannot be read as nnU-Net's plans.* of nnU-Net 2\.4 or newer"):
            pretraining_of_plans(path)
    content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"] = [[1, 1], [2, 2]]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"p\.json: .*strides"):
        pretraining_of_plans(path)
