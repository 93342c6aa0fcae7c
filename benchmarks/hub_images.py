"""KerasHub's architectures for images: classifiers and backbones."""

from __future__ import annotations

from typing import Any

from hub_net import IMAGE, SIDE, WORDS, made, net, table

RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 24, 32],  # KerasHub wants 64 first
    "stackwise_num_blocks": [2, 2, 2],
    "stackwise_num_strides": [1, 2, 2],
    "image_shape": IMAGE,
}
RESNET_VD = {**RESNET, "input_conv_filters": [8, 8, 64], "input_conv_kernel_sizes": [3, 3, 3]}
HGNET = {
    "depths": [1, 2],
    "embedding_size": 8,
    "hidden_sizes": [16, 32],
    "stem_channels": [3, 8, 8],
    "hidden_act": "relu",
    "stackwise_stage_filters": [[8, 8, 16, 1, 3, 3], [16, 8, 32, 2, 3, 3]],
    "apply_downsample": [False, True],
    "image_shape": IMAGE,
}
EFFICIENTNET = {
    "stackwise_width_coefficients": [1.0] * 3,
    "stackwise_depth_coefficients": [1.0] * 3,
    "stackwise_kernel_sizes": [3, 5, 3],
    "stackwise_num_repeats": [1, 2, 2],
    "stackwise_input_filters": [16, 16, 24],
    "stackwise_output_filters": [16, 24, 32],
    "stackwise_expansion_ratios": [1, 4, 4],
    "stackwise_strides": [1, 2, 2],
    "stackwise_force_input_filters": [0] * 3,
    "stackwise_nores_option": [False] * 3,
    "num_features": 64,
    "input_shape": IMAGE,
}
MOBILENET = {
    "stackwise_num_blocks": [2, 2],
    "stackwise_expansion": [[16, 32], [48, 64]],
    "stackwise_num_filters": [[16, 16], [24, 24]],
    "stackwise_kernel_size": [[3, 3], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1]],
    "stackwise_padding": [[1, 1], [2, 2]],
    "output_num_filters": 64,
    "depthwise_stride": 1,
    "image_shape": IMAGE,
}
CSPNET = {
    "stem_filters": 16,
    "stem_kernel_size": 3,
    "stem_strides": 1,
    "stem_padding": "same",
    "stackwise_depth": [1, 2, 2],
    "stackwise_strides": [1, 2, 2],
    "stackwise_num_filters": [16, 32, 48],
    "image_shape": IMAGE,
}
VIT = {"image_shape": IMAGE, "patch_size": 16, "num_layers": 2, "num_heads": 4, "hidden_dim": 32}
DINO = {
    "patch_size": 16,
    "num_layers": 4,
    "hidden_dim": 32,
    "num_heads": 4,
    "intermediate_dim": 64,
    "image_shape": IMAGE,
}
MIT = {
    "layerwise_depths": [1, 1, 1, 1],
    "num_layers": 4,
    "layerwise_num_heads": [1, 2, 4, 4],
    "layerwise_sr_ratios": [8, 4, 2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3, 3, 3],
    "layerwise_strides": [4, 2, 2, 2],
    "hidden_dims": [16, 32, 48, 64],
    "image_shape": IMAGE,
}
MOBILENET_V5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"], ["uir", "mqa"]],
    "stackwise_num_blocks": [1, 2, 2],
    "stackwise_num_filters": [[16], [24, 24], [32, 32]],
    "stackwise_strides": [[2], [2, 1], [2, 1]],
    "stackwise_act_layers": [["gelu"], ["gelu"] * 2, ["gelu"] * 2],
    "stackwise_exp_ratios": [[4.0], [4.0, 2.0], [4.0, 1.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 3], [5, 0]],
    "stackwise_dw_start_kernel_sizes": [[0], [3, 3], [3, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0], [0, 0]],
    "stackwise_num_heads": [[0], [0, 0], [0, 4]],
    "stackwise_key_dims": [[0], [0, 0], [0, 8]],
    "stackwise_value_dims": [[0], [0, 0], [0, 8]],
    "stackwise_kv_strides": [[0], [0, 0], [0, 1]],
    "stackwise_use_cpe": [[False], [False] * 2, [False] * 2],
    "num_features": 64,
    "msfa_output_resolution": 8,
    "image_shape": IMAGE,
}

