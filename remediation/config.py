"""Settings of the remediation room."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

LIBRARY: Final = Path(__file__).parent / "library"


class RemediationConfig(BaseModel):
    """Where policies, playbooks and records are, and how the executor behaves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(default="/mendstream", description="CloudEvents source of intents and outcomes")
    database: str = Field(
        default="sqlite:///mendstream.sqlite3", description="Where incidents, intents and the ledger are kept"
    )
    policy: Path = Field(default=LIBRARY / "policy.yaml", description="The remediation policy")
    playbooks: Path = Field(default=LIBRARY, description="Folder of playbooks (*.yaml); their files lie below it")
    inventory: Path | None = Field(
        default=None, description="Ansible inventory, written by operators; what playbooks may touch and how"
    )
    kill_switch_file: Path | None = Field(default=None, description="While this file exists, nothing acts")
    executor_id: str = Field(
        default="",
        description="Name of this executor, the same after a restart and unlike any other's on the same database; "
        "empty: the host's name",
    )
    consumer_group: str = Field(
        default="mendstream-remediate", min_length=1, description="Kafka consumer group of the executors"
    )
    lease_margin_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0,
        description="Seconds beyond the sum of the steps' timeouts after which another executor's run counts as dead",
    )
    poll_s: Annotated[float, Field(gt=0, le=60)] = Field(
        default=1.0, description="Seconds between looks for approvals, expiries and new intents"
    )

    @property
    def executor(self) -> str:
        """The executor's name."""
        return self.executor_id or socket.gethostname()
