"""KerasHub's architectures for images: segmentation, depth, detection."""

from __future__ import annotations

from typing import Any

from hub_images import DINO, MIT, RESNET
from hub_net import IMAGE, SIDE, WORDS, made, net


def resnet(**arguments: Any) -> Any:
    return made("ResNetBackbone", **{**RESNET, "block_type": "basic_block", **arguments})


@net("DeepLabV3", "image segmenter")
def deeplab() -> Any:
    return deeplab_on("P4", low_level=None)


@net("DeepLabV3+", "image segmenter")
def deeplab_plus() -> Any:
    return deeplab_on("P4", low_level="P2")


def deeplab_on(level: str, low_level: str | None) -> Any:
    backbone = made(
        "DeepLabV3Backbone",
        image_encoder=resnet(),
        projection_filters=8,
        low_level_feature_key=low_level,
        spatial_pyramid_pooling_key=level,
        upsampling_size=4,
        dilation_rates=[2, 4],
        image_shape=IMAGE,
    )
    return made("DeepLabV3ImageSegmenter", backbone, num_classes=3)


@net("BASNet", "image segmenter")
def basnet() -> Any:
    encoder = resnet(
        stackwise_num_filters=[64, 24, 32, 48],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        image_shape=(None, None, 3),
    )
    backbone = made("BASNetBackbone", encoder, num_classes=1, image_shape=IMAGE)
    return made("BASNetImageSegmenter", backbone)


@net("SegFormer", "image segmenter")
def segformer() -> Any:
    backbone = made("SegFormerBackbone", image_encoder=made("MiTBackbone", **MIT), projection_filters=32)
    return made("SegFormerImageSegmenter", backbone, num_classes=3)


@net("SAM", "image segmenter", boxes=(1, 2, 2), masks=(0, SIDE, SIDE, 1), points=(1, 2), labels=(1,))
def sam() -> Any:
    encoder = made(
        "ViTDetBackbone",
        hidden_size=16,
        num_layers=2,
        intermediate_dim=32,
        num_heads=4,
        global_attention_layer_indices=[1],
        num_output_channels=32,
        window_size=2,
        image_shape=IMAGE,
    )
    prompts = made(
        "layers.SAMPromptEncoder",
        hidden_size=32,
        image_embedding_size=(SIDE // 16,) * 2,
        input_image_size=(SIDE, SIDE),
        mask_in_channels=16,
    )
    decoder = made(
        "layers.SAMMaskDecoder",
        num_layers=2,
        hidden_size=32,
        intermediate_dim=64,
        num_heads=4,
        embedding_dim=32,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=16,
    )
    return made(
        "SAMImageSegmenter", made("SAMBackbone", image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)
    )


@net(
    "SAM3",
    "image segmenter",
    pixel_values=(56, 56, 3),
    boxes=(1, 5),
    box_labels=(1,),
    token_ids=(8,),
    padding_mask=(8,),
)
def sam3() -> Any:
    blocks = {"num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64, "num_heads": 4}
    parts = {
        "vision_encoder": made(
            "layers.SAM3VisionEncoder",
            image_shape=(56, 56, 3),
            patch_size=14,
            **blocks,
            fpn_hidden_dim=32,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3),
            window_size=2,
            global_attn_indexes=[1],
        ),
        "text_encoder": made("layers.SAM3TextEncoder", vocabulary_size=WORDS, embedding_dim=32, **blocks),
        "geometry_encoder": made("layers.SAM3GeometryEncoder", **blocks, roi_size=2),
        "detr_encoder": made("layers.SAM3DetrEncoder", **blocks),
        "detr_decoder": made("layers.SAM3DetrDecoder", image_shape=(56, 56, 3), patch_size=14, **blocks, num_queries=8),
        "mask_decoder": made("layers.SAM3MaskDecoder", num_upsampling_stages=3, hidden_dim=32, num_heads=4),
    }
    return made(
        "SAM3PromptableConceptImageSegmenter", made("SAM3PromptableConceptBackbone", **parts), preprocessor=None
    )


@net("DepthAnything", "depth estimator")
def depth_anything() -> Any:
    backbone = made(
        "DepthAnythingBackbone",
        image_encoder=made("DINOV2Backbone", **{**DINO, "patch_size": 8}, position_embedding_shape=IMAGE),
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[8, 16, 24, 32],
        fusion_hidden_dim=16,
        head_hidden_dim=16,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )
    return made("DepthAnythingDepthEstimator", backbone, depth_estimation_type="relative")


@net("RetinaNet", "object detector")
def retinanet() -> Any:
    encoder = resnet(
        stackwise_num_filters=[64, 16, 24, 32],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
    )
    backbone = made("RetinaNetBackbone", encoder, min_level=3, max_level=5, use_p5=False, image_shape=IMAGE)
    return made("RetinaNetObjectDetector", backbone, num_classes=3)


@net("D-FINE", "object detector")
def dfine() -> Any:
    encoder = made(
        "HGNetV2Backbone",
        stem_channels=[3, 8, 8],
        stackwise_stage_filters=[
            [8, 8, 16, 1, 3, 3],
            [16, 8, 32, 1, 3, 3],
            [32, 16, 48, 1, 3, 5],
            [48, 16, 64, 1, 3, 5],
        ],
        apply_downsample=[False, True, True, True],
        use_lightweight_conv_block=[False, False, True, True],
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 48, 64],
        embedding_size=8,
        use_learnable_affine_block=True,
        hidden_act="relu",
        image_shape=IMAGE,
        out_features=["stage3", "stage4"],
    )
    backbone = made(
        "DFineBackbone",
        backbone=encoder,
        decoder_in_channels=[32, 32],
        encoder_hidden_dim=32,
        num_labels=3,
        num_denoising=0,
        learn_initial_query=False,
        num_queries=8,
        anchor_image_size=(SIDE, SIDE),
        feat_strides=[16, 32],
        num_feature_levels=2,
        hidden_dim=32,
        encoder_in_channels=[48, 64],
        encode_proj_layers=[1],
        num_attention_heads=4,
        encoder_ffn_dim=64,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.34,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=16,
        num_lqe_layers=2,
        image_shape=IMAGE,
        out_features=["stage3", "stage4"],
    )
    return made("DFineObjectDetector", backbone, num_classes=3)
