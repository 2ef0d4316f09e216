# SPDX-License-Identifier: GPL-3.0-or-later
"""`make ui`: ComfyUI with AnyDressing in it, for a person with a browser."""

from __future__ import annotations

import sys
import time
from urllib.parse import quote

from .comfyui import ComfyUIMissingError
from .demo import WORKFLOW, demo_server
from .layouts import LAYOUTS
from .server import PACK, ComfyServer, ServerDiedError, stop_politely


def main() -> int:
    """Serve until Ctrl-C. Returns the exit status."""
    stop_politely()
    try:
        print("Starting ComfyUI", flush=True)
        with demo_server() as server:
            name = LAYOUTS[WORKFLOW].name
            print(f"\nOpen {server.url}/?template={quote(name)}&source={PACK} in your browser and press Run.")
            print(f"The same workflow is under Templates -> {PACK} -> {name}.")
            print(f"Its log is {server.log}. Ctrl-C stops it.", flush=True)
            wait_for_end(server)
    except (ComfyUIMissingError, ServerDiedError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


def wait_for_end(server: ComfyServer) -> None:
    """Return never: Ctrl-C ends it, and so does the server's death."""
    while server.is_running():
        time.sleep(1)
    raise ServerDiedError(f"ComfyUI has stopped.\n{server.last_words()}")


if __name__ == "__main__":
    sys.exit(main())
