"""Policies, intents, playbooks, runners, verification and the audit ledger."""
