"""KerasHub's architectures for texts: encoders, decoders, and encoders with decoders."""

from __future__ import annotations

from typing import Any

from hub_net import WORDS, made, net, table

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

table(
    "text embedder",
    "TextEmbedder",
    {f"{name} embedder": TEXT_ENCODERS[name] for name in ("BERT", "XLM-RoBERTa")},
)

ESM = {**TEXT, **LENGTH, "layer_norm_eps": 1e-5}


@net("ESM2 classifier", "text classifier")
def esm() -> Any:
    return made("ESMProteinClassifier", made("ESMBackbone", **ESM), num_classes=3)


@net("ESM2 masked LM", "masked language model")
def esm_masked() -> Any:
    return made("ESMMaskedPLM", made("ESMBackbone", **ESM))


ELECTRA = {key: value for key, value in TEXT.items() if key != "vocabulary_size"}
table(
    "text encoder",
    None,
    {
        "ELECTRA": ("ElectraBackbone", {**ELECTRA, **LENGTH, "vocab_size": WORDS, "embedding_dim": 16}),
        "XLNet": ("XLNetBackbone", TEXT),
    },
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
T5GEMMA = {
    "vocabulary_size": WORDS,
    **{
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in {
            "hidden_dim": 32,
            "intermediate_dim": 64,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "layer_types": ["full_attention"] * 2,
        }.items()
    },
}
table(
    "encoder and decoder",
    None,
    {
        "T5": ("T5Backbone", TEXT),
        "BART": ("BartBackbone", {**TEXT, **LENGTH}),
        "T5Gemma": ("T5GemmaBackbone", T5GEMMA),
        "T5Gemma 2": ("T5Gemma2Backbone", T5GEMMA),
        "EdRec": (
            "EdRecBackbone",
            {
                "vocab_size": WORDS,
                "num_layers_enc": 2,
                "num_layers_dec": 2,
                "hidden_dim": 32,
                "intermediate_dim": 64,
                "num_heads": 4,
            },
        ),
    },
)
