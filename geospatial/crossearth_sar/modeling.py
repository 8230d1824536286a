"""CrossEarth-SAR's encoder as a transformers model: DINOv2 whose every feed-forward layer is sparse experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from geospatial.crossearth_sar.blocks import BANDS, Block, Embeddings
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.flops import forward_flops
from geospatial.crossearth_sar.router import DESCRIPTORS, ExpertLayer, PhysicsRouter
from geospatial.crossearth_sar.scaling import described_values
from geospatial.sar.descriptors import DescriptorSettings, physical_descriptors
from mmzoo.errors import InputError
from mmzoo.hub.model import ZooModel
from mmzoo.ops.expert_routing import RoutingSums

#: (tokens (B, 1 + h*w, C), number of the block, (h, w)) -> tokens.
AfterBlock = Callable[[Tensor, int, tuple[int, int]], Tensor]


@dataclass
class CrossEarthSAROutput(ModelOutput):
    """feature_maps, (B, C, h, w) each, of the configured blocks, without norm; last_hidden_state (B, 1 + h*w, C), after
    the final norm; descriptors (B, 3), as the routers get them; expert_choice (B, D, 1 + h*w, k) int64, CLS first.

    Of each of D blocks, over the batch: expert_counts (D, n) int64, probability_sums (D, n), entropy_sum (D,) in nats,
    balance_sum (D,), each a sum over `routed_tokens` = B * (1 + h*w); see mmzoo.ops.expert_routing.RoutingSums.

    transformers demands None defaults; the model always fills every field.
    """

    feature_maps: tuple[Tensor, ...] = None  # pyright: ignore[reportAssignmentType]
    last_hidden_state: Tensor = None  # pyright: ignore[reportAssignmentType]
    descriptors: Tensor = None  # pyright: ignore[reportAssignmentType]
    expert_choice: Tensor = None  # pyright: ignore[reportAssignmentType]
    expert_counts: Tensor = None  # pyright: ignore[reportAssignmentType]
    probability_sums: Tensor = None  # pyright: ignore[reportAssignmentType]
    entropy_sum: Tensor = None  # pyright: ignore[reportAssignmentType]
    balance_sum: Tensor = None  # pyright: ignore[reportAssignmentType]
    routed_tokens: int = None  # pyright: ignore[reportAssignmentType]


class CrossEarthSARModel(ZooModel):
    """The encoder. Takes what the image processor gives; `descriptors` may be given instead of computed."""

    config_class = CrossEarthSARConfig
    config: CrossEarthSARConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Embeddings", "Block"]  # noqa: RUF012  # transformers' own form
    #: A choice of experts must not depend on the dtype that a user loads the model in.
    _keep_in_fp32_modules_strict = {"router"}  # noqa: RUF012

    def __init__(self, config: CrossEarthSARConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        descriptors: Tensor | None = None,
        valid: Tensor | None = None,
        after_block: AfterBlock | None = None,
    ) -> CrossEarthSAROutput:
        """pixel_values (B, 3, H, W), normalised; H and W of at least a patch, the stride drops the remainder.

        descriptors (B, 3): instead of those of the images, for example one scene's for all of its tiles. valid
        (B, H, W) boolean: pixels that descriptors are taken from; None = all. after_block: changes the tokens that
        leave a block, such as an adapter. InputError for other shapes.
        """
        self._check(pixel_values)
        physics = self.descriptors(pixel_values, valid) if descriptors is None else descriptors
        if physics.shape != (len(pixel_values), DESCRIPTORS):
            wanted = (len(pixel_values), DESCRIPTORS)
            raise InputError(f"descriptors are {tuple(physics.shape)}; these images need {wanted}.")
        tokens, grid = self.embeddings(pixel_values)
        maps: dict[int, Tensor] = {}
        choices: list[Tensor] = []
        sums: list[RoutingSums] = []
        for number, block in enumerate(self.blocks):
            tokens, choice, block_sums = block(tokens, physics)
            tokens = tokens if after_block is None else after_block(tokens, number, grid)
            choices.append(choice)
            sums.append(block_sums)
            if number in self.config.layers_given:
                maps[number] = tokens[:, 1:].transpose(1, 2).unflatten(2, grid)
        return CrossEarthSAROutput(
            feature_maps=tuple(maps[number] for number in self.config.layers_given),
            last_hidden_state=self.norm(tokens),
            descriptors=physics,
            expert_choice=torch.stack(choices, 1),
            expert_counts=torch.stack([each.counts for each in sums]),
            probability_sums=torch.stack([each.probability_sums for each in sums]),
            entropy_sum=torch.stack([each.entropy_sum for each in sums]),
            balance_sum=torch.stack([each.balance_sum for each in sums]),
            routed_tokens=sums[0].tokens,
        )

    @torch.no_grad()
    def descriptors(self, pixel_values: Tensor, valid: Tensor | None = None) -> Tensor:
        """Directional entropy, looks and roughness (B, 3) float32 of the images, scaled for the routers.

        From what `descriptor_input` says: the image in 0..1, the network's input, or the raster's values in its domain;
        with "none" they are zeros, so that images do not change the routing.
        """
        config = self.config
        if config.descriptor_input == "none":
            return pixel_values.new_zeros((len(pixel_values), DESCRIPTORS), dtype=torch.float32)
        settings = DescriptorSettings(
            bins=config.descriptor_bins,
            block=config.descriptor_block,
            scaling=config.descriptor_scaling,  # pyright: ignore[reportArgumentType] - checked by the configuration
        )
        band = config.descriptor_band
        with torch.autocast(pixel_values.device.type, enabled=False):
            values, domain = described_values(pixel_values.float(), config, config.descriptor_input)
            return physical_descriptors(
                values, domain, valid, band="mean" if isinstance(band, str) else band - 1, settings=settings
            )

    def chosen_methods(self) -> dict[str, str]:
        """How experts are run; see ZooModel."""
        found = sorted({module.chosen_method() for module in self.modules() if isinstance(module, ExpertLayer)})
        return {"experts": " and ".join(found)}

    def active_parameters(self) -> int:
        """Parameter elements that one token's forward pass touches: all but the experts that it does not use."""
        experts = [module for module in self.modules() if isinstance(module, ExpertLayer)]
        idle = sum(sum(p.numel() for p in layer.parameters()) - layer.active_parameters() for layer in experts)
        return sum(p.numel() for p in self.parameters()) - idle

    def flops(self, tokens: int | None = None) -> int:
        """Operations (2 a multiply-add) of `forward` on one image of `tokens` patches, h * w.

        None = an image of `config.image_size`. By kind of work: geospatial.crossearth_sar.flops.
        """
        return sum(forward_flops(self.config, self.config.grid_size**2 if tokens is None else tokens).values())

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != BANDS or min(images.shape[-2:]) < self.config.patch_size:
            raise InputError(
                f"CrossEarth-SAR takes images (B, {BANDS}, H, W) of at least {self.config.patch_size} px a side; "
                f"got {tuple(images.shape)}. Run them through the image processor."
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starting values; transformers calls it on children before parents, and only for what no file provides."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, PhysicsRouter):
            init.normal_(module.weight, std=self.config.router_std)
            init.zeros_(module.bias)
        elif isinstance(module, ExpertLayer):
            for weight, bias in ((module.up, module.up_bias), (module.down, module.down_bias)):
                init.trunc_normal_(weight, std=0.02)
                init.zeros_(bias)
        elif isinstance(module, Block):
            init.constant_(module.scale1, self.config.layerscale_value)
            init.constant_(module.scale2, self.config.layerscale_value)
        elif isinstance(module, Embeddings):
            init.trunc_normal_(module.cls_token, std=0.02)
            init.trunc_normal_(module.positions, std=0.02)
            init.zeros_(module.mask_token)
