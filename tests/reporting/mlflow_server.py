"""A small MLflow server for tests: the calls of its REST interface that the worker makes, kept in memory."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PASSWORD = "pa55word"
_AUTH = "Basic " + base64.b64encode(f"user:{PASSWORD}".encode()).decode()


class Server:
    """Runs, their points in order of arrival, and how many requests it still refuses."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts, self.refusals = artifacts, 0
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.unauthorised = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:{PASSWORD}@127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def points(self, key: str) -> list[int]:
        (run,) = self.runs.values()
        return [metric["step"] for metric in run["metrics"] if metric["key"] == key]

    def answer(self, call: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self.refusals:
                self.refusals -= 1
                return 403, {"error_code": "PERMISSION_DENIED", "message": f"not now, user:{PASSWORD}"}
            return getattr(self, call.replace("/", "_").replace("-", "_"))(asked)

    # --- the calls ----------------------------------------------------------------------------------------------------

    def experiments_get_by_name(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        found = self.experiments.get(asked["experiment_name"])
        if found is None:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
        return 200, {"experiment": {"experiment_id": found, "name": asked["experiment_name"]}}

    def experiments_create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.experiments[asked["name"]] = str(len(self.experiments) + 1)
        return 200, {"experiment_id": self.experiments[asked["name"]]}

    def runs_search(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        wanted = asked["filter"].split("'")[1]
        found = [run for run in self.runs.values() if wanted in [tag["value"] for tag in run["tags"]]]
        return 200, {"runs": [self._shown(run) for run in found]}

    def runs_create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run_id = f"{len(self.runs) + 1:032x}"
        self.runs[run_id] = {**asked, "id": run_id, "status": "RUNNING", "metrics": [], "params": []}
        return 200, {"run": self._shown(self.runs[run_id])}

    def runs_get(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"run": self._shown(self.runs[asked["run_id"]])}

    def runs_log_batch(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs[asked["run_id"]]
        run["params"] += asked.get("params", [])
        run["metrics"] += [metric for metric in asked.get("metrics", []) if metric not in run["metrics"]]
        return 200, {}

    def runs_update(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs[asked["run_id"]]
        run["status"] = asked["status"]
        return 200, {"run_info": self._shown(run)["info"]}

    def metrics_get_history(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs[asked["run_id"]]
        return 200, {"metrics": [metric for metric in run["metrics"] if metric["key"] == asked["metric_key"]]}

    def _shown(self, run: dict[str, Any]) -> dict[str, Any]:
        info = {
            "run_id": run["id"],
            "run_uuid": run["id"],
            "experiment_id": run["experiment_id"],
            "status": run["status"],
            "artifact_uri": (self.artifacts / run["id"]).as_uri(),
            "lifecycle_stage": "active",
        }
        return {"info": info, "data": {"params": run["params"], "tags": run["tags"], "metrics": []}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

            def do_POST(self) -> None:
                self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            do_PATCH = do_POST

            def reply(self, asked: dict[str, Any]) -> None:
                if self.headers.get("Authorization") != _AUTH:
                    server.unauthorised += 1
                code, content = server.answer(urlsplit(self.path).path.split("/mlflow/")[1], asked)
                body = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler
