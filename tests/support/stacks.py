"""Which tests of tests/e2e share a stack: two stacks side by side keep all cores busy."""

OPERATORS = {
    "test_docs",
    "test_monitor",
    "test_operator_actions",
    "test_prefect_locked",
    "test_recurring",
}


def stack_of(file: str) -> str:
    """Return the name of the stack that the tests of a file (without `.py`) use."""
    return "stack of operators" if file in OPERATORS else "stack of customers"
