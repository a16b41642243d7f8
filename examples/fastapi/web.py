"""Jobs sent in a request, their states and progress as server-sent events.

    pip install -r requirements.txt
    leveret worker jobs:app --threads 4         one terminal
    uvicorn web:api                             another
    curl -d '{"text": "a hare a tortoise", "pause": 1}' -H 'Content-Type: application/json' localhost:8000/counts
    curl -N localhost:8000/counts/ID/events

Any process of the site can tell a job's state by its id: on SQLite results are in the file.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import leveret
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from jobs import app as jobs
from jobs import count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ENDED = {"succeeded", "dead", "expired", "cancelled"}
LOOK_AGAIN = 0.25
"""Seconds between two looks at a job that runs; its end is told at once."""
KEEP_ALIVE = 15.0
"""Seconds without an event after which a comment keeps the connection open."""


@asynccontextmanager
async def lifespan(_api: FastAPI) -> AsyncIterator[None]:
    """Connect with the first request, and close when the server stops."""
    with jobs:
        yield


api = FastAPI(lifespan=lifespan)


@api.post("/counts", status_code=202)
async def send(text: Annotated[str, Body()], pause: Annotated[float, Body(ge=0, le=60)] = 0.0) -> dict[str, str]:
    """Send a job. `send` waits for the disk, so it is called beside the event loop."""
    job = await asyncio.to_thread(count.send, text, pause)
    return {"id": job.id, "events": f"/counts/{job.id}/events"}


def found(job_id: str) -> leveret.Job[dict[str, int]]:
    """Return a job by its id; 404 for what is none."""
    try:
        return jobs.job(job_id, count)
    except ValueError as error:
        raise HTTPException(404, str(error)) from error


async def status(job: leveret.Job[dict[str, int]]) -> dict[str, Any]:
    """Return where a job is, and how far or how it ended."""
    state = await asyncio.to_thread(job.state)
    if state not in ENDED:
        told = await asyncio.to_thread(job.progress)
        return {"state": state, "progress": told and told.progress, "text": told and told.text}
    try:
        return {"state": state, "result": await job}
    except leveret.JobDead as error:
        return {"state": state, "error": error.message}
    except leveret.JobFailed as error:
        return {"state": state, "error": str(error)}


@api.get("/counts/{job_id:path}/events")
async def events(job_id: str) -> StreamingResponse:
    """Stream what `status` says: now, when it changes, and when the job has ended."""
    job = found(job_id)

    async def stream() -> AsyncIterator[str]:
        now = await status(job)
        yield f"event: state\ndata: {json.dumps(now)}\n\n"
        told = asyncio.get_running_loop().time()
        while now["state"] not in ENDED:
            with suppress(leveret.ResultTimeout, leveret.JobFailed):
                await job.result_async(LOOK_AGAIN)
            before, now = now, await status(job)
            if now != before:
                yield f"event: state\ndata: {json.dumps(now)}\n\n"
            elif asyncio.get_running_loop().time() - told < KEEP_ALIVE:
                continue
            else:
                yield ": still here\n\n"
            told = asyncio.get_running_loop().time()

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@api.get("/counts/{job_id:path}")
async def show(job_id: str) -> dict[str, Any]:
    """Tell where the job is."""
    return await status(found(job_id))
