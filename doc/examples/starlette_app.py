"""The same on Starlette. FastAPI is built on it: ``FastAPI(lifespan=lifespan)`` takes the very same function."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from purchases import keep, submission_id_of, verdicts_of
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receipt_actors import ReceiptSystem
from receipt_actors.errors import QueueUnavailable, SubmissionRefused
from receipt_actors.settings import load_settings


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Start with the application, and drain when it ends; both wait, so neither is done on the event loop."""
    app.state.system = await run_in_threadpool(ReceiptSystem.start, load_settings({}), on_result=keep)
    yield
    await run_in_threadpool(app.state.system.drain)


async def submit(request: Request) -> Response:
    """Take a receipt. 202: it will be answered; nothing is lost from here on."""
    body = await request.json()
    receipt, user_id = body["receipt"], body["user_id"]
    submission_id = submission_id_of(receipt, user_id)
    try:
        await run_in_threadpool(request.app.state.system.submit, receipt, user_id, submission_id=submission_id)
    except SubmissionRefused as error:
        return JSONResponse({"error": str(error)}, 400)
    except QueueUnavailable:
        return JSONResponse({"error": "try again"}, 503)
    return JSONResponse({"submission_id": submission_id}, 202)


async def verdicts(request: Request) -> Response:
    """Tell the verdicts; 404 while there is none."""
    found = await run_in_threadpool(verdicts_of, request.path_params["submission_id"])
    return JSONResponse(found) if found else JSONResponse({"error": "not answered yet"}, 404)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/purchases", submit, methods=["POST"]),
        Route("/purchases/{submission_id}", verdicts),
    ],
)
