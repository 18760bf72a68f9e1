"""Plans as nnU-Net v2 writes them, small."""

import json

SHAPE = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 1]],
    "n_conv_per_stage_decoder": [2, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
DEPTHS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}


def write_plans(path, *, network="PlainConvUNet", scheme="ZScoreNormalization", channels=1, order=(0, 1, 2)):
    """Write plans with one configuration, and a cascade that inherits it."""
    properties = {"max": 900.0, "mean": 100.0, "median": 90.0, "min": -900.0, "std": 50.0}
    full = {
        "batch_size": 2,
        "patch_size": [8, 16, 12],
        "median_image_size_in_voxels": [10.0, 20.0, 16.0],
        "spacing": [2.5, 1.0, 1.5],
        "normalization_schemes": [scheme] * channels,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": {**SHAPE, DEPTHS.get(network, "depths"): [1, 2, 1]},
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    plans = {
        "dataset_name": "Dataset099_Balls",
        "plans_name": "nnUNetPlans",
        "transpose_forward": list(order),
        "configurations": {"3d_fullres": full, "3d_cascade_fullres": {"inherits_from": "3d_fullres"}},
        "foreground_intensity_properties_per_channel": {
            str(channel): {**properties, "percentile_00_5": -150.0, "percentile_99_5": 250.0}
            for channel in range(channels)
        },
    }
    path.write_text(json.dumps(plans))
    return path
