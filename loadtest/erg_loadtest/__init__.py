"""Erg's load tester: measures any server of the v2 inference protocol, from the outside."""
