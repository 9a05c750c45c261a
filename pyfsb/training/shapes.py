# SPDX-License-Identifier: Apache-2.0
"""The size of a model: layers, widths, parameters.

`architectures` reads it from a config; FLOPs, memory and plans are counted from it (`flops`,
`memory`, `planner`). Never builds a model and never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A pile of equal layers."""

    num_layers: int
    hidden: int
    """Width of the hidden states."""
    num_heads: int
    width: int
    """Width of all queries together; of all values too."""
    kv_width: int
    """Width of all keys together: below `width` with grouped queries."""
    intermediate: int
    """Inner width of the feed-forward part."""
    num_feedforward_matrices: int = 2
    """3 where one of two inner matrices gates the other."""
    num_vectors: int
    """Parameters of a layer's biases and norms."""
    has_cross_attention: bool = False
    """Whether each layer also reads the other stack's output."""
    reaches: tuple[int, ...] = ()
    """Tokens that the window of each layer shows to each side; empty: all."""
    num_relative: int = 0
    """Distances that scores tell apart at most, 0 where they know none: rows of DeBERTa's relative
    embedding, or of a code that is no parameter."""
    num_relative_terms: int = 0
    """Of content-to-position and position-to-content, how many are used."""
    has_past_distances: bool = False
    """Distances are those of earlier tokens: T in a document of T tokens, not 2 T - 1."""
    num_relative_weights: int = 0
    """Weights of a layer that only the relative embedding passes through, unless shared."""
    convolution_weights: int = 0
    """Weights of a convolution that every token passes through once in the whole stack."""
    activation: str = "gelu"
    """Name of the inner activation, as in the config."""
    has_rms_norm: bool = False
    """Norms in fp32 by the root mean square (T5, LLaMA) instead of LayerNorm."""
    norms_first: bool = False
    """A norm stands before the attention, not behind the sum."""
    has_attention_bias: bool = False
    """Scores get a bias of their own, so they are stored: no fused kernel takes them."""
    num_stem_tensors: int = 1
    """Hidden states kept for the backward pass before and behind the layers."""

    @property
    def attention_weights(self) -> int:
        """Weights of a layer's self-attention that every token passes through."""
        return self.hidden * (2 * self.width + 2 * self.kv_width)

    @property
    def cross_weights(self) -> int:
        """Weights of a layer's cross-attention: a half for each of the two stacks' tokens."""
        return 4 * self.hidden * self.width if self.has_cross_attention else 0

    @property
    def feedforward_weights(self) -> int:
        """Weights of a layer's feed-forward part."""
        return self.num_feedforward_matrices * self.hidden * self.intermediate

    @property
    def token_weights(self) -> int:
        """Weights of the stack that each of its own tokens passes through."""
        layer = self.attention_weights + self.feedforward_weights + self.cross_weights // 2
        return self.num_layers * layer + self.convolution_weights

    @property
    def last_weights(self) -> int:
        """Weights of the last layer that stand behind its attention."""
        return self.hidden * self.width + self.feedforward_weights

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer."""
        matrices = self.attention_weights + self.feedforward_weights + self.cross_weights
        return matrices + self.num_relative_weights + self.num_vectors

    @property
    def num_parameters(self) -> int:
        """Parameters of the layers, convolution included."""
        return self.num_layers * self.layer_parameters + self.convolution_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """An encoder beside the body with tokens of its own: n-grams of texts, patches of images."""

    stack: Stack
    vocabulary: int = 0
    """Rows of its embedding."""
    tokens_per_document: float = 0.0
    """Of its own for each document."""
    tokens_per_token: float = 0.0
    """Of its own for each token of the body."""
    num_additions: int = 0
    """Layers of the body to which a matrix product adds its states."""

    def count_tokens(self, document_tokens: float) -> float:
        """Return its tokens of a document with so many tokens in the body."""
        return self.tokens_per_document + self.tokens_per_token * document_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A model with the head that it is pretrained with."""

    architecture: str
    body: Stack
    """The only stack, or the encoder."""
    decoder: Stack | None = None
    """The second stack of encoder-decoders."""
    side: Side | None = None
    """A further encoder: of ZEN's n-grams, or of images."""
    vocabulary: int
    has_vocabulary_head: bool = True
    """False for text towers, whose loss needs no logits."""
    head_transform_weights: int = 0
    """Weights before the vocabulary matrix that every target passes through."""
    embedding_parameters: int
    """Embeddings of tokens, positions, types; a head tied to the tokens' is in it."""
    other_parameters: int
    """Norms outside the layers, biases of the head, an untied head."""
    max_positions: int
    """Longest document; 0 where the architecture has no limit."""
    is_causal: bool = False
    """Whether the only stack sees what stands before alone."""
    num_head_tensors: int = 1
    """Hidden states at predicted positions kept for the backward pass."""
    has_tied_head: bool = True
    """The vocabulary matrix is the embedding of the tokens."""
    has_dropout: bool = False
    """Hidden states are dropped out in training, and the masks kept."""
    is_flat: bool = True
    """There is a forward without padding (`models.unpadded`), whose last layer goes on with
    predicted positions alone."""
    fixed_tokens: int = 0
    """Tokens of every document where the architecture says so: an image's patches. 0: any."""

    @property
    def num_parameters(self) -> int:
        """All parameters, tied ones once."""
        stacks = sum(stack.num_parameters for stack in self.every_stack)
        return stacks + self.embedding_parameters + self.other_parameters

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The one stack that texts pass, or the two."""
        return (self.body, self.decoder) if self.decoder else (self.body,)

    @property
    def every_stack(self) -> tuple[Stack, ...]:
        """The one stack, or the two, and the one beside."""
        return (*self.stacks, self.side.stack) if self.side else self.stacks

    @property
    def head_weights(self) -> int:
        """Weights that every predicted position passes through."""
        hidden = self.stacks[-1].hidden
        return self.head_transform_weights + self.has_vocabulary_head * self.vocabulary * hidden

    @property
    def largest_parameter(self) -> int:
        """Elements of the largest single matrix."""
        matrices = [self.vocabulary * self.body.hidden]
        if self.side:
            matrices.append(self.side.vocabulary * self.side.stack.hidden)
        for stack in self.every_stack:
            matrices.append(stack.hidden * max(stack.intermediate, 3 * stack.width))
        return max(matrices)
