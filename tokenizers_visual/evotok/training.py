"""Training of the tokenizer: pixels, commitment and, where asked for, semantics, LPIPS and a GAN (spec section 2)."""

from __future__ import annotations

import math
import sys
from collections import deque
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmzoo.errors import InputError
from mmzoo.families import get_variant
from mmzoo.ops.residual_vq import usage
from mmzoo.training.loss_sums import LossSum, WeightedLoss
from mmzoo.training.module import ZooModule
from mmzoo.training.optimizers import OptimizerSettings
from tokenizers_visual.evotok.adversarial import AdversarialSettings, Adversary, adaptive_weight
from tokenizers_visual.evotok.configuration import checked_config
from tokenizers_visual.evotok.encoder_start import start_from_folder, start_from_teacher
from tokenizers_visual.evotok.losses import GeneratorLossSettings, generator_loss, part_counts
from tokenizers_visual.evotok.modeling import EvoTokModel, EvoTokOutput
from tokenizers_visual.evotok.perceptual import LEAST_SIZE, Perceptual
from tokenizers_visual.evotok.processing import EvoTokImageProcessor
from tokenizers_visual.evotok.teacher import Teacher, TeacherSettings
from tokenizers_visual.evotok.vision_encoder import VisionEncoder

#: Images live in [-1, 1], so the peak-to-peak signal is 2.
SIGNAL_RANGE = 2.0
#: Parts with weights of their own source, which no checkpoint holds.
LOADED_ELSEWHERE = ("teacher", "perceptual")


