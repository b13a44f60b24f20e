"""The command line.

Every command but `serve`, `migrate`, `restore` and `emulator` speaks to the running server over `admin.sock`
in the data folder, and opens the database itself only when no server holds it.
"""

from server.cli import backup, bundles, delivery, doctor, gc, keys, parked, serving, ui
from server.cli.console import app

__all__ = ["app", "backup", "bundles", "delivery", "doctor", "gc", "keys", "parked", "serving", "ui"]
