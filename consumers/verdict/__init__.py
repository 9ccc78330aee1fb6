"""Which layer owned an incident: evidence with its coverage, a decision table, and a pure function over both."""
