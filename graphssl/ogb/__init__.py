"""Entries of OGB's leaderboards."""

from graphssl.ogb.asked import parse_tuning
from graphssl.ogb.entry import Submission, leaderboard

__all__ = ["Submission", "leaderboard", "parse_tuning"]
