"""Registers the families with transformers' Auto classes, on request: importing mmzoo changes nothing."""

from __future__ import annotations

from mmzoo.families import find_families, load_object


def register_families() -> None:
    """After this, AutoConfig, AutoModel and AutoImageProcessor know every family. Calling it twice is harmless."""
    import transformers

    for entry in find_families().values():
        family = entry.family
        config = load_object(family.config)
        transformers.AutoConfig.register(family.name, config, exist_ok=True)
        for name in family.auto_classes:
            getattr(transformers, name).register(config, load_object(family.model), exist_ok=True)
        for name, target in family.other_models.items():
            getattr(transformers, name).register(config, load_object(target), exist_ok=True)
        transformers.AutoImageProcessor.register(
            config, image_processor_classes={"pil": load_object(family.processor)}, exist_ok=True
        )
