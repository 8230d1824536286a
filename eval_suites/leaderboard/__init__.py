"""Tables made of records: who measured what, on what, and which differences are more than chance."""
