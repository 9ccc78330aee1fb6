import re

import pytest

from consumers.decode.registry import decoder_for
from schemas import limits
from schemas.errors import UsageError
from schemas.surfaces import HEARTBEAT_ENCODING, HEARTBEAT_VERSION, SURFACES, TOPICS, surface


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_a_name_that_kafka_takes(topic):
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic)
    assert topic not in (".", "..")
    # Kafka's metrics do not tell a dot from an underscore.
    assert [each.replace("_", ".") for each in TOPICS].count(topic.replace("_", ".")) == 1


@pytest.mark.parametrize("row", SURFACES.values(), ids=SURFACES)
def test_a_surface_is_found_by_its_name_and_decoded_by_its_encoding(row):
    assert surface(row.name) is row
    assert decoder_for(row.encoding, row.encoding_version).POSITION
    assert row.encoding != HEARTBEAT_ENCODING
    assert all(0 < len(text.encode()) <= limits.TEXT_BYTES_MAX for text in (row.name, row.encoding, row.clock))


def test_heartbeats_are_decoded():
    assert decoder_for(HEARTBEAT_ENCODING, HEARTBEAT_VERSION).POSITION


def test_an_unknown_surface_is_answered_with_those_that_exist():
    with pytest.raises(UsageError, match=r"no surface 'kmesg'; there is: kmsg"):
        surface("kmesg")
