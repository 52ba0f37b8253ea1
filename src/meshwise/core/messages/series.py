"""MW0xx: the archive as tables and time series for others: query, export, import, live metrics."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, study_fault

BAD_QUERY = study_fault(
    "MW001",
    "{what}",
    "{remedy}",
)
NOT_A_QUESTION = study_fault(
    "MW002",
    "only one SELECT is answered, this is {found}",
    "the archive is not changed by a query: ask with one SELECT (WITH, VALUES, DESCRIBE and SUMMARIZE are "
    "SELECTs too)",
)
OUT_OF_QUERY_MEMORY = environment_fault(
    "MW003",
    "the query needs more than {memory}: {what}",
    "ask for less at once (fewer columns or trials, an aggregate), or give `--memory` more",
)
QUERY_TOOK_TOO_LONG = environment_fault(
    "MW004",
    "the query was stopped after {timeout}",
    "ask for less, or give `--timeout` more",
)
BAD_SERIES_OPTION = study_fault("MW010", "{what}", "{remedy}")
NOTHING_TO_EXPORT = study_fault(
    "MW011",
    "no trial of it has a wall-clock time: nothing was measured to its end",
    "see `failure` in trials.parquet for why; continue with `meshwise run ... --resume`",
)
BAD_SERVER_ADDRESS = study_fault("MW020", "`{url}` is no address to use: {reason}", "{remedy}")
BAD_AUTH_FILE = study_fault(
    "MW021",
    "{reason}",
    "write one line into it, `Bearer TOKEN` or `Basic USER:PASSWORD`, and let nobody else read it "
    "(`chmod 600`)",
)
UNREACHABLE = environment_fault(
    "MW022",
    "no answer: {reason}",
    "check that the server runs there and may be reached from here: `curl {url}`",
)
REFUSED_BY_SERVER = environment_fault("MW023", "the server refuses: {status}: {reason}", "{remedy}")
GARBAGE = environment_fault(
    "MW024",
    "what it answers is not what it should be: {reason}",
    "check that the address is the root of a Prometheus (`curl {url}/api/v1/query?query=1` answers JSON)",
)
TOO_MUCH = study_fault(
    "MW025",
    "more than {most} would be kept: {reason}",
    "a shorter time (`--from`, `--to`), a larger `--step`, one `--namespace`, or a larger `--most-samples`",
)
NOTHING_FOUND = environment_fault(
    "MW026",
    "it has none of the metrics of a mesh between {begin} and {end}",
    "give another time (`--from`, `--to`) or namespace; it has to scrape Istio's or Linkerd's proxies "
    "(istio_requests_total or response_total)",
)
NOT_AN_IMPORT = environment_fault(
    "MW027", "the import is damaged: {reason}", "import it again into another directory"
)
METRICS_PORT_TAKEN = environment_fault(
    "MW030", "metrics cannot be served on {address}: {reason}", "give `--metrics` another port"
)
