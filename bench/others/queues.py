"""Other queue systems, one no-op job after the other: python bench/others/queues.py KIND --count N [--redis PORT]

Run by bench/load.py in an environment that has them (bench/requirements-others.txt).  A job says when it began; whoever
submitted it waits for that in the way that the system offers.  Prints one JSON object: seconds from submission to the
job's first instruction, and to the result in the submitter's hands; submissions a second; jobs a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIENTS = 8
PATIENCE_S = 60


def job() -> float:
    """Does nothing; when it began (Unix seconds)."""
    return time.time()


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker or server beside this process, whose words go nowhere."""
    path = str(Path(__file__).resolve().parent)
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=path,
                               env={**os.environ, "PYTHONPATH": path, **environment})
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def measure(submit: Callable[[], Any], result: Callable[[Any], float], count: int) -> dict[str, Any]:
    """`submit` gives a handle, `result` waits for its job's word."""
    for _ in range(3):  # whatever is loaded first
        result(submit())
    to_start, to_result, submitted = [], [], []
    for _ in range(count):
        began, watch = time.time(), time.perf_counter()
        handle = submit()
        submitted.append(time.perf_counter() - watch)
        started = result(handle)
        to_result.append(time.perf_counter() - watch)
        to_start.append(started - began)
    many = 5 * count
    watch = time.perf_counter()
    handles = in_parallel(lambda: submit(), many)
    submits_per_s = many / (time.perf_counter() - watch)
    for handle in handles:
        result(handle)
    return {"to_start_s": to_start, "to_result_s": to_result, "submit_s": submitted,
            "submits_per_s": round(submits_per_s, 1), "jobs_per_s": round(many / (time.perf_counter() - watch), 1)}


def in_parallel(call: Callable[[], Any], count: int) -> list[Any]:
    made: list[Any] = []

    def client(share: int) -> None:
        for _ in range(share):
            made.append(call())

    threads = [threading.Thread(target=client, args=(count // CLIENTS,)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


def with_rq(options: argparse.Namespace, worker_class: str) -> dict[str, Any]:
    import queues
    from redis import Redis
    from rq import Queue

    url = f"redis://127.0.0.1:{options.redis}"
    queue = Queue(connection=Redis.from_url(url))

    def result(handle: Any) -> float:
        found = handle.latest_result(timeout=PATIENCE_S)  # blocks on the job's stream of results
        return float(found.return_value)

    with process(sys.executable, "-m", "rq.cli", "worker", "--url", url, "--worker-class", worker_class, "--quiet"):
        return measure(lambda: queue.enqueue(queues.job, result_ttl=600), result, options.count)


def celery_app(port: str) -> Any:
    from celery import Celery

    app = Celery("others", broker=f"redis://127.0.0.1:{port}/1", backend=f"redis://127.0.0.1:{port}/2")
    app.task(name="job")(job)
    return app


def with_celery(options: argparse.Namespace) -> dict[str, Any]:
    app = celery_app(str(options.redis))
    with process(sys.executable, "-m", "celery", "-A", "celery_worker", "worker", "--concurrency", "1", "--loglevel",
                 "ERROR", "--without-gossip", "--without-mingle", REDIS_PORT=str(options.redis)):
        task = app.tasks["job"]
        return measure(task.delay, lambda handle: float(handle.get(timeout=PATIENCE_S)), options.count)


def sqs(port: int) -> Any:
    import boto3

    return boto3.client("sqs", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                        aws_access_key_id="x", aws_secret_access_key="x")


def sqs_worker(port: int) -> None:
    """Takes a message by long polling, does the job, sends the result, deletes the message."""
    client = sqs(port)
    jobs, results = (client.get_queue_url(QueueName=name)["QueueUrl"] for name in ("jobs", "results"))
    while True:
        for message in client.receive_message(QueueUrl=jobs, WaitTimeSeconds=20).get("Messages", []):
            body = json.dumps({"id": message["Body"], "started": job()})
            client.send_message(QueueUrl=results, MessageBody=body)
            client.delete_message(QueueUrl=jobs, ReceiptHandle=message["ReceiptHandle"])


def with_sqs(options: argparse.Namespace) -> dict[str, Any]:
    port = options.redis
    with process(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)):
        client = sqs(port)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                jobs, results = (client.create_queue(QueueName=name)["QueueUrl"] for name in ("jobs", "results"))
                break
            except Exception:  # it is not there yet
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        found: dict[str, float] = {}
        serial = iter(range(10**9))

        def submit() -> str:
            name = str(next(serial))
            client.send_message(QueueUrl=jobs, MessageBody=name)
            return name

        def result(name: str) -> float:
            while name not in found:
                for message in client.receive_message(QueueUrl=results, WaitTimeSeconds=20,
                                                      MaxNumberOfMessages=10).get("Messages", []):
                    said = json.loads(message["Body"])
                    found[said["id"]] = said["started"]
                    client.delete_message(QueueUrl=results, ReceiptHandle=message["ReceiptHandle"])
            return found.pop(name)

        with process(sys.executable, str(Path(__file__).resolve()), "sqs-worker", "--redis", str(port)):
            return measure(submit, result, options.count)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["rq", "rq-simple", "celery", "sqs", "sqs-worker"])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--redis", type=int, required=True, help="port of redis-server, or the one for moto to take")
    options = parser.parse_args()
    if options.kind == "sqs-worker":
        sqs_worker(options.redis)
    made = {"rq": lambda: with_rq(options, "rq.worker.Worker"), "celery": lambda: with_celery(options),
            "rq-simple": lambda: with_rq(options, "rq.worker.SimpleWorker"), "sqs": lambda: with_sqs(options)}
    print(json.dumps(made[options.kind]()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
