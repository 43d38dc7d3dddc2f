"""Runs one function for kit.fresh: `python -m tests.bench.fresh module:function [args]`."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    """Print what the function returns, as JSON."""
    place, args = sys.argv[1:]
    module, _, name = place.partition(":")
    function = getattr(importlib.import_module(f"tests.bench.{module}"), name)
    print(json.dumps(function(*json.loads(args))))


if __name__ == "__main__":
    main()
