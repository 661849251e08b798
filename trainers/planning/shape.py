"""The sizes of a language model, from its ``config.json`` alone."""

import json
from dataclasses import dataclass
from pathlib import Path

from medtasks import models
from medtasks.errors import InputError

NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
OPTIONAL = ("num_key_value_heads", "head_dim")
BIASED = ("qwen2",)
"""Model types whose q, k and v have a bias that ``config.json`` does not tell."""
NORMED_HEADS, NORMED_WHOLE = ("qwen3", "exaone4", "hunyuan_v1_dense"), ("olmo2", "olmo3")
"""Model types that normalize each head's query and key, and those that normalize all heads' as one."""
FOUR_NORMS = ("glm4",)
"""Model types that normalize what attention and MLP give, too, and not only what they are given."""
FUSED_HEADS, FUSED_MLP = ("phi3",), ("phi3", "glm", "glm4")
"""Model types that have one map for queries, keys and values (qkv_proj), and one for the MLP's two (gate_up_proj)."""
TIED = ("gemma", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "cohere", "cohere2", "smollm3")
"""Model types whose head is the embeddings if their configuration does not say."""
COUNTED = (
    *("llama", "mistral", "ministral", "qwen2", "qwen3", "smollm3", "granite", "gemma", "helium", "ernie4_5", "glm"),
    *("cohere", "cohere2", "phi3", "glm4", "olmo2", "olmo3", "exaone4", "hunyuan_v1_dense"),
)
"""Model types for which autograd keeps what is counted, to 5%, on a CPU. Of others that are decoders of this kind it
may keep more: Seed-OSS, the worst that was tried, 1.7 times what is told."""
TOLERANCE = 0.01
"""Share of the parameters by which a model may have others than counted: biases and norms that are its own."""
GATED = ("silu", "swish", "swiglu")


@dataclass(frozen=True)
class Product:
    """A linear map of a layer: ``name``, how many numbers go in and out, and whether it has a bias."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Weights of the matrix."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama kind: grouped attention, gated MLP, RMSNorm, rotary positions.

    ``hidden`` is the width of the residual stream, ``inner`` of the MLP, ``head`` of an attention head; ``heads``
    counts the query heads, ``keys`` the key-value heads, ``norms`` a layer's over ``hidden``. ``tied``: the head's
    weights are the embeddings'. ``kind`` is transformers' ``model_type``.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    keys: int
    head: int
    vocabulary: int
    tied: bool
    products: tuple[Product, ...]
    normed_heads: bool = False
    normed_whole: bool = False
    norms: int = 2
    kind: str = "llama"

    @property
    def query_width(self) -> int:
        """Numbers of all queries of a token."""
        return self.heads * self.head

    @property
    def key_width(self) -> int:
        """Numbers of all keys (or all values) of a token."""
        return self.keys * self.head

    @property
    def has_fused_heads(self) -> bool:
        """Whether one map gives queries, keys and values."""
        return any(product.name == "qkv_proj" for product in self.products)

    @property
    def product_weights(self) -> int:
        """Weights of all layers' matrices: what is quantized, and what LoRA adapts."""
        return self.layers * sum(product.weights for product in self.products)

    @property
    def embedding_weights(self) -> int:
        """Weights of embeddings and head, which are never quantized."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def small_weights(self) -> int:
        """Biases and norms."""
        biases = sum(product.outputs for product in self.products if product.bias)
        of_heads = 2 * self.head * self.normed_heads + (self.query_width + self.key_width) * self.normed_whole
        return self.layers * (self.norms * self.hidden + of_heads + biases) + self.hidden

    @property
    def parameters(self) -> int:
        """All weights, tied ones once."""
        return self.product_weights + self.embedding_weights + self.small_weights

    def adapter_weights(self, rank: int, targets: str | tuple[str, ...] = "all-linear") -> int:
        """Weights of a LoRA adapter (Hu et al. 2021, arXiv:2106.09685): rank x (inputs + outputs) for each map."""
        return self.layers * sum(rank * (each.inputs + each.outputs) for each in self.adapted(targets))

    def adapted(self, targets: str | tuple[str, ...]) -> tuple[Product, ...]:
        """The maps of a layer that ``targets`` names (``all-linear``, or module names).

        Raises:
            InputError: one of them is no such map.
        """
        if targets == "all-linear":
            return self.products
        known = [product.name for product in self.products]
        if unknown := [name for name in targets if name not in known]:
            raise InputError(
                f"lora_target_modules: '{unknown[0]}' is none of the maps that are planned ({', '.join(known)}, or "
                "all-linear); mend it, or leave it out"
            )
        return tuple(product for product in self.products if product.name in targets)


def of(model: str | Path, revision: str | None = None) -> Shape:
    """The shape of a model: a folder, or a Hub id, of which ``config.json`` alone is fetched.

    Raises:
        InputError: no such model, or not a dense decoder of the Llama kind.
    """
    config = _config(model, revision)
    config = config.get("text_config", config)
    if not isinstance(config, dict):
        raise InputError(f"{model}: its config.json has no mapping of names to sizes")
    if missing := [key for key in NEEDED if not config.get(key)]:
        raise InputError(f"{model}: its config.json has no {missing[0]}; only decoders of the Llama kind are counted")
    if config.get("num_experts") or config.get("num_local_experts"):
        raise InputError(f"{model}: a mixture of experts; only dense decoders are counted")
    if (config.get("hidden_act") or config.get("hidden_activation", "silu")) not in GATED:
        raise InputError(f"{model}: its MLP is not gated by SiLU; only decoders of the Llama kind are counted")
    sizes = (*NEEDED, *(key for key in OPTIONAL if config.get(key) is not None))
    if strange := [key for key in sizes if type(config[key]) is not int or config[key] < 1]:
        raise InputError(f"{model}: its {strange[0]} is no number; only decoders of the Llama kind are counted")
    found = of_config(config)
    if (real := _parameters(model, revision)) and abs(found.parameters / real - 1) > TOLERANCE:
        raise InputError(
            f"{model}: has {real:,} parameters, and were it a decoder of the Llama kind, {found.parameters:,}; only "
            "those are counted"
        )
    return found


def _parameters(model: str | Path, revision: str | None) -> int | None:
    """How many parameters transformers gives a decoder of this configuration; None where it does not know its kind."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(models.folder(model, revision))
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(config.get_text_config())
    except (ValueError, KeyError, AttributeError, TypeError, ImportError):
        return None
    return sum(weight.numel() for weight in made.parameters())


