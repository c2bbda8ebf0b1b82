"""Asks for all records, many at once; each answer is in the journal before the next thing happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from typing import Any

from editors.core.errors import InputError
from evaluators.portability.endpoint import Asking, ChatClient, Unanswered
from evaluators.portability.journal import Entry, Journal, request_key
from evaluators.portability.prompt import VERSION, prompt
from evaluators.portability.records import EditRecord

PATIENCE = 5  # requests without an answer in a row, each with its retries, after which no more are sent


def unasked(records: Iterable[EditRecord], asking: Asking, journal: Journal) -> list[EditRecord]:
    """The records to ask for: one for each request that has no answer in the journal."""
    waiting: dict[str, EditRecord] = {}
    for record in records:
        key = request_key(asking.request(prompt(record)))
        if key not in journal.answers:
            waiting.setdefault(key, record)
    return list(waiting.values())


def ask_all(records: Iterable[EditRecord], client: ChatClient, journal: Journal,
            on_entry: Callable[[Entry], None] = lambda entry: None) -> None:
    """Asks for every record; `on_entry` is called with every request that is through.

    Raises `InputError` where going on makes no sense: the endpoint cannot be reached, refuses the key or the model, or
    gives no answer many times in a row.
    """
    client.check()
    silent = 0
    with ThreadPoolExecutor(client.asking.concurrency) as threads:
        try:
            for future in as_completed([threads.submit(_ask, record, client, journal) for record in records]):
                entry = future.result()
                silent = 0 if entry.response is not None else silent + 1
                on_entry(entry)
                if silent == PATIENCE:
                    raise InputError(f"{client.asking.place} gives no answer: {entry.error}. What was answered is "
                                     "kept; the same command goes on from there")
        except BaseException:
            client.stop()
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _ask(record: EditRecord, client: ChatClient, journal: Journal) -> Entry:
    """The request for one record, once it is in the journal."""
    request = client.asking.request(prompt(record))
    asked: dict[str, Any] = {"key": request_key(request), "record": record.id, "prompt_version": VERSION,
                             "asked": datetime.now(UTC), "request": request}
    try:
        reply = client.ask(request)
    except Unanswered as error:
        entry = Entry(**asked, error=str(error))
    except InputError as error:
        journal.append(Entry(**asked, error=str(error)))
        raise
    else:
        entry = Entry(**asked, response=_body(reply.body), retries=reply.retries)
    journal.append(entry)
    return entry


def _body(text: str) -> Any:
    """A body as JSON; as text where it is none, or has characters that no file can hold (lone surrogates)."""
    try:
        body = json.loads(text)
        json.dumps(body, ensure_ascii=False).encode()
    except ValueError:
        return text
    return text if body is None else body
