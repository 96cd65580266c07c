"""The exceptions of the package: one class per idea that a caller may want to catch, all of them ``CGError``."""

from __future__ import annotations


class CGError(ValueError):
    """Base class of every error this package raises on bad input; the message names what is wrong and what to do."""


class GraphError(CGError):
    """A graph breaks a structural rule (cycle, arity, shapes, reachability); the message names the node."""


class StorageError(CGError):
    """A file is missing, truncated, corrupt, or of another format version; the message names the file."""


class LabelError(CGError):
    """Labels cannot be used (NaN, too few, wrong length); the message names the first bad row."""


class LeakageError(CGError):
    """Test graphs are among the labelled ones, so a measured score would not mean anything."""


class UnknownOpError(GraphError):
    """A graph holds ``Unknown`` nodes, which carry no meaning for a learned model."""
