"""`rll` as the child of another command: it ends with its parent, however that ends.

The parent holds the other end of standard input, which closes even if the parent is killed.
"""

from __future__ import annotations

import os
import threading


def main() -> None:
    """Run the command line's command until it ends or the parent does."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()
    from trainers import cli

    cli.main()


def _wait_for_parent() -> None:
    while os.read(0, 1):  # not `sys.stdin`, whose lock this thread would hold while the process ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
