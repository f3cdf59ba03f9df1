"""What a user may write (schema), and reading it so that every mistake is named with file, line and column (load)."""
