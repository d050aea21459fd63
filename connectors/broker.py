"""A real single-node Kafka on this machine, for a person at a keyboard and for tests; needs Java, not Docker.

The broker's jars come from Maven Central once and are kept in the user's cache. Not here: production clusters.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.1.1"
_SLF4J_VERSION: Final = "1.7.36"  # the line Kafka's own jars are built against
_MIN_JAVA: Final = 17  # what Kafka 4 brokers need
_HOST: Final = "127.0.0.1"
_STEP_TIMEOUT_S: Final = 300.0  # a first download on a slow line

_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.mendstream</groupId><artifactId>local-kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{kafka}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{slf4j}</version></dependency>
  </dependencies>
</project>
"""

_PROPERTIES: Final = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
num.partitions=1
auto.create.topics.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
"""


class BrokerError(RuntimeError):
    """The local broker cannot be had or will not start; the message says what to install or change."""


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """A running local broker."""

    bootstrap_servers: str  # "127.0.0.1:PORT"
    process: subprocess.Popen[bytes]
    log_file: Path

    def stop(self, timeout_s: float = 20.0) -> None:
        """End the broker: asked first, killed when it does not go within ``timeout_s``."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def java_version() -> int | None:
    """Major version of the ``java`` on the path, None when there is none."""
    java = shutil.which("java")
    if java is None:
        return None
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - fixed words
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found.group(1)) if found else None


def require_java() -> None:
    """Raise ``BrokerError`` unless a Java that can run the broker is on the path."""
    version = java_version()
    if version is None or version < _MIN_JAVA:
        seen = "none was found on the PATH" if version is None else f"the one on the PATH is {version}"
        raise BrokerError(
            f"a local Kafka needs Java {_MIN_JAVA} or newer, and {seen}; install one (Debian and Ubuntu: "
            f"'apt install openjdk-17-jre-headless maven', macOS: 'brew install openjdk maven'), or point "
            f"KAFKA_BOOTSTRAP_SERVERS at a broker you have"
        )


def cache_dir() -> Path:
    """Where downloaded brokers are kept: ``$XDG_CACHE_HOME/mendstream``, by default ``~/.cache/mendstream``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mendstream"


def fetch_jars(version: str = KAFKA_VERSION, *, cache: Path | None = None) -> Path:
    """The folder of the broker's jars, downloaded with Maven (about 54 MB) the first time.

    Raises:
        BrokerError: Maven is missing, or the download failed.
    """
    home = (cache or cache_dir()) / f"kafka-{version}"
    if home.is_dir():
        return home
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(
            "the local Kafka's jars come through Maven, and 'mvn' is not on the PATH; install it (Debian and Ubuntu: "
            "'apt install maven', macOS: 'brew install maven'), or point KAFKA_BOOTSTRAP_SERVERS at a broker you have"
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as work:
        (Path(work) / "pom.xml").write_text(_POM.format(kafka=version, slf4j=_SLF4J_VERSION), encoding="utf-8")
        command = [maven, "-q", "-B", "-C", "dependency:copy-dependencies", "-DoutputDirectory=libs"]
        _run(command, cwd=Path(work), doing=f"downloading Kafka {version} through Maven")
        try:
            (Path(work) / "libs").rename(home)
        except OSError:
            # Another process was quicker; its copy is as good as ours.
            if not home.is_dir():
                raise
    return home


def start_broker(
    data: Path, *, port: int | None = None, heap: str = "1g", ready_timeout_s: float = 60.0
) -> LocalBroker:
    """Start a broker that keeps its topics under ``data`` and wait until it answers.

    Args:
        data: Folder for logs and topics; a folder used before keeps its topics.
        port: Port to listen on at 127.0.0.1; a free one when None.
        heap: Java heap size.
        ready_timeout_s: How long it may take to answer.

    Raises:
        BrokerError: Java or Maven is missing, the port is taken, or the broker did not come up.
    """
    require_java()
    jars = fetch_jars()
    data.mkdir(parents=True, exist_ok=True)
    port = _free_port() if port is None else port
    _require_free(port)
    properties = data / "server.properties"
    properties.write_text(
        _PROPERTIES.format(host=_HOST, port=port, controller_port=_free_port(), logs=data / "topics"), encoding="utf-8"
    )
    java = [shutil.which("java") or "java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
    if not (data / "topics" / "meta.properties").exists():
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # A leading dash would be read as an option.
        cluster = "A" + cluster[1:]
        command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        _run(command, cwd=data, doing="formatting the broker's storage")
    log_file = data / "broker.log"
    with log_file.open("wb") as log:
        # A session of its own: Ctrl-C reaches us first, and we stop the broker in order.
        process = subprocess.Popen(  # noqa: S603 - fixed words and our own paths
            [*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log, cwd=data, start_new_session=True
        )
    broker = LocalBroker(f"{_HOST}:{port}", process, log_file)
    try:
        _wait_ready(broker, ready_timeout_s)
    except BaseException:
        broker.stop()
        raise
    return broker


@contextmanager
def local_broker(*, port: int | None = None, heap: str = "1g") -> Iterator[LocalBroker]:
    """A broker with throw-away storage for the length of a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="mendstream-kafka-", ignore_cleanup_errors=True) as folder:
        broker = start_broker(Path(folder), port=port, heap=heap)
        try:
            yield broker
        finally:
            broker.stop()


def _wait_ready(broker: LocalBroker, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        text = broker.log_file.read_text(encoding="utf-8", errors="replace")
        if broker.process.poll() is not None:
            raise BrokerError(f"the broker ended at start; the end of {broker.log_file}:\n{_tail(text)}")
        if "Kafka Server started" in text:
            return
        time.sleep(0.1)
    raise BrokerError(f"the broker did not come up in {timeout_s:.0f} s; see {broker.log_file}")


def _run(command: list[str], *, cwd: Path, doing: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and our own paths
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=_STEP_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise BrokerError(
            f"{doing} took longer than {_STEP_TIMEOUT_S:.0f} s; check the network and try again"
        ) from error
    if done.returncode != 0:
        raise BrokerError(f"{doing} failed:\n{_tail(done.stdout + done.stderr)}")


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise BrokerError(f"port {port} on {_HOST} is taken; choose another with --port") from error
