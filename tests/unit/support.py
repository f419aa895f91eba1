"""What the unit tests are built from: a clock moved by hand, a store in memory, a fake WaveSpeed, builders.

Nothing here waits, opens a socket or touches the disk. The fake API keeps its own bill, so that a test can
compare what was paid for with what was stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import itertools
import json
import logging
import math
import time as real_time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from io import BytesIO
from typing import Any, Literal, TypeVar
from uuid import uuid4

from PIL import Image

from airflow_provider_bitdance.clock import Clock
from airflow_provider_bitdance.engine import JobContext, Policy, Wanted
from airflow_provider_bitdance.engine.coordination import Coordination
from airflow_provider_bitdance.engine.lost_response_decisions import ARRIVES_WITHIN, SHOWN_WITHIN
from airflow_provider_bitdance.engine.settlement import settle_losses
from airflow_provider_bitdance.records import (
    Job,
    JobState,
    Journal,
    Note,
    Owner,
    Planned,
    PlannedImage,
    Submitted,
    fold,
)
from airflow_provider_bitdance.records.events import Entry, Intended
from airflow_provider_bitdance.records.notes import NOTES, is_note
from airflow_provider_bitdance.records.receipts import Receipt
from airflow_provider_bitdance.records.state import fold_notes
from airflow_provider_bitdance.storage import Folder
from airflow_provider_bitdance.storage.naming import parse_destination
from airflow_provider_bitdance.wavespeed.client import AsyncClient, ClientSettings
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import PROMPT_OPTIMIZER
from airflow_provider_bitdance.wavespeed.urls import OutputRule
from tests.wire import httpx

T = TypeVar("T")

START = 1_780_000_000.0
API_URL = "http://127.0.0.1:9"
API_HOST = "127.0.0.1:9"
API_KEY = "wsk-not-a-real-key"
OUTPUT = "mem://disk/images"
RECORDS = f"{OUTPUT}/.bitdance"


class Busy(ThreadPoolExecutor):
    """Threads that know whether any of them is at work: meanwhile the clock of the test stands still."""

    def __init__(self, max_workers: int = 8, thread_name_prefix: str = "") -> None:
        super().__init__(max_workers, thread_name_prefix)
        self.jobs = 0

    def submit(self, work: Any, /, *args: Any, **options: Any) -> Any:
        """Let a thread do it, and hand over what comes of it on the event loop.

        The work ends for the clock and for its caller in one step there: a thread that lost its turn between
        the two would let time pass in which the caller had not heard yet.
        """
        self.jobs += 1
        loop, handed_over = asyncio.get_running_loop(), Future[Any]()

        def hand_over(done: Future[Any]) -> None:
            if not handed_over.cancelled():  # by a caller that was stopped meanwhile
                if (error := done.exception()) is not None:
                    handed_over.set_exception(error)
                else:
                    handed_over.set_result(done.result())
            self.jobs -= 1

        def ended(done: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(hand_over, done)

        super().submit(work, *args, **options).add_done_callback(ended)
        return handed_over


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def with_threads() -> T:
        asyncio.get_running_loop().set_default_executor(Busy())
        return await coroutine

    return asyncio.run(with_threads())


STILL_ROUNDS = 16
"""Rounds of the event loop for which nobody else has to be due sooner before time moves."""


class FakeClock(Clock):
    """Time that moves when somebody sleeps; of many sleepers the one that is due first wakes first.

    :ivar calls: Requests over real sockets that are under way: meanwhile it stands still.
    """

    def __init__(self, now: float = START) -> None:
        self.now = now
        self.slept: list[float] = []
        self.calls = 0
        self._due: list[tuple[float, int]] = []
        self._ticket = itertools.count()

    def time(self) -> float:
        return self.now

    def stands_still_during(self, call: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        """Wrap a call that takes real time."""

        async def wrapped(*args: Any, **options: Any) -> T:
            self.calls += 1
            try:
                return await call(*args, **options)
            finally:
                self.calls -= 1

        return wrapped

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        mine = (self.now + seconds, next(self._ticket))
        heapq.heappush(self._due, mine)
        try:
            patience = real_time.monotonic() + 5  # a thread may itself wait for this clock
            rounds = 0  # others may be about to sleep, for less
            while rounds < STILL_ROUNDS:
                await asyncio.sleep(0)
                is_patient = real_time.monotonic() < patience
                # One that is overdue has its turn first, unless its loop stands still while this one runs.
                is_later = self._due[0] != mine and (self._due[0][0] > self.now or is_patient)
                rounds = 0 if is_later or (_is_busy() and is_patient) or self.calls else rounds + 1
            self.now = max(self.now, mine[0])
        finally:
            self._due.remove(mine)
            heapq.heapify(self._due)


def _is_busy() -> bool:
    threads = getattr(asyncio.get_running_loop(), "_default_executor", None)
    return isinstance(threads, Busy) and threads.jobs > 0


class MemoryFolder:
    """A folder in a dictionary that several folders and processes may share: the disk."""

    def __init__(self, disk: dict[str, bytes], uri: str) -> None:
        self.uri = uri
        self.disk = disk

    def is_exclusive(self) -> bool:
        return True

    def create(self, name: str, data: bytes) -> None:
        if self.disk.setdefault(f"{self.uri}/{name}", data) is not data:
            raise FileExistsError(name)

    def replace(self, name: str, data: bytes) -> None:
        self.disk[f"{self.uri}/{name}"] = data

    def read(self, name: str) -> bytes | None:
        return self.disk.get(f"{self.uri}/{name}")

    def size(self, name: str) -> int | None:
        data = self.read(name)
        return None if data is None else len(data)

    def remove(self, name: str) -> None:
        self.disk.pop(f"{self.uri}/{name}", None)

    def remove_folder(self, name: str) -> None:
        for each in sorted(self.names(name), reverse=True):  # as an object store does it
            self.remove(each)

    def names(self, below: str) -> list[str]:
        folder = f"{self.uri}/{below}/"
        return [path.removeprefix(f"{self.uri}/") for path in list(self.disk) if path.startswith(folder)]


Step = Callable[[str], None]


class SteppingFolder:
    """Tells a function before and after every change of the folder below it; it may raise."""

    def __init__(self, folder: Folder, step: Step) -> None:
        self.uri = folder.uri
        self._folder = folder
        self._step = step

    def is_exclusive(self) -> bool:
        return self._folder.is_exclusive()

    def create(self, name: str, data: bytes) -> None:
        self._step(f"before create {_short(name)}")
        self._folder.create(name, data)
        self._step(f"after create {_short(name)}")

    def replace(self, name: str, data: bytes) -> None:
        self._step(f"before replace {_short(name)}")
        self._folder.replace(name, data)
        self._step(f"after replace {_short(name)}")

    def remove(self, name: str) -> None:
        self._step(f"before remove {_short(name)}")
        self._folder.remove(name)
        self._step(f"after remove {_short(name)}")

    def remove_folder(self, name: str) -> None:
        self._step(f"before remove {_short(name)}")
        self._folder.remove_folder(name)
        self._step(f"after remove {_short(name)}")

    def read(self, name: str) -> bytes | None:
        return self._folder.read(name)

    def size(self, name: str) -> int | None:
        return self._folder.size(name)

    def names(self, below: str) -> list[str]:
        return self._folder.names(below)


def _short(name: str) -> str:
    """Return an entry's number, "receipt", or the image's file name."""
    return "receipt" if name.startswith("receipts/") else name.rpartition("/")[2].removesuffix(".json")


class Crash(BaseException):
    """The process is gone: nothing in the package may catch this."""


class Fuse:
    """A process that dies at its n-th step, and does nothing more once it is dead."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.steps: list[str] = []

    def __call__(self, step: str) -> None:
        self.steps.append(step)
        if self.at and len(self.steps) >= self.at:
            raise Crash(step)


