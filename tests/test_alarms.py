"""Alarms of both systems: they parse, every metric that they name exists, and each says what to do about it."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import orchestrator
import worker
from service.runtime.cloudwatch import Reporter
from service.runtime.logs import Log
from service.runtime.prometheus import Metrics

ROOT = Path(__file__).resolve().parent.parent
RULES = yaml.safe_load((ROOT / "deploy/prometheus-alerts.yml").read_text())
TEMPLATE = yaml.safe_load((ROOT / "deploy/cloudwatch-alarms.yaml").read_text())
OPERATIONS = (ROOT / "docs/operations.md").read_text()
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
ALARMS = {name: entry["Properties"] for name, entry in TEMPLATE["Resources"].items()}
BY_PROMETHEUS = {"up"}  # made by whoever scrapes
LATENCIES = set(re.findall(r'emf\(\{"(\w+)"', "".join(
    path.read_text() for path in ROOT.glob("service/**/*.py"))))
FUNCTIONS = {"sum", "rate", "increase", "by", "and", "histogram_quantile", "le"}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, set[str]]]]:
    """Sample names of both programs: kind and labels."""
    folder, log = tmp_path_factory.mktemp("alarms"), Log(io.StringIO())
    first = orchestrator.Orchestrator(orchestrator.OrchestratorSettings(state=folder / "o"), log)
    second = worker.Worker(worker.WorkerSettings(state=folder / "w"), log)
    found: dict[str, tuple[str, set[str]]] = {}
    for metric in (*first.metrics.all(), *second.metrics.all()):
        for suffix in ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",):
            found[metric.name + suffix] = (metric.kind, {*metric.labels} | ({"le"} if suffix == "_bucket" else set()))
    yield found
    first.store.close()


def test_both_have_the_same_alarms_and_each_says_what_to_do() -> None:
    told = re.findall(r"^### (\w+)\n\n(Page|Ticket)\. (.+?)(?=^##|\Z)", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert [name for name, _, _ in told] == list(ALERTS) == list(ALARMS)
    assert {name: weight.lower() for name, weight, _ in told} == {
        name: rule["labels"]["severity"] for name, rule in ALERTS.items()}
    assert [name for name, _, text in told if len(text.strip().split("\n\n")) < 2] == []  # what it means; what to do


@pytest.mark.parametrize("name", ALERTS)
def test_a_rule_names_metrics_and_labels_that_exist(name: str, metrics: dict[str, tuple[str, set[str]]]) -> None:
    rule = ALERTS[name]
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["annotations"]["summary"]
    bare = re.sub(r'"[^"]*"', "", rule["expr"])
    selectors = re.findall(r"([a-z_]+)\s*\{([^}]*)\}", bare)
    named = set(re.findall(r"[a-z_]{2,}", re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\[\w+\]", "", bare))) - FUNCTIONS
    assert named - BY_PROMETHEUS - set(metrics) == set()
    for metric, labels in selectors:
        if metric not in BY_PROMETHEUS:
            assert set(re.findall(r"(\w+)\s*[=!~]", labels)) <= metrics[metric][1]
    for metric in re.findall(r"(?:rate|increase)\((\w+)", bare):
        assert metrics[metric][0] in ("counter", "histogram") or metric.endswith("_restarts")


def test_prometheus_itself_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is not None:  # else the test above has looked at their structure
        done = subprocess.run([promtool, "check", "rules", str(ROOT / "deploy/prometheus-alerts.yml")], timeout=60,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def parts(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of an alarm: {"Namespace", "MetricName", "Dimensions", "Stat", "Period"}."""
    if "Metrics" not in alarm:
        return [alarm | {"Stat": alarm.get("Statistic") or alarm["ExtendedStatistic"]}]
    return [entry["MetricStat"]["Metric"] | {"Stat": entry["MetricStat"]["Stat"],
                                             "Period": entry["MetricStat"]["Period"]}
            for entry in alarm["Metrics"] if "MetricStat" in entry]


