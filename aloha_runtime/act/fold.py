"""An ACT policy with everything that never changes at run time computed beforehand: the same chunks, less work.

What is folded, and why the result stays the same (to rounding, 1e-6):

- pixels come in as uint8 (H, W, 3) and become normalised floats here: a quarter of the memory traffic into the graph
- cameras of one size go through the trunk in one call
- a frozen batch norm is a scale and a shift, so it goes into the convolution before it
- positions are constants, and (x + p) W = x W + p W: they go into the bias of queries and keys, which makes the three
  projections of a layer one product; 1 / sqrt(head size) goes into the queries
- the latent is zero, so its token is the bias of its projection
- the decoder starts from zeros, so its first self-attention and the queries of its first cross-attention are constants
- normalisation of vectors goes into the projection after it, that of actions into the head before it

Shapes: S tokens of the encoder, C chunk, D model width, N cameras. There is no batch: a robot has one observation.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's own documentation uses
from torch import Tensor, nn

from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, SMALL_CNN, STATE
from aloha_runtime.act.normalize import Normalizer
from aloha_runtime.act.pixels import Pixels, seen_size
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.act.transformer import Attention, DecoderLayer, EncoderLayer, sinusoid_2d
from aloha_runtime.errors import CheckpointError


class FoldedACT(nn.Module):
    """`forward(*inputs)`, in the order of `config.input_shapes`: images uint8 (H, W, 3), vectors (n,) in raw units ->
    chunk (C, A) in raw units. Weights are copies; half precision keeps vectors and actions in float32."""

    def __init__(self, policy: ACTPolicy) -> None:
        """Raises `CheckpointError` for a policy that draws its latent: that is not a constant."""
        super().__init__()
        self.latent_token: Tensor
        self.relative: Tensor
        config = policy.config
        if config.sample_latent:
            raise CheckpointError(
                "a policy with sample_latent draws a new latent for each inference: run it with --engine eager"
            )
        model: Any = copy.deepcopy(policy.model).to("cpu", torch.float32).eval()
        self.names = list(config.input_shapes)
        self.images = list(config.images)
        self.is_small = config.vision_backbone == SMALL_CNN and bool(self.images)
        with torch.no_grad():
            self.vectors = _vector_projections(model, policy.normalizer)
            self.register_buffer("latent_token", model.encoder_latent_input_proj.bias.detach()[None])  # (1, D)
            positions: list[Tensor] = [model.encoder_1d_feature_pos_embed.weight]  # (1..3, D)
            if self.images:
                self.trunk, self.project = fold_batch_norm(model.backbone), model.encoder_img_feat_input_proj
                shapes = dict(config.images)
                self.pixels = Pixels(policy.normalizer, shapes, policy.processing)
                seen = [seen_size(name, shape, policy.processing) for name, shape in shapes.items()]
                positions += [_feature_positions(self, shape) for shape in seen]
            if self.is_small:
                self.spatial = model.spatial
                positions.append(model.spatial.pos_embed.weight)
            memory_positions = torch.cat(positions)  # (S, D)
            self.encoder = nn.ModuleList(_EncoderLayer(layer, memory_positions) for layer in model.encoder.layers)
            self.encoder_norm = model.encoder.norm
            queries = model.decoder_pos_embed.weight  # (C, D)
            layers = list(model.decoder.layers)
            self.first = _FirstDecoderLayer(layers[0], queries, memory_positions)
            self.decoder = nn.ModuleList(_DecoderLayer(layer, queries, memory_positions) for layer in layers[1:])
            self.decoder_norm = model.decoder.norm
            self.action_head = _unnormalizing(model.action_head, policy.normalizer)
            self.is_relative = policy.processing.relative is not None
            self.register_buffer("relative", policy.relative_mask().cpu().float())  # (A,)
        self.requires_grad_(False).eval()

    def half_precision(self) -> "FoldedACT":
        """float16 but for vectors and actions, whose units do not fit its 11 bits everywhere."""
        self.half()
        self.vectors.float()
        self.action_head.float()
        return self

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        dtype = self.latent_token.dtype
        tokens = [self.latent_token]
        tokens += [self.vectors[_key(name)](given[name])[None].to(dtype) for name in VECTORS if name in given]
        if self.images:
            tokens += self.image_tokens([given[name] for name in self.images])
        x = torch.cat(tokens)  # (S, D)
        for layer in self.encoder:
            x = layer(x)  # (S, D)
        memory = self.encoder_norm(x)
        decoded = self.first(memory)  # (C, D)
        for layer in self.decoder:
            decoded = layer(decoded, memory)
        actions = self.action_head(self.decoder_norm(decoded).to(self.action_head.weight.dtype))  # (C, A)
        if self.is_relative:
            actions = actions + given[STATE][: actions.shape[1]] * self.relative
        return actions

    def image_tokens(self, images: list[Tensor]) -> list[Tensor]:
        """Images (H, W, 3) -> tokens, each (n, D), in the order of `image_tokens` of the network."""
        features = [self.trunk(batch) for batch in self.pixels(images)]  # each (n, channels, h, w)
        if self.is_small:
            return self._tokens([found for found, _ in features], torch.cat([points for _, points in features]))
        return self._tokens(features, None)

    def _tokens(self, features: list[Tensor], points: Tensor | None) -> list[Tensor]:
        """Feature maps (N, channels, h, w) and keypoints (N, K, 2) of the small trunk -> tokens, each (n, D)."""
        projected = [self.project(feature).flatten(2).transpose(1, 2).flatten(0, 1) for feature in features]
        if points is None:
            return projected
        extra, _, _ = self.spatial(points.reshape(1, -1))  # (1, 1..2, D)
        return [*projected, extra[0]]


VECTORS = (STATE, ENVIRONMENT_STATE)


def _key(name: str) -> str:
    return name.replace(".", "_")  # a module's name has no dots


def _vector_projections(model: Any, normalizer: Normalizer) -> nn.ModuleDict:
    """Projections of the vectors in raw units: W ((x - m) / s - t) + b = (W / s) x + (b - W m / s - W t)."""
    found = {STATE: "encoder_robot_state_input_proj", ENVIRONMENT_STATE: "encoder_env_state_input_proj"}
    projections = {}
    for name, attribute in found.items():
        if hasattr(model, attribute):
            linear: nn.Linear = getattr(model, attribute)
            if name in normalizer.offset:
                offset, divisor = (values[name].cpu().double() for values in (normalizer.offset, normalizer.divisor))
                weight = linear.weight.double() / divisor  # (D, n)
                shift = normalizer.shift[name] * linear.weight.double().sum(dim=1)  # (D,)
                linear.bias.copy_(linear.bias.double() - weight @ offset - shift)
                linear.weight.copy_(weight)
            projections[_key(name)] = linear
    return nn.ModuleDict(projections)


def _unnormalizing(head: nn.Linear, normalizer: Normalizer) -> nn.Linear:
    """The action head with its outputs in raw units: s (W x + b + t) + m."""
    if ACTION in normalizer.offset:
        offset, scale = (values[ACTION].cpu() for values in (normalizer.offset, normalizer.scale))
        head.weight.mul_(scale[:, None])  # (A, D)
        head.bias.add_(normalizer.shift[ACTION]).mul_(scale).add_(offset)
    return head


def fold_batch_norm(trunk: nn.Module) -> nn.Module:
    """Each frozen batch norm into the convolution registered before it in the same module; changes `trunk`."""
    convolution: nn.Conv2d | None = None
    child: Any
    for name, child in trunk.named_children():
        if isinstance(child, nn.Conv2d):
            convolution = child
        elif type(child).__name__ == "FrozenBatchNorm2d":  # not imported: torchvision doubles the start of a policy
            assert convolution is not None, f"{name} follows no convolution"
            assert convolution.bias is None
            factor = child.weight.double() * (child.running_var.double() + child.eps).rsqrt()  # (channels,)
            shift = child.bias.double() - child.running_mean.double() * factor
            convolution.weight.copy_(convolution.weight.double() * factor[:, None, None, None])
            convolution.bias = nn.Parameter(shift.float())
            setattr(trunk, name, nn.Identity())
        else:
            fold_batch_norm(child)
    return trunk


def _feature_positions(folded: FoldedACT, shape: tuple[int, ...]) -> Tensor:
    """Positions (h * w, D) of one camera's feature map; its size is asked of the trunk itself."""
    features = folded.trunk(torch.zeros(1, *shape))
    height, width = (features[0] if folded.is_small else features).shape[2:]
    return sinusoid_2d(height, width, folded.latent_token.shape[1])


