"""Who of a consumer group reads which partitions: as many of each topic as anybody else.

Kafka's cooperative-sticky assignor balances the number of partitions, whatever is in them: one member may get the log
of every machine and another all states. Here each topic is shared out by itself, and who has least gets one more.

Source: KIP-429 (Kafka Incremental Consumer Rebalance): what moves is given to nobody in the first round, which its
owner takes as its revocation; the second round gives it away.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment

_Numbers = Mapping[str, Sequence[int]]
_VERSION: Final = CooperativeStickyAssignor.version


def shared_out(
    topics: _Numbers, subscribed: Mapping[str, Sequence[str]], owned: Mapping[str, _Numbers]
) -> dict[str, dict[str, list[int]]]:
    """Return what each member is to read, by member and topic.

    `topics` has the partitions of each topic, `subscribed` the topics of each member, `owned` what it reads by now. Of
    a topic no member gets two more than another, and where all read the same topics that holds for their sums as well.
    Whoever has a partition keeps it as far as that allows: sharing out again what was shared out changes nothing.
    """
    found: dict[str, dict[str, list[int]]] = {member: {} for member in subscribed}
    sums = dict.fromkeys(subscribed, 0)
    for topic, numbers in sorted(topics.items()):
        members = sorted(member for member in subscribed if topic in subscribed[member])
        if not members:
            continue
        # Of those that exist; what two have is the first one's.
        kept: dict[str, list[int]] = {}
        free = set(numbers)
        for member in members:
            kept[member] = sorted(free.intersection(owned.get(member, {}).get(topic, ())))
            free.difference_update(kept[member])
        least, more = divmod(len(numbers), len(members))
        members.sort(key=lambda member: (sums[member], -len(kept[member])))
        rooms = {member: least + (i < more) for i, member in enumerate(members)}
        for member, room in rooms.items():
            free.update(kept[member][room:])
        left = sorted(free)
        for member, room in rooms.items():
            mine = kept[member][:room]
            mine += left[: room - len(mine)]
            left = left[room - len(kept[member][:room]) :]
            found[member][topic] = sorted(mine)
            sums[member] += room
    return found


class PerTopicAssignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """`shared_out` in the two rounds of a cooperative rebalance.

    Under the name of what it replaces: who leads the group decides for all, and members of both kinds get along.
    """

    def assign(self, cluster: Any, members: Any) -> dict[str, ConsumerProtocolAssignment]:
        """Return the next assignment of `members` (JoinGroupResponseMember), by member."""
        known = {member.member_id: self.parse_member_metadata(member.metadata) for member in members}
        owned: dict[str, dict[str, list[int]]] = {member: {} for member in known}
        owner: dict[tuple[str, int], tuple[int, str]] = {}
        for member, metadata in known.items():
            for at in metadata.partitions:
                claim = (metadata.generation, member)
                owner[at] = max(owner.get(at, claim), claim)
        for (topic, number), (_, member) in owner.items():
            owned[member].setdefault(topic, []).append(number)
        subscribed = {member: metadata.subscription for member, metadata in known.items()}
        topics = {topic: cluster.partitions_for_topic(topic) or () for topic in set().union(*subscribed.values())}
        return {
            member: ConsumerProtocolAssignment(_VERSION, _now(found, member, owner), b"")
            for member, found in shared_out(topics, subscribed, owned).items()
        }


# What nobody else has: it is given up first.
def _now(
    found: Mapping[str, list[int]], member: str, owner: Mapping[tuple[str, int], tuple[int, str]]
) -> list[tuple[str, list[int]]]:
    free = {
        topic: [number for number in numbers if owner.get((topic, number), (0, member))[1] == member]
        for topic, numbers in found.items()
    }
    return sorted((topic, numbers) for topic, numbers in free.items() if numbers)
