"""A webhook that checks who speaks and shows what it is told: `python examples/webhook.py [PORT]`.

With WEBHOOK_SECRET it checks by that secret, else by the key of the gateway at GATEWAY_URL.
"""

import json
import os
import sys
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

from signatures import by_key, by_secret

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080")
SECRET = os.environ.get("WEBHOOK_SECRET")
seen: set[str] = set()


@cache  # a new key is published a day before it signs: look again once a day
def keys() -> list[dict[str, str]]:
    with urlopen(f"{GATEWAY}/.well-known/webhook-jwks.json") as answer:
        return json.load(answer)["keys"]


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        ours = by_secret(self.headers, body, SECRET) if SECRET else by_key(self.headers, body, keys())
        if ours and (id := self.headers["webhook-id"]) not in seen:  # it may come twice
            seen.add(id)
            for kind, what in json.loads(body).items():  # one of task, message, statusUpdate, artifactUpdate
                print(self.headers["Authorization"], kind, what.get("status", {}).get("state", ""), flush=True)
        self.send_response(204 if ours else 401)  # anything from 200 to 299 says that it was received
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: what was received is shown above."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8070
    HTTPServer(("127.0.0.1", port), Webhook).serve_forever()
