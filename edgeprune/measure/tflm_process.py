"""The process that holds the interpreter for microcontrollers: it answers on its standard output.

That interpreter ends the whole process at what its kernels do not expect, so it does not run in the user's process.
"""

from __future__ import annotations

import pickle
import re
import sys
from typing import Any


def serve() -> None:
    """Answer `(command, arguments)` until the input ends; each answer is `(succeeded, value)`."""
    from tflite_micro import runtime

    content = b""
    interpreter: Any = None

    def load(new: bytes) -> None:
        nonlocal content
        content = new

    def open_arena(arena_bytes: int) -> None:
        nonlocal interpreter
        interpreter = None
        interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)

    def run(inputs: list[Any], outputs: int) -> list[Any]:
        interpreter.reset()  # recurrent operators would go on from the last run
        for number, array in enumerate(inputs):
            interpreter.set_input(array, number)
        interpreter.invoke()
        return [interpreter.get_output(number) for number in range(outputs)]

    def print_allocations() -> None:
        interpreter.print_allocations()

    commands = {function.__name__: function for function in (load, open_arena, run, print_allocations)}
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            command, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = (True, commands[command](*arguments))
        except Exception as error:  # the interpreter raises many kinds
            answer = (False, f"{type(error).__name__}: {error}")
        pickle.dump(answer, answers)
        answers.flush()


def reason(diagnostics: str) -> str:
    """The lines in which the interpreter says what is wrong, without what says nothing."""
    nothing = ("AllocateTensors() failed", "Failed starting model allocation")
    lines = [line.strip() for line in diagnostics.splitlines()]
    ours = [line for line in lines if line and not re.match(r"[IWE]\d{4} |WARNING|INFO", line)]
    return " ".join(line for line in dict.fromkeys(ours) if not line.startswith(nothing))[:400]


if __name__ == "__main__":
    serve()
