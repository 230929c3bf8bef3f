"""Frames between pixio-eval and a worker.

A frame is a little-endian u32 with the length of a JSON object, the object (UTF-8), and a payload of
the object's `bytes` bytes (none where the key is absent).
"""

import json
import os
import struct
import sys
import traceback
from typing import BinaryIO, Optional

HEAD = struct.Struct("<I")
MAX_JSON = 1 << 20
MAX_PAYLOAD = 256 << 20
TRACEBACK_LINES = 6
MAX_FAULT = 4000


class Broken(Exception):
    """The stream cannot be followed any further: where the next frame starts is unknown."""


class BadRequest(Exception):
    """A request that asks for what cannot be done; its message is the whole fault."""


class Channel:
    """Both directions of the pipe."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO):
        self._reader = reader
        self._writer = writer

    @classmethod
    def over_standard_streams(cls) -> "Channel":
        """Takes descriptors 0 and 1 for itself.

        What simulators and their libraries print to descriptor 1 goes to standard error from here
        on, and what they read from descriptor 0 is empty.
        """
        sys.stdout.flush()
        reader = os.fdopen(os.dup(0), "rb")
        writer = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        return cls(reader, writer)

    def receive(self) -> Optional[tuple[dict, bytes]]:
        """The next request with its payload; None at the end of the input.

        Raises `BadRequest` for a frame that is not a JSON object (taken to have no payload) and
        `Broken` for a frame over the limits or cut short.
        """
        head = self._reader.read(HEAD.size)
        if not head:
            return None
        if len(head) < HEAD.size:
            raise Broken("the input ended within a frame's length")
        (length,) = HEAD.unpack(head)
        if length > MAX_JSON:
            raise Broken(f"a request of {length} bytes of JSON; the limit is {MAX_JSON}")
        text = self._exactly(length)
        try:
            request = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"a request that is not JSON: {error}") from None
        if not isinstance(request, dict):
            raise BadRequest(f"a request that is a {type(request).__name__}; expected an object")
        size = request.get("bytes", 0)
        if type(size) is not int or not 0 <= size <= MAX_PAYLOAD:
            raise Broken(f"a request with bytes {size!r}; expected 0 to {MAX_PAYLOAD}")
        return request, self._exactly(size)

    def answer(self, ok: dict, parts: list[bytes]) -> None:
        """Sends what a request asked for; the payload's parts go out one after the other."""
        size = sum(len(part) for part in parts)
        if size > MAX_PAYLOAD:
            raise BadRequest(f"an answer of {size} bytes; the limit is {MAX_PAYLOAD}: ask for fewer items")
        text = json.dumps({"ok": ok, "bytes": size}, allow_nan=False).encode()
        if len(text) > MAX_JSON:
            raise BadRequest(f"an answer of {len(text)} bytes of JSON; the limit is {MAX_JSON}")
        self._writer.writelines([HEAD.pack(len(text)), text, *parts])
        self._writer.flush()

    def fault(self, message: str) -> None:
        """Says why a request was not done."""
        text = json.dumps({"fault": message[:MAX_FAULT]}).encode()
        self._writer.writelines([HEAD.pack(len(text)), text])
        self._writer.flush()

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise Broken(f"the input ended {size - len(data)} bytes before a frame's end")
        return data


def describe(error: BaseException) -> str:
    """An error in words, with the last lines of its traceback where it is not a bad request."""
    if isinstance(error, BadRequest):
        return str(error)
    lines = "".join(traceback.format_tb(error.__traceback__)).rstrip().splitlines()
    summary = f"{type(error).__name__}: {error}"
    return "\n".join([summary, *lines[-TRACEBACK_LINES:]])
