"""Small configurations of the architectures of KerasHub, with random weights and without presets.

    NETS["BERT classifier"].build()

Each is the task where KerasHub has one for the architecture (so that the residual width is no output of the model),
else the backbone alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SIDE = 64
IMAGE = (SIDE, SIDE, 3)
WORDS = 32


@dataclass(frozen=True)
class HubNet:
    """One architecture.

    Attributes:
        kind: what it is for, such as `"text encoder"`.
        build: makes the model, of Keras 3.
        shapes: by the name of an input the sizes of a sample of it, where they are open and not just any will do.
    """

    kind: str
    build: Callable[[], Any]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


NETS: dict[str, HubNet] = {}


def of_fixed_length(model: Any, length: int, shapes: dict[str, tuple[int, ...]]) -> Any:
    """The same model for texts of one length, as LiteRT wants it; `shapes` are those of other inputs that are open."""
    import keras

    if not any(None in tensor.shape[1:] for tensor in model.inputs):
        return model
    inputs = {}
    for tensor in model.inputs:
        shape = shapes.get(tensor.name) or tuple(size or length for size in tensor.shape[1:])
        inputs[tensor.name] = keras.Input(shape, dtype=tensor.dtype, name=tensor.name)
    given = inputs if isinstance(model.input, dict) else next(iter(inputs.values()))
    return keras.Model(given, model(given), name=f"{model.name}_of_fixed_length")


def net(name: str, kind: str, **shapes: tuple[int, ...]) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Add the model that the function makes."""

    def add(build: Callable[[], Any]) -> Callable[[], Any]:
        NETS[name] = HubNet(kind, build, shapes)
        return build

    return add


def made(name: str, *args: Any, **arguments: Any) -> Any:
    """An instance of one of KerasHub's models (or layers, `"layers.Name"`)."""
    import keras_hub

    place, _, name = name.rpartition(".")
    return getattr(keras_hub.layers if place == "layers" else keras_hub.models, name)(*args, **arguments)


def table(kind: str, task: str | None, rows: dict[str, tuple[str, dict[str, Any]]], **of_task: Any) -> None:
    """Add one net for each row: name to the backbone's class and arguments; `task` is put on it, by its class's stem.

    Args:
        kind: of all of them.
        task: the end of the name of the task's class, `"ImageClassifier"`; None for the backbone alone.
        rows: name to class of the backbone and its arguments.
        of_task: arguments of the task.
    """
    for name, (backbone, arguments) in rows.items():

        def build(backbone: str = backbone, arguments: dict[str, Any] = arguments) -> Any:
            made_backbone = made(backbone, **arguments)
            if task is None:
                return made_backbone
            return made(backbone.removesuffix("Backbone") + task, made_backbone, **of_task)

        net(name, kind)(build)


# Images

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


