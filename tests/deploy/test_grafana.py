"""The dashboard: every query is PromQL over metrics that exist, and no metric but those that say who they are is left out."""

import json
import re
from pathlib import Path

from tests.deploy.test_prometheus import FAMILIES, SAMPLES, names_in, promtool

PATH = Path(__file__).parents[2] / "deploy" / "grafana" / "hypocenter.json"
BOARD = json.loads(PATH.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
#: Not drawn: what a panel would show as a constant, and what rules alone compare with.
LEFT_OUT = {"_build_info", "_start_time_seconds", "_heartbeat_interval_seconds", "_shipped_timestamp_seconds"} | {
    "_alert_targets"
}


def test_every_metric_that_is_drawn_exists():
    assert names_in(" ".join(QUERIES)) <= SAMPLES


def test_every_metric_is_drawn():
    drawn = " ".join(QUERIES)
    missing = [each.name for each in FAMILIES if not re.search(rf"\b{each.name}(?:_bucket)?\b", drawn)]
    assert [name for name in missing if not name.endswith(tuple(LEFT_OUT))] == []


def test_every_query_is_one(tmp_path):
    rules = [
        {"record": f"a:b{n}", "expr": query.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for n, query in enumerate(QUERIES)
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))  # JSON is YAML
    assert f"{len(QUERIES)} rules found" in promtool("check", "rules", path)


def test_panels_have_places_of_their_own_and_the_chosen_source():
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    sources = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert sources == {"${datasource}"}
    assert {each["name"] for each in BOARD["templating"]["list"]} == {"datasource", "instance"}
