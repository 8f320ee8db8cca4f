"""Which tests of tests/e2e share a stack, tests/browser with the operators'.

Two stacks side by side keep all cores busy.
"""

OPERATORS = {
    "test_docs",
    "test_monitor",
    "test_operator_actions",
    "test_prefect_locked",
    "test_recurring",
}


OF_OPERATORS = "stack of operators"


def stack_of(file: str) -> str:
    """Return the name of the stack that the tests of a file (without `.py`) use."""
    return OF_OPERATORS if file in OPERATORS else "stack of customers"
