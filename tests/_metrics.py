"""Metrics as a scraper reads them: Prometheus's own client parses the text."""

import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def parse(text):
    """Return {(name, labels as sorted pairs): value} of a text of metrics; none may be there twice."""
    samples = [each for family in text_string_to_metric_families(text.decode()) for each in family.samples]
    found = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples}
    assert len(found) == len(samples)
    return found


def scrape(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Scraped(parse(answer.read()))


def url_of(running):
    """Return where the process `running` says that its metrics are."""
    running.said("metrics are at")
    return re.search(r"metrics are at (http://[^\"\s]+)", running.err)[1]


class Scraped(dict):
    """Values by (name, labels)."""

    def one(self, name, **labels):
        return self[name, tuple(sorted(labels.items()))]

    def total(self, name, **labels):
        """Return the sum over all label sets that have `labels`; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for (each, found), value in self.items() if each == name and wanted <= set(found))

    def by(self, name, label):
        """Return the sums of `name` by the values of one label."""
        sums = {}
        for (each, found), value in self.items():
            if each == name:
                key = dict(found)[label]
                sums[key] = sums.get(key, 0) + value
        return sums
