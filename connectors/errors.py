"""Errors of sources and sinks; each message says what is wrong and what to do about it."""

from __future__ import annotations


class ConnectorError(Exception):
    """Base of every error raised by a source or a sink."""


class TopicError(ConnectorError):
    """An input topic does not exist or may not be read."""


class OffsetOutOfRangeError(ConnectorError):
    """The offset to resume from is no longer (or not yet) in the topic."""


class DeliveryError(ConnectorError):
    """A record could not be delivered; it was not written and not dropped silently."""


class RecordingError(ConnectorError):
    """A folder is no recording, or its files do not have the recording format's columns."""


class OtlpFileError(ConnectorError):
    """A file of OTLP messages cannot be framed: a length or a compressed frame makes no sense."""


class CloudEventError(ValueError):
    """A message is no usable CloudEvent; the text is the dead letter's reason."""
