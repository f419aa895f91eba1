"""The Prompt Enhancer: a stage of its own, before the images are planned. The engine knows nothing of it."""

from airflow_provider_bitdance.enhancer.checks import ENHANCER_STYLES, check_enhanced, style_of

__all__ = ["ENHANCER_STYLES", "check_enhanced", "style_of"]
