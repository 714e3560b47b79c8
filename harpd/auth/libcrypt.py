"""crypt(3) of this machine's libcrypt: what it hashes it hashes without holding the GIL.

Which hashes there are is the business of `harpd.auth.schemes`. Python's own crypt module, gone
since 3.13, holds the GIL and with it the reactor.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache

_NAMES = ("libcrypt.so.1", "libcrypt.so.2")

# Of struct crypt_data: 131,232 bytes in glibc, 32,768 in libxcrypt.
_DATA_SIZE = 256 * 1024

_buffers = threading.local()


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """Hash a password.

    :param password: without a NUL byte, up to 512 bytes; others can't be hashed.
    :param setting: the salt in the form of crypt(5), or a hash that has it.
    :return: the hash, or None where libcrypt can't make it or is not there.
    """
    library = _library()
    if library is None or b"\0" in password:
        return None
    if not hasattr(_buffers, "data"):
        _buffers.data = ctypes.create_string_buffer(_DATA_SIZE)
    data = _buffers.data
    found: bytes | None = library.crypt_r(password, setting, data)
    ctypes.memset(data, 0, _DATA_SIZE)  # in it are the password and what came of it
    return None if found is None or found.startswith(b"*") else found


@cache
def _library() -> ctypes.CDLL | None:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
            library.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p)
            library.crypt_r.restype = ctypes.c_char_p
        except (OSError, AttributeError):
            continue
        return library
    return None
