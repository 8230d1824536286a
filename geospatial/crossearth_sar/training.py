"""Training stages of CrossEarth-SAR: continued pre-training and domain-generalisation fine-tuning (spec section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from geospatial.crossearth_sar.blocks import BANDS
from geospatial.crossearth_sar.configuration import checked_config
from geospatial.crossearth_sar.modeling import CrossEarthSAROutput
from geospatial.crossearth_sar.processing import CrossEarthSARImageProcessor
from geospatial.crossearth_sar.scaling import normalized
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from geospatial.segmentation import SegmentationTraining
from geospatial.segmentation_head import SegmentationHead
from mmzoo.errors import InputError
from mmzoo.families import get_variant
from mmzoo.hub.load import from_pretrained
from mmzoo.training.loss_sums import Count, LossSum, WeightedLoss
from mmzoo.training.optimizers import OptimizerSettings


class CrossEarthSARSegmentation(SegmentationTraining):
    """Trains all of a segmentation model: continued pre-training, with the experts' balance loss (spec section 2.2).

    variant: a name from `mmzoo families`; overrides: settings of its configuration. classes: {id: name}, as in the data
    section. head, head_settings, earth_adapter, lora: see CrossEarthSARConfig. class_weights: factor of
    each class in the loss, in their order. encoder_from: folder or Hub id of an encoder or a segmentation model, whose
    encoder is taken (None: random). balance_weight: of the balance loss. select_by: see SegmentationTraining.
    """

    frozen = False

    def __init__(  # noqa: PLR0913 - the keys of the YAML section `model`
        self,
        classes: dict[int, str],
        variant: str = "crossearth-sar/tiny",
        overrides: dict[str, Any] | None = None,
        head: str = "mask2former",
        head_settings: dict[str, Any] | None = None,
        earth_adapter: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        class_weights: list[float] | None = None,
        encoder_from: str | None = None,
        balance_weight: float = 0.005,
        select_by: Literal["source", "target"] = "source",
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        names = [str(name) for name in classes.values()]
        super().__init__(names, select_by, optimizer)
        family, name = get_variant(variant)
        top = {"head": head, "head_settings": head_settings, "earth_adapter": earth_adapter, "lora": lora}
        given = {**family.variants[name], **(overrides or {}), **top, "class_names": names}
        config = checked_config(given, "model.overrides")
        self.model = CrossEarthSARForSegmentation(config, class_weights)
        changed = ", ".join(f"{key}={value}" for key, value in (overrides or {}).items())
        self.variant = family.public_id(name) + (f" with {changed}" if changed else "")
        self.processor = CrossEarthSARImageProcessor.for_config(config)
        self.balance_weight = balance_weight
        if encoder_from is not None:
            self._start_encoder(encoder_from)
        # The maps are taken before it: nothing would train it, and ranks wait for the gradient of what is trained.
        self.model.encoder.norm.requires_grad_(False)
        if self.frozen:
            self.model.freeze_encoder()
        elif lora is not None:
            raise InputError("lora corrects a frozen encoder, and this stage trains it. Use the stage FineTuning")

    def _start_encoder(self, source: str) -> None:
        loaded = from_pretrained(source, quiet=True)
        state = loaded.encoder_state() if isinstance(loaded, CrossEarthSARForSegmentation) else loaded.state_dict()
        self.segmenter.start_encoder(state)
        self.receipts.append(
            {"encoder_from": source, **(loaded.load_receipt.in_brief() if loaded.load_receipt else {})}
        )

    @property
    def segmenter(self) -> CrossEarthSARForSegmentation:
        """The model, by its own type."""
        assert isinstance(self.model, CrossEarthSARForSegmentation)
        return self.model

    @property
    def head(self) -> SegmentationHead:
        """The head of the model."""
        return self.segmenter.head

    def run(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], CrossEarthSAROutput]:
        """The model on batch["image"] (B, C, H, W), in the raster's own units. InputError: in another domain."""
        output = self.segmenter(self.network_input(batch), valid=batch["valid"])
        self._log_routing(output.encoder)
        return output.head, output.encoder

    def network_input(self, batch: Mapping[str, Any]) -> Tensor:
        """Normalised images (B, 3, H, W) with the radiometric augmentation of the batch; 0 where nothing is valid."""
        self._check_domain(batch["domain"])
        images: Tensor = batch["image"]
        if images.shape[1] not in (1, BANDS):
            raise InputError(f"the model takes 1 or {BANDS} bands, the data give {images.shape[1]}. Choose some: bands")
        pixels = normalized(images.expand(-1, BANDS, -1, -1), batch["valid"], self.segmenter.config)
        gain, shift = (batch[name].to(pixels.dtype).view(-1, 1, 1, 1) for name in ("gain", "shift"))
        return torch.where(batch["valid"][:, None], pixels * gain + shift, 0)

    def _check_domain(self, domains: Sequence[str]) -> None:
        own = self.segmenter.config.domain
        for domain in domains:
            if domain != own:
                raise InputError(
                    f"the model takes {own} values and the data are {domain}. Set model.overrides.domain (with "
                    f"value_range), or convert the data (geospatial.sar.calibration)"
                )

    def _log_routing(self, encoded: CrossEarthSAROutput) -> None:
        """Share of each expert and entropy of the routers (nats), by block, over the update."""
        if not (self.logs_this_update and self.trainer.training):
            return
        tokens, chosen = encoded.routed_tokens, encoded.expert_counts.sum(1)
        for block, counts in enumerate(encoded.expert_counts):
            for expert, count in enumerate(counts):
                self.log_ratio(f"train/usage/block{block:02}_expert{expert}", count, chosen[block])
            self.log_ratio(f"train/router_entropy/block{block:02}", encoded.entropy_sum[block], tokens)

    def further_losses(self, told: CrossEarthSAROutput) -> WeightedLoss | None:
        """The balance loss, mean over blocks and tokens; its fractions are the micro-batch's (spec section 9)."""
        if self.frozen:
            return None
        part = LossSum(told.balance_sum.float().mean(), told.routed_tokens)
        return WeightedLoss({"balance": part}, {"balance": self.balance_weight})

    def further_counts(self, batch: Mapping[str, Any]) -> Mapping[str, Count]:
        """Tokens of a batch: patches and the CLS token of each image."""
        if self.frozen:
            return {}
        images: Tensor = batch["image"]
        patch = self.segmenter.config.patch_size
        return {"balance": len(images) * (1 + (images.shape[-2] // patch) * (images.shape[-1] // patch))}


class FineTuning(CrossEarthSARSegmentation):
    """Trains the head, and the Earth-Adapter or LoRA where asked for, on a frozen encoder (spec section 2.3)."""

    frozen = True

    def run(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], CrossEarthSAROutput]:
        """As above; without anything to train inside the encoder, nothing is kept for its gradients."""
        config = self.segmenter.config
        if config.earth_adapter is not None or config.lora is not None:
            return super().run(batch)
        with torch.no_grad():
            encoded = self.segmenter.encoder(self.network_input(batch), valid=batch["valid"])
        self._log_routing(encoded)
        return self.head(encoded.feature_maps), encoded
