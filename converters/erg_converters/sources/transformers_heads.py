"""What an encoder's graph ends in. Inside the graph, so that a server's answer is small and every client gets the same.

Mean pooling over the real tokens and L2 normalisation are what sentence embeddings end in (Reimers and Gurevych,
"Sentence-BERT", EMNLP 2019, arXiv:1908.10084).
"""

from __future__ import annotations

import torch


class TokenEncoder(torch.nn.Module):  # type: ignore[misc]  # PyTorch is read untyped: its checking takes minutes
    """Input ids, mask and perhaps token types, int64 [batch, length], to fp32 [batch, length, hidden]."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The encoder's last hidden state."""
        kinds = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden: torch.Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, **kinds
        ).last_hidden_state
        return hidden


class SentenceEncoder(TokenEncoder):
    """The same inputs to embeddings, fp32 [batch, hidden], of length 1."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean over the real tokens, normalised."""
        hidden = super().forward(input_ids, attention_mask, token_type_ids)
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, p=2.0, dim=1)
