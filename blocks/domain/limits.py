"""What a job may ask for, and what holds where it says nothing.

Bodies, their schema, the form of a stream and the command line draw on these. The checks in
blocks/store/schema.sql repeat them; tests/unit/test_limits.py compares the two.
"""

QUESTION_CHARACTERS_MAX = 10_000
OPTIONS_MIN = 2
OPTIONS_MAX = 100
OPTION_CHARACTERS_MAX = 1000
OPTION_DESCRIPTION_CHARACTERS_MAX = 500
INSTRUCTIONS_BYTES_MAX = 64 * 1024
"""Of UTF-8."""

CONSENSUS_THRESHOLD_MIN = 1
CONSENSUS_THRESHOLD_MAX = 10
CONSENSUS_THRESHOLD_DEFAULT = 3
LABELS_MAX = 2 * CONSENSUS_THRESHOLD_MAX
"""The most labels that one task collects: with twice its threshold it ends."""

SKIPS_MAX_MIN = 1
SKIPS_MAX_MAX = 10
SKIPS_MAX_DEFAULT = 3
"""After so many skips for one reason a task fails."""
SKIP_NOTE_CHARACTERS_MAX = 1000

PRIORITY_MIN = 0
PRIORITY_MAX = 9
PRIORITY_DEFAULT = 5

FAILURE_THRESHOLD_PERCENT_MIN = 0.0
FAILURE_THRESHOLD_PERCENT_MAX = 100.0
FAILURE_THRESHOLD_PERCENT_DEFAULT = 100.0
"""With this no share of bad lines fails a job."""

METADATA_KEYS_MAX = 100
SHOW_METADATA_KEYS_MAX = 100
OBJECT_URL_CHARACTERS_MAX = 4096
