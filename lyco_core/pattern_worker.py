"""Run as a script by `patterns.py`: which names a pattern matches, in a process that stops in time.

Reads one JSON array, [seconds, patterns, names], and writes one JSON line a pattern: the numbers of the names
that it matches whole, or what is wrong with it as a text. Once the seconds are over it ends as it is, whoever
still waits for it: `re` holds the interpreter's lock, so only a thread that needs none can do that.
"""

import faulthandler
import json
import re
import sys


def main() -> None:
    """Answer on standard output, each pattern as soon as it is done."""
    seconds, patterns, names = json.load(sys.stdin)
    faulthandler.dump_traceback_later(seconds, exit=True)
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
            answer: object = [number for number, name in enumerate(names) if compiled.fullmatch(name)]
        except (re.error, RecursionError, OverflowError, MemoryError) as error:
            answer = str(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