@dataclass
class FakePrediction:
    """A prediction of the fake API; a test may change it."""

    id: str
    body: dict[str, Any]
    created: float
    picture: bytes
    status: str = "completed"
    error: str = ""
    code: int = 0
    nsfw: bool = False
    outputs: list[str] = field(default_factory=list)


Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Body(httpx.AsyncByteStream):
    """A response's body that arrives in two parts, as a download does."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        middle = len(self.data) // 2
        for part in (self.data[:middle], self.data[middle:]):
            await asyncio.sleep(0)
            yield part


async def no_lookup(host: str) -> list[str]:
    raise AssertionError(f"{host} was looked up: tests stay on this machine")


class FakeAPI:
    """WaveSpeed on a ``MockTransport``: answers what is scripted, else what the real one would.

    :param latency: Seconds until a prediction ends.
    :ivar on_post: Answers for the next submissions of images, one each; likewise ``on_enhance``,
        ``on_poll``, ``on_download``, ``on_history`` and ``on_bill``.
    :ivar hidden: Ids that the history never shows.
    :ivar echo: Where inputs are shown: in the history, in a poll of one prediction, or nowhere.
    :ivar skew: Seconds by which its clock is ahead.
    :ivar made: Everything that was created, and so billed, by id.
    """

    def __init__(self, clock: FakeClock, *, latency: float = 3.0) -> None:
        self.clock = clock
        self.latency = latency
        self.on_post: list[Answer] = []
        self.on_enhance: list[Answer] = []
        self.on_poll: list[Answer] = []
        self.on_download: list[Answer] = []
        self.on_history: list[Answer] = []
        self.on_bill: list[Answer] = []
        self.on_price: list[Answer] = []
        self.hidden: set[str] = set()
        self.echo: Literal["history", "poll"] | None = None
        self.skew = 0.0
        self.balance = 10.0
        self.price = 0.01
        self.histories: list[dict[str, Any]] = []
        self.posts: list[dict[str, Any]] = []
        self.quotes: list[dict[str, Any]] = []
        self.enhanced: list[tuple[dict[str, Any], float]] = []
        self.polls: list[tuple[str, float]] = []
        self.downloads: list[httpx.Request] = []
        self.made: dict[str, FakePrediction] = {}
        self.next_changes: dict[str, Any] = {}
        self.extension = "png"

    @property
    def billed(self) -> int:
        return len(self.made)

    @property
    def billed_texts(self) -> int:
        """How many of them are the Prompt Enhancer's."""
        return sum("style" in made.body for made in self.made.values())

    def client(self, step: Step = lambda _: None) -> AsyncClient:
        """Return a client of this API.

        :param step: Told before and after every call; it may raise.
        """

        def handle(request: httpx.Request) -> httpx.Response:
            kind = self._kind(request)
            step(f"before {kind}")
            response = self._answer(kind, request)
            step(f"after {kind}")
            if kind == "download":
                return httpx.Response(response.status_code, stream=Body(response.content))
            return response

        settings = ClientSettings(API_KEY, base_url=API_URL)
        rule = OutputRule(API_URL, resolve=no_lookup)
        return AsyncClient(settings, transport=httpx.MockTransport(handle), output_rule=rule)

    def create(self, body: dict[str, Any]) -> FakePrediction:
        """Create a prediction, which bills it."""
        number = len(self.made) + 1
        text = f"{body} {number}"
        made = FakePrediction(
            f"pred-{number}",
            body,
            self.clock.now + self.skew,
            a_picture(self.extension, text),
            **self.next_changes,
        )
        is_text = "style" in body
        enhanced = f"{body.get('text')}, {body.get('style')}"
        made.outputs = made.outputs or [enhanced if is_text else f"{API_URL}/outputs/{made.id}"]
        self.made[made.id] = made
        return made

    def answer_rightly(self, request: httpx.Request) -> httpx.Response:
        """Create the prediction and answer as always: for ``on_post``, before another answer."""
        return envelope(self._explained(self.create(json.loads(request.content))))

    def answer_failing(self, **changes: Any) -> Callable[[httpx.Request], httpx.Response]:
        """Return a response for ``on_post`` whose prediction will end as ``changes`` say."""

        def respond(request: httpx.Request) -> httpx.Response:
            self.next_changes = changes
            answer = self.answer_rightly(request)
            self.next_changes = {}
            return answer

        return respond

    def lose_answer(self, request: httpx.Request) -> httpx.Response:
        """Create the prediction and lose the answer: for ``on_post``."""
        self.create(json.loads(request.content))
        raise httpx.ReadTimeout("lost")

    @staticmethod
    def _kind(request: httpx.Request) -> str:
        path = request.url.path
        if request.method == "POST":
            kinds = {"predictions": "history", "model/price": "price", "billings/search": "bill"}
            kinds |= {PROMPT_OPTIMIZER: "enhance"}
            return kinds.get(path.removeprefix("/api/v3/"), "POST")
        if path == "/api/v3/balance":
            return "balance"
        return "download" if request.url.path.startswith("/outputs/") else "poll"

    def _answer(self, kind: str, request: httpx.Request) -> httpx.Response:
        last = request.url.path.removesuffix("/result").rpartition("/")[2]
        if kind == "POST":
            self.posts.append(json.loads(request.content))
        elif kind == "price":
            self.quotes.append(json.loads(request.content))
        elif kind == "enhance":
            self.enhanced.append((json.loads(request.content), self.clock.now))
        elif kind == "poll":
            self.polls.append((last, self.clock.now))
        elif kind == "history":
            self.histories.append(json.loads(request.content))
        elif kind == "download":
            self.downloads.append(request)
        scripts = {
            "POST": self.on_post,
            "enhance": self.on_enhance,
            "poll": self.on_poll,
            "download": self.on_download,
            "history": self.on_history,
            "bill": self.on_bill,
            "price": self.on_price,
        }
        script = scripts.get(kind, [])
        if script:
            answer = script.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, httpx.Response) else answer(request)
        if kind in ("POST", "enhance"):
            return envelope(self._explained(self.create(json.loads(request.content))))
        if kind == "balance":
            return envelope({"balance": self.balance})
        if kind == "price":
            return envelope({"price": self.price, "discounted_price": self.price})
        if kind == "history":
            return self.listed(request)
        if kind == "bill":
            return self._bill(json.loads(request.content))
        if last not in self.made:
            return refusal(404, "no such prediction")
        if kind == "poll":
            return self.polled(request)
        return httpx.Response(200, content=self.made[last].picture)

    def polled(self, request: httpx.Request) -> httpx.Response:
        """Answer a poll as always: for ``on_poll``."""
        made = self.made[request.url.path.removesuffix("/result").rpartition("/")[2]]
        return envelope(self._explained(made, echo=self.echo == "poll"))

    def listed(self, request: httpx.Request) -> httpx.Response:
        """Answer a listing as always: for ``on_history``."""
        return self._history(json.loads(request.content))

    def _history(self, asked: dict[str, Any]) -> httpx.Response:
        after = datetime.fromisoformat(asked["created_after"]).timestamp()
        found = [
            made
            for made in reversed(self.made.values())
            if made.created >= after and made.id not in self.hidden and "style" not in made.body
        ]
        start = (asked["page"] - 1) * asked["page_size"]
        shown = found[start : start + asked["page_size"]]
        items = [self._explained(made, echo=self.echo == "history") for made in shown]
        answer = envelope({"page": asked["page"], "items": items})
        answer.headers["date"] = format_datetime(
            datetime.fromtimestamp(self.clock.now + self.skew, UTC), True
        )
        return answer

    def _bill(self, asked: dict[str, Any]) -> httpx.Response:
        lines = [
            {
                "uuid": f"bill-{made.id}",
                "billing_type": "deduct",
                "price": self.price,
                "created_at": datetime.fromtimestamp(made.created, UTC).isoformat(),
                "prediction": {"uuid": made.id},
            }
            for made in reversed(self.made.values())
        ]
        return envelope({"page": asked["page"], "items": lines if asked["page"] == 1 else []})

    def _explained(self, made: FakePrediction, *, echo: bool = False) -> dict[str, Any]:
        told = {
            "id": made.id,
            "model": "wavespeed-ai/bitdance-14b/text-to-image",
            "status": "processing",
            "created_at": datetime.fromtimestamp(made.created, UTC).isoformat(),
            "outputs": [],
        } | ({"input": made.body} if echo else {})
        if self.clock.now + self.skew - made.created < self.latency:
            return told
        outputs = made.outputs if made.status == "completed" else []
        return told | {
            "status": made.status,
            "outputs": outputs,
            "has_nsfw_contents": [made.nsfw],
            "error": made.error,
            "code": made.code,
            "timings": {"inference": 1234.5},
        }


