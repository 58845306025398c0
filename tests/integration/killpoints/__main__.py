"""The entry point of a program that is to be killed by its own hand."""

import sys

from tests.integration.killpoints.entry import main

main(*sys.argv[1:])
