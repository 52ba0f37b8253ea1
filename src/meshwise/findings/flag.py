"""What a reader must know before quoting a number: every kind of flag once, with its words and its remedy.

    flag = LOST_PAIRS(blocks=3)          # code and facts
    flag.code == LOST_PAIRS.code         # what code asks
    str(flag)                            # `lost_pairs: 3 blocks have ...`, as findings.json has it

A flag that is read back knows its code and its words; the facts went into the words when it was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Fact = str | float


@dataclass(frozen=True)
class Flag:
    code: str
    facts: tuple[tuple[str, Fact], ...] = ()
    words: str = ""
    trials: tuple[int, int] | None = None
    """How many of a cell's trials carry it, of how many; None: it is not about trials."""

    def __str__(self) -> str:
        counted = f" (in {self.trials[0]} of {self.trials[1]} trials)" if self.trials else ""
        return f"{self.code}: {self.words}{counted}"

    @property
    def kind(self) -> FlagKind:
        return KINDS.get(self.code) or FlagKind(self.code, "{words}")

    @classmethod
    def read(cls, text: str) -> Flag:
        """The inverse of `str`, but for the facts."""
        code, colon, words = text.partition(":")
        counted = _COUNTED.search(words)
        if counted is None:
            return cls(code, words=words.strip() if colon else code)
        return cls(code, words=words[: counted.start()].strip(), trials=(int(counted[1]), int(counted[2])))


_COUNTED = re.compile(r"\s*\(in (\d+) of (\d+) trials\)$")


@dataclass(frozen=True)
class FlagKind:
    code: str
    template: str
    remedy: str = ""
    """What to do about it."""
    in_tables: str = ""
    """Words where the numbers that differ from row to row are not needed."""
    whole_table: bool = False
    """It concerns a whole table, whose title says it once."""
    late: bool = False
    """The load generator was late or at its limit, or was kept from the CPU by others."""

    def __call__(self, **facts: Fact) -> Flag:
        return Flag(self.code, tuple(facts.items()), self.template.format(**facts))


_LOAD = "lower the rate, or give the load generator a CPU of its own"
_BLOCKS = "more blocks would tell: raise `blocks` in the study"
_FEW = "so few executions that intervals are wide (below 5) or absent (below 2)"
_LOST = "not every block has a complete pair here (a trial failed, was unproven, or is missing)"
_RESUME = "look at the failed trials below, and continue the study with `--resume`"

_ALONE = "keep other work off this machine, or give the load generator a CPU of its own"
_MUCH = "late sends are more than {share:.0%} of this time, which counts from when they were due"

# fmt: off
# Of a trial.
LATE_SENDS = FlagKind("late_sends", _MUCH, _LOAD, late=True)
HOST_LATE = FlagKind("host_late", f"the host held the load generator up: {_MUCH}", _ALONE, late=True)
INSTRUMENT_LIMITED = FlagKind("instrument_limited", "the instrument itself was the limit", _LOAD, late=True)
HOST_LIMITED = FlagKind(
    "host_limited", "other work on the host held the load generator up", _ALONE, late=True,
)
TELEMETRY_INCOMPLETE = FlagKind(
    "telemetry_incomplete", "no {what} reading of the sidecar of {workloads}",
    "look whether the process ended early, in the failed trials below",
)
BOOKS_VIOLATED = FlagKind("books_violated", "{words}")
EVENT_FAILED = FlagKind(
    "event_failed", "{words}", "look at the log of whoever is named, in the failed trials below"
)
EVENT_LATE = FlagKind(
    "event_late", "{count} of its events began more than {most_ms} ms after they were intended",
    "keep events further apart, or other work off this machine",
)
COMPANY = FlagKind(
    "company",
    "another arm of its round was not there to the end: {absent}",
    "nothing to do if few trials are; else look at the failed trials",
)
IN_COMPANY = FlagKind(
    "in_company",
    "measured while {arms} other arms had the same CPUs: the level of a busy machine, with colder caches",
    "differences are what such a study is for; levels alone come from `alone`, of every cell from "
    "`arrangement: apart`",
    whole_table=True,
)
RENEWED = FlagKind(
    "renewed", "ran on processes started anew within its execution, after a failure or a resume",
    "nothing to do if few trials are; if many are, look at the failed trials",
)
NOT_PROFILED = FlagKind(
    "not_profiled", "{tool} could not look at its processes: {why}",
    "`meshwise doctor` says what there is; perf needs kernel.perf_event_paranoid of 2 or less",
)

SPANS_MISSING = FlagKind(
    "spans_missing", "of {traces} traced requests {missing} lack a span of {whose}",
    "what is made of spans leaves these requests out; look at `spans_dropped` and the proxies' logs",
)
SPANS_DROPPED = FlagKind(
    "spans_dropped", "{count} spans were thrown away for want of room{more}",
    "trace a smaller share, lower the rate, or shorten the trial",
)
SPANS_MALFORMED = FlagKind(
    "spans_malformed", "{batches} batches and {spans} spans made no sense and were left out",
    "look at who exports: its version may speak another OTLP",
)
CLOCK_STEPPED = FlagKind(
    "clock_stepped", "the wall clock was set by {ms:+.1f} ms, in which proxies say when their spans are",
    "keep the time service from stepping the clock while a study runs",
)
RECEIVER_ENDED = FlagKind(
    "receiver_ended", "the receiver of spans {how}: spans of this trial are lost",
    "look at the log's end in the trial's row; the next trial has a new one",
)