class EvoTokTraining(ZooModule):
    """Trains an EvoTok variant.

    variant: a name from `mmzoo families`, e.g. "evotok/small-64". overrides: settings of EvoTokConfig that replace the
    variant's. teacher: None trains pixels only. encoder_from: "random", or the local folder or Hub id of a SigLIP; None
    = the teacher where it is a SigLIP of the encoder's sizes, else random. adversarial: None trains without a
    discriminator. optimizer: of the tokenizer, and of the discriminator unless that has its own. All of it stands in
    the run record.
    """

    turns = ("model", "discriminator")
    not_averaged = ("adversary",)
    best_metric: ClassVar[tuple[str, Literal["min", "max"]] | None] = ("val/psnr", "max")

    def __init__(
        self,
        variant: str = "evotok/tiny",
        overrides: dict[str, Any] | None = None,
        losses: GeneratorLossSettings | None = None,
        teacher: TeacherSettings | None = None,
        encoder_from: str | None = None,
        optimizer: OptimizerSettings | None = None,
        adversarial: AdversarialSettings | None = None,
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
        self.perceptual = self._load_perceptual()
        self.adversary = Adversary(adversarial) if adversarial else None
        if self.adversary is None:
            self.turns = ("model",)
        else:
            self.adversary.discriminator.grid(model.config.image_size, model.config.image_size)
        #: Reconstructions that the generator's turn leaves to the discriminator's, one a micro-batch.
        self._shown: deque[Tensor] = deque()

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

    def _load_perceptual(self) -> Perceptual | None:
        if self.loss_settings.perceptual == "none":
            return None
        if (size := self.tokenizer.config.image_size) < LEAST_SIZE:
            raise InputError(f"losses.perceptual needs {LEAST_SIZE} px, image_size is {size}. Set it to none.")
        perceptual = Perceptual.load(self.loss_settings.perceptual_weights_file)
        self.receipts.append({"perceptual": perceptual.receipt})
        return perceptual

    def _loss(self, images: Tensor) -> tuple[WeightedLoss, EvoTokOutput]:
        """All but the adversarial part."""
        output = self.model(images)
        features = None
        if self.teacher is not None:
            features = self.teacher(images, (output.codes.shape[1], output.codes.shape[2]))
        commitment = LossSum(output.commitment_sum, output.commitment_count)
        semantics = output.semantics if features is not None else None
        loss = generator_loss(self.loss_settings, images, output.reconstruction, commitment, semantics, features)
        if self.perceptual is not None:
            part = self.perceptual(output.reconstruction, images)
            loss = loss.plus("perceptual", part, self.loss_settings.weight_of("perceptual"))
        return loss, output

    def loss_counts(self, batch: dict[str, Any]) -> dict[str, int]:
        """Terms of the loss parts of batch["image"] (B, 3, H, W)."""
        images = batch["image"]
        counts = part_counts(self.loss_settings, self.tokenizer.config, images, semantics=self.teacher is not None)
        if self.perceptual is not None:
            counts["perceptual"] = len(images)
        if self.adversary is not None:
            logits = self.adversary.count(images)
            counts |= dict.fromkeys(("adversarial", *self.adversary.discriminator_weights()), logits)
        return counts

    def losses(self, batch: dict[str, Any], turn: str) -> WeightedLoss | None:
        """The loss of batch["image"] (B, 3, H, W) in [-1, 1]; the codebooks learn once an update, as the weights do.

        The discriminator's turn comes second and judges the reconstructions of the first. None before it begins.
        """
        if turn == "discriminator":
            return self._discriminator_loss(batch["image"])
        self.tokenizer.quantizer.gathering = self.gathering
        loss, output = self._loss(batch["image"])
        if self._plays(self.updates_made + 1):
            loss = self._with_adversary(loss, output.reconstruction)
            self._shown.append(output.reconstruction.detach())
        if self.logs_this_update:
            share, _ = usage(output.codes.flatten(0, 2), self.model.config.codebook_size)
            self.log_ratio("train/usage", share.sum(), share.numel())
        return loss

    def _plays(self, update: int) -> bool:
        return self.adversary is not None and update >= self.adversary.settings.start

    def _with_adversary(self, loss: WeightedLoss, reconstruction: Tensor) -> WeightedLoss:
        assert self.adversary is not None
        part, weight = self.adversary.generator_part(reconstruction), self.adversary.settings.weight
        if not self.adversary.settings.adaptive or len(reconstruction) == 0:
            return loss.plus("adversarial", part, weight)
        pixels = torch.stack(
            [
                loss.weights[name] * loss.parts[name].mean
                for name in ("reconstruction", "perceptual")
                if name in loss.parts
            ]
        )
        ratio = adaptive_weight(pixels.sum(), part.mean, self.tokenizer.pixel_decoder.last_weight)
        self.log_ratio("train/adaptive_weight", ratio, 1)
        return loss.plus("adversarial", part, weight * ratio)

    def _discriminator_loss(self, images: Tensor) -> WeightedLoss | None:
        if not self._plays(self.updates_made + 1):
            return None
        assert self.adversary is not None
        parts = self.adversary.discriminator_parts(images, self._shown.popleft())
        if not self.gathering:
            self.adversary.updates += 1
        return WeightedLoss(parts, self.adversary.discriminator_weights())

    def training_step(self, batch: Any, index: int) -> Tensor:
        """One update; see ZooModule."""
        self._shown.clear()
        return super().training_step(batch, index)

    def optimizer_for(self, turn: str) -> tuple[nn.Module, OptimizerSettings]:
        """The tokenizer's weights, or the discriminator's."""
        if turn == "model" or self.adversary is None:
            return self.model, self.optimizer_settings
        return self.adversary.discriminator, self.adversary.settings.optimizer or self.optimizer_settings

    def steps_of(self, turn: str) -> int:
        """The discriminator's schedule begins with its first update and ends with the training."""
        steps = super().steps_of(turn)
        if turn == "model" or self.adversary is None or steps < 0:
            return steps
        return max(1, steps - self.adversary.settings.start + 1)

    def on_fit_start(self) -> None:
        """Says so when the training is too short for its discriminator."""
        last, first = self.trainer.max_steps, self.adversary.settings.start if self.adversary else 0
        if 0 <= last < first and self.trainer.is_global_zero:
            sys.stderr.write(f"note: the discriminator would begin at step {first}; this training ends at {last}\n")

    def validation_step(self, batch: dict[str, Any], _index: int) -> None:
        """Logs the loss parts and the PSNR (dB, mean over images, of clamped floats); shows input | reconstruction."""
        images = batch["image"]
        if len(images) == 0:
            return
        loss, output = self._loss(images)
        parts = dict(loss.parts)
        if self.adversary is not None and int(self.adversary.updates):
            parts["adversarial"] = self.adversary.generator_part(output.reconstruction)
            parts |= self.adversary.discriminator_parts(images, output.reconstruction)
        for name, part in parts.items():
            self.log_ratio(f"val/{name}", part.sum, part.count)
        error = (output.reconstruction.clamp(-1, 1) - images).float().square().flatten(1).mean(1)
        psnr = 20 * math.log10(SIGNAL_RANGE) - 10 * torch.log10(error.clamp_min(1e-10))
        self.log_ratio("val/psnr", psnr.sum(), len(images))
        self.show_images("val/reconstruction", (images + 1) / 2, (output.reconstruction + 1) / 2)

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Without the teacher and the perceptual network, which never change and are loaded from their own sources."""
        state = super().state_dict(*arguments, **options)
        return {name: value for name, value in state.items() if name.partition(".")[0] not in LOADED_ELSEWHERE}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """The counterpart: their own weights stand in for what `state_dict` leaves out."""
        own = super().state_dict()
        loaded = {name: value for name, value in own.items() if name.partition(".")[0] in LOADED_ELSEWHERE}
        return super().load_state_dict({**state_dict, **loaded}, strict=strict, assign=assign)