def test_the_template_is_whole() -> None:
    assert set(TEMPLATE) == {"AWSTemplateFormatVersion", "Description", "Parameters", "Resources"}
    assert set(TEMPLATE["Parameters"]) == {"Topic", "Namespace"}
    assert {entry["Type"] for entry in TEMPLATE["Resources"].values()} == {"AWS::CloudWatch::Alarm"}


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_has_what_cloudwatch_requires(name: str) -> None:
    alarm = ALARMS[name]
    assert alarm["AlarmName"] == name
    assert alarm["AlarmDescription"].endswith("See docs/operations.md.")
    assert alarm["ComparisonOperator"] in ("GreaterThanThreshold", "LessThanThreshold")
    assert isinstance(alarm["Threshold"], int)
    assert alarm["TreatMissingData"] in ("breaching", "notBreaching")
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "Topic"}]
    for part in parts(alarm):
        assert part["Namespace"] == {"Ref": "Namespace"}
        assert part["Period"] % 60 == 0
        assert 1 <= alarm["EvaluationPeriods"] * part["Period"] <= 86_400
        assert re.fullmatch(r"Sum|Minimum|Maximum|SampleCount|p\d\d", part["Stat"])
    if "Metrics" in alarm:
        expression, *others = alarm["Metrics"]
        assert set(expression) == {"Id", "Expression", "Label"}  # the one that is compared
        assert [entry["ReturnData"] for entry in others] == [False] * len(others)
        assert set(re.findall(r"\b[a-z]+\b", expression["Expression"])) == {entry["Id"] for entry in others}


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_names_metrics_that_are_reported(name: str, metrics: dict[str, tuple[str, set[str]]]) -> None:
    for part in parts(ALARMS[name]):
        dimensions = {entry["Name"]: entry["Value"] for entry in part["Dimensions"]}
        if part["MetricName"] in LATENCIES:
            assert dimensions == {}
            continue
        kind, labels = metrics[part["MetricName"]]
        assert dimensions.pop("service") in ("orchestrator", "worker")
        assert len(labels) == 1 if dimensions else True  # more labels are only reported in total
        assert set(dimensions) <= labels
        assert (part["Stat"] == "Sum") == (kind == "counter")


# --- the lines themselves ---------------------------------------------------------------------------------------------


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in found:  # CloudWatch's rules: at most 100 metrics, each with a value of its name, dimensions likewise
        for block in line["_aws"]["CloudWatchMetrics"]:
            assert len(block["Metrics"]) <= 100
            assert {entry["Name"] for entry in block["Metrics"]} | set(block["Dimensions"][0]) <= set(line)
    stream.truncate(0)
    stream.seek(0)
    return [{name: value for name, value in line.items() if name != "_aws"} for line in found]


def test_metrics_are_reported_in_total_and_by_a_single_label() -> None:
    stream, metrics = io.StringIO(), Metrics()
    ended = metrics.counter("nvc_ended_total", "Ended.", ("state",))
    metrics.gauge("nvc_free_bytes", "Free.").set(7)
    seconds = metrics.histogram("nvc_seconds", "Seconds.")
    reporter = Reporter(metrics, Log(stream, emf="NVC"), "worker")
    ended.inc(2, state="failed")
    ended.inc(state="completed")
    seconds.observe(0.5)
    reporter.report()
    assert lines(stream) == [
        {"service": "worker", "nvc_ended_total": 3, "nvc_free_bytes": 7, "nvc_seconds_count": 1,
         "nvc_seconds_sum": 0.5},
        {"service": "worker", "state": "failed", "nvc_ended_total": 2},
        {"service": "worker", "state": "completed", "nvc_ended_total": 1}]
    ended.inc(state="failed")
    reporter.report()
    total, *others = lines(stream)  # what came since, of counters; the value now, of gauges
    assert (total["nvc_ended_total"], total["nvc_free_bytes"], total["nvc_seconds_count"]) == (1, 7, 0)
    assert [line["nvc_ended_total"] for line in others] == [1, 0]


def test_without_a_namespace_nothing_is_reported() -> None:
    stream = io.StringIO()
    reporter = Reporter(Metrics(), Log(stream), "worker")
    reporter.start()
    reporter.stop()
    assert stream.getvalue() == ""


def test_the_units_that_cloudwatch_knows() -> None:
    from service.runtime.cloudwatch import unit

    assert [unit(name) for name in ("nvc_state_free_bytes", "nvc_submit_seconds_sum", "nvc_submit_seconds_count")] == [
        "Bytes", "Seconds", "Count"]
