"""Background jobs in a Flask app, which has no event loop: `enqueue_sync`.

flask --app flask_app run           # then: curl -X POST localhost:5000/reports/7
jobmill worker flask_app.py         # in another terminal: Flask has no loop for a worker
python flask_app.py                 # both, asked by a test client
"""

import asyncio
import subprocess
import sys

from flask import Flask, Response, jsonify

from jobmill import JobInfo, create_queue, job

queue = create_queue("sqlite:///jobs.db")
app = Flask(__name__)


@job(name="report", retries=2)
def report(number: int) -> str:
    return f"report {number}, {number * 10} pages"


@app.post("/reports/<int:number>")
def enqueue(number: int) -> tuple[Response, int]:
    handle = queue.enqueue_sync(report.call(number))
    return jsonify(job=handle.id), 202


@app.get("/jobs/<job_id>")
def show(job_id: str) -> tuple[Response, int]:
    info: JobInfo | None = asyncio.run(queue.get_job(job_id))
    if info is None:
        return jsonify(error="there is no such job"), 404
    return jsonify(status=info.status, result=info.result), 200


def main() -> None:
    client = app.test_client()
    job_id = client.post("/reports/7").get_json()["job"]
    print("before:", client.get(f"/jobs/{job_id}").get_json()["status"])
    worker = [
        sys.executable,
        "-m",
        "jobmill",
        "worker",
        __file__,
        "--burst",
        "--log-level",
        "error",
    ]
    subprocess.run(worker, check=True, stderr=subprocess.DEVNULL)
    print("after:", client.get(f"/jobs/{job_id}").get_json())


if __name__ == "__main__":
    main()
