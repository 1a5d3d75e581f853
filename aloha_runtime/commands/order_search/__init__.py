"""An exhaustive search for motion that no operator has asked for: the real mode machine and pilots, every order of
pauses, restarts, lost and late messages up to a depth."""
