"""One Kafka broker (KRaft, one node, loopback) for the tests and the one-machine trial. Standard library only.

`start` prints the bootstrap address when the broker answers; `stop` ends it by its process id; `run` stays in front.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
LIBS: Final = HERE.parent.parent / ".cache" / "kafka-libs"
_START_S: Final = 90.0
_STOP_S: Final = 20.0


class BrokerError(Exception):
    """The broker cannot be had; the text is one sentence with the remedy."""


def fetch_jars() -> None:
    """Put the broker's jars into the checkout's cache, once.

    Raises:
        BrokerError: Java or Maven is missing, or the jars cannot be had.
    """
    if shutil.which("java") is None:
        raise BrokerError("no Java runtime: run `make setup-kafka` (Debian: default-jre-headless maven)")
    if LIBS.exists():
        return
    if shutil.which("mvn") is None:
        raise BrokerError("no Maven to fetch the broker's jars: run `make setup-kafka` (Debian: maven)")
    part = LIBS.with_name(f"{LIBS.name}.{os.getpid()}")
    command = [
        "mvn",
        "-q",
        "-B",
        "-f",
        str(HERE / "pom.xml"),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={part}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        raise BrokerError(f"Maven could not fetch the broker's jars: {done.stdout.strip()[-500:]}")
    part.rename(LIBS)


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configure(base: Path, port: int, tls: Path | None, user: str | None, tls_port: int = 0) -> None:
    """Write `base`/server.properties and format the storage; nothing if that was done before.

    `tls` is a PEM file of key and certificate chain; with it and `user` ("name:password") a second listener on
    `tls_port` speaks SASL_SSL with SCRAM-SHA-512.
    """
    base.mkdir(parents=True, exist_ok=True)
    if (base / "data" / "meta.properties").exists():
        return
    listeners = f"PLAINTEXT://127.0.0.1:{port}"
    extra, scram = "", []
    if tls and user:
        listeners += f",SASL_SSL://127.0.0.1:{tls_port}"
        extra = (
            "sasl.enabled.mechanisms=SCRAM-SHA-512\n"
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config="
            "org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
            f"ssl.keystore.type=PEM\nssl.keystore.location={tls}\n"
        )
        name, _, password = user.partition(":")
        scram = ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
    controller_port = free_port()
    text = (HERE / "server.properties").read_text(encoding="utf-8")
    text = text.format(
        controller_port=controller_port,
        listeners=f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
        advertised=listeners,
        data_dir=base / "data",
    )
    (base / "server.properties").write_text(text + extra, encoding="utf-8")
    (base / "port").write_text(f"{port}\n", encoding="utf-8")
    identity = subprocess.run(
        [*_java(), "kafka.tools.StorageTool", "random-uuid"], capture_output=True, text=True, check=True
    )
    tool = [*_java(), "kafka.tools.StorageTool", "format", "-t", identity.stdout.split()[-1], "-c"]
    done = subprocess.run([*tool, str(base / "server.properties"), *scram], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BrokerError(f"formatting {base} failed: {(done.stderr or done.stdout).strip()[-500:]}")


def start(base: Path) -> str:
    """Start the broker configured in `base` and return its bootstrap address once it answers.

    Raises:
        BrokerError: it ended or did not answer in time; the text has the end of its log.
    """
    port = int((base / "port").read_text(encoding="utf-8"))
    if _pid(base) is not None:
        return f"127.0.0.1:{port}"
    with (base / "broker.log").open("ab") as out:
        process = subprocess.Popen(
            [*_java(), "kafka.Kafka", str(base / "server.properties")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    (base / "pid").write_text(f"{process.pid}\n", encoding="utf-8")
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if answers(port):
            # The broker outlives this command on purpose.
            process.returncode = 0
            return f"127.0.0.1:{port}"
        time.sleep(0.2)
    tail = (base / "broker.log").read_text(encoding="utf-8", errors="replace")[-800:]
    stop(base)
    raise BrokerError(f"the broker in {base} did not start: {tail}")


def answers(port: int) -> bool:
    """Tell whether a broker replies to a metadata request (version 1) and names itself."""
    request = struct.pack(">hhih5si", 3, 1, 7, 5, b"probe", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
            link.sendall(struct.pack(">i", len(request)) + request)
            reply = link.recv(12, socket.MSG_WAITALL)
    except OSError:
        return False
    # length, correlation, number of brokers
    return len(reply) == 12 and struct.unpack(">iii", reply)[2] > 0


def stop(base: Path, number: signal.Signals = signal.SIGTERM) -> None:
    """End the broker of `base` with signal `number`, by SIGKILL when it takes too long."""
    pid = _pid(base)
    if pid is None:
        return
    os.kill(pid, number)
    deadline_s = time.monotonic() + _STOP_S
    while _pid(base) is not None:
        if time.monotonic() > deadline_s:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    (base / "pid").unlink(missing_ok=True)


# The process id of a broker that lives; a recycled id of something else does not count.
def _pid(base: Path) -> int | None:
    try:
        pid = int((base / "pid").read_text(encoding="utf-8"))
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(base).encode() in command else None


def _java() -> list[str]:
    options = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return ["java", *options, f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", "-cp", f"{LIBS}/*"]


def main() -> int:
    """Run one of the three actions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("start", "stop", "run", "setup"))
    parser.add_argument("--dir", type=Path, default=Path("var/kafka"), help="the broker's data [var/kafka]")
    parser.add_argument("--port", type=int, default=9092, help="where it listens; 0 takes a free port [9092]")
    args = parser.parse_args()
    base = args.dir.resolve()
    try:
        if args.action == "stop":
            stop(base)
            return 0
        fetch_jars()
        if args.action == "setup":
            return 0
        configure(base, args.port or free_port(), None, None)
        print(start(base), flush=True)
    except BrokerError as e:
        print(f"broker.py: {e}", file=sys.stderr)
        return 69
    if args.action == "run":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        stop(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
