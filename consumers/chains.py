"""A partition's chain in the lake, by the log that it is of."""

from consumers.lake.chain import Chain
from consumers.lake.storage import Storage
from consumers.transport.base import LogReader, Partition
from schemas.errors import UnavailableError


def chain_of(reader: LogReader, storage: Storage, partition: Partition, prefix: str = "") -> Chain:
    """Return the chain of `partition` of the log of `reader`; `prefix` begins the name of an alerter's.

    Raises:
        StorageError, UnavailableError: lake or log cannot be read.
    """
    return Chain(
        storage,
        prefix + partition.topic,
        partition.number,
        log_id=reader.log_id(),
        topic_id=reader.topic_id(partition.topic),
        first_offset=reader.start_offset(partition),
    )


def replaced(reader: LogReader, partition: Partition, chain: Chain) -> bool:
    """Return whether the topic of `chain` was deleted and made again; False while nobody can say: ask again later."""
    try:
        return reader.topic_id(partition.topic) != chain.topic_id
    except UnavailableError:
        return False
