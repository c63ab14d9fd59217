"""`./dev soak [NAME]…`: long runs under faults, in files `soak_*.py` of the same shape as benchmarks.

Exit codes as those of `./dev bench`; what they found goes to build/soak/.
"""

import sys
from pathlib import Path

from tests.bench.__main__ import main

_HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _HERE, _HERE.parents[1] / "build" / "soak", kind="soak"))