table(
    "image classifier",
    "ImageClassifier",
    {
        "ResNet (basic)": ("ResNetBackbone", {**RESNET, "block_type": "basic_block"}),
        "ResNet (bottleneck)": ("ResNetBackbone", {**RESNET, "block_type": "bottleneck_block"}),
        "ResNetV2": ("ResNetBackbone", {**RESNET, "block_type": "bottleneck_block", "use_pre_activation": True}),
        "ResNet-vd (basic)": ("ResNetBackbone", {**RESNET_VD, "block_type": "basic_block_vd"}),
        "ResNet-vd (bottleneck)": ("ResNetBackbone", {**RESNET_VD, "block_type": "bottleneck_block_vd"}),
        "DenseNet": (
            "DenseNetBackbone",
            {"stackwise_num_repeats": [2, 2, 2], "growth_rate": 8, "image_shape": IMAGE},
        ),
        "CSPNet (dark)": ("CSPNetBackbone", {**CSPNET, "block_type": "dark_block", "stage_type": "dark"}),
        "CSPNet (csp)": (
            "CSPNetBackbone",
            {**CSPNET, "block_type": "bottleneck_block", "stage_type": "csp", "groups": 2, "block_ratio": [0.5]},
        ),
        "CSPNet (cs3)": (
            "CSPNetBackbone",
            {**CSPNET, "block_type": "edge_block", "stage_type": "cs3", "block_ratio": [0.5]},
        ),
        "EfficientNet": (
            "EfficientNetBackbone",
            {
                **EFFICIENTNET,
                "stackwise_squeeze_and_excite_ratios": [0.25] * 3,
                "stackwise_block_types": ["v1"] * 3,
            },
        ),
        "EfficientNetV2": (
            "EfficientNetBackbone",
            {
                **EFFICIENTNET,
                "stackwise_squeeze_and_excite_ratios": [0, 0.25, 0.25],
                "stackwise_block_types": ["fused", "fused", "unfused"],
            },
        ),
        "EfficientNet-EdgeTPU": (
            "EfficientNetBackbone",
            {
                **EFFICIENTNET,
                "stackwise_squeeze_and_excite_ratios": [0, 0, 0],
                "stackwise_block_types": ["cba", "fused", "v1"],
            },
        ),
        "MobileNetV3": (
            "MobileNetBackbone",
            {
                **MOBILENET,
                "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
                "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"]],
                "depthwise_filters": 16,
                "depthwise_residual": True,
                "last_layer_filter": 64,
                "squeeze_and_excite": 0.5,
            },
        ),
        "MobileNetV4": (
            "MobileNetBackbone",
            {
                **MOBILENET,
                "stackwise_se_ratio": [[None, None], [None, None]],
                "stackwise_activation": [["relu6", "relu6"], ["relu6", "relu6"]],
                "depthwise_filters": 16,
                "depthwise_residual": False,
                "last_layer_filter": 64,
                "input_activation": "relu6",
                "output_activation": "relu6",
            },
        ),
        "MobileNetV5": ("MobileNetV5Backbone", MOBILENET_V5),
        "Xception": (
            "XceptionBackbone",
            {
                "stackwise_conv_filters": [[8, 16], [24, 24], [32, 32]],
                "stackwise_pooling": [True, True, False],
                "image_shape": IMAGE,
            },
        ),
        "MiT": ("MiTBackbone", MIT),
        "ViT": ("ViTBackbone", {**VIT, "mlp_dim": 64}),
        "ViT (no class token)": ("ViTBackbone", {**VIT, "mlp_dim": 64, "use_class_token": False}),
        "DeiT": ("DeiTBackbone", {**VIT, "intermediate_dim": 64}),
        "Swin": (
            "SwinTransformerBackbone",
            {"image_shape": IMAGE, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
        ),
    },
    num_classes=10,
)


@net("VGG", "image classifier")
def vgg() -> Any:
    backbone = made(
        "VGGBackbone", stackwise_num_repeats=[1, 2, 2], stackwise_num_filters=[8, 16, 24], image_shape=IMAGE
    )
    return made("VGGImageClassifier", backbone, num_classes=10, pooling_hidden_dim=32)


