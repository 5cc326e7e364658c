"""Secrets of a job file: the file says where each value is, and never the value itself.

    secrets:
      API_TOKEN: env            # of this process's environment, by the same name
      DB_PASSWORD: env:PGPASS   # by another
      tls.key: file:keys/tls.key

A list of names is the same as each of them from the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gridlease_kernel.faults import Invalid, Missing, TooLarge

from gridlease_sdk.jobvalues import text, texts, wrong_type

MAX_BYTES: Final = 64 << 10


def read(given: Any, folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Each secret's value. Paths count from ``folder``.

    Raises:
        Missing: SECRET_NOT_SET, FILE_NOT_FOUND. TooLarge: SECRET_TOO_LARGE.
        Invalid: it does not say where the value is, or is no text.
    """
    if given is None:
        return {}
    if isinstance(given, list):
        given = dict.fromkeys(texts(given, "secrets"), "env")
    if not isinstance(given, Mapping):
        raise wrong_type("secrets", "a mapping of names to env:NAME or file:PATH", given)
    return {
        text(name, "secrets"): _value(str(name), text(where, f"secrets.{name}"), folder, environ)
        for name, where in given.items()
    }


def _value(name: str, where: str, folder: Path, environ: Mapping[str, str]) -> str:
    kind, _colon, what = where.partition(":")
    if kind == "env":
        variable = what or name
        if variable not in environ:
            raise Missing(
                f"The variable {variable} is not set.",
                reason="SECRET_NOT_SET",
                field=f"secrets.{name}",
                remedy=f"Set {variable} in the environment of this command.",
            )
        found = environ[variable]
    elif kind == "file" and what:
        found = _file(name, folder / what)
    else:
        raise Invalid(
            f"secrets.{name} does not say where the value is.",
            reason="SECRET_IN_FILE",
            field=f"secrets.{name}",
            remedy="Write env, env:VARIABLE or file:PATH; the value itself stays out of the file.",
        )
    if len(found.encode()) > MAX_BYTES:
        raise TooLarge(
            f"secrets.{name} holds more than {MAX_BYTES >> 10} KiB.",
            reason="SECRET_TOO_LARGE",
            field=f"secrets.{name}",
            remedy="Keep large data in files of the job or in an object store.",
        )
    return found


def _file(name: str, path: Path) -> str:
    try:
        return path.read_bytes()[: MAX_BYTES + 1].decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(
            f"{path} is no text.",
            reason="SECRET_NOT_TEXT",
            field=f"secrets.{name}",
            remedy="Encode it, for example with base64.",
        ) from error
    except OSError as error:
        raise Missing(
            f"{path} cannot be read: {error.strerror}.",
            reason="FILE_NOT_FOUND",
            field=f"secrets.{name}",
            remedy="Paths count from the job file's folder.",
        ) from error
