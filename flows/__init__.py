"""The dataflows, settings and command line: wiring only."""
