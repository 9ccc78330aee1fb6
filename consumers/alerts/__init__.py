"""From the log to people: incidents are raised, told and stored, exactly once each, however often this is killed."""
