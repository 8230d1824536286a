"""Which expert a token goes to: its embedding and three physical numbers of its image decide (spec section 1.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmzoo.ops.expert_ffn import ExpertWeights, chosen_method, expert_ffn
from mmzoo.ops.expert_routing import Gate, RoutingSums, route, routing_sums
from mmzoo.ops.expert_table import Method

DESCRIPTORS = 3  #: directional entropy, looks, local roughness


class PhysicsRouter(nn.Module):
    """A linear layer over [token || descriptors] that never builds that concatenation.

    Weight (n, C + 3): the last three columns give one number per expert and image, the same for all of its tokens.
    """

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, width + DESCRIPTORS))
        self.bias = nn.Parameter(torch.empty(experts))

    def forward(self, tokens: Tensor, descriptors: Tensor) -> Tensor:
        """tokens (B, N, C), descriptors (B, 3) -> logits (B, N, n), in float32 or wider whatever autocast says."""
        with torch.autocast(tokens.device.type, enabled=False):
            dtype = torch.promote_types(self.weight.dtype, torch.float32)
            of_token, of_image = self.weight.to(dtype).split([tokens.shape[-1], DESCRIPTORS], dim=1)
            shift = torch.addmm(self.bias.to(dtype), descriptors.to(dtype), of_image.t())
            return torch.matmul(tokens.to(dtype), of_token.t()) + shift.unsqueeze(1)

    def reference(self, tokens: Tensor, descriptors: Tensor) -> Tensor:
        """`forward` by its definition: descriptors tiled over the tokens, joined to them, one linear layer."""
        tiled = descriptors.to(tokens.dtype).unsqueeze(1).expand(-1, tokens.shape[1], -1)
        return nn.functional.linear(torch.cat([tokens, tiled], -1), self.weight, self.bias)


class ExpertLayer(nn.Module):
    """The feed-forward part of a block: a router and n experts, of which each token, the CLS token too, uses k."""

    def __init__(self, width: int, hidden: int, experts: int, k: int, gate: Gate, method: Method) -> None:
        super().__init__()
        self.router = PhysicsRouter(width, experts)
        self.up = nn.Parameter(torch.empty(experts, hidden, width))
        self.up_bias = nn.Parameter(torch.empty(experts, hidden))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))
        self.down_bias = nn.Parameter(torch.empty(experts, width))
        self.k = k
        self.gate: Gate = gate
        self.method: Method = method

    @property
    def weights(self) -> ExpertWeights:
        """The experts, as the op takes them."""
        return ExpertWeights(self.up, self.up_bias, self.down, self.down_bias)

    def forward(self, tokens: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, RoutingSums]:
        """tokens (B, N, C), descriptors (B, 3) -> answers (B, N, C), chosen experts (B, N, k), the router's sums."""
        routing = route(self.router(tokens, descriptors).flatten(0, 1), self.k, self.gate)
        answers = expert_ffn(tokens.flatten(0, 1), routing, self.weights, method=self.method)
        shape = tokens.shape[:2]
        return answers.unflatten(0, shape), routing.choice.unflatten(0, shape), routing_sums(routing)

    def chosen_method(self) -> str:
        """The way in which the experts are run: what "auto" comes to."""
        return chosen_method(self.weights, self.method)

    def active_parameters(self) -> int:
        """Parameter elements that one token meets: the router and k experts."""
        experts = sum(tensor.numel() for tensor in self.weights)
        router = sum(tensor.numel() for tensor in self.router.parameters())
        return router + experts // len(self.up) * self.k
