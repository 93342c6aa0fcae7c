"""KerasHub's architectures for images with texts, and for sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hub_images import PALI_GEMMA, VIT
from hub_net import IMAGE, WORDS, made, net, table

ENCODER = {"hidden_dim": 32, "num_layers": 2, "num_heads": 4, "intermediate_dim": 64}
TEXT = {**ENCODER, "vocabulary_size": WORDS, "embedding_dim": 32, "max_sequence_length": 16}
table(
    "text encoder",
    None,
    {f"{family} text": (f"{family}TextEncoder", TEXT) for family in ("CLIP", "SigLIP", "MetaCLIP2")},
)


def pair_of(family: str, **arguments: Any) -> Callable[[], Any]:
    """Images and texts in one space."""

    def build() -> Any:
        images = made(f"{family}VisionEncoder", **ENCODER, patch_size=16, image_shape=IMAGE)
        texts = made(f"{family}TextEncoder", **TEXT)
        return made(f"{family}Backbone", vision_encoder=images, text_encoder=texts, **arguments)

    return build


net("CLIP", "images and text")(pair_of("CLIP", projection_dim=16))
net("SigLIP", "images and text")(pair_of("SigLIP"))
net("MetaCLIP2", "images and text")(pair_of("MetaCLIP2", projection_dim=16))


@net("PARSeq", "images and text", token_ids=(8,), padding_mask=(8,))
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


@net("PaliGemma", "images and text")
def pali_gemma() -> Any:
    return made("PaliGemmaBackbone", **PALI_GEMMA)


@net("Whisper", "encoder and decoder")
def whisper() -> Any:
    return made(
        "WhisperBackbone",
        **ENCODER,
        vocabulary_size=WORDS,
        num_mels=16,
        max_encoder_sequence_length=64,
        max_decoder_sequence_length=16,
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
