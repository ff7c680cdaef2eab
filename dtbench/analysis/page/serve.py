"""A folder of pages, served to the browser of this machine and to nobody else."""

import threading
import webbrowser
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

from dtbench.errors import InvalidValue

LOOPBACK = "127.0.0.1"


def serve(folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve the folder until Ctrl-C, after telling its address and opening it in a browser.

    A port of 0 takes a free one; raise InvalidValue for one that is taken.
    """
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), partial(FolderHandler, directory=str(folder.resolve())))
    except (OSError, OverflowError) as error:
        raise InvalidValue(f"cannot serve on port {port}: {error}. Leave --port out for a free one.") from error
    with server:
        address = f"http://{LOOPBACK}:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        say(f"serving {folder} at {address} until Ctrl-C")
        try:
            if not webbrowser.open(address):
                say(f"found no browser to open: go to {address}")
            thread.join()
        except KeyboardInterrupt:
            say("stopped")
        finally:
            server.shutdown()


class FolderHandler(SimpleHTTPRequestHandler):
    """Files of one folder: no listing, nothing that a link reaches outside, nothing kept by the browser."""

    def send_head(self) -> Any:
        """Answer 404 for what does not lie inside the folder."""
        path, root = Path(self.translate_path(self.path)).resolve(), Path(self.directory).resolve()
        if not path.is_relative_to(root):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> IO[bytes] | None:  # type: ignore[override]  # typeshed: BytesIO
        """Answer 404: what is in a folder is told by its page."""
        self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def end_headers(self) -> None:
        """Have a rebuilt page read again."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name that http.server calls it by
        """Say nothing."""