def _mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of scaled queries (heads, Q, d) to keys and values (heads, S, d) -> (Q, heads * d)."""
    if torch.compiler.is_exporting():  # the pattern that graph compilers know
        mixed = (q @ k.transpose(1, 2)).softmax(dim=-1) @ v  # (heads, Q, d)
    else:
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], scale=1.0)[0]
    return mixed.transpose(0, 1).flatten(1)


class _Projection(nn.Module):
    """x (n, D) -> `parts` x (heads, n, d): chosen projections of an attention, of x with its positions."""

    def __init__(self, attention: Attention, which: str, positions: Tensor) -> None:
        """`which`: some of "qkv". `positions` (n, D) count for queries and keys, not for values."""
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.heads, dim = attention.heads, positions.shape[1]
        weights, biases = [], []
        for letter in which:
            part = "qkv".index(letter)
            weight, bias = (x.chunk(3)[part].double() for x in (attention.in_proj_weight, attention.in_proj_bias))
            moved = bias + (0 if letter == "v" else positions.double() @ weight.T)  # (n, D) or (D,)
            factor = (dim // self.heads) ** -0.5 if letter == "q" else 1.0
            weights.append(weight.T * factor)
            biases.append((moved * factor).expand(len(positions), dim))
        self.register_buffer("weight", torch.cat(weights, dim=1).float())  # (D, parts * D)
        self.register_buffer("bias", torch.cat(biases, dim=1).float())  # (n, parts * D)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = x @ self.weight + self.bias  # (n, parts * D)
        return y.view(len(self.bias), -1, self.heads, x.shape[1] // self.heads).permute(1, 2, 0, 3).unbind()


class _FeedForward(nn.Module):
    def __init__(self, layer: EncoderLayer | DecoderLayer) -> None:
        super().__init__()
        self.linear1, self.linear2, self.activation = layer.linear1, layer.linear2, layer.activation

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.activation(self.linear1(x)))


class _EncoderLayer(nn.Module):
    def __init__(self, layer: Any, positions: Tensor) -> None:
        super().__init__()
        self.qkv = _Projection(layer.self_attn, "qkv", positions)
        self.out, self.feed_forward = layer.self_attn.out_proj, _FeedForward(layer)
        self.norm1, self.norm2, self.pre_norm = layer.norm1, layer.norm2, layer.pre_norm

    def forward(self, x: Tensor) -> Tensor:
        """(S, D) -> (S, D)."""
        if self.pre_norm:
            x = x + self.out(_mix(*self.qkv(self.norm1(x))))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.out(_mix(*self.qkv(x))))
        return self.norm2(x + self.feed_forward(x))


class _DecoderRest(nn.Module):
    """A decoder layer from the scaled queries of its cross-attention on."""

    def __init__(self, layer: Any, memory_positions: Tensor) -> None:
        super().__init__()
        self.kv = _Projection(layer.multihead_attn, "kv", memory_positions)
        self.out, self.feed_forward = layer.multihead_attn.out_proj, _FeedForward(layer)
        self.norm2, self.norm3, self.pre_norm = layer.norm2, layer.norm3, layer.pre_norm

    def forward(self, x: Tensor, q: Tensor, memory: Tensor) -> Tensor:
        """x (C, D) after self-attention, q (heads, C, d), memory (S, D) -> (C, D)."""
        x = x + self.out(_mix(q, *self.kv(memory)))
        if self.pre_norm:
            return x + self.feed_forward(self.norm3(x))
        x = self.norm2(x)
        return self.norm3(x + self.feed_forward(x))


class _FirstDecoderLayer(nn.Module):
    """The first decoder layer: all of it before it meets the memory is a constant."""

    def __init__(self, layer: Any, queries: Tensor, memory_positions: Tensor) -> None:
        super().__init__()
        whole = _DecoderLayer(layer, queries, memory_positions)
        x = whole.attend_to_self(torch.zeros_like(queries))  # (C, D)
        self.rest = whole.rest
        self.register_buffer("x", x)
        self.register_buffer("q", whole.cross_queries(x).contiguous())  # (heads, C, d)

    def forward(self, memory: Tensor) -> Tensor:
        return self.rest(self.x, self.q, memory)


class _DecoderLayer(nn.Module):
    def __init__(self, layer: Any, queries: Tensor, memory_positions: Tensor) -> None:
        super().__init__()
        self.qkv = _Projection(layer.self_attn, "qkv", queries)
        self.q = _Projection(layer.multihead_attn, "q", queries)
        self.out, self.norm1, self.norm2 = layer.self_attn.out_proj, layer.norm1, layer.norm2
        self.pre_norm = layer.pre_norm
        self.rest = _DecoderRest(layer, memory_positions)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x (C, D), memory (S, D) -> (C, D)."""
        x = self.attend_to_self(x)
        return self.rest(x, self.cross_queries(x), memory)

    def attend_to_self(self, x: Tensor) -> Tensor:
        if self.pre_norm:
            return x + self.out(_mix(*self.qkv(self.norm1(x))))
        return self.norm1(x + self.out(_mix(*self.qkv(x))))

    def cross_queries(self, x: Tensor) -> Tensor:
        return self.q(self.norm2(x) if self.pre_norm else x)[0]