UNCOUNTED = FlagKind(
    "uncounted",
    "requests failed or were not answered in windows that were to be counted, which are left out: {windows}",
    "look at the errors in the trial's requests",
)

# Of a level, an effect, a search.
ERRORS_ASKED = FlagKind(
    "errors_asked", "the service graph makes {percent:.3g} % of the requests fail by its own errors",
)
NOT_ESTIMABLE = FlagKind(
    "not_estimable", "{count:.1f} effective exceedances per trial, {needed:.0f} needed{times}",
    "lengthen the trial, or raise the rate", "too few requests beyond this percentile to estimate it",
)
FAILURES_IN_TRIALS = FlagKind("failures", "infinite in {count} of {of} trials; see error_ratio")
FAILURES_IN_BLOCKS = FlagKind(
    "failures",
    "in {count} of {of} blocks so many requests failed that this is infinite; see error_ratio",
)
LOST_PAIRS = FlagKind(
    "lost_pairs", "{blocks} blocks have no complete pair (a trial failed, was unproven, or is missing)",
    _RESUME, _LOST,
)
LOST_WALKS = FlagKind("lost_pairs", "{searches} searches did not make both walks", _RESUME, _LOST)
FEW_UNITS = FlagKind(
    "few_units", "{n} executions; intervals are wide below 5 and absent below 2",
    "raise `blocks` in the study to 8 or more (of counts: `executions` of `count`)", _FEW,
)
GROUPED = FlagKind(
    "grouped", "{blocks} blocks averaged within {n} executions",
    "leave `executions` out of the study to restart the proxies for every block",
)
NO_SPREAD = FlagKind(
    "no_spread", "every execution gave the same value, so the interval is a point",
    "nothing to do if the value really is constant",
)
NO_FLOOR = FlagKind(
    "no_floor", "the study has no A/A control for this metric", "let `control` of the study name a cell",
)
NO_TWIN = FlagKind(
    "no_twin", "compares different processes without a twin control",
    "let `control: twin` of the study name a cell of each mesh",
)
DESCRIPTIVE = FlagKind(
    "descriptive", "percentiles of independent costs do not add up, so this is not judged",
    whole_table=True,
)
EXPLORATORY = FlagKind("exploratory", "not a primary metric of the study", whole_table=True)
METHODS_DISAGREE = FlagKind(
    "methods_disagree",
    "the t and the Hodges-Lehmann interval differ on whether 0 is inside; look at the trials",
    "look at the order of the trials for one that stands apart; more blocks would tell",
)
MULTIPLICITY = FlagKind(
    "multiplicity", "its own interval excludes 0, but not after allowing for the whole family", _BLOCKS,
)
BELOW_FLOOR = FlagKind(
    "below_floor", "its interval excludes 0, but the A/A control shows effects as large",
    "more blocks or a quieter machine lower the noise floor",
)
SCALES_DISAGREE = FlagKind(
    "scales_disagree", "blocks are too uneven for ratio and difference to agree", _BLOCKS,
)
DRIFTS_WITHIN_ROUND = FlagKind(
    "drifts_within_round",
    "by its slope the ratio changes by {percent:+.1f} % over the {seconds} s of a trial, so the number is a "
    "mean over a change",
    "a longer `warmup` in the study's `trial`; the page shows the step by second",
    "it changes from the first second of a trial to the last, so the number is a mean over a change",
)
_FEWER = "lower the rate, or ask for fewer arms in a round"
CROWDED = FlagKind(
    "crowded",
    "the CPUs of the pods were {percent:.0f} % busy, and more than {limit:.0f} % in {count} of {of} rounds: "
    "waiting behind other arms is shared, so tails may not be compared",
    _FEWER,
    "the CPUs of the pods were so busy that waiting behind other arms is shared: tails may not be compared",
)
SATURATED_ARM = FlagKind(
    "saturated_arm",
    "in {count} of {of} rounds an arm was saturated ({arms}): who waits behind it waits longer, so times may "
    "not be compared",
    "lower the rate, or measure that arm apart",
)
ACROSS_ARRANGEMENTS = FlagKind(
    "across_arrangements",
    "{apart} ran apart, and what it is compared with beside {arms} other arms: the difference holds what "
    "company does to a level as well",
    "measure both alike: `arrangement: apart`",
    "one side ran apart and the other beside other arms: what company does to a level is in the difference",
)
_EQUAL = "give both meshes the same level in the study"
UNEQUAL_LEVEL = FlagKind("unequal", "{factor} is {level} in {mesh}, {other_level} in {other_mesh}", _EQUAL)
UNEQUAL_TRAIT = FlagKind("unequal", "{what}: {values}", _EQUAL)
UNDECIDED = FlagKind("undecided", "the search ended before both ends of its bracket were confirmed")
NOTHING_HELD = FlagKind(
    "nothing_held", "not even the lowest rate held the objective (in {count} of {of} searches)",
)
LIMITED = FlagKind("limited", "at least {rate:.0f}/s; {why} (in {count} of {of} searches)")
NONE_HELD = FlagKind(
    "none_held",
    "in {count} searches no rate that was tried held after overload, so more was lost than the estimate says",
)

