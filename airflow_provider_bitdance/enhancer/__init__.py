"""The Prompt Enhancer: a stage of its own, before the images are planned. The engine knows nothing of it."""

from airflow_provider_bitdance.enhancer.stage import enhance_prompts, missing_prompts, price_of

__all__ = ["enhance_prompts", "missing_prompts", "price_of"]
