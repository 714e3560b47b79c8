"""The application. What is secret comes from the environment."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.middleware.sessions import SessionMiddleware

import harp

from . import backups, login, records
from .schemas import Failure

MAX_FOLLOWERS = 100
"""How many threads there may be for those who watch; the others have the server's own."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have one client for the whole process; its threads share it."""
    records.make_tables()
    app.state.followers = CapacityLimiter(MAX_FOLLOWERS)
    app.state.rpc = harp.HarpCaller(
        os.environ.get("HARP_HOST", "localhost"),
        int(os.environ.get("HARP_PORT", "3502")),
        ca_file=os.environ.get("HARP_CA_FILE"),
        token=os.environ.get("HARP_TOKEN"),
        connect_timeout=5,  # somebody waits for the answer
        reply_timeout=10,
    )
    yield
    app.state.rpc.close()


app = FastAPI(lifespan=lifespan)
# Other sites' POSTs come without the session: "lax" is the default of same_site.
app.add_middleware(SessionMiddleware, secret_key=os.environ["APP_SECRET_KEY"], https_only=True)
app.include_router(login.router)
app.include_router(backups.router)


@app.exception_handler(harp.HarpException)
def failed(_: Request, error: harp.HarpException) -> JSONResponse:
    """Tell what the dispatcher could not be asked."""
    return JSONResponse(Failure.of(error).model_dump(), status_code=502)


@app.get("/", include_in_schema=False)
def page() -> FileResponse:
    """Return the page that uses all this."""
    return FileResponse(Path(__file__).with_name("page.html"))