# Of a noise floor, a decomposition, a check.
UNEQUAL_NOISE = FlagKind(
    "unequal_noise", "the control cells differ in noise, so the noisiest counts",
    "nothing to do: the safer floor is used",
)
WITHOUT_ZEROS = FlagKind("without_zeros", "{cells} cells are left out because a ratio to 0 does not exist")
INCOMPLETE = FlagKind("incomplete", "{blocks} blocks are left out because a cell is missing in them")
CONFOUNDED = FlagKind(
    "confounded", "every block is its own execution, so `execution` holds what blocks bring as well",
)
UNPROVEN = FlagKind("unproven", "{cell}: {reason}")
FAILED = FlagKind("failed", "{cell}: {reason}")
MISSING = FlagKind("missing", "{cell}")
IN_DOUBT = FlagKind("in_doubt", "{cell}")
VIOLATED = FlagKind("violated", "{trial}: {words}")
DEPENDENT = FlagKind("dependent", "metrics of one trial go together, so the interval is too narrow")
LIMITED_BY = FlagKind("limited_by", "{who}, in {count} of {of} searches")
TRANSLATED_DIFFERS = FlagKind(
    "translated_differs", "{step}: counted and translated {translated}, measured {measured}",
    "believe the measured step; more blocks would tell how far it is from the other",
)
BROKEN = FlagKind("broken", "{reason}")

# Of an attempt.
NOT_AS_DOCUMENTED = FlagKind(
    "not_as_documented", "documented is that it is {expected} ({source})",
    "read the evidence; an outcome belongs to the version beside it",
)
TRIES_DIFFER = FlagKind(
    "tries_differ", "stopped in {stopped} and let through in {let_through} of {tries} tries",
    "who may try again gets through; more tries (`--tries`) tell how often",
)
PROXY_HARMED = FlagKind(
    "proxy_harmed", "after {harmed} of {tries} tries a proxy had ended or fallen silent",
)

# Of an event.
NO_PLACEBO = FlagKind(
    "no_placebo",
    "the trials have no undisturbed time as long as what is looked at, so there are no placebo times",
    "let events be further apart, or trials longer",
)
USUAL_FAILED = FlagKind(
    "usual_failed",
    "{percent:.3g} % of the requests of the time that is taken for usual failed: an event may last into it, "
    "and be larger and longer than is said",
    "let events be further apart; look at whole trials in the report",
)
NO_WINDOW = FlagKind(
    "no_window",
    "nothing around it stands out from placebo times, so {ms:.0f} ms from its beginning on are counted",
    "nothing to do if it really does nothing; more occurrences or blocks see smaller effects",
)
LASTS_ON = FlagKind(
    "lasts_on",
    "its effect lasts into the time that is taken for usual, so it is larger and longer than is said",
    "let events be further apart",
)
UNFINISHED = FlagKind(
    "unfinished", "{count} of {of} times it was not done by every target",
    "read `detail` of events.parquet: the proxy's own words",
)
STILL_OPEN = FlagKind(
    "still_open",
    "at {count} of {of} changes requests that the new rule forbids still passed when its time was over, so "
    "the last comes later than is said",
    "let more time pass until the next change or the end: open connections may go on under the old rule",
)
NOTHING_TELLS = FlagKind(
    "nothing_tells",
    "no group of requests in the load passes under one of the two rules and fails under the other",
    "let the load have requests that the rules treat differently: clients outside the mesh, "
    "`forbidden_share`, an operation",
)

# Of a number that was imported.
COUNTER_RESETS = FlagKind(
    "counter_resets",
    "its counters began again {times}; what they counted from their last point to that is not known",
    "a smaller `--step` loses less",
)
SERIES_GAPS = FlagKind(
    "gaps",
    "its series have {times}; counters bridge them, what was reset within one is lost",
    "see `imported_troubles` with `meshwise query`",
)
BEGAN_LATE = FlagKind(
    "began_late",
    "{times} of its series began within the time: what they counted before their first point is not in it",
    "nothing to do if pods were started then; else an earlier `--from`",
)
ENDED_EARLY = FlagKind(
    "ended_early",
    "{times} of its series ended within the time: stale, or their pods were gone",
    "nothing to do if pods were ended then; else see whether they are scraped",
)
# fmt: on

KINDS = {each.code: each for each in list(globals().values()) if isinstance(each, FlagKind)}
"""By code; kinds that share one share its remedy."""
