"""A webhook that shows what it is told: `python examples/webhook.py [PORT]`. Standard library only."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for kind, what in event.items():  # one of task, message, statusUpdate, artifactUpdate
            state = what.get("status", {}).get("state", "")
            print(self.headers["Authorization"], kind, state, flush=True)
        self.send_response(204)  # anything from 200 to 299 says that it was received
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: what was received is shown above."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8070
    HTTPServer(("127.0.0.1", port), Webhook).serve_forever()
