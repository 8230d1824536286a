"""Training of the tokenizer: reconstruction, commitment and, with a teacher, semantics (spec section 2)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mmzoo.errors import InputError
from mmzoo.families import get_variant
from mmzoo.ops.residual_vq import usage
from mmzoo.training.loss_sums import LossSum, WeightedLoss
from mmzoo.training.module import ZooModule
from mmzoo.training.optimizers import OptimizerSettings
from tokenizers_visual.evotok.configuration import checked_config
from tokenizers_visual.evotok.encoder_start import start_from_folder, start_from_teacher
from tokenizers_visual.evotok.losses import GeneratorLossSettings, generator_loss, part_counts
from tokenizers_visual.evotok.modeling import EvoTokModel, EvoTokOutput
from tokenizers_visual.evotok.processing import EvoTokImageProcessor
from tokenizers_visual.evotok.teacher import Teacher, TeacherSettings
from tokenizers_visual.evotok.vision_encoder import VisionEncoder

#: Images live in [-1, 1], so the peak-to-peak signal is 2.
SIGNAL_RANGE = 2.0


class EvoTokTraining(ZooModule):
    """Trains an EvoTok variant.

    variant: a name from `mmzoo families`, e.g. "evotok/small-64". overrides: settings of EvoTokConfig that replace the
    variant's. teacher: None trains pixels only. encoder_from: "random", or the local folder or Hub id of a SigLIP; None
    = the teacher where it is a SigLIP of the encoder's sizes, else random. All of it stands in the run record.
    """

    best_metric: ClassVar[tuple[str, Literal["min", "max"]] | None] = ("val/psnr", "max")

    def __init__(
        self,
        variant: str = "evotok/tiny",
        overrides: dict[str, Any] | None = None,
        losses: GeneratorLossSettings | None = None,
        teacher: TeacherSettings | None = None,
        encoder_from: str | None = None,
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        super().__init__(optimizer)
        family, name = get_variant(variant)
        model = EvoTokModel(checked_config({**family.variants[name], **(overrides or {})}, "model.overrides"))
        self.model = model
        changed = ", ".join(f"{key}={value}" for key, value in (overrides or {}).items())
        self.variant = f"{family.name}/{name}" + (f" with {changed}" if changed else "")
        self.processor = EvoTokImageProcessor(image_size=self.model.config.image_size)
        self.loss_settings = losses or GeneratorLossSettings()
        self.teacher = Teacher.load(teacher) if teacher else None
        if self.teacher is not None:
            side = model.config.grid_size
            self._check_width(self.teacher.try_out(model.config.image_size, (side, side)))
            self.receipts.append({"teacher": self.teacher.receipt})
        self._start_encoder(model.encoder, encoder_from)
        if self.teacher is None:
            # Without a target the semantic read-out would be trained by nothing, and decay or DDP would still touch it.
            self.model.semantic_decoder.requires_grad_(False)
            self.model.decode_head.requires_grad_(False)

    @property
    def tokenizer(self) -> EvoTokModel:
        """The model, by its own type."""
        assert isinstance(self.model, EvoTokModel)
        return self.model

    def _check_width(self, channels: int) -> None:
        if channels != (width := self.model.config.semantic_out_width):
            raise InputError(
                f"the teacher has {channels} channels, semantic_out_width {width}. "
                f"Set model.overrides.semantic_out_width to {channels}."
            )

    def _start_encoder(self, encoder: VisionEncoder, source: str | None) -> None:
        if source not in (None, "random"):
            self.receipts.append(start_from_folder(encoder, source))
        elif source is None and self.teacher is not None:
            self.receipts.append(start_from_teacher(encoder, self.teacher.network))

    def _loss(self, images: Tensor) -> tuple[WeightedLoss, EvoTokOutput]:
        output = self.model(images)
        features = None
        if self.teacher is not None:
            features = self.teacher(images, (output.codes.shape[1], output.codes.shape[2]))
        commitment = LossSum(output.commitment_sum, output.commitment_count)
        semantics = output.semantics if features is not None else None
        return generator_loss(
            self.loss_settings, images, output.reconstruction, commitment, semantics, features
        ), output

    def loss_counts(self, batch: dict[str, Any]) -> dict[str, int]:
        """Terms of the loss parts of batch["image"] (B, 3, H, W)."""
        return part_counts(
            self.loss_settings, self.tokenizer.config, batch["image"], semantics=self.teacher is not None
        )

    def losses(self, batch: dict[str, Any], turn: str) -> WeightedLoss:  # noqa: ARG002
        """The loss of batch["image"] (B, 3, H, W) in [-1, 1]; the codebooks learn once an update, as the weights do."""
        self.tokenizer.quantizer.gathering = self.gathering
        loss, output = self._loss(batch["image"])
        if self.logs_this_update:
            share, _ = usage(output.codes.flatten(0, 2), self.model.config.codebook_size)
            self.log_ratio("train/usage", share.sum(), share.numel())
        return loss

    def validation_step(self, batch: dict[str, Any], _index: int) -> None:
        """Logs the loss parts and the PSNR (dB, mean over images, of clamped floats); shows input | reconstruction."""
        images = batch["image"]
        if len(images) == 0:
            return
        loss, output = self._loss(images)
        for name, part in loss.parts.items():
            self.log_ratio(f"val/{name}", part.sum, part.count)
        error = (output.reconstruction.clamp(-1, 1) - images).float().square().flatten(1).mean(1)
        psnr = 20 * math.log10(SIGNAL_RANGE) - 10 * torch.log10(error.clamp_min(1e-10))
        self.log_ratio("val/psnr", psnr.sum(), len(images))
        self.show_images("val/reconstruction", (images + 1) / 2, (output.reconstruction + 1) / 2)

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Without the teacher, which never changes and is loaded from its own source."""
        state = super().state_dict(*arguments, **options)
        return {name: value for name, value in state.items() if not name.startswith("teacher.")}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """The counterpart: the teacher's own weights stand in for what `state_dict` leaves out."""
        teacher = {} if self.teacher is None else {f"teacher.{k}": v for k, v in self.teacher.state_dict().items()}
        return super().load_state_dict({**state_dict, **teacher}, strict=strict, assign=assign)
