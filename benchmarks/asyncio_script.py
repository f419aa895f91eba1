"""The rival in speed: what a good programmer writes in an afternoon, asyncio and httpx, 100 images at once.

One client, a bounded number in flight, a look each second, files written off the loop. It keeps no record:
killed, it forgets what it has bought. Used by `alone.py` and, in one task, by `dags/asyncio_task.py`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

MODEL = "/api/v3/wavespeed-ai/bitdance-14b/text-to-image"
POLL_INTERVAL = 1.0


async def make_images(
    url: str,
    api_key: str,
    prompts: Sequence[str],
    folder: Path,
    *,
    at_once: int = 100,
    verify: ssl.SSLContext | bool = True,
) -> None:
    """Make an image of each prompt and store it under the prompt's name."""
    gate = asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, verify=verify) as client:

        async def call(method: str, path: str, body: object = None) -> dict[str, Any]:
            headers = {"Authorization": f"Bearer {api_key}"}
            response = await client.request(method, path, json=body, headers=headers)
            response.raise_for_status()
            data: dict[str, Any] = response.json()["data"]
            return data

        async def image(prompt: str) -> None:
            async with gate:
                prediction = await call("POST", MODEL, {"prompt": prompt, "size": "1024*1024", "seed": -1})
                while prediction["status"] not in ("completed", "failed"):
                    await asyncio.sleep(POLL_INTERVAL)
                    prediction = await call("GET", f"/api/v3/predictions/{prediction['id']}/result")
            if prediction["status"] == "failed":
                raise RuntimeError(f"{prompt}: {prediction['error']}")
            # Without the key: outputs lie on another host.
            picture = await client.get(prediction["outputs"][0])
            picture.raise_for_status()
            await asyncio.to_thread((folder / f"{prompt}.png").write_bytes, picture.content)

        async with asyncio.TaskGroup() as group:
            for prompt in prompts:
                group.create_task(image(prompt))
