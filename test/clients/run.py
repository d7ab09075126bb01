"""Runs every test_*.py beside this file and writes the counts as JSON.

    python run.py REPORT.json

Called by scripts/test-clients.mjs, which starts the server and names it in LORAX_TEST_URL.
"""

import json
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).parent


def main(report: str) -> None:
    suite = unittest.TestLoader().discover(str(HERE), pattern="test_*.py")
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    passed = result.testsRun - failed - skipped
    counts = {"passed": passed, "failed": failed, "skipped": skipped}
    pathlib.Path(report).write_text(json.dumps(counts), encoding="utf-8")
    sys.exit(0 if failed == 0 else 1)


if __name__ == "__main__":
    main(sys.argv[1])
