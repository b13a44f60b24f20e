"""`python -m benchmarks.load`: a plan on standard input, its result on standard output, both JSON."""

import json
import sys
from dataclasses import asdict

import uvloop

from benchmarks.load.generator import carry_out
from benchmarks.load.plan import Plan


def main() -> None:
    """Carry out one plan."""
    plan = Plan(**json.load(sys.stdin))
    print(json.dumps(asdict(uvloop.run(carry_out(plan)))))


if __name__ == "__main__":
    main()