table(
    "image backbone",
    None,
    {
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


# Segmentation, depth, detection


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


# Text

TEXT = {"vocabulary_size": WORDS, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64}
LENGTH = {"max_sequence_length": 16}
FNET = {key: value for key, value in TEXT.items() if key != "num_heads"}
TEXT_ENCODERS = {
    "ALBERT": ("AlbertBackbone", {**TEXT, **LENGTH, "embedding_dim": 16}),
    "BERT": ("BertBackbone", {**TEXT, **LENGTH}),
    "DistilBERT": ("DistilBertBackbone", {**TEXT, **LENGTH}),
    "RoBERTa": ("RobertaBackbone", {**TEXT, **LENGTH}),
    "XLM-RoBERTa": ("XLMRobertaBackbone", {**TEXT, **LENGTH}),
    "DeBERTaV3": ("DebertaV3Backbone", {**TEXT, **LENGTH, "bucket_size": 8}),
    "FNet": ("FNetBackbone", {**FNET, **LENGTH}),
    "RoFormerV2": ("RoformerV2Backbone", {**TEXT, "head_size": 8}),
}
table(
    "text classifier",
    "TextClassifier",
    {f"{name} classifier": row for name, row in TEXT_ENCODERS.items()},
    num_classes=3,
)
table("masked language model", "MaskedLM", {f"{name} masked LM": row for name, row in TEXT_ENCODERS.items()})


ESM = {**TEXT, **LENGTH, "layer_norm_eps": 1e-5}


@net("ESM2 classifier", "text classifier")
def esm() -> Any:
    return made("ESMProteinClassifier", made("ESMBackbone", **ESM), num_classes=3)


@net("ESM2 masked LM", "masked language model")
def esm_masked() -> Any:
    return made("ESMMaskedPLM", made("ESMBackbone", **ESM))


ELECTRA = {key: value for key, value in TEXT.items() if key != "vocabulary_size"}
ENCODER_OF_PAIR = {"hidden_dim": 32, "num_layers": 2, "num_heads": 4, "intermediate_dim": 64}
TEXT_OF_PAIR = {**ENCODER_OF_PAIR, "vocabulary_size": WORDS, "embedding_dim": 32, "max_sequence_length": 16}
IMAGES_OF_PAIR = {**ENCODER_OF_PAIR, "patch_size": 16, "image_shape": IMAGE}

table(
    "text encoder",
    None,
    {
        "ELECTRA": ("ElectraBackbone", {**ELECTRA, **LENGTH, "vocab_size": WORDS, "embedding_dim": 16}),
        "XLNet": ("XLNetBackbone", TEXT),
        "CLIP text": ("CLIPTextEncoder", TEXT_OF_PAIR),
        "SigLIP text": ("SigLIPTextEncoder", TEXT_OF_PAIR),
        "MetaCLIP2 text": ("MetaCLIP2TextEncoder", TEXT_OF_PAIR),
    },
)
table(
    "image backbone",
    None,
    {
        "CLIP images": ("CLIPVisionEncoder", IMAGES_OF_PAIR),
        "SigLIP images": ("SigLIPVisionEncoder", IMAGES_OF_PAIR),
        "MetaCLIP2 images": ("MetaCLIP2VisionEncoder", IMAGES_OF_PAIR),
    },
)


def pair_of(family: str, **arguments: Any) -> Callable[[], Any]:
    """Images and texts in one space."""

    def build() -> Any:
        images = made(f"{family}VisionEncoder", **IMAGES_OF_PAIR)
        texts = made(f"{family}TextEncoder", **TEXT_OF_PAIR)
        return made(f"{family}Backbone", vision_encoder=images, text_encoder=texts, **arguments)

    return build


net("CLIP", "images and text")(pair_of("CLIP", projection_dim=16))
net("SigLIP", "images and text")(pair_of("SigLIP"))
net("MetaCLIP2", "images and text")(pair_of("MetaCLIP2", projection_dim=16))


@net("PARSeq", "images and text")
def parseq() -> Any:
    encoder = made("ViTBackbone", **VIT, mlp_dim=64, use_class_token=False)
    return made(
        "PARSeqBackbone",
        image_encoder=encoder,
        vocabulary_size=WORDS,
        max_label_length=8,
        decoder_hidden_dim=32,
        num_decoder_layers=1,
        num_decoder_heads=4,
        decoder_mlp_dim=64,
    )


# Decoders, and encoders with decoders

GROUPED = {
    "vocabulary_size": WORDS,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
GEMMA = {**GROUPED, "head_dim": 8}
table(
    "decoder",
    "CausalLM",
    {
        "GPT-2": ("GPT2Backbone", {**TEXT, **LENGTH}),
        "GPT-NeoX": ("GPTNeoXBackbone", {**TEXT, **LENGTH}),
        "OPT": ("OPTBackbone", {**TEXT, **LENGTH}),
        "BLOOM": ("BloomBackbone", TEXT),
        "Falcon": ("FalconBackbone", {**FNET, "num_attention_heads": 4}),
        "Gemma": ("GemmaBackbone", GEMMA),
        "Llama": ("LlamaBackbone", GROUPED),
        "Llama 3": ("Llama3Backbone", GROUPED),
        "Mistral": ("MistralBackbone", GROUPED),
        "Phi-3": ("Phi3Backbone", GROUPED),
        "Qwen": ("QwenBackbone", GROUPED),
        "Qwen 3": ("Qwen3Backbone", GEMMA),
        "Mixtral": ("MixtralBackbone", {**GROUPED, "num_experts": 2}),
        "Qwen 3 MoE": ("Qwen3MoeBackbone", {**GEMMA, "moe_intermediate_dim": 16, "num_experts": 4, "top_k": 2}),
    },
)
table(
    "decoder",
    None,
    {
        "Gemma 3": ("Gemma3Backbone", {**GEMMA, "image_size": 16}),
        "SmolLM3": (
            "SmolLM3Backbone",
            {
                "vocabulary_size": WORDS,
                "hidden_dim": 32,
                "intermediate_dim": 64,
                "num_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "attention_bias": False,
                "attention_dropout": 0.0,
                "rope_layer_enabled_list": [True, False],
                "layer_types": ["full_attention"] * 2,
                "mlp_bias": False,
                "layer_norm_epsilon": 1e-6,
                "max_position_embeddings": 32,
                "rope_theta": 10000.0,
                "partial_rotary_factor": 1.0,
            },
        ),
    },
)
table(
    "encoder and decoder",
    None,
    {
        "T5": ("T5Backbone", TEXT),
        "BART": ("BartBackbone", {**TEXT, **LENGTH}),
        "Whisper": (
            "WhisperBackbone",
            {**TEXT, "num_mels": 16, "max_encoder_sequence_length": 64, "max_decoder_sequence_length": 16},
        ),
    },
)


@net("Moonshine", "encoder and decoder", encoder_input_values=(1024, 1), encoder_padding_mask=(1024,))
def moonshine() -> Any:
    return made(
        "MoonshineBackbone",
        vocabulary_size=WORDS,
        filter_dim=32,
        encoder_num_layers=2,
        decoder_num_layers=2,
        hidden_dim=32,
        intermediate_dim=64,
        encoder_num_heads=4,
        decoder_num_heads=4,
    )
