"""The app: shows previews from Airflow's own database, to those who may read the XComs of their Dag.

Airflow does not protect the apps of plugins (apache/airflow#72655), so one dependency of the whole app does:
a request whose Dag cannot be checked is refused. It only reads, calls nobody, and follows no address.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from airflow_provider_bitdance.plugin.page import NO_SHEET, STYLE_HASH, WHICH_SHEET, Section, render
from airflow_provider_bitdance.preview.content import MAX_PREVIEW, PREVIEW_KEY, read_preview
from airflow_provider_bitdance.preview.sheet import MAX_SHEET_XCOM, read_sheet, sheet_key

MOST_SECTIONS = 24
"""Task instances of a run whose images are on one page."""
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; img-src data:; style-src 'sha256-{STYLE_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
_NOTHING = (
    "There are no images to show. They appear here once the task's latest try has stored some, unless "
    "previews = 0 is set."
)
_ELSEWHERE = "This preview is not in Airflow's database, because an XCom backend stores it elsewhere."
_TOO_LARGE = "This preview is not shown, because it is larger than any that the provider creates."

_check_dag = requires_access_dag("GET", DagAccessEntity.XCOM)
# A database refuses NUL, and whole numbers that are longer than its own.
Id = Annotated[str, Path(min_length=1, max_length=250, pattern=r"^[^\x00]+$")]
MapIndex = Annotated[int, Path(ge=-1, lt=2**31)]
_INDEX = re.compile(r"[0-9]{1,9}", re.ASCII)
_IDENTITY = XComModel.__mapper__.primary_key
"""Of an XCom: from Airflow 3.4 on, iterations of a loop may share task id and map index."""
_SIZE = func.length(cast(XComModel.value, Text))
"""Of an XCom, in characters of JSON: what is too large is never read."""


def allowed(request: Request, user: GetUserDep) -> None:
    """Refuse who may not read the XComs of the Dag in the path.

    :raises HTTPException: 401, 403; 404 where the path has no Dag that could be checked.
    """
    dag_id = request.path_params.get("dag_id")
    if not dag_id or dag_id == "~" or "\0" in dag_id:
        raise HTTPException(404, "Page not found")
    _check_dag(request, user)


def make_app() -> FastAPI:
    """Return the app, for a path below Airflow's own."""
    app = FastAPI(
        title="BitDance images",
        dependencies=[Depends(allowed)],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.add_api_route("/images/{dag_id}/{run_id}", of_run, methods=["GET"], response_class=HTMLResponse)
    of_one = "/images/{dag_id}/{run_id}/{task_id}/{map_index}"
    app.add_api_route(of_one, of_task, methods=["GET"], response_class=HTMLResponse)
    sheet = "/sheets/{dag_id}/{run_id}/{task_id}/{map_index}/{key}"
    app.add_api_route(sheet, sheet_of_row, methods=["GET"], response_class=Response)

    @app.middleware("http")
    async def with_headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    return app


def of_task(dag_id: Id, run_id: Id, task_id: Id, map_index: str, session: SessionDep) -> str:
    """Show the images of a task instance: of its last try, for Airflow shows no other XComs.

    The UI does not say which iteration of a loop it is about: all of them are shown.
    """
    # Where a task is not mapped, the UI leaves the placeholder as it is.
    index = (XComModel.map_index == int(map_index),) if _INDEX.fullmatch(map_index) else ()
    return _page(session, _previews(dag_id, run_id, XComModel.task_id == task_id, *index), is_run=False)


def of_run(dag_id: Id, run_id: Id, session: SessionDep) -> str:
    """Show the images of all tasks of a Dag run."""
    return _page(session, _previews(dag_id, run_id), is_run=True)


def sheet_of_row(
    dag_id: Id, run_id: Id, task_id: Id, map_index: MapIndex, key: Id, session: SessionDep
) -> Response:
    """Send the picture of all variants of a row. Where there is none, send one that says so: an ``img`` can
    show nothing else, and shows it whatever the status is.

    A person may approve what they see, so where several iterations of a loop have one, none of them is sent.
    """
    where = _xcoms(
        dag_id, run_id, sheet_key(key), XComModel.task_id == task_id, XComModel.map_index == map_index
    )
    rows = session.execute(select(_SIZE.label("size"), *_IDENTITY).where(*where).limit(2)).all()
    is_one = len(rows) == 1 and (rows[0].size or 0) <= 2 * MAX_SHEET_XCOM
    if is_one and (picture := read_sheet(_value(session, rows[0]))):
        return Response(picture, media_type="image/webp")
    return Response(WHICH_SHEET if len(rows) > 1 else NO_SHEET, status_code=404, media_type="image/svg+xml")


def _page(session: Session, where: tuple[Any, ...], *, is_run: bool) -> str:
    rows = _rows(session, where)
    is_titled = is_run or len(rows) > 1
    sections = [_section(session, row, title=_title(row) if is_titled else "") for row in rows]
    found = session.scalar(select(func.count()).select_from(XComModel).where(*where)) or 0
    return render(sections, nothing=_NOTHING, more=max(found - MOST_SECTIONS, 0))


def _previews(dag_id: str, run_id: str, *where: Any) -> tuple[Any, ...]:
    return _xcoms(dag_id, run_id, PREVIEW_KEY, *where)


def _xcoms(dag_id: str, run_id: str, key: str, *where: Any) -> tuple[Any, ...]:
    # By the run's number, and not by its id: only for that XComs of a run have an index below Airflow 3.4.
    run = select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id).scalar_subquery()
    return XComModel.dag_run_id == run, XComModel.key == key, *where


def _rows(session: Session, where: tuple[Any, ...]) -> list[Any]:
    """Return where the first previews are, and how large they are: their values are read one by one."""
    size = _SIZE.label("size")
    query = select(XComModel.task_id, XComModel.map_index, size, *_IDENTITY).where(*where)
    first = query.order_by(XComModel.task_id, XComModel.map_index, *_IDENTITY).limit(MOST_SECTIONS)
    return list(session.execute(first))


def _value(session: Session, row: Any) -> Any:
    where = (column == getattr(row, column.name) for column in _IDENTITY)
    return session.scalar(select(XComModel.value).where(*where))


def _section(session: Session, row: Any, *, title: str) -> Section:
    if row.size is None or row.size > 2 * MAX_PREVIEW:
        return Section(title, message=_TOO_LARGE)
    try:
        preview = read_preview(_value(session, row))
    except (ValueError, RecursionError):  # JSON that is nested too deep, or has a number without end
        preview = None
    return Section(title, preview) if preview else Section(title, message=_ELSEWHERE)


def _title(row: Any) -> str:
    return f"{row.task_id} [{row.map_index}]" if row.map_index >= 0 else str(row.task_id)
