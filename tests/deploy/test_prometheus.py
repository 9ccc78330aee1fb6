"""Alert rules and what is scraped: promtool takes them, every rule has cases, every name exists and is documented."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from consumers import alert_metrics
from consumers import metrics as collector_metrics
from producers import metrics as agent_metrics
from producers.relay import metrics as relay_metrics
from schemas import metrics_address
from schemas.metrics import Type

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "hypocenter.rules.yml"
CASES = HERE / "hypocenter.rules.test.yml"
README = (ROOT / "deploy" / "README.md").read_text()
FAMILIES = (*agent_metrics.FAMILIES, *relay_metrics.FAMILIES, *collector_metrics.FAMILIES, *alert_metrics.FAMILIES)
#: What a name in a query may be.
SAMPLES = {each.name for each in FAMILIES if each.type != Type.HISTOGRAM} | {
    each.name + suffix for each in FAMILIES if each.type == Type.HISTOGRAM for suffix in ("_bucket", "_sum", "_count")
}
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())


def promtool(*words, text=None):
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "promtool is missing: make setup-rules"
        pytest.skip("promtool is missing: Debian's package prometheus has it, make setup-rules installs it")
    done = subprocess.run(["promtool", *map(str, words)], input=text, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return (done.stdout + done.stderr).decode()


def names_in(text):
    return set(re.findall(r"\bhypocenter_(?:agent|relay|collector|alert)_\w+", text))


def test_the_rules_and_what_to_scrape_are_valid():
    promtool("check", "rules", RULES)
    promtool("check", "config", FOLDER / "prometheus.yml")


def test_the_rules_do_what_their_cases_say():
    assert "SUCCESS" in promtool("test", "rules", CASES)


def test_every_rule_has_a_case_in_which_it_fires():
    fired = set(re.findall(r"labels: '\{alertname=\"(\w+)\"\}'", CASES.read_text()))
    assert fired == set(ALERTS)
    assert len(set(ALERTS)) == len(ALERTS)


def test_every_alert_has_an_answer_in_the_readme_and_no_other_has():
    rows = re.findall(r"^\| (`Hypocenter\w+`(?:, `\w+`)*) \|", README, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == ALERTS


def test_every_metric_of_the_rules_exists():
    assert names_in(RULES.read_text()) <= SAMPLES
    assert names_in(CASES.read_text()) <= SAMPLES


def test_names_are_as_prometheus_wants_them():
    texts = [
        collector_metrics.CollectorMetrics().text(),
        alert_metrics.AlertMetrics(["pager"]).text(),
    ]
    for text in texts:
        promtool("check", "metrics", text=text)
    for each in FAMILIES:
        assert each.name.endswith("_total") == (each.type == Type.COUNTER)
        assert each.help.endswith(".")
    assert len({each.name for each in FAMILIES}) == len(FAMILIES)


def test_the_tables_of_the_readme_are_the_families():
    rows = re.findall(r"^\| `(hypocenter_\w+)` \| (\w+) \| (.*?) ?\| (.*) \|$", README, re.MULTILINE)
    said = {name: (type_, tuple(re.findall(r"`(\w+)`", labels)), text) for name, type_, labels, text in rows}
    assert said == {each.name: (each.type.value, each.labels, each.help) for each in FAMILIES}
    assert len(rows) == len(said)


def test_the_ports_are_those_of_the_programs():
    text = (FOLDER / "prometheus.yml").read_text()
    targets = dict(re.findall(r"job_name: (\S+)\n\s+static_configs: \[\{targets: \[\"([^\"]+)\"\]\}\]", text))
    assert targets == {
        "hypocenter-agent": metrics_address.AGENT,
        "hypocenter-collector": metrics_address.COLLECTOR,
        "hypocenter-alert": metrics_address.ALERT,
        "hypocenter-relay": metrics_address.RELAY,
    }
    assert all(address in README for address in targets.values())
