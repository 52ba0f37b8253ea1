"""A service of the bank takes part in traces as applications do: with the OpenTelemetry SDK, its batches and
its exporter (OTLP over gRPC). What costs an application here costs any that does so in Python.

    a request comes        a span of kind server, child of the context that it carries
    a call goes out        a span of kind client within it, whose context the call carries

A request that carries no sampled context has no span and costs nothing. Calls to the stores have no spans of
their own: they are in the service's time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from meshwise.load.traced import HEADER
from meshwise.service.bank.spec import BankSpec
from meshwise.service.spans import ROLE_ATTRIBUTE, read_context

Headers = tuple[tuple[str, str], ...]


def status_untold(status: int) -> None:
    """For a request without a span."""


class CallTracing:
    """Of a service that is not told where a collector is: contexts are passed on as they came."""

    @contextmanager
    def server(self, name: str, headers: Headers) -> Iterator[Callable[[int], None]]:
        """Around the answering of a request; gives whom to tell the answer's status."""
        yield status_untold

    @contextmanager
    def client(self, name: str, headers: Headers) -> Iterator[Headers]:
        """Around a call; gives the headers to send."""
        yield headers

    def close(self) -> None:
        """Sends what is left."""


class SdkTracing(CallTracing):
    """See the head of the file."""

    def __init__(self, spec: BankSpec) -> None:
        # Imported here: a bank that is not traced need not have the SDK.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": str(spec.service), ROLE_ATTRIBUTE: "service"})
        self._provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"http://{spec.collector}", insecure=True)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("meshwise.bank")
        self._contexts = TraceContextTextMapPropagator()

    @contextmanager
    def server(self, name: str, headers: Headers) -> Iterator[Callable[[int], None]]:
        from opentelemetry.trace import SpanKind, StatusCode

        carried = dict(headers).get(HEADER, "")
        if read_context(carried.encode("latin-1", "replace")) is None:
            yield status_untold
            return
        context = self._contexts.extract({HEADER: carried})
        with self._tracer.start_as_current_span(name, context, SpanKind.SERVER) as span:

            def told(status: int) -> None:
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(StatusCode.ERROR)

            yield told

    @contextmanager
    def client(self, name: str, headers: Headers) -> Iterator[Headers]:
        from opentelemetry.trace import SpanKind, get_current_span

        if not get_current_span().is_recording():
            yield headers
            return
        with self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT):
            own: dict[str, str] = {}
            self._contexts.inject(own)
            yield (*without_context(headers), *own.items())

    def close(self) -> None:
        self._provider.shutdown()


def without_context(headers: Iterable[tuple[str, str]]) -> Headers:
    """What is passed on where there is no request that it would belong to."""
    return tuple((name, value) for name, value in headers if name != HEADER)


def tracing_of(spec: BankSpec) -> CallTracing:
    return SdkTracing(spec) if spec.collector else CallTracing()
