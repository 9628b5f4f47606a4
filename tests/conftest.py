"""What holds for every test."""

import signal


def pytest_configure() -> None:
    """Let Ctrl-C arrive: a shell that starts the tests in the background has it ignored, and what they start inherits
    that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
