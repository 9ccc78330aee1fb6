"""A partition's chain in the lake, by the log that it is of."""

import logging

from consumers.lake.chain import Chain
from consumers.lake.storage import Storage
from consumers.lake.writer import CommitWriter
from consumers.transport.base import LogReader, LogWentBackError, Partition
from schemas.errors import UnavailableError

log = logging.getLogger(__name__)


def chain_of(
    reader: LogReader, storage: Storage, partition: Partition, prefix: str = "", *, went_back: bool = False
) -> Chain:
    """Return the chain of `partition` of the log of `reader`; `prefix` begins the name of an alerter's.

    Where the log ends below the chain's end, or `went_back` says that it did, it is closed, and the next one opened.

    Raises:
        StorageError, UnavailableError: lake or log cannot be read.
    """
    chain = Chain(
        storage,
        prefix + partition.topic,
        partition.number,
        log_id=reader.log_id(),
        topic_id=reader.topic_id(partition.topic),
        first_offset=reader.start_offset(partition),
    )
    stored = chain.load().frontier
    end = reader.end_offset(partition)  # asked after: whoever commits meanwhile had read it
    if end < stored and not went_back:
        log.error("%s", LogWentBackError(partition, end))
    if end < stored or went_back:
        CommitWriter(storage).close(chain)
    return chain


def replaced(reader: LogReader, partition: Partition, chain: Chain) -> bool:
    """Return whether the topic of `chain` was deleted and made again; False while nobody can say: ask again later."""
    try:
        return reader.topic_id(partition.topic) != chain.topic_id
    except UnavailableError:
        return False
