"""Textmill's Transformer as a `transformers` model; carried inside each exported model folder, beside its weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .transformer_textmill import Transformer


class TextmillConfig(PretrainedConfig):
    """The fields of `config.json`; the same names as Textmill's own `TransformerConfig`."""

    model_type = "textmill"
    attribute_map = {  # noqa: RUF012 (the name and form that transformers asks for)
        "vocab_size": "vocabulary",
        "hidden_size": "width",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "max_position_embeddings": "context",
    }

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.width // self.heads


class TextmillForCausalLM(PreTrainedModel, GenerationMixin):
    """The decoder with its output matrix."""

    config_class = TextmillConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"

    def __init__(self, config: TextmillConfig) -> None:
        super().__init__(config)
        self.model = Transformer(config)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        if isinstance(module, Transformer):
            module.reset_parameters()

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.model.embedding

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **unused: Any,
    ) -> CausalLMOutput:
        """Logits [B, T, V]; with `labels` also the mean next-token loss in nats."""
        if attention_mask is not None and bool((attention_mask[:, :1] == 0).any()):
            raise ValueError("Left padding is not supported: give rows of equal length, or pad on the right.")
        logits = self.model(input_ids)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **unused: Any) -> dict[str, Any]:
        """The last `context` tokens: every step is computed afresh (Textmill's own engine keeps a cache)."""
        return {"input_ids": input_ids[:, -self.config.context :]}
