"""Kills exactly there: one test for each row of DESIGN.md's table "What survives what"."""
