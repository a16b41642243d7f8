"""The example site and its one app."""
