"""A training step of EvoTok as published: both towers run to their ends, losses as written, log figures every step.

Written from the description in spec evotok.md sections 1, 2 and 7.3. Names of tensors are the published ones, so that
recorded states load. Without LPIPS. Not edited to suit a figure: a change here needs a note.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipVisionModel

from tests.benchmarks.peers.evotok_decoders import PlainPixelDecoder, PlainSemanticDecoder
from tests.benchmarks.peers.evotok_quantizer import PlainQuantizer
from tokenizers_visual.evotok.configuration import EvoTokConfig


class Scaling(nn.Module):
    """[-1, 1] -> [0, 255], clamped, -> what SigLIP takes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        return (((images + 1) * 127.5).clamp(0, 255) / 255 - self.shift) / self.scale


def penultimate(tower: SiglipVisionModel, pixels: Tensor) -> Tensor:
    """Features (B, N, C) of the last layer but one; the whole tower runs for them."""
    return tower(pixels, output_hidden_states=True).hidden_states[-2]


class PlainTokenizer(nn.Module):
    """The tokenizer with published names; `features` is how a tower is read."""

    def __init__(self, config: EvoTokConfig, warmup: int = 1, restart: bool = True) -> None:
        super().__init__()
        self.scaling_layer = Scaling()
        self.encoder_vqkd = SiglipVisionModel(config.encoder_config())
        width, out = config.encoder_width, config.semantic_out_width
        self.encode_task_layer = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.latent_dim))
        self.quantize = PlainQuantizer(
            config.codebook_size, config.latent_dim, config.pixel_levels, config.semantic_levels, warmup, restart
        )
        self.post_quant_conv = nn.Conv2d(config.latent_dim, config.pixel_decoder_z_channels, 1)
        self.decoder = PlainPixelDecoder(config)
        self.decoder_vqkd = PlainSemanticDecoder(config)
        self.decode_task_layer = nn.Sequential(nn.Linear(config.semantic_width, out), nn.Tanh(), nn.Linear(out, out))
        self.features = penultimate
        self.z = torch.zeros(())
        unused = ("head", "post_layernorm", f"layers.{config.encoder_layers - 1}.")
        for name, parameter in self.encoder_vqkd.named_parameters():
            parameter.requires_grad = not any(part in name for part in unused)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """images (B, 3, H, W) -> semantics (B, N, C), image like the input, commitment, codes (B, h, w, L)."""
        x = self.encode_task_layer(self.features(self.encoder_vqkd, self.scaling_layer(images)))
        side = int(x.shape[1] ** 0.5)
        self.z = x.transpose(1, 2).reshape(len(x), -1, side, side)
        f_pix, f_sem, commitment, codes = self.quantize(self.z)
        semantics = self.decode_task_layer(self.decoder_vqkd(f_sem))
        return semantics, self.decoder(self.post_quant_conv(f_pix)), commitment, codes


def generator_loss(
    images: Tensor, image: Tensor, semantics: Tensor, target: Tensor, commitment: Tensor, weight: float = 1.0
) -> Tensor:
    """MSE + commitment + `weight` x (cosine + cosine of four folds)."""
    cosine = 1 - F.cosine_similarity(semantics, target, dim=-1).mean()
    folds = [
        1 - F.cosine_similarity(a, b, dim=-1).mean()
        for a, b in zip(semantics.chunk(4, -1), target.chunk(4, -1), strict=True)
    ]
    return F.mse_loss(image, images) + commitment + weight * (cosine + sum(folds) / 4)


class PlainStep:
    """One update of the tokenizer and, where there is one, of the discriminator, whose losses count `gan_weight`."""

    def __init__(
        self,
        model: PlainTokenizer,
        teacher: SiglipVisionModel,
        discriminator: nn.Module | None = None,
        gan_weight: float = 0.0,
        semantic_weight: float = 1.0,
    ) -> None:
        self.model, self.teacher, self.discriminator = (
            model.train(),
            teacher.eval().requires_grad_(False),
            discriminator,
        )
        self.gan_weight, self.semantic_weight = gan_weight, semantic_weight
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, 1e-3, (0.9, 0.95), weight_decay=0.0)
        if discriminator is not None:
            self.judge = torch.optim.AdamW(discriminator.parameters(), 1e-3, (0.9, 0.95), weight_decay=0.0)

    def __call__(self, images: Tensor) -> Tensor:
        semantics, image, commitment, _ = self.model(images)
        with torch.no_grad():
            target = self.model.features(self.teacher, self.model.scaling_layer(images))
        loss = generator_loss(images, image, semantics, target, commitment, self.semantic_weight)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            loss = loss - self.gan_weight * self.discriminator(image).mean()
        self._update(self.optimizer, loss)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            real, fake = self.discriminator(images), self.discriminator(image.detach())
            hinge = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
            self._update(self.judge, self.gan_weight * hinge)
        return loss.detach()

    @staticmethod
    def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
