"""Who is logged in: the session cookie tells, which `main.py` has signed."""

from typing import Annotated

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel

from . import records

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
        PasswordHasher().verify(password_hash or "", login.password)
    except (VerificationError, ValueError):  # a wrong password, or nobody of that name
        raise HTTPException(403, "There is nobody of that name and password.") from None
    request.session["person"] = login.name


def person(request: Request) -> str:
    """Return the name of who asks."""
    name: str | None = request.session.get("person")
    if name is None:
        raise HTTPException(401, "Log in first.")
    return name


Person = Annotated[str, Depends(person)]
