"""An agent of the standard library alone: it counts words, `input_data.seconds` later, and reports with its own key.

GATEWAY_KEY=… python tasks_agent.py NAME http://127.0.0.1:8080 [PORT]

With PORT the gateway calls it (`tasks_url: http://127.0.0.1:PORT`), without it fetches its work (`tasks_url: pull`).
"""

import json
import os
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, GATEWAY, *PORT = sys.argv[1:]


def ask(method, **params):
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"agent_id": NAME, **params}}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["GATEWAY_KEY"]}
    while True:
        try:
            return json.load(
                urllib.request.urlopen(urllib.request.Request(GATEWAY, json.dumps(call).encode(), headers))
            )
        except OSError as error:  # the gateway restarts; what it accepted it still knows
            print(error, file=sys.stderr)
            time.sleep(0.5)


def work(params):
    time.sleep((params.get("input_data") or {}).get("seconds", 0))
    task = params["task"]
    result = {"words": len(task["description"].split())}
    ask("agents/tasks/result", task_id=task["id"], status="completed", result=result)


class Create(BaseHTTPRequestHandler):
    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        threading.Thread(target=work, args=[call["params"]], daemon=True).start()
        result = {"task_id": call["params"]["task"]["id"], "agent_id": NAME, "status": "in_progress"}
        body = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if PORT:
    ThreadingHTTPServer(("127.0.0.1", int(PORT[0])), Create).serve_forever()
while True:
    for params in ask("agents/tasks/pending", wait=5)["result"]["tasks"]:
        threading.Thread(target=work, args=[params], daemon=True).start()
