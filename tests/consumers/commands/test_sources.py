import argparse
from pathlib import Path

import pytest

from consumers.commands import sources
from consumers.transport.log import DirectoryReader
from schemas.config import CollectConfig, Config, LogConfig
from schemas.errors import UsageError
from schemas.kafka_config import KafkaConfig

KAFKA = KafkaConfig("file:1", client_id="mine")


def parsed(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--lake", type=Path)
    sources.add_source(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "kafka", "wanted"),
    [
        ([], None, None),
        ([], KAFKA, KAFKA),
        (["--kafka", "flag:2"], None, KafkaConfig("flag:2")),
        (["--kafka", "flag:2"], KAFKA, KafkaConfig("flag:2", client_id="mine")),
        (["--log", "x"], KAFKA, None),
    ],
)
def test_a_flag_overrides_the_file_and_keeps_the_files_other_keys(words, kafka, wanted):
    assert sources.kafka_config(parsed(*words), Config(kafka=kafka)) == wanted


@pytest.mark.parametrize(
    ("words", "config", "wanted"),
    [
        ([], Config(), False),
        ([], Config(log=LogConfig(dir=Path("x"))), True),
        ([], Config(kafka=KAFKA), True),
        (["--log", "x"], Config(), True),
    ],
)
def test_whether_a_log_is_named(words, config, wanted):
    assert sources.names_source(parsed(*words), config) is wanted


def test_the_flags_log_is_read_before_the_files(sample_log, tmp_path):
    config = Config(log=LogConfig(dir=tmp_path / "none"), kafka=KAFKA)
    reader = sources.open_reader(parsed("--log", str(sample_log)), config)
    assert isinstance(reader, DirectoryReader)
    reader.close()


def test_the_flags_lake_is_taken_before_the_files():
    config = Config(collect=CollectConfig(lake=Path("file")))
    assert sources.lake_of(parsed("--lake", "flag"), config) == Path("flag")
    assert sources.lake_of(parsed(), config) == Path("file")
    with pytest.raises(UsageError, match="which lake"):
        sources.lake_of(parsed(), Config())


def test_a_file_is_read_and_a_wrong_one_refused(tmp_path):
    assert sources.read_config(parsed()) == Config()
    (tmp_path / "x.toml").write_text("[collect]\ncut_row = 7\n")
    with pytest.raises(UsageError, match=r"unknown key collect\.cut_row; the nearest valid one is collect\.cut_rows"):
        sources.read_config(parsed("--config", str(tmp_path / "x.toml")))