def envelope(data: object, *, code: int = 200) -> httpx.Response:
    return httpx.Response(200, json={"code": code, "message": "success", "data": data})


def refusal(status: int, message: str = "no", **headers: str) -> httpx.Response:
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"code": status, "message": message}, headers=shown)


def a_picture(extension: str = "png", text: str = "", *, side: int = 12) -> bytes:
    """Return a small picture whose pixels follow from ``text``."""
    pixels = hashlib.shake_256(text.encode()).digest(3 * side * side)
    file = BytesIO()
    image = Image.frombytes("RGB", (side, side), pixels)
    image.save(file, format={"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "gif": "GIF"}[extension])
    return file.getvalue()


def a_request(prompt: str = "a lighthouse at dawn", *, seed: int = 7, **fields: object) -> ImageRequest:
    return ImageRequest.of(prompt=prompt, seed=seed, **fields)


def a_wanted(
    prompt: str = "a lighthouse at dawn",
    *,
    key: str = "image",
    name: str = "cover",
    seed: int = 7,
    named: bool = False,
    style: str | None = None,
) -> Wanted:
    """Return an image wanted at ``name``: made from the task's ids, or ``named`` by the user."""
    path = f"{OUTPUT}/{name}" if named else f"{OUTPUT}/"
    address = parse_destination(path, default_stem=name)
    return Wanted(key=key, request=a_request(prompt, seed=seed), destination=address, style=style)


def a_job(**changes: Any) -> Job:
    fields: dict[str, Any] = {"dag_id": "covers", "run_id": "run-1", "task_id": "cover", "map_index": -1}
    return Job(**(fields | {"generation": 0} | changes))


def a_writer(*, try_number: int = 1, job: Job | None = None, token: str | None = None) -> Owner:
    return Owner(job=job or a_job(), try_number=try_number, host="worker", pid=1, token=token or uuid4().hex)


def a_plan(key: str = "image", *, seed: int = 7, stem: str = "cover") -> PlannedImage:
    request = a_request(seed=seed)
    return PlannedImage(
        key=key,
        request=request,
        seed_asked=seed,
        fingerprint=request.fingerprint(API_HOST),
        stem=stem,
        estimated_cost_usd=0.01,
    )


def a_receipt(data: bytes = b"", **changes: Any) -> Receipt:
    """Return a receipt, of the file with this content."""
    request = a_request()
    moment = datetime.fromtimestamp(START, UTC)
    fields: dict[str, Any] = {
        "uri": f"{OUTPUT}/cover.png",
        "file": "cover.png",
        "prediction_id": "pred-old",
        "request": request,
        "seed_asked": 7,
        "fingerprint": request.fingerprint(API_HOST),
        "width": 12,
        "height": 12,
        "media_type": "image/png",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "nsfw": False,
        "inference_ms": 1234.5,
        "estimated_cost_usd": 0.01,
        "possibly_paid": 0,
        "submitted_at": moment,
        "stored_at": moment,
        "writer": a_writer(),
    }
    return Receipt(**(fields | changes))


class World:
    """What outlives a process: the disk, the clock and the API. Each bench from it is a new process."""

    def __init__(self, *, latency: float = 3.0) -> None:
        self.clock = FakeClock()
        self.api = FakeAPI(self.clock, latency=latency)
        self.disk: dict[str, bytes] = {}

    def context(
        self,
        *,
        try_number: int = 1,
        job: Job | None = None,
        records: str = RECORDS,
        step: Step = lambda _: None,
        drawn_seed: int = 4242,
        count: Callable[[str, int], None] = lambda _name, _number: None,
        run_started_at: float = math.inf,
        killed: asyncio.Event | None = None,
        **policy: Any,
    ) -> JobContext:
        """Return the handles of a new process, with its journal loaded."""
        folder = SteppingFolder(MemoryFolder(self.disk, records), step)
        journal = Journal(folder, a_writer(try_number=try_number, job=job))
        journal.load()
        return JobContext(
            client=self.api.client(step),
            journal=journal,
            records=folder,
            images=SteppingFolder(MemoryFolder(self.disk, OUTPUT), step),
            policy=Policy(**policy),
            log=logging.getLogger("bitdance.test"),
            started_at=self.clock.now,
            run_started_at=run_started_at,
            coordination=Coordination(killed=killed or asyncio.Event()),
            clock=self.clock,
            draw_seed=lambda: drawn_seed,
            count=count,
        )

    @property
    def images(self) -> dict[str, bytes]:
        """The stored images by file name."""
        return {
            path.removeprefix(f"{OUTPUT}/"): data
            for path, data in self.disk.items()
            if path.startswith(f"{OUTPUT}/") and not path.startswith(f"{RECORDS}/")
        }

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event in the journals, in order; without the notes beside them."""
        disk = dict(self.disk)  # other threads may be writing
        entries = sorted(path for path in disk if "/jobs/" in path and not is_note(path))
        return [event for path in entries for event in json.loads(disk[path])["events"]]

    @property
    def notes(self) -> list[Note]:
        """What processes that had been replaced have left."""
        paths = sorted(path for path in dict(self.disk) if is_note(path))
        return [Note.model_validate_json(self.disk[path]) for path in paths]

    @property
    def unconfirmed(self) -> int:
        """How many submissions may have been charged without giving a prediction, by all the journals."""
        states: dict[str, JobState] = {}
        for path in sorted(path for path in self.disk if "/jobs/" in path):
            folder = path.rpartition("/")[0].removesuffix(NOTES)
            state, data = states.get(folder, JobState()), self.disk[path]
            if is_note(path):
                states[folder] = fold_notes(state, [Note.model_validate_json(data)])
            else:
                states[folder] = fold(state, Entry.model_validate_json(data))
        return sum(image.unconfirmed for state in states.values() for image in state.images.values())

    def settle(self) -> int:
        """Let each Dag run buy once more, and its jobs see what the history shows by then.

        :return: How many purchases stay possibly paid.
        """
        paths = [path for path in self.disk if path.endswith("/000001.json") and "/jobs/" in path]
        jobs = [Entry.model_validate_json(self.disk[path]).writer.job for path in paths]
        self.clock.now += ARRIVES_WITHIN + 1
        for run_id in {job.run_id for job in jobs}:
            later = self.context(job=a_job(task_id="later", run_id=run_id)).journal
            made = self.api.create({"prompt": "a later one", "size": "512*512", "seed": 99})
            later.claim(self.clock.now, self.clock.now, Planned(output=OUTPUT, images=(a_plan(),)))
            later.append(self.clock.now, Intended(keys=("image",)))
            later.append(self.clock.now, Submitted(key="image", prediction_id=made.id))
        self.clock.now += SHOWN_WITHIN
        for job in jobs:
            context = self.context(job=job)
            context.journal.claim(self.clock.now, self.clock.now)
            run(settle_losses(context))
        return self.unconfirmed

    @property
    def event_names(self) -> list[str]:
        return [event["event"] for event in self.events]

    @property
    def entry_count(self) -> int:
        return sum("/jobs/" in path and not is_note(path) for path in self.disk)
