"""Somebody with plans of nnU-Net: a Genesis of their own scans, and its weights in the network that nnU-Net builds."""

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

from nnunet_plans import SHAPE, write_plans

TINY = "--steps 2 --set samples_per_scan=2 --set validation_samples=2 --set workers=0 --device cpu"


def test_from_plans_to_a_genesis_to_weights_that_nnunet_loads(user, ct_folder):
    write_plans(user.home / "nnUNetPlans.json", scheme="CTNormalization", channels=2)
    shown = user.types(f"modelsgenesis pretrain {ct_folder} --plans nnUNetPlans.json --dry-run")
    assert '"orientation": "SPL"' in shown.stdout
    trained = user.types(f"modelsgenesis pretrain {ct_folder} --plans nnUNetPlans.json -o runs/genesis {TINY}")
    assert "restoration loss" in trained.stdout
    export = "modelsgenesis export runs/genesis --to nnunet --plans nnUNetPlans.json -o genesis.pth"
    assert user.types(export).stdout == "genesis.pth\n"
    weights = torch.load(user.home / "genesis.pth", weights_only=True)["network_weights"]
    network = planned_network()
    head = {name for name in weights if ".seg_layers." in name}  # nnU-Net starts its own anew
    missing, unexpected = network.load_state_dict({name: weights[name] for name in weights.keys() - head}, strict=False)
    assert (all(".seg_layers." in name for name in missing), unexpected) == (True, [])
    wrong = user.types("modelsgenesis pretrain scans --plans nnUNetPlans.json@3d_lowres", expect=1)
    assert "choose one by nnUNetPlans.json@NAME" in wrong.stderr


def planned_network():
    """The network that nnU-Net v2 builds of these plans, for two channels and three classes."""
    shape = {name: value for name, value in SHAPE.items() if "dropout" not in name}
    shape |= {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    return PlainConvUNet(input_channels=2, num_classes=3, n_conv_per_stage=[1, 2, 1], deep_supervision=True, **shape)
