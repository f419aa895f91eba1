"""What the tests of the Prompt Enhancer build: a task as the operator runs it."""

from __future__ import annotations

from typing import Any

from airflow_provider_bitdance.engine import Finished, JobContext, Waiting, Wanted, run_job
from airflow_provider_bitdance.enhancer import enhance_prompts
from airflow_provider_bitdance.records import JobState
from airflow_provider_bitdance.records.enhanced_prompts import EnhancedPrompts, PromptAttempt, PromptKey
from tests.unit.support import API_HOST, RECORDS, MemoryFolder, World, a_wanted

PROMPT = "a lighthouse at dawn"
STYLE = "artistic"
ENHANCED = f"{PROMPT}, {STYLE}"
KEY = PromptKey(PROMPT, STYLE, API_HOST)
TEXT_USD, IMAGE_USD = 0.001, 0.01


def wanted(*prompts: str, style: str | None = STYLE) -> list[Wanted]:
    """Return an image for each prompt; by default one, as a single operator wants it."""
    if not prompts:
        return [a_wanted(PROMPT, style=style)]
    return [
        a_wanted(prompt, key=f"item-{number}", name=f"item-{number}", style=style)
        for number, prompt in enumerate(prompts, start=1)
    ]


async def task(context: JobContext, items: list[Wanted] | None = None) -> Finished | Waiting:
    """Do what the operator does."""
    items = wanted() if items is None else items
    if not context.journal.state.images:
        items = await enhance_prompts(context, items)
    return await run_job(context, items)


def attempts(world: World, key: PromptKey = KEY) -> list[PromptAttempt]:
    return EnhancedPrompts(MemoryFolder(world.disk, RECORDS)).attempts(key)


def state_of(context: JobContext) -> JobState:
    return context.journal.load()


def possibly_paid(results: list[dict[str, Any]]) -> int:
    return sum(result["possibly_paid"] + result["prompts_possibly_paid"] for result in results)