@net("HGNetV2", "image classifier")
def hgnet() -> Any:
    backbone = made(
        "HGNetV2Backbone", **HGNET, use_learnable_affine_block=False, use_lightweight_conv_block=[False, False]
    )
    return made("HGNetV2ImageClassifier", backbone, preprocessor=None, num_classes=10)


@net("HGNetV2 (light, affine)", "image classifier")
def light_hgnet() -> Any:
    backbone = made(
        "HGNetV2Backbone", **HGNET, use_learnable_affine_block=True, use_lightweight_conv_block=[False, True]
    )
    return made("HGNetV2ImageClassifier", backbone, preprocessor=None, num_classes=10)


TRANSFORMER = {"patch_size": 16, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64}
GEMMA_IMAGES = {**TRANSFORMER, "image_size": SIDE, "output_dim": 24}
PALI_GEMMA = {
    "vocabulary_size": WORDS,
    "image_size": SIDE,
    "num_layers": 1,
    "num_query_heads": 4,
    "num_key_value_heads": 1,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "head_dim": 8,
    "vit_patch_size": 16,
    "vit_num_heads": 4,
    "vit_hidden_dim": 32,
    "vit_num_layers": 2,
    "vit_intermediate_dim": 64,
}
table(
    "image backbone",
    None,
    {
        "CLIP images": ("CLIPVisionEncoder", {**TRANSFORMER, "image_shape": IMAGE}),
        "SigLIP images": ("SigLIPVisionEncoder", {**TRANSFORMER, "image_shape": IMAGE}),
        "MetaCLIP2 images": ("MetaCLIP2VisionEncoder", {**TRANSFORMER, "image_shape": IMAGE}),
        "DINOv2": ("DINOV2Backbone", {**DINO, "position_embedding_shape": IMAGE}),
        "DINOv3": ("DINOV3Backbone", DINO),
        "ViTDet": (
            "ViTDetBackbone",
            {
                "hidden_size": 32,
                "num_layers": 2,
                "intermediate_dim": 64,
                "num_heads": 4,
                "global_attention_layer_indices": [1],
                "num_output_channels": 16,
                "window_size": 2,
                "image_shape": IMAGE,
            },
        ),
    },
)


# Video, and parts of larger models


@net("VideoPrism", "video backbone")
def video_prism() -> Any:
    return made(
        "VideoPrismBackbone",
        num_frames=3,
        patch_size=16,
        hidden_dim=32,
        intermediate_dim=64,
        num_heads=4,
        num_spatial_layers=2,
        num_temporal_layers=1,
        num_auxiliary_layers=0,
        image_shape=IMAGE,
    )


@net("PaliGemma images", "image backbone")
def pali_gemma_images() -> Any:
    return made("PaliGemmaBackbone", **PALI_GEMMA).vit_encoder


@net("Gemma 3 images", "image backbone", images=(1, *IMAGE))
def gemma3_images() -> Any:
    return made("Gemma3VisionEncoder", **GEMMA_IMAGES, pool_size=2)


@net("Gemma 4 images", "image backbone", pixel_values=(1, 16, 768), pixel_position_ids=(1, 16, 2))
def gemma4_images() -> Any:
    # Keras's Clip cannot be called on the bounds of clipped layers, which are weights, where they are symbolic.
    return made("Gemma4VisionEncoder", **GEMMA_IMAGES, head_dim=8, pool_size=2, use_clipped_linears=False)


@net("BLIP2 images", "image backbone")
def blip2_images() -> Any:
    return made(
        "BLIP2VisionEncoder",
        image_size=SIDE,
        **TRANSFORMER,
        use_patch_bias=True,
        use_class_token=True,
        use_mha_bias=True,
        use_mlp_bias=True,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        initializer_range=0.02,
    )


@net("BLIP2 Q-Former", "image backbone", vision_features=(16, 24))
def blip2_queries() -> Any:
    return made(
        "BLIP2QFormer",
        num_query_tokens=6,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        intermediate_dim=64,
        vision_dim=24,
        cross_attention_frequency=2,
        dropout=0.0,
        layer_norm_epsilon=1e-6,
    )
