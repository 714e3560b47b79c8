"""Who is logged in: the session cookie tells, which `main.py` has signed."""

from typing import Annotated

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel

from . import records

NOBODY = PasswordHasher().hash("")
"""For names that there are not, so that the time of an answer does not tell which there are."""

router = APIRouter()


class Login(BaseModel):
    """What somebody proves who he is with."""

    name: str
    password: str


@router.post("/login", status_code=204)
def log_in(login: Login, request: Request) -> None:
    """Log somebody in."""
    password_hash = records.password_hash(login.name)
    try:
        PasswordHasher().verify(password_hash or NOBODY, login.password)
        is_known = password_hash is not None
    except VerificationError:
        is_known = False
    if not is_known:
        raise HTTPException(403, "There is nobody of that name and password.")
    request.session["person"] = login.name


def person(request: Request) -> str:
    """Return the name of who asks."""
    name: str | None = request.session.get("person")
    if name is None:
        raise HTTPException(401, "Log in first.")
    return name


Person = Annotated[str, Depends(person)]
