"""The stable codes of all that can be wrong with a topology file; docs/reference/diagnostics.md explains each."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """A code never changes its meaning, and a number is never used again."""

    # T0: the file, and YAML
    UNREADABLE = "T001"  #: missing, a directory without topologies, no permission
    TOO_LARGE = "T002"
    NOT_TEXT = "T003"  #: binary, UTF-16, broken UTF-8, control characters
    SYNTAX = "T004"  #: not YAML
    DUPLICATE_KEY = "T005"
    UNSUPPORTED_YAML = "T006"  #: tags, merge keys, several documents, keys that are not text
    TOO_COMPLEX = "T007"  #: nesting, number of nodes, aliases that multiply
    NOT_A_MAPPING = "T008"  #: empty, a list or a scalar at the top
    VARIABLE = "T009"  #: undefined, malformed, or in a key
    TOO_MANY_PROBLEMS = "T010"

    # T1: keys and values
    UNKNOWN_KEY = "T101"
    MISSING_KEY = "T102"
    WRONG_TYPE = "T103"
    OUT_OF_RANGE = "T104"
    NOT_A_CHOICE = "T105"
    NOT_A_DURATION = "T106"
    NOT_A_SIZE = "T107"
    CONFLICTING_KEYS = "T108"
    UNKNOWN_VERSION = "T109"

    # T2: names
    BAD_NAME = "T201"
    NAME_TOO_LONG = "T202"
    RESERVED_NAME = "T203"
    NAME_COLLISION = "T204"
    BAD_TEMPLATE = "T205"
    ROUTING_KEY_TOO_LONG = "T206"
    SECOND_OWNER = "T207"
    SAME_TOPOLOGY = "T208"

    # T3: references
    UNDEFINED_EXCHANGE = "T301"
    UNDEFINED_POLICY = "T302"
    UNDEFINED_QUEUE = "T303"
    UNUSED_POLICY = "T304"
    NO_RETRY_NAMED = "T305"
    UNUSABLE_EXCHANGE = "T306"

    # T4: retry policies
    NO_SCHEDULE = "T401"
    DELAYS_NOT_INCREASING = "T402"
    GIVES_UP_AT_ONCE = "T403"
    NATIVE_CANNOT = "T404"
    NATIVE_NEEDS_QUORUM = "T405"
    RULE_UNREACHABLE = "T406"
    BAD_ERROR_NAME = "T407"
    MANY_TIERS = "T408"
    BAD_BACKOFF = "T409"
    STEP_NEVER_TAKEN = "T410"

    # T5: queues
    OVERFLOW = "T501"
    PRIORITY_RANGE = "T502"
    NOT_ON_CLASSIC = "T503"
    NOT_DECLARED_HERE = "T504"
    PARKING_CONFLICT = "T505"
    CLASSIC_TIERS_WITH_LIMITS = "T506"
    BINDING = "T507"
    DUPLICATE_BINDING = "T508"
    TRANSIENT_EXCHANGE = "T509"
    SHORT_CONSUMER_TIMEOUT = "T510"
    AT_MOST_ONCE = "T511"
    FORGETS = "T512"  #: an existing queue that is configured to drop messages, and its dead letters
    CRASH_LIMIT = "T513"  #: RabbitMQ's delivery limit comes first

    # T6: arguments and dead-lettering
    OWN_ARGUMENT = "T601"
    ARGUMENT_NOT_FOR_TYPE = "T602"
    LEGACY_ARGUMENT = "T603"
    UNKNOWN_ARGUMENT = "T604"
    ARGUMENT_VALUE = "T605"
    DEAD_LETTER_CYCLE = "T606"
    LOSES_MESSAGES = "T607"
