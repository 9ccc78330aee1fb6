"""One decoder per surface: bodies in, Arrow columns and typed errors out. No file, socket or clock inside."""
