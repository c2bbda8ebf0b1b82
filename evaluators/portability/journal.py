"""Every request and what came back, one JSON object a line. Lines are added, never changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from editors.core.errors import InputError
from editors.core.files import no_file


class Entry(BaseModel):
    """One request: the body sent, for which record, and the body that came back, as JSON where it is JSON.

    `response` is None where no answer came, and `error` says why. `retries` counts the tries before the last one.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    record: str
    prompt_version: int
    asked: datetime
    request: dict[str, Any]
    response: Any = None
    error: str | None = None
    retries: int | None = None

    @property
    def text(self) -> str | None:
        """What the model said; None where it said nothing."""
        choice = self._choice
        message = choice.get("message") if choice else None
        text = message.get("content") if isinstance(message, dict) else None
        return text if isinstance(text, str) and text.strip() else None

    @property
    def is_cut_off(self) -> bool:
        """Whether the answer ended at the limit of tokens."""
        return self._choice is not None and self._choice.get("finish_reason") == "length"

    @property
    def tokens(self) -> tuple[int, int]:
        """(of the prompt, of the answer), as the endpoint counts them; 0 where it does not."""
        usage = self.response.get("usage") if isinstance(self.response, dict) else None
        counts = [usage.get(name) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens")]
        prompt, answer = (count if isinstance(count, int) else 0 for count in counts)
        return prompt, answer

    @property
    def _choice(self) -> dict[str, Any] | None:
        choices = self.response.get("choices") if isinstance(self.response, dict) else None
        return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def request_key(request: dict[str, Any]) -> str:
    """Names a request by all that it says: model, prompt (with the record in it), temperature, limit of tokens."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """The journal at `path`, open for adding to; one process at a time. `answers` are the latest, by request key.

    A last line that was cut off is dropped. Raises `InputError` where another process writes to the journal, a line
    cannot be read, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Entry] = {}
        self._lock = threading.Lock()
        if kind := no_file(path):
            raise InputError(f"cannot write '{path}': it is {kind}, and not a journal; choose another folder")
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise InputError(f"cannot write '{path}': {error.strerror or error}") from error
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another command is writing to '{self.path}': wait for it, or choose another folder"
                             ) from error
        except OSError:
            pass  # a file system without locks
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            end += len(line)
            try:
                self._note(Entry.model_validate_json(line))
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise InputError(f"'{self.path}', line {number} is no entry of a journal: {problem}. Delete the line, "
                                 "and its record is asked again") from error

    def append(self, entry: Entry) -> None:
        """On disk when this returns. From any thread."""
        with self._lock:
            self._file.write(entry.model_dump_json().encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        if entry.response is not None:
            self.answers[entry.key] = entry

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
