"""Why an answer says what it says: causes, each proved by leaving it out."""
