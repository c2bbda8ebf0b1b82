"""A language model behind an OpenAI-compatible endpoint, asked at a limited rate, with retries."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from editors.core.errors import CaseError, InputError
from editors.core.places import holds_secrets, scrubbed, shown, without_keys

KEY = "OPENAI_API_KEY"
SLOWEST = 0.001  # requests a minute


@dataclass(frozen=True)
class Asking:
    """Which model is asked and how."""

    endpoint: str
    """OpenAI-compatible address, mostly up to /v1, without a name or key in it."""
    model: str
    """The endpoint's name for the model."""
    temperature: float = 0.0
    """Of its answers; at 0 the most probable one."""
    max_tokens: int = 256
    """Tokens of an answer, at most; one that is cut off is of no use."""
    requests_per_minute: float | None = 60.0
    """Requests sent, at most, retries included; None: as many as come."""
    concurrency: int = 4
    """Requests under way at once."""
    timeout: float = 60.0
    """Seconds to wait for an answer, in each try."""
    retries: int = 6
    """Further tries after the first."""

    def __post_init__(self) -> None:
        """Raises `InputError` for an address that is none, and a rate at which nothing would ever be sent."""
        if self.requests_per_minute is not None and not self.requests_per_minute >= SLOWEST:
            raise InputError(f"{self.requests_per_minute} requests a minute: at least {SLOWEST} are sent, and 0 is no "
                             "limit")
        if not _is_address(self.endpoint) or holds_secrets(self.endpoint):
            raise InputError(f"endpoint '{self.place}' is not the address of an API: write something like "
                             "https://host/v1, without a name, key or query in it")

    @property
    def place(self) -> str:
        """The endpoint as messages and files may have it."""
        return shown(self.endpoint)

    def request(self, prompt: str) -> dict[str, Any]:
        """The body of a request for one chat completion."""
        return {"model": self.model, "messages": [{"role": "user", "content": prompt}],
                "temperature": self.temperature, "max_tokens": self.max_tokens}


def _is_address(url: str) -> bool:
    """Whether a client can make something of it."""
    try:
        parts = urlsplit(url)
        return (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
                and parts.netloc.encode("idna") != b"")
    except ValueError:  # a port that is none, a bracket too few, a name that no host can have
        return False


class RateLimit:
    """Spaces requests evenly, at most so many a minute; None is no limit. `clock` and `sleep` are in seconds."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], object] = time.sleep) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._next = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when the next request may be sent. From any thread."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._interval
        if start > now:
            self._sleep(start - now)


class Reply(NamedTuple):
    """The body that came back, and the number of tries before."""

    body: str
    retries: int


class Unanswered(CaseError):
    """A request that got no answer, retries included."""


class ChatClient:
    """Sends requests, from any thread. Dropped connections, timeouts, 408, 409, 429 and 5xx are tried again with
    growing pauses, or the pause the endpoint asks for; every try keeps to `limit`.

    What comes back is without the key, whatever the endpoint repeats of it. Raises `InputError` where there is no key,
    or no `openai` package.
    """

    def __init__(self, asking: Asking, limit: RateLimit | None = None) -> None:
        try:
            import openai
        except ImportError as error:
            raise InputError("asking a language model needs the package 'openai': "
                             "pip install 'editfleet[portability]'") from error
        key = _key(asking)
        self.asking = asking
        self._stopped = threading.Event()
        self._limit = limit or RateLimit(asking.requests_per_minute, sleep=self._stopped.wait)
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=key, base_url=asking.endpoint, timeout=asking.timeout, max_retries=asking.retries,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._before_try]}))

    def _before_try(self, request: object) -> None:
        self._limit.wait()
        if self._stopped.is_set():
            raise Unanswered("stopped before it was sent")

    def check(self) -> None:
        """Raises `InputError` where nothing answers at the address, or the key is refused.

        What comes back is of no interest: not every endpoint lists its models.
        """
        try:
            self._client.with_options(max_retries=1).models.with_raw_response.list()
        except self._openai.AuthenticationError as error:
            raise self._refused(error) from error
        except self._openai.APIConnectionError as error:
            raise InputError(f"{self.asking.place} cannot be reached: {_short(error, error.__cause__)} "
                             "Check --endpoint, and that its server runs") from error
        except self._openai.OpenAIError:
            pass

    def ask(self, request: dict[str, Any]) -> Reply:
        """What comes back for one request, as it is.

        Raises `InputError` for what would befall every request (a refused key, an unknown model), and `Unanswered`
        where this one got no answer.
        """
        create: Any = self._client.chat.completions.with_raw_response.create  # a body as a mapping has no type there
        try:
            raw = create(**request)
        except self._openai.AuthenticationError as error:
            raise self._refused(error) from error
        except self._openai.NotFoundError as error:
            raise InputError(f"{self.asking.place} has no model '{self.asking.model}', or is not the address of an "
                             f"OpenAI-compatible API (most end in /v1): {_short(error)}") from error
        except self._openai.APIConnectionError as error:
            raise Unanswered(_short(error, error.__cause__)) from error
        except self._openai.OpenAIError as error:
            raise Unanswered(_short(error)) from error
        return Reply(without_keys(raw.text), raw.retries_taken)

    def _refused(self, error: Exception) -> InputError:
        return InputError(f"{self.asking.place} refuses the key in {KEY}: {_short(error)}")

    def stop(self) -> None:
        """No further try is sent; what is under way comes to its end."""
        self._stopped.set()

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()


def _key(asking: Asking) -> str:
    """The key in the environment, without the blanks and line ends that files and shells leave around it."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise InputError(f"there is no key for {asking.place}: set the environment variable {KEY} (to any text, for an "
                         "endpoint that needs none)")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(f"the key in {KEY} has a character that no key has (a blank, a line end, a control character, "
                         "or a letter beyond ASCII): set it anew, without quotes or other text around it")
    return key


def _short(*errors: BaseException | None) -> str:
    return " ".join(scrubbed(" ".join(str(error) for error in errors if error)).split())[:300]
