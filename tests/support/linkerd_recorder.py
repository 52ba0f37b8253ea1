"""The control plane, writing down what proxies ask: `python -m tests.support.linkerd_recorder DIRECTORY`.

One JSON line per call in DIRECTORY/exchange.jsonl: method, request, metadata. Secrets and keys are left out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from meshwise.mesh.commands import until_told
from meshwise.mesh.linkerd import controller

FILE = "exchange.jsonl"
_SECRET = ("token", "certificate_signing_request")


class Recorder(controller.Controller):
    """Answers like the control plane, and remembers the questions."""

    file: Path

    def service(self, handler_call_details: Any) -> Any:
        handler = super().service(handler_call_details)
        if handler is None:
            return None
        metadata = {
            key: value for key, value in handler_call_details.invocation_metadata if key != "user-agent"
        }

        def read(data: bytes) -> Any:
            message = handler.request_deserializer(data)
            self._write(handler_call_details.method, message, metadata)
            return message

        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        call = handler.unary_stream if handler.response_streaming else handler.unary_unary
        return make(call, read, handler.response_serializer)

    def _write(self, method: str, message: Any, metadata: dict[str, Any]) -> None:
        request = json_format.MessageToDict(message, preserving_proto_field_name=True)
        shown = {key: "(left out)" if key in _SECRET else value for key, value in request.items()}
        with self.file.open("a") as file:
            file.write(json.dumps({"method": method, "request": shown, "metadata": metadata}) + "\n")


if __name__ == "__main__":
    Recorder.file = Path(sys.argv[1]) / FILE
    controller.Controller = Recorder  # type: ignore[misc]
    asyncio.run(until_told(partial(controller.serve, Path(sys.argv[1]))))
