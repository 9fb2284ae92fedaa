#!/usr/bin/env python3
"""Runs the test command that it is given, passes its output through, and sums it up in a last line.

A run without a single test, and a command that fails without a failed test (it did not compile), are failures.
"""

import re
import subprocess
import sys

RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")


def main() -> int:
    run = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True, errors="replace", bufsize=1)
    passed = failed = skipped = 0
    for line in run.stdout:
        print(line, end="", flush=True)
        if found := RESULT.match(line):
            passed, failed, skipped = (total + int(count) for total, count in zip((passed, failed, skipped), found.groups()))
    code = run.wait()
    if code != 0 and failed == 0:
        print(f"\nthe command ended with {code} without a failed test: see above")
        failed = 1
    if passed + failed == 0:
        print("\nno test was run")
        failed = 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