def stored_as(model: str | Path, revision: str | None = None) -> dict:
    """The keys of a recipe that say in how many bits a model's weights are stored; {} where they are not quantized.

    Raises:
        InputError: no such model, or quantized by another library than bitsandbytes.
    """
    quantization = _config(model, revision).get("quantization_config")
    if not quantization:
        return {}
    if (by := quantization.get("quant_method")) != "bitsandbytes":
        raise InputError(f"{model}: is stored quantized by {by}, which is not planned; name the unquantized model")
    return {
        "load_in_4bit": bool(quantization.get("load_in_4bit")),
        "load_in_8bit": bool(quantization.get("load_in_8bit")),
        "use_bnb_nested_quant": bool(quantization.get("bnb_4bit_use_double_quant")),
    }


def _config(model: str | Path, revision: str | None) -> dict:
    """The content of a model's ``config.json``."""
    file = models.folder(model, revision) / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: a mapping of names to sizes expected")
    return found


def of_config(config: dict) -> Shape:
    """The shape that the mapping in a ``config.json`` describes."""
    kind = config.get("model_type", "")
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    keys, head = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    attention_bias = bool(config.get("attention_bias"))
    qkv, mlp = attention_bias or kind in BIASED, bool(config.get("mlp_bias"))
    of_heads = (
        Product("q_proj", hidden, heads * head, qkv),
        Product("k_proj", hidden, keys * head, qkv),
        Product("v_proj", hidden, keys * head, qkv),
    )
    of_mlp = (Product("gate_proj", hidden, inner, mlp), Product("up_proj", hidden, inner, mlp))
    if kind in FUSED_HEADS:
        of_heads = (Product("qkv_proj", hidden, (heads + 2 * keys) * head, qkv),)
    if kind in FUSED_MLP:
        of_mlp = (Product("gate_up_proj", hidden, 2 * inner, mlp),)
    products = (
        *of_heads,
        Product("o_proj", heads * head, hidden, attention_bias and kind not in BIASED),
        *of_mlp,
        Product("down_proj", inner, hidden, mlp),
    )
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=hidden,
        inner=inner,
        heads=heads,
        keys=keys,
        head=head,
        vocabulary=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", kind in TIED)),
        products=products,
        normed_heads=kind in NORMED_HEADS,
        normed_whole=kind in NORMED_WHOLE,
        norms=4 if kind in FOUR_NORMS else 2,
        kind=kind or "llama",
    )
