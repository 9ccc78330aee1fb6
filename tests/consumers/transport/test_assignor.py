"""Sharing out partitions: every one once, every topic evenly, and nothing moves without need."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.coordinator.assignors.abstract import RebalanceProtocol
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription

from consumers.transport.assignor import PerTopicAssignor, shared_out

_MEMBERS = st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1)
_TOPICS = st.dictionaries(st.sampled_from(["log", "state", "trace", "bpf"]), st.integers(0, 12), min_size=1)


@st.composite
def _groups(draw):
    topics = {topic: range(count) for topic, count in draw(_TOPICS).items()}
    members = draw(_MEMBERS)
    owned = {}
    for topic, numbers in topics.items():
        for number in numbers:
            # Also of members that are gone; and some of nobody.
            owner = draw(st.sampled_from([*"abcdefg", None]))
            if owner:
                owned.setdefault(owner, {}).setdefault(topic, []).append(number)
    return topics, members, owned


def _spread(counts):
    return max(counts) - min(counts)


@given(_groups())
def test_every_partition_once_and_every_topic_evenly(group):
    topics, members, owned = group
    found = shared_out(topics, {member: list(topics) for member in members}, owned)
    for topic, numbers in topics.items():
        assert sorted(n for each in found.values() for n in each[topic]) == list(numbers)
        assert _spread([len(each[topic]) for each in found.values()]) <= 1
    assert _spread([sum(map(len, each.values())) for each in found.values()]) <= 1


@given(_groups())
def test_what_was_shared_out_stays_and_an_owner_keeps_its_share(group):
    topics, members, owned = group
    subscribed = {member: list(topics) for member in members}
    found = shared_out(topics, subscribed, owned)
    assert shared_out(topics, subscribed, found) == found
    for member in members:
        for topic in topics:
            had, has = owned.get(member, {}).get(topic, []), found[member][topic]
            assert set(has) <= set(had) or set(had) <= set(has)


def test_a_topic_goes_to_those_alone_who_read_it():
    found = shared_out({"log": range(4), "state": range(2)}, {"a": ["log"], "b": ["log", "state"], "c": []}, {})
    assert found == {"a": {"log": [0, 1]}, "b": {"log": [2, 3], "state": [0, 1]}, "c": {}}


def test_topics_of_one_partition_are_divided_among_the_members():
    found = shared_out(
        {"bpf": [0], "log": [0]}, {"a": ["bpf", "log"], "b": ["bpf", "log"]}, {"a": {"bpf": [0], "log": [0]}}
    )
    assert found == {"a": {"bpf": [0], "log": []}, "b": {"bpf": [], "log": [0]}}


class _Group:
    """Members as the group's leader sees them: each claims what it was given."""

    def __init__(self, topics):
        self.cluster = SimpleNamespace(
            partitions_for_topic=lambda topic: set(topics[topic]) if topic in topics else None
        )
        self.topics = list(topics)
        self.owned = {}
        self.generation = 0

    def rebalance(self):
        members = []
        for member, owned in self.owned.items():
            claims = [ConsumerProtocolSubscription.TopicPartition(topic=t, partitions=n) for t, n in owned.items()]
            metadata = ConsumerProtocolSubscription(
                version=2, topics=self.topics, user_data=b"", owned_partitions=claims, generation_id=self.generation
            )
            decoded = ConsumerProtocolSubscription.decode(metadata.encode())
            members.append(SimpleNamespace(member_id=member, group_instance_id=None, metadata=decoded))
        found = PerTopicAssignor().assign(self.cluster, members)
        before = {
            (t, n): member for member, owned in self.owned.items() for t, numbers in owned.items() for n in numbers
        }
        self.generation += 1
        self.owned = {member: dict(each.assigned_partitions) for member, each in found.items()}
        for member, owned in self.owned.items():
            for topic, numbers in owned.items():
                assert all(before.get((topic, number), member) == member for number in numbers)
        return self.owned


def test_a_new_member_gets_its_half_of_each_topic_in_the_second_round():
    group = _Group({"log": range(4), "state": range(4)})
    group.owned = {"a": {}}
    assert group.rebalance() == {"a": {"log": [0, 1, 2, 3], "state": [0, 1, 2, 3]}}
    group.owned["b"] = {}
    assert group.rebalance() == {"a": {"log": [0, 1], "state": [0, 1]}, "b": {}}
    assert group.rebalance() == {"a": {"log": [0, 1], "state": [0, 1]}, "b": {"log": [2, 3], "state": [2, 3]}}
    del group.owned["a"]
    assert group.rebalance() == {"b": {"log": [0, 1, 2, 3], "state": [0, 1, 2, 3]}}


def test_a_topic_that_does_not_exist_is_given_to_nobody():
    group = _Group({"log": [0]})
    group.topics.append("state")
    group.owned = {"a": {}}
    assert group.rebalance() == {"a": {"log": [0]}}


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_claims_the_later_generations_counts(order):
    claims = [
        SimpleNamespace(
            member_id=member,
            metadata=SimpleNamespace(
                topics=["log"],
                generation_id=generation,
                owned_partitions=[SimpleNamespace(topic="log", partitions=[0, 1])],
            ),
        )
        for member, generation in (("a", 3), ("b", 7))
    ][::order]
    found = PerTopicAssignor().assign(SimpleNamespace(partitions_for_topic=lambda _: {0, 1}), claims)
    assert {member: dict(each.assigned_partitions) for member, each in found.items()} == {"a": {}, "b": {"log": [0]}}


def test_it_rebalances_as_what_it_replaces_does():
    assert PerTopicAssignor().supported_protocols() == [RebalanceProtocol.COOPERATIVE]
    assert PerTopicAssignor.name == "cooperative-sticky"
