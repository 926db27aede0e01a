"""Random tampering with a log on one database, in a process of its own; prints one line of JSON. Part of `make proof`.

python -m benchmarks.tampering [--count 1000] [--database sqlite] [--seed N]
"""

import argparse
import json
import secrets
import tempfile
import time
from pathlib import Path

from benchmarks.audit import configure
from tests.engines import Postgres


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="switchyard-proof-") as directory:
        if options.database == "postgres":
            with Postgres() as engine:
                print(json.dumps(run(engine.create("tampering"), Path(directory), options)))
        else:
            print(json.dumps(run("", Path(directory), options)))


def run(url: str, home: Path, options: argparse.Namespace) -> dict:
    """Fill a log, tamper with it, and return what was missed."""
    configure(url, home)
    from django.db import connections

    from apps.audit.runtime import sink_config_from_settings
    from apps.audit.services.verify import check_log
    from tests.audit import tampering

    seed = options.seed or secrets.randbelow(2**31) + 1
    lines = tampering.write(sink_config_from_settings())
    started = time.monotonic()
    result = tampering.run(lines, options.count, seed)
    whole = check_log(checkpoints=lines).ok
    connections.close_all()
    return {
        "database": options.database, "mutations": result.done.total(), "kinds": len(result.done), "seed": seed,
        "missed": result.missed, "misnamed": result.misnamed, "whole afterwards": whole, "seconds": round(time.monotonic() - started),
    }  # fmt: skip


if __name__ == "__main__":
    main()
